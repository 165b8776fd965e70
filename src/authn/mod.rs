//! Authentication: a header value to a verified [`Principal`].
//!
//! The one rule: who is called a principal has proved its password against the hash that is stored now, or did so before
//! and nothing has changed since, within the freshness bound. A technical failure is never a wrong password: it is
//! [`AuthnError::Unavailable`] or [`AuthnError::Busy`], and both are told apart from [`AuthnError::Rejected`].
//!
//! A hit costs one cache lookup, one keyed hash (BLAKE3), a constant-time comparison and, when its source is another than
//! that of the hit before it, a question to the throttle. A miss reads the account, and hashes the password on the hasher
//! threads unless its source had that very password verified against that very hash before.

mod error;
mod basic;
mod cache;
mod standing;
mod proof;
mod hasher;
mod throttle;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use moka::future::Cache;
use rand::TryRngCore;
use subtle::ConstantTimeEq;
use tokio::sync::watch::Sender;
use zeroize::Zeroizing;

pub use basic::{Credential, CredentialError, OwnedCredential, with_credential};
pub use error::{AuthnError, RejectReason};
pub use hasher::{Busy, Hasher, Lane};

use crate::accounts::{Account, Accounts, CacheFigures};
use crate::config::AuthenticationConfig;
use crate::moment::Moment;
use crate::password::{self, Cost};
use crate::policy::{PolicySet, Rights};
use crate::routes::Routes;
use cache::{Dropped, Generation, Principals};
pub use proof::keyed_mac;
use proof::{Proof, ProofKey, UntilExpiry};
use standing::{Standing, Unlisted};
pub(crate) use throttle::network;
use throttle::{Throttle, Wait};

/// How long a wrong password is remembered as wrong.
const REJECTED_FOR: Duration = Duration::from_secs(10);

/// Who is calling, verified, with what its roles may do under one policy.
///
/// Only the [`Authenticator`] makes one.
pub struct Principal {
    account: Box<str>,
    roles: Vec<String>,
    rights: Rights,
    /// Its fingerprint alone, so that no cached principal keeps an old policy in memory.
    policy: Arc<str>,
    /// How its password was proved; nothing when a certificate was its proof.
    password: Option<Proved>,
    epoch: u64,
    generation: Generation,
    /// When it was first made.
    since: Moment,
}

/// A password that was proved against the hash that is stored.
#[derive(Clone)]
struct Proved {
    stored_hash: Arc<str>,
    proof: Arc<Proof>,
}

impl std::fmt::Debug for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Principal").field("account", &self.account).field("roles", &self.roles).finish_non_exhaustive()
    }
}

impl Principal {
    /// The account id.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The roles, as stored.
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// What the roles may do under [`Principal::policy`].
    pub fn rights(&self) -> &Rights {
        &self.rights
    }

    /// The fingerprint of the policy that the rights were compiled from.
    pub fn policy(&self) -> &str {
        &self.policy
    }
}

/// Finds out who is calling; one per gateway.
pub struct Authenticator {
    accounts: Accounts,
    hasher: Hasher,
    principals: Principals,
    throttle: Throttle,
    /// Proofs by their MAC, which covers account, stored hash and password, so that a changed password invalidates itself,
    /// and by the source that asked.
    proofs: Cache<ProofKey, Arc<Proof>>,
    routes: Arc<Routes>,
    key: Zeroizing<[u8; 32]>,
    settings: AuthenticationConfig,
    standing: Sender<Standing>,
    /// Why this instance is not listed among those that run, if it is not.
    unlisted: Mutex<Unlisted>,
    /// What an unknown account is verified against: the same work as for a new one, and it never succeeds.
    nobodys_hash: String,
    hashed: AtomicU64,
    proof_hits: AtomicU64,
    dropped_proofs: Arc<Dropped>,
    /// How often cached rights were compiled anew for another policy.
    recompiled: AtomicU64,
}

