//! What belongs to a rejected password: its record with the throttle, its reason, and the steps of its clock.
//!
//! The one rule: a rejection follows a schedule of its client address, so that its time reveals nothing about the
//! account. `authenticate.rs` calls it, and [`super::spacing`] has the schedule.

use std::time::{Duration, Instant};

use super::Authenticator;
use super::client::ClientSource;
use super::error::RejectReason;
use super::proof::{PasswordProof, short};
use super::throttle::GuessThrottle;
use crate::accounts::StoredAccount;

/// A failure that is reported to the throttle when its time has come, or when its client disconnects earlier.
pub(super) struct PendingFailure<'a> {
    pub(super) throttle: &'a GuessThrottle,
    pub(super) id: &'a str,
    pub(super) source: Option<ClientSource>,
    pub(super) fingerprint: u64,
    /// Whether it counts: repeating the same password does not.
    pub(super) counted: bool,
}

impl Drop for PendingFailure<'_> {
    fn drop(&mut self) {
        if self.counted {
            self.throttle.failed(self.id, self.source, self.fingerprint, Instant::now());
        }
        self.throttle.disprove(self.id, self.source, self.fingerprint);
    }
}

impl Authenticator {
    /// The time between two rejections: the configured step, rounded up to at least one verification on this machine.
    /// A shorter one would reveal the kind of hash.
    pub(super) fn step(&self) -> Duration {
        let configured = self.settings.rejection_step;
        let steps = self.hasher.dearest_of_today().as_nanos().div_ceil(configured.as_nanos().max(1)).max(1);
        configured.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
    }

    /// Holds back the rejection of a client without an address until a whole number of steps after the request came.
    pub(super) async fn settle(&self, came: tokio::time::Instant) {
        let step = self.step();
        if let Some(steps) = came.elapsed().as_nanos().checked_div(step.as_nanos()) {
            let steps = u32::try_from(steps).unwrap_or(u32::MAX).saturating_add(1);
            tokio::time::sleep_until(came + step.saturating_mul(steps)).await;
        }
    }

    /// The key of the clock for refusals beside a signed-in person.
    pub(super) fn mismatch_key(&self, account: &str, source: ClientSource) -> (u64, ClientSource) {
        (short(self.mac(account, "", b"")), source)
    }
}

/// Why a comparison does not admit the caller.
pub(super) fn reason(account: Option<StoredAccount>, proof: &PasswordProof) -> RejectReason {
    match account {
        Some(StoredAccount { password_hash: Some(_), .. }) if proof.right => RejectReason::Inactive,
        Some(StoredAccount { password_hash: Some(_), .. }) => RejectReason::WrongPassword,
        Some(_) | None => RejectReason::UnknownAccount,
    }
}
