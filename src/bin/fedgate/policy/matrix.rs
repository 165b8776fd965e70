//! `fedgate policy matrix`: what each role may do, as a table. It also lists the rights that routes ask for and no
//! role is granted, and the grants that no route asks for.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::anyhow;
use fedgate_core::escape::shown;
use fedgate_core::policy::{PolicyReach, PolicySet, ReviewedQuestion, RightsMatrix, RoleGrant, belongs_to_nobody};
use serde_json::json;

use super::asked::is_asked;
use super::{OutputFormat, PolicyReport};
use fedgate_base::command::CommandFailure;

/// By endpoint and method, the reach in the column of each role.
type MatrixRows<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a str>>;

/// No role is granted it, or not the role of this column.
const NOBODY: &str = "-";

/// Most cells of a table for people.
const MOST_CELLS: usize = 1_000_000;

pub(super) fn matrix(
    policy: &PolicySet,
    asked: &ReviewedQuestion<'_>,
    format: OutputFormat,
) -> Result<PolicyReport, CommandFailure> {
    let matrix = policy.matrix();
    let granted: BTreeSet<(&str, &str)> =
        matrix.keys().map(|(_, endpoint, method)| (endpoint.as_str(), *method)).collect();
    let all_asked =
        asked.iter().flat_map(|(endpoint, methods)| methods.iter().map(|method| (*endpoint, method.as_str())));
    let ungranted: Vec<_> = all_asked.filter(|cell| !granted.contains(cell)).collect();
    let lines = match format {
        OutputFormat::Json => Vec::new(),
        OutputFormat::Table | OutputFormat::Csv => {
            let (roles, rows) = rows(policy, &matrix, granted.iter().chain(&ungranted))?;
            if format == OutputFormat::Csv { csv(&roles, &rows, asked) } else { table(&roles, &rows, asked) }
        }
    };
    let cell = |((role, endpoint, method), reach): (&(String, String, &str), &PolicyReach)| {
        let is_asked = is_asked(asked, endpoint, method);
        json!({ "role": role, "endpoint": endpoint, "method": method, "reach": reach.as_str(), "asked": is_asked })
    };
    let ungranted = ungranted.iter().map(|(endpoint, method)| json!({ "endpoint": endpoint, "method": method }));
    // Including grants under keys that are no method and so no cells.
    let grants = policy.roles().iter().flat_map(|role| role.grants.iter().map(|grant| (role.name.as_str(), grant)));
    let unjudged: BTreeSet<_> = grants
        .filter(|(_, grant)| !is_asked(asked, &grant.endpoint, &grant.method))
        .map(|(role, RoleGrant { endpoint, method, .. })| (role, endpoint, method))
        .collect();
    let unjudged = unjudged
        .into_iter()
        .map(|(role, endpoint, method)| json!({ "role": role, "endpoint": endpoint, "method": method }));
    let json = json!({
        "policy": policy.fingerprint(), "cells": matrix.iter().map(cell).collect::<Vec<_>>(),
        "ungranted": ungranted.collect::<Vec<_>>(), "unjudged": unjudged.collect::<Vec<_>>(),
    });
    Ok(PolicyReport::new(lines, json))
}

/// The columns, and the rows with a cell for each column.
fn rows<'a>(
    policy: &'a PolicySet,
    matrix: &'a RightsMatrix,
    cells: impl Iterator<Item = &'a (&'a str, &'a str)> + Clone,
) -> Result<(Vec<&'a str>, MatrixRows<'a>), CommandFailure> {
    let (mut roles, mut columns) = (Vec::new(), HashMap::new());
    for role in policy.roles() {
        columns.entry(role.name.as_str()).or_insert_with(|| {
            roles.push(role.name.as_str());
            roles.len() - 1
        });
    }
    let count = cells.clone().count();
    if count.saturating_mul(roles.len()) > MOST_CELLS {
        return Err(CommandFailure::Usage(anyhow!(
            "{count} rows of {} roles are more than the {MOST_CELLS} cells that make a table; --format json lists \
             those that are granted",
            roles.len()
        )));
    }
    let mut rows: MatrixRows<'_> = cells.map(|cell| (*cell, vec![NOBODY; roles.len()])).collect();
    for ((role, endpoint, method), reach) in matrix {
        let row = rows.get_mut(&(endpoint.as_str(), *method));
        if let (Some(row), Some(column)) = (row, columns.get(role.as_str()))
            && let Some(cell) = row.get_mut(*column)
        {
            // Records that belong to no person have no owner whose own they could be.
            *cell = if belongs_to_nobody(endpoint) { PolicyReach::Global.as_str() } else { reach.as_str() };
        }
    }
    Ok((roles, rows))
}

fn table(roles: &[&str], rows: &MatrixRows<'_>, asked: &ReviewedQuestion<'_>) -> Vec<String> {
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

fn csv(roles: &[&str], rows: &MatrixRows<'_>, asked: &ReviewedQuestion<'_>) -> Vec<String> {
    let roles: Vec<String> = roles.iter().map(|role| quoted(role)).collect();
    let head = format!("endpoint,method,asked,{}", roles.join(","));
    let rows = rows.iter().map(|((endpoint, method), cells)| {
        let asked = if is_asked(asked, endpoint, method) { "yes" } else { "no" };
        format!("{},{method},{asked},{}", quoted(endpoint), cells.join(","))
    });
    [head].into_iter().chain(rows).collect()
}

/// A field of comma-separated values (RFC 4180) for a spreadsheet: invisible characters are shown, and a text that
/// would be taken for a formula begins with an apostrophe. JSON has names unchanged.
fn quoted(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = format!("{}{}", if is_formula { "'" } else { "" }, shown(text));
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}
