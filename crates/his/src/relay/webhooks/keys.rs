//! The keys of webhooks, and the signatures of messages (Standard Webhooks 1.0.0).
//!
//! The one rule: a key exists only while it is used. It is derived (HKDF-SHA256, RFC 5869) from a secret in a file of the
//! HIS, the id of the webhook, and a number, so the database holds no key, and neither does a dump of it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

use crate::store::webhooks::{WebhookKeyKind, WebhookKeyPlace};
use fedgate_core::secret::Secret;

/// Bytes of a key: both kinds have as many.
const KEY_BYTES: usize = 32;
const SALT: &[u8] = b"fedgate webhooks";

/// The secrets from which keys are derived. Without any, no messages are sent.
#[derive(Clone)]
pub(super) struct WebhookSecrets(Vec<NamedSecret>);

#[derive(Clone)]
struct NamedSecret {
    name: String,
    secret: Secret,
}

/// The key to sign or verify with, in the forms of the specification.
pub struct WebhookKeyTexts {
    /// The key with which the receiver verifies: `whsec_…` (v1, secret) or `whpk_…` (v1a, public).
    pub verifying: Zeroizing<String>,
    /// The key with which this service signs, if that is another: `whsk_…` (v1a).
    pub signing: Option<Zeroizing<String>>,
}

struct DerivedLength;

impl KeyType for DerivedLength {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

/// Derives bytes; none never occurs, as the length is fixed.
fn derive(secret: &Secret, about: &[&[u8]]) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    let extracted = Salt::new(HKDF_SHA256, SALT).extract(secret.expose());
    extracted.expand(about, DerivedLength).ok()?.fill(key.as_mut()).ok()?;
    Some(key)
}

impl WebhookSecrets {
    /// The secrets of the configuration. Each is named by some of what is derived from it, which says nothing about it.
    pub(super) fn new(secrets: &[Secret]) -> Self {
        let named = |secret: &Secret| {
            let name = derive(secret, &[b"name"])?;
            let name = name.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
            Some(NamedSecret { name, secret: secret.clone() })
        };
        Self(secrets.iter().filter_map(named).collect())
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The places of new keys, with these numbers.
    pub(super) fn new_places(&self, webhook: &str, kinds: &[WebhookKeyKind], last: i64) -> Vec<WebhookKeyPlace> {
        let Some(NamedSecret { name, .. }) = self.0.first() else { return Vec::new() };
        let place = |(number, kind): (i64, &WebhookKeyKind)| WebhookKeyPlace {
            webhook: webhook.to_owned(),
            number,
            kind: *kind,
            secret: name.clone(),
        };
        (last + 1..).zip(kinds).map(place).collect()
    }

    fn key(&self, place: &WebhookKeyPlace) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
        let NamedSecret { secret, .. } = self.0.iter().find(|known| known.name == place.secret)?;
        let number = place.number.to_be_bytes();
        derive(secret, &[place.kind.as_str().as_bytes(), b" ", &number, place.webhook.as_bytes()])
    }

    /// A key as text; none if its secret is not in the file any more.
    pub(super) fn texts(&self, place: &WebhookKeyPlace) -> Option<WebhookKeyTexts> {
        let key = self.key(place)?;
        let text = |prefix: &str, bytes: &[u8]| {
            // Room for all of it, since growing would leave a copy behind.
            let mut text = Zeroizing::new(String::with_capacity(64));
            text.push_str(prefix);
            STANDARD.encode_string(bytes, &mut text);
            text
        };
        Some(match place.kind {
            WebhookKeyKind::V1 => WebhookKeyTexts { verifying: text("whsec_", key.as_ref()), signing: None },
            WebhookKeyKind::V1a => {
                let pair = Ed25519KeyPair::from_seed_unchecked(key.as_ref()).ok()?;
                WebhookKeyTexts {
                    verifying: text("whpk_", pair.public_key().as_ref()),
                    signing: Some(text("whsk_", key.as_ref())),
                }
            }
        })
    }

    /// The value of `webhook-signature`: one signature for each key, the newest first. None without any key.
    pub(super) fn sign(&self, places: &[WebhookKeyPlace], id: &str, timestamp: u64, body: &[u8]) -> Option<String> {
        let signature = |place: &WebhookKeyPlace| sign(place.kind, self.key(place)?.as_ref(), id, timestamp, body);
        let signatures: Vec<String> = places.iter().filter_map(signature).collect();
        (!signatures.is_empty()).then(|| signatures.join(" "))
    }
}

/// Signs `id.timestamp.body`.
fn sign(kind: WebhookKeyKind, key: &[u8], id: &str, timestamp: u64, body: &[u8]) -> Option<String> {
    let mut content = format!("{id}.{timestamp}.").into_bytes();
    content.extend_from_slice(body);
    let signature = match kind {
        WebhookKeyKind::V1 => STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &content)),
        WebhookKeyKind::V1a => STANDARD.encode(Ed25519KeyPair::from_seed_unchecked(key).ok()?.sign(&content)),
    };
    Some(format!("{},{signature}", kind.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the libraries of Standard Webhooks.
    #[test]
    fn signatures_are_those_of_the_known_examples() {
        const BODY: &[u8] = br#"{"test": 2432232314}"#;
        let cases = [
            (WebhookKeyKind::V1, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
            (
                WebhookKeyKind::V1a,
                "VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk=",
                "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag==",
            ),
        ];
        for (kind, key, expected) in cases {
            let key = STANDARD.decode(key).unwrap();
            let signed = sign(kind, &key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, BODY);
            assert_eq!(signed.as_deref(), Some(expected));
        }
    }

    #[test]
    fn keys_differ_by_webhook_number_kind_and_secret_and_are_the_same_again() {
        let [old, new] = ["a".repeat(32), "b".repeat(32)].map(|text| Secret::new(text.into_bytes()));
        let secrets = WebhookSecrets::new(&[new.clone(), old.clone()]);
        let mut seen = std::collections::HashSet::new();
        for secrets in [&secrets, &WebhookSecrets::new(std::slice::from_ref(&old))] {
            for (webhook, last) in [("wh_a", 0), ("wh_a", 1), ("wh_b", 0)] {
                for kind in [WebhookKeyKind::V1, WebhookKeyKind::V1a] {
                    let places = secrets.new_places(webhook, &[kind], last);
                    let texts = secrets.texts(&places[0]).unwrap();
                    assert_eq!(*texts.verifying, *secrets.texts(&places[0]).unwrap().verifying);
                    assert!(seen.insert(texts.verifying.to_string()), "{webhook} {last} {kind:?}");
                }
            }
        }
        // The secret of an old key is found by its name, and a key without its secret signs nothing.
        let place = &WebhookSecrets::new(&[old]).new_places("wh_a", &[WebhookKeyKind::V1], 0);
        assert!(secrets.sign(place, "id", 1, b"{}").is_some());
        assert!(WebhookSecrets::new(&[new]).sign(place, "id", 1, b"{}").is_none());
    }
}
