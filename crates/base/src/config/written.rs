//! The file as it is written, section by section, and the check that turns it into a [`Config`].

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::assertion::Assertion;
use super::authentication::Authentication;
use super::check::{Check, Secrets};
use super::cors::Cors;
use super::error::ConfigError;
use super::exposure::SecretExposure;
use super::gateway::{Gateway, Limits};
use super::his::His;
use super::policy::Policy;
use super::records::Records;
use super::route::Route;
use super::store::Store;
use super::tls::Tls;
use super::upstreams::{self, Upstream};
use super::{Config, Origins};

/// The file, section by section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenFile {
    gateway: Gateway,
    limits: Limits,
    tls: Tls,
    policy: Policy,
    records: Records,
    cors: Cors,
    authentication: Authentication,
    store: Store,
    assertion: Assertion,
    his: His,
    upstream: Vec<Upstream>,
    route: Vec<Route>,
}

/// Every key of every section, for the test that holds the example against them.
#[cfg(test)]
pub(super) fn keys() -> Vec<&'static str> {
    let sections = [
        Gateway::KEYS,
        Limits::KEYS,
        Tls::KEYS,
        Policy::KEYS,
        Records::KEYS,
        Cors::KEYS,
        Authentication::KEYS,
        Store::KEYS,
        Assertion::KEYS,
        His::KEYS,
        &upstreams::keys(),
    ];
    sections.concat()
}

/// Parses the text of the file.
pub(super) fn parse(text: &str, file: &Path) -> Result<WrittenFile, ConfigError> {
    let written: WrittenFile = toml::from_str(text).map_err(|e| ConfigError::toml(file, text, &e))?;
    written_secret(&written, file).map_or(Ok(written), Err)
}

/// The first secret that stands in the file itself. The file is read, copied and shown, so that secrets have no place in it;
/// the environment may carry them.
pub(super) fn written_secret(written: &WrittenFile, file: &Path) -> Option<ConfigError> {
    let (key, problem, remedy) = written.store.written_secret().or_else(|| written.assertion.written_secret())?;
    Some(ConfigError::key(file, key, problem, remedy))
}

/// Reads an already parsed table.
pub(super) fn from_table(table: toml::Table) -> Result<WrittenFile, toml::de::Error> {
    WrittenFile::deserialize(toml::Value::Table(table))
}

/// Checks every value.
pub(super) fn check(written: WrittenFile, file: &Path, secrets: Secrets) -> Result<Config, ConfigError> {
    let mut check = Check::of(file, secrets);
    let exposure = written.gateway.exposed_secrets();
    check.exposure = SecretExposure::parse(exposure).ok_or_else(|| {
        check.fault("gateway.exposed_secrets", format!("is `{exposure}`"), "write \"refuse\" or \"warn\"")
    })?;
    let authentication = written.authentication.check(&check)?;
    let his_listens = written.his.listen.clone();
    // Before the upstream that it is where none is named.
    let his = written.his.check(&check, authentication.hashes)?;
    let records = written.records.check(&check)?;
    let upstreams = upstreams::check(written.upstream, &his_listens, &check)?;
    Ok(Config {
        file: file.to_owned(),
        secret_files: secret_files(&written.store, &written.assertion, &check),
        core_dumps: written.gateway.core_dumps(),
        changed_defaults: Vec::new(),
        origins: Origins::default(),
        unknown_variables: Vec::new(),
        gateway: written.gateway.check(&check, &written.limits)?,
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

/// The files of secrets that the program reads, each with its key.
fn secret_files(store: &Store, assertion: &Assertion, check: &Check<'_>) -> Vec<(&'static str, PathBuf)> {
    let mints = check.secrets != Secrets::OfHis;
    let files = [
        ("store.password_file", &store.password_file, true),
        ("assertion.secret_file", &assertion.secret_file, assertion.algorithm == "HS256"),
        ("assertion.private_key_file", &assertion.private_key_file, assertion.algorithm == "EdDSA" && mints),
    ];
    let own = files.into_iter().filter(|(_, _, is_read)| *is_read);
    own.filter_map(|(key, path, _)| Some((key, check.path(path.clone()?)))).collect()
}
