//! Signatures of certificates and revocation lists, verified with a key.
//!
//! The one rule: the algorithms are those of the handshake, so that a signature accepted here is accepted there.
//! SHA-1 is not among them.

use rustls::pki_types::SubjectPublicKeyInfoDer;
use webpki::{ALL_VERIFICATION_ALGS, RawPublicKeyEntity};
use x509_parser::prelude::{AlgorithmIdentifier, X509Certificate};

/// The signed bytes, the algorithm, and the signature.
#[derive(Debug)]
pub(super) struct SignedBytes {
    /// The algorithm, as the identifiers of [`ALL_VERIFICATION_ALGS`] begin: an OBJECT IDENTIFIER in DER.
    algorithm: Vec<u8>,
    message: Box<[u8]>,
    signature: Box<[u8]>,
}

impl SignedBytes {
    pub(super) fn new(algorithm: &AlgorithmIdentifier<'_>, message: &[u8], signature: &[u8]) -> Self {
        let oid = algorithm.algorithm.as_bytes();
        // No known algorithm has a longer identifier; a longer one matches none.
        let length = u8::try_from(oid.len()).unwrap_or_default();
        let algorithm = [&[6, length], oid].concat();
        Self { algorithm, message: message.into(), signature: signature.into() }
    }

    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        Self::new(
            &certificate.signature_algorithm,
            certificate.tbs_certificate.as_ref(),
            &certificate.signature_value.data,
        )
    }

    /// Whether the holder of this key has signed it.
    pub(super) fn is_by(&self, key: &SubjectPublicKeyInfoDer<'_>) -> bool {
        let Ok(key) = RawPublicKeyEntity::try_from(key) else { return false };
        let mut algorithms =
            ALL_VERIFICATION_ALGS.iter().filter(|known| known.signature_alg_id().starts_with(&self.algorithm));
        algorithms.any(|algorithm| key.verify_signature(*algorithm, &self.message, &self.signature).is_ok())
    }
}
