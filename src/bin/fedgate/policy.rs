//! `fedgate policy`: looking at policies with the very code that serves.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::{Subcommand, ValueEnum};
use fedgate::config::Config;
use fedgate::path::{CanonicalPath, parse_target};
use fedgate::policy::{CellChange, Decision, Explanation, PolicySet, Question, Reach, RoleSays, Says, parse_cases};
use fedgate::reload::read_policy;
use fedgate::routes::{Resolution, Routes};
use serde_json::json;

use crate::{Failure, load, open_store, print_line, store_fault};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Check a roles.cfg: errors with line and key, and what is valid but hardly meant.
    Check {
        /// The roles.cfg.
        file: PathBuf,
        /// Exit with 1 when there are warnings.
        #[arg(long)]
        strict: bool,
        #[command(flatten)]
        options: Options,
    },
    /// Say how a request would be decided, and why: the role and line that decide, or what each role lacks.
    Explain {
        /// The account id of who asks.
        #[arg(long = "as", value_name = "ID")]
        principal: String,
        /// The roles of who asks, with commas; without them, those of the account in the configured store.
        #[arg(long, value_delimiter = ',')]
        roles: Option<Vec<String>>,
        /// The roles.cfg, if not that of the configuration.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// GET, POST, PUT, PATCH or DELETE.
        method: String,
        /// The path, such as /people/ESPGNU777ORG.
        path: String,
        #[command(flatten)]
        options: Options,
    },
    /// Show what each role may do, for review: endpoint and method by role, as own or global.
    Matrix {
        /// The roles.cfg.
        file: PathBuf,
        /// How to show it.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Show exactly what an edit changes, in words. Exit 1 when it lets some role do more than before.
    Diff {
        /// The roles.cfg as it was.
        old: PathBuf,
        /// The roles.cfg as it is to be.
        new: PathBuf,
        /// Exit 0 although some role may do more: it is meant.
        #[arg(long)]
        allow_wider: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run the cases beside a policy (FILE with the ending `.cases.toml`). Exit 1 when one is not met.
    Test {
        /// The roles.cfg.
        file: PathBuf,
        /// The cases, if not those beside the policy.
        #[arg(long, value_name = "FILE")]
        cases: Option<PathBuf>,
        #[command(flatten)]
        options: Options,
    },
}

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The configuration whose routes count; without it, the built-in routes of Thalamus.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    /// Columns for a reader.
    Table,
    /// Comma-separated values (RFC 4180).
    Csv,
    /// JSON.
    Json,
}

pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Check { file, strict, options } => check(&file, strict, &options),
        Command::Explain { principal, roles, policy, method, path, options } => {
            let config = options.config()?;
            let policy = match (policy, &config) {
                (Some(file), _) => read(&file)?,
                (None, Some(config)) => read(&config.policy.roles)?,
                (None, None) => {
                    return Err(Failure::Usage(anyhow!("name the policy with --policy FILE or --config FILE")));
                }
            };
            let roles = match (roles, &config) {
                (Some(roles), _) => roles,
                (None, Some(config)) => stored_roles(config, &principal).await?,
                (None, None) => {
                    return Err(Failure::Usage(anyhow!(
                        "name the roles with --roles, or the store with --config FILE"
                    )));
                }
            };
            let routes = routes(config.as_ref())?;
            match options.json {
                true => Ok(print_line(&explained(&policy, &routes, &principal, &roles, &method, &path)?.to_string())?),
                false => explain(&policy, &routes, &principal, &roles, &method, &path),
            }
        }
        Command::Matrix { file, format } => matrix(&read(&file)?, format),
        Command::Diff { old, new, allow_wider, json } => diff(&read(&old)?, &read(&new)?, allow_wider, json),
        Command::Test { file, cases, options } => test(&file, cases, &options),
    }
}

impl Options {
    fn config(&self) -> Result<Option<Config>, Failure> {
        self.config.as_deref().map(load).transpose()
    }
}

fn read(file: &Path) -> Result<PolicySet, Failure> {
    read_policy(file).map_err(|fault| Failure::Usage(anyhow!("{}: {fault}", file.display())))
}

fn routes(config: Option<&Config>) -> Result<Routes, Failure> {
    let routes = config.map_or_else(Routes::built_in, Routes::from_config);
    routes.map_err(|fault| Failure::Usage(fault.into()))
}

async fn stored_roles(config: &Config, id: &str) -> Result<Vec<String>, Failure> {
    let account = open_store(config).await?.read(id).await.map_err(|error| store_fault(config, error))?;
    Ok(account.ok_or_else(|| anyhow!("there is no person `{id}`; name the roles with --roles"))?.roles)
}

