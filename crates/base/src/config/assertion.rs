//! The section `[assertion]`: the signed identity between gateway and HIS.

use std::path::PathBuf;

use serde::Deserialize;

use super::check::{ValueCheck, WantedSecrets};
use super::error::ConfigError;
use super::section::section;
use fedgate_core::assertion::{AssertionConfig, AssertionKeys};
use fedgate_core::secret::Secret;

section!(AssertionSection {
    algorithm: String = "HS256".into(),
    secret: Option<String> = None,
    secret_file: Option<PathBuf> = None,
    private_key_file: Option<PathBuf> = None,
    public_key_file: Option<PathBuf> = None,
    issuer: String = "fedgate".into(),
    audience: String = "fedhis".into(),
    lifetime_seconds: u64 = 30,
});

impl AssertionSection {
    pub(super) fn check(self, check: &ValueCheck<'_>) -> Result<AssertionConfig, ConfigError> {
        let keys = match self.algorithm.as_str() {
            "HS256" | "EdDSA" if matches!(check.secrets, WantedSecrets::LeaveUnread | WantedSecrets::OfStore) => {
                AssertionKeys::Unread
            }
            "HS256" => {
                let (key, secret) = match (self.secret, self.secret_file) {
                    // The variable wins: the file itself may not hold a secret.
                    (Some(secret), _) => ("FEDGATE_ASSERTION_SECRET", Secret::new(secret.into_bytes())),
                    (None, Some(path)) => ("assertion.secret_file", check.secret("assertion.secret_file", path)?),
                    (None, None) => {
                        let remedy = "name a file that holds at least 32 random bytes (umask 077; openssl rand \
                                      -base64 48 > FILE)";
                        return Err(check.fault("assertion.secret_file", "is missing", remedy));
                    }
                };
                // HS256 needs a key of at least 256 bits (RFC 7518, 3.2).
                if secret.expose().len() < 32 {
                    let remedy = "use at least 32 random bytes (umask 077; openssl rand -base64 48 > FILE)";
                    return Err(check.fault(key, "holds less than 32 bytes", remedy));
                }
                AssertionKeys::Hs256 { secret }
            }
            // Each side reads its own key only, so that a captured HIS cannot mint.
            "EdDSA" => AssertionKeys::Ed25519 {
                private_key: (self.private_key_file)
                    .filter(|_| check.secrets == WantedSecrets::OfGateway)
                    .map(|path| check.secret("assertion.private_key_file", path))
                    .transpose()?,
                public_key: (self.public_key_file)
                    .filter(|_| check.secrets == WantedSecrets::OfHis)
                    .map(|path| {
                        check.content("assertion.public_key_file", &check.path(path)).map(|key| key.expose().to_vec())
                    })
                    .transpose()?,
            },
            other => {
                return Err(check.fault(
                    "assertion.algorithm",
                    format!("is `{other}`"),
                    "write \"HS256\" or \"EdDSA\"",
                ));
            }
        };
        Ok(AssertionConfig {
            keys,
            issuer: self.issuer,
            audience: self.audience,
            lifetime: check.seconds("assertion.lifetime_seconds", self.lifetime_seconds, 1)?,
        })
    }

    /// A secret written in this section: its key, the fault and the remedy.
    pub(super) fn written_secret(&self) -> Option<(&'static str, &'static str, &'static str)> {
        let remedy = "put it into a file of mode 0600 and name that with `assertion.secret_file`";
        self.secret.is_some().then_some(("assertion.secret", "is a secret in the configuration file", remedy))
    }
}
