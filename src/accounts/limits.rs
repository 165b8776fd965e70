//! How long a question to the database may take.
//!
//! The one rule: a database that hangs counts as away.

use std::time::Duration;

use super::AccountsError;
use fedgate_base::db::DbError;

/// The longest time to read one account.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest time for a change.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bounds a question.
pub(super) async fn within<T>(
    limit: Duration,
    question: impl Future<Output = Result<T, AccountsError>>,
) -> Result<T, AccountsError> {
    tokio::time::timeout(limit, question).await.map_err(|elapsed| DbError::Unavailable(elapsed.into()))?
}
