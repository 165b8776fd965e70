//! `fedgate account`: manages accounts of either store, from the command line.

mod history;
mod quote;
mod roles;
mod show;

use std::io::{BufRead, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow, bail};
use clap::Subcommand;
use fedgate::accounts::{AccountChange, AccountDeletion, AccountStore, NewAccount, StoredAccount};
use fedgate::instances::{self, ChangeSpread, InstanceReport};
use fedgate_base::config::Config;
use fedgate_base::db::hashes::HashRule;
use fedgate_core::password::{self, HashKind, MIN_PASSWORD_CHARACTERS};
use fedgate_core::path::new_person_id;
use fedgate_core::policy::hint;
use fedgate_core::secret::Secret;
use serde_json::json;

use crate::print::{self, CommandReport};
use crate::{load, open_store, store_fault};
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
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show the changes of an account, or of all, and who made them; the latest first.
    History {
        /// The id of the person, even of a deleted one; all persons without it.
        #[arg(allow_hyphen_values = true)]
        id: Option<String>,
        /// Begin before this event: the last one of the page before.
        #[arg(long, value_name = "EVENT")]
        before: Option<i64>,
        /// Most lines of a page.
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
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
        Ok(config) => work(&config, command, &mut report).await,
        Err(failure) => Err(failure),
    };
    report.end(outcome)
}

async fn work(config: &Config, command: AccountCommand, report: &mut CommandReport) -> Result<(), CommandFailure> {
    let accounts = open_store(config).await?;
    match command {
        AccountCommand::Add { id, roles, force, name, lastname } => {
            let id = new_person_id(&id)
                .map_err(|error| CommandFailure::Usage(anyhow!("`{}`: {error}", fedgate_core::escape::shown(&id))))?;
            let roles = roles::checked(config, roles, force, report)?;
            let password_hash = new_hash(hash_kind(config, &accounts).await?)?;
            let new = NewAccount { id: id.clone(), roles, password_hash, name, lastname };
            if !accounts.add(&new).await.map_err(|error| store_fault(config, error))? {
                // Another spelling exists, which differs by case, or which the column takes for the same.
                let words = match accounts.read(&id).await {
                    Ok(None) => {
                        "exists in another spelling: in other case (see `fedgate account list`), or as `fedgate \
                         check` reports"
                    }
                    Ok(Some(_)) | Err(_) => "exists; change it with `fedgate account roles` or `passwd`",
                };
                return Err(anyhow!("`{id}` {words}").into());
            }
            report.note("roles", new.roles);
            done(&accounts, &id, "added", "added", report).await
        }
        AccountCommand::Show { id } => {
            let account = stored(config, &accounts, &id).await?;
            let instances = instances::listed(&accounts).await.map_err(|error| store_fault(config, error))?;
            let page_wait = accounts.page_wait(&account).await.map_err(|error| store_fault(config, error))?;
            show::show(&account, hash_kind(config, &accounts).await?, (&instances, page_wait), report)
        }
        AccountCommand::List { after, limit } => {
            // One more than shown, to know whether there are more.
            let listed =
                accounts.list(after.as_deref(), limit + 1).await.map_err(|error| store_fault(config, error))?;
            show::list(listed, limit, report)
        }
        AccountCommand::History { id, before, limit } => {
            let events = accounts.history(id.as_deref(), before, limit + 1).await;
            history::show(id.as_deref(), events.map_err(|error| store_fault(config, error))?, limit, report)
        }
        AccountCommand::Passwd { id, wait } => {
            stored(config, &accounts, &id).await?;
            // After the account was found: a typing error in its id should not cost the operator a password.
            let hash = AccountChange::PasswordHash(new_hash(hash_kind(config, &accounts).await?)?);
            change(config, &accounts, &id, &hash, "has a new password", &wait, report).await
        }
        AccountCommand::Roles { id, roles, force, none, wait } => {
            let roles = roles::checked(config, roles, force, report)?;
            // An unset variable of a shell script must not remove all roles of an account.
            if roles.is_empty() && !none {
                return Err(CommandFailure::Usage(anyhow!("no role is named; `--none` takes all roles away")));
            }
            let words = format!("has the roles {}", roles::named(&roles));
            change(config, &accounts, &id, &AccountChange::Roles(roles), &words, &wait, report).await
        }
        AccountCommand::Enable { id, wait } => {
            change(config, &accounts, &id, &AccountChange::Active(true), "can log in", &wait, report).await
        }
        AccountCommand::Disable { id, wait } => {
            let words = "can no longer log in";
            change(config, &accounts, &id, &AccountChange::Active(false), words, &wait, report).await
        }
        AccountCommand::Unlock { id, wait } => {
            stored(config, &accounts, &id).await?;
            accounts.unlock(&id).await.map_err(|error| store_fault(config, error))?;
            committed(config, &accounts, &id, ("unlocked", "no longer has to wait"), &wait, report).await
        }
        AccountCommand::Delete { id, wait } => {
            match accounts.delete(&id).await.map_err(|error| store_fault(config, error))? {
                AccountDeletion::Done => {}
                AccountDeletion::Missing => return Err(missing(&accounts, &id).await.into()),
                AccountDeletion::Active => {
                    return Err(anyhow!("`{id}` is active; disable it first with `fedgate account disable`").into());
                }
                AccountDeletion::InUse { pages, documents } => {
                    let count = |number: u64, one, several| {
                        print::count(usize::try_from(number).unwrap_or(usize::MAX), one, several)
                    };
                    let records =
                        [count(pages, "page", "pages"), count(documents, "document", "documents")].join(" and ");
                    let words = "which would have no owner; a disabled account cannot log in either";
                    return Err(anyhow!("`{id}` has {records}, {words}").into());
                }
            }
            committed(config, &accounts, &id, ("deleted", "is deleted"), &wait, report).await
        }
    }
}