fn check(file: &Path, strict: bool, options: &Options) -> Result<(), Failure> {
    let routes = routes(options.config()?.as_ref())?;
    let policy = match read_policy(file) {
        Ok(policy) => policy,
        Err(fault) if options.json => {
            print_line(&json!({ "file": file.display().to_string(), "error": fault.to_string() }).to_string())?;
            return Err(Failure::Usage(anyhow!("{}: {fault}", file.display())));
        }
        Err(fault) => return Err(Failure::Usage(anyhow!("{}: {fault}", file.display()))),
    };
    let warnings = policy.warnings(&routes.asked());
    if options.json {
        let list: Vec<_> =
            warnings.iter().map(|warning| json!({ "line": warning.line, "warning": warning.text })).collect();
        let report = json!({ "file": file.display().to_string(), "roles": policy.roles().len(), "fingerprint": policy.fingerprint(), "warnings": list });
        print_line(&report.to_string())?;
    } else {
        for warning in &warnings {
            print_line(&format!("{}:{}: {}", file.display(), warning.line, warning.text))?;
        }
        let found = match warnings.len() {
            0 => "nothing to remark".to_owned(),
            1 => "1 warning".to_owned(),
            count => format!("{count} warnings"),
        };
        print_line(&format!(
            "{}: {} roles, fingerprint {}, {found}",
            file.display(),
            policy.roles().len(),
            policy.fingerprint()
        ))?;
    }
    match strict && !warnings.is_empty() {
        true => Err(anyhow!("there are warnings").into()),
        false => Ok(()),
    }
}

/// What a request asks of the policy: the question, or the sentence that says why there is none.
fn question<'a>(
    routes: &'a Routes,
    principal: &'a str,
    roles: &'a [String],
    method: &str,
    resolved: &'a Resolution<'a, '_>,
) -> Result<Question<'a>, String> {
    match resolved {
        Resolution::NotFound => Err("no route has this path: 404 to who is authenticated, 401 to others".into()),
        Resolution::MethodNotAllowed(allow) => {
            Err(format!("the path does not serve {method} (405); it serves {allow}"))
        }
        Resolution::Found(target) => match target.action.endpoint {
            None => Err("public: the route asks nobody who they are".into()),
            Some(endpoint) => Ok(Question {
                principal,
                roles,
                method: target.method,
                endpoint: routes.endpoints().name(endpoint),
                subject: target.subject.as_deref(),
            }),
        },
    }
}

fn parse(path: &str) -> Result<(CanonicalPath<'_>, Option<&str>), Failure> {
    parse_target(path.as_bytes()).map_err(|fault| Failure::Usage(anyhow!("`{path}`: {fault}; the gateway answers 400")))
}

pub(crate) fn explain(
    policy: &PolicySet,
    routes: &Routes,
    principal: &str,
    roles: &[String],
    method: &str,
    path: &str,
) -> Result<(), Failure> {
    let (canonical, _) = parse(path)?;
    let resolved = routes.resolve(method, &canonical);
    let question = match question(routes, principal, roles, method, &resolved) {
        Ok(question) => question,
        Err(sentence) => return Ok(print_line(&format!("{method} {path}: {sentence}"))?),
    };
    let explanation = policy.explain(question);
    print_explanation(policy, &question, &explanation, &format!("{method} {path}"))
}

/// The same for machines.
pub(crate) fn explained(
    policy: &PolicySet,
    routes: &Routes,
    principal: &str,
    roles: &[String],
    method: &str,
    path: &str,
) -> Result<serde_json::Value, Failure> {
    let (canonical, _) = parse(path)?;
    let resolved = routes.resolve(method, &canonical);
    let question = match question(routes, principal, roles, method, &resolved) {
        Ok(question) => question,
        Err(sentence) => {
            return Ok(json!({ "request": format!("{method} {path}"), "decision": null, "reason": sentence }));
        }
    };
    let explanation = policy.explain(question);
    let says = |says: &RoleSays| json!({ "role": says.role, "says": says_in_words(says.says, &question), "line": line_of(says.says) });
    let roles: Vec<_> = explanation.roles.iter().map(says).collect();
    Ok(json!({
        "request": format!("{method} {path}"), "as": principal, "endpoint": question.endpoint, "subject": question.subject,
        "decision": explanation.decision.to_string(), "policy": policy.fingerprint(), "roles": roles,
    }))
}

