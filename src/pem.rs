//! PEM files of certificates, keys and revocation lists, read and checked; what is wrong with one is told in words that
//! follow its name.
//!
//! The one rule: a file that holds none of what it is named for is a fault, whatever else it holds.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use crate::regular;

/// How large a file may be; lists of revoked certificates are the largest.
const MOST_BYTES: u64 = 64 << 20;

/// The bytes of a file.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let bytes = regular::read(path, MOST_BYTES).map_err(|error| format!("cannot be read ({error})"))?;
    Ok(Zeroizing::new(bytes))
}

/// The certificates of a file; at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    certificates_in(&read(path)?)
}

/// The certificates of a file that was read; at least one.
pub(crate) fn certificates_in(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>().map_err(in_words)?;
    if found.is_empty() { Err("holds no certificate".into()) } else { Ok(found) }
}

/// The private key of a file.
pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    key_in(&read(path)?)
}

/// The private key of a file that was read.
pub(crate) fn key_in(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(in_words)
}

/// The revocation lists of a file that was read, in PEM, or one in DER, the form in which authorities publish it; at least
/// one.
pub(crate) fn revocation_lists_in(bytes: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    // A SEQUENCE of more than 127 bytes, as every list is; its second byte is no character.
    if matches!(bytes, [0x30, 0x80..=0xff, ..]) {
        return Ok(vec![bytes.to_vec().into()]);
    }
    let found = CertificateRevocationListDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>().map_err(in_words)?;
    if found.is_empty() { Err("holds no revocation list".into()) } else { Ok(found) }
}

fn in_words(error: Error) -> String {
    match error {
        Error::NoItemsFound => "holds none".into(),
        other => format!("is not PEM ({other})"),
    }
}

/// A store of authorities.
pub(crate) fn authorities(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate.clone()).map_err(|error| format!("cannot be used ({error})"))?;
    }
    Ok(store)
}

/// A chain and its key, which were found to belong together.
pub(crate) fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, rustls::Error> {
    let certified = CertifiedKey::from_der(chain, key, &ring::default_provider())?;
    certified.keys_match()?;
    Ok(Arc::new(certified))
}