async fn change(
    config: &Config,
    accounts: &AccountStore,
    id: &str,
    change: &AccountChange,
    words: &str,
    wait: &SpreadWait,
    report: &mut CommandReport,
) -> Result<(), CommandFailure> {
    if !accounts.change(id, change).await.map_err(|error| store_fault(config, error))? {
        return Err(missing(accounts, id).await.into());
    }
    let word = match change {
        AccountChange::PasswordHash(_) => "password",
        AccountChange::Active(true) => "enabled",
        AccountChange::Active(false) => "disabled",
        AccountChange::Roles(roles) => {
            report.note("roles", roles.clone());
            "roles"
        }
    };
    committed(config, accounts, id, (word, words), wait, report).await
}

/// Reports a committed change, in a word for programs and in a sentence for people; then waits for the gateways if
/// asked to.
async fn committed(
    config: &Config,
    accounts: &AccountStore,
    id: &str,
    (word, words): (&str, &str),
    wait: &SpreadWait,
    report: &mut CommandReport,
) -> Result<(), CommandFailure> {
    // Two clocks: waiting is measured by one that never jumps, and leases are reported in the time of day.
    let (committed, at) = (Instant::now(), SystemTime::now());
    done(accounts, id, word, words, report).await?;
    if !wait.wait {
        return Ok(());
    }
    // On stderr: programs read stdout.
    let waits_for = |silent: &InstanceReport| {
        let InstanceReport { id, place, bound_ms, .. } = silent;
        let ends = lease_end(at, *bound_ms);
        print::warn(&format!(
            "{id} ({place}) does not answer; waiting until {ends}, when its lease ends at the latest"
        ));
    };
    let spread = instances::wait_until_applied(accounts, committed, waits_for)
        .await
        .map_err(|error| store_fault(config, error))?;
    tell_spread(&spread, at, report)
}

/// When every lease from before the change has ended.
fn lease_end(committed: SystemTime, bound_ms: u64) -> String {
    let end = chrono::DateTime::<chrono::Utc>::from(committed + Duration::from_millis(bound_ms));
    end.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// Reports a change, and the account epoch since then.
async fn done(
    accounts: &AccountStore,
    id: &str,
    word: &str,
    words: &str,
    report: &mut CommandReport,
) -> Result<(), CommandFailure> {
    report.note("id", id);
    report.note("done", word);
    if report.is_json() {
        // The change is committed, even if the epoch cannot be read.
        report.note("epoch", accounts.changes_since(None).await.ok().map(|changes| changes.epoch));
    }
    Ok(report.line(&format!("{id} {words}"))?)
}

fn tell_spread(spread: &ChangeSpread, committed: SystemTime, report: &mut CommandReport) -> Result<(), CommandFailure> {
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
    let mut told = Vec::new();
    for InstanceReport { id, place, bound_ms, .. } in silent {
        // A gateway that admits nobody for another reason, such as a stop, had no lease until then.
        let ended = lease_end(committed, (*bound_ms).min(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)));
        told.push(json!({ "id": id, "place": place, "lease_ended_at": ended }));
        report.warn(format!("{id} ({place}) did not answer; its lease ended at {ended}, and with it the old right"));
    }
    report.note("silent", told);
    Ok(())
}

/// Reads an account that must exist.
async fn stored(config: &Config, accounts: &AccountStore, id: &str) -> Result<StoredAccount, CommandFailure> {
    match accounts.read(id).await.map_err(|error| store_fault(config, error))? {
        Some(account) => Ok(account),
        None => Err(missing(accounts, id).await.into()),
    }
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

/// The kind of new hashes in a store.
async fn hash_kind(config: &Config, accounts: &AccountStore) -> Result<HashKind, CommandFailure> {
    let rule = HashRule::new(accounts.database().clone(), config.authentication.hashes);
    rule.kind().await.map_err(|error| store_fault(config, error))
}

fn new_hash(kind: HashKind) -> anyhow::Result<String> {
    let password = read_password("New password: ")?;
    check_characters(&password)?;
    check_length(&password, kind)?;
    if std::io::stdin().is_terminal() && read_password("Again: ")? != password {
        bail!("the passwords do not match");
    }
    Ok(password::make(password.expose(), kind)?)
}

/// Refuses a password that is too short to be a secret.
pub(crate) fn check_characters(password: &Secret) -> anyhow::Result<()> {
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
