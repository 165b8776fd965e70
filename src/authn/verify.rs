//! The password check on a cache miss: throttle, account, comparison, and the moment of a rejection.
//!
//! The one rule: the throttle is asked before the store, unless this client address has recently proved this password.
//! A rejection follows a schedule of its client address, so that its time reveals nothing about the account.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::client::ClientSource;
use super::hasher::{HashBooking, HasherBusy, HasherLane, JobOwner};
use super::line::{AskingClient, LineUse};
use super::principal::ProvedPrincipal;
use super::proof::{PasswordProof, keyed_mac};
use super::spacing::TooMany;
use super::throttle::{GuessThrottle, PasswordAttempt, ProvedPassword, ThrottleWait};
use super::{Authenticator, AuthnError, OwnedCredential, Principal, RejectReason};
use crate::accounts::StoredAccount;
use fedgate_base::moment::BootMoment;
use fedgate_core::password;
use fedgate_core::policy::{PolicySet, RoleRights};

/// How long a wrong password is remembered as wrong.
pub(super) const REJECTED_FOR: Duration = Duration::from_secs(10);

/// The outcome of a comparison.
struct ComparedPassword {
    proof: Arc<PasswordProof>,
    /// Whether the comparison was made earlier.
    was_known: bool,
}

/// A failure that is reported to the throttle when its time has come, or when its client disconnects earlier.
struct PendingFailure<'a> {
    throttle: &'a GuessThrottle,
    id: &'a str,
    source: Option<ClientSource>,
    fingerprint: u64,
    /// Whether it counts: repeating the same password does not.
    counted: bool,
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
    /// Verifies a credential, and returns when the answer is due.
    pub(super) async fn uncached(
        &self,
        credential: OwnedCredential,
        client: AskingClient<'_>,
        policy: &Arc<PolicySet>,
    ) -> Result<Arc<Principal>, AuthnError> {
        let (account, source, line) = (&*credential.account, client.address.source(), client.line);
        if self.compares_no_more(account, source, line) {
            return Err(AuthnError::Throttled { account: account.to_owned(), wait: super::spacing::LONGEST });
        }
        let came = tokio::time::Instant::now();
        // Keyed by the address without the page: otherwise each invented origin would have its own clock.
        let place = source.map(|source| self.rejections.place(source.without_page()));
        let outcome = self.verify(&credential, source, policy).await;
        let step = self.step();
        match (&outcome, source) {
            _ if step.is_zero() => outcome,
            (Err(AuthnError::Rejected { .. }), _) => match place {
                None => {
                    self.settle(came).await;
                    outcome
                }
                Some(place) => {
                    let _held = line.hold();
                    place.rejected(step).await.map_or_else(
                        |TooMany(wait)| Err(AuthnError::Throttled { account: account.to_owned(), wait }),
                        |()| outcome,
                    )
                }
            },
            // If the address has a signed-in person, the right password is admitted at once and a wrong one gets this
            // answer. So this answer must not come as fast as guesses can be sent.
            (Err(AuthnError::Throttled { .. }), Some(source)) => {
                drop(place);
                if self.throttle.proved_lately(account, Some(source), Instant::now()).is_some() {
                    let _held = line.hold();
                    self.mismatches.hold(self.mismatch_key(account, source), step).await;
                }
                outcome
            }
            (Ok(_), _) => {
                let fingerprint = self.fingerprint(account, &credential.password);
                line.prove(fingerprint, || fingerprint);
                outcome
            }
            (Err(_), _) => outcome,
        }
    }

    /// The time between two rejections: the configured step, rounded up to at least one verification on this machine.
    /// A shorter one would reveal the kind of hash.
    fn step(&self) -> Duration {
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

    /// Whether no password is compared on this connection now, right or wrong, so that the answer reveals nothing.
    ///
    /// That is so while a client holds back as many answers on its connection as it may. If the account at this client
    /// address holds back as many as it may, it also holds on each connection that holds some. So a guesser is never
    /// answered sooner than by the clock, and a caller with the proved password on another connection is compared with
    /// it.
    ///
    /// A connection that has proved the account's password always compares. Its wrong passwords are held back, never
    /// refused at once: requests of several people may come over it, and one of them could guess at the speed of the
    /// network.
    pub(super) fn compares_no_more(&self, account: &str, source: Option<ClientSource>, line: LineUse<'_>) -> bool {
        let Some(source) = source else { return false };
        if !line.is_full() && !self.mismatches.is_any_full() {
            return false;
        }
        let proved = self.throttle.proved_lately(account, Some(source), Instant::now());
        if proved.is_some_and(|password| line.has_proved(password.fingerprint)) {
            return false;
        }
        line.is_full() || (!line.holds_none() && self.mismatches.is_full(&self.mismatch_key(account, source)))
    }

    fn mismatch_key(&self, account: &str, source: ClientSource) -> (u64, ClientSource) {
        (short(self.mac(account, "", b"")), source)
    }

    async fn verify(
        &self,
        credential: &OwnedCredential,
        source: Option<ClientSource>,
        policy: &Arc<PolicySet>,
    ) -> Result<Arc<Principal>, AuthnError> {
        // 503 before any lookup: without confirmed accounts, neither yes nor no would be true.
        self.are_confirmed().await?;
        let (id, fingerprint) = (&*credential.account, self.fingerprint(&credential.account, &credential.password));
        let proved = self.throttle.proved_lately(id, source, Instant::now());
        let proved = proved.filter(|proved| proved.fingerprint == fingerprint);
        // Before the read: a guess that must wait costs the database no query.
        let attempt = if proved.is_some() { None } else { Some(self.attempt(id, source, fingerprint)?) };
        // Taken before the read: if everything is dropped meanwhile, the principal is not inserted.
        let generation = self.principals.generation();
        let account = self.read_account(id).await?;
        let is_active = account.as_ref().is_some_and(|account| account.active);
        let stored = account.as_ref().and_then(|account| account.password_hash.clone());
        let password =
            ProvedPassword { fingerprint, stored: self.stored_mark(id, stored.as_deref().unwrap_or_default()) };
        let attempt = match attempt {
            Some(attempt) => Some(attempt),
            None if is_active && proved == Some(password) => None,
            // The password was changed or the account deactivated, so this caller must wait like any other.
            None => Some(
                self.attempt(id, source, fingerprint)
                    .inspect_err(|_| self.throttle.disprove(id, source, fingerprint))?,
            ),
        };
        let lane = if attempt.as_ref().is_none_or(|attempt| attempt.is_known) {
            HasherLane::Known
        } else {
            HasherLane::Unknown
        };
        let compared =
            // An unknown account costs the same hash as a known one, so the time does not tell which accounts exist.
            self.compare(credential, source, stored.as_deref().unwrap_or(&self.nobodys_hash), is_active, lane).await?;
        let now = Instant::now();
        // The comparison is made in every state of the account, so its duration reveals nothing. Nor does the
        // throttle: the right password of an inactive account counts as a wrong one.
        let (account, stored) = match (account, stored) {
            (Some(account), Some(stored)) if compared.proof.right && account.active => (account, stored),
            (account, _) => {
                let counted = !compared.was_known;
                let failure = PendingFailure { throttle: &self.throttle, id, source, fingerprint, counted };
                // The failure is recorded no earlier than the schedule says: neither the answer nor the end of a wait
                // that begins now may reveal how long the hash took. The attempt is under way until then.
                if let Some(booking) = compared.proof.booking.filter(|_| !self.settings.rejection_step.is_zero()) {
                    self.hasher.end(booking).await;
                }
                drop(failure);
                return Err(AuthnError::Rejected { account: id.to_owned(), reason: reason(account, &compared.proof) });
            }
        };
        match attempt {
            Some(attempt) => {
                self.throttle.succeeded(id, source, password, now);
                drop(attempt);
            }
            // Failures of other addresses are not taken back.
            None => self.throttle.remember(id, source, password, now),
        }
        let password = ProvedPrincipal { stored_hash: stored.into(), proof: compared.proof };
        let principal = Arc::new(self.principal(account, Some(password), policy, generation));
        self.principals.insert(&principal);
        Ok(principal)
    }

    /// Asks the throttle for permission.
    fn attempt(
        &self,
        account: &str,
        source: Option<ClientSource>,
        fingerprint: u64,
    ) -> Result<PasswordAttempt<'_>, AuthnError> {
        let attempt = self.throttle.begin(account, source, fingerprint, Instant::now());
        attempt.map_err(|ThrottleWait(wait)| AuthnError::Throttled { account: account.to_owned(), wait })
    }

    pub(super) fn principal(
        &self,
        account: StoredAccount,
        password: Option<ProvedPrincipal>,
        policy: &Arc<PolicySet>,
        generation: super::cache::CacheGeneration,
    ) -> Principal {
        Principal {
            rights: RoleRights::compile(policy, &account.roles, self.routes.endpoints()),
            policy: Arc::clone(policy.shared_fingerprint()),
            account: account.id.into(),
            roles: account.roles,
            password,
            epoch: account.epoch,
            generation,
            since: BootMoment::now(),
        }
    }

    /// Compares a password with a stored hash, once for all requests of one client address that ask the same at the
    /// same time or soon after. Another address's proof is no answer: see [`super::throttle`].
    async fn compare(
        &self,
        credential: &OwnedCredential,
        source: Option<ClientSource>,
        stored: &str,
        is_active: bool,
        lane: HasherLane,
    ) -> Result<ComparedPassword, AuthnError> {
        let mac = self.mac(&credential.account, stored, &credential.password);
        let key = (mac, source);
        if let Some(proof) = self.proofs.get(&key).await {
            let now = BootMoment::now();
            // For an inactive account, a right password is remembered no longer than a wrong one, so that nothing
            // distinguishes them.
            let is_kept = is_active || now.since(proof.start) < REJECTED_FOR;
            if is_kept && proof.counts(now, self.settings.verified_idle) {
                proof.touch(now);
                self.proof_hits.fetch_add(1, Ordering::Relaxed);
                return Ok(ComparedPassword { proof, was_known: true });
            }
            self.proofs.invalidate(&key).await;
        }
        let owner =
            JobOwner { account: credential.account.as_str().into(), source: source.map(ClientSource::in_common) };
        let hashed = self.proofs.try_get_with(key, async {
            self.hashed.fetch_add(1, Ordering::Relaxed);
            let booking = self.hasher.book(stored, lane, &owner)?;
            let right = self.hasher.verify(stored.to_owned(), credential.password.clone(), lane, owner).await?;
            if self.settings.rejection_step.is_zero() {
                self.hasher.release(booking);
            } else if right && is_active {
                self.hasher.was_right(booking, stored);
            }
            if right
                && self.settings.hashes.upgraded != Some(false)
                && password::needs_upgrade(stored, &credential.password, self.hasher.cost())
            {
                self.upgrade(credential, source, stored.to_owned());
            }
            Ok::<_, HasherBusy>(self.proof(mac, source, right, Some(booking)))
        });
        let proof = hashed.await.map_err(|busy| AuthnError::Busy(*busy))?;
        Ok(ComparedPassword { proof, was_known: false })
    }

    /// Identifies a password for the throttle, whatever hash it is compared with.
    pub(super) fn fingerprint(&self, account: &str, password: &[u8]) -> u64 {
        short(self.mac(account, "", password))
    }

    /// Identifies the stored hash that a password was proved against, for the throttle.
    pub(super) fn stored_mark(&self, account: &str, stored: &str) -> u64 {
        short(self.mac(account, stored, b""))
    }

    pub(super) fn proof(
        &self,
        mac: [u8; 32],
        source: Option<ClientSource>,
        right: bool,
        booking: Option<HashBooking>,
    ) -> Arc<PasswordProof> {
        let lasts = if right { self.settings.verified_for } else { REJECTED_FOR };
        Arc::new(PasswordProof { booking, ..PasswordProof::new(mac, source, right, lasts) })
    }

    /// Replaces a verified hash by a new one, without delaying the request: only if this store wants that, and only if
    /// the hash was not changed meanwhile.
    fn upgrade(&self, credential: &OwnedCredential, source: Option<ClientSource>, old: String) {
        let (accounts, hasher, proofs) = (self.accounts.clone(), self.hasher.clone(), self.proofs.clone());
        let (account, password) = (credential.account.clone(), credential.password.clone());
        let (key, lasts, throttle) = (self.key.clone(), self.settings.verified_for, Arc::clone(&self.throttle));
        let owner = JobOwner { account: account.as_str().into(), source: source.map(ClientSource::in_common) };
        let rule = self.hash_rule.clone();
        tokio::spawn(async move {
            if !rule.upgrades().await {
                return;
            }
            let Ok(Some(new)) = hasher.hash(password.clone(), owner).await else { return };
            // The proof is stored before the hash, so that no request from this address has to hash the password
            // again.
            let mac = keyed_mac(&key, &account, &new, &password);
            proofs.insert((mac, source), Arc::new(PasswordProof::new(mac, source, true, lasts))).await;
            match accounts.replace_hash(&account, &old, &new).await {
                Ok(true) => {
                    let mark = |stored| short(keyed_mac(&key, &account, stored, b""));
                    throttle.rehashed(&account, mark(&old), mark(&new));
                    tracing::info!(account, "password hash replaced by argon2id");
                }
                Ok(false) => tracing::debug!(account, "password hash changed meanwhile, left as it is"),
                Err(error) if error.is_passing() => {
                    proofs.invalidate(&(keyed_mac(&key, &account, &old, &password), source)).await;
                    tracing::debug!(account, %error, "password hash is replaced with the next login");
                }
                Err(error) => {
                    tracing::warn!(account, %error, "password hash could not be replaced; a later login tries again")
                }
            }
        });
    }

    pub(super) fn mac(&self, account: &str, stored: &str, password: &[u8]) -> [u8; 32] {
        keyed_mac(&self.key, account, stored, password)
    }
}

/// Why a comparison does not admit the caller.
fn reason(account: Option<StoredAccount>, proof: &PasswordProof) -> RejectReason {
    match account {
        Some(StoredAccount { password_hash: Some(_), .. }) if proof.right => RejectReason::Inactive,
        Some(StoredAccount { password_hash: Some(_), .. }) => RejectReason::WrongPassword,
        Some(_) | None => RejectReason::UnknownAccount,
    }
}

pub(super) fn short(mac: [u8; 32]) -> u64 {
    u64::from_le_bytes(mac.first_chunk().copied().unwrap_or_default())
}
