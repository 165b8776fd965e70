//! `fedgate policy diff`: the changes of an edit, cell by cell.

use anyhow::anyhow;
use fedgate_core::policy::{CellChange, PolicyReach, PolicySet, ReviewedQuestion, belongs_to_nobody};
use serde_json::json;

use super::PolicyReport;
use super::asked::is_asked;
use crate::print::count;

pub(super) fn diff(old: &PolicySet, new: &PolicySet, asked: &ReviewedQuestion<'_>, allow_wider: bool) -> PolicyReport {
    let changes = old.changes_to(new);
    let wider = changes.iter().filter(|change| change.widens()).count();
    let found = match changes.len() {
        0 => "nothing changes".to_owned(),
        number => format!("{}, {wider} of them wider", count(number, "change", "changes")),
    };
    let is_asked = |change: &CellChange| is_asked(asked, &change.endpoint, change.method);
    let lines = changes
        .iter()
        .map(|change| format!("{}{}", in_words(change), if is_asked(change) { "" } else { " (no route asks for it)" }));
    let lines = lines.chain([format!("{} -> {}: {found}", old.fingerprint(), new.fingerprint())]).collect();
    let reach = |reach: Option<PolicyReach>| reach.map(PolicyReach::as_str);
    let list: Vec<_> = changes
        .iter()
        .map(|change| json!({ "role": change.role, "endpoint": change.endpoint, "method": change.method, "before": reach(change.before), "after": reach(change.after), "widens": change.widens(), "asked": is_asked(change) }))
        .collect();
    let json = json!({ "old": old.fingerprint(), "new": new.fingerprint(), "changes": list, "wider": wider });
    let widens = || anyhow!("access widens; if that is meant, say so with --allow-wider").into();
    PolicyReport { failure: (wider > 0 && !allow_wider).then(widens), ..PolicyReport::new(lines, json) }
}

fn in_words(change: &CellChange) -> String {
    let what = format!("{} {}", change.method, change.endpoint);
    let role = &change.role;
    let records = |reach| match reach {
        PolicyReach::Global => "any record",
        _ if belongs_to_nobody(&change.endpoint) => "any record (they belong to no person)",
        PolicyReach::Related => "own record and those of related persons",
        PolicyReach::Own => "own record",
    };
    match (change.before, change.after) {
        (None, Some(reach)) => format!("+ {role} gains {what}, {}", records(reach)),
        (Some(before), Some(after)) if before < after => {
            format!("+ {role}: {what} widens from {} to {}", records(before), records(after))
        }
        (Some(before), Some(after)) => {
            format!("- {role}: {what} narrows from {} to {}", records(before), records(after))
        }
        (Some(reach), None) => format!("- {role} loses {what}, {}", records(reach)),
        (None, None) => format!("  {role}: {what} is not granted"),
    }
}
