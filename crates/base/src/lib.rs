//! The code that both programs share: configuration, databases and their schema, files, clocks, and the operator's
//! log.
//!
//! The one rule: nothing here knows HTTP, the caller, or a decision.

#![forbid(unsafe_code)]

pub mod config;
pub mod db;
pub mod log;
pub mod metrics;
pub mod pem;
pub mod regular;
pub mod disk;
pub mod moment;
pub mod patience;
pub mod parent;
pub mod descriptors;
pub mod threads;
pub mod workers;
pub mod dumps;
pub mod ports;
pub mod arguments;
pub mod command;
