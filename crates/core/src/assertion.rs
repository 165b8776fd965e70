//! The assertion: the signed identity that travels upstream. This module has its claims and keys, and verifies it for
//! the HIS on every request.
//!
//! It is a compact JWS (RFC 7515) with JWT claims (RFC 7519) in the `Fedgate-Assertion` header, signed with HS256 (RFC
//! 7518) or Ed25519 (RFC 8037). The one rule: the verifier chooses the algorithm, never the token. The protected
//! header must be, byte for byte, the one that the gateway writes.
//!
//! Only the gateway mints assertions. That code is in its own package (`src/assertion_signer.rs`), so that the HIS is
//! built without it.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::secret::Secret;

/// The header that carries the assertion, in lower case.
pub const HEADER: &str = "fedgate-assertion";
/// The header by which the gateway names an exchange. A service repeats it in its answer, so that no answer is taken
/// for the answer to another request.
pub const EXCHANGE: &str = "fedgate-exchange";
/// The header of a 503 that says nothing about the server's health: it serves others, and only this request was too
/// slow, met a lock, or exceeded its caller's share. In lower case; any upstream may send it.
pub const BUSY_HEADER: &str = "fedgate-busy";

/// The header of a 401 for an assertion that has expired or is not valid yet by the upstream's clock. In lower case.
pub const CLOCK_HEADER: &str = "fedgate-clock";

/// The longest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// How far the clocks of gateway and HIS may be apart.
const CLOCK_SKEW: Duration = Duration::from_secs(5);
/// The protected header of HS256: `{"alg":"HS256","typ":"JWT"}` in base64url.
pub const HS256_HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
/// The protected header of Ed25519: `{"alg":"EdDSA","typ":"JWT"}` in base64url.
pub const EDDSA_HEADER: &str = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9";

/// Configuration of the signed identity between gateway and HIS.
#[derive(Debug, Clone)]
pub struct AssertionConfig {
    /// Algorithm and keys.
    pub keys: AssertionKeys,
    /// `iss` of the assertions.
    pub issuer: String,
    /// `aud` of the assertions.
    pub audience: String,
    /// How long an assertion is valid.
    pub lifetime: Duration,
}

/// Algorithm and keys of the assertion.
#[derive(Debug, Clone)]
pub enum AssertionKeys {
    /// One secret that both sides hold.
    Hs256 {
        /// At least 32 bytes.
        secret: Secret,
    },
    /// A private key with the gateway, a public key with the HIS.
    Ed25519 {
        /// PKCS#8 in PEM; the gateway's.
        private_key: Option<Secret>,
        /// SubjectPublicKeyInfo in PEM; the HIS's.
        public_key: Option<Vec<u8>>,
    },
    /// The keys were not read, so nothing can be signed or verified.
    Unread,
}

/// Whose records the decision reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordScope {
    /// No record: a public page without a principal.
    Public,
    /// The principal's own record.
    Own,
    /// Any record.
    Global,
}

/// The claims of the gateway about one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssertionClaims<'a> {
    /// The issuer.
    pub iss: Cow<'a, str>,
    /// The audience.
    pub aud: Cow<'a, str>,
    /// The account id of the principal; empty on public pages.
    pub sub: Cow<'a, str>,
    /// The other ids of the same person, where the scope is `own` and the store names any: their records are the
    /// principal's own, too. Left out of the token otherwise.
    #[serde(default, skip_serializing_if = "<[String]>::is_empty")]
    pub same: Cow<'a, [String]>,
    /// The principal's roles, as stored.
    pub roles: Cow<'a, [String]>,
    /// The endpoint that was decided on, as in roles.cfg.
    pub endpoint: Cow<'a, str>,
    /// The request method.
    pub method: Cow<'a, str>,
    /// The canonical request path, as forwarded, without query.
    pub path: Cow<'a, str>,
    /// Whose records the decision reaches.
    pub scope: RecordScope,
    /// The person whose record the request touches, where the route has one.
    pub subject: Option<Cow<'a, str>>,
    /// Further permissions of the principal on this request (`account`).
    pub grants: Cow<'a, [String]>,
    /// The request id.
    pub rid: Cow<'a, str>,
    /// The fingerprint of the policy that decided.
    pub pol: Cow<'a, str>,
    /// Issued at, in seconds since 1970.
    pub iat: u64,
    /// The first second at which it is no longer valid, since 1970.
    pub exp: u64,
}

