//! The statements of a certificate: its subject, its names, and its validity.
//!
//! The one rule: a date is compared with a moment from the caller. This module looks at no clock.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

use fedgate_core::escape;

/// The longest X.500 name in a message, in characters.
const NAME_CHARACTERS: usize = 160;
/// The most names of one certificate that are shown.
const MOST_NAMES: usize = 16;

/// Seconds since 1970, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateValidity {
    /// The first second.
    pub from: i64,
    /// The last second.
    pub to: i64,
}

impl CertificateValidity {
    /// As stated in the certificate.
    pub fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self { from: validity.not_before.timestamp(), to: validity.not_after.timestamp() }
    }

    /// The fault at a moment, as words that follow a name.
    pub fn fault(self, now: i64) -> Option<String> {
        match now {
            _ if now < self.from => Some(format!("is not valid before {}", date(self.from))),
            _ if now > self.to => Some(format!("has expired on {}", date(self.to))),
            _ => None,
        }
    }

    /// The expiry as words that follow a name, if the certificate is valid now and expires within `time`.
    pub fn end_within(self, time: Duration, now: i64) -> Option<String> {
        let latest = now.saturating_add_unsigned(time.as_secs());
        let is_near = self.fault(now).is_none() && self.to < latest;
        is_near.then(|| format!("expires on {}", date(self.to)))
    }
}

/// The description of a certificate for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldCertificate {
    /// The subject.
    pub subject: String,
    /// The host names and addresses that it is valid for.
    pub names: Vec<String>,
    /// The validity.
    pub validity: CertificateValidity,
}

impl HeldCertificate {
    /// Describes certificates that were read. Those that cannot be parsed were refused before.
    pub fn all(chain: &[CertificateDer<'_>]) -> Vec<Self> {
        chain.iter().filter_map(Self::of).collect()
    }

    fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = match certificate.subject_alternative_name() {
            Ok(Some(names)) => names.value.general_names.iter().filter_map(host_name).take(MOST_NAMES).collect(),
            Ok(None) | Err(_) => vec![],
        };
        Some(Self { subject: shown(certificate.subject()), names, validity: CertificateValidity::of(&certificate) })
    }
}

impl std::fmt::Display for HeldCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`", self.subject)?;
        if !self.names.is_empty() {
            write!(f, " for {}", self.names.join(", "))?;
        }
        write!(f, ", valid from {} to {}", date(self.validity.from), date(self.validity.to))
    }
}

fn host_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(escape::name(name).into_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| Ipv4Addr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    }
}

/// A moment, for people.
pub fn date(seconds: i64) -> String {
    let date = chrono::DateTime::from_timestamp(seconds, 0);
    date.map_or_else(|| format!("{seconds} s after 1970"), |date| date.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// An X.500 name for people: bounded, with every character visible.
pub fn shown(name: &X509Name<'_>) -> String {
    escape::start(&name.to_string(), NAME_CHARACTERS).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_valid_on_both_of_its_days_and_its_end_is_announced() {
        let validity = CertificateValidity { from: 1_000, to: 2_000 };
        let month = Duration::from_secs(100);
        #[rustfmt::skip]
        let cases = [
            (999,   Some("is not valid before"), None),
            (1_000, None,                        None),
            (1_900, None,                        None),
            (1_901, None,                        Some("expires on")),
            (2_000, None,                        Some("expires on")),
            (2_001, Some("has expired on"),      None),
        ];
        for (now, fault, end) in cases {
            let starts = |told: Option<String>, words: Option<&str>| match (told, words) {
                (Some(told), Some(words)) => told.starts_with(words),
                (told, words) => told.is_none() && words.is_none(),
            };
            assert!(starts(validity.fault(now), fault) && starts(validity.end_within(month, now), end), "{now}");
        }
        assert_eq!(validity.end_within(Duration::ZERO, 1_999), None, "no time is no warning");
        assert!(CertificateValidity { from: 0, to: i64::MAX }.end_within(Duration::MAX, i64::MAX - 1).is_none());
    }

    #[test]
    fn a_certificate_is_shown_with_its_names_and_each_character_is_visible() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["clinic.example".to_owned(), "192.0.2.1".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "a\u{1b}[31m\u{202e}b");
        let der = params.self_signed(&key).unwrap().der().clone();
        let told = HeldCertificate::all(&[der]).first().unwrap().to_string();
        assert!(!told.contains(escape::is_unseen), "{told}");
        assert!(told.contains(" for clinic.example, 192.0.2.1, valid from 1975-01-01"), "{told}");
    }
}
