//! Admission: the steps from the bytes of a request to its answer that need no I/O.
//!
//! The one rule: every request takes these steps, in this order, whether it comes over HTTP/1 or HTTP/2, from
//! `fedgate policy explain` or from a test. So they cannot disagree.
//!
//! 1. [`screen_bytes`]: a head of HTTP/1 has one reading, and its target is in origin form.
//! 2. [`answer_early`]: requests that need no decision are answered: a malformed head, a host that is not served,
//!    OPTIONS, an unknown method.
//! 3. [`ForeignPage::check`]: a page of another origin sends only requests that it may.
//! 4. [`open`]: if the path does not serve the method, the request is answered; a public route needs no login.
//! 5. [`GuardedRequest::decide`]: an authenticated caller learns whether the path exists, and what the policy says.
//! 6. [`check_served`]: an admitted request is refused if it demands another protocol than its route serves, or has a credential for its
//!    whole connection.
//!
//! Before them, [`OriginalRequest`] reads the request that another proxy holds, where one asks.
//!
//! Between 4 and 5 the gateway authenticates the caller, which needs the accounts. Knows nothing of the proxy library.

mod bytes;
mod target;
mod early;
mod head;
mod host;
mod foreign_page;
mod decision;
mod unserved;
mod websocket;
mod original;

pub use bytes::{HeldHead, screen_bytes};
pub use decision::{GuardedRefusal, GuardedRequest, OpenedRequest, RouteResolution, RouteTarget, open};
pub use early::{EarlyAnswer, EarlyOutcome, answer_early};
pub use foreign_page::{AskedOrigin, ForeignFault, ForeignPage, ForeignSign};
pub use head::{ParsedHead, check_head, content_length};
pub use host::requested_host;
pub use original::{OriginalRequest, ProxyQuestion, ProxyStyle};
pub use target::request_target;
pub use unserved::{UnservedDemand, check_served};
pub use websocket::{BadHandshake, WEBSOCKET_CHOSEN, WEBSOCKET_VERSION, WebSocketOffer, accept_of, names_websocket};
