//! The accounts of one database: every question that can be asked, and the one place that knows which database answers.
//!
//! The one rule: each question has a time limit, the same on both databases. An answer that belongs to another history
//! than an earlier one is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::account::StoredAccount;
use super::answers::{EpochWatch, NeverComes, WatchAnswers};
use super::changes::{AccountChanges, LastAnswer, from_sql, to_sql};
use super::desk::{AccountChange, AccountDeletion, NewAccount};
use super::events::AccountEvent;
use super::instances::InstanceRow;
use super::limits::{READ_TIMEOUT, WRITE_TIMEOUT, within};
use super::postgres::PostgresAccounts;
use super::sqlite::SqliteAccounts;
use super::{AccountsError, account::AccountRow};
use fedgate_base::config::StoreConfig;
use fedgate_base::db::Database;
use fedgate_base::db::actor::ChangeActor;
use fedgate_base::db::schema::{self, MissingObjects};
use fedgate_base::moment::BootMoment;
use fedgate_core::password::guessed_of;

/// The accounts of one database.
#[derive(Clone)]
pub struct AccountStore {
    pub(super) accounts: AccountDatabase,
    /// The same database, for callers that ask it other things.
    database: Database,
    /// The epoch of the watch's last answer. No read that begins later may return a lower one.
    announced: Arc<AtomicU64>,
}

/// The database in use.
#[derive(Clone)]
pub(super) enum AccountDatabase {
    Postgres(PostgresAccounts),
    Sqlite(SqliteAccounts),
}

/// A call to the database in use, as a future.
macro_rules! each {
    ($store:ident, $accounts:ident => $call:expr) => {
        async {
            match &$store.accounts {
                AccountDatabase::Postgres($accounts) => $call.await,
                AccountDatabase::Sqlite($accounts) => $call.await,
            }
        }
    };
}

pub(super) use each;

impl AccountStore {
    /// Opens the configured database; PostgreSQL is not contacted yet.
    ///
    /// # Errors
    /// The settings are unusable, or the embedded store cannot be opened.
    pub async fn open(config: &StoreConfig) -> Result<Self, AccountsError> {
        let (accounts, database) = match config {
            StoreConfig::Postgres(config) => {
                let accounts = PostgresAccounts::open(config)?;
                let database = Database::Postgres(accounts.pool().clone());
                (AccountDatabase::Postgres(accounts), database)
            }
            StoreConfig::Sqlite(config) => {
                let accounts = SqliteAccounts::open(config).await?;
                let database = Database::Sqlite(accounts.file().clone());
                (AccountDatabase::Sqlite(accounts), database)
            }
        };
        Ok(Self { accounts, database, announced: Arc::default() })
    }

    /// The same accounts with an author, whom every change names.
    pub fn acting_as(self, actor: ChangeActor) -> Self {
        // The gateway itself has no author here: it changes accounts only by logins, and each names its account.
        let actor = Arc::new(actor);
        let accounts = match self.accounts {
            AccountDatabase::Postgres(accounts) => AccountDatabase::Postgres(accounts.acting_as(actor)),
            AccountDatabase::Sqlite(accounts) => AccountDatabase::Sqlite(accounts.acting_as(actor)),
        };
        Self { accounts, ..self }
    }

    /// From now on every answer comes from one server, the first that answers. For commands that ask several things.
    ///
    /// # Errors
    /// No primary answers.
    pub async fn keep_to_one_server(&self) -> Result<(), AccountsError> {
        match self.database.route() {
            Some(route) => Ok(route.keep_to_the_first().await?),
            None => Ok(()),
        }
    }

    /// If an answer is not the primary's, or belongs to another history, lets the route look for the primary.
    fn heeded<T>(&self, answer: Result<T, AccountsError>) -> Result<T, AccountsError> {
        use AccountsError::{AnotherServer, Standby, WentBack};
        if let (Err(Standby | AnotherServer | WentBack { .. }), Some(route)) = (&answer, self.database.route()) {
            route.doubt();
        }
        answer
    }

