//! Authentication: turns a header value into a verified [`Principal`].
//!
//! The one rule: a principal has proved its password against the hash that is stored now, or did so before and nothing
//! has changed since, within the freshness bound. A technical failure is never a wrong password: it is
//! [`AuthnError::Unavailable`] or [`AuthnError::Busy`], both distinct from [`AuthnError::Rejected`].
//!
//! A hit costs one cache lookup, one keyed hash (BLAKE3) and a constant-time comparison. If the client address differs
//! from that of the previous hit, the throttle is asked, too. A miss reads the account, and hashes the password on the
//! hasher threads, unless the same client address had that password verified against that hash before.
//!
//! `authenticate.rs` has the whole way of a request, from top to bottom. This file has what it works with.

mod authenticate;
mod certificate;
mod client;
mod line;
mod principal;
mod role_sets;
mod bounded;
mod cache;
mod standing;
mod stream_ledger;
mod streams;
mod reading;
mod throttle;
mod proof;
mod proof_cache;
mod hasher;
mod handed;
mod rehash;
mod rejection;
mod spacing;
mod waiting;
mod figures;
mod error;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rand::TryRngCore;
use tokio::sync::watch::Sender;
use zeroize::Zeroizing;

pub use client::{ClientAddress, ForeignOrigin};
pub use error::{AuthnError, RejectReason};
pub use fedgate_core::basic::{BasicCredential, CredentialError, OwnedCredential, with_credential};
pub use figures::CacheFigures;
pub use handed::HandedProofs;
pub use hasher::HasherBusy;
pub use line::{AskingClient, ClientLine, LineUse};
pub use principal::Principal;
pub use proof::keyed_mac;
pub use streams::{RunningStream, StreamDoubt};
pub use waiting::{WaitingAccount, WaitingAccounts, WaitingAddress};

use crate::accounts::AccountStore;
use crate::routes::RouteTable;
use cache::PrincipalCache;
use client::ClientSource;
use fedgate_base::config::AuthenticationConfig;
use fedgate_base::db::hashes::HashRule;
use fedgate_core::password::HashCost;
use hasher::PasswordHasher;
use proof_cache::ProofCache;
use reading::AccountReading;
use role_sets::RoleSets;
use spacing::RejectionSpacing;
use standing::{LeaseStanding, UnlistedInstance};
use throttle::GuessThrottle;
use waiting::LastLook;

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
    proofs: Arc<ProofCache>,
    role_sets: RoleSets,
    /// Hashes that this gateway has replaced of late: the mark of the older, and that of the newer one.
    replaced_hashes: moka::sync::Cache<u64, u64>,
    routes: Arc<RouteTable>,
    /// The key of the MACs, random at the start.
    key: Zeroizing<[u8; 32]>,
    /// The key of a predecessor, which counts instead: see [`handed`].
    handed_key: OnceLock<Zeroizing<[u8; 32]>>,
    settings: AuthenticationConfig,
    standing: Sender<LeaseStanding>,
    reading: AccountReading,
    /// Why this instance is not listed among the running ones, if it is not.
    unlisted: Mutex<UnlistedInstance>,
    /// The hash that unknown accounts are verified against: the work of a new hash, and no password matches.
    nobodys_hash: String,
    hashed: AtomicU64,
    proof_hits: AtomicU64,
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
        Ok(Self {
            hash_rule: HashRule::new(accounts.database().clone(), settings.hashes),
            hasher: PasswordHasher::start(settings.hasher_threads, settings.hasher_queue, settings.hashes.cost)?,
            principals: PrincipalCache::new(settings.cached_accounts, settings.verified_for, bound),
            throttle: Arc::new(GuessThrottle::new(settings.free, settings.cached_accounts)),
            last_look: Mutex::default(),
            rejections: RejectionSpacing::new(),
            mismatches: RejectionSpacing::new(),
            proofs: Arc::new(ProofCache::new(settings.cached_accounts, settings.verified_idle)),
            role_sets: RoleSets::default(),
            replaced_hashes: moka::sync::Cache::new(settings.cached_accounts),
            accounts,
            routes,
            key,
            handed_key: OnceLock::new(),
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

    /// When a caller who found the hashers busy should ask again: in half to all of the time in which they work off what
    /// waits. Callers come back apart, as it is drawn for each, and the time tells nothing about the hashes that wait.
    pub fn busy_wait(&self) -> Duration {
        let longest = self.settings.hasher_queue;
        longest.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// The account epoch that was applied last, as a channel to wait on.
    pub fn epoch(&self) -> tokio::sync::watch::Receiver<u64> {
        self.principals.epoch()
    }
}

/// A well-formed hash of the given cost that no password matches.
fn nobodys_hash(cost: HashCost) -> String {
    let (memory, passes, zeros) = (cost.memory_kib, cost.passes, "A".repeat(43));
    format!("$argon2id$v=19$m={memory},t={passes},p=1$bm9ib2R5J3Mgc2FsdCwgMTZi${zeros}")
}

#[cfg(test)]
mod tests;