fn print_explanation(
    policy: &PolicySet,
    question: &Question<'_>,
    explanation: &Explanation,
    request: &str,
) -> Result<(), Failure> {
    let whose = match question.subject {
        None => "nobody's record in particular".to_owned(),
        Some(subject) if subject == question.principal => "one's own record".to_owned(),
        Some(subject) => format!("the record of {subject}"),
    };
    print_line(&format!("{request} as {}: {}", question.principal, in_words(explanation.decision)))?;
    print_line(&format!(
        "  asks for {} under {}, {whose}; policy {}",
        question.endpoint,
        question.method.as_str(),
        policy.fingerprint()
    ))?;
    if explanation.roles.is_empty() {
        print_line("  the account has no roles")?;
    }
    for says in &explanation.roles {
        print_line(&format!("  {:<24} {}", says.role, says_in_words(says.says, question)))?;
    }
    Ok(())
}

fn in_words(decision: Decision) -> &'static str {
    match decision {
        Decision::Allow(Reach::Own) => "allowed, own records",
        Decision::Allow(Reach::Global) => "allowed, any record",
        Decision::Deny(fedgate::policy::DenyReason::NoRole) => "denied, the policy defines none of the roles",
        Decision::Deny(fedgate::policy::DenyReason::NotGranted) => "denied, no role grants it",
        Decision::Deny(fedgate::policy::DenyReason::NotOwn) => "denied, it is granted for one's own record alone",
    }
}

fn says_in_words(says: Says, question: &Question<'_>) -> String {
    match says {
        Says::Grants { line, reach: Reach::Global } => format!("grants it for any record (line {line})"),
        Says::Grants { line, reach: Reach::Own } => format!("grants it for one's own record (line {line})"),
        Says::OwnOnly { line } => format!("grants it, but for one's own record alone (line {line})"),
        Says::Silent { line } => {
            format!("does not list `{}` under {} (role on line {line})", question.endpoint, question.method.as_str())
        }
        Says::Undefined => "is not defined in the policy".into(),
    }
}

fn line_of(says: Says) -> Option<usize> {
    match says {
        Says::Grants { line, .. } | Says::OwnOnly { line } | Says::Silent { line } => Some(line),
        Says::Undefined => None,
    }
}

fn matrix(policy: &PolicySet, format: Format) -> Result<(), Failure> {
    let matrix = policy.matrix();
    let mut roles: Vec<&str> = Vec::new();
    for role in policy.roles() {
        if !roles.contains(&role.name.as_str()) {
            roles.push(&role.name);
        }
    }
    let mut rows: Vec<(&str, &str)> = matrix.keys().map(|(_, endpoint, method)| (endpoint.as_str(), *method)).collect();
    rows.sort_unstable();
    rows.dedup();
    let cell = |role: &str, endpoint: &str, method: &'static str| {
        matrix.get(&(role.to_owned(), endpoint.to_owned(), method)).map_or("-", |reach| reach.as_str())
    };
    match format {
        Format::Json => {
            let cells: Vec<_> = matrix.iter().map(|((role, endpoint, method), reach)| json!({ "role": role, "endpoint": endpoint, "method": method, "reach": reach.as_str() })).collect();
            print_line(&json!({ "policy": policy.fingerprint(), "cells": cells }).to_string())?;
        }
        Format::Csv => {
            let names: Vec<String> = roles.iter().map(|role| csv(role)).collect();
            print_line(&format!("endpoint,method,{}", names.join(",")))?;
            for (endpoint, method) in rows {
                let cells: Vec<_> = roles.iter().map(|role| cell(role, endpoint, static_method(method))).collect();
                print_line(&format!("{},{method},{}", csv(endpoint), cells.join(",")))?;
            }
        }
        Format::Table => {
            let widths: Vec<usize> = roles.iter().map(|role| role.chars().count().max(6)).collect();
            let first = rows.iter().map(|(endpoint, _)| endpoint.chars().count()).max().unwrap_or(0).max(8);
            let line = |endpoint: &str, method: &str, cells: Vec<&str>| {
                let cells: Vec<String> =
                    cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
                format!("{endpoint:<first$}  {method:<6}  {}", cells.join("  ")).trim_end().to_owned()
            };
            print_line(&line("endpoint", "method", roles.clone()))?;
            for (endpoint, method) in rows {
                print_line(&line(
                    endpoint,
                    method,
                    roles.iter().map(|role| cell(role, endpoint, static_method(method))).collect(),
                ))?;
            }
        }
    }
    Ok(())
}

/// The method's own static name, which the matrix is keyed by.
fn static_method(name: &str) -> &'static str {
    fedgate::policy::Method::parse(name).map_or("", fedgate::policy::Method::as_str)
}

