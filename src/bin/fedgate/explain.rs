//! `fedgate explain REQUEST-ID`: a recorded decision, replayed against the policy that made it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use fedgate::config::Config;
use fedgate::history;
use fedgate::policy::PolicySet;
use fedgate::reload::read_policy;
use fedgate::routes::Routes;
use serde::Deserialize;
use serde_json::json;

use crate::{Failure, policy, print_line};

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
    decision: String,
    reason: String,
    status: u16,
    policy: String,
}

pub(crate) fn run(config: &Config, request_id: &str, records: Option<PathBuf>, as_json: bool) -> Result<(), Failure> {
    let file = records.or_else(|| config.records.file.clone());
    let file = file.ok_or_else(|| {
        Failure::Usage(anyhow!(
            "name the records with --records FILE, or set `records.file` in {}",
            config.file.display()
        ))
    })?;
    let (line, record) =
        find(&file, request_id)?.ok_or_else(|| anyhow!("{} has no record of request {request_id}", file.display()))?;
    let asked = matches!(record.decision.as_str(), "allow" | "deny").then_some(record.account.as_deref()).flatten();
    let (roles, method, path) = (&record.roles, &record.method, &record.path);
    if !as_json {
        let who = record.account.as_deref().unwrap_or("nobody");
        let (decision, reason, status) = (&record.decision, &record.reason, record.status);
        print_line(&format!("{} {method} {path} by {who}: {decision} ({reason}), status {status}", record.time))?;
    }
    // What decided then; nothing where the policy was not asked.
    let replay = match asked {
        None => None,
        Some(account) => {
            let routes = Routes::from_config(config).map_err(|fault| Failure::Usage(fault.into()))?;
            Some((account, policy_of(config, &record.policy)?, routes))
        }
    };
    match (replay, as_json) {
        (Some((account, set, routes)), false) => policy::explain(&set, &routes, account, roles, method, path),
        (None, false) => Ok(print_line("  the policy was not asked: there is nothing to replay")?),
        (replay, true) => {
            let explained = |(account, set, routes)| policy::explained(&set, &routes, account, roles, method, path);
            let told: serde_json::Value = serde_json::from_str(&line).context("a record")?;
            let report = json!({ "record": told, "replay": replay.map(explained).transpose()? });
            Ok(print_line(&report.to_string())?)
        }
    }
}

/// The last record of a request; the file is read line by line, whatever its size. A line that broke off is no record.
fn find(file: &Path, request_id: &str) -> anyhow::Result<Option<(String, Record)>> {
    let reader = BufReader::new(File::open(file).with_context(|| format!("{}: cannot be read", file.display()))?);
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
fn policy_of(config: &Config, fingerprint: &str) -> Result<PolicySet, Failure> {
    let kept = config.policy.history.as_deref().map(|directory| history::path_of(directory, fingerprint));
    let candidates = [Some(config.policy.roles.clone()), kept];
    let mut read = candidates.into_iter().flatten().filter_map(|path| read_policy(&path).ok());
    let found = read.find(|policy| policy.fingerprint() == fingerprint);
    Ok(found.ok_or_else(|| anyhow!("policy {fingerprint} is neither in force nor kept in `policy.history`"))?)
}
