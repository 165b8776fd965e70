//! fedgate: a reverse-proxy authorization gateway for health information systems.
//!
//! One request is a straight line through these modules, in this order:
//!
//! ```text
//! gateway  →  pipeline  →  routes  →  authn (accounts)  →  policy  →  assertion  →  upstream
//! ```
//!
//! `gateway` translates between pingora and [`pipeline`], which alone decides. The pure parts of a decision are in
//! `fedgate_core`, and the parts that both programs share in `fedgate_base`. The HIS is a package of its own, which
//! this one never names.

#![forbid(unsafe_code)]

pub mod gateway;
pub mod pipeline;
pub mod assertion_signer;
pub mod routes;
pub mod authn;
pub mod accounts;
pub mod instances;
pub mod balance;
pub mod reload;
pub mod history;
pub mod observe;
