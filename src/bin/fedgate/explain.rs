//! `fedgate explain REQUEST-ID`: a recorded decision, replayed against the policy that made it.
//!
//! The one rule: it is replayed from what was decided on, whole, or not at all; and a replay that comes to something else
//! than the record is told as that.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use fedgate::config::Config;
use fedgate::history;
use fedgate::path::parse_target;
use fedgate::policy::{Decision, Method, PolicySet, Question};
use fedgate::regular;
use fedgate::reload::read_policy;
use fedgate::routes::{Resolution, Routes, Target, WriteGuard};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::print::Report;
use crate::{Failure, load, policy};

/// The members of a record that a replay needs; the others are left unread.
#[derive(Deserialize)]
struct Record {
    time: String,
    #[serde(rename = "request.id")]
    request_id: String,
    method: String,
    path: String,
    account: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    /// Of a request that the policy was asked about.
    endpoint: Option<String>,
    #[serde(rename = "subject.id")]
    subject: Option<String>,
    decision: String,
    reason: String,
    lacks: Option<String>,
    status: u16,
    policy: String,
    #[serde(default)]
    cut: Vec<String>,
}

pub(crate) fn run(config: &Path, request_id: &str, records: Option<PathBuf>, as_json: bool) -> Result<(), Failure> {
    let mut report = Report::new(as_json);
    report.note("file", config.display().to_string());
    let outcome = load(config).and_then(|config| explain(&config, request_id, records, &mut report));
    report.end(outcome)
}

fn explain(config: &Config, request_id: &str, records: Option<PathBuf>, report: &mut Report) -> Result<(), Failure> {
    if request_id.is_empty() {
        return Err(Failure::Usage(anyhow!(
            "the request id is empty; it stands in the answer's `X-Request-Id` and in the record"
        )));
    }
    let file = records.or_else(|| config.records.file.clone());
    let file = file.ok_or_else(|| {
        Failure::Usage(anyhow!(
            "name the records with --records FILE, or set `records.file` in {}",
            config.file.display()
        ))
    })?;
    report.note("file", file.display().to_string());
    let (line, record) = find(&file, request_id)?.ok_or_else(|| {
        let file = file.display();
        anyhow!("{file} has no record of request {request_id}; a file that was moved away is named with --records FILE")
    })?;
    report.note("record", serde_json::from_str::<Value>(&line).context("a record")?);
    report.note("replay", Value::Null);
    let Record { time, method, path, decision, reason, status, .. } = &record;
    let who = record.account.as_deref().unwrap_or("nobody");
    report.line(&format!("{time} {method} {path} by {who}: {decision} ({reason}), status {status}"))?;
    let (Some(account), Some(_)) = (&record.account, &record.endpoint) else {
        return Ok(report.line("  the policy was not asked: there is nothing to replay")?);
    };
    if !record.cut.is_empty() {
        return Err(anyhow!(
            "its record is not whole and is not replayed: too long for a record, and cut, was {}; `fedgate policy explain \
             --as ACCOUNT --config FILE METHOD PATH` decides with the roles that the account has now, and with `--policy \
             FILE` under a policy of `policy.history`",
            record.cut.join(", ")
        )
        .into());
    }
    let (canonical, _) = parse_target(path.as_bytes())
        .map_err(|fault| anyhow!("the record was changed: no policy is asked about such a path ({fault})"))?;
    let routes = Routes::from_config(config).map_err(|fault| Failure::Usage(fault.into()))?;
    let resolved = routes.resolve(method, &canonical);
    let set = policy_of(config, &record.policy)?;
    let (lines, replay) = policy::explained(&set, &routes, account, &record.roles, method, path);
    lines.iter().try_for_each(|line| report.line(line))?;
    let target = if let Resolution::Found(target) = &resolved { Some(target) } else { None };
    let asked = Asked { set: &set, routes: &routes, record: &record, account, target };
    let agrees = asked.agrees(text(&replay, "decision").unwrap_or_default());
    let cause = asked.cause(&replay);
    report.note("replay", replay);
    asked.tell_more(report)?;
    if agrees { Ok(()) } else { Err(anyhow!("the replay differs from the record: {cause}").into()) }
}

