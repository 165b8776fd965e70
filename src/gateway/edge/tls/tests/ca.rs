//! Certificate authorities for tests, and what they sign.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, CrlScope, DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    RevokedCertParams, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

/// From some days before now to some days after it.
pub(super) type Days = (i64, i64);

pub(super) const VALID: Days = (1, 1);
pub(super) const EXPIRED: Days = (3, -1);

/// An authority or an intermediate.
pub(super) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(super) der: CertificateDer<'static>,
}

fn params(name: &str, serial: u64, days: Days) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(serial));
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - Duration::days(days.0), now + Duration::days(days.1));
    params
}

fn ca_params(name: &str, serial: u64, days: Days) -> CertificateParams {
    let mut params = params(name, serial, days);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

impl Ca {
    pub(super) fn root(name: &str) -> Self {
        Self::root_of(name, VALID)
    }

    pub(super) fn root_of(name: &str, days: Days) -> Self {
        let (params, key) = (ca_params(name, 1, days), KeyPair::generate().unwrap());
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), der }
    }

    pub(super) fn intermediate(&self, name: &str, serial: u64) -> Self {
        let (params, key) = (ca_params(name, serial, VALID), KeyPair::generate().unwrap());
        let der = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), der }
    }

    /// A certificate for the key and the name of another authority.
    pub(super) fn cross(&self, other: &Self, name: &str) -> CertificateDer<'static> {
        ca_params(name, 77, VALID).signed_by(other.issuer.key(), &self.issuer).unwrap().der().clone()
    }

    /// A renewed certificate with the same key.
    pub(super) fn renewed(&self, name: &str, days: Days) -> CertificateDer<'static> {
        ca_params(name, 2, days).self_signed(self.issuer.key()).unwrap().der().clone()
    }

    pub(super) fn client(&self, serial: u64) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        params("a client", serial, VALID).signed_by(&key, &self.issuer).unwrap().der().clone()
    }

    /// A complete list, as DER.
    pub(super) fn list(&self, number: u64, revoked: &[u64]) -> Vec<u8> {
        self.list_of(number, VALID, revoked, None)
    }

    /// A list of a distribution point or of a part of the certificates.
    pub(super) fn list_of(
        &self,
        number: u64,
        days: Days,
        revoked: &[u64],
        scope: Option<(&str, Option<CrlScope>)>,
    ) -> Vec<u8> {
        let now = OffsetDateTime::now_utc();
        let entry = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now - Duration::days(1),
            reason_code: None,
            invalidity_date: None,
        };
        let point = |(uri, scope): (&str, _)| CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint { uris: vec![uri.to_owned()] },
            scope,
        };
        let params = CertificateRevocationListParams {
            this_update: now - Duration::days(days.0),
            next_update: now + Duration::days(days.1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: scope.map(point),
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().to_vec()
    }
}

/// Lists as one PEM file.
pub(super) fn pem(lists: &[Vec<u8>]) -> Vec<u8> {
    use base64::Engine;
    let block = |der: &Vec<u8>| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", lines.join("\n"))
    };
    lists.iter().map(block).collect::<String>().into_bytes()
}
