//! The decisions of fedgate, and its reading of untrusted input: bytes and text in, an answer out.
//!
//! The one rule: nothing here waits, reads a file, opens a socket or looks at a clock. A decision takes what it needs
//! as an argument, so every law can be tested over generated input, and fuzzed in a build of half a minute.

pub mod framing;
pub mod host;
pub mod network;
pub mod path;
pub mod basic;
pub mod json;
pub mod policy;
pub mod fields;
pub mod request_headers;
pub mod assertion;
pub mod password;
pub mod secret;
pub mod web_page;
pub mod escape;
