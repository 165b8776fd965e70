//! PEM files of certificates and keys, read and checked; what is wrong with one is told in words that follow its name.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use crate::regular;

/// How large a file may be; lists of revoked certificates are the largest.
const MOST_BYTES: u64 = 64 << 20;

/// Reads something of a file.
pub(crate) fn read<T>(path: &Path, parse: impl FnOnce(&[u8]) -> Result<T, Error>) -> Result<T, String> {
    let bytes = regular::read(path, MOST_BYTES).map_err(|error| format!("cannot be read ({error})"))?;
    parse(&Zeroizing::new(bytes)).map_err(|error| match error {
        Error::NoItemsFound => "holds none".into(),
        other => format!("is not PEM ({other})"),
    })
}

/// The certificates of a file; at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = read(path, |pem| CertificateDer::pem_slice_iter(pem).collect())?;
    if found.is_empty() { Err("holds no certificate".into()) } else { Ok(found) }
}

/// The private key of a file.
pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    read(path, PrivateKeyDer::from_pem_slice)
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
