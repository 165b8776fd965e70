//! fedgate: a reverse-proxy authorization gateway for health information systems, and the lean service behind it.
//!
//! One request is a straight line through these modules, in this order:
//!
//! ```text
//! gateway  →  pipeline  →  path  →  routes  →  authn (accounts)  →  policy  →  assertion  →  upstream (his)
//! ```
//!
//! `gateway` translates between pingora and [`pipeline`], which alone decides; `his` serves what carries an assertion of
//! the gateway. The two never name each other: what they share lies below them.

pub mod gateway;
pub mod pipeline;
pub mod framing;
pub mod host;
pub mod path;
pub mod routes;
pub mod fields;
pub mod authn;
pub mod accounts;
pub mod policy;
pub mod assertion;
pub mod balance;
pub mod request_headers;
pub mod reload;
pub mod history;
pub mod observe;
pub mod his;
pub mod web_page;
pub mod db;
pub mod password;
pub mod moment;
pub mod parent;
mod pem;
pub mod secret;
pub mod escape;
pub mod arguments;
pub mod ports;
pub mod descriptors;
pub mod dumps;
pub mod threads;
pub mod regular;
pub mod config;
