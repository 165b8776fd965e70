//! The certificates of one configured file: what they are, until when they are valid, and what of that is worth a word.
//!
//! The one rule: a chain is as good as the first of its certificates that ends; authorities are as good as the last, because
//! one beside another may have been left there for its end.

use std::path::PathBuf;
use std::time::Duration;

use super::findings::CertificateFinding;
use fedgate_base::pem::{HeldCertificate, date};

/// What the certificates of a file are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CertificateUse {
    /// A certificate, followed by its issuers.
    Chain,
    /// Authorities, each for itself.
    Authorities,
}

/// A file of certificates that is in force.
#[derive(Debug, Clone)]
pub(crate) struct HeldFile {
    /// The configuration key that names it.
    pub(crate) key: String,
    pub(crate) path: PathBuf,
    pub(crate) holding: CertificateUse,
    pub(crate) certificates: Vec<HeldCertificate>,
}

/// A file of certificates, as an operator is told of it.
#[derive(Debug)]
pub struct CertificateFile {
    /// The configuration key that names it.
    pub key: String,
    /// Where it is.
    pub path: PathBuf,
    /// Each certificate of it: subject, names, and from when to when it is valid.
    pub certificates: Vec<String>,
    /// When the first of a chain ends, or the last of several authorities.
    pub valid_to: String,
}

impl HeldFile {
    /// When the file is of no more use, in seconds since 1970.
    pub(crate) fn end(&self) -> Option<i64> {
        let ends = self.certificates.iter().map(|one| one.validity.to);
        match self.holding {
            CertificateUse::Chain => ends.min(),
            CertificateUse::Authorities => ends.max(),
        }
    }

    /// What will soon be wrong, in lines that name the file.
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

    /// What is not valid at a moment, and whether the file is of use to nobody.
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

    /// For an operator.
    pub(crate) fn told(&self) -> CertificateFile {
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