    /// The database of these accounts.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Reads one account; none if there is no such person.
    ///
    /// # Errors
    /// The database did not answer within two seconds, is a standby, or has another history than before.
    pub async fn read(&self, id: &str) -> Result<Option<StoredAccount>, AccountsError> {
        // Loaded before the question: the primary has already answered with this epoch, so it cannot return a lower
        // one.
        let announced = self.announced.load(Ordering::Acquire);
        let asked = BootMoment::now();
        let read = within(READ_TIMEOUT, each!(self, accounts => accounts.read(id, announced))).await;
        let read = read.and_then(|row: AccountRow| match from_sql(row.epoch) {
            // Another history, of which nothing is known: a restore, or a server that a switchover left behind.
            epoch if epoch < announced => Err(AccountsError::WentBack { from: announced, to: epoch }),
            _ => Ok(row),
        });
        Ok(self.heeded(read)?.into_account(id, asked))
    }

    /// Replaces a password hash if it is still `old`. True if it was.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn replace_hash(&self, id: &str, old: &str, new: &str) -> Result<bool, AccountsError> {
        let replaced = within(WRITE_TIMEOUT, each!(self, accounts => accounts.replace_hash(id, old, new))).await;
        Ok(self.heeded(replaced)? == 1)
    }

    /// The changes after `since`. `None` reads only the epoch, and counts as everything.
    ///
    /// # Errors
    /// The database did not answer, or has no epoch.
    pub async fn changes_since(&self, since: Option<u64>) -> Result<AccountChanges, AccountsError> {
        let known = since.map(|epoch| LastAnswer { epoch, triggers: None });
        Ok(within(READ_TIMEOUT, each!(self, accounts => accounts.ask(known.as_ref()))).await?.0)
    }

    /// Passes the changes on to `watch`, at least once in `poll`, until the database gives no answer.
    pub(super) async fn follow(
        &self,
        poll: Duration,
        watch: &dyn EpochWatch,
        notices_proved: &mut bool,
    ) -> Result<NeverComes, AccountsError> {
        let answers = WatchAnswers { announced: &self.announced, watch };
        match &self.accounts {
            AccountDatabase::Postgres(accounts) => accounts.follow(poll, &answers, notices_proved).await,
            AccountDatabase::Sqlite(accounts) => accounts.follow(poll, &answers).await,
        }
    }

    /// The objects that the programs use and the database lacks; none if it is complete.
    ///
    /// # Errors
    /// The database did not answer in time.
    pub async fn missing_objects(&self) -> Result<Option<MissingObjects>, AccountsError> {
        within(READ_TIMEOUT, async { Ok(schema::missing_objects(&self.database).await?) }).await
    }

    /// Checks everything that the watch and logins need: the primary, its triggers, that its notices arrive, and that
    /// this role may read accounts. Returns the epoch.
    ///
    /// # Errors
    /// Any fault that would keep a gateway from serving.
    pub async fn check(&self) -> Result<u64, AccountsError> {
        self.keep_to_one_server().await?;
        each!(self, accounts => accounts.check_watch()).await?;
        // As a login asks. No row has this id.
        self.read("").await?;
        Ok(self.changes_since(None).await?.epoch)
    }

    /// Adds a person with an account. False if the id is taken, also if a known id differs only by case.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn add(&self, account: &NewAccount) -> Result<bool, AccountsError> {
        let added = each!(self, accounts => accounts.add(&account.id, account.document()));
        Ok(within(WRITE_TIMEOUT, added).await? == 1)
    }

    /// Changes one account. False if there is no such person, or the person's document is a list or a scalar.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn change(&self, id: &str, change: &AccountChange) -> Result<bool, AccountsError> {
        let (member, value) = (change.member(), change.value().to_string());
        Ok(within(WRITE_TIMEOUT, each!(self, accounts => accounts.change(id, member, &value))).await? == 1)
    }

    /// The accounts whose ids follow `after`, ordered by id, at most `most`; without `after`, the first ones.
    ///
    /// # Errors
    /// The database did not answer within two seconds.
    pub async fn list(&self, after: Option<&str>, most: u32) -> Result<Vec<StoredAccount>, AccountsError> {
        let asked = BootMoment::now();
        let rows = within(READ_TIMEOUT, each!(self, accounts => accounts.list(after, i64::from(most)))).await?;
        Ok(rows.into_iter().filter_map(|(id, row)| row.into_account(&id, asked)).collect())
    }

    /// Ends the waits of an account on every instance: the log of changes names the account, though nothing of it
    /// changes. The count of unlockings ends those at the page of passwords.
    ///
    /// # Errors
    /// The database did not answer, or its role may not change accounts.
    pub async fn unlock(&self, id: &str) -> Result<(), AccountsError> {
        within(WRITE_TIMEOUT, each!(self, accounts => accounts.unlock(id))).await
    }

    /// The time, in ms, that an account has to wait at the page of passwords, after guesses of its present password.
    ///
    /// # Errors
    /// The database did not answer within two seconds.
    pub async fn page_wait(&self, account: &StoredAccount) -> Result<Option<u64>, AccountsError> {
        let Some(hash) = &account.password_hash else { return Ok(None) };
        let password = guessed_of(hash);
        let left = within(READ_TIMEOUT, each!(self, accounts => accounts.page_wait(&account.id, &password))).await?;
        Ok(left.and_then(|left| u64::try_from(left).ok()))
    }

    /// Deletes a person whose account is inactive, who has neither pages nor documents, and who has no other id.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn delete(&self, id: &str) -> Result<AccountDeletion, AccountsError> {
        within(WRITE_TIMEOUT, self.delete_unbounded(id)).await
    }

    async fn delete_unbounded(&self, id: &str) -> Result<AccountDeletion, AccountsError> {
        if each!(self, accounts => accounts.delete(id)).await? > 0 {
            return Ok(AccountDeletion::Done);
        }
        // The reason is read afterwards, and may have changed meanwhile: it informs the operator and decides nothing.
        match self.read(id).await? {
            None => Ok(AccountDeletion::Missing),
            Some(account) if account.active => Ok(AccountDeletion::Active),
            Some(account) if !account.same.is_empty() => Ok(AccountDeletion::Merged(account.same)),
            Some(_) => {
                let (pages, documents) = each!(self, accounts => accounts.records(id)).await?;
                Ok(AccountDeletion::InUse { pages: pages.unsigned_abs(), documents: documents.unsigned_abs() })
            }
        }
    }

    /// The events of one account or of all, the latest first: those before `before`, or the last ones.
    ///
    /// # Errors
    /// The database did not answer within two seconds.
    pub async fn history(
        &self,
        account: Option<&str>,
        before: Option<i64>,
        most: u32,
    ) -> Result<Vec<AccountEvent>, AccountsError> {
        let (before, most) = (before.unwrap_or(i64::MAX), i64::from(most));
        within(READ_TIMEOUT, each!(self, accounts => accounts.history(account, before, most))).await
    }

    /// Takes the oldest events that are in no record yet, for half a minute, during which no other gateway takes them.
    ///
    /// # Errors
    /// The database did not answer, or its role may not report as a gateway.
    pub async fn take_events(&self, most: u32) -> Result<Vec<AccountEvent>, AccountsError> {
        within(WRITE_TIMEOUT, each!(self, accounts => accounts.take_events(most))).await
    }

    /// Marks events as recorded.
    ///
    /// # Errors
    /// The database did not answer; the events will be recorded again.
    pub async fn events_are_recorded(&self, ids: Vec<i64>) -> Result<(), AccountsError> {
        within(WRITE_TIMEOUT, each!(self, accounts => accounts.events_are_recorded(ids))).await
    }

    /// Writes the report of an instance that has applied the changes up to `epoch`.
    ///
    /// # Errors
    /// The database did not answer within two seconds, or takes no writes and so is not the primary.
    pub async fn report(&self, id: &str, epoch: u64, report: &str) -> Result<(), AccountsError> {
        self.heeded(each!(self, accounts => accounts.report(id, to_sql(epoch), report)).await)
    }

    /// Checks whether an instance could report itself, without writing anything.
    ///
    /// # Errors
    /// The database did not answer, takes no writes, or has granted too few rights.
    pub async fn may_report(&self) -> Result<(), AccountsError> {
        if !each!(self, accounts => accounts.has_report_grants()).await? {
            return Err(AccountsError::NoReports);
        }
        // The id of no instance: this tries the statement and deletes nothing.
        self.withdraw("").await
    }

    /// Removes an instance from the list, because it stops.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn withdraw(&self, id: &str) -> Result<(), AccountsError> {
        each!(self, accounts => accounts.withdraw(id)).await
    }

    /// Every instance that reported within the last hour, ordered by id.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn instances(&self) -> Result<Vec<InstanceRow>, AccountsError> {
        within(READ_TIMEOUT, each!(self, accounts => accounts.instances())).await
    }
}
