//! Assertions: a token is accepted only if it was minted, byte for byte, for this audience and this moment.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fedgate_core::assertion::{
    AssertionClaims, AssertionConfig, AssertionKeys, AssertionVerifier, HS256_HEADER, RecordScope,
};
use fedgate_core::secret::Secret;
use libfuzzer_sys::fuzz_target;
use ring::hmac;

const SECRET: &[u8] = b"a secret of thirty-two bytes ....";
const NOW: u64 = 1_800_000_000;

static VERIFIER: LazyLock<AssertionVerifier> = LazyLock::new(|| {
    let config = AssertionConfig {
        keys: AssertionKeys::Hs256 { secret: Secret::new(SECRET.to_vec()) },
        issuer: "fedgate".into(),
        audience: "fedhis".into(),
        lifetime: Duration::from_secs(30),
    };
    AssertionVerifier::from_config(&config).expect("a key")
});

fuzz_target!(|bytes: &[u8]| {
    let verifier = &*VERIFIER;
    let now = UNIX_EPOCH + Duration::from_secs(NOW);

    // As a token.
    assert!(verifier.verify(bytes, now).is_err(), "nobody guesses a signature");

    // As changes to a token: a position, and the byte to put there.
    let minted = signed(&serde_json::to_vec(&claims()).expect("claims")).into_bytes();
    assert_eq!(verifier.verify(&minted, now), Ok(claims()));
    let mut changed = minted.clone();
    for change in bytes.chunks_exact(4) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % (changed.len() + 1);
        match change[2] % 4 {
            0 => changed.insert(at, change[3]),
            1 => changed.truncate(at),
            2 if at < changed.len() => drop(changed.remove(at)),
            _ => changed.get_mut(at).map_or((), |byte| *byte = change[3]),
        }
    }
    assert_eq!(verifier.verify(&changed, now).is_ok(), changed == minted, "no other spelling of a token is believed");

    // As claims, signed with the key: accepted only with audience, times, and no unknown claim.
    let token = signed(bytes);
    if let Ok(claims) = verifier.verify(token.as_bytes(), now) {
        assert_eq!((&*claims.iss, &*claims.aud), ("fedgate", "fedhis"));
        assert!(claims.iat <= NOW + 5 && claims.exp.saturating_add(5) > NOW);
        let again = signed(&serde_json::to_vec(&claims).expect("claims"));
        assert_eq!(verifier.verify(again.as_bytes(), now), Ok(claims), "signed again, it says the same");
    }
});

/// A token with this payload, signed with the key.
fn signed(payload: &[u8]) -> String {
    let signed = format!("{HS256_HEADER}.{}", URL_SAFE_NO_PAD.encode(payload));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn claims() -> AssertionClaims<'static> {
    AssertionClaims {
        iss: "fedgate".into(),
        aud: "fedhis".into(),
        sub: "ANA".into(),
        same: vec!["ANA-OLD".to_owned()].into(),
        roles: vec!["end_user".to_owned()].into(),
        endpoint: "page".into(),
        method: "GET".into(),
        path: "/pols/ANA/1".into(),
        scope: RecordScope::Own,
        subject: Some("ANA".into()),
        grants: vec![].into(),
        rid: "r1".into(),
        pol: "p1".into(),
        iat: NOW,
        exp: NOW + 30,
    }
}
