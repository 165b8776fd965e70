//! Reports all faults of a configuration at once.
//!
//! The one rule: this module refuses whatever `Config::load` refuses, for the same reason. The code that serves finds
//! each fault. Then the faulty key is left out, as if it had its default, and the rest is examined again.

mod one_list;
mod one_route;
mod one_table;
mod one_upstream;

use std::collections::BTreeSet;
use std::path::Path;

use super::check::WantedSecrets;
use super::environment::{self, Environment};
use super::error::ConfigError;
use super::{Config, MOST_BYTES, written};
use crate::regular;

/// The most faults that are reported.
const MOST_FAULTS: usize = 100;
/// The most faults of one route.
const MOST_FAULTS_OF_ROUTE: usize = 8;

/// A configuration that was examined as a whole.
#[derive(Debug)]
pub struct ExaminedConfig {
    /// The configuration with defaults in place of faulty keys; none if too much is faulty.
    pub config: Option<Config>,
    /// The faults. If there are none, `config` is what would serve.
    pub faults: Vec<ConfigError>,
    at_fault: BTreeSet<String>,
}

impl ExaminedConfig {
    /// Whether a section is used as written.
    pub fn is_sound(&self, section: &str) -> bool {
        !self.at_fault.contains(section)
    }

    fn of(faults: Vec<ConfigError>) -> Self {
        Self { config: None, faults, at_fault: BTreeSet::new() }
    }

    fn note(&mut self, fault: ConfigError) {
        let mut words = fault.about().split(['.', ' ']);
        let (section, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        // A variable without a section in its name holds the assertion's secret.
        let section = if section.starts_with("FEDGATE_") { "assertion" } else { section };
        if decides(section, key) {
            self.at_fault.insert(section.to_owned());
        }
        self.tell(fault);
    }

    /// Reports a fault that does not affect the rest of its section.
    fn tell(&mut self, fault: ConfigError) {
        // A fault occurs again if the key's default has the same fault.
        let is_told = || self.faults.iter().any(|told| told.to_string() == fault.to_string());
        if self.faults.len() < MOST_FAULTS && !is_told() {
            self.faults.push(fault);
        }
    }
}

/// Whether the consequences of a section cannot be examined without this key, because its default would lead to false
/// faults.
fn decides(section: &str, key: &str) -> bool {
    match section {
        "gateway" => matches!(key, "" | "listen" | "listen_plain" | "redirect" | "admin" | "pid_file"),
        "tls" => {
            let files = ["", "certificate", "key", "sni", "client", "client_certificates", "client_ca", "client_crl"];
            files.contains(&key)
        }
        "store" => matches!(key, "" | "kind" | "path" | "uri" | "read_uris" | "password" | "password_file" | "ca_file"),
        "assertion" => !matches!(key, "issuer" | "audience" | "lifetime_seconds"),
        _ => true,
    }
}

impl Config {
    /// As [`Config::load`], reporting all faults.
    pub fn examine(file: &Path) -> ExaminedConfig {
        Self::examine_with(file, Environment::new(std::env::vars_os()))
    }

