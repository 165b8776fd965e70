//! Reports all faults of one route.
//!
//! The one rule: as for an upstream, the code that serves finds each fault. Then the faulty key is left out.

use toml::{Table, Value};

use super::one_table;

/// The keys that every route needs; none of them can be parsed without the others.
const NEEDED: [&str; 3] = ["path", "methods", "upstream"];

/// Stands for the upstream of a route that names none. It is the name of no upstream.
const NO_UPSTREAM: &str = "\0";

/// The keys that cannot be read, with their errors; the route is left without them.
///
/// Returns no route if its path or methods cannot be read, because it is then unknown what the route would
/// match.
pub(super) fn unreadable(
    route: Table,
    reads: impl Fn(Table) -> Result<(), toml::de::Error>,
) -> (Option<Table>, Vec<(String, toml::de::Error)>) {
    let (mut kept, mut faults) = one_table::unreadable(route, |keys| reads(with_needed(keys)));
    for key in NEEDED.iter().filter(|key| !kept.contains_key(**key)) {
        let mut without = with_needed(Table::new());
        without.remove(*key);
        if !faults.iter().any(|(fault, _)| fault == key)
            && let Err(error) = reads(without)
        {
            faults.push((String::new(), error));
        }
    }
    let is_known = kept.contains_key("path") && kept.contains_key("methods");
    kept.entry("upstream").or_insert(NO_UPSTREAM.into());
    (is_known.then_some(kept), faults)
}

/// The keys, with values for needed keys that are missing.
fn with_needed(keys: Table) -> Table {
    let some = [("path", "/".into()), ("methods", Value::Array(vec![])), ("upstream", "his".into())];
    some.into_iter().map(|(key, value)| (key.to_owned(), value)).chain(keys).collect()
}

/// Whether a route names no upstream, or one that cannot be read.
pub(super) fn is_without_upstream(route: &Value) -> bool {
    route.get("upstream").and_then(Value::as_str) == Some(NO_UPSTREAM)
}

/// Removes a fault from a route, so that the rest of it can be examined. False if that is impossible.
pub(super) fn mend(route: &mut Value, key: &str, upstreams: Option<&Value>) -> bool {
    let Some(keys) = route.as_table_mut() else { return false };
    match key {
        "upstream" => {
            let first = upstreams.and_then(Value::as_array).and_then(|upstreams| upstreams.first());
            let name = first.and_then(|upstream| upstream.get("name")).cloned().unwrap_or("his".into());
            keys.insert("upstream".into(), name);
            true
        }
        "endpoint" if keys.contains_key("endpoint") => keys.remove("public").is_some(),
        "endpoint" => {
            // A public route has neither a subject nor a guard.
            for of_person in ["subject", "guard"] {
                keys.remove(of_person);
            }
            keys.insert("public".into(), true.into()).is_none_or(|before| before != true.into())
        }
        other => keys.remove(other).is_some(),
    }
}
