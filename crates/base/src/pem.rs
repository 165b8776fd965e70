//! PEM files of certificates, keys and revocation lists, read and checked. A fault is described in words that follow
//! the file's name.
//!
//! The one rule: a file is faulty if it lacks the content that its key asks for, or if a part of it would be ignored.

mod dates;
mod sections;

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

pub use dates::{CertificateValidity, HeldCertificate, date, shown};

use crate::regular;
use sections::{CERTIFICATE, ENCRYPTED_KEY, KEYS, LIST, PemSection, sections};

/// The largest file; revocation lists are the largest.
const MOST_BYTES: u64 = 64 << 20;

/// The bytes of a file.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let bytes = regular::read(path, MOST_BYTES).map_err(|error| format!("cannot be read ({error})"))?;
    Ok(Zeroizing::new(bytes))
}

/// The certificates in a file; at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    certificates_in(&read(path)?)
}

/// The certificates in these bytes; at least one.
pub fn certificates_in(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = decoded(&sections(bytes)?, CERTIFICATE)?;
    if found.is_empty() { Err("holds no certificate".into()) } else { Ok(found) }
}

/// The private key in a file.
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    key_in(&read(path)?)
}

/// The private key in these bytes; the first if there are several.
pub fn key_in(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    const ENCRYPTED: &str =
        "holds a key that is encrypted; store it without a passphrase (`openssl pkey` writes it so)";
    let found = sections(bytes)?;
    let Some(key) = found.iter().find(|section| KEYS.contains(&section.label)) else {
        let is_encrypted = found.iter().any(|section| section.label == ENCRYPTED_KEY);
        return Err(if is_encrypted { ENCRYPTED } else { "holds none" }.into());
    };
    // openssl's old format (RFC 1421) has headers before the base64.
    PrivateKeyDer::from_pem_slice(key.text).map_err(|error| match key.text.windows(10).any(|at| at == b"Proc-Type:") {
        true => ENCRYPTED.into(),
        false => in_words(error),
    })
}

/// The revocation lists in these bytes: some in PEM, or one in DER, as authorities publish it. At least one.
pub fn revocation_lists_in(bytes: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    // Every list is a SEQUENCE of more than 127 bytes; its second byte is no character.
    if matches!(bytes, [0x30, 0x80..=0xff, ..]) {
        return Ok(vec![bytes.to_vec().into()]);
    }
    let found = decoded(&sections(bytes)?, LIST)?;
    if found.is_empty() { Err("holds no revocation list".into()) } else { Ok(found) }
}

/// The contents of the sections with this label.
fn decoded<T: PemObject>(sections: &[PemSection<'_>], label: &str) -> Result<Vec<T>, String> {
    let wanted = sections.iter().filter(|section| section.label == label);
    wanted.map(|section| T::from_pem_slice(section.text).map_err(in_words)).collect()
}

/// Describes an error without the file's content, which the error itself may quote byte by byte.
fn in_words(error: Error) -> String {
    let problem = match error {
        Error::NoItemsFound => return "holds none".into(),
        Error::Base64Decode(_) => "the text between a `-----BEGIN` and its `-----END` is not base64",
        Error::SectionTooLarge => "a section is too large",
        _ => "a section is not whole",
    };
    format!("is not PEM ({problem})")
}

/// A store of authorities.
pub fn authorities(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate.clone()).map_err(|error| format!("cannot be used ({error})"))?;
    }
    Ok(store)
}

/// A chain and its key, checked to belong together.
pub fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, rustls::Error> {
    let certified = CertifiedKey::from_der(chain, key, &ring::default_provider())?;
    // Otherwise the fault would show only in each client's handshake.
    certified.keys_match()?;
    Ok(Arc::new(certified))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_and_keys_are_read_whole_or_not_at_all() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap().pem();
        let secret = key.serialize_pem();
        // One file with both, as other servers require.
        let both = format!("\u{feff}# ours\n{secret}{certificate}{certificate}");
        assert_eq!((certificates_in(both.as_bytes()).unwrap().len(), key_in(both.as_bytes()).is_ok()), (2, true));
        let joined = format!("{}{certificate}", certificate.trim_end());
        let told = certificates_in(joined.as_bytes()).unwrap_err();
        assert!(told.contains("ends a section and does not end there"), "{told}");
        let indented = secret.replace("-----BEGIN", " -----BEGIN");
        let told = key_in(indented.as_bytes()).unwrap_err();
        assert!(told.contains("line 1 begins or ends a section"), "{told}");
        let not_base64 = secret.replace("\nM", "\n*M");
        assert!(key_in(not_base64.as_bytes()).unwrap_err().contains("is not base64"));
        let encrypted = secret.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let of_old = secret.replace("KEY-----\nM", "KEY-----\nProc-Type: 4,ENCRYPTED\n\nM");
        for file in [encrypted, of_old] {
            assert!(key_in(file.as_bytes()).unwrap_err().contains("a key that is encrypted"));
        }
        assert_eq!(key_in(certificate.as_bytes()).unwrap_err(), "holds none");
    }
}