    pub(super) fn examine_with(file: &Path, environment: Environment) -> ExaminedConfig {
        let text = match regular::read_to_string(file, MOST_BYTES) {
            Ok(text) => text,
            Err(error) => return ExaminedConfig::of(vec![ConfigError::unreadable(file, &error)]),
        };
        let mut table: toml::Table = match toml::from_str(&text) {
            Ok(table) => table,
            Err(error) => return ExaminedConfig::of(vec![ConfigError::toml(file, &text, &error)]),
        };
        let mut examined = ExaminedConfig::of(vec![]);
        types(&mut table, file, &text, &mut examined);
        while let Some(fault) =
            written::from_table(table.clone()).ok().and_then(|raw| written::written_secret(&raw, file))
        {
            leave_out(&mut table, fault.about());
            examined.note(fault);
        }
        for over in &environment.overrides {
            if let Err(fault) = environment::write_over(&mut table, over) {
                examined.note(fault);
            }
        }
        environment.faults.iter().for_each(|fault| examined.note(fault.clone()));
        lists(&mut table, file, &mut examined);
        examined.config = values(table, file, &environment, &mut examined);
        if examined.faults.is_empty() {
            match Self::read(file, environment, WantedSecrets::OfGateway) {
                Ok(config) => examined.config = Some(config),
                Err(fault) => examined.note(fault),
            }
        }
        examined
    }
}

/// Finds unknown sections and keys and values of a wrong type, and leaves them out.
fn types(table: &mut toml::Table, file: &Path, text: &str, examined: &mut ExaminedConfig) {
    for (section, value) in std::mem::take(table) {
        let whole = written::from_table([(section.clone(), value.clone())].into_iter().collect());
        let Err(error) = whole else {
            table.insert(section, value);
            continue;
        };
        let before = examined.faults.len();
        let empty = || [(section.clone(), toml::Value::Table(toml::Table::new()))].into_iter().collect();
        match (section.as_str(), value) {
            (_, toml::Value::Table(keys)) if written::from_table(empty()).is_ok() => {
                let mut kept = toml::Table::new();
                for (key, value) in keys {
                    match environment::alone(&section, &key, value.clone()) {
                        Ok(_) => drop(kept.insert(key, value)),
                        Err(error) => {
                            let line = line_of(text, &section, &key);
                            let fault = ConfigError::complaint(file, line, &format!("{section}.{key}"), &error);
                            examined.note(fault);
                        }
                    }
                }
                table.insert(section.clone(), toml::Value::Table(kept));
            }
            (list @ ("upstream" | "route"), toml::Value::Array(tables)) => {
                let list = if list == "route" { "route" } else { "upstream" };
                if let Some(kept) = types_of_list(list, tables, file, text, examined) {
                    table.insert(section.clone(), toml::Value::Array(kept));
                }
            }
            _ => {}
        }
        // An unknown section, or a value that should be a list.
        let is_of_keys = examined.faults.len() > before;
        if !is_of_keys || written::from_table(table.clone()).is_err() {
            table.remove(&section);
            if !is_of_keys {
                examined.note(ConfigError::complaint(file, line_of(text, &section, ""), &section, &error));
            }
        }
    }
}

/// The same for each table of a list; keys that cannot be read are left out.
fn types_of_list(
    list: &'static str,
    tables: Vec<toml::Value>,
    file: &Path,
    text: &str,
    examined: &mut ExaminedConfig,
) -> Option<Vec<toml::Value>> {
    let reads = |keys: toml::Table| {
        let alone = toml::Value::Array(vec![toml::Value::Table(keys)]);
        written::from_table([(list.to_owned(), alone)].into_iter().collect()).map(drop)
    };
    let kept = tables.into_iter().enumerate().map(|(at, table)| {
        let toml::Value::Table(table) = table else { return None };
        let (kept, faults) = match list {
            "route" => one_route::unreadable(table, reads),
            _ => one_upstream::unreadable(table, reads),
        };
        for (key, error) in faults {
            let line = one_table::line_of(text, list, at, &key);
            let key = if key.is_empty() { list.to_owned() } else { format!("{list}.{key}") };
            examined.note(ConfigError::complaint(file, line, &key, &error));
        }
        kept.map(toml::Value::Table)
    });
    // All are examined, even if one of them is left out.
    let kept: Vec<_> = kept.collect();
    match list {
        "route" => Some(kept.into_iter().flatten().collect()),
        // If one upstream has no name for routes, none is kept.
        _ => kept.into_iter().collect(),
    }
}

/// The line of a key in a section; the line of the section itself if the key is empty.
fn line_of(text: &str, section: &str, key: &str) -> Option<usize> {
    let mut current = "";
    text.lines().enumerate().find_map(|(at, line)| {
        let line = line.trim();
        if line.starts_with('[') {
            current = line.trim_start_matches('[').split(']').next().unwrap_or_default().trim();
            return (key.is_empty() && current == section).then_some(at + 1);
        }
        let (name, _) = line.split_once('=')?;
        (current == section && !key.is_empty() && name.trim() == key).then_some(at + 1)
    })
}

/// Finds upstreams and routes with faults of their own. The name of an upstream is kept, because routes refer to it.
fn lists(table: &mut toml::Table, file: &Path, examined: &mut ExaminedConfig) {
    let refuses = |lists: toml::Table| match written::from_table(lists)
        .map(|raw| written::check(raw, file, WantedSecrets::LeaveUnread))
    {
        Ok(Err(fault)) => Some(fault),
        Ok(Ok(_)) | Err(_) => None,
    };
    let list = |value: Vec<toml::Value>| toml::Value::Array(value);
    if let Some(toml::Value::Array(upstreams)) = table.get_mut("upstream") {
        for upstream in upstreams {
            let keys = upstream.as_table().cloned().unwrap_or_default();
            let faults = one_upstream::refused(keys, |keys| {
                let alone = list(vec![toml::Value::Table(keys.clone())]);
                refuses([("upstream".to_owned(), alone)].into_iter().collect())
            });
            if !faults.is_empty() {
                faults.into_iter().for_each(|fault| examined.note(fault));
                let name = upstream.get("name").cloned().unwrap_or("his".into());
                let servers = toml::Value::Array(vec!["127.0.0.1:1".into()]);
                *upstream =
                    toml::Value::Table([("name".into(), name), ("servers".into(), servers)].into_iter().collect());
            }
        }
    }
    let upstreams = table.get("upstream").cloned();
    // If all upstreams were left out, the names in routes are no faults.
    let are_known = upstreams.is_some() || examined.is_sound("upstream");
    if let Some(toml::Value::Array(routes)) = table.get_mut("route") {
        routes.retain_mut(|route| {
            let is_nowhere = one_route::is_without_upstream(route);
            for _ in 0..MOST_FAULTS_OF_ROUTE {
                let upstreams = upstreams.clone().map(|upstreams| ("upstream".to_owned(), upstreams));
                let alone = [("route".to_owned(), list(vec![route.clone()]))].into_iter().chain(upstreams.clone());
                // A fault of an upstream was reported with the upstream.
                let fault = refuses(alone.collect()).filter(|fault| fault.about().starts_with("route"));
                let Some(fault) = fault else { return true };
                let key = fault.about().split(['.', ' ']).nth(1).unwrap_or_default().to_owned();
                if !one_route::mend(route, &key, upstreams.as_ref().map(|(_, upstreams)| upstreams)) {
                    examined.note(fault);
                    return false;
                }
                // A missing name was reported with the route.
                if key != "upstream" || (are_known && !is_nowhere) {
                    examined.tell(fault);
                }
            }
            false
        });
    }
}

/// Finds values that are not allowed, one after the other.
fn values(
    mut table: toml::Table,
    file: &Path,
    environment: &Environment,
    examined: &mut ExaminedConfig,
) -> Option<Config> {
    let mut secrets = WantedSecrets::OfGateway;
    for _ in 0..MOST_FAULTS {
        let fault = match written::check(written::from_table(table.clone()).ok()?, file, secrets) {
            Ok(config) => return Some(config.with_environment(environment)),
            Err(fault) => fault.by(&environment.overrides),
        };
        let refuses = |table| {
            let checked = written::check(written::from_table(table).ok()?, file, secrets);
            checked.err().map(|fault| fault.by(&environment.overrides))
        };
        let entries = one_list::take_refused(&mut table, &fault, refuses);
        if !entries.is_empty() {
            entries.into_iter().for_each(|fault| examined.note(fault));
            continue;
        }
        let key = fault.about().to_owned();
        examined.note(fault);
        let of_secrets = ["assertion.secret", "assertion.private_key", "assertion.public_key", "FEDGATE_ASSERTION"];
        let is_secret = of_secrets.iter().any(|of| key.starts_with(of));
        if key == "assertion.algorithm" {
            secrets = WantedSecrets::OfStore;
        }
        match is_secret && secrets == WantedSecrets::OfGateway {
            true => secrets = WantedSecrets::OfStore,
            false if leave_out(&mut table, &key) => {}
            false => return None,
        }
    }
    None
}

/// Replaces a faulty `store.uri`: without one, its absence would be reported as well.
const SOME_DATABASE: &str = "postgres://127.0.0.1/fedgate";

/// Leaves out a key, or its section if the key is absent. True if anything was left out.
fn leave_out(table: &mut toml::Table, key: &str) -> bool {
    let mut words = key.split(['.', ' ']);
    let section = words.next().unwrap_or_default();
    let key = words.next().unwrap_or_default();
    let is_out = table.get_mut(section).and_then(toml::Value::as_table_mut).is_some_and(|keys| match (section, key) {
        ("store", "uri") => {
            let before = keys.insert("uri".into(), SOME_DATABASE.into());
            before.is_none_or(|before| before.as_str() != Some(SOME_DATABASE))
        }
        _ => keys.remove(key).is_some(),
    });
    is_out || table.remove(section).is_some()
}
