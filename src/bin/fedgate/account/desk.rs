//! The work of `fedgate account` on the opened store: one method for each command that takes more than a call.
//!
//! The one rule: a committed change is reported, even if a later step fails.

use std::time::{Instant, SystemTime};

use anyhow::anyhow;
use fedgate::accounts::{AccountChange, AccountDeletion, AccountStore, AccountsError, NewAccount, StoredAccount};
use fedgate::instances;
use fedgate_base::config::Config;
use fedgate_base::db::hashes::HashRule;
use fedgate_core::escape;
use fedgate_core::password::HashKind;
use fedgate_core::path::new_person_id;

use super::{AccountCommand, SpreadWait, history, links, missing, new_hash, roles, show, spread};
use crate::print::{self, CommandReport};
use crate::{open_store, store_fault};
use fedgate_base::command::CommandFailure;

/// Runs one command.
pub(super) async fn work(
    config: &Config,
    command: AccountCommand,
    report: &mut CommandReport,
) -> Result<(), CommandFailure> {
    let mut desk = AccountDesk { config, accounts: open_store(config).await?, report };
    match command {
        AccountCommand::Add { id, roles, force, name, lastname } => {
            let id = new_person_id(&id)
                .map_err(|error| CommandFailure::Usage(anyhow!("`{}`: {error}", fedgate_core::escape::shown(&id))))?;
            let roles = roles::checked(config, roles, force, desk.report)?;
            let password_hash = new_hash(desk.hash_kind().await?)?;
            desk.add(&NewAccount { id, roles, password_hash, name, lastname }).await
        }
        AccountCommand::Show { id } => desk.show(&id).await,
        AccountCommand::List { after, limit } => {
            // One more than shown, to know whether there are more.
            let listed = desk.accounts.list(after.as_deref(), limit + 1).await;
            show::list(desk.of_store(listed)?, limit, desk.report)
        }
        AccountCommand::History { id, before, limit } => {
            let events = desk.accounts.history(id.as_deref(), before, limit + 1).await;
            history::show(id.as_deref(), desk.of_store(events)?, limit, desk.report)
        }
        AccountCommand::Passwd { id, wait } => {
            desk.stored(&id).await?;
            // After the account was found: a typing error in its id should not cost the operator a password.
            let hash = AccountChange::PasswordHash(new_hash(desk.hash_kind().await?)?);
            desk.change(&id, &hash, "has a new password", &wait).await
        }
        AccountCommand::Roles { id, roles, force, none, wait } => {
            let roles = roles::checked(config, roles, force, desk.report)?;
            // An unset variable of a shell script must not remove all roles of an account.
            if roles.is_empty() && !none {
                return Err(CommandFailure::Usage(anyhow!("no role is named; `--none` takes all roles away")));
            }
            let words = format!("has the roles {}", roles::named(&roles));
            desk.change(&id, &AccountChange::Roles(roles), &words, &wait).await
        }
        AccountCommand::Enable { id, wait } => {
            desk.change(&id, &AccountChange::Active(true), "can log in", &wait).await
        }
        AccountCommand::Disable { id, wait } => {
            desk.change(&id, &AccountChange::Active(false), "can no longer log in", &wait).await
        }
        AccountCommand::Unlock { id, wait } => {
            desk.stored(&id).await?;
            desk.of_store(desk.accounts.unlock(&id).await)?;
            desk.committed(&id, ("unlocked", "no longer has to wait"), &wait).await
        }
        AccountCommand::Link { id, system, linked, wait } => desk.link(&id, &system, &linked, &wait).await,
        AccountCommand::Unlink { id, system, linked, wait } => desk.unlink(&id, &system, &linked, &wait).await,
        AccountCommand::Links { id } => desk.links(&id).await,
        AccountCommand::Relate { new, wait } => desk.relate(new, &wait).await,
        AccountCommand::Unrelate { id, subject, kind, wait } => {
            desk.unrelate(&id, &subject, kind.as_deref(), &wait).await
        }
        AccountCommand::Delete { id, wait } => desk.delete(&id, &wait).await,
    }
}

/// The other ids of a person, in words.
fn other_ids(same: &[String]) -> String {
    let ids: Vec<_> = same.iter().map(|id| format!("`{}`", escape::name(id))).collect();
    ids.join(", ")
}

/// The opened store, with the configuration and the report of one command.
pub(super) struct AccountDesk<'a> {
    config: &'a Config,
    pub(super) accounts: AccountStore,
    pub(super) report: &'a mut CommandReport,
}

