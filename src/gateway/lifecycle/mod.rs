//! The life of the process: start, stop, handover, and the tasks that run beside the requests.
//!
//! The one rule: from the first accepted connection on, nothing fails, and no stop loses a request in flight.

pub(super) mod error;
pub(super) mod admin;
pub(super) mod report;
pub(super) mod account_changes;
pub(super) mod stop;
pub(super) mod handover;
pub(super) mod listeners;
pub(super) mod own_address;
pub(super) mod pid_file;
pub(super) mod pid_name;
pub(super) mod supervise;
pub(super) mod fixed;
pub(super) mod inspection;