impl Authenticator {
    /// Starts the hashers and empty caches.
    ///
    /// # Errors
    /// The operating system gives no threads or no randomness.
    pub fn new(accounts: Accounts, routes: Arc<Routes>, settings: AuthenticationConfig) -> std::io::Result<Self> {
        let mut key = Zeroizing::new([0u8; 32]);
        rand::rngs::OsRng.try_fill_bytes(key.as_mut()).map_err(std::io::Error::other)?;
        let bound = settings.freshness_bound + settings.serve_cached_for;
        let dropped_proofs = Arc::new(Dropped::default());
        let note = Arc::clone(&dropped_proofs);
        let proofs = Cache::builder()
            .max_capacity(settings.cached_accounts)
            .expire_after(UntilExpiry)
            .eviction_listener(move |_, proof: Arc<Proof>, cause| note.note(proof.start, cause));
        Ok(Self {
            hasher: Hasher::start(settings.hasher_threads, settings.hasher_queue, settings.cost)?,
            principals: Principals::new(settings.cached_accounts, settings.verified_for, bound),
            throttle: Throttle::new(settings.free),
            proofs: proofs.build(),
            dropped_proofs,
            accounts,
            routes,
            key,
            standing: Sender::new(Standing::Unknown),
            unlisted: Mutex::default(),
            nobodys_hash: nobodys_hash(settings.cost),
            settings,
            hashed: AtomicU64::new(0),
            proof_hits: AtomicU64::new(0),
            recompiled: AtomicU64::new(0),
        })
    }

    /// The accounts it asks.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// How fresh a cached right is guaranteed to be.
    pub fn freshness_bound(&self) -> Duration {
        self.settings.freshness_bound
    }

    /// Longest time that a cached right may be used after the last confirmation.
    pub fn longest_use(&self) -> Duration {
        self.settings.freshness_bound + self.settings.serve_cached_for
    }

    /// The account epoch that was applied last, to be waited on.
    pub fn epoch(&self) -> tokio::sync::watch::Receiver<u64> {
        self.principals.epoch()
    }

    /// The figures of the caches so far.
    pub async fn figures(&self) -> CacheFigures {
        // What was done last is counted, and what has grown too old forgotten, when somebody sees to it.
        self.proofs.run_pending_tasks().await;
        let (proofs_unused, proofs_evicted, proofs_mean_age_seconds) = self.dropped_proofs.figures();
        CacheFigures {
            recompiled: self.recompiled.load(Ordering::Relaxed),
            // Those that were not used for long are found when they are asked for.
            proofs_evicted: proofs_unused + proofs_evicted,
            proofs_mean_age_seconds,
            hashed: self.hashed.load(Ordering::Relaxed),
            proofs: self.proofs.entry_count(),
            proof_hits: self.proof_hits.load(Ordering::Relaxed),
            ..self.principals.figures()
        }
    }

    /// Verifies the value of an `Authorization` header that came from `client`. The rights of the principal are those of
    /// `policy`.
    ///
    /// # Errors
    /// See [`AuthnError`].
    pub async fn authenticate(
        &self,
        header: Option<&[u8]>,
        client: Option<IpAddr>,
        policy: &Arc<PolicySet>,
    ) -> Result<Arc<Principal>, AuthnError> {
        let header = header.ok_or(AuthnError::NoCredential)?;
        let (began, now) = (Instant::now(), Moment::now());
        let found = with_credential(header, |credential| match self.cached(credential, client, policy, now) {
            Some(principal) => Ok(principal),
            None => Err(credential.to_owned()),
        })?;
        self.principals.count(found.is_ok());
        match found {
            Ok(principal) => Ok(principal),
            Err(credential) => {
                let outcome = self.uncached(credential, client, policy).await;
                if let Err(AuthnError::Rejected { .. }) = outcome {
                    self.settle(began).await;
                }
                outcome
            }
        }
    }

    /// Finds the principal of a client that has proved in its TLS handshake that it holds the key of a certificate which
    /// stands for `account`. However the account's principal was proved before: this client has proved it anew.
    ///
    /// # Errors
    /// See [`AuthnError`].
    pub async fn authenticate_certificate(
        &self,
        account: &str,
        policy: &Arc<PolicySet>,
    ) -> Result<Arc<Principal>, AuthnError> {
        let cached = self.principals.find(account, Moment::now());
        self.principals.count(cached.is_some());
        if let Some(principal) = cached {
            return Ok(self.under(principal, policy));
        }
        self.are_confirmed().await?;
        let generation = self.principals.generation();
        let reject = |reason| Err(AuthnError::Rejected { account: account.to_owned(), reason });
        match self.accounts.read(account).await? {
            None => reject(RejectReason::UnknownAccount),
            Some(account) if !account.active => reject(RejectReason::Inactive),
            Some(account) => {
                let principal = Arc::new(self.principal(account, None, policy, generation));
                self.principals.insert(&principal);
                Ok(principal)
            }
        }
    }

