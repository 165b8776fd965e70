//! The life of the process: start, stop, handover, and the tasks that run beside the requests.
//!
//! The one rule: from the first accepted connection on, nothing fails, and a stop loses no request in flight that ends
//! within the stop timeout.

pub(super) mod error;
pub(super) mod admin_listener;
pub(super) mod instance_report;
pub(super) mod account_changes;
pub(super) mod serving;
pub(super) mod stop;
pub(super) mod stream_watch;
pub(super) mod handover;
mod handed_proofs;
pub(super) mod listeners;
pub(super) mod address_in_use;
pub(super) mod same_configuration;
pub(super) mod pid_file;
pub(super) mod pid_socket;
pub(super) mod supervise;
pub(super) mod startup_certificates;
pub(super) mod schema_watch;
pub(super) mod inspection;