impl AccountDesk<'_> {
    /// Adds to a failure of the store the setting that leads to that store.
    pub(super) fn of_store<T>(&self, answer: Result<T, AccountsError>) -> Result<T, CommandFailure> {
        answer.map_err(|error| store_fault(self.config, error))
    }

    /// The kind of new hashes in the store.
    async fn hash_kind(&self) -> Result<HashKind, CommandFailure> {
        let rule = HashRule::new(self.accounts.database().clone(), self.config.authentication.hashes);
        rule.kind().await.map_err(|error| store_fault(self.config, error))
    }

    /// Reads an account that must exist.
    pub(super) async fn stored(&self, id: &str) -> Result<StoredAccount, CommandFailure> {
        match self.of_store(self.accounts.read(id).await)? {
            Some(account) => Ok(account),
            None => Err(missing(&self.accounts, id).await.into()),
        }
    }

    async fn add(&mut self, new: &NewAccount) -> Result<(), CommandFailure> {
        let id = new.id.as_str();
        if !self.of_store(self.accounts.add(new).await)? {
            // Another spelling exists, which differs by case, or which the column takes for the same.
            let words = match self.accounts.read(id).await {
                Ok(None) => {
                    "exists in another spelling: in other case (see `fedgate account list`), or as `fedgate check` \
                     reports"
                }
                Ok(Some(_)) | Err(_) => "exists; change it with `fedgate account roles` or `passwd`",
            };
            return Err(anyhow!("`{id}` {words}").into());
        }
        self.report.note("roles", new.roles.clone());
        self.done(id, "added", "added").await
    }

    async fn show(&mut self, id: &str) -> Result<(), CommandFailure> {
        let account = self.stored(id).await?;
        let instances = self.of_store(instances::settled(&self.accounts, id).await)?;
        let page_wait = self.of_store(self.accounts.page_wait(&account).await)?;
        let links = self.of_store(self.accounts.links(id).await)?;
        show::show(&account, self.hash_kind().await?, (&instances, page_wait), self.report)?;
        links::tell(id, &links, self.report)?;
        Ok(())
    }

    async fn delete(&mut self, id: &str, wait: &SpreadWait) -> Result<(), CommandFailure> {
        match self.of_store(self.accounts.delete(id).await)? {
            AccountDeletion::Done => self.committed(id, ("deleted", "is deleted"), wait).await,
            AccountDeletion::Missing => Err(missing(&self.accounts, id).await.into()),
            AccountDeletion::Active => {
                Err(anyhow!("`{id}` is active; disable it first with `fedgate account disable`").into())
            }
            AccountDeletion::Merged(same) => {
                let words = "end the merge first: `fedhis index merges";
                Err(anyhow!("`{id}` is one person with {}; {words} {id}` shows it", other_ids(&same)).into())
            }
            AccountDeletion::InUse { pages, documents } => {
                let count = |number: u64, one, several| {
                    print::count(usize::try_from(number).unwrap_or(usize::MAX), one, several)
                };
                let records = [count(pages, "page", "pages"), count(documents, "document", "documents")].join(" and ");
                let words = "which would have no owner; a disabled account cannot log in either";
                Err(anyhow!("`{id}` has {records}, {words}").into())
            }
        }
    }

    async fn change(
        &mut self,
        id: &str,
        change: &AccountChange,
        words: &str,
        wait: &SpreadWait,
    ) -> Result<(), CommandFailure> {
        if !self.of_store(self.accounts.change(id, change).await)? {
            return Err(missing(&self.accounts, id).await.into());
        }
        let word = match change {
            AccountChange::PasswordHash(_) => "password",
            AccountChange::Active(true) => "enabled",
            AccountChange::Active(false) => "disabled",
            AccountChange::Roles(roles) => {
                self.report.note("roles", roles.clone());
                "roles"
            }
        };
        if matches!(change, AccountChange::Active(false) | AccountChange::Roles(_))
            && let Ok(Some(account)) = self.accounts.read(id).await
            && !account.same.is_empty()
        {
            // Each of them reaches the records of all.
            let same = other_ids(&account.same);
            self.report
                .warn(format!("`{id}` is one person with {same}, whose account keeps its own roles and password"));
        }
        self.committed(id, (word, words), wait).await
    }

    /// Reports a committed change, in a word for programs and in a sentence for people; then waits for the gateways
    /// if asked to.
    pub(super) async fn committed(
        &mut self,
        id: &str,
        (word, words): (&str, &str),
        wait: &SpreadWait,
    ) -> Result<(), CommandFailure> {
        // Two clocks: waiting is measured by one that never jumps, and leases are reported in the time of day.
        let (committed, at) = (Instant::now(), SystemTime::now());
        self.done(id, word, words).await?;
        if !wait.wait {
            return Ok(());
        }
        let waits_for = |silent: &_| spread::warn_of_silent(silent, at);
        let spread = instances::wait_until_applied(&self.accounts, committed, waits_for).await;
        spread::tell(&self.of_store(spread)?, at, self.report)
    }

    /// Reports a change, and the account epoch since then.
    pub(super) async fn done(&mut self, id: &str, word: &str, words: &str) -> Result<(), CommandFailure> {
        self.report.note("id", id);
        self.report.note("done", word);
        if self.report.is_json() {
            // The change is committed, even if the epoch cannot be read.
            self.report.note("epoch", self.accounts.changes_since(None).await.ok().map(|changes| changes.epoch));
        }
        Ok(self.report.line(&format!("{id} {words}"))?)
    }
}
