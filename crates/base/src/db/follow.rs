//! Who watches over the database for the HIS: which server is the primary, and whether it takes writes.
//!
//! The one rule: the sessions of the pool are with the server that answers here. A primary that is silent, or that new
//! connections lead to no longer, is left as soon as another one answers; until then nothing is cut off, because a server
//! that is merely slow still answers.
//!
//! Called by the HIS. The gateway has a watch of its own (`accounts::watch`), which needs more of its session.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::outage::OutageLog;
use super::route::{ReachedServer, ServerRoute};

/// How often the server is asked whether it takes writes, and how long it may take to say so.
const ASK_EVERY: Duration = Duration::from_secs(1);
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// How long after a failure the next attempt follows.
const RETRY: Duration = Duration::from_millis(250);

/// Keeps the sessions of a route with the primary, for as long as it is polled, and tells why there is none.
pub async fn watch_over(route: &ServerRoute, outage: &OutageLog) {
    // What the operator knows: at first, that writes are taken.
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

/// Follows one server until it is silent, is not what is wanted any more, or is not the one that new sessions reach.
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
            tracing::warn!("new connections lead to another server than before: it is followed from now on");
        }
    }
}

/// Tells the operator once of each change.
fn tell(known: &mut bool, takes_writes: bool) {
    match (std::mem::replace(known, takes_writes), takes_writes) {
        (true, false) => tracing::error!(
            "the database takes no writes: it is a read-only standby, or was set read-only; what is read may be late, and \
             writes are answered 503 `database_read_only`; `store.uri` must reach the primary"
        ),
        (false, true) => tracing::info!("the database takes writes"),
        (true, true) | (false, false) => {}
    }
}
