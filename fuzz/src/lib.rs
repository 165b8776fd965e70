//! The modules of fedgate that read what strangers write, taken by path, so that a build needs neither the proxy nor the
//! database and instruments everything that runs.
//!
//! The one rule: a target states laws, not only that nothing panics; where it can, it compares with a second reading
//! that was written from the standard, slowly and apart ([`reference`]).

#[path = "../../src/assertion.rs"]
pub mod assertion;
#[path = "../../src/authn/basic.rs"]
pub mod basic;
#[path = "../../src/escape.rs"]
pub mod escape;
#[path = "../../src/framing.rs"]
pub mod framing;
#[path = "../../src/host.rs"]
pub mod host;
#[path = "../../src/password.rs"]
pub mod password;
#[path = "../../src/path.rs"]
pub mod path;
#[path = "../../src/policy/mod.rs"]
pub mod policy;
#[path = "../../src/secret.rs"]
pub mod secret;
pub mod reference;

/// What [`basic`] takes from the routes: the real ones need the whole configuration.
mod routes {
    pub(crate) const MAX_ID_BYTES: usize = 256;
}

/// What [`assertion`] takes from the configuration, field by field as it stands there.
pub mod config {
    use std::time::Duration;

    use crate::secret::Secret;

    pub struct AssertionConfig {
        pub keys: AssertionKeys,
        pub issuer: String,
        pub audience: String,
        pub lifetime: Duration,
    }

    pub enum AssertionKeys {
        Hs256 { secret: Secret },
        Ed25519 { private_key: Option<Secret>, public_key: Option<Vec<u8>> },
        Unread,
    }
}
