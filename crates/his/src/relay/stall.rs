//! Reports committed messages that get no positions, although nothing reports a failure.
//!
//! The one rule: a message counts as waiting since it was first seen to wait, so a transaction that was long is no stall.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::metrics::HisMetrics;
use crate::store::RecordStore;

/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs for as long as it is polled.
pub(super) async fn run(store: &RecordStore, stall: Option<Duration>, metrics: &HisMetrics) {
    let (mut oldest, mut is_told): (Option<(i64, Instant)>, bool) = (None, false);
    loop {
        match store.unplaced_messages().await {
            Ok(waiting) => {
                oldest = waiting.map(|(entry, _)| match oldest {
                    Some((known, since)) if known == entry => (entry, since),
                    Some(_) | None => (entry, Instant::now()),
                });
                let count = waiting.map_or(0, |(_, count)| count);
                let waited = oldest.map(|(_, since)| since.elapsed());
                metrics.unplaced(count, waited.unwrap_or_default());
                match waited {
                    Some(waited) if stall.is_some_and(|stall| waited >= stall) && !is_told => {
                        is_told = true;
                        tracing::error!(
                            "{count} committed messages have waited for their positions for {} s; look for sessions that \
                             hold a lock of `fedgate_relay` (pg_locks), and whether any fedhis runs",
                            waited.as_secs()
                        );
                    }
                    None if is_told => {
                        is_told = false;
                        tracing::info!("committed messages get their positions again");
                    }
                    Some(_) | None => {}
                }
            }
            // The outage of the database is logged elsewhere.
            Err(error) => tracing::debug!("whether messages wait is not known: {error}"),
        }
        sleep(LOOK_EVERY).await;
    }
}
