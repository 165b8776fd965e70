//! The file as written, section by section, and the check that turns it into a [`Config`].

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::assertion::AssertionSection;
use super::authentication::AuthenticationSection;
use super::beside::BesideSection;
use super::check::{ValueCheck, WantedSecrets};
use super::cors::CorsSection;
use super::error::ConfigError;
use super::exposure::SecretExposure;
use super::fhir::FhirSection;
use super::gateway::{GatewaySection, LimitsSection};
use super::his::HisSection;
use super::index::IndexSection;
use super::policy::PolicySection;
use super::records::RecordsSection;
use super::route::RouteSection;
use super::store::StoreSection;
use super::tls::TlsSection;
use super::upstreams::{self, UpstreamSection};
use super::{Config, ValueOrigins};

/// The file, section by section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenFile {
    gateway: GatewaySection,
    beside: BesideSection,
    limits: LimitsSection,
    tls: TlsSection,
    policy: PolicySection,
    records: RecordsSection,
    cors: CorsSection,
    authentication: AuthenticationSection,
    store: StoreSection,
    assertion: AssertionSection,
    his: HisSection,
    index: IndexSection,
    fhir: FhirSection,
    upstream: Vec<UpstreamSection>,
    route: Vec<RouteSection>,
}

/// Every key of every section, for the test that compares the example with them.
#[cfg(test)]
pub(super) fn keys() -> Vec<&'static str> {
    let sections = [
        GatewaySection::KEYS,
        BesideSection::KEYS,
        LimitsSection::KEYS,
        TlsSection::KEYS,
        PolicySection::KEYS,
        RecordsSection::KEYS,
        CorsSection::KEYS,
        AuthenticationSection::KEYS,
        StoreSection::KEYS,
        AssertionSection::KEYS,
        HisSection::KEYS,
        IndexSection::KEYS.split_last().map(|(_, keys)| keys).unwrap_or_default(),
        IndexSection::FIELDS,
        FhirSection::KEYS.split_last().map(|(_, keys)| keys).unwrap_or_default(),
        &upstreams::keys(),
    ];
    sections.concat()
}

/// Parses the text of the file.
pub(super) fn parse(text: &str, file: &Path) -> Result<WrittenFile, ConfigError> {
    let written: WrittenFile = toml::from_str(text).map_err(|e| ConfigError::toml(file, text, &e))?;
    written_secret(&written, file).map_or(Ok(written), Err)
}

/// The first secret written in the file itself. The file is read, copied and shown, so it must not hold secrets; the
/// environment may.
pub(super) fn written_secret(written: &WrittenFile, file: &Path) -> Option<ConfigError> {
    let (key, problem, remedy) = written.store.written_secret().or_else(|| written.assertion.written_secret())?;
    Some(ConfigError::key(file, key, problem, remedy))
}

/// Deserializes a parsed table.
pub(super) fn from_table(table: toml::Table) -> Result<WrittenFile, toml::de::Error> {
    WrittenFile::deserialize(toml::Value::Table(table))
}

/// Checks every value.
pub(super) fn check(written: WrittenFile, file: &Path, secrets: WantedSecrets) -> Result<Config, ConfigError> {
    let mut check = ValueCheck::of(file, secrets);
    let exposure = written.gateway.exposed_secrets();
    check.exposure = SecretExposure::parse(exposure).ok_or_else(|| {
        check.fault("gateway.exposed_secrets", format!("is `{exposure}`"), "write \"refuse\" or \"warn\"")
    })?;
    let authentication = written.authentication.check(&check)?;
    let his_listens = written.his.listen.clone();
    let secret_files = secret_files(&written.store, &written.assertion, &written.his, &check);
    // The HIS first: without an `[[upstream]]`, it is the upstream.
    let mut his =
        written.his.check(&check, authentication.hashes, written.policy.roles.clone(), written.index.check(&check))?;
    his.fhir = written.fhir.check(&check)?;
    let records = written.records.check(&check)?;
    let beside = written.beside.check(&check, written.tls.asks_clients())?;
    let upstreams = upstreams::check(written.upstream, &his_listens, &check)?;
    Ok(Config {
        file: file.to_owned(),
        secret_files,
        core_dumps: written.gateway.core_dumps(),
        changed_defaults: Vec::new(),
        origins: ValueOrigins::default(),
        unknown_variables: Vec::new(),
        gateway: written.gateway.check(&check, &written.limits, beside)?,
        tls: written.tls.check(&check)?,
        policy: written.policy.check(&check),
        records,
        cors: written.cors.check(&check)?,
        store: written.store.check(&check)?,
        assertion: written.assertion.check(&check)?,
        his,
        routes: written.route.into_iter().map(|route| route.check(&check, &upstreams)).collect::<Result<_, _>>()?,
        authentication,
        upstreams,
    })
}

/// The files with secrets that the program reads, each with its key.
fn secret_files(
    store: &StoreSection,
    assertion: &AssertionSection,
    his: &HisSection,
    check: &ValueCheck<'_>,
) -> Vec<(&'static str, PathBuf)> {
    let mints = check.secrets != WantedSecrets::OfHis;
    let webhook_key = Some(PathBuf::from(&his.webhook_key_file));
    let files = [
        ("his.webhook_key_file", &webhook_key, !mints && !his.webhook_key_file.is_empty()),
        ("store.password_file", &store.password_file, store.kind == "postgres"),
        ("assertion.secret_file", &assertion.secret_file, assertion.algorithm == "HS256" && assertion.secret.is_none()),
        ("assertion.private_key_file", &assertion.private_key_file, assertion.algorithm == "EdDSA" && mints),
    ];
    let own = files.into_iter().filter(|(_, _, is_read)| *is_read);
    own.filter_map(|(key, path, _)| Some((key, check.path(path.clone()?)))).collect()
}
