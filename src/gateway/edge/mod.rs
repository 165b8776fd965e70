//! Where bytes arrive: from an accepted connection to one strict request.
//!
//! The one rule: what a client can take before anybody knows who it is, is counted and bounded here, and nothing further in
//! sees a byte that was not read strictly.

pub(super) mod listen;
pub(super) mod preface;
pub(super) mod tls;
pub(super) mod pace;
pub(super) mod frames;
pub(super) mod socket;
pub(super) mod seats;
pub(super) mod traffic;
pub(super) mod application;
pub(super) mod door;
pub(super) mod fault;
pub(super) mod guarded;
pub(super) mod forwarded;