    /// Holds a rejection back until a full step of time since `began`, so that how long it took does not tell whether
    /// there is such an account, nor which kind of hash it has.
    async fn settle(&self, began: Instant) {
        let step = self.settings.rejection_step;
        if let Some(steps) = began.elapsed().as_nanos().checked_div(step.as_nanos()) {
            let steps = u32::try_from(steps).unwrap_or(u32::MAX).saturating_add(1);
            tokio::time::sleep_until((began + step.saturating_mul(steps)).into()).await;
        }
    }

    /// The hit path: synchronous, no I/O, and no allocation unless the source changes, or the policy has changed since the
    /// rights were compiled.
    fn cached(
        &self,
        credential: &Credential<'_>,
        client: Option<IpAddr>,
        policy: &Arc<PolicySet>,
        now: Moment,
    ) -> Option<Arc<Principal>> {
        let principal = self.principals.find(&credential.account, now)?;
        let Proved { stored_hash, proof } = principal.password.as_ref()?;
        let mac = self.mac(&credential.account, stored_hash, &credential.password);
        let same = bool::from(mac.ct_eq(&proof.mac));
        if !same || !proof.counts(now, self.settings.verified_idle) {
            return None;
        }
        if proof.is_strange_to(client) {
            let (account, at) = (&*credential.account, Instant::now());
            let fingerprint = self.fingerprint(account, &credential.password);
            if !self.throttle.has_proved(account, client, fingerprint, self.settings.verified_for, at) {
                return None;
            }
            self.throttle.remember(account, client, fingerprint, at);
            proof.used_from(client);
        }
        proof.touch(now);
        Some(self.under(principal, policy))
    }

    /// The same principal with its rights under `policy`, compiled anew if they were compiled for another.
    fn under(&self, principal: Arc<Principal>, policy: &Arc<PolicySet>) -> Arc<Principal> {
        if Arc::ptr_eq(&principal.policy, policy.shared_fingerprint()) || *principal.policy == *policy.fingerprint() {
            return principal;
        }
        self.recompiled.fetch_add(1, Ordering::Relaxed);
        let recompiled = Arc::new(Principal {
            account: principal.account.clone(),
            roles: principal.roles.clone(),
            rights: Rights::compile(policy, &principal.roles, self.routes.endpoints()),
            policy: Arc::clone(policy.shared_fingerprint()),
            password: principal.password.clone(),
            epoch: principal.epoch,
            generation: principal.generation,
            since: principal.since,
        });
        self.principals.replace(&principal, &recompiled);
        recompiled
    }

    /// The miss path: reads the account, and hashes the password unless that was done before.
    async fn uncached(
        &self,
        credential: OwnedCredential,
        client: Option<IpAddr>,
        policy: &Arc<PolicySet>,
    ) -> Result<Arc<Principal>, AuthnError> {
        self.are_confirmed().await?;
        let generation = self.principals.generation();
        let account = self.accounts.read(&credential.account).await?;
        let stored = account.as_ref().and_then(|account| account.password_hash.clone());
        let proof = self.prove(&credential, client, stored.as_deref().unwrap_or(&self.nobodys_hash)).await?;
        let reject = |reason| Err(AuthnError::Rejected { account: credential.account.clone(), reason });
        // The comparison was made whatever the account's state: that it took its time tells nothing.
        let (Some(account), Some(stored)) = (account, stored) else { return reject(RejectReason::UnknownAccount) };
        match (proof.right, account.active) {
            (false, _) => return reject(RejectReason::WrongPassword),
            (true, false) => return reject(RejectReason::Inactive),
            (true, true) => {}
        }
        let password = Proved { stored_hash: stored.into(), proof };
        let principal = Arc::new(self.principal(account, Some(password), policy, generation));
        self.principals.insert(&principal);
        Ok(principal)
    }

    fn principal(
        &self,
        account: Account,
        password: Option<Proved>,
        policy: &Arc<PolicySet>,
        generation: Generation,
    ) -> Principal {
        Principal {
            rights: Rights::compile(policy, &account.roles, self.routes.endpoints()),
            policy: Arc::clone(policy.shared_fingerprint()),
            account: account.id.into(),
            roles: account.roles,
            password,
            epoch: account.epoch,
            generation,
            since: Moment::now(),
        }
    }

