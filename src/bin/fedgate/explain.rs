//! `fedgate explain REQUEST-ID`: finds every record of an id, and replays each decision against the policy that
//! made it.
//!
//! The one rule: a decision is replayed from its whole input or not at all, and a replay that differs from the
//! record is reported as such.

mod find;
mod open;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use fedgate::history;
use fedgate::reload::read_policy;
use fedgate::routes::{RouteResolution, RouteTable, RouteTarget, WriteGuard};
use fedgate_base::config::Config;
use fedgate_core::path::parse_target;
use fedgate_core::policy::{DenyReason, Method, PolicyDecision, PolicyQuestion, PolicySet};
use fedgate_core::subject::RequestSubject;
use find::{FoundLine, FoundRecord, NamedBy, RecordFiles, find, with_rotated};
use serde_json::{Value, json};

use crate::print::CommandReport;
use crate::{load, policy};
use fedgate_base::command::CommandFailure;

pub(crate) fn run(config: &Path, request_id: &str, records: &[PathBuf], as_json: bool) -> Result<(), CommandFailure> {
    let mut report = CommandReport::new(as_json);
    report.note("file", config.display().to_string());
    let outcome = load(config, "fedgate explain").and_then(|config| explain(&config, request_id, records, &mut report));
    report.end(outcome)
}

fn explain(config: &Config, id: &str, records: &[PathBuf], report: &mut CommandReport) -> Result<(), CommandFailure> {
    if id.is_empty() {
        return Err(CommandFailure::Usage(anyhow!(
            "the request id is empty; it is in the answer's `X-Request-Id` and in the record"
        )));
    }
    let files = files(config, records)?;
    let names = |files: &[PathBuf]| files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    report.note("file", names(files.paths.get(files.paths.len().saturating_sub(1)..).unwrap_or_default()));
    let finding = find(&files, id)?;
    if finding.found.is_empty() {
        let unread = match finding.unread.as_slice() {
            [] => String::new(),
            unread => format!("; not read: {}", unread.join(", ")),
        };
        return Err(anyhow!(
            "no record of request {id} is in {}; a file that was moved away is named with --records FILE{unread}",
            names(&files.paths)
        )
        .into());
    }
    finding.unread.iter().for_each(|unread| report.warn(format!("not read completely: {unread}")));
    if finding.left_out > 0 {
        report.warn(format!("{} earlier records of {id} are not shown", finding.left_out));
    }
    if finding.found.len() > 1 {
        report.line(&format!("{} records of {id}", finding.found.len()))?;
    }
    let mut outcome = Ok(());
    let mut records = Vec::new();
    for found in &finding.found {
        let mut one = report.part();
        let explained = explain_one(config, id, found, &mut one);
        if let Err(failure) = &explained {
            one.note("error", failure.in_words());
            // The first failure decides how the command ends.
            if outcome.is_err() {
                report.warn(failure.in_words());
            }
        }
        outcome = outcome.and(explained);
        records.push(one.into_members());
    }
    // The members of the last record stand at the top, as before there were several; `records` has all.
    if let Some(last) = records.last() {
        last.iter()
            .filter(|(member, _)| *member != "error")
            .for_each(|(member, value)| report.note(member, value.clone()));
    }
    report.note("records", records.into_iter().map(Value::Object).collect::<Vec<_>>());
    outcome
}

/// The files to read, the oldest first.
fn files(config: &Config, records: &[PathBuf]) -> Result<RecordFiles, CommandFailure> {
    if !records.is_empty() {
        return Ok(RecordFiles { paths: records.to_vec(), are_named: true });
    }
    let file = config.records.file.as_ref().ok_or_else(|| {
        CommandFailure::Usage(anyhow!(
            "name the records with --records FILE, or set `records.file` in {}",
            config.file.display()
        ))
    })?;
    Ok(RecordFiles { paths: with_rotated(file), are_named: false })
}

/// Reports one record, and replays it if the policy was asked.
fn explain_one(
    config: &Config,
    id: &str,
    found: &FoundRecord,
    report: &mut CommandReport,
) -> Result<(), CommandFailure> {
    let FoundRecord { line, file, record, named, is_superseded } = found;
    report.note("file", file.display().to_string());
    report.note("record", serde_json::from_str::<Value>(line).context("a record")?);
    report.note("replay", Value::Null);
    tell(id, record, *named, report)?;
    if *is_superseded {
        report.note("superseded", true);
        return Ok(report.line("  a later record of the same request counts")?);
    }
    let (Some(account), Some(_)) = (&record.account, &record.endpoint) else {
        return Ok(report.line("  the policy was not asked: there is nothing to replay")?);
    };
    replay(config, record, account, report)
}

