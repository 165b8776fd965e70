//! Basic: an accepted credential is exactly what was sent, within its bounds, and has one spelling.
#![no_main]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fedgate_core::basic::{CredentialError, with_credential};
use fedgate_core::password::MAX_PASSWORD_BYTES;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Once as the value of the header, and once as the text encoded in it.
    check(bytes);
    let encoded = format!("Basic {}", STANDARD.encode(bytes));
    let accepted = check(encoded.as_bytes());
    assert_eq!(accepted.is_some(), is_credential(bytes));
    if accepted.is_some() {
        for spelling in [format!("{encoded} "), format!("{encoded}="), encoded.replacen(' ', "  ", 1)] {
            assert!(check(spelling.as_bytes()).is_none(), "`{spelling}` is a second spelling");
        }
    }
});

fn check(header: &[u8]) -> Option<(String, Vec<u8>)> {
    let parse = || {
        with_credential(header, |credential| {
            let owned = credential.to_owned();
            assert_eq!((owned.account.as_str(), &**owned.password), (&*credential.account, &*credential.password));
            (credential.account.to_string(), credential.password.to_vec())
        })
    };
    let first: Result<_, CredentialError> = parse();
    assert_eq!(first, parse());
    let (account, password) = first.ok()?;
    assert!((1..=256).contains(&account.len()) && !account.contains(char::is_control) && !account.contains(':'));
    assert!((1..=MAX_PASSWORD_BYTES).contains(&password.len()) && !password.iter().any(|b| b"\0\r\n".contains(b)));
    let password_text = std::str::from_utf8(&password).expect("UTF-8");

    // The credential that was read, written again, is the one that was sent: as UTF-8, or as latin-1 if it was not
    // UTF-8.
    let written = format!("{account}:{password_text}");
    let latin1: Option<Vec<u8>> = written.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    let as_utf8 = STANDARD.encode(&written).into_bytes();
    let as_latin1 = latin1.map(|bytes| STANDARD.encode(bytes).into_bytes());
    assert!(header[..6].eq_ignore_ascii_case(b"basic "));
    assert!(header[6..] == as_utf8 || Some(&header[6..]) == as_latin1.as_deref(), "round trip");
    Some((account, password))
}

/// The same from the other side: whether these bytes are an account and a password.
fn is_credential(bytes: &[u8]) -> bool {
    let text =
        std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().map(|b| char::from(*b)).collect(), str::to_owned);
    let Some((account, password)) = text.split_once(':') else { return false };
    (1..=256).contains(&account.len())
        && (1..=1024).contains(&password.len())
        && !account.contains(char::is_control)
        && !password.contains(['\0', '\r', '\n'])
}
