//! Running streams: whether the principal of each has still the account that it was admitted with.
//!
//! The one rule: a stream passes nothing on unless the lease is valid and every reported change of its account has been
//! looked at. Changes are noted here before the lease is extended by the answer that reported them, so a stream is bound
//! like a request that begins at that moment.
//!
//! The pipeline judges; [`super::cache`] reports changes; the gateway waits for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::principal::ProvedPrincipal;
use super::stream_ledger::{StreamLedger, StreamSignal};
use super::{Authenticator, Principal};
use crate::accounts::AccountsError;
use fedgate_base::moment::BootMoment;
use fedgate_core::policy::PolicySet;

/// The pause after a read that failed.
const READ_AGAIN: Duration = Duration::from_millis(50);

/// One running stream; it ends for the ledger when this is dropped.
pub struct RunningStream {
    signal: Arc<StreamSignal>,
    authenticator: Arc<Authenticator>,
    account: Box<str>,
    /// Until when the calendar leaves the caller's relations as they are, as a [`BootMoment`].
    until: AtomicU64,
}

/// Why a stream's caller would not be admitted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamDoubt {
    /// The account is gone or inactive, or its password is another.
    AccountChanged,
    /// The account cannot be confirmed within the freshness bound.
    Unconfirmed,
}

impl RunningStream {
    /// Whether it may pass bytes on at `now`, as far as the account says: no reported change waits to be looked at.
    pub fn is_clear(&self, now: BootMoment) -> bool {
        // The lease first: if the answer that extends it has just been applied, the changes of that answer are seen.
        self.is_vouched(now) && self.is_settled(now)
    }

    /// Whether the lease is valid. Anonymous callers need none.
    pub fn is_vouched(&self, now: BootMoment) -> bool {
        self.account.is_empty() || self.authenticator.lease_is_valid(now)
    }

    /// Waits for the lease, if there is none yet.
    pub async fn begins(&self) {
        if !self.is_vouched(BootMoment::now()) {
            self.authenticator.lease_begins().await;
        }
    }

    /// Whether every change has been looked at, those of the calendar included.
    fn is_settled(&self, now: BootMoment) -> bool {
        self.signal.is_settled() && now.as_nanos() < self.until.load(Ordering::Relaxed)
    }

    /// Waits until something may have changed. Only one task waits.
    pub async fn changed(&self) {
        let until = BootMoment::from_nanos(self.until.load(Ordering::Relaxed));
        match until == BootMoment::NEVER {
            true => self.signal.changed().await,
            // If time passes while the machine is asleep, this is late, and the next piece is not.
            false => {
                let _ = tokio::time::timeout(until.since(BootMoment::now()), self.signal.changed()).await;
            }
        }
    }

    /// Looks at the reported changes: the principal as it is stored now, under `policy`.
    ///
    /// # Errors
    /// The caller would not be admitted now.
    pub async fn look(
        &self,
        principal: Arc<Principal>,
        policy: &Arc<PolicySet>,
    ) -> Result<Arc<Principal>, StreamDoubt> {
        let authenticator = &self.authenticator;
        let reported = self.signal.reported();
        if self.is_settled(BootMoment::now()) {
            return Ok(authenticator.under(principal, policy));
        }
        let read = authenticator.read_again(&principal, policy);
        // Half of the bound: a change is reported within the other half, and a stream that waits passes nothing on.
        let read = tokio::time::timeout(authenticator.freshness_bound() / 2, read).await;
        let principal = read.map_err(|_| StreamDoubt::Unconfirmed)??;
        self.until.store(principal.until.as_nanos(), Ordering::Relaxed);
        // A change that was reported meanwhile is looked at next.
        self.signal.settle(reported);
        Ok(principal)
    }
}

impl Drop for RunningStream {
    fn drop(&mut self) {
        self.authenticator.streams().remove(&self.account, &self.signal);
    }
}

impl Authenticator {
    fn streams(&self) -> &StreamLedger {
        self.principals.streams()
    }

