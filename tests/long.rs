//! Tests of faults that only time and load show: outages, upgrades, replaced parts, revocations, floods, a long
//! run.
//!
//! Each has a short form, which every run includes. `tests/run --long` gives them the time that rare faults need.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test panics to fail, and prints what it measured"
)]

#[path = "gateway/fixture.rs"]
mod fixture;
#[path = "gateway/scripted.rs"]
mod scripted;
mod support;

mod outage;
mod reload;
mod upgrade;
mod revocation;
mod balanced;
mod beside;
mod load;
mod histories;
