//! The watch over the database for the HIS: which server is the primary, and whether it accepts writes.
//!
//! The one rule: the pool's sessions are with the server that answers this watch. The HIS leaves a primary that is
//! silent, or to which new connections no longer lead, as soon as another server answers. Until then no session is
//! closed, because the server may only be slow.
//!
//! The HIS calls it. The gateway has its own watch (`accounts::watch`), which needs more of its session.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::outage::OutageLog;
use super::route::{ReachedServer, ServerRoute};

/// The interval between questions whether the server takes writes, and the longest time for an answer.
const ASK_EVERY: Duration = Duration::from_secs(1);
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// The pause between a failure and the next attempt.
const RETRY: Duration = Duration::from_millis(250);

/// Keeps the sessions of a route with the primary while it is polled, and logs why there is none.
pub async fn watch_over(route: &ServerRoute, outage: &OutageLog) {
    // The state that was logged last; at first, that writes are taken.
    let mut takes_writes = true;
    loop {
        match route.reach().await {
            Ok(reached) => {
                outage.answered();
                route.keep_to(&reached.identity);
                stay(route, reached, &mut takes_writes).await;
            }
            Err(error) => outage.failed(error.in_short()),
        }
        sleep(RETRY).await;
    }
}

/// Follows one server until it is silent, is no longer the wanted kind, or is no longer the one that new sessions
/// reach.
async fn stay(route: &ServerRoute, reached: ReachedServer, takes_writes: &mut bool) {
    tell(takes_writes, reached.takes_writes);
    let (identity, at) = (reached.identity.clone(), reached.at());
    let ReachedServer { client, connection, .. } = reached;
    let asked = async {
        while let Ok(Ok(now)) = timeout(ANSWER_LIMIT, ServerRoute::takes_writes(&client)).await {
            tell(takes_writes, now);
            if !route.wants(now) {
                return;
            }
            sleep(ASK_EVERY).await;
        }
        route.was_silent(at);
    };
    tokio::select! {
        () = asked => {}
        () = async { _ = connection.await } => {}
        () = route.leads_elsewhere(&identity) => {
            tracing::warn!("new connections lead to another server than before; fedgate now follows that server");
        }
    }
}

/// Logs each change once.
fn tell(known: &mut bool, takes_writes: bool) {
    match (std::mem::replace(known, takes_writes), takes_writes) {
        (true, false) => tracing::error!(
            "the database takes no writes: it is a read-only standby, or was set read-only; reads may be out of \
             date, and writes are answered 503 `database_read_only`; `store.uri` must reach the primary"
        ),
        (false, true) => tracing::info!("the database takes writes"),
        (true, true) | (false, false) => {}
    }
}
