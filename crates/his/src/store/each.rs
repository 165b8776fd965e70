//! How a call reaches the database in use: dispatched, within its time, and with its outcome reported.
//!
//! The one rule: each call of [`RecordStore`](super::RecordStore) that asks the database goes through here.

use std::time::Duration;

use fedgate_base::db::DbError;
use fedgate_base::db::outage::OutageLog;

/// The limit of a call, with all its statements and waits. It is shorter than a gateway's wait for an answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Dispatches a call to the database in use.
macro_rules! each {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            // A server may be unreachable in ways that no statement limit ends. SQLite works in this process,
            // with its own limits.
            RecordStore::Postgres($store) => $store.heeded($crate::store::each::within_bound($call).await),
            RecordStore::Sqlite($store) => $store.heeded($call.await),
        }
    };
}

/// As [`each`], for a call that may leave a message: the relay looks for it.
macro_rules! written {
    ($self:ident, $store:ident => $call:expr) => {{
        let answer = each!($self, $store => $call);
        $self.written().send_replace(());
        answer
    }};
}

/// Reports the result of a call to the outage log, if the database itself is the reason.
pub(super) fn tell<T>(outage: &OutageLog, answer: &Result<T, DbError>) {
    match answer {
        Ok(_) => outage.answered(),
        Err(error) if error.is_outage() => outage.failed(error.in_short()),
        Err(_) => {}
    }
}

/// A call within its limit.
///
/// # Errors
/// Those of the call, or that the time is over.
pub(super) async fn within_bound<T>(call: impl Future<Output = Result<T, DbError>>) -> Result<T, DbError> {
    tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|elapsed| Err(DbError::Unavailable(elapsed.into())))
}
