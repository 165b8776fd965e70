//! The edge: from an accepted connection to one strict request.
//!
//! The one rule: everything that an unknown client can take is counted and bounded here, and no later module sees a
//! byte that was not read strictly.

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
