//! Tests that start no program and no server: the laws of pure code, and comparisons of documents with the code.
//!
//! They belong to the package of the pure code. So little is linked, and all of it is optimised as that package is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test panics to fail, and prints what it measured"
)]

mod policy_oracle;
mod protocol_model;
mod relay_model;
