//! A watch over the file, which reads only if anything was written since it last read.
//!
//! The one rule: nothing is left out. The question is SQLite's `data_version`, which changes with every commit of any
//! other connection, in this process or another. It is asked before each reading, so a commit between the two is news
//! again the next time. The first reading, and the one after an error, is always made.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use rusqlite::Connection;

use super::{READ_LIMIT, SqliteFile, WantedRead, blocking, reading_connection, turn_of};
use crate::db::DbError;

/// Follows one file. It waits for no reader, but for other followers of the same handle.
pub struct SqliteFollower {
    file: SqliteFile,
    /// The connection of the last reading, and its version before that.
    seen: Option<(u64, i64)>,
}

/// The connection that the followers of a handle share. It writes nothing, so every commit is another one's.
pub(super) struct FollowedConnection {
    connection: Connection,
    /// Versions of another connection mean nothing.
    number: u64,
}

impl SqliteFile {
    /// A follower that has read nothing.
    pub fn follower(&self) -> SqliteFollower {
        SqliteFollower { file: self.clone(), seen: None }
    }
}

impl SqliteFollower {
    /// Runs `work` if anything was written since it ran last; none if nothing was.
    ///
    /// # Errors
    /// The error of `work`; or it took too long; or another file has the name.
    pub async fn read_news<T, F>(&mut self, work: F) -> Result<Option<T>, DbError>
    where
        F: FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
        T: Send + 'static,
    {
        let inner = Arc::clone(&self.file.0);
        let permit = turn_of(&inner.watch).await?;
        let (wanted, _waiting) = WantedRead::until(Instant::now() + READ_LIMIT);
        let known = self.seen;
        let (seen, news) = blocking(move || {
            let _held = permit;
            inner.check_name()?;
            let mut slot = inner.followed.lock().unwrap_or_else(PoisonError::into_inner);
            // A connection that fails is closed.
            let mut followed = match slot.take() {
                Some(followed) => followed,
                None => FollowedConnection {
                    connection: reading_connection(&inner.path)?,
                    number: inner.connections.fetch_add(1, Ordering::Relaxed),
                },
            };
            let number = followed.number;
            let (seen, news) = wanted.run(&mut followed.connection, |connection| {
                let mut asked = connection.prepare_cached("PRAGMA data_version")?;
                let seen = (number, asked.query_row([], |row| row.get(0))?);
                let news = if known == Some(seen) { None } else { Some(work(connection)?) };
                Ok((seen, news))
            })?;
            inner.check_name()?;
            *slot = Some(followed);
            Ok((seen, news))
        })
        .await?;
        self.seen = Some(seen);
        Ok(news)
    }
}