/// A request that the policy was asked about.
struct Asked<'a> {
    set: &'a PolicySet,
    routes: &'a Routes,
    record: &'a Record,
    account: &'a str,
    /// Where the routes of the configuration lead it.
    target: Option<&'a Target<'a, 'a>>,
}

impl Asked<'_> {
    /// Whether a replayed decision is that of the record.
    fn agrees(&self, replayed: &str) -> bool {
        let Record { decision, reason, lacks, .. } = self.record;
        let is_allowed = replayed.starts_with("allow ");
        match (decision.as_str(), reason.as_str()) {
            ("deny", "member_not_permitted") => {
                is_allowed && !lacks.as_deref().is_some_and(|permission| self.grants(permission))
            }
            ("allow" | "deny", reason) => replayed == format!("{decision} {reason}"),
            // It came to something else after it was allowed.
            _ => is_allowed,
        }
    }

    /// Why a replay may differ: roles and policy are the same, or it would not have been replayed.
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
                "roles and policy are those of the record; so another version of fedgate has decided, or the record was \
                 changed"
                    .to_owned()
            }
            false => format!("the routes of the configuration led the request {then}, and lead it {now}"),
        }
    }

    /// Tells what rights had to do with what became of the request after the policy had allowed its endpoint.
    fn tell_more(&self, report: &mut Report) -> Result<(), Failure> {
        let Record { method, decision, reason, status, .. } = self.record;
        match (decision.as_str(), reason.as_str(), status) {
            ("allow", _, 403) => {
                report.note("refused_by", "service");
                report.line("  allowed by the gateway: it is the service behind that refused it (403)")?;
                let mut told = Vec::new();
                for permission in self.permissions() {
                    let granted = self.grants(permission);
                    let words = match granted {
                        true => "is granted",
                        false => "is not granted, so that no body may hold a member that needs it",
                    };
                    report.line(&format!("  the permission `{permission}` under {method} {words}"))?;
                    told.push(json!({ "permission": permission, "granted": granted }));
                }
                report.note("permissions", told);
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
            _ => report.line(&format!("  allowed by the policy: what ended it came later ({reason})"))?,
        }
        Ok(())
    }

    /// The permissions that members of the body may need, besides that of the endpoint.
    fn permissions(&self) -> BTreeSet<&str> {
        let Some(target) = self.target else { return BTreeSet::new() };
        let writes = matches!(target.method, Method::Post | Method::Patch);
        let of_the_his = self.routes.account().filter(|_| writes);
        let of_the_route = target.action.guard.iter().flat_map(WriteGuard::permissions);
        of_the_his.into_iter().chain(of_the_route).map(|named| self.routes.endpoints().name(named)).collect()
    }

    /// Whether the policy grants a permission for this request.
    fn grants(&self, permission: &str) -> bool {
        let decide = |target: &Target<'_, '_>| {
            let subject = target.subject.as_deref();
            let (principal, roles) = (self.account, self.record.roles.as_slice());
            self.set.decide(Question { principal, roles, method: target.method, endpoint: permission, subject })
        };
        self.target.is_some_and(|target| matches!(decide(target), Decision::Allow(_)))
    }
}

fn text<'a>(object: &'a Value, member: &str) -> Option<&'a str> {
    object.get(member).and_then(Value::as_str)
}

/// The last record of a request; the file is read line by line, whatever its size. A line that broke off is no record.
fn find(file: &Path, request_id: &str) -> anyhow::Result<Option<(String, Record)>> {
    let reader = BufReader::new(regular::open(file).with_context(|| format!("{}: cannot be read", file.display()))?);
    let mut found = None;
    for line in reader.split(b'\n') {
        let line = line.with_context(|| format!("{}: cannot be read", file.display()))?;
        let line = String::from_utf8_lossy(&line);
        if line.contains(request_id) {
            let record = serde_json::from_str(&line).ok().filter(|record: &Record| record.request_id == request_id);
            found = record.map(|record| (line.into_owned(), record)).or(found);
        }
    }
    Ok(found)
}

/// The policy of a fingerprint: the one in force, or one that was kept.
fn policy_of(config: &Config, fingerprint: &str) -> anyhow::Result<PolicySet> {
    let is_it = |policy: &PolicySet| policy.fingerprint() == fingerprint;
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
