//! The gateway under load that is meant to hurt it: password floods, crowds of idle connections, and a long run with
//! faults. Figures are printed; what is asserted is what holds on any machine.
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
#[path = "load/crowd.rs"]
mod crowd;
#[path = "load/soak.rs"]
mod soak;
#[path = "load/flood.rs"]
mod flood;
