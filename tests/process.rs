//! Tests that start programs, servers and clusters, and mostly wait for them. They are one binary, so that
//! everything is linked once and the waits overlap.
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

mod gateway;
mod his;
mod corpus;
mod policy_tools;
mod programs;
mod clients;
mod nodes;
mod deploy;
