//! `fedgate policy`: reviews policies with the code that serves.
//!
//! Each command first collects its result and then prints it, in lines or as one JSON object. Without a result, the
//! object is the error. Exit code 1 means a result that should stop a script, exit code 2 a question that could not be
//! answered.

mod asked;
mod check;
mod diff;
mod explain;
mod matrix;
mod test;

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{Subcommand, ValueEnum};
use fedgate::reload::{ReloadError, read_policy};
use fedgate::routes::RouteTable;
use fedgate_base::config::Config;
use fedgate_core::policy::{PolicyError, PolicySet};
use serde_json::{Value, json};

pub(crate) use explain::explained;

use crate::print::{print_json, warn};
use crate::{load, print_line};
use fedgate_base::command::CommandFailure;

#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check a roles.cfg: errors with line and key, and valid entries that are probably mistakes.
    Check {
        /// The roles.cfg.
        file: PathBuf,
        /// Exit with 1 if there are warnings.
        #[arg(long)]
        strict: bool,
        #[command(flatten)]
        options: PolicyOptions,
    },
    /// Explain how a request would be decided: the role and line that decide, or what each role lacks.
    Explain {
        /// The account id of the caller.
        #[arg(long = "as", value_name = "ID")]
        principal: String,
        /// The roles of the caller, separated by commas, "" for none; without it, those of the account in the
        /// configured store.
        #[arg(long, value_delimiter = ',')]
        roles: Option<Vec<String>>,
        /// The roles.cfg, instead of that of the configuration.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// GET, POST, PUT, PATCH or DELETE.
        method: String,
        /// The path, such as /people/ESPGNU777ORG.
        path: String,
        #[command(flatten)]
        options: PolicyOptions,
    },
    /// Show what each role may do, for review: endpoint and method by role, as own or global.
    Matrix {
        /// The roles.cfg.
        file: PathBuf,
        /// The output format.
        #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
        format: OutputFormat,
        /// Print JSON, as `--format json`.
        #[arg(long, conflicts_with = "format")]
        json: bool,
    },
    /// Show exactly what an edit changes, in words. Exit 1 if some role may do more than before.
    Diff {
        /// The old roles.cfg.
        old: PathBuf,
        /// The new roles.cfg.
        new: PathBuf,
        /// Exit 0 even if some role may do more.
        #[arg(long)]
        allow_wider: bool,
        #[command(flatten)]
        options: PolicyOptions,
    },
    /// Run the cases beside a policy (FILE with the ending `.cases.toml`). Exit 1 if one is not met.
    #[command(after_help = CASES)]
    Test {
        /// The roles.cfg.
        file: PathBuf,
        /// The cases, instead of those beside the policy.
        #[arg(long, value_name = "FILE")]
        cases: Option<PathBuf>,
        #[command(flatten)]
        options: PolicyOptions,
    },
}

/// The part of `policy test --help` about cases.
const CASES: &str = r#"A case asks as an account (`as`) with `roles`, and expects allow, allow own, allow global, deny,
deny no_role, deny not_granted, deny not_own or deny not_bound. It asks for one of these:

  [[case]]
  name = "a patient reads her own record"
  as = "ANA"
  roles = ["end_user"]
  request = "GET /people/ANA"    # a request: the routes tell endpoint and subject
  expect = "allow own"

  [[case]]
  name = "nor does she give herself roles"
  as = "ANA"
  roles = ["end_user"]
  method = "PATCH"               # a method and an endpoint; no route leads to `account`
  endpoint = "account"
  subject = "ANA"                # whose record, if it is anybody's
  expect = "deny not_granted"

  [[case]]
  name = "what a professional may do, and nothing else"
  as = "DOC"
  roles = ["health_professional"]
  expect = "allow global"
  [case.only]                    # last: methods by endpoint; all others must be denied
  people = ["GET"]
  person = ["GET", "POST", "PATCH"]

`fedgate policy matrix FILE` shows what a policy grants now."#;

#[derive(clap::Args)]
pub(crate) struct PolicyOptions {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Columns for a reader.
    Table,
    /// Comma-separated values (RFC 4180).
    Csv,
    /// JSON.
    Json,
}

/// The result of a command.
struct PolicyReport {
    /// For a reader.
    lines: Vec<String>,
    /// Warnings, which are no failure.
    warnings: Vec<String>,
    /// For a machine.
    json: Value,
    /// The failure of a command that has a result and still exits with 1.
    failure: Option<CommandFailure>,
}

/// A file for which a question cannot be answered.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {fault}")]
struct FileFault {
    file: String,
    fault: String,
}

