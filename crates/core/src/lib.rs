//! The decisions of fedgate, and its reading of untrusted input: bytes and text in, an answer out.
//!
//! The one rule: nothing here waits, reads a file, opens a socket or looks at a clock. A decision takes what it needs
//! as an argument, so every law can be tested over generated input, and fuzzed in a build of half a minute.
//!
//! From the text of a policy file to a decision:
//!
//! ```
//! use fedgate_core::policy::{DenyReason, Method, PolicyDecision, PolicyQuestion, PolicyReach, PolicySet};
//!
//! let policy = PolicySet::parse(br#"[
//!     {"role": "end_user", "permissions": {"GET": ["person"], "global": false}},
//!     {"role": "health_professional", "permissions": {"GET": ["person", "page"], "global": true}}
//! ]"#)?;
//!
//! let roles = ["end_user".to_owned()];
//! let question = |subject, endpoint| PolicyQuestion {
//!     principal: "ITAPYT999HON".into(),
//!     roles: &roles,
//!     method: Method::Get,
//!     endpoint,
//!     subject: Some(subject),
//! };
//! // Her own record, another person's, and what no role of hers lists.
//! let decide = |subject, endpoint| policy.decide(question(subject, endpoint));
//! assert_eq!(decide("ITAPYT999HON", "person"), PolicyDecision::Allow(PolicyReach::Own));
//! assert_eq!(decide("ESPGNU777ORG", "person"), PolicyDecision::Deny(DenyReason::NotOwn));
//! assert_eq!(decide("ITAPYT999HON", "page"), PolicyDecision::Deny(DenyReason::NotGranted));
//!
//! // A file with any fault is refused as a whole.
//! assert!(PolicySet::parse(br#"[{"role": "end_user", "permissions": {"GET": "person"}}]"#).is_err());
//! # Ok::<(), fedgate_core::policy::PolicyError>(())
//! ```

#![forbid(unsafe_code)]

pub mod methods;
pub mod codes;
pub mod framing;
pub mod host;
pub mod origins;
pub mod network;
pub mod path;
pub mod basic;
pub mod json;
pub mod policy;
pub mod links;
pub mod fields;
pub mod subject;
pub mod request_headers;
pub mod assertion;
pub mod authzen;
pub mod reasons;
pub mod admission;
pub mod password;
pub mod secret;
pub mod web_page;
pub mod escape;
