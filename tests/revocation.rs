//! How long a revoked right lives: three gateways on one PostgreSQL, behind faults, and a history that is checked.

#[path = "revocation/history.rs"]
mod history;
#[path = "revocation/federation.rs"]
mod federation;
#[path = "revocation/visibility.rs"]
mod visibility;
#[path = "revocation/faults.rs"]
mod faults;
#[path = "revocation/mutants.rs"]
mod mutants;
#[path = "revocation/commands.rs"]
mod commands;
#[path = "revocation/links.rs"]
mod links;
