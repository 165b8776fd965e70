//! Findings about the certificates, authorities and revocation lists in force.
//!
//! The one rule: `fedgate check` and the log of a serving gateway find the same.

use super::server_chain;
use super::{CertificateUse, LoadedCertificates, ServedTls, TlsPart};
use fedgate_base::config::WhenExpired;
use fedgate_base::pem::HeldCertificate;

/// A finding that an operator should know.
#[derive(Debug)]
pub struct CertificateFinding {
    /// The finding, in one line that names the file.
    pub text: String,
    /// Whether it certainly shuts some clients out.
    pub is_fault: bool,
}

impl ServedTls {
    /// All findings that need no client.
    pub(crate) fn findings(&self, now: i64) -> Vec<CertificateFinding> {
        let parts = TlsPart::all(&self.config);
        let faults = parts.iter().flat_map(|part| {
            let is_fault = self.shuts_out(*part, now);
            self.wrong(*part, now).into_iter().map(move |text| CertificateFinding { text, is_fault })
        });
        let ahead = self.held().into_iter().flat_map(|file| file.ahead(self.config.expiry_warning, now));
        let ahead = ahead.map(|text| CertificateFinding { text, is_fault: false });
        faults.chain(parts.iter().filter_map(|part| self.open_end(*part))).chain(ahead).collect()
    }

    /// The certificates in force, by file.
    pub(crate) fn held(&self) -> Vec<LoadedCertificates> {
        TlsPart::all(&self.config).into_iter().filter_map(|part| self.held_in(part)).collect()
    }

    /// Faults of a part that come soon.
    pub(super) fn coming(&self, part: TlsPart, now: i64) -> Vec<String> {
        self.held_in(part).map(|file| file.ahead(self.config.expiry_warning, now)).unwrap_or_default()
    }

    fn held_in(&self, part: TlsPart) -> Option<LoadedCertificates> {
        let parts = self.parts().clone();
        let (key, holding, certificates) = match part {
            TlsPart::Pair(at) => {
                ("tls.certificate", CertificateUse::Chain, HeldCertificate::all(&parts.pairs.get(at)?.cert))
            }
            TlsPart::Authorities => ("tls.client_ca", CertificateUse::Authorities, parts.authorities?.held()),
            // A list is due every few days, so its end is no news.
            TlsPart::Lists => return None,
        };
        let path = part.files(&self.config).first()?.to_path_buf();
        Some(LoadedCertificates { key: key.into(), path, holding, certificates })
    }

    /// Faults of the content of a part that is in force now.
    pub(super) fn wrong(&self, part: TlsPart, now: i64) -> Vec<String> {
        let parts = self.parts().clone();
        let (key, faults) = match part {
            TlsPart::Pair(at) => (
                "tls.certificate",
                parts.pairs.get(at).map(|pair| server_chain::faults(&pair.cert, now)).unwrap_or_default(),
            ),
            TlsPart::Authorities => {
                ("tls.client_ca", parts.authorities.map(|found| found.faults(now).collect()).unwrap_or_default())
            }
            TlsPart::Lists => {
                let expired = self.config.client_crl_expired;
                let both = parts.lists.zip(parts.authorities);
                let faults = both.map(|(lists, authorities)| lists.faults(&authorities, now, expired));
                ("tls.client_crl", faults.unwrap_or_default())
            }
        };
        let file = part.files(&self.config).first().map(|file| file.display().to_string()).unwrap_or_default();
        faults.into_iter().map(|fault| format!("{file}: {fault} (`{key}`)")).collect()
    }

    /// Whether the faults of a part shut out all clients, or at least those that depend on it.
    fn shuts_out(&self, part: TlsPart, now: i64) -> bool {
        match part {
            TlsPart::Pair(_) => true,
            // An expired authority may have been left beside a valid one.
            TlsPart::Authorities => {
                self.config.client_ca_expired == WhenExpired::Refuse
                    && self.parts().authorities.as_ref().is_some_and(|found| !found.is_any_valid(now))
            }
            TlsPart::Lists => self.config.client_crl_expired == WhenExpired::Refuse,
        }
    }

    /// A certificate whose issuer is neither in the file nor an authority that this machine knows. If that issuer
    /// is an intermediate, clients find no path to an authority of theirs.
    fn open_end(&self, part: TlsPart) -> Option<CertificateFinding> {
        let TlsPart::Pair(at) = part else { return None };
        let pair = self.parts().pairs.get(at).cloned()?;
        let (issuer, name) = server_chain::missing_issuer(&pair.cert)?;
        let is_authority = || {
            let known = rustls_native_certs::load_native_certs().unwrap_or_default();
            known.iter().any(|der| server_chain::is_of(der, &issuer))
        };
        if is_authority() {
            return None;
        }
        let file = part.files(&self.config).first()?.display().to_string();
        let text = format!(
            "{file}: ends with a certificate of `{name}`, which is no authority that this system knows: the \
             certificate of that issuer is missing here, unless every client trusts it by itself (`tls.certificate`)"
        );
        Some(CertificateFinding { text, is_fault: false })
    }
}
