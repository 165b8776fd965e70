//! Commands that wait for a store: after a while, such a command says what it waits for.
//!
//! The one rule: a wait is reported once, and the report does not affect the awaited work.

use std::time::Duration;

use tokio::time::timeout;

use crate::config::StoreConfig;

/// How long a command may be silent.
const SILENCE: Duration = Duration::from_secs(2);

/// Does some work on a store, and reports if that takes long.
pub async fn on_store<T>(store: &StoreConfig, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    if let Ok(done) = timeout(SILENCE, work.as_mut()).await {
        return done;
    }
    match store {
        StoreConfig::Sqlite(sqlite) => tracing::warn!(
            "{}: still waiting for the store after {} s: another program writes to it or holds its lock, or there is \
             much to migrate",
            sqlite.path.display(),
            SILENCE.as_secs()
        ),
        StoreConfig::Postgres(_) => tracing::warn!(
            "still waiting for PostgreSQL after {} s: another session holds a lock (`pg_locks`), the server does not \
             answer, or there is much to migrate",
            SILENCE.as_secs()
        ),
    }
    work.await
}