fn csv(text: &str) -> String {
    let plain = !text.contains([',', '"', '\n', '\r']);
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

fn diff(old: &PolicySet, new: &PolicySet, allow_wider: bool, as_json: bool) -> Result<(), Failure> {
    let changes = old.changes_to(new);
    let wider = changes.iter().filter(|change| change.widens()).count();
    if as_json {
        let reach = |reach: Option<Reach>| reach.map(Reach::as_str);
        let list: Vec<_> = changes
            .iter()
            .map(|change| json!({ "role": change.role, "endpoint": change.endpoint, "method": change.method, "before": reach(change.before), "after": reach(change.after), "widens": change.widens() }))
            .collect();
        print_line(
            &json!({ "old": old.fingerprint(), "new": new.fingerprint(), "changes": list, "wider": wider }).to_string(),
        )?;
    } else {
        for change in &changes {
            print_line(&change_in_words(change))?;
        }
        let count = if changes.is_empty() {
            "nothing changes".to_owned()
        } else {
            format!("{} changes, {wider} of them wider", changes.len())
        };
        print_line(&format!("{} -> {}: {count}", old.fingerprint(), new.fingerprint()))?;
    }
    match wider > 0 && !allow_wider {
        true => Err(anyhow!("access widens; if that is meant, say so with --allow-wider").into()),
        false => Ok(()),
    }
}

fn change_in_words(change: &CellChange) -> String {
    let what = format!("{} {}", change.method, change.endpoint);
    let role = &change.role;
    match (change.before, change.after) {
        (None, Some(Reach::Own)) => format!("+ {role} gains {what}, own record"),
        (None, Some(Reach::Global)) => format!("+ {role} gains {what}, any record"),
        (Some(Reach::Own), Some(Reach::Global)) => format!("+ {role}: {what} widens from own record to any record"),
        (Some(Reach::Global), Some(Reach::Own)) => format!("- {role}: {what} narrows from any record to own record"),
        (Some(Reach::Own), None) => format!("- {role} loses {what}, own record"),
        (Some(Reach::Global), None) => format!("- {role} loses {what}, any record"),
        (before, after) => format!("  {role}: {what}, {before:?} to {after:?}"),
    }
}

fn test(file: &Path, cases: Option<PathBuf>, options: &Options) -> Result<(), Failure> {
    let policy = read(file)?;
    let routes = routes(options.config()?.as_ref())?;
    let cases_file = cases.unwrap_or_else(|| file.with_extension("cases.toml"));
    let text = std::fs::read_to_string(&cases_file)
        .with_context(|| format!("{}: the cases cannot be read", cases_file.display()))
        .map_err(Failure::Usage)?;
    let cases = parse_cases(&text).map_err(|fault| Failure::Usage(anyhow!("{}: {fault}", cases_file.display())))?;
    let (mut passed, mut results) = (0, Vec::new());
    for case in &cases {
        let found = decide(&policy, &routes, case);
        let met = matches!(&found, Ok(decision) if case.expect.is_met_by(*decision));
        passed += usize::from(met);
        let found = found.map_or_else(|sentence| sentence, |decision| decision.to_string());
        if !options.json && !met {
            print_line(&format!(
                "not met  {}: {} as {} expects {}, is {found}",
                case.name, case.request, case.principal, case.expect
            ))?;
        }
        results.push(json!({ "name": case.name, "request": case.request, "expected": case.expect.to_string(), "found": found, "met": met }));
    }
    let failed = cases.len() - passed;
    match options.json {
        true => print_line(
            &json!({ "policy": policy.fingerprint(), "passed": passed, "failed": failed, "cases": results })
                .to_string(),
        )?,
        false => print_line(&format!("{passed} passed, {failed} failed"))?,
    }
    match failed {
        0 if cases.is_empty() => Err(Failure::Usage(anyhow!("{}: there are no cases", cases_file.display()))),
        0 => Ok(()),
        _ => Err(anyhow!("{failed} cases of {} are not met", cases_file.display()).into()),
    }
}

fn decide(policy: &PolicySet, routes: &Routes, case: &fedgate::policy::Case) -> Result<Decision, String> {
    let (method, target) = case.request.split_once(' ').ok_or("`request` is not METHOD PATH")?;
    let (path, _) = parse_target(target.as_bytes()).map_err(|fault| fault.to_string())?;
    let resolved = routes.resolve(method, &path);
    Ok(policy.decide(question(routes, &case.principal, &case.roles, method, &resolved)?))
}
