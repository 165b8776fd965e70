//! All that is wrong with one upstream.
//!
//! The one rule: each fault is found by the code that serves; then its key is left out, and the rest is looked at again. What a
//! key that was left out leads to is no fault.

use toml::{Table, Value};

use crate::config::error::ConfigError;

/// Most faults of one upstream.
const MOST_FAULTS: usize = 32;
/// Most entries of a list that are looked at one by one.
const MOST_ENTRIES: usize = 256;

/// What of the keys cannot be read, each with its key; the upstream is left without them.
///
/// None stays of one whose name cannot be read: routes know it by that.
pub(super) fn unreadable(
    upstream: Table,
    reads: impl Fn(Table) -> Result<(), toml::de::Error>,
) -> (Option<Table>, Vec<(String, toml::de::Error)>) {
    let (mut kept, mut faults) = (Table::new(), vec![]);
    for (key, value) in upstream {
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
    let is_at_fault = |key: &str| faults.iter().any(|(fault, _)| fault == key);
    if is_at_fault("servers") || is_at_fault("address") {
        leave_out(&mut kept, "servers");
    }
    let is_nameless = is_at_fault("name");
    ((!is_nameless).then_some(kept), faults)
}

/// What of the values is refused.
pub(super) fn refused(mut upstream: Table, refuses: impl Fn(&Table) -> Option<ConfigError>) -> Vec<ConfigError> {
    let mut faults = vec![];
    while faults.len() < MOST_FAULTS
        && let Some(fault) = refuses(&upstream)
    {
        let key = key_of(&upstream, &fault);
        let entries = refused_entries(&upstream, &key, &refuses);
        match entries.is_empty() {
            true => faults.push(fault),
            false => faults.extend(entries),
        }
        if !leave_out(&mut upstream, &key) {
            break;
        }
    }
    faults
}

/// The entries of a list that are refused by themselves.
fn refused_entries(upstream: &Table, key: &str, refuses: impl Fn(&Table) -> Option<ConfigError>) -> Vec<ConfigError> {
    let entries = upstream.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let refused = entries.iter().take(MOST_ENTRIES).filter_map(|entry| {
        let mut alone = upstream.clone();
        alone.insert(key.to_owned(), Value::Array(vec![entry.clone()]));
        refuses(&alone).filter(|fault| key_of(&alone, fault) == key)
    });
    refused.collect()
}

/// The key that a fault is about, without the name of the upstream.
fn key_of(upstream: &Table, fault: &ConfigError) -> String {
    let name = upstream.get("name").and_then(Value::as_str).unwrap_or_default();
    let key = fault.about().strip_prefix("upstream.").unwrap_or_default();
    key.strip_prefix(name).and_then(|key| key.strip_prefix('.')).unwrap_or(key).to_owned()
}

/// Leaves out a key, or the table of it that stands for what the key has by itself; tells whether there was something to leave out.
fn leave_out(upstream: &mut Table, key: &str) -> bool {
    match key.split_once('.') {
        Some((table, key)) => {
            let inner = upstream.get_mut(table).and_then(Value::as_table_mut);
            inner.and_then(|inner| inner.remove(key)).or_else(|| upstream.remove(table)).is_some()
        }
        // Without servers, that would be told besides; and where none of them spoke TLS, that its settings have no effect.
        None if matches!(key, "servers" | "address") => {
            let server = if upstream.contains_key("tls") { "https://127.0.0.1:1" } else { "127.0.0.1:1" };
            let servers = Value::Array(vec![server.into()]);
            let was_single = upstream.remove("address").is_some();
            upstream.insert("servers".into(), servers.clone()) != Some(servers) || was_single
        }
        None => upstream.remove(key).is_some(),
    }
}

fn one(key: &str, value: Value) -> Table {
    [(key.to_owned(), value)].into_iter().collect()
}
