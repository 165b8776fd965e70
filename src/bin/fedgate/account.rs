//! `fedgate account`: accounts of either store, from the command line.

use std::io::{BufRead, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow, bail};
use clap::Subcommand;
use fedgate::accounts::{self, Account, AccountChange, Accounts, NewAccount, Spread};
use fedgate::config::Config;
use fedgate::gateway::load_policy;
use fedgate::password::{self, Arena, MIN_PASSWORD_CHARACTERS};
use fedgate::path::check_new_id;
use fedgate::policy::hint;
use fedgate::secret::Secret;
use serde_json::json;

use crate::print::{self, Report};
use crate::{Failure, load, open_store, store_fault};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Add a person with an account; the password is asked for, or read from standard input.
    Add {
        /// The id of the person, such as ESPGNU777ORG; stored in upper case.
        id: String,
        /// Roles, with commas between them.
        #[arg(long, value_delimiter = ',', default_value = "end_user")]
        roles: Vec<String>,
        /// Given name.
        #[arg(long)]
        name: Option<String>,
        /// Family name.
        #[arg(long)]
        lastname: Option<String>,
    },
    /// Show an account: whether it can log in, and with which roles.
    Show {
        /// The id of the person.
        id: String,
    },
    /// Set a password; it is asked for, or read from standard input.
    Passwd {
        /// The id of the person.
        id: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Replace the roles of an account.
    Roles {
        #[command(flatten)]
        wait: Wait,
        /// The id of the person.
        id: String,
        /// Roles, with commas between them; "" for none.
        #[arg(value_delimiter = ',', required = true)]
        roles: Vec<String>,
    },
    /// Let an account log in again.
    Enable {
        /// The id of the person.
        id: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Keep an account from logging in, from now on and everywhere.
    Disable {
        /// The id of the person.
        id: String,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(clap::Args)]
pub(crate) struct Wait {
    /// Return when every running gateway has applied the change, and say how many and after how many ms.
    #[arg(long)]
    wait: bool,
}

/// Does what is asked and tells what was done, in lines or as one JSON object.
pub(crate) async fn run(config: &Path, command: Command, as_json: bool) -> Result<(), Failure> {
    let mut report = Report::new(as_json);
    let outcome = match load(config) {
        Ok(config) => work(&config, command, &mut report).await,
        Err(failure) => Err(failure),
    };
    report.end(outcome)
}

async fn work(config: &Config, command: Command, report: &mut Report) -> Result<(), Failure> {
    let accounts = open_store(config).await?;
    match command {
        Command::Add { id, roles, name, lastname } => {
            let id = id.to_uppercase();
            check_new_id(&id).map_err(|error| Failure::Usage(anyhow!("`{id}`: {error}")))?;
            warn_of_undefined(config, &roles, report);
            let password_hash = new_hash(config)?;
            let new = NewAccount { id: id.clone(), roles, password_hash, name, lastname };
            if !accounts.add(&new).await.map_err(|error| store_fault(config, error))? {
                return Err(anyhow!("`{id}` exists; change it with `fedgate account roles` or `passwd`").into());
            }
            report.note("roles", new.roles);
            done(&accounts, &id, "added", "added", report).await
        }
        Command::Show { id } => show(&stored(config, &accounts, &id).await?, report),
        Command::Passwd { id, wait } => {
            stored(config, &accounts, &id).await?;
            let hash = AccountChange::PasswordHash(new_hash(config)?);
            change(config, &accounts, &id, &hash, "has a new password", &wait, report).await
        }
        Command::Roles { id, roles, wait } => {
            let roles: Vec<String> = roles.into_iter().filter(|role| !role.is_empty()).collect();
            warn_of_undefined(config, &roles, report);
            let words = format!("has the roles {}", list(&roles));
            change(config, &accounts, &id, &AccountChange::Roles(roles), &words, &wait, report).await
        }
        Command::Enable { id, wait } => {
            change(config, &accounts, &id, &AccountChange::Active(true), "can log in", &wait, report).await
        }
        Command::Disable { id, wait } => {
            let words = "cannot log in any more";
            change(config, &accounts, &id, &AccountChange::Active(false), words, &wait, report).await
        }
    }
}

async fn change(
    config: &Config,
    accounts: &Accounts,
    id: &str,
    change: &AccountChange,
    words: &str,
    wait: &Wait,
    report: &mut Report,
) -> Result<(), Failure> {
    if !accounts.change(id, change).await.map_err(|error| store_fault(config, error))? {
        return Err(missing(accounts, id).await.into());
    }
    let (committed, at) = (Instant::now(), SystemTime::now());
    let word = match change {
        AccountChange::PasswordHash(_) => "password",
        AccountChange::Active(true) => "enabled",
        AccountChange::Active(false) => "disabled",
        AccountChange::Roles(roles) => {
            report.note("roles", roles.clone());
            "roles"
        }
    };
    done(accounts, id, word, words, report).await?;
    if !wait.wait {
        return Ok(());
    }
    // A program reads stdout; who watches it is told here.
    let waits_for = |silent: &accounts::Report| {
        let accounts::Report { id, place, bound_ms, .. } = silent;
        let ends = lease_end(at, *bound_ms);
        print::warn(&format!(
            "{id} ({place}) does not answer; waiting until {ends}, when its lease ends at the latest"
        ));
    };
    let spread = accounts.wait_until_applied(committed, waits_for).await.map_err(|error| store_fault(config, error))?;
    tell_spread(&spread, at, report)
}

/// When no lease of before a change can be valid any more.
fn lease_end(committed: SystemTime, bound_ms: u64) -> String {
    let end = chrono::DateTime::<chrono::Utc>::from(committed + Duration::from_millis(bound_ms));
    end.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// Tells that a change is made, and which account epoch the accounts have since.
async fn done(accounts: &Accounts, id: &str, word: &str, words: &str, report: &mut Report) -> Result<(), Failure> {
    report.note("id", id);
    report.note("done", word);
    if report.is_json() {
        // That the epoch cannot be asked for undoes nothing.
        report.note("epoch", accounts.changes_since(None).await.ok().map(|changes| changes.epoch));
    }
    Ok(report.line(&format!("{id} {words}"))?)
}

fn tell_spread(spread: &Spread, committed: SystemTime, report: &mut Report) -> Result<(), Failure> {
    let Spread { epoch, applied, silent, after } = spread;
    let count = match applied.len() {
        0 if silent.is_empty() => "no gateway is listed as running".to_owned(),
        0 => "no gateway has said that it applied it".to_owned(),
        1 => "1 gateway has applied it".to_owned(),
        several => format!("{several} gateways have applied it"),
    };
    report.line(&format!("{count}, {} ms after the commit (account epoch {epoch})", after.as_millis()))?;
    let names = |instance: &accounts::Report| json!({ "id": instance.id, "place": instance.place });
    report.note("epoch", *epoch);
    report.note("after_ms", u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    report.note("applied", applied.iter().map(names).collect::<Vec<_>>());
    let mut told = Vec::new();
    for accounts::Report { id, place, bound_ms, .. } in silent {
        // One that may admit nobody for another reason, such as having stopped, had no lease to the end.
        let ended = lease_end(committed, (*bound_ms).min(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)));
        told.push(json!({ "id": id, "place": place, "lease_ended_at": ended }));
        report.warn(format!("{id} ({place}) did not answer; its lease ended at {ended}, and with it the old right"));
    }
    report.note("silent", told);
    Ok(())
}

/// An account that there is.
async fn stored(config: &Config, accounts: &Accounts, id: &str) -> Result<Account, Failure> {
    match accounts.read(id).await.map_err(|error| store_fault(config, error))? {
        Some(account) => Ok(account),
        None => Err(missing(accounts, id).await.into()),
    }
}

/// That there is no such person, and whether there is one whose id differs by case alone, as far as the store tells.
pub(crate) async fn missing(accounts: &Accounts, id: &str) -> anyhow::Error {
    for other in [id.to_uppercase(), id.to_lowercase()] {
        if matches!(accounts.read(&other).await, Ok(Some(_))) {
            return anyhow!("there is no person `{id}`{}", hint(id, [other.as_str()]));
        }
    }
    anyhow!("there is no person `{id}` (ids are compared exactly, capitals count)")
}

fn show(account: &Account, report: &mut Report) -> Result<(), Failure> {
    let (word, words) = match account.password_hash.as_deref() {
        None => ("none", "none; cannot log in"),
        Some(_) if !has_usable_password(account) => ("unusable", "unusable; cannot log in until it is set anew"),
        Some(hash) if password::is_bcrypt(hash) => ("bcrypt", "bcrypt; replaced by argon2id at the next login"),
        Some(_) => ("argon2id", "argon2id"),
    };
    report.note("id", account.id.as_str());
    report.note("active", account.active);
    report.note("roles", account.roles.clone());
    report.note("password", word);
    report.line(&format!("id        {}", account.id))?;
    report.line(&format!("active    {}", if account.active { "yes" } else { "no" }))?;
    report.line(&format!("roles     {}", list(&account.roles)))?;
    Ok(report.line(&format!("password  {words}"))?)
}

/// Whether there is a password that the account can log in with.
pub(crate) fn has_usable_password(account: &Account) -> bool {
    account.password_hash.as_deref().is_some_and(password::is_acceptable_hash)
}

fn list(roles: &[String]) -> String {
    if roles.is_empty() { "(none)".to_owned() } else { roles.join(", ") }
}

/// A role that the policy does not define grants nothing; that is worth a word, not a refusal.
fn warn_of_undefined(config: &Config, roles: &[String], report: &mut Report) {
    let Ok(policy) = load_policy(config) else { return };
    let file = config.policy.roles.display();
    for role in roles.iter().filter(|role| policy.definitions(role).next().is_none()) {
        report.warn(format!("{file} defines no role `{role}`{}; it grants nothing", hint(role, policy.role_names())));
    }
}

fn new_hash(config: &Config) -> anyhow::Result<String> {
    let password = read_password("New password: ")?;
    if String::from_utf8_lossy(password.expose()).chars().count() < MIN_PASSWORD_CHARACTERS {
        bail!("the password has less than {MIN_PASSWORD_CHARACTERS} characters");
    }
    if std::io::stdin().is_terminal() && read_password("Again: ")? != password {
        bail!("the passwords do not match");
    }
    Ok(password::hash_with(password.expose(), config.authentication.cost, &mut Arena::default())?)
}

/// Asks at the terminal without echo, or takes the first line of standard input.
pub(crate) fn read_password(prompt: &str) -> anyhow::Result<Secret> {
    let line = match std::io::stdin().is_terminal() {
        true => rpassword::prompt_password(prompt).context("the password cannot be read from the terminal")?,
        false => {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).context("the password cannot be read from standard input")?;
            line.trim_end_matches(['\r', '\n']).to_owned()
        }
    };
    if line.is_empty() {
        bail!("the password is empty");
    }
    Ok(Secret::new(line.into_bytes()))
}
