//! Environment variables that override the file: `FEDGATE_<SECTION>_<KEY>`.

use std::path::Path;

use super::error::ConfigError;
use super::raw::{self, Raw};

/// The sections of the file that have single keys (lists of tables cannot be overridden).
const SECTIONS: [&str; 10] =
    ["gateway", "limits", "tls", "policy", "records", "cors", "authentication", "store", "assertion", "his"];

/// One override, with the variable it came from.
pub(super) struct Override {
    variable: String,
    section: &'static str,
    key: String,
    value: String,
}

impl Override {
    /// Whether it overrides this key.
    pub(super) fn names(&self, section: &str, key: &str) -> bool {
        self.section == section && self.key == key
    }
}

/// The variables that name a key of a section; others (such as `FEDGATE_LOG`) are not ours to read.
pub(super) fn overrides(environment: impl Iterator<Item = (String, String)>) -> Vec<Override> {
    let mut found: Vec<Override> = environment
        .filter_map(|(variable, value)| {
            let name = variable.strip_prefix("FEDGATE_")?.to_ascii_lowercase();
            let (section, key) = SECTIONS
                .iter()
                .find_map(|section| Some((*section, name.strip_prefix(section)?.strip_prefix('_')?.to_owned())))?;
            Some(Override { variable, section, key, value })
        })
        .collect();
    found.sort_by(|a, b| a.variable.cmp(&b.variable));
    found
}

/// The file's configuration with the overrides written over it.
///
/// A value is read as the type its key has: a list may be given with commas.
pub(super) fn apply(text: &str, file: &Path, overrides: &[Override]) -> Result<Raw, ConfigError> {
    let mut table: toml::Table = toml::from_str(text).map_err(|e| ConfigError::toml(file, text, &e))?;
    for Override { variable, section, key, value } in overrides {
        let problem = |problem: String| {
            let place = Path::new("environment");
            ConfigError::key(
                place,
                variable,
                problem,
                format!("it overrides `{section}.{key}`; examples/fedgate.toml states every key"),
            )
        };
        let entry = table.entry(*section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let Some(entry) = entry.as_table_mut() else { continue };
        // Text first; where the key wants a number, a truth value or a list, that reading is the one that fits. The
        // complaint about the text is the one that says what was written.
        let mut complaint = None;
        let fits = readings(value).into_iter().find(|reading| {
            let mut only = toml::Table::new();
            only.insert(
                (*section).to_owned(),
                toml::Value::Table([(key.clone(), reading.clone())].into_iter().collect()),
            );
            match raw::from_table(only) {
                Ok(_) => true,
                Err(e) => {
                    complaint.get_or_insert_with(|| e.message().replace('\n', " "));
                    false
                }
            }
        });
        entry.insert(key.clone(), fits.ok_or_else(|| problem(complaint.unwrap_or_default()))?);
    }
    raw::from_table(table).map_err(|e| ConfigError::toml(file, "", &e))
}

fn readings(value: &str) -> Vec<toml::Value> {
    let mut readings = vec![toml::Value::String(value.to_owned())];
    readings.extend(value.parse::<i64>().map(toml::Value::Integer));
    readings.extend(value.parse::<bool>().map(toml::Value::Boolean));
    let list = value.split(',').map(str::trim).filter(|item| !item.is_empty());
    readings.push(toml::Value::Array(list.map(|item| toml::Value::String(item.to_owned())).collect()));
    readings
}
