//! Which headers of a client's request reach an upstream.
//!
//! The one rule: a header passes because its name is on a list, never because it is missing from one. Services trust
//! some hundred names that state who calls, from where, and for which path, and the number grows each year, so a list
//! of headers to remove is never complete.
//!
//! The gateway calls it for each request that it forwards, and the configuration calls it for the names that an
//! operator adds. It knows neither.

mod identity;
mod passed;

use std::collections::HashSet;

use http::HeaderName;

pub use identity::is_identity;
pub use passed::{NameGroup, PASSED};

/// Request headers that the gateway sets, keeps or answers itself, whatever a list says: those that delimit the
/// message or belong to one connection (RFC 9110, 7.6.1), and those that the gateway states in the client's place.
const OWN: &[&str] = &[
    "authorization",
    "connection",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];
/// The prefix of the headers between the gateway and its upstreams.
const OWN_PREFIX: &str = "fedgate-";

/// An operator's addition to the list of one upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddedHeaders {
    /// One name.
    Name(HeaderName),
    /// All names with this prefix, in lower case; every name if it is empty.
    Prefix(String),
}

/// Why an entry is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryFault {
    /// It is not a name of letters, digits and `-`, with or without a `*` at its end.
    NoName,
    /// The gateway sets or keeps this header itself.
    Own,
}

impl AddedHeaders {
    /// Reads an entry: a name, or a prefix of names with a `*` at its end.
    ///
    /// # Errors
    /// See [`EntryFault`].
    pub fn parse(entry: &str) -> Result<Self, EntryFault> {
        let lower = entry.to_ascii_lowercase();
        let (stem, is_prefix) = lower.strip_suffix('*').map_or((&*lower, false), |stem| (stem, true));
        if !has_one_reading(stem) || (stem.is_empty() && !is_prefix) {
            return Err(EntryFault::NoName);
        }
        match is_prefix {
            // A client must never be able to send `Fedgate-Assertion`, so no entry can open that prefix.
            _ if stem.starts_with(OWN_PREFIX) => Err(EntryFault::Own),
            true => Ok(Self::Prefix(stem.to_owned())),
            false if is_own(stem) => Err(EntryFault::Own),
            false => HeaderName::from_bytes(stem.as_bytes()).map(Self::Name).map_err(|_| EntryFault::NoName),
        }
    }

    /// A name that services are known to believe for who calls, from where or for what, if the entry reaches one.
    pub fn identity(&self) -> Option<&str> {
        match self {
            Self::Name(name) => is_identity(name.as_str()).then_some(name.as_str()),
            Self::Prefix(prefix) => identity::beginning_with(prefix),
        }
    }
}

/// The headers that reach one upstream.
#[derive(Debug)]
pub struct PassList {
    names: HashSet<HeaderName>,
    prefixes: Vec<String>,
}

/// How a header is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderPassage {
    /// It is forwarded.
    Passes,
    /// It is dropped: the gateway sets or keeps this header itself.
    IsOwn,
    /// It is dropped: no list has its name.
    IsDropped,
}

impl PassList {
    /// The common list, with the additions for one upstream.
    pub fn new(added: &[AddedHeaders]) -> Self {
        let listed = PASSED.iter().flat_map(|group| group.names).map(|name| HeaderName::from_static(name));
        let mut list = Self { names: listed.collect(), prefixes: Vec::new() };
        for added in added {
            match added {
                AddedHeaders::Name(name) => _ = list.names.insert(name.clone()),
                AddedHeaders::Prefix(prefix) => list.prefixes.push(prefix.clone()),
            }
        }
        list
    }

    /// Judges a header by its name. A name that passes costs one lookup.
    pub fn judge(&self, name: &HeaderName) -> HeaderPassage {
        if self.names.contains(name) {
            return HeaderPassage::Passes;
        }
        let name = name.as_str();
        // Before any prefix: `*` must not open `authorization` or `x-forwarded-for`.
        if is_own(name) {
            HeaderPassage::IsOwn
        } else if self.prefixes.iter().any(|prefix| name.starts_with(prefix))
            // A prefix can reach names that its author did not think of. Names that carry an identity must be written
            // out.
            && !is_identity(name)
            && has_one_reading(name)
        {
            HeaderPassage::Passes
        } else {
            HeaderPassage::IsDropped
        }
    }
}

fn is_own(name: &str) -> bool {
    name.starts_with(OWN_PREFIX) || OWN.contains(&name)
}

/// Whether every service reads the name alike. Services that turn headers into variables (CGI, WSGI) take
/// `Fedgate_Assertion` and `Fedgate.Assertion` for `Fedgate-Assertion`.
fn has_one_reading(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests;
