//! Requests that a page of another origin makes a browser send.
//!
//! The one rule: a write from a page of another origin passes only if CORS allows that origin and the browser must
//! have sent a preflight first, whose answer never allows the browser's own credentials. A browser that was once
//! asked for a password (`/password/{person}`), or that holds a client certificate, sends it with every request to
//! this address, whichever page caused it. An unclear origin counts as foreign. A request without any sign of a
//! page does not come from a browser, and passes.
//!
//! A foreign page can also try passwords, as fast as the browser sends them. So to the throttle each page is a
//! separate client address, and an operator may name the origins whose pages may send passwords at all.
//!
//! Called once per request, before authentication. Knows nothing of routes or accounts. Sources: Fetch
//! (origins, preflights, safelisted content types), W3C Fetch Metadata, RFC 6454 (origins), HTML (`ping`).

use std::borrow::Cow;
use std::net::Ipv6Addr;

use http::{HeaderMap, HeaderName, Method, header};

use super::websocket::names_websocket;
use crate::codes::AnswerCode;
use crate::methods::is_safe;
use crate::origins::OriginRules;
use crate::reasons::RecordReason;

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Content types that browsers send across origins without a preflight: those of forms, then those of pings and
/// reports.
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

/// The header that shows that a request comes from another origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignSign {
    /// `Sec-Fetch-Site`.
    Site,
    /// `Origin`.
    Origin,
    /// `Referer`.
    Referer,
}

/// Why a request of a foreign page may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignFault {
    /// A write that the page may have caused without a preflight.
    Write(ForeignSign),
    /// It carries `Authorization`, and its page is of no origin that may send it.
    Credential,
}

impl ForeignFault {
    /// The answer to the client.
    pub fn answer(self) -> AnswerCode {
        match self {
            Self::Write(_) => AnswerCode::ForeignOrigin,
            Self::Credential => AnswerCode::ForeignCredential,
        }
    }

    /// The reason in the record.
    pub fn reason(self) -> RecordReason {
        match self {
            Self::Write(ForeignSign::Site) => RecordReason::ForeignSite,
            Self::Write(ForeignSign::Origin) => AnswerCode::ForeignOrigin.into(),
            Self::Write(ForeignSign::Referer) => RecordReason::ForeignReferer,
            Self::Credential => AnswerCode::ForeignCredential.into(),
        }
    }
}

/// The origin that the client asked for, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub struct AskedOrigin<H> {
    /// Whether the client spoke TLS.
    pub is_secure: bool,
    /// Each host that the client may have asked for, with its port where one is named.
    pub hosts: H,
}

/// A page of another origin that made a browser send a request.
#[derive(Debug, Clone, Copy)]
pub struct ForeignPage<'a> {
    sign: ForeignSign,
    /// Its origin, if the browser names it.
    origin: Option<&'a str>,
}

impl<'a> ForeignPage<'a> {
    /// The page that made a browser send a request with these headers, if it is of another origin.
    pub fn of<'h, H>(headers: &'a HeaderMap, asked: &AskedOrigin<H>, rules: &OriginRules) -> Option<Self>
    where
        H: Iterator<Item = Cow<'h, str>> + Clone,
    {
        let sign = comes_from_elsewhere(headers, asked, &rules.own_origins)?;
        let origin = match only(headers, &header::ORIGIN) {
            Some(origin) => origin.ok(),
            // Navigations and images send no `Origin`. A page can hide its referrer, and cannot choose another.
            None => only(headers, &header::REFERER).and_then(|referer| Some(origin_of(referer.ok()?))),
        };
        Some(Self { sign, origin })
    }

    /// Whether it may send `Authorization`.
    pub fn may_send_credentials(&self, rules: &OriginRules) -> bool {
        // A page without an origin is none of the named ones.
        rules.takes_credentials_of(self.origin())
    }

    /// Its origin; empty if the browser names none.
    pub fn origin(&self) -> &'a str {
        self.origin.unwrap_or_default()
    }

    /// Whether the configuration names its origin, for example that of a portal.
    pub fn is_named(&self, rules: &OriginRules) -> bool {
        rules.named.iter().any(|named| named == self.origin())
    }

    /// Checks one request of the page, before authentication.
    ///
    /// # Errors
    /// A write that the page may have caused without a preflight, a WebSocket of a page of no named origin, or a
    /// credential that it may not send.
    pub fn check(&self, method: &Method, headers: &HeaderMap, rules: &OriginRules) -> Result<(), ForeignFault> {
        let passes = if names_websocket(headers) {
            // A handshake is a GET that opens a way to write, and no browser sends a preflight before it. So a page
            // has to be of an origin that the configuration names (cross-site WebSocket hijacking; RFC 6455, 10.2).
            self.is_named(rules)
        } else {
            is_safe(method.as_str()) || is_allowed(headers, rules) && was_asked_first(method, headers)
        };
        if rules.refuses_foreign && !passes {
            return Err(ForeignFault::Write(self.sign));
        }
        if headers.contains_key(header::AUTHORIZATION) && !self.may_send_credentials(rules) {
            return Err(ForeignFault::Credential);
        }
        Ok(())
    }
}

