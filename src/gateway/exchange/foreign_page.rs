//! Pages of other origins ([`fedgate_core::admission::ForeignPage`]), as the gateway meets them: the origin that the
//! client asked for, and the client address by which the throttle counts a page's passwords.
//!
//! The one rule: nothing is decided here; [`super::admit`] asks core before authentication.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::authn::{ClientAddress, ForeignOrigin};
use crate::gateway::edge::forwarded::RequestOrigin;
use fedgate_core::admission::{AskedOrigin, ForeignPage};
use fedgate_core::origins::OriginRules;

/// The origin that a client asked for: `authority`, or the hosts that trusted proxies report.
pub(crate) fn asked_origin<'a>(
    origin: &'a RequestOrigin,
    authority: &'a str,
) -> AskedOrigin<impl Iterator<Item = Cow<'a, str>> + Clone> {
    AskedOrigin { is_secure: origin.is_secure(), hosts: origin.hosts(authority) }
}

/// The client address by which the throttle counts passwords. A hostile page spends its own allowance, never that of
/// the people behind the same address. All pages without an origin share one.
pub(crate) fn throttled_address(
    client: Option<IpAddr>,
    page: Option<&ForeignPage<'_>>,
    rules: &OriginRules,
) -> ClientAddress {
    let client = ClientAddress::from(client);
    let Some(page) = page else { return client };
    let named = if page.is_named(rules) { ForeignOrigin::Named } else { ForeignOrigin::Unnamed };
    client.on_page_of(page.origin().as_bytes(), named)
}

#[cfg(test)]
mod tests;
