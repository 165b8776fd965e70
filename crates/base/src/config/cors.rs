//! The section `[cors]`: the rights of pages of other origins in browsers.

use serde::Deserialize;

use super::check::ValueCheck;
use super::error::ConfigError;
use super::section::section;
use fedgate_core::origins::{AllowedOrigins, OriginRules};

/// Matches every origin.
const ANY: &str = "*";

section!(CorsSection {
    allowed_origins: Vec<String> = vec![ANY.into()],
    credential_origins: Vec<String> = vec![ANY.into()],
    own_origins: Vec<String> = vec![],
    refuse_foreign_writes: bool = true,
});

impl CorsSection {
    pub(super) fn check(self, check: &ValueCheck<'_>) -> Result<OriginRules, ConfigError> {
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
        Ok(OriginRules {
            named: named.filter(|origin| *origin != ANY).cloned().collect(),
            allowed: origins_of(self.allowed_origins),
            credentials: origins_of(self.credential_origins),
            own_origins: self.own_origins,
            refuses_foreign: self.refuse_foreign_writes,
        })
    }
}

fn origins_of(origins: Vec<String>) -> AllowedOrigins {
    match origins.iter().any(|origin| origin == ANY) {
        true => AllowedOrigins::Any,
        false => AllowedOrigins::Only(origins),
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
