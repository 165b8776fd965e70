//! Changes of accounts, from the store to the records.
//!
//! The one rule: an event is noted as recorded only once its line is kept. Of several gateways on one store one writes it; what
//! one took and did not record within half a minute, because it ended or its disk is full, another writes. So a line may stand
//! twice, with the same `event.id`, and none is missing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::accounts::{AccountEvent, AccountsError, OutageLog};
use crate::authn::Authenticator;
use crate::observe::{AccountChangeLine, RequestRecorder};

/// How often the store is asked. A change of a right is asked for as soon as it is seen; a new person has no epoch.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How many are taken at a time: one look at the disk serves all of them.
const MOST: u32 = 500;

/// Records changes of accounts for ever.
pub(crate) async fn record(authenticator: Arc<Authenticator>, recorder: RequestRecorder) {
    let mut epoch = authenticator.epoch();
    let follows = "they wait in the store, and are recorded when that is over";
    let outage =
        OutageLog::new("changes of accounts are not recorded", follows, "changes of accounts are recorded again");
    let mut failed = false;
    loop {
        epoch.borrow_and_update();
        let done = record_some(&authenticator, &recorder).await;
        match &done {
            Ok(_) => outage.answered(),
            // The watch over the accounts tells of it.
            Err(AccountsError::Standby | AccountsError::AnotherServer | AccountsError::NotMigrated) => {}
            // One that is over at the next attempt is none: the sessions that are open while the first one finds its server may be
            // closed once.
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

/// Records what is there, as much as is taken at a time; tells how many were.
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
            // The disk is at fault, and has been given its time.
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
    }
}
