//! One request and its answer: pingora's callbacks, and the collaborators behind each.
//!
//! The one rule: nothing is decided here. The pipeline decides. This folder translates its decision into a
//! forwarded request or a refusal, and makes sure that each leaves a record.

pub(super) mod proxy;
pub(super) mod panics;
pub(super) mod judge;
pub(super) mod repeat;
pub(super) mod context;
pub(super) mod keep;
pub(super) mod refuse;
pub(super) mod request;
pub(super) mod respond;
pub(super) mod notice;
pub(super) mod cors;
pub(super) mod foreign;
pub(super) mod redirect;
pub(super) mod body;
pub(super) mod pairing;
pub(super) mod hop;
pub(super) mod answer;
pub(super) mod owned;
pub(super) mod signer;
