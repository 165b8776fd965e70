//! Environment variables that override the file: `FEDGATE_<SECTION>_<KEY>`.
//!
//! The one rule: a variable that was meant for fedgate but has no meaning is reported. A wrong key of an existing
//! section is an error, as in the file. Any other unknown name is a warning, because another program may use it.

use std::ffi::OsString;

use super::error::{ConfigError, in_words};
use super::overrides::KeyOverride;
use super::written::{self, WrittenFile};

/// The sections of single keys.
const SECTIONS: [&str; 12] = [
    "gateway",
    "beside",
    "limits",
    "tls",
    "policy",
    "records",
    "cors",
    "authentication",
    "store",
    "assertion",
    "his",
    "fhir",
];
/// The sections that are lists of tables.
const LISTS: [&str; 2] = ["upstream", "route"];
const PREFIX: &str = "FEDGATE_";
/// Variables that other code reads.
const OTHERS: [&str; 3] = ["FEDGATE_LOG", "FEDGATE_SUCCESSOR", "FEDGATE_PARENT"];
/// The prefix of the tests' variables, which the programs under test inherit.
const OF_TESTS: &str = "FEDGATE_TEST_";

/// The settings from the environment.
#[derive(Default)]
pub(super) struct Environment {
    pub(super) overrides: Vec<KeyOverride>,
    /// Names without a meaning.
    pub(super) unknown: Vec<String>,
    /// Variables with invalid values.
    pub(super) faults: Vec<ConfigError>,
}

impl Environment {
    /// Sorts the variables of a process.
    pub(super) fn new(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut read = Self::default();
        for (variable, value) in variables {
            let variable = match variable.into_string() {
                Ok(variable) if variable.starts_with(PREFIX) => variable,
                Ok(_) => continue,
                Err(variable) if variable.as_encoded_bytes().starts_with(PREFIX.as_bytes()) => {
                    read.unknown.push(variable.to_string_lossy().into_owned());
                    continue;
                }
                Err(_) => continue,
            };
            if !is_others(&variable) {
                read.sort(variable, value);
            }
        }
        read.overrides.sort_by(|a, b| a.variable.cmp(&b.variable));
        read.unknown.sort();
        read
    }

    fn sort(&mut self, variable: String, value: OsString) {
        let name = variable.strip_prefix(PREFIX).unwrap_or_default().to_ascii_lowercase();
        let key_of = |section: &str| Some(name.strip_prefix(section)?.strip_prefix('_')?.to_owned());
        if let Some(list) = LISTS.iter().find(|list| key_of(list).is_some()) {
            let problem =
                format!("means a key of [[{list}]], which may occur several times, so no variable can override it");
            self.faults.push(ConfigError::variable(&variable, list, problem, "write it into the file"));
            return;
        }
        let Some((section, key)) = SECTIONS.iter().find_map(|section| Some((*section, key_of(section)?))) else {
            self.unknown.push(variable);
            return;
        };
        match value.into_string() {
            Ok(value) => self.overrides.push(KeyOverride { variable, section, key, value }),
            Err(_) => {
                let key = format!("{section}.{key}");
                self.faults.push(ConfigError::variable(&variable, &key, "is no UTF-8", "write it as UTF-8"));
            }
        }
    }
}

/// Whether other code reads a variable, or Kubernetes sets it in containers beside a service named `fedgate`
/// (`enableServiceLinks`).
fn is_others(variable: &str) -> bool {
    let of_service = variable.strip_prefix(PREFIX).unwrap_or_default();
    OTHERS.contains(&variable)
        || variable.starts_with(OF_TESTS)
        || of_service.starts_with("SERVICE_")
        || of_service == "PORT"
        || of_service.starts_with("PORT_")
}

/// The file's configuration with the overrides applied.
pub(super) fn apply(mut table: toml::Table, overrides: &[KeyOverride]) -> Result<toml::Table, ConfigError> {
    overrides.iter().try_for_each(|over| write_over(&mut table, over)).map(|()| table)
}

/// Applies one override to a table.
///
/// The value is read as the type of its key; lists may be written with commas.
pub(super) fn write_over(table: &mut toml::Table, over: &KeyOverride) -> Result<(), ConfigError> {
    let KeyOverride { variable, section, key, value } = over;
    let entry = table.entry(*section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    let Some(entry) = entry.as_table_mut() else { return Ok(()) };
    // Text comes first. If the key takes a number, boolean or list, only that reading fits. The complaint about the
    // text is reported, because it names what was written.
    let mut complaint = None;
    let fits = readings(value).into_iter().find(|reading| match alone(section, key, reading.clone()) {
        Ok(_) => true,
        Err(error) => {
            complaint.get_or_insert_with(|| in_words(&error));
            false
        }
    });
    let problem = || {
        let remedy = format!("it overrides `{section}.{key}`; examples/fedgate.toml states every key");
        ConfigError::variable(variable, &over.key(), complaint.unwrap_or_default(), remedy)
    };
    entry.insert(key.clone(), fits.ok_or_else(problem)?);
    Ok(())
}

/// A configuration with a single key.
pub(super) fn alone(section: &str, key: &str, value: toml::Value) -> Result<WrittenFile, toml::de::Error> {
    let keys = toml::Value::Table([(key.to_owned(), value)].into_iter().collect());
    written::from_table([(section.to_owned(), keys)].into_iter().collect())
}

fn readings(value: &str) -> Vec<toml::Value> {
    let mut readings = vec![toml::Value::String(value.to_owned())];
    readings.extend(value.parse::<i64>().map(toml::Value::Integer));
    readings.extend(value.parse::<bool>().map(toml::Value::Boolean));
    let list = value.split(',').map(str::trim).filter(|item| !item.is_empty());
    readings.push(toml::Value::Array(list.map(|item| toml::Value::String(item.to_owned())).collect()));
    readings
}
