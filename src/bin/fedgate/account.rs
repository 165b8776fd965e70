//! `fedgate account`: accounts of either store, from the command line.

use std::io::{BufRead, IsTerminal};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow, bail};
use clap::Subcommand;
use fedgate::accounts::{Account, AccountChange, Accounts, NewAccount};
use fedgate::config::Config;
use fedgate::gateway::load_policy;
use fedgate::password::{self, Arena, MIN_PASSWORD_CHARACTERS};
use fedgate::path::check_new_id;
use fedgate::secret::Secret;

use crate::print::warn;
use crate::{Failure, open_store, print_line, store_fault};

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

pub(crate) async fn run(config: &Config, command: Command) -> Result<(), Failure> {
    let accounts = open_store(config).await?;
    match command {
        Command::Add { id, roles, name, lastname } => {
            let id = id.to_uppercase();
            check_new_id(&id).map_err(|error| Failure::Usage(anyhow!("`{}`: {error}", id)))?;
            warn_of_undefined(config, &roles);
            let password_hash = new_hash(config)?;
            let new = NewAccount { id: id.clone(), roles, password_hash, name, lastname };
            if !accounts.add(&new).await.map_err(|error| store_fault(config, error))? {
                return Err(anyhow!("`{id}` exists; change it with `fedgate account roles` or `passwd`").into());
            }
            print_line(&format!("{id} added"))?;
        }
        Command::Show { id } => {
            show(&accounts.read(&id).await.map_err(|error| store_fault(config, error))?.ok_or_else(|| missing(&id))?)?
        }
        Command::Passwd { id, wait } => {
            accounts.read(&id).await.map_err(|error| store_fault(config, error))?.ok_or_else(|| missing(&id))?;
            let hash = AccountChange::PasswordHash(new_hash(config)?);
            change(config, &accounts, &id, hash, "has a new password", &wait).await?;
        }
        Command::Roles { id, roles, wait } => {
            let roles: Vec<String> = roles.into_iter().filter(|role| !role.is_empty()).collect();
            warn_of_undefined(config, &roles);
            let done = format!("has the roles {}", list(&roles));
            change(config, &accounts, &id, AccountChange::Roles(roles), &done, &wait).await?;
        }
        Command::Enable { id, wait } => {
            change(config, &accounts, &id, AccountChange::Active(true), "can log in", &wait).await?
        }
        Command::Disable { id, wait } => {
            change(config, &accounts, &id, AccountChange::Active(false), "cannot log in any more", &wait).await?;
        }
    }
    Ok(())
}

async fn change(
    config: &Config,
    accounts: &Accounts,
    id: &str,
    change: AccountChange,
    done: &str,
    wait: &Wait,
) -> Result<(), Failure> {
    if !accounts.change(id, &change).await.map_err(|error| store_fault(config, error))? {
        return Err(missing(id).into());
    }
    let (committed, at) = (Instant::now(), SystemTime::now());
    print_line(&format!("{id} {done}"))?;
    if !wait.wait {
        return Ok(());
    }
    let spread = accounts.wait_until_applied(committed).await.map_err(|error| store_fault(config, error))?;
    let count = match spread.applied.len() {
        0 if spread.silent.is_empty() => "no gateway is listed as running".to_owned(),
        0 => "no gateway has said that it applied it".to_owned(),
        1 => "1 gateway has applied it".to_owned(),
        several => format!("{several} gateways have applied it"),
    };
    print_line(&format!("{count}, {} ms after the commit (account epoch {})", spread.after.as_millis(), spread.epoch))?;
    for report in &spread.silent {
        let ends = chrono::DateTime::<chrono::Utc>::from(at + Duration::from_millis(report.bound_ms));
        let ends = ends.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let (id, place) = (&report.id, &report.place);
        warn(&format!("{id} ({place}) did not answer; its lease ended at {ends}, and with it the old right"));
    }
    Ok(())
}

fn missing(id: &str) -> anyhow::Error {
    anyhow!("there is no person `{id}` (ids are compared exactly, capitals count)")
}

fn show(account: &Account) -> std::io::Result<()> {
    let password = match account.password_hash.as_deref() {
        None => "none; cannot log in",
        Some(_) if !has_usable_password(account) => "unusable; cannot log in until it is set anew",
        Some(hash) if password::is_bcrypt(hash) => "bcrypt; replaced by argon2id at the next login",
        Some(_) => "argon2id",
    };
    print_line(&format!("id        {}", account.id))?;
    print_line(&format!("active    {}", if account.active { "yes" } else { "no" }))?;
    print_line(&format!("roles     {}", list(&account.roles)))?;
    print_line(&format!("password  {password}"))
}

/// Whether there is a password that the account can log in with.
pub(crate) fn has_usable_password(account: &Account) -> bool {
    account.password_hash.as_deref().is_some_and(password::is_acceptable_hash)
}

fn list(roles: &[String]) -> String {
    if roles.is_empty() { "(none)".to_owned() } else { roles.join(", ") }
}

/// A role that the policy does not define grants nothing; that is worth a word, not a refusal.
fn warn_of_undefined(config: &Config, roles: &[String]) {
    let Ok(policy) = load_policy(config) else { return };
    for role in roles.iter().filter(|role| policy.definitions(role).next().is_none()) {
        warn(&format!("{} defines no role `{role}`; it grants nothing", config.policy.roles.display()));
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
