//! The way of one request from its header to a [`Principal`] or a refusal, in the order in which it goes: a hit
//! ([`Authenticator::cached`]), or a miss ([`Authenticator::uncached`]).
//!
//! The one rule: the throttle is asked before the store, unless this client address has recently proved this password.
//!
//! The pipeline calls it. The other files of `authn` each hold one thing that it asks: `cache.rs` the principals and
//! the lease, `standing.rs` and `reading.rs` the accounts, `throttle.rs` the waits, `hasher.rs` the hashes, `proof.rs`
//! the outcomes of comparisons, `rejection.rs` and `spacing.rs` the time of a refusal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use subtle::ConstantTimeEq;

use super::client::ClientSource;
use super::error::AuthnError;
use super::hasher::{HasherBusy, HasherLane, JobOwner};
use super::line::{AskingClient, LineUse};
use super::principal::{Principal, ProvedPrincipal};
use super::proof::{PasswordProof, REJECTED_FOR};
use super::rejection::{PendingFailure, reason};
use super::spacing::{LONGEST, TooMany};
use super::throttle::{PasswordAttempt, ProvedPassword, ThrottleWait};
use super::{Authenticator, BasicCredential, OwnedCredential, with_credential};
use crate::accounts::StoredAccount;
use fedgate_base::moment::BootMoment;
use fedgate_core::password;
use fedgate_core::policy::PolicySet;

/// The outcome of a comparison.
struct ComparedPassword {
    proof: Arc<PasswordProof>,
    /// Whether the comparison was made earlier.
    was_known: bool,
}

impl Authenticator {
    /// Verifies the value of an `Authorization` header from `client`. The rights of the principal are those of
    /// `policy`.
    ///
    /// # Errors
    /// See [`AuthnError`].
    pub async fn authenticate(
        &self,
        header: Option<&[u8]>,
        client: impl Into<AskingClient<'_>>,
        policy: &Arc<PolicySet>,
    ) -> Result<Arc<Principal>, AuthnError> {
        let header = header.ok_or(AuthnError::NoCredential)?;
        let client = client.into();
        let found =
            with_credential(header, |credential| match self.cached(credential, client, policy, BootMoment::now()) {
                Some(principal) => Ok(principal),
                None => Err(credential.to_owned()),
            })?;
        self.principals.count(found.is_ok());
        match found {
            Ok(principal) => Ok(principal),
            // Boxed: a hit, which nearly all requests are, has no room for the read of an account.
            Err(credential) => Box::pin(self.uncached(credential, client, policy)).await,
        }
    }

