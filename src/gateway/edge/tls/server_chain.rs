//! Checks of a server's certificate and chain that need no client.
//!
//! The one rule: a chain that no client accepts is found here, before a client meets it.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::signatures::SignedBytes;
use fedgate_base::pem::{HeldCertificate, shown};

/// Faults of a chain that every client sees, as text that follows its file's name.
pub(super) fn faults(chain: &[CertificateDer<'_>], now: i64) -> Vec<String> {
    let parsed: Vec<_> = chain.iter().filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1)).collect();
    let stale =
        stale(chain, now).into_iter().map(|fault| format!("{fault}, unless the clock of this machine is wrong"));
    stale.chain(purpose_fault(&parsed)).chain(order_fault(&parsed)).collect()
}

/// Certificates of a chain that are not valid at a moment, as text that follows its file's name.
pub(super) fn stale(chain: &[CertificateDer<'_>], now: i64) -> Vec<String> {
    let fault = |one: HeldCertificate| {
        one.validity.fault(now).map(|fault| format!("the certificate of `{}` {fault}", one.subject))
    };
    HeldCertificate::all(chain).into_iter().filter_map(fault).collect()
}

/// A certificate only for clients, or for other purposes.
fn purpose_fault(chain: &[X509Certificate<'_>]) -> Option<String> {
    // A certificate without this extension is for all purposes (RFC 5280, 4.2.1.12).
    let purposes = chain.first()?.extended_key_usage().ok()??.value;
    let others = if purposes.client_auth { "it is only for clients" } else { "it is only for other purposes" };
    let fault = || format!("the certificate is not for servers: {others} (extended key usage)");
    (!purposes.server_auth && !purposes.any).then(fault)
}

/// A certificate that is not followed by its issuer (RFC 8446, 4.4.2).
fn order_fault(chain: &[X509Certificate<'_>]) -> Option<String> {
    let (certificate, _) =
        chain.iter().zip(chain.iter().skip(1)).find(|(certificate, next)| !is_issued_by(certificate, next))?;
    let name = shown(certificate.subject());
    let has_issuer =
        chain.iter().any(|other| other.subject() != certificate.subject() && is_issued_by(certificate, other));
    Some(match has_issuer {
        true => format!("the certificates are in the wrong order: that of `{name}` is not followed by its issuer"),
        false => format!(
            "the certificate of `{name}` is followed by one that has not issued it; that of its issuer, `{}`, is \
             missing",
            shown(certificate.issuer())
        ),
    })
}

fn is_issued_by(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    // By name and by signature: a renewed authority has the same name, and often another key.
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && SignedBytes::of(certificate).is_by(&issuer.public_key().raw.to_vec().into())
}

/// The missing issuer of the last certificate of a chain, as DER and for people; none if the last one is its own
/// issuer.
pub(super) fn missing_issuer(chain: &[CertificateDer<'_>]) -> Option<(Vec<u8>, String)> {
    let (_, last) = X509Certificate::from_der(chain.last()?).ok()?;
    let issuer = last.issuer();
    (issuer.as_raw() != last.subject().as_raw()).then(|| (issuer.as_raw().to_vec(), shown(issuer)))
}

/// Whether a certificate has this subject.
pub(super) fn is_of(certificate: &CertificateDer<'_>, subject: &[u8]) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, certificate)| certificate.subject().as_raw() == subject)
}