/// Why the keys are unusable.
#[derive(Debug, Error)]
pub enum AssertionKeyError {
    /// The configuration was loaded without its secrets.
    #[error("the keys of the assertion were not read")]
    Unread,
    /// This side needs a key that the configuration does not name.
    #[error("`assertion.{0}` is missing; this program cannot {1} assertions without it")]
    Missing(&'static str, &'static str),
    /// The key is not an Ed25519 key in the expected form.
    #[error("`assertion.{0}` does not hold {1}")]
    Malformed(&'static str, &'static str),
    /// The key is protected by a passphrase; a service has nobody to type it.
    #[error(
        "`assertion.{0}` holds a key that is encrypted; store it without a passphrase (`openssl pkey -in FILE -out \
         FILE.new` writes it so)"
    )]
    Encrypted(&'static str),
}

/// Why a token was rejected.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AssertionError {
    /// Not a compact JWS of the expected algorithm and size.
    #[error("assertion is malformed")]
    Malformed,
    /// The signature is not the gateway's.
    #[error("assertion signature is wrong")]
    Signature,
    /// The token is for another audience, or another issuer minted it.
    #[error("assertion is for another audience or from another issuer")]
    Audience,
    /// Past `exp`, or issued in the future.
    #[error("assertion has expired or is not valid yet")]
    Expired,
}

/// Verifies assertions; one per HIS.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use fedgate_core::assertion::{AssertionConfig, AssertionError, AssertionKeys, AssertionVerifier};
/// use fedgate_core::secret::Secret;
///
/// let config = AssertionConfig {
///     keys: AssertionKeys::Hs256 { secret: Secret::new(b"a secret of thirty-two bytes ....".to_vec()) },
///     issuer: "fedgate".to_owned(),
///     audience: "fedhis".to_owned(),
///     lifetime: Duration::from_secs(30),
/// };
/// let verifier = AssertionVerifier::from_config(&config)?;
/// // `{"alg":"none"}`: a token without a signature is no token.
/// let refused = verifier.verify(b"eyJhbGciOiJub25lIn0.e30.", SystemTime::now());
/// assert!(matches!(refused, Err(AssertionError::Malformed)));
/// # Ok::<(), fedgate_core::assertion::AssertionKeyError>(())
/// ```
pub struct AssertionVerifier {
    key: VerifyKey,
    issuer: String,
    audience: String,
}

enum VerifyKey {
    Hs256(hmac::Key),
    Ed25519(UnparsedPublicKey<[u8; 32]>),
}

impl AssertionVerifier {
    /// Takes issuer, audience and key from the configuration.
    ///
    /// # Errors
    /// The verifying key is missing or malformed.
    pub fn from_config(config: &AssertionConfig) -> Result<Self, AssertionKeyError> {
        let key = match &config.keys {
            AssertionKeys::Unread => return Err(AssertionKeyError::Unread),
            AssertionKeys::Hs256 { secret } => VerifyKey::Hs256(hmac::Key::new(hmac::HMAC_SHA256, secret.expose())),
            AssertionKeys::Ed25519 { public_key, .. } => {
                let pem = public_key.as_ref().ok_or(AssertionKeyError::Missing("public_key_file", "verify"))?;
                let malformed = AssertionKeyError::Malformed("public_key_file", "an Ed25519 public key in PEM");
                let key = pem_section(pem, "PUBLIC KEY").and_then(|der| ed25519_public_key(&der)).ok_or(malformed)?;
                VerifyKey::Ed25519(UnparsedPublicKey::new(&ED25519, key))
            }
        };
        Ok(Self { key, issuer: config.issuer.clone(), audience: config.audience.clone() })
    }

    /// Verifies a token and returns its claims.
    ///
    /// # Errors
    /// See [`AssertionError`]. The signature is checked (in constant time) before any claim is read.
    pub fn verify(&self, token: &[u8], now: SystemTime) -> Result<AssertionClaims<'static>, AssertionError> {
        let token = std::str::from_utf8(token).map_err(|_| AssertionError::Malformed)?;
        // A bound before any decoding or hashing: without it, the caller chooses how many bytes are hashed.
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AssertionError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(AssertionError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(AssertionError::Malformed)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| AssertionError::Malformed)?;
        let (expected_header, genuine) = match &self.key {
            VerifyKey::Hs256(key) => (HS256_HEADER, hmac::verify(key, signed.as_bytes(), &signature).is_ok()),
            VerifyKey::Ed25519(key) => (EDDSA_HEADER, key.verify(signed.as_bytes(), &signature).is_ok()),
        };
        // The header is compared whole, so `alg: none` or a switch from Ed25519 to HS256 (the public key taken as a
        // secret) has no way in.
        if header != expected_header {
            return Err(AssertionError::Malformed);
        }
        if !genuine {
            return Err(AssertionError::Signature);
        }
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| AssertionError::Malformed)?;
        let claims: AssertionClaims<'static> =
            serde_json::from_slice(&payload).map_err(|_| AssertionError::Malformed)?;
        if claims.iss != self.issuer || claims.aud != self.audience {
            return Err(AssertionError::Audience);
        }
        let now = unix_seconds(now);
        let skew = CLOCK_SKEW.as_secs();
        if now >= claims.exp.saturating_add(skew) || claims.iat > now.saturating_add(skew) {
            return Err(AssertionError::Expired);
        }
        Ok(claims)
    }
}

