//! Whether two records are of the same person: what is taken from a document, and how it is compared.
//!
//! The one rule: nothing here waits, reads a file, opens a socket or looks at a clock. Stores, endpoints and the merge
//! of records belong to the HIS, which calls this package. It judges people's data and never logs any.
//!
//! From two documents to a judgement:
//!
//! ```
//! use fedgate_index::assess::{Grade, assess};
//! use fedgate_index::fields::{Demographics, Fields};
//! use fedgate_index::fold::FoldedPerson;
//! use fedgate_index::keys::blocking_keys;
//! use fedgate_index::model::Model;
//!
//! let fields = Fields::default();
//! let person = |document: &str| Demographics::read(&fields, document).map(|person| FoldedPerson::of(&person));
//! let one = person(r#"{"name": "Mohamed", "lastname": "El Khatib", "dob": "1985-10-04", "address": {"postcode": 29001}}"#)?;
//! let other = person(r#"{"name": "محمد", "lastname": "Al-Khateeb", "dob": "1985-04-10", "address": {"postcode": 29001}}"#)?;
//!
//! // They share a key, so that a store finds one by the other.
//! let keys = blocking_keys(&one);
//! assert!(blocking_keys(&other).iter().any(|key| keys.contains(key)));
//!
//! let assessment = assess(&Model::default(), &one, &other);
//! assert_eq!(assessment.grade, Grade::Probable);
//! # Ok::<(), serde_json::Error>(())
//! ```

#![forbid(unsafe_code)]

pub mod fields;
pub mod fold;
pub mod keys;
pub mod compare;
pub mod model;
pub mod assess;
pub mod blocks;
pub mod train;
pub mod words;
pub mod query;
pub mod search;

#[cfg(test)]
mod tests;
