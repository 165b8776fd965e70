//! The Basic scheme (RFC 7617): turns one header value into a credential, or refuses it.
//!
//! The one rule: strict where Thalamus was lenient (scheme name, base64), lenient where its clients need it (bytes
//! that are not UTF-8 are read as latin-1, as python-requests sends them).
//!
//! The authenticator calls it once per request. It allocates only for latin-1, and wipes the decoded bytes.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use crate::password::{MAX_PASSWORD_BYTES, can_sign_in};
use crate::path::MAX_ID_BYTES;

const MAX_DECODED_BYTES: usize = MAX_ID_BYTES + 1 + MAX_PASSWORD_BYTES;
const MAX_ENCODED_BYTES: usize = MAX_DECODED_BYTES.div_ceil(3) * 4;

/// A presented credential: an account id and a password.
pub struct BasicCredential<'a> {
    /// 1 to 256 bytes, no control characters.
    pub account: Cow<'a, str>,
    /// 1 to 1024 bytes, UTF-8.
    pub password: Cow<'a, [u8]>,
}

/// Why a header value is not a credential. The client is not told the reason.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
pub enum CredentialError {
    /// The scheme is missing or is not Basic.
    #[error("authorization is not of the Basic scheme")]
    Scheme,
    /// Not canonical base64.
    #[error("credentials are not canonical base64")]
    Base64,
    /// No colon between account and password.
    #[error("credentials have no colon")]
    NoColon,
    /// Account or password is empty, too long, or has a forbidden character.
    #[error("account or password is empty, too long or has control characters")]
    Bounds,
}

/// Parses the value of an `Authorization` header and passes the credential to `use_it`. The decoded bytes are wiped
/// when it returns.
///
/// # Errors
/// See [`CredentialError`].
pub fn with_credential<T>(header: &[u8], use_it: impl FnOnce(&BasicCredential<'_>) -> T) -> Result<T, CredentialError> {
    let encoded = match header.split_at_checked(6) {
        // The scheme's name has no case (RFC 9110, 11.1); exactly one blank follows it.
        Some((scheme, encoded)) if scheme.eq_ignore_ascii_case(b"Basic ") => encoded,
        _ => return Err(CredentialError::Scheme),
    };
    // The buffer below is on the stack and has this size, so a longer value is refused before it is decoded.
    if encoded.len() > MAX_ENCODED_BYTES {
        return Err(CredentialError::Bounds);
    }
    let mut buffer = [0u8; MAX_ENCODED_BYTES];
    let decoded = STANDARD.decode_slice(encoded, &mut buffer);
    let used = match decoded {
        Ok(length) => buffer
            .get(..length)
            .map(split)
            .unwrap_or(Err(CredentialError::Base64))
            .map(|credential| use_it(&credential)),
        Err(_) => Err(CredentialError::Base64),
    };
    // Base64 decodes front to back, so nothing beyond the length of the input was ever written.
    if let Some(written) = buffer.get_mut(..encoded.len()) {
        written.zeroize();
    }
    used
}

/// Splits at the first colon; the password may contain more of them (RFC 7617, 2).
fn split(decoded: &[u8]) -> Result<BasicCredential<'_>, CredentialError> {
    let colon = decoded.iter().position(|byte| *byte == b':').ok_or(CredentialError::NoColon)?;
    let (account, password) = (decoded.get(..colon).unwrap_or_default(), decoded.get(colon + 1..).unwrap_or_default());
    let credential = match (std::str::from_utf8(account), std::str::from_utf8(password)) {
        (Ok(account), Ok(_)) => BasicCredential { account: Cow::Borrowed(account), password: Cow::Borrowed(password) },
        // If either is not UTF-8, both are read as latin-1, as Flask-HTTPAuth does.
        _ => BasicCredential {
            account: Cow::Owned(latin1(account)),
            password: Cow::Owned(latin1(password).into_bytes()),
        },
    };
    let account_fits = (1..=MAX_ID_BYTES).contains(&credential.account.len());
    let password_fits = (1..=MAX_PASSWORD_BYTES).contains(&credential.password.len());
    if !account_fits
        || !password_fits
        || credential.account.chars().any(char::is_control)
        || !can_sign_in(&credential.password)
    {
        return Err(CredentialError::Bounds);
    }
    Ok(credential)
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

impl BasicCredential<'_> {
    /// A copy that outlives the buffer, for the path that reads the store and hashes.
    pub fn to_owned(&self) -> OwnedCredential {
        OwnedCredential { account: self.account.clone().into_owned(), password: Zeroizing::new(self.password.to_vec()) }
    }
}

