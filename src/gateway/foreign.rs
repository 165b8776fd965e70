//! Writes that a page of another origin makes a browser send.
//!
//! A browser that was asked for a password once (`/password/{person}`), or that holds a client certificate, sends it with
//! every request to this address, whoever's page caused it. So the one rule: a write that comes from another origin passes
//! only if CORS allows that origin and the browser must have asked first, by a preflight, whose answer never allows such
//! credentials. What is not told clearly is foreign; what says nothing of a page comes from no browser, and passes.
//!
//! Called once per request, before anybody is authenticated. Knows nothing of pingora, routes or accounts.
//! Sources: Fetch (origins, preflights, safelisted content types), W3C Fetch Metadata, RFC 6454 (origins), HTML (`ping`).

use std::net::Ipv6Addr;

use http::{HeaderMap, HeaderName, Method, header};

use super::forwarded::Origin;
use crate::config::CorsConfig;

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Content types that browsers send across origins unasked: those of forms, then those of pings and reports.
const UNASKED: &[&str] = &[
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "text/plain",
    "text/ping",
    "application/csp-report",
    "application/reports+json",
    "application/expect-ct-report+json",
    "application/xss-auditor-report",
];

/// What showed that a write which may not pass comes from another origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ForeignWrite {
    /// `Sec-Fetch-Site`.
    Site,
    /// `Origin`.
    Origin,
    /// `Referer`.
    Referer,
}

impl ForeignWrite {
    /// The stable word for the record.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Site => "foreign_site",
            Self::Origin => "foreign_origin",
            Self::Referer => "foreign_referer",
        }
    }
}

/// The address that the client asked for.
pub(super) struct AskedAddress<'a> {
    /// What is believed of where the request came from, over TLS or not.
    pub(super) origin: &'a Origin,
    /// `Host`, or the `:authority` of HTTP/2.
    pub(super) authority: &'a str,
}

/// Checks one request, before anything is known of who sends it.
///
/// # Errors
/// It is a write that a page of another origin may have caused without asking first.
pub(super) fn check(
    method: &Method,
    headers: &HeaderMap,
    asked: &AskedAddress<'_>,
    cors: &CorsConfig,
) -> Result<(), ForeignWrite> {
    if !cors.refuses_foreign || matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    match comes_from_elsewhere(headers, asked, &cors.own_origins) {
        Some(foreign) if !(is_allowed(headers, cors) && was_asked_first(method, headers)) => Err(foreign),
        _ => Ok(()),
    }
}

/// What shows that a request comes from another origin, if something does.
fn comes_from_elsewhere(headers: &HeaderMap, asked: &AskedAddress<'_>, own: &[String]) -> Option<ForeignWrite> {
    match only(headers, &SITE) {
        // Browsers alone can send it, in these spellings.
        Some(Ok("same-origin" | "none")) => return None,
        Some(_) => return Some(ForeignWrite::Site),
        None => {}
    }
    if let Some(origin) = only(headers, &header::ORIGIN) {
        return (!origin.is_ok_and(|origin| is_own(origin, asked, own))).then_some(ForeignWrite::Origin);
    }
    // An empty one says nothing.
    let mut referers = headers.get_all(header::REFERER).iter().filter(|referer| !referer.is_empty());
    let is_own_page = |referer: &str| is_own(origin_of(referer), asked, own);
    referers.any(|referer| !referer.to_str().is_ok_and(is_own_page)).then_some(ForeignWrite::Referer)
}

/// Whether CORS lets a page of this origin call: the one that its answers name.
fn is_allowed(headers: &HeaderMap, cors: &CorsConfig) -> bool {
    only(headers, &header::ORIGIN).is_some_and(|origin| origin.is_ok_and(|origin| cors.allows(origin)))
}

/// Whether a browser must have sent a preflight before it sent this from another origin.
fn was_asked_first(method: &Method, headers: &HeaderMap) -> bool {
    // Preflights belong to this mode alone; navigations, pings and beacons have others.
    let may_have_been = only(headers, &MODE).is_none_or(|mode| mode == Ok("cors"));
    let has_plain_type = || {
        let essence = only(headers, &header::CONTENT_TYPE).and_then(|kind| essence(kind.ok()?));
        essence.is_some_and(|essence| !UNASKED.iter().any(|unasked| essence.eq_ignore_ascii_case(unasked)))
    };
    may_have_been && (*method != Method::POST || has_plain_type())
}

/// The one value of a header; an error where there are several, or it is no text.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Result<&'a str, ()>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    Some(if values.next().is_some() { Err(()) } else { first.to_str().map_err(|_| ()) })
}

/// Type and subtype of a `Content-Type` (RFC 9110, 8.3.1), where it is one and nothing else: in a list, which of its
/// members a browser has judged is anyone's guess.
fn essence(value: &str) -> Option<&str> {
    let is_token = |text: &str| {
        let is_sign = |byte: u8| b"!#$%&'*+-.^_`|~".contains(&byte);
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || is_sign(byte))
    };
    if value.contains(',') {
        return None;
    }
    let essence = value.split(';').next()?.trim_matches([' ', '\t']);
    let (kind, subtype) = essence.split_once('/')?;
    (is_token(kind) && is_token(subtype)).then_some(essence)
}

/// Whether an origin is the one that the client asked for, or one of those that the operator calls own.
fn is_own(origin: &str, asked: &AskedAddress<'_>, own: &[String]) -> bool {
    if own.iter().any(|own| own == origin) {
        return true;
    }
    let Some(origin) = WebOrigin::parse(origin) else { return false };
    let scheme = if asked.origin.is_secure() { "https" } else { "http" };
    let mut authorities = asked.origin.hosts(asked.authority);
    authorities.any(|authority| WebOrigin::of(scheme, &authority).is_some_and(|asked| asked == origin))
}

/// The origin of a URL, as far as it has one: what stands before its path.
fn origin_of(url: &str) -> &str {
    let Some((scheme, rest)) = url.split_once("://") else { return "" };
    let authority = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    url.get(..scheme.len() + "://".len() + authority).unwrap_or_default()
}

/// Scheme, host and port, with the port of the scheme where none is named.
#[derive(Debug, PartialEq, Eq)]
struct WebOrigin {
    scheme: &'static str,
    host: String,
    port: u16,
}

impl WebOrigin {
    fn parse(origin: &str) -> Option<Self> {
        let (scheme, authority) = origin.split_once("://")?;
        Self::of(scheme, authority)
    }

    /// Of a scheme and an authority without user; names are compared as they are, but for their case. A trailing dot
    /// makes another name, as it does for browsers.
    fn of(scheme: &str, authority: &str) -> Option<Self> {
        let (scheme, default) = match scheme.to_ascii_lowercase().as_str() {
            "https" => ("https", 443),
            "http" => ("http", 80),
            _ => return None,
        };
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host.parse::<Ipv6Addr>().ok()?.to_string(), port),
            None => {
                let end = authority.find(':').unwrap_or(authority.len());
                let (host, port) = authority.split_at(end);
                let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
                if host.is_empty() || !host.bytes().all(is_name) {
                    return None;
                }
                (host.to_ascii_lowercase(), port)
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => default,
            None => return None,
            Some("") => default,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
        };
        Some(Self { scheme, host, port })
    }
}

#[cfg(test)]
mod tests;
