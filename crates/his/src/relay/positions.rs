//! The sequencer: gives positions to committed messages, and reports the last one to the readers of this process.
//!
//! The one rule: whether a message gets a position depends on the database alone. Every instance asks for it, after its
//! own writes and from time to time, and the row lock of `fedgate_relay` lets one of them work at a time. So no instance
//! is needed, and none that is paused or killed holds the others up.
//!
//! On SQLite a message has its position when it is committed, and this only looks at the last one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::store::RecordStore;
use fedgate_base::db::notices::NoticeSession;
use fedgate_base::db::outage::OutageLog;
use fedgate_base::db::route::{ServerRoute, WrongServer};
use fedgate_base::db::{Database, DbError, SqliteFile};

/// The most messages that get their positions at a time.
const BATCH: i64 = 5000;
/// The least time from one call to the next. A call costs several times as much as the message of a write does, so under
/// load one serves many writes.
const PACE: Duration = Duration::from_millis(5);
/// How often to look for messages of other programs, which do not report their writes.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// The pause while another instance gives positions.
const BUSY_PAUSE: Duration = Duration::from_millis(2);
/// How often to make room for the next messages.
const PREPARE_EVERY: Duration = Duration::from_secs(60);
/// The longest time for an answer of the server.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The pause before a lost session is opened again.
const RETRY: Duration = Duration::from_millis(250);

/// The last position, as far as this process knows. Readers wait on it.
#[derive(Clone)]
pub(crate) struct LastPosition(Arc<watch::Sender<u64>>);

impl LastPosition {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// Waits until there is a position after `known`.
    pub(super) async fn after(&self, known: u64) {
        // The sender lives as long as this, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|last| *last > known).await;
    }

    /// The last position.
    pub(crate) fn known(&self) -> u64 {
        *self.0.borrow()
    }

    /// Every change of the last position. It is 0 after a moment in which the positions may have gone back.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }

    fn reached(&self, last: u64) {
        self.0.send_if_modified(|known| {
            let is_news = last > *known;
            *known = last.max(*known);
            is_news
        });
    }

    fn is_behind(&self, position: u64) -> bool {
        *self.0.borrow() < position
    }

    /// After a restore the positions may have gone back.
    fn restart(&self) {
        self.0.send_replace(0);
    }
}

/// Runs for as long as it is polled.
pub(super) async fn run(store: &RecordStore, last: &LastPosition) {
    let away = "messages get no positions";
    let outage = OutageLog::new(away, "readers of messages wait, and nothing is lost", "messages get positions again");
    let mut written = store.written().subscribe();
    loop {
        let ended = match store.database() {
            Database::Postgres(pool) => on_postgres(pool.route(), &mut written, last, &outage).await,
            Database::Sqlite(sqlite) => on_sqlite(&sqlite, &mut written, last, &outage).await,
        };
        let Err(error) = ended;
        outage.failed(error.in_short());
        last.restart();
        sleep(RETRY).await;
    }
}

/// A value that never exists: following ends only by an error.
enum NeverComes {}

async fn on_postgres(
    route: &ServerRoute,
    written: &mut watch::Receiver<()>,
    last: &LastPosition,
    outage: &OutageLog,
) -> Result<NeverComes, DbError> {
    let mut session = NoticeSession::open(route, "fedgate_messages", ANSWER_LIMIT).await?;
    let give = session.prepare(ANSWER_LIMIT, "SELECT given, last FROM fedgate_give_positions($1)").await?;
    let mut prepare = Instant::now();
    loop {
        if !route.admits(session.identity()) {
            return Err(WrongServer::Another.into());
        }
        if Instant::now() >= prepare {
            session.ask(ANSWER_LIMIT, "SELECT fedgate_add_partitions()", &[]).await?;
            prepare = Instant::now() + PREPARE_EVERY;
        }
        let began = Instant::now();
        let row = session.ask(ANSWER_LIMIT, &give, &[&BATCH]).await?;
        let (given, position): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
        outage.answered();
        last.reached(position.and_then(|position| u64::try_from(position).ok()).unwrap_or(0));
        if given >= BATCH {
            continue;
        }
        let pause = sleep_until(Instant::now() + if given < 0 { BUSY_PAUSE } else { LOOK_EVERY });
        tokio::pin!(pause);
        loop {
            tokio::select! {
                _ = written.changed() => {
                    let soon = pause.deadline().min(began + PACE);
                    pause.as_mut().reset(soon);
                }
                () = &mut pause => break,
                // Another instance gave positions. Everybody may send a notice, so the database is asked which is the last.
                notice = session.next() => {
                    if last.is_behind(notice?.parse().unwrap_or(0)) {
                        let soon = pause.deadline().min(began + PACE);
                        pause.as_mut().reset(soon);
                    }
                }
            }
        }
    }
}

async fn on_sqlite(
    sqlite: &SqliteFile,
    written: &mut watch::Receiver<()>,
    last: &LastPosition,
    outage: &OutageLog,
) -> Result<NeverComes, DbError> {
    const LAST: &str = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'fedgate_messages'), 0)";
    let mut follower = sqlite.follower();
    loop {
        let position: Option<i64> =
            follower.read_news(|connection| connection.prepare_cached(LAST)?.query_row([], |row| row.get(0))).await?;
        outage.answered();
        if let Some(position) = position {
            last.reached(u64::try_from(position).unwrap_or(0));
        }
        tokio::select! {
            _ = written.changed() => {}
            () = sleep(LOOK_EVERY) => {}
        }
    }
}
