//! Copies account changes from the store to the records.
//!
//! The one rule: an event counts as recorded only when its line is kept. Of several gateways on one store, one
//! writes it. If that one ends, or its disk is full, another writes the event after half a minute. So a line may
//! occur twice, with the same `event.id`, and none is missing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::accounts::{AccountEvent, AccountsError, OutageLog};
use crate::authn::Authenticator;
use crate::observe::{AccountChangeLine, RequestRecorder};

/// How often the store is asked. A changed right is fetched as soon as its epoch is seen; a new person has none.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Most events that are taken at a time: one disk sync serves all of them.
const MOST: u32 = 500;

/// Records account changes for ever.
pub(crate) async fn record(authenticator: Arc<Authenticator>, recorder: RequestRecorder) {
    let mut epoch = authenticator.epoch();
    let follows = "they wait in the store, and are recorded afterwards";
    let outage =
        OutageLog::new("changes of accounts are not recorded", follows, "changes of accounts are recorded again");
    let mut failed = false;
    loop {
        epoch.borrow_and_update();
        let done = record_some(&authenticator, &recorder).await;
        match &done {
            Ok(_) => outage.answered(),
            // The watch over the accounts logs these.
            Err(AccountsError::Standby | AccountsError::AnotherServer | AccountsError::NotMigrated) => {}
            // A single failure is not logged: while the first session finds its server, the other open sessions may
            // be closed once.
            Err(error) if failed => outage.failed(error),
            Err(_) => {}
        }
        failed = done.is_err();
        match done {
            Ok(count) if count == MOST as usize => {}
            Ok(_) => tokio::select! {
                _ = epoch.changed() => {}
                () = sleep(ASK_EVERY) => {}
            },
            Err(_) => sleep(ASK_EVERY).await,
        }
    }
}

/// Records the next batch of events; returns their number.
async fn record_some(authenticator: &Authenticator, recorder: &RequestRecorder) -> Result<usize, AccountsError> {
    if recorder.refuses() {
        return Ok(0);
    }
    let accounts = authenticator.accounts();
    let events = accounts.take_events(MOST).await?;
    let waiting: Vec<_> = events.iter().map(|event| recorder.keep_change(&line(event))).collect();
    let mut recorded = Vec::with_capacity(events.len());
    for (event, kept) in events.iter().zip(waiting) {
        if !recorder.kept(kept).await {
            // The disk failed within its time; the rest is taken again later.
            break;
        }
        recorder.metrics().account_change(&event.via);
        recorded.push(event.id);
    }
    if !recorded.is_empty() {
        accounts.events_are_recorded(recorded).await?;
    }
    Ok(events.len())
}

fn line(event: &AccountEvent) -> AccountChangeLine<'_> {
    AccountChangeLine {
        id: event.id,
        at: &event.at,
        what: &event.what,
        account: event.account.as_deref(),
        roles: [event.roles.before.as_ref(), event.roles.after.as_ref()],
        active: [event.active.before.as_ref(), event.active.after.as_ref()],
        password: event.password.as_deref(),
        via: &event.via,
        actor: event.actor.as_deref(),
        request_id: event.request_id.as_deref(),
        database_user: event.database_user.as_deref(),
        application: event.application.as_deref(),
        detail: event.detail.as_ref(),
    }
}