/// Reports a record, and why it belongs to the id.
fn tell(id: &str, record: &FoundLine, named: NamedBy, report: &mut CommandReport) -> Result<(), CommandFailure> {
    let FoundLine { time, method, path, decision, reason, status, .. } = record;
    let who = record.account.as_deref().filter(|account| !account.is_empty()).unwrap_or("nobody");
    let Some(count) = record.count else {
        report.line(&format!("{time} {method} {path} by {who}: {decision} ({reason}), status {status}"))?;
        let own = &record.request_id;
        match named {
            NamedBy::ByClient => {
                report.note("named", "by_client");
                report.line(&format!("  its client called it {id}; its own id is {own}"))?;
            }
            NamedBy::Before => {
                report.note("named", "merging_began");
                report.line(&format!(
                    "  with this request, {own}, merging began; {id} is one of those that followed from there, if \
                     there were so many: the record that counts them is written within a minute, and a kill may have \
                     cost it"
                ))?;
            }
            NamedBy::Own | NamedBy::Merged | NamedBy::Beyond => {}
        }
        return Ok(());
    };
    let until = record.until.as_deref().unwrap_or("?");
    let several = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
    report.note("named", "merged");
    report.line(&format!(
        "{time} to {until}: {count} requests from {} have this one record: {} {} by {who}: {decision} ({reason}), {}",
        several(&record.client, "several addresses"),
        several(method, "several methods"),
        several(path, "on several paths"),
        if *status == 0 { "several statuses".to_owned() } else { format!("status {status}") },
    ))?;
    let reasons: Vec<_> = record.reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    Ok(report.line(&format!("  reasons: {}", reasons.join(", ")))?)
}

/// Decides a recorded request again.
fn replay(
    config: &Config,
    record: &FoundLine,
    account: &str,
    report: &mut CommandReport,
) -> Result<(), CommandFailure> {
    let FoundLine { method, path, .. } = record;
    // A cut path or role could lead to another decision than the recorded one.
    if !record.cut.is_empty() {
        return Err(anyhow!(
            "its record is not whole and is not replayed: too long for a record, and cut, was {}; `fedgate policy \
             explain --as ACCOUNT --config FILE METHOD PATH` decides with the roles that the account has now, and \
             with `--policy FILE` under a policy of `policy.history`",
            record.cut.join(", ")
        )
        .into());
    }
    let (canonical, query) = parse_target(path.as_bytes())
        .map_err(|fault| anyhow!("the record was changed: no policy is asked about such a path ({fault})"))?;
    let routes = RouteTable::from_config(config).map_err(|fault| CommandFailure::Usage(fault.into()))?;
    let resolved = routes.resolve(method, &canonical, query);
    let set = policy_of(config, &record.policy)?;
    let subject = recorded_subject(record);
    let own = record.own(account);
    let (lines, replay) = policy::explained(&set, &routes, own, &record.roles, (method, path), subject);
    lines.iter().try_for_each(|line| report.line(line))?;
    let target = if let RouteResolution::Found(target) = &resolved { Some(target) } else { None };
    let asked = ReplayedRequest { set: &set, routes: &routes, record, account, target };
    let agrees = asked.agrees(text(&replay, "decision").unwrap_or_default());
    let cause = asked.cause(&replay);
    report.note("replay", replay);
    asked.tell_more(report)?;
    if agrees { Ok(()) } else { Err(anyhow!("the replay differs from the record: {cause}").into()) }
}

/// The subject that decided, on a route that finds it elsewhere than in the path: records have no query and no body.
fn recorded_subject(record: &FoundLine) -> RequestSubject<'_> {
    match &record.subject {
        _ if record.decision == "deny" && record.reason == DenyReason::NotBound.as_str() => RequestSubject::Unbound,
        Some(subject) => RequestSubject::One(subject.into()),
        None => RequestSubject::Later,
    }
}

/// A request that the policy was asked about.
struct ReplayedRequest<'a> {
    set: &'a PolicySet,
    routes: &'a RouteTable,
    record: &'a FoundLine,
    account: &'a str,
    /// The target by the routes of the configuration.
    target: Option<&'a RouteTarget<'a, 'a>>,
}