    /// Begins a stream of an admitted caller. A change that came between the admission and this is looked at first.
    pub fn run_stream(self: &Arc<Self>, principal: Option<&Principal>) -> RunningStream {
        let account: Box<str> = principal.map_or("", Principal::account).into();
        let signal = self.streams().add(&account);
        // After the insertion: a change that is applied from here on is reported to it.
        if principal.is_some_and(|principal| !self.principals.has(principal)) {
            signal.report();
        }
        let until = principal.map_or(BootMoment::NEVER, |principal| principal.until).as_nanos();
        RunningStream { signal, authenticator: Arc::clone(self), account, until: AtomicU64::new(until) }
    }

    /// Lets every stream look whether it may run on: the policy, a certificate or the lease may have changed.
    pub fn wake_streams(&self) {
        self.streams().wake();
    }

    /// For how long cached principals may be used from `now` on, without a further confirmation.
    pub fn lease_left(&self, now: BootMoment) -> Duration {
        self.principals.lease_left(now)
    }

    /// Reads the account of a running stream until that succeeds.
    async fn read_again(
        &self,
        principal: &Arc<Principal>,
        policy: &Arc<PolicySet>,
    ) -> Result<Arc<Principal>, StreamDoubt> {
        loop {
            // Several streams of one account, or a request, need one read.
            let stored = match self.find_for_stream(principal) {
                Some(found) => found,
                None => match self.read_for_stream(principal, policy).await {
                    Ok(Some(read)) => read,
                    Ok(None) => return Err(StreamDoubt::AccountChanged),
                    Err(_) => {
                        tokio::time::sleep(READ_AGAIN).await;
                        continue;
                    }
                },
            };
            return match self.is_same_password(principal, &stored) {
                true => Ok(self.under(stored, policy)),
                false => Err(StreamDoubt::AccountChanged),
            };
        }
    }

    /// The principal as it is stored now; none if the account is gone, inactive, or has another password.
    async fn read_for_stream(
        &self,
        principal: &Principal,
        policy: &Arc<PolicySet>,
    ) -> Result<Option<Arc<Principal>>, AccountsError> {
        let _turn = self.streams().turn().await;
        // Another stream may have read it while this one waited for its turn.
        if let Some(found) = self.find_for_stream(principal) {
            return Ok(Some(found));
        }
        self.are_confirmed().await?;
        // Taken before the read: if everything is dropped meanwhile, the principal is not inserted.
        let generation = self.principals.generation();
        let Some(account) = self.read_account(principal.account()).await?.filter(|account| account.active) else {
            return Ok(None);
        };
        let password = match &principal.password {
            None => None,
            Some(proved) => match account.password_hash.as_deref() {
                Some(stored) if stored == &*proved.stored_hash => Some(proved.clone()),
                Some(stored) if self.is_rehashed(principal.account(), &proved.stored_hash, stored) => {
                    // Proved against the older hash, so a request has to prove it against this one.
                    Some(ProvedPrincipal { stored_hash: stored.into(), proof: Arc::clone(&proved.proof) })
                }
                Some(_) | None => return Ok(None),
            },
        };
        let is_proved = password
            .as_ref()
            .zip(principal.password.as_ref())
            .is_none_or(|(now, then)| now.stored_hash == then.stored_hash);
        let read = Arc::new(self.principal(account, password, policy, generation));
        if is_proved {
            self.principals.insert(&read);
        }
        Ok(Some(read))
    }

    /// The cached principal of a stream's account. One that is cached for a client with a certificate does not tell
    /// whether the password is still the same.
    fn find_for_stream(&self, stream: &Principal) -> Option<Arc<Principal>> {
        let found = self.principals.find(stream.account(), BootMoment::now());
        found.filter(|found| stream.password.is_none() || found.password.is_some())
    }

    /// Whether a stored principal has the password that the stream's caller has proved. A certificate needs none.
    fn is_same_password(&self, stream: &Principal, stored: &Principal) -> bool {
        match (&stream.password, &stored.password) {
            (None, _) => true,
            (Some(then), Some(now)) => {
                then.stored_hash == now.stored_hash
                    || self.is_rehashed(stream.account(), &then.stored_hash, &now.stored_hash)
            }
            (Some(_), None) => false,
        }
    }

    /// Whether this gateway has replaced the older hash by the newer one, of the same password.
    fn is_rehashed(&self, account: &str, older: &str, newer: &str) -> bool {
        let replaced = self.replaced_hashes.get(&self.stored_mark(account, older));
        replaced == Some(self.stored_mark(account, newer))
    }
}