impl Drop for BasicCredential<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(password) = &mut self.password {
            password.zeroize();
        }
    }
}

/// As [`BasicCredential`], owning its bytes.
pub struct OwnedCredential {
    /// The account id.
    pub account: String,
    /// The password, wiped when dropped.
    pub password: Zeroizing<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(header: &[u8]) -> Result<(String, Vec<u8>), CredentialError> {
        with_credential(header, |credential| (credential.account.to_string(), credential.password.to_vec()))
    }

    fn basic(decoded: &[u8]) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(decoded)).into_bytes()
    }

    #[test]
    fn the_first_colon_splits_and_the_scheme_has_any_case() {
        for scheme in ["Basic", "basic", "bAsIc", "BASIC"] {
            let header = format!("{scheme} {}", STANDARD.encode("ANA:a:b:"));
            assert_eq!(parse(header.as_bytes()), Ok(("ANA".into(), b"a:b:".to_vec())));
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_read_as_latin1_both() {
        assert_eq!(parse(&basic("ANÄ:pässword".as_bytes())), Ok(("ANÄ".into(), "pässword".as_bytes().to_vec())));
        assert_eq!(parse(&basic(b"AN\xc4:p\xe4ss")), Ok(("ANÄ".into(), "päss".as_bytes().to_vec())));
        // The account is valid UTF-8, the password is not: both are read as latin-1.
        let mixed = [&"Ä:".as_bytes()[..1], &b"\x84:p\xe4"[..]].concat();
        let account: String = "Ä".bytes().map(char::from).collect();
        // Its second latin-1 character is a C1 control, which no id may contain.
        assert!(account.chars().any(char::is_control));
        assert_eq!(parse(&basic(&mixed)), Err(CredentialError::Bounds));
    }

    #[test]
    fn what_is_not_strictly_basic_is_refused() {
        use CredentialError::*;
        let long_account = [&[b'a'; 257][..], b":x"].concat();
        let long_password = [b"a:".as_slice(), &[b'x'; 1025]].concat();
        #[rustfmt::skip]
        let cases: Vec<(Vec<u8>, CredentialError)> = vec![
            (b"".to_vec(), Scheme), (b"Basic".to_vec(), Scheme), (b"Bearer abc".to_vec(), Scheme), (b"Basic\tQTpi".to_vec(), Scheme),
            (b"Basic ".to_vec(), NoColon), (b"Basic =".to_vec(), Base64), (b"Basic !!!!".to_vec(), Base64),
            (b"Basic QTpiYw".to_vec(), Base64),      // unpadded
            (b"Basic QTpiYx==".to_vec(), Base64),    // trailing bits
            (b"Basic QTpi QTpi".to_vec(), Base64), (b"Basic  QTpi".to_vec(), Base64), (b"Basic QTpi ".to_vec(), Base64),
            (b"Basic QTpi,QTpi".to_vec(), Base64), (b"Basic QT-_".to_vec(), Base64),
            (basic(b"nocolon"), NoColon), (basic(b":x"), Bounds), (basic(b"A:"), Bounds),
            (basic(b"A\0:x"), Bounds), (basic(b"A:x\0"), Bounds), (basic(b"A:x\r\n"), Bounds), (basic(b"A\nB:x"), Bounds),
            (basic(&long_account), Bounds), (basic(&long_password), Bounds), (basic(&[b'a'; 5000]), Bounds),
        ];
        for (header, error) in cases {
            assert_eq!(parse(&header), Err(error), "{}", String::from_utf8_lossy(&header));
        }
        assert!(parse(&basic(&[&[b'a'; 256][..], b":", &[b'x'; 1024]].concat())).is_ok());
        assert_eq!((MAX_DECODED_BYTES, MAX_ENCODED_BYTES), (1281, 1708));
    }
}
