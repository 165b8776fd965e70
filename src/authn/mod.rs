//! Authentication: turns a header value into a verified [`Principal`].
//!
//! The one rule: a principal has proved its password against the hash that is stored now, or did so before and nothing
//! has changed since, within the freshness bound. A technical failure is never a wrong password: it is
//! [`AuthnError::Unavailable`] or [`AuthnError::Busy`], both distinct from [`AuthnError::Rejected`].
//!
//! A hit costs one cache lookup, one keyed hash (BLAKE3) and a constant-time comparison. If the client address differs
//! from that of the previous hit, the throttle is asked, too. A miss reads the account, and hashes the password on the
//! hasher threads, unless the same client address had that password verified against that hash before.

mod error;
mod client;
mod line;
mod principal;
mod cache;
mod standing;
mod reading;
mod verify;
mod proof;
mod hasher;
mod throttle;
mod waiting;
mod spacing;
mod figures;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use moka::future::Cache;
use rand::TryRngCore;
use subtle::ConstantTimeEq;
use tokio::sync::watch::Sender;
use zeroize::Zeroizing;

pub use client::{ClientAddress, ForeignOrigin};
pub use error::{AuthnError, RejectReason};
pub use fedgate_core::basic::{BasicCredential, CredentialError, OwnedCredential, with_credential};
pub use figures::CacheFigures;
pub use hasher::HasherBusy;
use hasher::PasswordHasher;
pub use line::{AskingClient, ClientLine, LineUse};
pub use principal::Principal;

use crate::accounts::AccountStore;
use crate::routes::RouteTable;
use cache::{DroppedEntries, PrincipalCache};
use client::ClientSource;
use fedgate_base::config::AuthenticationConfig;
use fedgate_base::db::hashes::HashRule;
use fedgate_base::moment::BootMoment;
use fedgate_core::password::HashCost;
use fedgate_core::policy::{PolicySet, RoleRights};
use principal::ProvedPrincipal;
pub use proof::keyed_mac;
use proof::{PasswordProof, ProofKey, UntilExpiry};
use reading::AccountReading;
use spacing::RejectionSpacing;
use standing::{LeaseStanding, UnlistedInstance};
use throttle::{GuessThrottle, ProvedPassword};
use waiting::LastLook;
pub use waiting::{WaitingAccount, WaitingAccounts};

/// Authenticates callers; one per gateway.
pub struct Authenticator {
    accounts: AccountStore,
    hash_rule: HashRule,
    hasher: PasswordHasher,
    principals: PrincipalCache,
    throttle: Arc<GuessThrottle>,
    last_look: Mutex<LastLook>,
    /// When rejections are answered, for each client address.
    rejections: RejectionSpacing<ClientSource>,
    /// When throttled guesses beside a signed-in person are answered, for each account at a client address.
    mismatches: RejectionSpacing<(u64, ClientSource)>,
    /// Proofs by their MAC and the client address. The MAC covers account, stored hash and password, so a changed
    /// password invalidates its proofs.
    proofs: Cache<ProofKey, Arc<PasswordProof>>,
    routes: Arc<RouteTable>,
    key: Zeroizing<[u8; 32]>,
    settings: AuthenticationConfig,
    standing: Sender<LeaseStanding>,
    reading: AccountReading,
    /// Why this instance is not listed among the running ones, if it is not.
    unlisted: Mutex<UnlistedInstance>,
    /// The hash that unknown accounts are verified against: the work of a new hash, and no password matches.
    nobodys_hash: String,
    hashed: AtomicU64,
    proof_hits: AtomicU64,
    dropped_proofs: Arc<DroppedEntries>,
    /// How many times cached rights were compiled again for another policy.
    recompiled: AtomicU64,
}

