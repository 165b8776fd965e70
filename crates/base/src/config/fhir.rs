//! The section `[fhir]`: whether FHIR is served, and under which names.
//!
//! The one rule: both programs read it, so that the gateway has routes for what the HIS serves. The texts are passed on as
//! they are written, because the HIS alone knows FHIR.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::check::ValueCheck;
use super::error::ConfigError;
use super::section::section;

/// The settings of FHIR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FhirConfig {
    /// Whether it is served at all.
    pub enabled: bool,
    /// The address of the endpoint as clients see it, without a slash at its end; none: as each client asks for it.
    pub base: Option<String>,
    /// The system of the hub's own ids.
    pub identifier_system: Option<String>,
    /// The systems that documents call by a short name.
    pub identifier_systems: BTreeMap<String, String>,
}

section!(FhirSection {
    enabled: bool = true,
    base: String = String::new(),
    identifier_system: String = String::new(),
    identifier_systems: BTreeMap<String, String> = BTreeMap::new(),
});

impl FhirSection {
    pub(super) fn check(self, check: &ValueCheck<'_>) -> Result<FhirConfig, ConfigError> {
        let base = Some(self.base.as_str()).filter(|base| !base.is_empty());
        if let Some(base) = base {
            let host = base.strip_prefix("https://").or_else(|| base.strip_prefix("http://"));
            let is_sound = |rest: &str| {
                let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:[]".contains(&byte);
                !rest.is_empty() && !rest.starts_with('/') && !rest.ends_with('/') && rest.bytes().all(is_sign)
            };
            if !host.is_some_and(is_sound) {
                let remedy = "write the address that clients use, such as \"https://hub.example.org/fhir\"";
                return Err(check.fault("fhir.base", format!("is `{base}`"), remedy));
            }
        }
        Ok(FhirConfig {
            enabled: self.enabled,
            base: base.map(str::to_owned),
            identifier_system: Some(self.identifier_system).filter(|system| !system.is_empty()),
            identifier_systems: self.identifier_systems,
        })
    }
}

impl Default for FhirConfig {
    /// The defaults of the section.
    fn default() -> Self {
        let FhirSection { enabled, identifier_systems, .. } = FhirSection::default();
        Self { enabled, base: None, identifier_system: None, identifier_systems }
    }
}
