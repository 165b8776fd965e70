//! The section `[cors]`: what browsers may do for pages of other origins.

use serde::Deserialize;

use super::check::ValueCheck;
use super::error::ConfigError;
use super::section::section;

/// What browsers may do for pages of other origins (the Fetch standard's CORS protocol), and which origins are no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsConfig {
    /// Which origins a browser may call from.
    pub allowed: AllowedOrigins,
    /// Pages of which origins may send `Authorization`; those of [`CorsConfig::own_origins`] may, too.
    pub credentials: AllowedOrigins,
    /// Every origin that one of the lists names, whether it also allows all.
    pub named: Vec<String>,
    /// Origins that are this gateway's own, besides the one that a request asked for.
    pub own_origins: Vec<String>,
    /// Whether writes are refused that a page of another origin may have caused without asking first.
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
    /// Every origin, as Thalamus has it.
    Any,
    /// These alone, compared exactly.
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

/// Stands for every origin.
const ANY: &str = "*";

section!(CorsSection {
    allowed_origins: Vec<String> = vec![ANY.into()],
    credential_origins: Vec<String> = vec![ANY.into()],
    own_origins: Vec<String> = vec![],
    refuse_foreign_writes: bool = true,
});

impl CorsSection {
    pub(super) fn check(self, check: &ValueCheck<'_>) -> Result<CorsConfig, ConfigError> {
        // What stands beside "*" in this list was never looked at, and goes on being taken.
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

/// Scheme, host and port in lower case: what a browser may send (RFC 6454, 6.2); there are no patterns.
fn is_origin(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase() && !b"/*?#@\\".contains(&byte);
    text.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty() && !host.is_empty() && scheme.bytes().chain(host.bytes()).all(is_plain)
    })
}
