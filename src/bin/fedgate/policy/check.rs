//! `fedgate policy check`: what is valid in a policy and hardly meant.

use std::path::Path;

use anyhow::anyhow;
use fedgate::policy::PolicySet;
use fedgate::routes::Routes;
use serde_json::json;

use super::Report;
use crate::print::count;

pub(super) fn check(file: &Path, policy: &PolicySet, routes: &Routes, strict: bool) -> Report {
    let (file, roles, fingerprint) = (file.display().to_string(), policy.roles().len(), policy.fingerprint());
    let warnings = policy.warnings(&routes.asked());
    let found = match warnings.len() {
        0 => "nothing to remark".to_owned(),
        number => count(number, "warning", "warnings"),
    };
    let list: Vec<_> =
        warnings.iter().map(|warning| json!({ "line": warning.line, "warning": warning.text })).collect();
    let lines = warnings.iter().map(|warning| format!("{file}:{}: {}", warning.line, warning.text));
    let lines = lines
        .chain([format!("{file}: {}, fingerprint {fingerprint}, {found}", count(roles, "role", "roles"))])
        .collect();
    let json = json!({ "file": file, "roles": roles, "fingerprint": fingerprint, "warnings": list });
    let failure = (strict && !warnings.is_empty()).then(|| anyhow!("there are warnings").into());
    Report { failure, ..Report::new(lines, json) }
}
