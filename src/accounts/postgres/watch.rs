//! The watch's session with the primary, which receives its notices, and what changed as PostgreSQL tells it.
//!
//! The one rule: LISTEN comes before the first question, and the moment of a question is taken before it is sent. See
//! [`mod@super::super::watch`].

use std::future::poll_fn;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, Row};

use super::PostgresAccounts;
use crate::accounts::AccountsError;
use crate::accounts::answers::{NeverComes, WatchAnswers};
use crate::accounts::changes::{AccountChanges, ChangeRow, LastAnswer, MOST_ROWS, changes};
use crate::accounts::limits::{READ_TIMEOUT, within};
use fedgate_base::db::DbError;
use fedgate_base::db::route::{HostAddress, ReachedServer, ServerIdentity};
use fedgate_base::moment::BootMoment;

/// The longest time for a notice from one session to another.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(2);

impl PostgresAccounts {
    /// The changes since a known answer, and the new answer.
    pub(in crate::accounts) async fn ask(
        &self,
        known: Option<&LastAnswer>,
    ) -> Result<(AccountChanges, LastAnswer), AccountsError> {
        let after = LastAnswer::after(known);
        let rows = self.pool.get().await?.query(CHANGES, &[&after, &MOST_ROWS]).await?;
        changes(known, change_rows(&rows)?)
    }

    /// Opens a session with the primary, and asks it again and again what changed, at least once in `poll`.
    /// `notices_proved` is whether notices are known to arrive.
    pub(in crate::accounts) async fn follow(
        &self,
        poll: Duration,
        answers: &WatchAnswers<'_>,
        notices_proved: &mut bool,
    ) -> Result<NeverComes, AccountsError> {
        // At least a second, so that a small bound does not turn a busy server into an outage.
        let limit = poll.max(Duration::from_secs(1));
        let mut session = WatchSession::open(self, limit).await?;
        let route = self.pool.route();
        // INVARIANT: from here on, reads and reports use the server that confirms. Earlier reads belong to a generation
        // that the first confirmation ends.
        route.follow(&session.identity);
        // Once after the start; later, lost notices do no harm.
        if !*notices_proved {
            session.prove_notices(self).await?;
            *notices_proved = true;
        }
        let (identity, at) = (session.identity.clone(), session.at);
        let ended = tokio::select! {
            ended = session.ask_on(poll, limit, answers) => ended,
            () = route.leads_elsewhere(&identity) => Err(AccountsError::LedElsewhere),
            never = self.pool.give_idle_back() => match never {},
        };
        if let Err(AccountsError::Database(error)) = &ended
            && !error.is_answer()
        {
            route.was_silent(at);
        }
        ended
    }

    /// Checks that a session of the watch can be opened, and that its notices arrive.
    pub(in crate::accounts) async fn check_watch(&self) -> Result<(), AccountsError> {
        WatchSession::open(self, READ_TIMEOUT).await?.prove_notices(self).await
    }
}

/// A session with the primary that receives its notices.
struct WatchSession {
    client: Client,
    notices: mpsc::Receiver<()>,
    identity: ServerIdentity,
    at: HostAddress,
    _driver: AbortOnDrop,
}

impl WatchSession {
    async fn open(accounts: &PostgresAccounts, limit: Duration) -> Result<Self, AccountsError> {
        let reached = accounts.pool.route().reach().await?;
        let at = reached.at();
        let ReachedServer { client, mut connection, identity, .. } = reached;
        let (notice, notices) = mpsc::channel(1);
        // A separate task drives the connection. It ends with the connection or with this session.
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(_) = message {
                    // A full channel already holds a notice.
                    let _ = notice.try_send(());
                }
            }
        });
        let session = Self { client, notices, identity, at, _driver: AbortOnDrop(driver.abort_handle()) };
        // LISTEN comes before the epoch is read, so that every later commit sends a notice to this session.
        query_within(limit, session.client.batch_execute("LISTEN fedgate_accounts")).await?;
        Ok(session)
    }

    /// Asks again and again what changed; at once when a notice comes.
    async fn ask_on(
        &mut self,
        poll: Duration,
        limit: Duration,
        answers: &WatchAnswers<'_>,
    ) -> Result<NeverComes, AccountsError> {
        let mut known = None;
        loop {
            // Before the question: a slow answer must not lengthen the lease.
            let asked = BootMoment::now();
            let after = LastAnswer::after(known.as_ref());
            let rows = query_within(limit, self.client.query(CHANGES, &[&after, &MOST_ROWS])).await?;
            let (changes, now) = changes(known.as_ref(), change_rows(&rows)?)?;
            answers.confirmed(asked, &changes);
            known = Some(now);
            if let Ok(None) = tokio::time::timeout(poll, self.notices.recv()).await {
                return Err(session_has_ended());
            }
        }
    }

    /// Sends a notice on another session and waits for it on this one. Behind a transaction-pooling proxy it never
    /// arrives.
    async fn prove_notices(&mut self, accounts: &PostgresAccounts) -> Result<(), AccountsError> {
        let session = accounts.reports.get().await?;
        let notified = session.execute("SELECT pg_notify('fedgate_accounts', '')", &[]);
        within(NOTICE_TIMEOUT, async { Ok(notified.await?) }).await?;
        match tokio::time::timeout(NOTICE_TIMEOUT, self.notices.recv()).await {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err(session_has_ended()),
            Err(_) => Err(AccountsError::NoNotices),
        }
    }
}

fn session_has_ended() -> AccountsError {
    DbError::Unavailable("the session for notices has ended".into()).into()
}

async fn query_within<T>(
    limit: Duration,
    query: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, DbError> {
    match tokio::time::timeout(limit, query).await {
        Ok(answer) => answer.map_err(DbError::from),
        Err(elapsed) => Err(DbError::Unavailable(elapsed.into())),
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The changes after an epoch from the rows of [`CHANGES`], which must be the primary's.
fn change_rows(rows: &[Row]) -> Result<Vec<ChangeRow>, AccountsError> {
    if rows.iter().any(|row| row.get::<_, bool>(5)) {
        return Err(AccountsError::Standby);
    }
    let row = |row: &Row| ChangeRow {
        now: row.get(0),
        change: row.get(1),
        account: row.get(2),
        fire: row.get(3),
        triggers: row.get(4),
    };
    Ok(rows.iter().map(row).collect())
}

/// The changes after `$1`, in at most `$2` rows.
const CHANGES: &str = "
    SELECT e.epoch, c.epoch, c.account, t.fire, t.version,
           pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean
    FROM fedgate_epoch e
    CROSS JOIN fedgate_triggers('people'::regclass) t
    LEFT JOIN fedgate_account_changes c ON c.epoch > $1
    LIMIT $2";
