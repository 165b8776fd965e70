//! Commands that wait for a store: after a while, whoever started one is told what it waits for.
//!
//! The one rule: waiting is told once, and changes nothing about what is waited for.

use std::time::Duration;

use tokio::time::timeout;

use crate::config::StoreConfig;

/// How long a command may be silent.
const SILENCE: Duration = Duration::from_secs(2);

/// Does some work on a store, and tells when that takes long.
pub async fn on_store<T>(store: &StoreConfig, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    if let Ok(done) = timeout(SILENCE, work.as_mut()).await {
        return done;
    }
    match store {
        StoreConfig::Sqlite(sqlite) => tracing::warn!(
            "{}: still waiting for the store after {} s: another program writes to it or holds its lock, or there is much to migrate",
            sqlite.path.display(),
            SILENCE.as_secs()
        ),
        StoreConfig::Postgres(_) => tracing::warn!(
            "still waiting for PostgreSQL after {} s: another session holds a lock (`pg_locks`), the server does not answer, or \
             there is much to migrate",
            SILENCE.as_secs()
        ),
    }
    work.await
}
