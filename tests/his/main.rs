//! The laws of the HIS, each against both stores, over a real socket.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

#[path = "../support/mod.rs"]
mod support;

mod account_events;
mod assertion;
mod backup;
mod before;
mod bodies;
mod documents;
mod epoch;
mod hashes;
mod heads;
mod import;
mod limits;
mod lists;
mod logins;
mod outage;
mod pages;
mod pieces;
mod password;
mod people;
mod pressure;
mod causes;
mod crash;
mod program;
mod room;
mod seats;
mod servers;
mod site;
mod spelling;
mod strangers;
mod switchover;
mod thalamus;
mod units;
