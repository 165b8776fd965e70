//! The watch over the account epoch: notices are a hint, polls are the truth.
//!
//! The one rule: [`EpochWatch::confirmed`] is called only with an answer of the primary, and with the moment *before*
//! the question, so that a lease counted from there is never longer than promised. After any gap (a new session, an
//! epoch that went back), everything may have changed. NOTIFY is fast and lossy, so it only hastens the next poll.

use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, Row};

use super::{
    AccountChanges, AccountStore, AccountsError, ChangeRow, ChangedAccounts, LastAnswer, MOST_ROWS, READ_TIMEOUT,
    changes, within,
};
use fedgate_base::db::route::{HostAddress, ReachedServer, ServerIdentity, ServerRoute};
use fedgate_base::db::{Database, DbError};
use fedgate_base::moment::BootMoment;

/// The interval between questions to the embedded store, which sends no notices.
const SQLITE_POLL: Duration = Duration::from_millis(25);
/// The longest time for a notice from one session to another.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before a lost session is opened again, at first and at most.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// The receiver of the watch's answers.
pub trait EpochWatch: Send + Sync {
    /// The primary was asked at `asked` and answered `changes`.
    fn confirmed(&self, asked: BootMoment, changes: &AccountChanges);
    /// The accounts cannot be confirmed now; called once for each outage and reason.
    fn lost(&self, error: &AccountsError);
}

/// Reports every change of the epoch to `watch`, and at least four times within `bound` that there was none.
///
/// Runs until it is dropped.
pub async fn watch(accounts: AccountStore, bound: Duration, watch: &dyn EpochWatch) {
    let mut backoff = RECONNECT.0;
    let mut notices_proved = false;
    loop {
        let began = Instant::now();
        let ended = match accounts.database.route() {
            Some(route) => follow_postgres(&accounts, route, bound / 4, watch, &mut notices_proved).await,
            None => follow_sqlite(&accounts, SQLITE_POLL.min(bound / 4), watch).await,
        };
        let Err(error) = ended;
        watch.lost(&error);
        if began.elapsed() > RECONNECT.1 {
            backoff = RECONNECT.0;
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(RECONNECT.1);
    }
}

/// A value that never exists: the watch ends only by an error.
enum NeverComes {}

async fn follow_sqlite(
    accounts: &AccountStore,
    poll: Duration,
    watch: &dyn EpochWatch,
) -> Result<NeverComes, AccountsError> {
    let mut known = None;
    loop {
        // Before the question: the lease is counted from here.
        let asked = BootMoment::now();
        let (changes, now) = within(READ_TIMEOUT, accounts.ask(known.as_ref())).await?;
        accounts.confirmed(asked, &changes, watch);
        known = Some(now);
        tokio::time::sleep(poll).await;
    }
}

async fn follow_postgres(
    accounts: &AccountStore,
    route: &ServerRoute,
    poll: Duration,
    watch: &dyn EpochWatch,
    notices_proved: &mut bool,
) -> Result<NeverComes, AccountsError> {
    // At least a second, so that a small bound does not turn a busy server into an outage.
    let limit = poll.max(Duration::from_secs(1));
    let mut session = WatchSession::open(route, limit).await?;
    // INVARIANT: from here on, reads and reports use the server that confirms. Earlier reads belong to a generation
    // that the first confirmation ends.
    route.follow(&session.identity);
    // Once after the start; later, lost notices do no harm.
    if !*notices_proved {
        session.prove_notices(accounts).await?;
        *notices_proved = true;
    }
    let (identity, at) = (session.identity.clone(), session.at);
    let ended = tokio::select! {
        ended = session.ask_on(accounts, poll, limit, watch) => ended,
        () = route.leads_elsewhere(&identity) => Err(AccountsError::LedElsewhere),
    };
    if let Err(AccountsError::Database(error)) = &ended
        && !error.is_answer()
    {
        route.was_silent(at);
    }
    ended
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
    async fn open(route: &ServerRoute, limit: Duration) -> Result<Self, AccountsError> {
        let reached = route.reach().await?;
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
        accounts: &AccountStore,
        poll: Duration,
        limit: Duration,
        watch: &dyn EpochWatch,
    ) -> Result<NeverComes, AccountsError> {
        let mut known = None;
        loop {
            // Before the question: a slow answer must not lengthen the lease.
            let asked = BootMoment::now();
            let after = LastAnswer::after(known.as_ref());
            let rows = query_within(limit, self.client.query(POSTGRES_CHANGES, &[&after, &MOST_ROWS])).await?;
            let (changes, now) = changes(known.as_ref(), told(&rows)?)?;
            accounts.confirmed(asked, &changes, watch);
            known = Some(now);
            if let Ok(None) = tokio::time::timeout(poll, self.notices.recv()).await {
                return Err(session_has_ended());
            }
        }
    }

    /// Sends a notice on another session and waits for it on this one. Behind a transaction-pooling proxy it never
    /// arrives.
    async fn prove_notices(&mut self, accounts: &AccountStore) -> Result<(), AccountsError> {
        let Database::Postgres(pool) = &accounts.reports else { return Ok(()) };
        let session = pool.get().await?;
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

impl AccountStore {
    /// Passes on an answer of the primary to a question of the moment `asked`.
    fn confirmed(&self, asked: BootMoment, changes: &AccountChanges, watch: &dyn EpochWatch) {
        // Stored first, because a read that `watch` lets pass begins after it.
        self.told.store(changes.epoch, Ordering::Release);
        watch.confirmed(asked, changes);
    }

    /// Checks everything that the watch needs: the primary, its triggers, and that its notices arrive. Returns the
    /// epoch.
    ///
    /// # Errors
    /// Any fault that would keep a gateway from serving.
    pub async fn check(&self) -> Result<u64, AccountsError> {
        self.keep_to_one_server().await?;
        if let Some(route) = self.database.route() {
            WatchSession::open(route, READ_TIMEOUT).await?.prove_notices(self).await?;
        }
        Ok(self.changes_since(None).await?.epoch)
    }
}

/// The changes after an epoch from the rows of [`POSTGRES_CHANGES`], which must be the primary's.
pub(super) fn told(rows: &[Row]) -> Result<Vec<ChangeRow>, AccountsError> {
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

/// The changes after `$1`, in at most `$2` rows.
pub(super) const POSTGRES_CHANGES: &str = "
    SELECT e.epoch, c.epoch, c.account, t.fire, t.version,
           pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean
    FROM fedgate_epoch e
    CROSS JOIN fedgate_triggers('people'::regclass) t
    LEFT JOIN fedgate_account_changes c ON c.epoch > $1
    LIMIT $2";

impl AccountChanges {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        matches!(&self.accounts, ChangedAccounts::These(accounts) if accounts.is_empty())
    }
}
