//! The certificates of one configured file: their validity, and the findings about it.
//!
//! The one rule: a chain lasts as long as the first of its certificates to expire; authorities last as long as the
//! last, because an old one may have been left beside the new one.

use std::path::PathBuf;
use std::time::Duration;

use super::findings::CertificateFinding;
use fedgate_base::pem::{HeldCertificate, date};

/// How the certificates of a file belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CertificateUse {
    /// A certificate, followed by its issuers.
    Chain,
    /// Independent authorities.
    Authorities,
}

/// A file of certificates that is in force.
#[derive(Debug, Clone)]
pub(crate) struct LoadedCertificates {
    /// The configuration key that names it.
    pub(crate) key: String,
    pub(crate) path: PathBuf,
    pub(crate) holding: CertificateUse,
    pub(crate) certificates: Vec<HeldCertificate>,
}

/// A file of certificates, for reports to the operator.
#[derive(Debug)]
pub struct CertificateFile {
    /// The configuration key that names it.
    pub key: String,
    /// Its path.
    pub path: PathBuf,
    /// Each certificate: subject, names, and validity.
    pub certificates: Vec<String>,
    /// When the first certificate of a chain ends, or the last of several authorities.
    pub valid_to: String,
}

impl LoadedCertificates {
    /// When the file becomes useless, in seconds since 1970.
    pub(crate) fn end(&self) -> Option<i64> {
        let ends = self.certificates.iter().map(|one| one.validity.to);
        match self.holding {
            CertificateUse::Chain => ends.min(),
            CertificateUse::Authorities => ends.max(),
        }
    }

    /// Certificates that end soon, in lines that name the file.
    pub(crate) fn ahead(&self, warning: Duration, now: i64) -> Vec<String> {
        let words = match self.holding {
            CertificateUse::Chain => "certificate of",
            CertificateUse::Authorities => "authority",
        };
        let near = self.certificates.iter().filter_map(|one| {
            let end = one.validity.end_within(warning, now)?;
            Some(self.line(&format!("the {words} `{}` {end}; renew it before", one.subject)))
        });
        near.collect()
    }

    /// Certificates that are not valid at a moment, and whether that makes the file useless.
    pub(crate) fn stale(&self, now: i64) -> Vec<CertificateFinding> {
        let is_valid = |one: &HeldCertificate| one.validity.fault(now).is_none();
        let is_fault = match self.holding {
            CertificateUse::Chain => true,
            CertificateUse::Authorities => !self.certificates.iter().any(is_valid),
        };
        let words = match self.holding {
            CertificateUse::Chain => "certificate of",
            CertificateUse::Authorities => "authority",
        };
        let stale = self.certificates.iter().filter_map(|one| {
            let fault = one.validity.fault(now)?;
            let clock = "unless the clock of this machine is wrong";
            let text = self.line(&format!("the {words} `{}` {fault}, {clock}", one.subject));
            Some(CertificateFinding { text, is_fault })
        });
        stale.collect()
    }

    /// The report for the operator.
    pub(crate) fn report(&self) -> CertificateFile {
        CertificateFile {
            key: self.key.clone(),
            path: self.path.clone(),
            certificates: self.certificates.iter().map(ToString::to_string).collect(),
            valid_to: self.end().map(date).unwrap_or_default(),
        }
    }

    fn line(&self, words: &str) -> String {
        format!("{}: {words} (`{}`)", self.path.display(), self.key)
    }
}
