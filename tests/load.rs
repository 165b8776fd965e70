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
mod support;
#[path = "load/crowd.rs"]
mod crowd;
#[path = "load/soak.rs"]
mod soak;
#[path = "load/flood.rs"]
mod flood;

/// A figure of the environment, for a run on demand.
fn wanted<T: std::str::FromStr>(name: &str, usual: T) -> T {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// The memory that a process holds, in KiB (`VmRSS`, proc(5)).
fn resident_kib(gateway: &fixture::Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
