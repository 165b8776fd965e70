//! Mints assertions: the gateway signs the caller and the granted access.
//!
//! The one rule: only this package can sign. The HIS is built without this module, and with Ed25519 it has no key to
//! sign with.
//!
//! Cost: 1 µs with HS256, some 20 µs with Ed25519.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::signature::Ed25519KeyPair;

use fedgate_core::assertion::{
    AssertionClaims, AssertionConfig, AssertionKeyError, AssertionKeys, EDDSA_HEADER, HS256_HEADER, pem_section,
    unix_seconds,
};

/// Mints assertions; one per gateway.
pub struct AssertionSigner {
    key: MintKey,
    issuer: String,
    audience: String,
    lifetime: Duration,
}

enum MintKey {
    Hs256(hmac::Key),
    Ed25519(Box<Ed25519KeyPair>),
}

impl AssertionSigner {
    /// Takes issuer, audience, lifetime and key from the configuration.
    ///
    /// # Errors
    /// The signing key is missing or malformed.
    pub fn from_config(config: &AssertionConfig) -> Result<Self, AssertionKeyError> {
        let key = match &config.keys {
            AssertionKeys::Unread => return Err(AssertionKeyError::Unread),
            AssertionKeys::Hs256 { secret } => MintKey::Hs256(hmac::Key::new(hmac::HMAC_SHA256, secret.expose())),
            AssertionKeys::Ed25519 { private_key, .. } => {
                let key = private_key.as_ref().ok_or(AssertionKeyError::Missing("private_key_file", "mint"))?;
                let malformed = AssertionKeyError::Malformed("private_key_file", "an Ed25519 key in PKCS#8 PEM");
                if pem_section(key.expose(), "ENCRYPTED PRIVATE KEY").is_some() {
                    return Err(AssertionKeyError::Encrypted("private_key_file"));
                }
                let der = pem_section(key.expose(), "PRIVATE KEY");
                let pair =
                    der.and_then(|der| Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok()).ok_or(malformed)?;
                MintKey::Ed25519(Box::new(pair))
            }
        };
        Ok(Self { key, issuer: config.issuer.clone(), audience: config.audience.clone(), lifetime: config.lifetime })
    }

    /// A key for another purpose, the same on every instance with this key. From it, nobody learns this one.
    pub fn key_for(&self, purpose: &str) -> hmac::Key {
        // No assertion begins so, and the value leaves this function only as a key.
        let text = [b"fedgate key for ", purpose.as_bytes()].concat();
        match &self.key {
            MintKey::Hs256(key) => hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(key, &text).as_ref()),
            // Signatures of Ed25519 are deterministic (RFC 8032, 5.1.6).
            MintKey::Ed25519(pair) => hmac::Key::new(hmac::HMAC_SHA256, pair.sign(&text).as_ref()),
        }
    }

    /// The issuer that minted assertions name.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The audience that minted assertions name.
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// `iat` and `exp` of an assertion minted at `now`.
    pub fn validity(&self, now: SystemTime) -> (u64, u64) {
        let issued = unix_seconds(now);
        (issued, issued.saturating_add(self.lifetime.as_secs()))
    }

    /// Signs the claims; the token is the value of the [`HEADER`](fedgate_core::assertion::HEADER).
    pub fn sign(&self, claims: &AssertionClaims<'_>) -> String {
        let header = match self.key {
            MintKey::Hs256(_) => HS256_HEADER,
            MintKey::Ed25519(_) => EDDSA_HEADER,
        };
        let payload = serde_json::to_vec(claims).unwrap_or_default();
        let mut token = String::with_capacity(header.len() + payload.len() * 4 / 3 + 96);
        token.push_str(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&payload, &mut token);
        match &self.key {
            MintKey::Hs256(key) => {
                let tag = hmac::sign(key, token.as_bytes());
                token.push('.');
                URL_SAFE_NO_PAD.encode_string(tag, &mut token);
            }
            MintKey::Ed25519(pair) => {
                let signature = pair.sign(token.as_bytes());
                token.push('.');
                URL_SAFE_NO_PAD.encode_string(signature, &mut token);
            }
        }
        token
    }
}

#[cfg(test)]
mod tests {
    use fedgate_core::assertion::{AssertionError, AssertionVerifier, RecordScope};
    use fedgate_core::secret::Secret;

    use super::*;

    fn hs256() -> AssertionConfig {
        AssertionConfig {
            keys: AssertionKeys::Hs256 { secret: Secret::new(b"a secret of thirty-two bytes ....".to_vec()) },
            issuer: "fedgate".into(),
            audience: "fedhis".into(),
            lifetime: Duration::from_secs(30),
        }
    }

    fn ed25519() -> AssertionConfig {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let keys = AssertionKeys::Ed25519 {
            private_key: Some(Secret::new(pair.serialize_pem().into_bytes())),
            public_key: Some(pair.public_key_pem().into_bytes()),
        };
        AssertionConfig { keys, ..hs256() }
    }

    fn claims(signer: &AssertionSigner, now: SystemTime) -> AssertionClaims<'static> {
        let (iat, exp) = signer.validity(now);
        AssertionClaims {
            iss: "fedgate".into(),
            aud: "fedhis".into(),
            sub: "ESPGNU777ORG".into(),
            same: vec![].into(),
            roles: vec!["end_user".to_owned()].into(),
            endpoint: "page".into(),
            method: "GET".into(),
            path: "/pols/ESPGNU777ORG/1".into(),
            scope: RecordScope::Own,
            subject: Some("ESPGNU777ORG".into()),
            grants: vec![].into(),
            rid: "r1".into(),
            pol: "p1".into(),
            iat,
            exp,
        }
    }

    #[test]
    fn what_was_minted_is_believed_until_it_expires_by_the_side_with_the_other_key() {
        for config in [hs256(), ed25519()] {
            let signer = AssertionSigner::from_config(&config).unwrap();
            let verifier = AssertionVerifier::from_config(&config).unwrap();
            let now = SystemTime::now();
            let claims = claims(&signer, now);
            let token = signer.sign(&claims);
            assert_eq!(verifier.verify(token.as_bytes(), now), Ok(claims));
            let later = now + Duration::from_secs(36);
            assert_eq!(verifier.verify(token.as_bytes(), later), Err(AssertionError::Expired));
        }
        let now = SystemTime::now();
        let signer = AssertionSigner::from_config(&hs256()).unwrap();
        let token = signer.sign(&claims(&signer, now));
        let asymmetric = AssertionVerifier::from_config(&ed25519()).unwrap();
        assert_eq!(asymmetric.verify(token.as_bytes(), now), Err(AssertionError::Malformed));
    }

    #[test]
    fn each_side_says_which_key_it_lacks() {
        let keys = AssertionKeys::Ed25519 { private_key: None, public_key: Some(b"no pem".to_vec()) };
        let config = AssertionConfig { keys, ..hs256() };
        assert!(matches!(
            AssertionSigner::from_config(&config),
            Err(AssertionKeyError::Missing("private_key_file", _))
        ));
        assert!(matches!(
            AssertionVerifier::from_config(&config),
            Err(AssertionKeyError::Malformed("public_key_file", _))
        ));
        let unread = AssertionConfig { keys: AssertionKeys::Unread, ..hs256() };
        assert!(matches!(AssertionSigner::from_config(&unread), Err(AssertionKeyError::Unread)));
    }
}
