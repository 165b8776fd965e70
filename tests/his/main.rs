//! The laws of the HIS, each against both stores, over a real socket.

#[path = "../support/mod.rs"]
mod support;

mod assertion;
mod bodies;
mod people;
