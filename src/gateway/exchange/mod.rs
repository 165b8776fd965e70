//! One request and its answer: pingora's callbacks, and the collaborators behind each.
//!
//! The one rule: nothing is decided here. The pipeline decides. This folder translates its decision into a
//! forwarded request or a refusal, and makes sure that each leaves a record.

pub(super) mod proxy;
pub(super) mod forward;
pub(super) mod read;
pub(super) mod panics;
pub(super) mod admit;
pub(super) mod beside;
pub(super) mod let_pass;
pub(super) mod retry;
pub(super) mod stream;
pub(super) mod stream_times;
pub(super) mod call;
pub(super) mod websocket;
pub(super) mod websocket_frames;
pub(super) mod context;
pub(super) mod recording;
pub(super) mod refuse;
pub(super) mod request;
pub(super) mod respond;
pub(super) mod page_notice;
pub(super) mod cors;
pub(super) mod foreign_page;
pub(super) mod https_redirect;
pub(super) mod body_room;
pub(super) mod held_body;
pub(super) mod desync;
pub(super) mod hop_by_hop;
pub(super) mod hidden_members;
pub(super) mod owner_check;
