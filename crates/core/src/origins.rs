//! Web origins: which pages may call in a browser, and which may send passwords.
//!
//! The one rule: an origin is compared exactly, as a browser sends it (RFC 6454, 6.2); patterns do not exist.
//!
//! The configuration makes the rules, and [`crate::admission`] applies them.

/// The rights of pages of other origins (the Fetch standard's CORS protocol), and the origins that count as our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginRules {
    /// The origins whose pages may call in a browser.
    pub allowed: AllowedOrigins,
    /// The origins whose pages may send `Authorization`. Those of [`OriginRules::own_origins`] may too.
    pub credentials: AllowedOrigins,
    /// Every origin that a list names, even if the list also allows all.
    pub named: Vec<String>,
    /// Origins that belong to this gateway, in addition to the one that a request asks for.
    pub own_origins: Vec<String>,
    /// Whether to refuse writes that a page of another origin may have caused without a preflight.
    pub refuses_foreign: bool,
}

impl OriginRules {
    /// Whether pages of this origin may send `Authorization`.
    pub fn takes_credentials_of(&self, origin: &str) -> bool {
        self.credentials.allows(origin) || self.own_origins.iter().any(|own| own == origin)
    }
}

/// A list of origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Every origin, as in Thalamus.
    Any,
    /// Only these, compared exactly.
    Only(Vec<String>),
}

impl AllowedOrigins {
    /// Whether this origin is one of them.
    pub fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(known) => known.iter().any(|known| known == origin),
        }
    }
}
