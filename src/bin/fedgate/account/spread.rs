//! How far a committed change has reached the gateways, in lines or as members of the report.
//!
//! The one rule: a gateway that does not answer counts as reached only when its lease has ended.

use std::time::{Duration, SystemTime};

use fedgate::instances::{ChangeSpread, InstanceReport};
use serde_json::json;

use crate::print::{self, CommandReport};
use fedgate_base::command::CommandFailure;

/// Reports the result of the wait.
pub(super) fn tell(
    spread: &ChangeSpread,
    committed: SystemTime,
    report: &mut CommandReport,
) -> Result<(), CommandFailure> {
    let ChangeSpread { epoch, applied, silent, after } = spread;
    let count = match applied.len() {
        0 if silent.is_empty() => "no gateway is listed as running".to_owned(),
        0 => "no gateway has reported that it applied it".to_owned(),
        1 => "1 gateway has applied it".to_owned(),
        several => format!("{several} gateways have applied it"),
    };
    report.line(&format!("{count}, {} ms after the commit (account epoch {epoch})", after.as_millis()))?;
    let names = |instance: &InstanceReport| json!({ "id": instance.id, "place": instance.place });
    report.note("epoch", *epoch);
    report.note("after_ms", u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    report.note("applied", applied.iter().map(names).collect::<Vec<_>>());
    let mut members = Vec::new();
    for InstanceReport { id, place, bound_ms, .. } in silent {
        // A gateway that admits nobody for another reason, such as a stop, had no lease until then.
        let ended = lease_end(committed, (*bound_ms).min(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)));
        members.push(json!({ "id": id, "place": place, "lease_ended_at": ended }));
        report.warn(format!("{id} ({place}) did not answer; its lease ended at {ended}, and with it the old right"));
    }
    report.note("silent", members);
    Ok(())
}

/// Warns of a gateway that does not answer, while the command waits for the end of its lease.
pub(super) fn warn_of_silent(silent: &InstanceReport, committed: SystemTime) {
    let InstanceReport { id, place, bound_ms, .. } = silent;
    let ends = lease_end(committed, *bound_ms);
    // On stderr: programs read stdout.
    print::warn(&format!("{id} ({place}) does not answer; waiting until {ends}, when its lease ends at the latest"));
}

/// When every lease from before the change has ended.
fn lease_end(committed: SystemTime, bound_ms: u64) -> String {
    let end = chrono::DateTime::<chrono::Utc>::from(committed + Duration::from_millis(bound_ms));
    end.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}
