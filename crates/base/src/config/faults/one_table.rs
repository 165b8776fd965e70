//! Finds the unreadable keys in one table of a list, and the lines of keys in the file.
//!
//! The one rule: each key is read separately, so that no fault hides another.

use toml::{Table, Value};

/// The keys that cannot be read, with their errors; the table is left without them.
pub(super) fn unreadable(
    table: Table,
    reads: impl Fn(Table) -> Result<(), toml::de::Error>,
) -> (Table, Vec<(String, toml::de::Error)>) {
    let (mut kept, mut faults) = (Table::new(), vec![]);
    for (key, value) in table {
        let Err(error) = reads(one(&key, value.clone())) else {
            kept.insert(key, value);
            continue;
        };
        let before = faults.len();
        if let Value::Table(inner) = value {
            let inner = inner.into_iter().filter(|(name, value)| {
                let read = reads(one(&key, Value::Table(one(name, value.clone()))));
                read.map_err(|error| faults.push((format!("{key}.{name}"), error))).is_ok()
            });
            let inner = inner.collect();
            kept.insert(key.clone(), Value::Table(inner));
        }
        if faults.len() == before {
            kept.remove(&key);
            faults.push((key, error));
        }
    }
    (kept, faults)
}

/// A table of one key.
pub(super) fn one(key: &str, value: Value) -> Table {
    [(key.to_owned(), value)].into_iter().collect()
}

/// The line of a key in a table of a list, which is given by its number in the file; the line of the table itself if
/// the key is empty.
pub(super) fn line_of(text: &str, list: &str, at: usize, key: &str) -> Option<usize> {
    let (table, key) =
        key.split_once('.').map_or((list.to_owned(), key), |(inner, key)| (format!("{list}.{inner}"), key));
    let (mut begun, mut current) = (0, "");
    text.lines().enumerate().find_map(|(number, line)| {
        let line = line.trim();
        if line.starts_with('[') {
            current = line.trim_start_matches('[').split(']').next().unwrap_or_default().trim();
            begun += usize::from(line.starts_with("[[") && current == list);
            // A nested table of a list, such as a guard of a route, counts as the key with its name.
            let is_it =
                current == table || current.strip_prefix(&*table).is_some_and(|below| below == format!(".{key}"));
            return (begun == at + 1 && is_it && (key.is_empty() || current != table)).then_some(number + 1);
        }
        let is_key = line.split_once('=').is_some_and(|(name, _)| name.trim() == key);
        (begun == at + 1 && current == table && is_key).then_some(number + 1)
    })
}
