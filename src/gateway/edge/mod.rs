//! The edge: from an accepted connection to one strict request.
//!
//! The one rule: everything that an unknown client can take is counted and bounded here, and no later module sees a
//! byte that was not read strictly.

pub(super) mod accept;
pub(super) mod proxy_protocol;
pub(super) mod tls;
pub(super) mod pace;
pub(super) mod deadline;
pub(super) mod h2_frames;
pub(super) mod write_buffer;
pub(super) mod tunnel_door;
pub(super) mod client_socket;
pub(super) mod connection_slots;
pub(super) mod request_seats;
pub(super) mod stream_seats;
pub(super) mod live_traffic;
pub(super) mod application;
pub(super) mod connection;
pub(super) mod early_fault;
pub(super) mod strict_http1;
pub(super) mod forwarded;