/// Runs a command with the named configuration.
pub(crate) async fn run(command: PolicyCommand, named: Option<&Path>) -> Result<(), CommandFailure> {
    let as_json = command.is_json();
    match command.report(named).await {
        Ok(report) => {
            match as_json {
                true => print_json(&report.json)?,
                false => {
                    report.warnings.iter().for_each(|warning| warn(warning));
                    report.lines.iter().try_for_each(|line| print_line(line))?;
                }
            }
            report.failure.map_or(Ok(()), Err)
        }
        Err(failure) => {
            if as_json {
                let (CommandFailure::Failed(error) | CommandFailure::Usage(error)) = &failure;
                let object = match error.downcast_ref::<FileFault>() {
                    Some(FileFault { file, fault }) => json!({ "file": file, "error": fault }),
                    None => json!({ "file": null, "error": failure.in_words() }),
                };
                print_json(&object)?;
            }
            Err(failure)
        }
    }
}

impl PolicyReport {
    fn new(lines: Vec<String>, json: Value) -> Self {
        Self { lines, warnings: Vec::new(), json, failure: None }
    }
}

impl PolicyCommand {
    fn is_json(&self) -> bool {
        match self {
            Self::Check { options, .. }
            | Self::Explain { options, .. }
            | Self::Diff { options, .. }
            | Self::Test { options, .. } => options.json,
            Self::Matrix { format, json, .. } => *json || *format == OutputFormat::Json,
        }
    }

    async fn report(self, named: Option<&Path>) -> Result<PolicyReport, CommandFailure> {
        match self {
            Self::Check { file, strict, .. } => Ok(check::check(&file, &read(&file)?, &named_routes(named)?, strict)),
            Self::Explain { principal, roles, policy, method, path, .. } => {
                // Reading the store needs its password.
                let config = match (&roles, named) {
                    (None, Some(config)) => Some(load(config, "fedgate policy")?),
                    (_, file) => file.map(without_secrets).transpose()?,
                };
                let file = policy.as_deref().or(config.as_ref().map(|config| config.policy.roles.as_path()));
                let unnamed = || CommandFailure::Usage(anyhow!("name the policy with --policy FILE or --config FILE"));
                let policy = read(file.ok_or_else(unnamed)?)?;
                let who = match (roles, &config) {
                    (Some(roles), _) => explain::AskingRoles::with_roles(principal, roles),
                    (None, Some(config)) => explain::AskingRoles::stored(principal, config).await?,
                    (None, None) => {
                        let problem = "name the roles with --roles, or the store with --config FILE";
                        return Err(CommandFailure::Usage(anyhow!(problem)));
                    }
                };
                let gateway = config.as_ref().map(|config| &config.gateway);
                let asked = asked::AskedGateway {
                    routes: &routes(config.as_ref())?,
                    hosts: gateway.map(|gateway| &gateway.hosts),
                    head_bytes: gateway.map(|gateway| gateway.limits.head_bytes),
                };
                Ok(explain::report(&policy, asked, &who, (&method, &path), None))
            }
            Self::Matrix { file, format, json } => {
                let format = if json { OutputFormat::Json } else { format };
                let routes = named_routes(named)?;
                matrix::matrix(&read(&file)?, &routes.asked(), format)
            }
            Self::Diff { old, new, allow_wider, .. } => {
                let routes = named_routes(named)?;
                Ok(diff::diff(&read(&old)?, &read(&new)?, &routes.asked(), allow_wider))
            }
            Self::Test { file, cases, .. } => {
                let (policy, routes) = (read(&file)?, named_routes(named)?);
                test::test(&policy, &routes, &cases.unwrap_or_else(|| file.with_extension("cases.toml")))
            }
        }
    }
}

impl FileFault {
    /// A fault of a named file.
    fn usage(file: &Path, fault: impl std::fmt::Display) -> CommandFailure {
        CommandFailure::Usage(Self { file: file.display().to_string(), fault: fault.to_string() }.into())
    }
}

/// A configuration only for its routes and policy: an auditor who reviews them has no secrets and needs none.
fn without_secrets(file: &Path) -> Result<Config, CommandFailure> {
    let config = Config::load_without_secrets(file).map_err(|error| CommandFailure::Usage(error.into()))?;
    config.unknown_names().iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(config)
}

fn read(file: &Path) -> Result<PolicySet, CommandFailure> {
    read_policy(file).map_err(|fault| {
        let remedy = match &fault {
            ReloadError::Unreadable(_) => "; name a roles.cfg that this user may read",
            ReloadError::Policy(PolicyError::Empty) => {
                "; no gateway starts with such a file, and a running one keeps its last good policy"
            }
            ReloadError::Unsettled | ReloadError::Policy(_) => "",
        };
        FileFault::usage(file, format!("{fault}{remedy}"))
    })
}

fn named_routes(config: Option<&Path>) -> Result<RouteTable, CommandFailure> {
    routes(config.map(without_secrets).transpose()?.as_ref())
}

fn routes(config: Option<&Config>) -> Result<RouteTable, CommandFailure> {
    let routes = config.map_or_else(RouteTable::built_in, RouteTable::from_config);
    routes.map_err(|fault| CommandFailure::Usage(fault.into()))
}
