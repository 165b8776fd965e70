//! The section `[cors]`: the rights of pages of other origins in browsers.

use serde::Deserialize;

use super::check::ValueCheck;
use super::error::ConfigError;
use super::section::section;

/// The rights of pages of other origins (the Fetch standard's CORS protocol), and the origins that count as our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsConfig {
    /// The origins whose pages may call in a browser.
    pub allowed: AllowedOrigins,
    /// The origins whose pages may send `Authorization`. Those of [`CorsConfig::own_origins`] may too.
    pub credentials: AllowedOrigins,
    /// Every origin that a list names, even if the list also allows all.
    pub named: Vec<String>,
    /// Origins that belong to this gateway, in addition to the one that a request asks for.
    pub own_origins: Vec<String>,
    /// Whether to refuse writes that a page of another origin may have caused without a preflight.
    pub refuses_foreign: bool,
}

impl CorsConfig {
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

    fn of(origins: Vec<String>) -> Self {
        match origins.iter().any(|origin| origin == ANY) {
            true => Self::Any,
            false => Self::Only(origins),
        }
    }
}

/// Matches every origin.
const ANY: &str = "*";

section!(CorsSection {
    allowed_origins: Vec<String> = vec![ANY.into()],
    credential_origins: Vec<String> = vec![ANY.into()],
    own_origins: Vec<String> = vec![],
    refuse_foreign_writes: bool = true,
});

impl CorsSection {
    pub(super) fn check(self, check: &ValueCheck<'_>) -> Result<CorsConfig, ConfigError> {
        // Other entries beside "*" were never checked in this list, so they are still accepted.
        let is_any = self.allowed_origins.iter().any(|origin| origin == ANY);
        let allowed = self.allowed_origins.iter().filter(|_| !is_any).map(|origin| ("cors.allowed_origins", origin));
        let credentials = self.credential_origins.iter().filter(|origin| *origin != ANY);
        let credentials = credentials.map(|origin| ("cors.credential_origins", origin));
        let own = self.own_origins.iter().map(|origin| ("cors.own_origins", origin));
        if let Some((key, origin)) = allowed.chain(credentials).chain(own).find(|(_, origin)| !is_origin(origin)) {
            let remedy =
                "write scheme, host and port as a browser sends them, such as https://portal.example.org, one by one";
            return Err(check.fault(key, format!("holds `{origin}`"), remedy));
        }
        let named = self.allowed_origins.iter().chain(&self.credential_origins).chain(&self.own_origins);
        Ok(CorsConfig {
            named: named.filter(|origin| *origin != ANY).cloned().collect(),
            allowed: AllowedOrigins::of(self.allowed_origins),
            credentials: AllowedOrigins::of(self.credential_origins),
            own_origins: self.own_origins,
            refuses_foreign: self.refuse_foreign_writes,
        })
    }
}

/// Whether a text is scheme, host and port in lower case, as a browser sends them (RFC 6454, 6.2). Patterns do not
/// exist.
fn is_origin(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && !b"/*?#@\\".contains(&byte);
    text.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty() && !host.is_empty() && scheme.bytes().chain(host.bytes()).all(is_plain)
    })
}