impl ReplayedRequest<'_> {
    /// Whether a replayed decision agrees with the record.
    fn agrees(&self, replayed: &str) -> bool {
        let FoundLine { decision, reason, lacks, .. } = self.record;
        let is_allowed = replayed.starts_with("allow ");
        match (decision.as_str(), reason.as_str()) {
            ("deny", "member_not_permitted") => {
                is_allowed && !lacks.as_deref().is_some_and(|permission| self.grants(permission))
            }
            // The record has the scope that the upstream was told.
            ("allow", "own") => ["allow own", "allow related"].contains(&replayed),
            ("allow" | "deny", reason) => replayed == format!("{decision} {reason}"),
            // The policy allowed it; its end came later, such as a failed upstream.
            _ => is_allowed,
        }
    }

    /// Why a replay differs. Roles and policy are the recorded ones, or there would have been no replay.
    fn cause(&self, replay: &Value) -> String {
        let led_to = |endpoint: Option<&str>, subject: Option<&str>| match (endpoint, subject) {
            (None, _) => "to no endpoint".to_owned(),
            (Some(endpoint), None) => format!("to `{endpoint}`"),
            (Some(endpoint), Some(subject)) => format!("to `{endpoint}` of {subject}"),
        };
        let then = led_to(self.record.endpoint.as_deref(), self.record.subject.as_deref());
        let now = led_to(text(replay, "endpoint"), text(replay, "subject"));
        match then == now {
            true => {
                "roles and policy are those of the record; so another version of fedgate has decided, or the record \
                 was changed"
                    .to_owned()
            }
            false => format!("the routes of the configuration led the request {then}, and lead it {now}"),
        }
    }

    /// Reports the part of rights in the end of a request after the policy had allowed its endpoint.
    fn tell_more(&self, report: &mut CommandReport) -> Result<(), CommandFailure> {
        let FoundLine { method, decision, reason, status, .. } = self.record;
        match (decision.as_str(), reason.as_str(), status) {
            ("allow", _, 403) => {
                report.note("refused_by", "service");
                report.line("  allowed by the gateway: the upstream refused it (403)")?;
                let mut permissions = Vec::new();
                for permission in self.permissions() {
                    let granted = self.grants(permission);
                    let words = match granted {
                        true => "is granted",
                        false => "is not granted, so a body with a member that needs it is refused",
                    };
                    report.line(&format!("  the permission `{permission}` under {method} {words}"))?;
                    permissions.push(json!({ "permission": permission, "granted": granted }));
                }
                report.note("permissions", permissions);
            }
            ("deny", "member_not_permitted", _) => report.line(&match &self.record.lacks {
                Some(permission) => {
                    format!(
                        "  but its body holds a member that needs `{permission}` under {method}, which no role grants"
                    )
                }
                None => "  but its body holds a member that nobody may write".to_owned(),
            })?,
            ("allow" | "deny", ..) => {}
            _ => report.line(&format!("  allowed by the policy; it failed later ({reason})"))?,
        }
        Ok(())
    }

    /// The permissions that members of the body may need, in addition to that of the endpoint.
    fn permissions(&self) -> BTreeSet<&str> {
        let Some(target) = self.target else { return BTreeSet::new() };
        let writes = matches!(target.method, Method::Post | Method::Patch);
        let of_the_his = self.routes.account().filter(|_| writes);
        let of_the_route = target.action.guard.iter().flat_map(WriteGuard::permissions);
        of_the_his.into_iter().chain(of_the_route).map(|named| self.routes.endpoints().name(named)).collect()
    }

    /// Whether the policy grants a permission for this request.
    fn grants(&self, permission: &str) -> bool {
        let decide = |target: &RouteTarget<'_, '_>| {
            let subject = target.subject.id();
            let own = self.record.own(self.account);
            let principal = self.routes.endpoints().find(permission).map_or(own, |id| self.routes.own(id, own));
            let roles = self.record.roles.as_slice();
            self.set.decide(PolicyQuestion { principal, roles, method: target.method, endpoint: permission, subject })
        };
        self.target.is_some_and(|target| matches!(decide(target), PolicyDecision::Allow(_)))
    }
}

fn text<'a>(object: &'a Value, member: &str) -> Option<&'a str> {
    object.get(member).and_then(Value::as_str)
}

/// The policy with a fingerprint: the one in force, or a kept one.
fn policy_of(config: &Config, fingerprint: &str) -> anyhow::Result<PolicySet> {
    let is_it = |policy: &PolicySet| policy.fingerprint() == fingerprint;
    // By fingerprint: the file may have been edited since the decision.
    if let Some(policy) = read_policy(&config.policy.roles).ok().filter(is_it) {
        return Ok(policy);
    }
    let Some(history) = &config.policy.history else {
        return Err(anyhow!("policy {fingerprint} is not in force, and `policy.history` keeps none"));
    };
    let path = history::path_of(history, fingerprint);
    if !path.exists() {
        return Err(anyhow!("policy {fingerprint} is neither in force nor kept in {}", history.display()));
    }
    let damage = match read_policy(&path) {
        Ok(policy) if is_it(&policy) => return Ok(policy),
        Ok(policy) => format!("its content has the fingerprint {}", policy.fingerprint()),
        Err(fault) => fault.to_string(),
    };
    Err(anyhow!("{} is not the policy that its name says, and nothing can be replayed: {damage}", path.display()))
}
