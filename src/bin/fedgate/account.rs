//! `fedgate account`: accounts of either store, from the command line.

use std::io::{BufRead, IsTerminal};

use anyhow::{Context, anyhow, bail};
use clap::Subcommand;
use fedgate::accounts::{Account, AccountChange, Accounts, NewAccount};
use fedgate::config::Config;
use fedgate::db::schema;
use fedgate::gateway::load_policy;
use fedgate::password::{self, Arena};
use fedgate::secret::Secret;

use crate::{Failure, print_line};

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
    },
    /// Replace the roles of an account.
    Roles {
        /// The id of the person.
        id: String,
        /// Roles, with commas between them; "" for none.
        #[arg(value_delimiter = ',')]
        roles: Vec<String>,
    },
    /// Let an account log in again.
    Enable {
        /// The id of the person.
        id: String,
    },
    /// Keep an account from logging in, from now on and everywhere.
    Disable {
        /// The id of the person.
        id: String,
    },
}

pub(crate) async fn run(config: &Config, command: Command) -> Result<(), Failure> {
    let accounts = Accounts::open(&config.store).await.map_err(|error| Failure::Usage(error.into()))?;
    if schema::version(accounts.database()).await? < schema::VERSION {
        return Err(Failure::Usage(anyhow!("the database has no schema of this version; run `fedhis migrate`")));
    }
    match command {
        Command::Add { id, roles, name, lastname } => {
            let id = id.to_uppercase();
            warn_of_undefined(config, &roles);
            let password_hash = new_hash(config)?;
            let new = NewAccount { id: id.clone(), roles, password_hash, name, lastname };
            if !accounts.add(&new).await? {
                return Err(anyhow!("`{id}` exists; change it with `fedgate account roles` or `passwd`").into());
            }
            print_line(&format!("{id} added"))?;
        }
        Command::Show { id } => show(&accounts.read(&id).await?.ok_or_else(|| missing(&id))?)?,
        Command::Passwd { id } => {
            accounts.read(&id).await?.ok_or_else(|| missing(&id))?;
            change(&accounts, &id, AccountChange::PasswordHash(new_hash(config)?), "has a new password").await?;
        }
        Command::Roles { id, roles } => {
            let roles: Vec<String> = roles.into_iter().filter(|role| !role.is_empty()).collect();
            warn_of_undefined(config, &roles);
            let done = format!("has the roles {}", list(&roles));
            change(&accounts, &id, AccountChange::Roles(roles), &done).await?;
        }
        Command::Enable { id } => change(&accounts, &id, AccountChange::Active(true), "can log in").await?,
        Command::Disable { id } => {
            change(&accounts, &id, AccountChange::Active(false), "cannot log in any more").await?
        }
    }
    Ok(())
}

async fn change(accounts: &Accounts, id: &str, change: AccountChange, done: &str) -> Result<(), Failure> {
    if !accounts.change(id, &change).await? {
        return Err(missing(id).into());
    }
    print_line(&format!("{id} {done}"))?;
    Ok(())
}

fn missing(id: &str) -> anyhow::Error {
    anyhow!("there is no person `{id}` (ids are compared exactly, capitals count)")
}

fn show(account: &Account) -> std::io::Result<()> {
    let password = match account.password_hash.as_deref() {
        None => "none; cannot log in",
        Some(hash) if password::is_bcrypt(hash) => "bcrypt; replaced by argon2id at the next login",
        Some(hash) if password::is_acceptable_hash(hash) => "argon2id",
        Some(_) => "unusable; cannot log in until it is set anew",
    };
    print_line(&format!("id        {}", account.id))?;
    print_line(&format!("active    {}", if account.active { "yes" } else { "no" }))?;
    print_line(&format!("roles     {}", list(&account.roles)))?;
    print_line(&format!("password  {password}"))
}

fn list(roles: &[String]) -> String {
    if roles.is_empty() { "(none)".to_owned() } else { roles.join(", ") }
}

/// A role that the policy does not define grants nothing; that is worth a word, not a refusal.
fn warn_of_undefined(config: &Config, roles: &[String]) {
    let Ok(policy) = load_policy(config) else { return };
    for role in roles.iter().filter(|role| policy.definitions(role).next().is_none()) {
        eprintln!("fedgate: warning: {} defines no role `{role}`; it grants nothing", config.policy.roles.display());
    }
}

fn new_hash(config: &Config) -> anyhow::Result<String> {
    let password = read_password("New password: ")?;
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
