//! Deletes messages that are kept no longer (`his.messages_kept_days`, `his.messages_kept`).
//!
//! The one rule: no message is deleted before an earlier one, so a reader either misses none or is answered 410.

use std::time::Duration;

use tokio::time::sleep;

use crate::store::RecordStore;
use fedgate_base::config::MessagesConfig;

/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Runs for as long as it is polled.
pub(super) async fn run(store: &RecordStore, kept: MessagesConfig) {
    let MessagesConfig { age, most, stall: _ } = kept;
    if age.is_none() && most.is_none() {
        return;
    }
    loop {
        match store.drop_messages(age, most).await {
            Ok(true) => continue,
            Ok(false) => {}
            // The outage of the database is logged elsewhere; another session may hold a partition for the moment.
            Err(error) => tracing::debug!("messages are deleted later: {error}"),
        }
        sleep(LOOK_EVERY).await;
    }
}
