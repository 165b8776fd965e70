//! The authorities whose signature on a client's certificate counts.
//!
//! The one rule: a certificate whose issuer is in the same file is an intermediate, not an authority. A path that ended
//! with it would never check whether its issuer has revoked it.

use rustls::DistinguishedName;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, TrustAnchor};
use webpki::{anchor_from_trusted_cert, spki_for_anchor};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::signatures::SignedBytes;
use fedgate_base::pem::{CertificateValidity, HeldCertificate, shown};

/// The certificates of one file.
#[derive(Debug)]
pub(super) struct AuthorityFile {
    certificates: Vec<AuthorityCertificate>,
    anchors: Vec<TrustAnchor<'static>>,
    links: Vec<CertificateDer<'static>>,
}

#[derive(Debug)]
pub(super) struct AuthorityCertificate {
    anchor: TrustAnchor<'static>,
    /// Its key, as certificates carry it.
    pub(super) key: SubjectPublicKeyInfoDer<'static>,
    pub(super) name: String,
    pub(super) validity: CertificateValidity,
    issuer: Vec<u8>,
    subject: Vec<u8>,
    signed: SignedBytes,
}

impl AuthorityCertificate {
    fn parse(der: &CertificateDer<'static>) -> Result<Self, String> {
        let unusable = |error: &dyn std::fmt::Display| {
            format!("holds a certificate that cannot be used: it is cut off, or damaged ({error})")
        };
        let anchor = anchor_from_trusted_cert(der).map_err(|error| unusable(&error))?.to_owned();
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| unusable(&error))?;
        Ok(Self {
            key: spki_for_anchor(&anchor),
            name: shown(parsed.subject()),
            validity: CertificateValidity::of(&parsed),
            issuer: parsed.issuer().as_raw().to_vec(),
            subject: parsed.subject().as_raw().to_vec(),
            signed: SignedBytes::of(&parsed),
            anchor,
        })
    }

    /// Whether `other` has signed it, and is not the same authority under another certificate.
    fn is_issued_by(&self, other: &Self) -> bool {
        self.issuer == other.subject && self.subject != other.subject && self.signed.is_by(&other.key)
    }
}

impl AuthorityFile {
    /// Sorts the certificates of a file into authorities and links.
    ///
    /// # Errors
    /// The fault of one, as text that follows the file's name.
    pub(super) fn new(found: &[CertificateDer<'static>]) -> Result<Self, String> {
        let certificates = found.iter().map(AuthorityCertificate::parse).collect::<Result<Vec<_>, _>>()?;
        let issuers: Vec<Vec<usize>> = certificates.iter().map(|one| issuers_of(one, &certificates)).collect();
        let mut anchored: Vec<bool> = issuers.iter().map(Vec::is_empty).collect();
        // A link leads to an authority, perhaps over other links. Two certificates that have signed each other lead
        // to none, so both are authorities.
        let mut reached = anchored.clone();
        let hangs_on = |issuers: &[usize], reached: &[bool]| issuers.iter().any(|&at| reached.get(at) == Some(&true));
        for _ in &certificates {
            reached = reached.iter().zip(&issuers).map(|(is, issuers)| *is || hangs_on(issuers, &reached)).collect();
        }
        anchored.iter_mut().zip(reached).for_each(|(anchored, reached)| *anchored |= !reached);
        let kept = |wanted: bool| {
            let anchored = anchored.clone();
            move |at: usize| anchored.get(at) == Some(&wanted)
        };
        let (is_anchor, is_link) = (kept(true), kept(false));
        let anchors = certificates.iter().enumerate().filter(|(at, _)| is_anchor(*at));
        let anchors = anchors.map(|(_, certificate)| certificate.anchor.clone()).collect();
        let links = found.iter().enumerate().filter(|(at, _)| is_link(*at)).map(|(_, der)| der.clone()).collect();
        Ok(Self { certificates, anchors, links })
    }

    /// The authorities, where a path may end.
    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// The links that a path may use, whether or not a client sends them.
    pub(super) fn links(&self) -> &[CertificateDer<'static>] {
        &self.links
    }

    /// Every certificate of the file that has this subject (without the tag of its SEQUENCE).
    pub(super) fn named<'a>(&'a self, subject: &'a [u8]) -> impl Iterator<Item = &'a AuthorityCertificate> {
        self.certificates.iter().filter(move |one| one.anchor.subject.as_ref() == subject)
    }

    /// The certificates of the authority `anchor`: renewed ones have the same name and key.
    pub(super) fn of<'a>(&'a self, anchor: &'a TrustAnchor<'_>) -> impl Iterator<Item = &'a AuthorityCertificate> {
        let is_same = |one: &&AuthorityCertificate| {
            one.anchor.subject_public_key_info.as_ref() == anchor.subject_public_key_info.as_ref()
        };
        self.named(anchor.subject.as_ref()).filter(is_same)
    }

    /// The names that clients receive in the handshake, so that they know which certificate to send.
    pub(super) fn hints(&self) -> Vec<DistinguishedName> {
        let subjects = self.certificates.iter().map(|one| DistinguishedName::in_sequence(one.anchor.subject.as_ref()));
        subjects.collect()
    }

    /// Authorities that are not valid now, as text that follows the file's name.
    pub(super) fn faults(&self, now: i64) -> impl Iterator<Item = String> {
        let faulty = move |one: &AuthorityCertificate| {
            one.validity.fault(now).map(|fault| format!("the authority `{}` {fault}", one.name))
        };
        self.certificates.iter().filter_map(faulty)
    }

    /// The facts of each certificate.
    pub(super) fn held(&self) -> Vec<HeldCertificate> {
        let held = |one: &AuthorityCertificate| HeldCertificate {
            subject: one.name.clone(),
            names: vec![],
            validity: one.validity,
        };
        self.certificates.iter().map(held).collect()
    }

    /// Whether at least one is valid now.
    pub(super) fn is_any_valid(&self, now: i64) -> bool {
        self.certificates.iter().any(|one| one.validity.fault(now).is_none())
    }
}

/// The places in `all` of those that have signed a certificate.
fn issuers_of(certificate: &AuthorityCertificate, all: &[AuthorityCertificate]) -> Vec<usize> {
    all.iter().enumerate().filter(|(_, other)| certificate.is_issued_by(other)).map(|(at, _)| at).collect()
}
