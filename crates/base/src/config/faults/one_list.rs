//! Reports every faulty entry of a list, not only the first.
//!
//! The one rule: the code that serves finds each fault, with one entry of the list at a time. Faults between entries,
//! such as two equal addresses, are found afterwards in the entries that are left.

use toml::{Table, Value};

use crate::config::error::ConfigError;

/// The most entries of a list that are examined one by one.
const MOST_ENTRIES: usize = 256;

/// Takes the entries that are refused on their own from the list that a fault concerns, and returns their faults: none
/// if the fault concerns no list of a section, or no single entry of it. A list without good entries is left out.
pub(super) fn take_refused(
    table: &mut Table,
    fault: &ConfigError,
    refuses: impl Fn(Table) -> Option<ConfigError>,
) -> Vec<ConfigError> {
    let mut words = fault.about().split('.');
    let (section, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let Some(Value::Array(entries)) = table.get(section).and_then(|keys| keys.get(key)).cloned() else {
        return vec![];
    };
    let with = |entries: Vec<Value>| {
        let mut table = table.clone();
        if let Some(keys) = table.get_mut(section).and_then(Value::as_table_mut) {
            keys.insert(key.to_owned(), Value::Array(entries));
        }
        table
    };
    let (mut kept, mut faults) = (vec![], vec![]);
    for (at, entry) in entries.into_iter().enumerate() {
        let refused = (at < MOST_ENTRIES).then(|| refuses(with(vec![entry.clone()]))).flatten();
        match refused.filter(|found| found.about() == fault.about()) {
            Some(fault) => faults.push(fault),
            None => kept.push(entry),
        }
    }
    if let Some(keys) = table.get_mut(section).and_then(Value::as_table_mut) {
        match (faults.is_empty(), kept.is_empty()) {
            (true, _) => {}
            (false, true) => _ = keys.remove(key),
            (false, false) => _ = keys.insert(key.to_owned(), Value::Array(kept)),
        }
    }
    faults
}
