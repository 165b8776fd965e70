//! `fedgate account`: manages accounts of either store, from the command line.

mod desk;
mod history;
mod links;
mod roles;
mod show;
mod spread;

use std::io::{BufRead, IsTerminal};
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use clap::Subcommand;
use fedgate::accounts::{AccountStore, StoredAccount};
use fedgate_core::password::{self, HashKind, MIN_PASSWORD_CHARACTERS};
use fedgate_core::policy::hint;
use fedgate_core::secret::Secret;

use crate::load;
use crate::print::CommandReport;
use fedgate_base::command::CommandFailure;

#[derive(Subcommand)]
pub(crate) enum AccountCommand {
    /// Add a person with an account; the password is read from the terminal or standard input.
    Add {
        /// The id of the person, such as ESPGNU777ORG; stored in upper case.
        id: String,
        /// Roles, separated by commas.
        #[arg(long, value_delimiter = ',', default_value = "end_user")]
        roles: Vec<String>,
        /// Store even roles that the policy does not define.
        #[arg(long)]
        force: bool,
        /// Given name.
        #[arg(long)]
        name: Option<String>,
        /// Family name.
        #[arg(long)]
        lastname: Option<String>,
    },
    /// Show an account: whether it can log in, its roles, and where its passwords have to wait.
    Show {
        /// The id of the person.
        id: String,
    },
    /// List accounts in the order of their ids, a page at a time.
    List {
        /// Begin after this id: the last one of the page before.
        #[arg(long, value_name = "ID", allow_hyphen_values = true)]
        after: Option<String>,
        /// Most lines of a page.
        #[arg(long, value_name = "N", default_value_t = 100, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show the changes of an account, or of all, and who made them; the latest first.
    History {
        /// The id of the person, even of a deleted one; all persons without it.
        #[arg(allow_hyphen_values = true)]
        id: Option<String>,
        /// Begin before this event: the last one of the page before.
        #[arg(long, value_name = "EVENT", allow_negative_numbers = true)]
        before: Option<i64>,
        /// Most lines of a page.
        #[arg(long, value_name = "N", default_value_t = 100, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Set a password, read from the terminal or standard input. It ends waits after wrong passwords.
    Passwd {
        /// The id of the person.
        id: String,
        #[command(flatten)]
        wait: SpreadWait,
    },
    /// Replace the roles of an account.
    Roles {
        #[command(flatten)]
        wait: SpreadWait,
        /// The id of the person.
        id: String,
        /// Roles, separated by commas.
        #[arg(value_delimiter = ',', required_unless_present = "none")]
        roles: Vec<String>,
        /// Store even roles that the policy does not define.
        #[arg(long)]
        force: bool,
        /// Remove all roles.
        #[arg(long, conflicts_with = "roles")]
        none: bool,
    },
    /// End the waits after wrong passwords, on every gateway and at the page of passwords: the next password is looked
    /// at at once. For ten minutes the account does not wait for what its client address has failed at other accounts
    /// either.
    Unlock {
        /// The id of the person.
        id: String,
        #[command(flatten)]
        wait: SpreadWait,
    },
    /// Let an account log in again.
    Enable {
        /// The id of the person.
        id: String,
        #[command(flatten)]
        wait: SpreadWait,
    },
    /// Keep an account from logging in, from now on and everywhere.
    Disable {
        /// The id of the person.
        id: String,
        #[command(flatten)]
        wait: SpreadWait,
    },
    /// Say which id an account has in another system: `link ANA fhir Patient/123`. Routes with this system on their
    /// subject count it as the account's own.
    Link {
        /// The id of the person.
        id: String,
        /// The name of the system: lower-case letters, digits and `-`.
        system: String,
        /// The id there, exactly as it is written there.
        #[arg(value_name = "ID_THERE", allow_hyphen_values = true)]
        linked: String,
        #[command(flatten)]
        wait: SpreadWait,
    },
    /// Take such an id away, from now on and everywhere.
    Unlink {
        /// The id of the person.
        id: String,
        /// The name of the system.
        system: String,
        /// The id there.
        #[arg(value_name = "ID_THERE", allow_hyphen_values = true)]
        linked: String,
        #[command(flatten)]
        wait: SpreadWait,
    },
    /// Show the ids of an account in other systems, and its relations in both directions.
    Links {
        /// The id of the person.
        id: String,
    },
    /// Let an account reach the records of a person, as far as its roles say `related`: a guardian, a treating team.
    /// Another one of the same kind replaces the dates.
    Relate {
        #[command(flatten)]
        new: links::NewRelation,
        #[command(flatten)]
        wait: SpreadWait,
    },
    /// End such relations, from now on and everywhere.
    Unrelate {
        /// The account that reached the records.
        id: String,
        /// The person whose records they are.
        subject: String,
        /// The kind that ends; every kind without it.
        #[arg(long)]
        kind: Option<String>,
        #[command(flatten)]
        wait: SpreadWait,
    },
    /// Delete a person, with all stored data; the account must be disabled, and have no pages and documents.
    Delete {
        /// The id of the person.
        id: String,
        #[command(flatten)]
        wait: SpreadWait,
    },
}

#[derive(clap::Args)]
pub(crate) struct SpreadWait {
    /// Return only when every running gateway has applied the change; print their number and the time in ms.
    #[arg(long)]
    wait: bool,
}

/// Runs a command and reports the result, in lines or as one JSON object.
pub(crate) async fn run(config: &Path, command: AccountCommand, as_json: bool) -> Result<(), CommandFailure> {
    let mut report = CommandReport::new(as_json);
    let outcome = match load(config, "fedgate account") {
        Ok(config) => desk::work(&config, command, &mut report).await,
        Err(failure) => Err(failure),
    };
    report.end(outcome)
}

/// The error for a missing person, with an id that differs only by case if there is one.
pub(crate) async fn missing(accounts: &AccountStore, id: &str) -> anyhow::Error {
    if matches!(accounts.read(id).await, Ok(Some(_))) {
        return anyhow!(
            "the document of `{id}` is a list or a scalar, which has no account; docs/API.md, \"Rows of before\", \
             says how to repair it"
        );
    }
    for other in [id.to_uppercase(), id.to_lowercase()] {
        if matches!(accounts.read(&other).await, Ok(Some(_))) {
            return anyhow!("there is no person `{id}`{}", hint(id, [other.as_str()]));
        }
    }
    anyhow!("there is no person `{id}` (ids are compared exactly, capitals count)")
}

/// Whether the account has a password that can log in.
pub(crate) fn has_usable_password(account: &StoredAccount) -> bool {
    account.password_hash.as_deref().is_some_and(password::is_acceptable_hash)
}

/// Reads a new password, and hashes it.
fn new_hash(kind: HashKind) -> anyhow::Result<String> {
    let password = read_password("New password: ")?;
    check_characters(&password)?;
    check_length(&password, kind)?;
    if std::io::stdin().is_terminal() && read_password("Again: ")? != password {
        bail!("the passwords do not match");
    }
    Ok(password::make(password.expose(), kind)?)
}

/// Refuses a password that is too short to be a secret, or blanks alone.
pub(crate) fn check_characters(password: &Secret) -> anyhow::Result<()> {
    if password::is_blank(password.expose()) {
        bail!("the password is blanks alone");
    }
    if String::from_utf8_lossy(password.expose()).chars().count() < MIN_PASSWORD_CHARACTERS {
        bail!("the password has less than {MIN_PASSWORD_CHARACTERS} characters");
    }
    Ok(())
}

/// Refuses a password of which a hash would cover only a part, and names the remedy.
pub(crate) fn check_length(password: &Secret, kind: HashKind) -> anyhow::Result<()> {
    let (bytes, longest) = (password.expose().len(), kind.longest());
    match kind {
        _ if bytes <= longest => Ok(()),
        HashKind::Argon2id(_) => bail!("the password has {bytes} bytes; {longest} are kept at most"),
        HashKind::Bcrypt => bail!(
            "the password has {bytes} bytes (letters with accents and of other alphabets take two or more), and a \
             Thalamus on the same database reads {longest}: take a shorter one or, once no Thalamus uses it, set \
             `authentication.upgrade_hashes = true`"
        ),
    }
}

/// Reads a password from the terminal without echo, or takes the first line of standard input.
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
    if !password::can_sign_in(line.as_bytes()) {
        bail!("the password has a line break or NUL, which no sign-in accepts");
    }
    Ok(Secret::new(line.into_bytes()))
}