/// The seconds since 1970; 0 before.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The DER bytes of the first PEM section of the given kind (RFC 7468).
pub fn pem_section(pem: &[u8], kind: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let body = text.split_once(&format!("-----BEGIN {kind}-----"))?.1.split_once(&format!("-----END {kind}-----"))?.0;
    let body: String = body.split_ascii_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(body).ok()
}

/// The key inside a SubjectPublicKeyInfo for Ed25519 (RFC 8410: a fixed prefix of 12 bytes, then 32 bytes of key).
fn ed25519_public_key(der: &[u8]) -> Option<[u8; 32]> {
    const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    der.strip_prefix(&PREFIX)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    const SECRET: &[u8] = b"a secret of thirty-two bytes ....";

    fn hs256(secret: &[u8]) -> AssertionConfig {
        AssertionConfig {
            keys: AssertionKeys::Hs256 { secret: Secret::new(secret.to_vec()) },
            issuer: "fedgate".into(),
            audience: "fedhis".into(),
            lifetime: Duration::from_secs(30),
        }
    }

    fn claims(now: SystemTime) -> AssertionClaims<'static> {
        AssertionClaims {
            iss: "fedgate".into(),
            aud: "fedhis".into(),
            sub: "ESPGNU777ORG".into(),
            same: vec!["ESPGNU777OLD".to_owned()].into(),
            roles: vec!["end_user".to_owned()].into(),
            endpoint: "page".into(),
            method: "GET".into(),
            path: "/pols/ESPGNU777ORG/1".into(),
            scope: RecordScope::Own,
            subject: Some("ESPGNU777ORG".into()),
            grants: vec![].into(),
            rid: "r1".into(),
            pol: "p1".into(),
            iat: unix_seconds(now),
            exp: unix_seconds(now) + 30,
        }
    }

    /// A token in the format of RFC 7515, signed with the secret.
    fn token(claims: &AssertionClaims<'_>) -> String {
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims).unwrap());
        let signed = format!("{HS256_HEADER}.{payload}");
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    #[test]
    fn what_was_signed_is_believed_until_it_expires() {
        let verifier = AssertionVerifier::from_config(&hs256(SECRET)).unwrap();
        let now = SystemTime::now();
        let token = token(&claims(now));
        assert_eq!(verifier.verify(token.as_bytes(), now), Ok(claims(now)));
        let later = now + Duration::from_secs(36);
        assert_eq!(verifier.verify(token.as_bytes(), later), Err(AssertionError::Expired));
        let earlier = now - Duration::from_secs(10);
        assert_eq!(verifier.verify(token.as_bytes(), earlier), Err(AssertionError::Expired));
    }

    #[test]
    fn a_change_of_any_byte_is_seen() {
        let verifier = AssertionVerifier::from_config(&hs256(SECRET)).unwrap();
        let now = SystemTime::now();
        let token = token(&claims(now)).into_bytes();
        for at in 0..token.len() {
            let mut changed = token.clone();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(verifier.verify(&changed, now).is_err(), "byte {at}");
        }
        for cut in 0..token.len() {
            assert!(verifier.verify(&token[..cut], now).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn another_key_algorithm_audience_or_issuer_is_not_believed() {
        let config = hs256(SECRET);
        let now = SystemTime::now();
        let token = token(&claims(now));
        let other = AssertionVerifier::from_config(&hs256(b"another secret of 32 bytes ......")).unwrap();
        assert_eq!(other.verify(token.as_bytes(), now), Err(AssertionError::Signature));
        let elsewhere =
            AssertionVerifier::from_config(&AssertionConfig { audience: "x".into(), ..config.clone() }).unwrap();
        assert_eq!(elsewhere.verify(token.as_bytes(), now), Err(AssertionError::Audience));
        let (_, payload) = token.split_once('.').unwrap();
        let (payload, _) = payload.split_once('.').unwrap();
        let unsigned = format!("{}.{payload}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#));
        let verifier = AssertionVerifier::from_config(&config).unwrap();
        assert_eq!(verifier.verify(unsigned.as_bytes(), now), Err(AssertionError::Malformed));
    }
}