    /// Compares a password with a stored hash, once for all requests of one source that ask the same at the same time or
    /// soon after. What another source has proved answers nobody: see [`throttle`].
    async fn prove(
        &self,
        credential: &OwnedCredential,
        client: Option<IpAddr>,
        stored: &str,
    ) -> Result<Arc<Proof>, AuthnError> {
        let account = &*credential.account;
        let fingerprint = self.fingerprint(account, &credential.password);
        let mac = self.mac(account, stored, &credential.password);
        let key = (mac, client.map(network));
        if let Some(known) = self.proofs.get(&key).await {
            let now = Moment::now();
            if known.counts(now, self.settings.verified_idle) {
                known.touch(now);
                self.proof_hits.fetch_add(1, Ordering::Relaxed);
                if known.right {
                    self.throttle.remember(account, client, fingerprint, Instant::now());
                }
                return Ok(known);
            }
            self.proofs.invalidate(&key).await;
        }
        let attempt = self.throttle.begin(account, client, fingerprint, Instant::now());
        let attempt = attempt.map_err(|Wait(wait)| AuthnError::Throttled { account: account.to_owned(), wait })?;
        let lane = if attempt.is_known { Lane::Known } else { Lane::Unknown };
        let hashed = self.proofs.try_get_with(key, async {
            self.hashed.fetch_add(1, Ordering::Relaxed);
            let right = self.hasher.verify(stored.to_owned(), credential.password.clone(), lane).await?;
            if right && self.settings.upgrade_hashes && password::needs_upgrade(stored, self.hasher.cost()) {
                self.upgrade(credential, client, stored.to_owned());
            }
            Ok::<_, Busy>(self.proof(mac, client, right))
        });
        let proof = hashed.await.map_err(|busy| AuthnError::Busy(*busy))?;
        match proof.right {
            true => self.throttle.succeeded(account, client, fingerprint, Instant::now()),
            false => self.throttle.failed(account, client, fingerprint, Instant::now()),
        }
        drop(attempt);
        Ok(proof)
    }

    /// Tells the throttle which passwords are the same, whatever hash they are compared with.
    fn fingerprint(&self, account: &str, password: &[u8]) -> u64 {
        u64::from_le_bytes(self.mac(account, "", password).first_chunk().copied().unwrap_or_default())
    }

    fn proof(&self, mac: [u8; 32], client: Option<IpAddr>, right: bool) -> Arc<Proof> {
        Arc::new(Proof::new(mac, client, right, if right { self.settings.verified_for } else { REJECTED_FOR }))
    }

    /// Replaces a verified hash by a new one, behind the request's back: only if nobody changed it meanwhile.
    fn upgrade(&self, credential: &OwnedCredential, client: Option<IpAddr>, old: String) {
        let (accounts, hasher, proofs) = (self.accounts.clone(), self.hasher.clone(), self.proofs.clone());
        let (account, password) = (credential.account.clone(), credential.password.clone());
        let (key, lasts) = (self.key.clone(), self.settings.verified_for);
        tokio::spawn(async move {
            let Ok(Some(new)) = hasher.hash(password.clone()).await else { return };
            // The proof is there before the hash is, so that no request from there has to hash the password again.
            let mac = keyed_mac(&key, &account, &new, &password);
            proofs.insert((mac, client.map(network)), Arc::new(Proof::new(mac, client, true, lasts))).await;
            match accounts.replace_hash(&account, &old, &new).await {
                Ok(true) => tracing::info!(account, "password hash replaced by argon2id"),
                Ok(false) => tracing::debug!(account, "password hash changed meanwhile, left as it is"),
                Err(error) => {
                    tracing::warn!(account, %error, "password hash could not be replaced; the next login tries again")
                }
            }
        });
    }

    fn mac(&self, account: &str, stored: &str, password: &[u8]) -> [u8; 32] {
        keyed_mac(&self.key, account, stored, password)
    }
}

/// A well-formed hash of the given cost that no password has.
fn nobodys_hash(cost: Cost) -> String {
    let (memory, passes, zeros) = (cost.memory_kib, cost.passes, "A".repeat(43));
    format!("$argon2id$v=19$m={memory},t={passes},p=1$bm9ib2R5J3Mgc2FsdCwgMTZi${zeros}")
}

#[cfg(test)]
mod tests;
