//! The watch over the account epoch: notices are a hint, polls are the truth.
//!
//! The one rule: [`EpochWatch::confirmed`] is called only with an answer of the primary, and with the moment *before*
//! the question, so that a lease counted from there is never longer than promised. After any gap (a new session, an
//! epoch that went back), everything may have changed. NOTIFY is fast and lossy, so it only hastens the next poll.
//!
//! This is the loop over sessions. `postgres/watch.rs` and `sqlite/watch.rs` each have one session.

use std::time::{Duration, Instant};

use super::{AccountStore, EpochWatch};

/// The pause before a lost session is opened again, at first and at most.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// Reports every change of the epoch to `watch`, and at least four times within `bound` that there was none.
///
/// Runs until it is dropped.
pub async fn watch(accounts: AccountStore, bound: Duration, watch: &dyn EpochWatch) {
    let mut backoff = RECONNECT.0;
    let mut notices_proved = false;
    loop {
        let began = Instant::now();
        let Err(error) = accounts.follow(bound / 4, watch, &mut notices_proved).await;
        watch.lost(&error);
        if began.elapsed() > RECONNECT.1 {
            backoff = RECONNECT.0;
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(RECONNECT.1);
    }
}