impl Authenticator {
    /// Starts the hashers and empty caches.
    ///
    /// # Errors
    /// The operating system provides no threads or no randomness.
    pub fn new(
        accounts: AccountStore,
        routes: Arc<RouteTable>,
        settings: AuthenticationConfig,
    ) -> std::io::Result<Self> {
        let mut key = Zeroizing::new([0u8; 32]);
        rand::rngs::OsRng.try_fill_bytes(key.as_mut()).map_err(std::io::Error::other)?;
        let bound = settings.freshness_bound + settings.serve_cached_for;
        let dropped_proofs = Arc::new(DroppedEntries::default());
        let note = Arc::clone(&dropped_proofs);
        let proofs = Cache::builder()
            .max_capacity(settings.cached_accounts)
            .expire_after(UntilExpiry)
            .eviction_listener(move |_, proof: Arc<PasswordProof>, cause| note.note(proof.start, cause));
        Ok(Self {
            hash_rule: HashRule::new(accounts.database().clone(), settings.hashes),
            hasher: PasswordHasher::start(settings.hasher_threads, settings.hasher_queue, settings.hashes.cost)?,
            principals: PrincipalCache::new(settings.cached_accounts, settings.verified_for, bound),
            throttle: Arc::new(GuessThrottle::new(settings.free)),
            last_look: Mutex::default(),
            rejections: RejectionSpacing::new(),
            mismatches: RejectionSpacing::new(),
            proofs: proofs.build(),
            dropped_proofs,
            accounts,
            routes,
            key,
            standing: Sender::new(LeaseStanding::Unknown),
            reading: AccountReading::new(),
            unlisted: Mutex::default(),
            nobodys_hash: nobodys_hash(settings.hashes.cost),
            settings,
            hashed: AtomicU64::new(0),
            proof_hits: AtomicU64::new(0),
            recompiled: AtomicU64::new(0),
        })
    }

    /// The accounts in use.
    pub fn accounts(&self) -> &AccountStore {
        &self.accounts
    }

    /// The guaranteed freshness of a cached right.
    pub fn freshness_bound(&self) -> Duration {
        self.settings.freshness_bound
    }

    /// The longest time that a cached right may be used after the last confirmation.
    pub fn longest_use(&self) -> Duration {
        self.settings.freshness_bound + self.settings.serve_cached_for
    }

    /// The account epoch that was applied last, as a channel to wait on.
    pub fn epoch(&self) -> tokio::sync::watch::Receiver<u64> {
        self.principals.epoch()
    }

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
            Err(credential) => self.uncached(credential, client, policy).await,
        }
    }

    /// Authenticates a client by its certificate, which stands for `account`; the TLS handshake proved that the client
    /// holds its key. A cached principal is used however it was proved, because this client has just proved its own
    /// identity.
    ///
    /// # Errors
    /// See [`AuthnError`].
    pub async fn authenticate_certificate(
        &self,
        account: &str,
        policy: &Arc<PolicySet>,
    ) -> Result<Arc<Principal>, AuthnError> {
        let cached = self.principals.find(account, BootMoment::now());
        self.principals.count(cached.is_some());
        if let Some(principal) = cached {
            return Ok(self.under(principal, policy));
        }
        // Unconfirmed accounts may come from a standby, so no caller is admitted by them: 503.
        self.are_confirmed().await?;
        // Taken before the read: if everything is dropped meanwhile, the principal is not inserted.
        let generation = self.principals.generation();
        let reject = |reason| Err(AuthnError::Rejected { account: account.to_owned(), reason });
        match self.read_account(account).await? {
            None => reject(RejectReason::UnknownAccount),
            Some(account) if !account.active => reject(RejectReason::Inactive),
            Some(account) => {
                let principal = Arc::new(self.principal(account, None, policy, generation));
                self.principals.insert(&principal);
                Ok(principal)
            }
        }
    }

    /// The hit path: synchronous, without I/O. It allocates only if the client address or the policy has changed since
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
        client.line.prove(verify::short(proof.mac), || self.fingerprint(&credential.account, &credential.password));
        proof.touch(now);
        Some(self.under(principal, policy))
    }

    /// The principal with its rights under `policy`, compiled again if they belong to another policy.
    fn under(&self, principal: Arc<Principal>, policy: &Arc<PolicySet>) -> Arc<Principal> {
        // The pointer is the usual case; the text is compared when the same file was read again.
        if Arc::ptr_eq(&principal.policy, policy.shared_fingerprint()) || *principal.policy == *policy.fingerprint() {
            return principal;
        }
        self.recompiled.fetch_add(1, Ordering::Relaxed);
        let recompiled = Arc::new(Principal {
            account: principal.account.clone(),
            roles: principal.roles.clone(),
            rights: RoleRights::compile(policy, &principal.roles, self.routes.endpoints()),
            policy: Arc::clone(policy.shared_fingerprint()),
            password: principal.password.clone(),
            epoch: principal.epoch,
            generation: principal.generation,
            since: principal.since,
        });
        self.principals.replace(&principal, &recompiled);
        recompiled
    }
}

/// A well-formed hash of the given cost that no password matches.
fn nobodys_hash(cost: HashCost) -> String {
    let (memory, passes, zeros) = (cost.memory_kib, cost.passes, "A".repeat(43));
    format!("$argon2id$v=19$m={memory},t={passes},p=1$bm9ib2R5J3Mgc2FsdCwgMTZi${zeros}")
}

#[cfg(test)]
mod tests;
