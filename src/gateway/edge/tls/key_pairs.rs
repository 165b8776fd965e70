//! Server certificates and their keys, found by the names in the certificates.
//!
//! The one rule: certificate and key are served together or not at all. If only one of the two files is renewed,
//! the old pair stays in force.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::error::{TlsError, file_fault};
use fedgate_base::config::CertificateConfig;
use fedgate_base::pem;

/// Server certificates by their names.
#[derive(Debug)]
pub(super) struct CertificatesByName {
    /// Lower-case names; a name that begins with `*.` matches one more label.
    names: HashMap<String, Arc<CertifiedKey>>,
    /// For clients that send no name, or a name of no certificate.
    first: Arc<CertifiedKey>,
}

impl CertificatesByName {
    /// Indexes the certificates; the first serves all other names. None without any.
    pub(super) fn new(pairs: &[Arc<CertifiedKey>]) -> Option<Self> {
        let first = Arc::clone(pairs.first()?);
        let mut names = HashMap::new();
        for certified in pairs {
            for name in certified.cert.first().map(dns_names).unwrap_or_default() {
                // The first certificate in the configuration keeps a name that several hold.
                names.entry(name).or_insert_with(|| Arc::clone(certified));
            }
        }
        Some(Self { names, first })
    }

    fn of(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let parent = || name.split_once('.').and_then(|(_, parent)| self.names.get(&format!("*.{parent}")));
        self.names.get(&name).or_else(parent)
    }
}

impl ResolvesServerCert for CertificatesByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Clients that connect by address send no name (RFC 6066, 3).
        let named = hello.server_name().and_then(|name| self.of(name));
        Some(Arc::clone(named.unwrap_or(&self.first)))
    }
}

/// The DNS names of a certificate (RFC 6125: its alternative names; the common name no longer counts).
fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return vec![] };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return vec![] };
    let dns = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    dns.collect()
}

/// A certificate with its chain, and its key, checked to belong together.
pub(super) fn load(pair: &CertificateConfig, chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, TlsError> {
    const WANTED: &str = "a PEM file with the certificate and its chain";
    let unusable = file_fault(&pair.certificate, "tls.certificate", WANTED);
    let chain = pem::certificates_in(chain).map_err(&unusable)?;
    let key_fault = file_fault(&pair.key, "tls.key", "a PEM file with the private key");
    let key = pem::key_in(key).map_err(&key_fault)?;
    // Checked at a renewal, too: a key that everybody can read is not taken, and the last good pair stays in force.
    if let Some(fault) = pair.exposure.fault(&pair.key) {
        return Err(key_fault(fault));
    }
    let others = chain.clone();
    pem::certified(chain, key.clone_key()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let is_its = |other: CertificateDer<'static>| pem::certified(vec![other], key.clone_key()).is_ok();
            if others.iter().skip(1).cloned().any(is_its) {
                return unusable("has the certificate of `tls.key` after others, which is the wrong order".into());
            }
            TlsError::Mismatch { certificate: pair.certificate.clone(), key: pair.key.clone() }
        }
        other => match chain_fault(&others) {
            Some(fault) => unusable(fault),
            None => {
                key_fault(format!("holds a key that is cut off, damaged, or of a kind that is not served ({other})"))
            }
        },
    })
}

/// The first certificate of a chain that cannot be parsed, counted from one.
fn chain_fault(chain: &[CertificateDer<'_>]) -> Option<String> {
    let is_whole = |der: &CertificateDer<'_>| X509Certificate::from_der(der).is_ok_and(|(rest, _)| rest.is_empty());
    let (number, of) = (chain.iter().position(|der| !is_whole(der))? + 1, chain.len());
    Some(format!("holds a certificate that is cut off or damaged (number {number} of {of})"))
}

#[cfg(test)]
mod tests {
    use rustls::crypto::ring;
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    fn served(names: &[&str]) -> (Vec<String>, Arc<CertifiedKey>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let der = certificate.der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (dns_names(&der), Arc::new(CertifiedKey::from_der(vec![der], key, &ring::default_provider()).unwrap()))
    }

    #[test]
    fn a_certificate_serves_the_names_it_holds_and_a_wildcard_one_label() {
        let (names, first) = served(&["clinic.example", "192.0.2.1"]);
        assert_eq!(names, ["clinic.example"]);
        let (_, wildcard) = served(&["*.Hospital.example"]);
        let by_name = CertificatesByName::new(&[Arc::clone(&first), Arc::clone(&wildcard)]).unwrap();
        for (name, expected) in [
            ("clinic.example", Some(&first)),
            ("CLINIC.example", Some(&first)),
            ("a.hospital.example", Some(&wildcard)),
            ("a.b.hospital.example", None),
            ("hospital.example", None),
            ("x.clinic.example", None),
            ("", None),
        ] {
            let found = by_name.of(name);
            assert!(found.map(Arc::as_ptr) == expected.map(Arc::as_ptr), "{name}");
        }
    }
}
