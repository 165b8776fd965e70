//! `fedgate policy check`: finds valid entries of a policy that are probably mistakes.

use std::path::Path;

use anyhow::anyhow;
use fedgate::routes::RouteTable;
use fedgate_core::policy::{PolicySet, PolicyWarning};
use serde_json::json;

use super::PolicyReport;
use crate::print::count;

pub(super) fn check(file: &Path, policy: &PolicySet, routes: &RouteTable, strict: bool) -> PolicyReport {
    let (file, roles, fingerprint) = (file.display().to_string(), policy.roles().len(), policy.fingerprint());
    let (warnings, of_thalamus) = (policy.warnings(&routes.asked()), policy.thalamus_warnings());
    let notes = policy.notes(&routes.asked());
    let found = [
        (!warnings.is_empty()).then(|| count(warnings.len(), "warning", "warnings")),
        (!notes.is_empty()).then(|| count(notes.len(), "note", "notes")),
        (!of_thalamus.is_empty())
            .then(|| format!("{} about Thalamus on the same file", count(of_thalamus.len(), "remark", "remarks"))),
    ];
    let found: Vec<_> = found.into_iter().flatten().collect();
    let found = if found.is_empty() { "nothing to remark".to_owned() } else { found.join(", ") };
    let list = |warnings: &[PolicyWarning]| -> Vec<_> {
        warnings.iter().map(|warning| json!({ "line": warning.line, "warning": warning.text })).collect()
    };
    let lines = warnings.iter().chain(&of_thalamus).map(|warning| format!("{file}:{}: {}", warning.line, warning.text));
    let roles_in_words = count(roles, "role", "roles");
    let lines = lines.chain(notes.iter().map(|note| format!("{file}: {note}")));
    let lines = lines.chain([format!("{file}: {roles_in_words}, fingerprint {fingerprint}, {found}")]).collect();
    let json = json!({
        "file": file, "roles": roles, "fingerprint": fingerprint, "warnings": list(&warnings),
        "thalamus": list(&of_thalamus), "notes": notes,
    });
    // A policy that only Thalamus would misread is no failure here.
    let failure = (strict && !warnings.is_empty()).then(|| anyhow!("there are warnings").into());
    PolicyReport { failure, ..PolicyReport::new(lines, json) }
}
