//! Parses a file of revocation lists, and finds those that cannot be used.
//!
//! The one rule: a list that covers only a part of its issuer's certificates, in a way that is not followed here,
//! is refused with the reason. Taken for the whole, it would revoke too little.

use rustls::pki_types::SubjectPublicKeyInfoDer;
use webpki::{BorrowedCertRevocationList, CertRevocationList, Error};
use x509_parser::asn1_rs::{Any, BitString};
use x509_parser::error::X509Error;
use x509_parser::nom;
use x509_parser::num_bigint::BigUint;
use x509_parser::prelude::{ASN1Time, AlgorithmIdentifier, FromDer, ParsedExtension, X509Extension, X509Name};

use super::signatures::SignedBytes;
use fedgate_base::pem::{self, CertificateValidity, shown};

/// One revocation list.
#[derive(Debug)]
pub(super) struct RevocationList {
    /// The issuer's name, without the tag of its SEQUENCE; then the same for people.
    pub(super) issuer: Vec<u8>,
    pub(super) name: String,
    pub(super) signer: ListSigner,
    /// The distribution point that it covers, if it names one; lists of other points count beside it.
    pub(super) point: Vec<u8>,
    /// Grows with each list of an issuer; not every issuer numbers its lists.
    pub(super) number: Option<BigUint>,
    /// From its issue to the time by which the next one is due.
    pub(super) validity: CertificateValidity,
    /// The [`significant`] bytes of each revoked certificate's number, in ascending order.
    pub(super) serials: Vec<Box<[u8]>>,
}

/// The signer of a list.
#[derive(Debug)]
pub(super) enum ListSigner {
    /// The holder of this key, verified when the list was read.
    Known(SubjectPublicKeyInfoDer<'static>),
    /// Known when a client sends the certificate of the issuer.
    Unknown(SignedBytes),
}

/// Every list of a file, or why it cannot be used; there is at least one. Signatures are not verified yet.
///
/// # Errors
/// The fault of the file as a whole, as text that follows its name.
pub(super) fn parse_all(bytes: &[u8]) -> Result<Vec<Result<RevocationList, String>>, String> {
    Ok(pem::revocation_lists_in(bytes)?.iter().map(|der| parse(der)).collect())
}

fn parse(der: &[u8]) -> Result<RevocationList, String> {
    let strict = BorrowedCertRevocationList::from_der(der).map_err(in_words)?;
    let serials = strict.into_iter().map(|entry| entry.map(|entry| Box::from(significant(entry.serial_number))));
    let mut serials = serials.collect::<Result<Vec<Box<[u8]>>, _>>().map_err(in_words)?;
    // Two that differ only in leading zeros are one.
    serials.sort_unstable();
    serials.dedup();
    let issuer = CertRevocationList::from(strict).issuer().to_vec();
    let fields = ListFields::read(der).map_err(|_| in_words(Error::BadDer))?;
    let (mut number, mut point) = (None, vec![]);
    for extension in &fields.extensions {
        match extension.parsed_extension() {
            ParsedExtension::CRLNumber(found) => number = Some(found.clone()),
            ParsedExtension::IssuingDistributionPoint(found) => {
                // RFC 5280, 5.2.5: each of these leaves some certificates of the issuer out.
                let is_partial = found.only_contains_user_certs
                    || found.only_contains_ca_certs
                    || found.only_contains_attribute_certs
                    || found.only_some_reasons.is_some()
                    || found.indirect_crl;
                if is_partial {
                    return Err(PARTIAL.into());
                }
                point = extension.value.to_vec();
            }
            _ => {}
        }
    }
    let signer = ListSigner::Unknown(SignedBytes::new(&fields.algorithm, fields.signed, &fields.signature.data));
    let name = shown(&fields.issuer);
    Ok(RevocationList { issuer, name, signer, point, number, validity: fields.validity, serials })
}

const PARTIAL: &str = "holds a list of a part of its issuer's certificates (its issuing distribution point says so); \
                       name the complete list";

fn in_words(error: Error) -> String {
    match error {
        Error::UnsupportedDeltaCrl => {
            "holds a delta list, which has only the changes since another list; name the complete list".into()
        }
        Error::UnsupportedIndirectCrl => {
            "holds an indirect list, of certificates that others have issued; name the list of their issuer".into()
        }
        Error::UnsupportedRevocationReasonsPartitioning | Error::UnsupportedCrlIssuingDistributionPoint => {
            PARTIAL.into()
        }
        Error::UnsupportedCrlVersion => "holds a list of version 1; its issuer must write version 2 (RFC 5280)".into(),
        other => format!("holds a revocation list that cannot be read ({other})"),
    }
}

/// The fields of a list that webpki does not expose. Its entries are not parsed twice: there may be a million.
struct ListFields<'a> {
    signed: &'a [u8],
    algorithm: AlgorithmIdentifier<'a>,
    signature: BitString<'a>,
    issuer: X509Name<'a>,
    validity: CertificateValidity,
    extensions: Vec<X509Extension<'a>>,
}

impl<'a> ListFields<'a> {
    /// Reads a list that webpki has found well-formed.
    fn read(der: &'a [u8]) -> Result<Self, nom::Err<X509Error>> {
        let (_, outer) = any(der)?;
        let (rest, inner) = any(outer)?;
        let signed = outer.get(..outer.len().saturating_sub(rest.len())).unwrap_or_default();
        let (rest, algorithm) = AlgorithmIdentifier::from_der(rest)?;
        let (_, signature) = BitString::from_der(rest).map_err(nom::Err::convert)?;
        let (rest, _version) = any(inner)?;
        let (rest, _algorithm) = any(rest)?;
        let (rest, issuer) = X509Name::from_der(rest)?;
        let (rest, from) = ASN1Time::from_der(rest)?;
        let (mut rest, to) = ASN1Time::from_der(rest)?;
        let validity = CertificateValidity { from: from.timestamp(), to: to.timestamp() };
        // The revoked certificates, if any, and then the extensions, in a tag of their own.
        let mut last: &[u8] = &[];
        while !rest.is_empty() {
            (rest, last) = any(rest)?;
        }
        let (_, mut rest) = any(last)?;
        let mut extensions = vec![];
        while !rest.is_empty() {
            let (next, extension) = X509Extension::from_der(rest)?;
            extensions.push(extension);
            rest = next;
        }
        Ok(Self { signed, algorithm, signature, issuer, validity, extensions })
    }
}

/// The bytes after the next element, and its content.
fn any(der: &[u8]) -> Result<(&[u8], &[u8]), nom::Err<X509Error>> {
    let (rest, element) = Any::from_der(der).map_err(nom::Err::convert)?;
    Ok((rest, element.data))
}

/// A serial number without leading zeros. Some authorities write them in the certificate and not in the list, or
/// the other way round.
pub(super) fn significant(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    serial.get(zeros..).unwrap_or_default()
}
