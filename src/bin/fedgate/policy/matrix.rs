//! `fedgate policy matrix`: what each role may do, as a table.

use std::collections::{BTreeMap, HashMap};

use fedgate::escape::shown;
use fedgate::policy::PolicySet;
use serde_json::json;

use super::{Format, Report};

pub(super) fn matrix(policy: &PolicySet, format: Format) -> Report {
    let matrix = policy.matrix();
    let (mut roles, mut columns) = (Vec::new(), HashMap::new());
    for role in policy.roles() {
        columns.entry(role.name.as_str()).or_insert_with(|| {
            roles.push(role.name.as_str());
            roles.len() - 1
        });
    }
    // By endpoint and method, whom it reaches in the column of each role.
    let mut rows: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for ((role, endpoint, method), reach) in &matrix {
        let row = rows.entry((endpoint, method)).or_insert_with(|| vec!["-"; roles.len()]);
        if let Some(cell) = columns.get(role.as_str()).and_then(|column| row.get_mut(*column)) {
            *cell = reach.as_str();
        }
    }
    let lines = match format {
        Format::Table => table(&roles, &rows),
        Format::Csv => csv(&roles, &rows),
        Format::Json => Vec::new(),
    };
    let cells: Vec<_> = matrix.iter().map(|((role, endpoint, method), reach)| json!({ "role": role, "endpoint": endpoint, "method": method, "reach": reach.as_str() })).collect();
    Report { lines, json: json!({ "policy": policy.fingerprint(), "cells": cells }), failure: None }
}

fn table(roles: &[&str], rows: &BTreeMap<(&str, &str), Vec<&str>>) -> Vec<String> {
    let roles: Vec<_> = roles.iter().map(|role| shown(role)).collect();
    let widths: Vec<usize> = roles.iter().map(|role| role.chars().count().max(6)).collect();
    let first = rows.keys().map(|(endpoint, _)| shown(endpoint).chars().count()).max().unwrap_or(0).max(8);
    let line = |endpoint: &str, method: &str, cells: &[&str]| {
        let cells: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{endpoint:<first$}  {method:<6}  {}", cells.join("  ")).trim_end().to_owned()
    };
    let head = line("endpoint", "method", &roles.iter().map(AsRef::as_ref).collect::<Vec<_>>());
    let rows = rows.iter().map(|((endpoint, method), cells)| line(&shown(endpoint), method, cells));
    [head].into_iter().chain(rows).collect()
}

fn csv(roles: &[&str], rows: &BTreeMap<(&str, &str), Vec<&str>>) -> Vec<String> {
    let roles: Vec<String> = roles.iter().map(|role| quoted(role)).collect();
    let head = format!("endpoint,method,{}", roles.join(","));
    let rows =
        rows.iter().map(|((endpoint, method), cells)| format!("{},{method},{}", quoted(endpoint), cells.join(",")));
    [head].into_iter().chain(rows).collect()
}

/// A field of a table of comma-separated values (RFC 4180), for a reader with a spreadsheet: what would hide there is shown,
/// and what would be taken for a formula has an apostrophe before it, which makes it text. JSON has names as they are.
fn quoted(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = format!("{}{}", if is_formula { "'" } else { "" }, shown(text));
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}