/// The sign that a request comes from another origin, if there is one.
fn comes_from_elsewhere<'h, H>(headers: &HeaderMap, asked: &AskedOrigin<H>, own: &[String]) -> Option<ForeignSign>
where
    H: Iterator<Item = Cow<'h, str>> + Clone,
{
    match only(headers, &SITE) {
        // Only browsers set it, in these spellings; scripts of a page cannot (the prefix `Sec-` is forbidden to
        // them).
        Some(Ok("same-origin" | "none")) => return None,
        Some(_) => return Some(ForeignSign::Site),
        None => {}
    }
    if let Some(origin) = only(headers, &header::ORIGIN) {
        return (!origin.is_ok_and(|origin| is_own(origin, asked, own))).then_some(ForeignSign::Origin);
    }
    // An empty one is no sign of a page.
    let mut referers = headers.get_all(header::REFERER).iter().filter(|referer| !referer.is_empty());
    let is_own_page = |referer: &str| is_own(origin_of(referer), asked, own);
    referers.any(|referer| !referer.to_str().is_ok_and(is_own_page)).then_some(ForeignSign::Referer)
}

/// Whether CORS allows this origin: the one that its answers name.
fn is_allowed(headers: &HeaderMap, rules: &OriginRules) -> bool {
    only(headers, &header::ORIGIN).is_some_and(|origin| origin.is_ok_and(|origin| rules.allowed.allows(origin)))
}

/// Whether a browser must have sent a preflight before it sent this from another origin.
fn was_asked_first(method: &Method, headers: &HeaderMap) -> bool {
    // Only requests of this mode have preflights; navigations, pings and beacons have other modes.
    let may_have_been = only(headers, &MODE).is_none_or(|mode| mode == Ok("cors"));
    let has_plain_type = || {
        let essence = only(headers, &header::CONTENT_TYPE).and_then(|kind| essence(kind.ok()?));
        essence.is_some_and(|essence| !UNASKED.iter().any(|unasked| essence.eq_ignore_ascii_case(unasked)))
    };
    may_have_been && (*method != Method::POST || has_plain_type())
}

/// The single value of a header; an error if there are several, or it is no text.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Result<&'a str, ()>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    Some(if values.next().is_some() { Err(()) } else { first.to_str().map_err(|_| ()) })
}

/// Type and subtype of a `Content-Type` (RFC 9110, 8.3.1), if it is a single one: of a list, a browser may have
/// judged any member.
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

/// Whether an origin is the one that the client asked for, or one of the operator's `own_origins`.
fn is_own<'h, H>(origin: &str, asked: &AskedOrigin<H>, own: &[String]) -> bool
where
    H: Iterator<Item = Cow<'h, str>> + Clone,
{
    if own.iter().any(|own| own == origin) {
        return true;
    }
    let Some(origin) = WebOrigin::parse(origin) else { return false };
    let scheme = if asked.is_secure { "https" } else { "http" };
    asked.hosts.clone().any(|host| WebOrigin::of(scheme, &host).is_some_and(|asked| asked == origin))
}

/// The origin of a URL, if it has one: the part before its path.
fn origin_of(url: &str) -> &str {
    let Some((scheme, rest)) = url.split_once("://") else { return "" };
    let authority = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    url.get(..scheme.len() + "://".len() + authority).unwrap_or_default()
}

/// Scheme, host and port, with the scheme's port if none is named.
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

    /// From a scheme and an authority without user. Names are compared as they are, except for case. A trailing dot
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
