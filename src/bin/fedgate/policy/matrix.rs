//! `fedgate policy matrix`: what each role may do, as a table, with what routes ask for and no role is granted, and the other
//! way round.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fedgate::escape::shown;
use fedgate::policy::{Asked, Grant, PolicySet, Reach};
use serde_json::json;

use super::asked::is_asked;
use super::{Format, Report};

/// By endpoint and method, whom it reaches in the column of each role.
type Rows<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a str>>;

/// No role is granted it, or this one is not.
const NOBODY: &str = "-";

pub(super) fn matrix(policy: &PolicySet, asked: &Asked<'_>, format: Format) -> Report {
    let matrix = policy.matrix();
    let (mut roles, mut columns) = (Vec::new(), HashMap::new());
    for role in policy.roles() {
        columns.entry(role.name.as_str()).or_insert_with(|| {
            roles.push(role.name.as_str());
            roles.len() - 1
        });
    }
    let nobody = || vec![NOBODY; roles.len()];
    let mut rows = Rows::new();
    for ((role, endpoint, method), reach) in &matrix {
        let row = rows.entry((endpoint, method)).or_insert_with(nobody);
        if let Some(cell) = columns.get(role.as_str()).and_then(|column| row.get_mut(*column)) {
            *cell = reach.as_str();
        }
    }
    let all_asked =
        asked.iter().flat_map(|(endpoint, methods)| methods.iter().map(|method| (*endpoint, method.as_str())));
    let ungranted: Vec<_> = all_asked.filter(|cell| !rows.contains_key(cell)).collect();
    rows.extend(ungranted.iter().map(|cell| (*cell, nobody())));
    let lines = match format {
        Format::Table => table(&roles, &rows, asked),
        Format::Csv => csv(&roles, &rows, asked),
        Format::Json => Vec::new(),
    };
    let cell = |((role, endpoint, method), reach): (&(String, String, &str), &Reach)| {
        let is_asked = is_asked(asked, endpoint, method);
        json!({ "role": role, "endpoint": endpoint, "method": method, "reach": reach.as_str(), "asked": is_asked })
    };
    let ungranted = ungranted.iter().map(|(endpoint, method)| json!({ "endpoint": endpoint, "method": method }));
    // Also those under keys that are no method, which are no cells.
    let grants = policy.roles().iter().flat_map(|role| role.grants.iter().map(|grant| (role.name.as_str(), grant)));
    let unjudged: BTreeSet<_> = grants
        .filter(|(_, grant)| !is_asked(asked, &grant.endpoint, &grant.method))
        .map(|(role, Grant { endpoint, method, .. })| (role, endpoint, method))
        .collect();
    let unjudged = unjudged
        .into_iter()
        .map(|(role, endpoint, method)| json!({ "role": role, "endpoint": endpoint, "method": method }));
    let json = json!({
        "policy": policy.fingerprint(), "cells": matrix.iter().map(cell).collect::<Vec<_>>(),
        "ungranted": ungranted.collect::<Vec<_>>(), "unjudged": unjudged.collect::<Vec<_>>(),
    });
    Report::new(lines, json)
}

fn table(roles: &[&str], rows: &Rows<'_>, asked: &Asked<'_>) -> Vec<String> {
    let roles: Vec<_> = roles.iter().map(|role| shown(role)).collect();
    let widths: Vec<usize> = roles.iter().map(|role| role.chars().count().max(6)).collect();
    let first = rows.keys().map(|(endpoint, _)| shown(endpoint).chars().count()).max().unwrap_or(0).max(8);
    let line = |endpoint: &str, method: &str, cells: &[&str], note: &str| {
        let cells: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{endpoint:<first$}  {method:<6}  {}  {note}", cells.join("  ")).trim_end().to_owned()
    };
    let head = line("endpoint", "method", &roles.iter().map(AsRef::as_ref).collect::<Vec<_>>(), "");
    let rows = rows.iter().map(|((endpoint, method), cells)| {
        let note = match is_asked(asked, endpoint, method) {
            false => "no route asks for it",
            true if cells.iter().all(|cell| *cell == NOBODY) => "no role is granted it",
            true => "",
        };
        line(&shown(endpoint), method, cells, note)
    });
    [head].into_iter().chain(rows).collect()
}

fn csv(roles: &[&str], rows: &Rows<'_>, asked: &Asked<'_>) -> Vec<String> {
    let roles: Vec<String> = roles.iter().map(|role| quoted(role)).collect();
    let head = format!("endpoint,method,asked,{}", roles.join(","));
    let rows = rows.iter().map(|((endpoint, method), cells)| {
        let asked = if is_asked(asked, endpoint, method) { "yes" } else { "no" };
        format!("{},{method},{asked},{}", quoted(endpoint), cells.join(","))
    });
    [head].into_iter().chain(rows).collect()
}

/// A field of a table of comma-separated values (RFC 4180), for a reader with a spreadsheet: what would hide there is shown,
/// and what would be taken for a formula has an apostrophe before it, which makes it text. JSON has names as they are.
fn quoted(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = format!("{}{}", if is_formula { "'" } else { "" }, shown(text));
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}
