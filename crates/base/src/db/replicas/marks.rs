//! Marks that prove that a replica follows the server which takes this process's writes.
//!
//! The one rule: a mark is written on one server, which is known by the moment of its start, and has a number that this
//! process gives only once. So whoever shows it has replayed the log of that server up to it. Another cluster, another
//! database and a server that was promoted by itself never show it, whatever positions they report.
//!
//! A mark proves nothing of what came later: a replica may leave for another server. So a mark counts for a while only, and
//! a new one is written in time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;

use super::super::outage::OutageLog;
use super::super::{DbError, SessionPool};

/// How often a mark is written, and the shortest pause between two.
const WRITE_EVERY: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(250);
/// How long a mark counts after it was written.
const LASTS: Duration = Duration::from_secs(15);
/// The marks that are remembered; more than are written while one counts.
const MOST_KNOWN: usize = 64;

/// The marks of this process.
pub(super) struct ReplicaMarks {
    /// The name of this process, which no other has.
    process: String,
    known: Mutex<VecDeque<WrittenMark>>,
    wanted: Notify,
    outage: OutageLog,
}

/// A mark that is on a server.
#[derive(Debug, Clone)]
pub(super) struct WrittenMark {
    number: i64,
    /// The server, by the moment of its start.
    server: Arc<str>,
    /// Before it was written.
    at: Instant,
}

impl WrittenMark {
    /// Whether who shows it follows this server.
    pub(super) fn proves(&self, server: &str) -> bool {
        *self.server == *server && self.at.elapsed() < LASTS
    }
}

impl ReplicaMarks {
    pub(super) fn new() -> Self {
        let (away, back) =
            ("no replica is read: the primary takes no mark", "the primary takes marks of replicas again");
        Self {
            process: format!("{:032x}", rand::random::<u128>()),
            known: Mutex::default(),
            wanted: Notify::new(),
            outage: OutageLog::new(away, "the primary answers all reads until it does", back),
        }
    }

    /// The name under which this process writes its marks.
    pub(super) fn process(&self) -> &str {
        &self.process
    }

    fn known(&self) -> MutexGuard<'_, VecDeque<WrittenMark>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mark of a number; none if it was not written, or is not known yet.
    pub(super) fn of(&self, number: i64) -> Option<WrittenMark> {
        self.known().iter().find(|mark| mark.number == number).cloned()
    }

    /// Whether the last mark is on this server.
    pub(super) fn are_of(&self, server: &str) -> bool {
        self.known().back().is_some_and(|mark| *mark.server == *server)
    }

    /// Asks for a new mark.
    pub(super) fn want(&self) {
        self.wanted.notify_one();
    }

    /// Writes marks for as long as it is polled.
    pub(super) async fn keep(&self, primary: &SessionPool) -> Infallible {
        for number in 1.. {
            let at = Instant::now();
            match self.write(primary, number).await {
                Ok(server) => {
                    self.outage.answered();
                    let mut known = self.known();
                    known.push_back(WrittenMark { number, server: server.into(), at });
                    let beyond = known.len().saturating_sub(MOST_KNOWN);
                    known.drain(..beyond);
                }
                Err(error) => self.outage.failed(error.in_short()),
            }
            sleep(PAUSE).await;
            tokio::select! {
                () = sleep(WRITE_EVERY - PAUSE) => {}
                () = self.wanted.notified() => {}
            }
        }
        // Numbers do not end.
        std::future::pending().await
    }

    /// Writes one, and returns the server that has it.
    async fn write(&self, primary: &SessionPool, number: i64) -> Result<String, DbError> {
        let session = primary.get().await?;
        if number == 1 {
            session.execute(FORGET, &[]).await?;
        }
        let row = session.query_one(&session.prepare_cached(WRITE).await?, &[&self.process, &number]).await?;
        Ok(row.try_get(0)?)
    }
}

/// Nobody waits until it is on a disk: it counts once a replica shows it.
const WRITE: &str = "
    WITH unhurried AS (SELECT set_config('synchronous_commit', 'off', true))
    INSERT INTO fedgate_replica_marks (process, mark, at) SELECT $1, $2, now() FROM unhurried
    ON CONFLICT (process) DO UPDATE SET mark = excluded.mark, at = excluded.at
    RETURNING extract(epoch FROM pg_postmaster_start_time())::text";
/// Forgets processes that have ended.
const FORGET: &str = "DELETE FROM fedgate_replica_marks WHERE at < now() - interval '1 hour'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_proves_only_its_server_and_only_for_a_while() {
        let (at, server) = (Instant::now(), Arc::from("17.5"));
        let mark = WrittenMark { number: 1, server, at };
        assert!(mark.proves("17.5"));
        assert!(!mark.proves("17.6"));
        assert!(!WrittenMark { at: at - LASTS, ..mark }.proves("17.5"));
    }

    #[test]
    fn a_number_that_is_unknown_is_no_mark() {
        let marks = ReplicaMarks::new();
        assert!(!marks.are_of("17.5") && marks.of(1).is_none());
        marks.known().push_back(WrittenMark { number: 1, server: "17.5".into(), at: Instant::now() });
        assert!(marks.are_of("17.5") && marks.of(1).is_some() && marks.of(2).is_none());
        assert_ne!(ReplicaMarks::new().process(), marks.process());
    }
}
