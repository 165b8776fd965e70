//! Reports all faults of one upstream.
//!
//! The one rule: the code that serves finds each fault. Then the faulty key is left out, and the rest is examined
//! again. Consequences of a missing key are no faults.

use toml::{Table, Value};

use super::one_table;
use crate::config::error::ConfigError;

/// The most faults of one upstream.
const MOST_FAULTS: usize = 32;
/// The most entries of a list that are examined one by one.
const MOST_ENTRIES: usize = 256;

/// The keys that cannot be read, with their errors; the upstream is left without them.
///
/// Returns no upstream if its name cannot be read, because routes know it by the name.
pub(super) fn unreadable(
    upstream: Table,
    reads: impl Fn(Table) -> Result<(), toml::de::Error>,
) -> (Option<Table>, Vec<(String, toml::de::Error)>) {
    let (mut kept, faults) = one_table::unreadable(upstream, reads);
    let is_at_fault = |key: &str| faults.iter().any(|(fault, _)| fault == key);
    if is_at_fault("servers") || is_at_fault("address") {
        leave_out(&mut kept, "servers");
    }
    let is_nameless = is_at_fault("name");
    ((!is_nameless).then_some(kept), faults)
}

/// The values that are refused.
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

/// The entries of a list that are refused on their own.
fn refused_entries(upstream: &Table, key: &str, refuses: impl Fn(&Table) -> Option<ConfigError>) -> Vec<ConfigError> {
    let entries = upstream.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let refused = entries.iter().take(MOST_ENTRIES).filter_map(|entry| {
        let mut alone = upstream.clone();
        alone.insert(key.to_owned(), Value::Array(vec![entry.clone()]));
        refuses(&alone).filter(|fault| key_of(&alone, fault) == key)
    });
    refused.collect()
}

/// The key that a fault concerns, without the upstream's name.
fn key_of(upstream: &Table, fault: &ConfigError) -> String {
    let name = upstream.get("name").and_then(Value::as_str).unwrap_or_default();
    let key = fault.about().strip_prefix("upstream.").unwrap_or_default();
    key.strip_prefix(name).and_then(|key| key.strip_prefix('.')).unwrap_or(key).to_owned()
}

/// Leaves out a key, or the table that holds it if the key itself is absent. True if anything was left out.
fn leave_out(upstream: &mut Table, key: &str) -> bool {
    match key.split_once('.') {
        Some((table, key)) => {
            let inner = upstream.get_mut(table).and_then(Value::as_table_mut);
            inner.and_then(|inner| inner.remove(key)).or_else(|| upstream.remove(table)).is_some()
        }
        // An upstream without servers would be a fault of its own, and so would TLS settings without a server that
        // speaks TLS.
        None if matches!(key, "servers" | "address") => {
            let server = if upstream.contains_key("tls") { "https://127.0.0.1:1" } else { "127.0.0.1:1" };
            let servers = Value::Array(vec![server.into()]);
            let was_single = upstream.remove("address").is_some();
            upstream.insert("servers".into(), servers.clone()) != Some(servers) || was_single
        }
        None => upstream.remove(key).is_some(),
    }
}
