//! Wakes running streams when they may have to end: another policy, the end of the lease, a stop.
//!
//! The one rule: it only wakes. Each stream judges for itself whether it may run on. Changes of accounts wake the
//! streams that they concern by themselves.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::authn::Authenticator;
use crate::gateway::edge::live_traffic::LiveTraffic;
use crate::reload::FileState;
use fedgate_base::moment::BootMoment;

/// How often an invalid lease is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Wakes streams for ever.
pub(crate) async fn keep(authenticator: Arc<Authenticator>, policy: Arc<FileState>, traffic: Arc<LiveTraffic>) {
    let mut ending = traffic.ending_streams.subscribe();
    let mut was_valid = false;
    loop {
        let left = authenticator.lease_left(BootMoment::now());
        tokio::select! {
            () = policy.replaced() => authenticator.wake_streams(),
            Ok(()) = ending.changed() => authenticator.wake_streams(),
            // Each confirmation extends the lease, so this wakes once for each, and at its very end if none comes.
            () = sleep(if left.is_zero() { LOOK } else { left }) => {}
        }
        let is_valid = authenticator.lease_is_valid(BootMoment::now());
        if was_valid && !is_valid {
            authenticator.wake_streams();
        }
        was_valid = is_valid;
    }
}