    /// The hit: synchronous, without I/O. It allocates only if the client address or the policy has changed since
    /// the last hit.
    fn cached(
        &self,
        credential: &BasicCredential<'_>,
        client: AskingClient<'_>,
        policy: &Arc<PolicySet>,
        now: BootMoment,
    ) -> Option<Arc<Principal>> {
        let principal = self.principals.find(&credential.account, now)?;
        let ProvedPrincipal { stored_hash, proof } = principal.password.as_ref()?;
        let source = client.address.source();
        // Before the comparison: past this point, an answer tells whether the password is right.
        if self.compares_no_more(&credential.account, source, client.line) {
            return None;
        }
        let mac = self.mac(&credential.account, stored_hash, &credential.password);
        // Constant time: the MAC of the right password must not be found byte by byte.
        let same = bool::from(mac.ct_eq(&proof.mac));
        if !same || !proof.counts(now, self.settings.verified_idle) {
            return None;
        }
        // A cached proof is valid only for the client address that supplied the password. For any other address it
        // would be an oracle without the throttle.
        if proof.is_strange_to(source) {
            let (account, at) = (&*credential.account, Instant::now());
            let fingerprint = self.fingerprint(account, &credential.password);
            if !self.throttle.has_proved(account, source, fingerprint, self.settings.verified_for, at) {
                return None;
            }
            let password = ProvedPassword { fingerprint, stored: self.stored_mark(account, stored_hash) };
            self.throttle.remember(account, source, password, at);
            proof.used_from(source);
        }
        client.line.prove(proof.mark(), || self.fingerprint(&credential.account, &credential.password));
        proof.touch(now);
        Some(self.under(principal, policy))
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

    /// The principal with its rights under `policy`, compiled again if they belong to another policy.
    pub(super) fn under(&self, principal: Arc<Principal>, policy: &Arc<PolicySet>) -> Arc<Principal> {
        // The pointer is the usual case; the text is compared when the same file was read again.
        let known = &principal.set.policy;
        if Arc::ptr_eq(known, policy.shared_fingerprint()) || **known == *policy.fingerprint() {
            return principal;
        }
        self.recompiled.fetch_add(1, Ordering::Relaxed);
        let recompiled = Arc::new(Principal {
            account: principal.account.clone(),
            same: principal.same.clone(),
            linked: principal.linked.clone(),
            until: principal.until,
            set: self.role_sets.of(policy, &principal.set.roles, self.routes.endpoints()),
            password: principal.password.clone(),
            epoch: principal.epoch,
            generation: principal.generation,
            since: principal.since,
        });
        self.principals.replace(&principal, &recompiled);
        recompiled
    }

    /// The miss: verifies a credential, and returns when the answer is due.
    async fn uncached(
        &self,
        credential: OwnedCredential,
        client: AskingClient<'_>,
        policy: &Arc<PolicySet>,
    ) -> Result<Arc<Principal>, AuthnError> {
        let (account, source, line) = (&*credential.account, client.address.source(), client.line);
        if self.compares_no_more(account, source, line) {
            return Err(AuthnError::Throttled { account: account.to_owned(), wait: LONGEST });
        }
        let came = tokio::time::Instant::now();
        // Keyed by the address without the page: otherwise each invented origin would have its own clock.
        let place = source.map(|source| self.rejections.place(source.without_page()));
        let fingerprint = self.fingerprint(account, &credential.password);
        let outcome = self.verify(&credential, (source, fingerprint), policy).await;
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
                line.prove(fingerprint, || fingerprint);
                outcome
            }
            (Err(_), _) => outcome,
        }
    }

    /// Asks the throttle, reads the account, and compares the password. `fingerprint` identifies it for the throttle.
    async fn verify(
        &self,
        credential: &OwnedCredential,
        (source, fingerprint): (Option<ClientSource>, u64),
        policy: &Arc<PolicySet>,
    ) -> Result<Arc<Principal>, AuthnError> {
        // 503 before any lookup: without confirmed accounts, neither yes nor no would be true.
        self.are_confirmed().await?;
        let id = &*credential.account;
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
        // The comparison is made in every state of the account, so its duration reveals nothing. Nor does the
        // throttle: the right password of an inactive account counts as a wrong one.
        let (account, stored) = match (account, stored) {
            (Some(account), Some(stored)) if compared.proof.right && account.active => (account, stored),
            (account, _) => return Err(self.rejected(account, &compared, (id, source, fingerprint)).await),
        };
        let now = Instant::now();
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

    /// Compares a password with a stored hash, once for all requests of one client address that ask the same at the
    /// same time or soon after. A proof of another address is no answer: see [`super::throttle`].
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
        if let Some(proof) = self.proofs.get(&key) {
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
        let hashed = self.proofs.compared(key, async {
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

    /// The rejection of a compared password, once the throttle knows of it. `account` is none if there is none.
    async fn rejected(
        &self,
        account: Option<StoredAccount>,
        compared: &ComparedPassword,
        (id, source, fingerprint): (&str, Option<ClientSource>, u64),
    ) -> AuthnError {
        let counted = !compared.was_known;
        let failure = PendingFailure { throttle: &self.throttle, id, source, fingerprint, counted };
        // The failure is recorded no earlier than the schedule says: neither the answer nor the end of a wait that
        // begins now may reveal how long the hash took. The attempt is under way until then.
        if let Some(booking) = compared.proof.booking.filter(|_| !self.settings.rejection_step.is_zero()) {
            self.hasher.end(booking).await;
        }
        drop(failure);
        AuthnError::Rejected { account: id.to_owned(), reason: reason(account, &compared.proof) }
    }
}
