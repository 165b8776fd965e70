//! Verifies client certificates, in the handshake and later on open connections.
//!
//! The one rule: the whole path counts, from the certificate to an authority of the file: dates, signatures,
//! purposes, and the revocations of each issuer. A refused certificate is noted with its reason.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsFault, OtherError, SignatureScheme,
};
use webpki::{Cert, EndEntityCert, Error, KeyUsage, VerifiedPath, spki_for_anchor};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authorities::AuthorityFile;
use super::refusal_log;
use super::revocation::{RevocationFault, RevocationLists};
use fedgate_base::config::{ClientCertificates, TlsConfig, WhenExpired};
use fedgate_base::pem::{CertificateValidity, shown};

/// Verifies the certificates of clients.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    authorities: Arc<AuthorityFile>,
    lists: Option<Arc<RevocationLists>>,
    hints: Vec<DistinguishedName>,
    is_required: bool,
    authority_expired: WhenExpired,
    list_expired: WhenExpired,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Why a certificate does not count: an alert for the client, and a reason for the operator.
#[derive(Debug)]
pub(super) struct CertificateDistrust {
    error: CertificateError,
    pub(super) reason: String,
}

impl ClientVerifier {
    pub(super) fn new(
        config: &TlsConfig,
        authorities: Arc<AuthorityFile>,
        lists: Option<Arc<RevocationLists>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self {
            hints: authorities.hints(),
            authorities,
            lists,
            is_required: config.client_certificates == ClientCertificates::Required,
            authority_expired: config.client_ca_expired,
            list_expired: config.client_crl_expired,
            algorithms,
        }
    }

    /// Verifies a certificate with those that its client has sent beside it; returns until when that holds by
    /// itself.
    ///
    /// # Errors
    /// No path leads to an authority, or each path has a fault.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<UnixTime, CertificateDistrust> {
        let certificate = EndEntityCert::try_from(leaf).map_err(|error| CertificateDistrust::new(error, None))?;
        // Clients need not send intermediates that are in `tls.client_ca`.
        let links = sent.iter().chain(self.authorities.links());
        let links: Vec<_> = links.map(|der| CertificateDer::from(der.as_ref())).collect();
        let (until, why) = (Cell::new(0), RefCell::new(None));
        let judge = |path: &VerifiedPath<'_>| match self.judge(path, now) {
            Ok(holds) => {
                until.set(holds);
                Ok(())
            }
            Err((error, reason)) => {
                *why.borrow_mut() = Some((error.clone(), reason));
                Err(error)
            }
        };
        let verified = certificate.verify_for_usage(
            self.algorithms.all,
            self.authorities.anchors(),
            &links,
            now,
            KeyUsage::client_auth(),
            None,
            Some(&judge),
        );
        match verified {
            Ok(_) => {
                Ok(UnixTime::since_unix_epoch(std::time::Duration::from_secs(until.get().try_into().unwrap_or(0))))
            }
            Err(error) => Err(CertificateDistrust::new(error, why.take())),
        }
    }

    /// Judges a path whose signatures, dates and purposes are valid; returns until when it holds.
    fn judge(&self, path: &VerifiedPath<'_>, time: UnixTime) -> Result<i64, (Error, String)> {
        let now = seconds(time);
        let mut until = i64::MAX;
        if self.authority_expired == WhenExpired::Refuse {
            let mut faults = vec![];
            let ends = self.authorities.of(path.anchor()).filter_map(|authority| {
                let fault =
                    authority.validity.fault(now).map(|fault| format!("its authority `{}` {fault}", authority.name));
                if let Some(fault) = fault {
                    faults.push(fault);
                    return None;
                }
                Some(authority.validity.to)
            });
            // Of an authority that was renewed with the same key, the certificate that lasts longest counts.
            until = match ends.max() {
                Some(end) => end,
                None => return Err((Error::UnknownIssuer, faults.join("; "))),
            };
        }
        let leaf: &Cert<'_> = path.end_entity();
        let certificates: Vec<_> = std::iter::once(leaf).chain(path.intermediate_certificates()).collect();
        let keys = certificates.iter().skip(1).map(|issuer| issuer.subject_public_key_info());
        let keys = keys.chain(std::iter::once(spki_for_anchor(path.anchor())));
        for (at, (certificate, key)) in certificates.iter().zip(keys).enumerate() {
            let der = certificate.der();
            let parsed = X509Certificate::from_der(&der).map(|(_, parsed)| parsed).ok();
            // x509-parser cannot read this one, so its end is unknown: the result holds only for this moment.
            until = until.min(parsed.as_ref().map_or(now, |parsed| CertificateValidity::of(parsed).to));
            // Each issuer on the path is asked: a revoked intermediate takes all certificates under it with it.
            let Some(lists) = &self.lists else { continue };
            let who = || match (at, &parsed) {
                (0, _) => "it".to_owned(),
                (_, Some(parsed)) => format!("its intermediate `{}`", shown(parsed.subject())),
                (_, None) => "its intermediate".to_owned(),
            };
            let asked = lists.ask(certificate.issuer(), &key, certificate.serial(), now, self.list_expired);
            until = until.min(asked.map_err(|fault| match fault {
                RevocationFault::Revoked => (Error::CertRevoked, format!("{} is revoked", who())),
                RevocationFault::Stale(reason) => (Error::UnknownRevocationStatus, reason),
                RevocationFault::Unsigned => {
                    let reason = format!("the revocation list of the issuer of {} is not signed by its key", who());
                    (Error::UnknownRevocationStatus, reason)
                }
            })?);
        }
        Ok(until)
    }
}

/// Seconds since 1970.
pub(super) fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

impl CertificateDistrust {
    fn new(error: Error, judged: Option<(Error, String)>) -> Self {
        let reason = match (&error, judged) {
            (error, Some((judged, reason))) if judged == *error => reason,
            (Error::UnknownIssuer, _) => {
                "no authority in `tls.client_ca` has issued it, nor an intermediate that was sent".into()
            }
            (Error::CertExpired { .. }, _) => "it, or an intermediate of it, has expired".into(),
            (Error::CertNotValidYet { .. }, _) => "it, or an intermediate of it, is not valid yet".into(),
            (error, _) => format!("it cannot be verified ({error})"),
        };
        let error = match error {
            Error::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
            Error::CertNotValidYet { time, not_before } => CertificateError::NotValidYetContext { time, not_before },
            Error::CertRevoked => CertificateError::Revoked,
            Error::UnknownIssuer => CertificateError::UnknownIssuer,
            Error::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
            Error::BadDer | Error::BadDerTime => CertificateError::BadEncoding,
            Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
            Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        };
        Self { error, reason }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsFault> {
        // The client receives an alert; the full reason goes only to the log.
        match self.verify(leaf, sent, now) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(CertificateDistrust { error, reason }) => {
                refusal_log::note(leaf, reason);
                Err(error.into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsFault> {
        verify_tls12_signature(message, leaf, signature, &self.algorithms).inspect_err(|_| without_key(leaf))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsFault> {
        verify_tls13_signature(message, leaf, signature, &self.algorithms).inspect_err(|_| without_key(leaf))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn without_key(leaf: &CertificateDer<'_>) {
    refusal_log::note(leaf, "the client has not shown that it holds its key".into());
}
