//! The section `[authentication]`: passwords, and what of them is remembered for how long.

use std::time::Duration;

use serde::Deserialize;

use super::check::{ValueCheck, cores};
use super::error::ConfigError;
use super::section::section;
use fedgate_core::password::HashCost;

/// Passwords and caches.
#[derive(Debug, Clone)]
pub struct AuthenticationConfig {
    /// The `realm` of the Basic challenge.
    pub realm: String,
    /// How long a cached right may outlive the last confirmation that nothing changed.
    pub freshness_bound: Duration,
    /// How much longer it may be used while the database is away; zero refuses at once.
    pub serve_cached_for: Duration,
    /// How long a verified password is remembered at most.
    pub verified_for: Duration,
    /// How long it is remembered without use.
    pub verified_idle: Duration,
    /// How many accounts are remembered.
    pub cached_accounts: u64,
    /// Which hashes are written.
    pub hashes: HashesConfig,
    /// Threads that verify passwords.
    pub hasher_threads: usize,
    /// How long the work takes, by estimate, that may wait in each lane; more is refused with 503.
    pub hasher_queue: Duration,
    /// Whether that comes from a count of verifications, `hasher_queue`, as it was configured before.
    pub hasher_queue_is_counted: bool,
    /// A rejection is answered after a whole multiple of this; zero answers at once.
    pub rejection_step: Duration,
    /// What of guessing costs nothing yet.
    pub free: FreeFailures,
}

/// Which hashes are written.
#[derive(Debug, Clone, Copy)]
pub struct HashesConfig {
    /// Whether bcrypt hashes are replaced by argon2id after a login, and new ones are argon2id; none where the operator has not
    /// said it, and the store tells.
    pub upgraded: Option<bool>,
    /// The cost of new argon2id hashes.
    pub cost: HashCost,
}

/// How many failures have no consequence; with the next one waits begin.
#[derive(Debug, Clone, Copy)]
pub struct FreeFailures {
    /// Different wrong passwords for one account from one source.
    pub of_pair: u32,
    /// Wrong passwords for one account, from all sources that it does not know.
    pub of_account: u32,
    /// Accounts that one source fails on.
    pub accounts_of_source: u32,
}

/// Gateways are remembered for an hour after their last word: whoever waits for one that may admit must know of it.
const MOST_CACHED_SECONDS: u64 = 2400;
const MOST_BOUND_MS: u64 = 600_000;
/// The longest, in ms, that any instance may use a cached right after a confirmation.
pub const LONGEST_BOUND_MS: u64 = MOST_BOUND_MS + 1000 * MOST_CACHED_SECONDS;
/// Most that a password may cost: beyond it, hashing hurts the gateway more than who guesses.
const MOST_COST: HashCost = HashCost { memory_kib: 256 * 1024, passes: 10 };
/// Threads that hash, each with an arena of its own.
const MOST_HASHERS: u64 = 256;
const MOST_WAITING: u64 = 100_000;
const MOST_WAITING_MS: u64 = 600_000;
const QUEUE_MS: u64 = 4000;
/// What one verification was taken to last where verifications were counted.
const COUNTED_MS: u64 = 40;
/// Who mistypes a password is made to wait this long.
const MOST_STEP_MS: u64 = 10_000;

section!(AuthenticationSection {
    realm: String = "Authentication Required".into(),
    freshness_bound_ms: u64 = 1000,
    serve_cached_for_seconds: u64 = 0,
    verified_for_seconds: u64 = 900,
    verified_idle_seconds: u64 = 300,
    cached_accounts: u64 = 100_000,
    upgrade_hashes: Option<bool> = None,
    argon2_memory_kib: u32 = HashCost::DEFAULT.memory_kib,
    argon2_passes: u32 = HashCost::DEFAULT.passes,
    hasher_threads: usize = 0,
    hasher_queue: usize = 0,
    hasher_queue_ms: u64 = 0,
    rejection_step_ms: u64 = 500,
    free_failures: u32 = 5,
    free_failures_of_account: u32 = 20,
    free_accounts_of_source: u32 = 20,
});

impl AuthenticationSection {
    pub(super) fn check(self, check: &ValueCheck<'_>) -> Result<AuthenticationConfig, ConfigError> {
        let key = |key| format!("authentication.{key}");
        if self.realm.bytes().any(|b| !(0x20..0x7f).contains(&b) || b == b'"' || b == b'\\') {
            return Err(check.fault(
                &key("realm"),
                "holds a quote or a character that is not ASCII",
                "use plain words",
            ));
        }
        let cost = HashCost { memory_kib: self.argon2_memory_kib, passes: self.argon2_passes };
        let (floor, most) = (HashCost::FLOOR, MOST_COST);
        let memory = u64::from(cost.memory_kib);
        check.within(&key("argon2_memory_kib"), memory, floor.memory_kib.into(), most.memory_kib.into())?;
        check.within(&key("argon2_passes"), cost.passes.into(), floor.passes.into(), most.passes.into())?;
        check.within(&key("hasher_threads"), self.hasher_threads as u64, 0, MOST_HASHERS)?;
        check.within(&key("hasher_queue"), self.hasher_queue as u64, 0, MOST_WAITING)?;
        let step = check.within(&key("rejection_step_ms"), self.rejection_step_ms, 0, MOST_STEP_MS)?;
        let hasher_threads =
            if self.hasher_threads == 0 { cores().saturating_sub(1).max(1) } else { self.hasher_threads };
        check.within(&key("hasher_queue_ms"), self.hasher_queue_ms, 0, MOST_WAITING_MS)?;
        let counted = (self.hasher_queue as u64 * COUNTED_MS).div_ceil(hasher_threads as u64).min(MOST_WAITING_MS);
        let hasher_queue = [self.hasher_queue_ms, counted].into_iter().find(|milliseconds| *milliseconds > 0);
        Ok(AuthenticationConfig {
            free: self.free_failures(check)?,
            realm: self.realm,
            freshness_bound: check
                .within(&key("freshness_bound_ms"), self.freshness_bound_ms, 40, MOST_BOUND_MS)
                .map(Duration::from_millis)?,
            serve_cached_for: check
                .within(&key("serve_cached_for_seconds"), self.serve_cached_for_seconds, 0, MOST_CACHED_SECONDS)
                .map(Duration::from_secs)?,
            verified_for: check.seconds(&key("verified_for_seconds"), self.verified_for_seconds, 1)?,
            verified_idle: check.seconds(&key("verified_idle_seconds"), self.verified_idle_seconds, 1)?,
            cached_accounts: check.at_least(&key("cached_accounts"), self.cached_accounts, 1)?,
            hashes: HashesConfig { upgraded: self.upgrade_hashes, cost },
            hasher_threads,
            hasher_queue: Duration::from_millis(hasher_queue.unwrap_or(QUEUE_MS)),
            hasher_queue_is_counted: self.hasher_queue > 0,
            rejection_step: Duration::from_millis(step),
        })
    }

    fn free_failures(&self, check: &ValueCheck<'_>) -> Result<FreeFailures, ConfigError> {
        // More is remembered of each source than an attack should be able to make it.
        const MOST: u32 = 1000;
        let bounded = |name: &str, value: u32| {
            check.within(&format!("authentication.{name}"), value.into(), 1, MOST.into()).map(|_| value)
        };
        Ok(FreeFailures {
            of_pair: bounded("free_failures", self.free_failures)?,
            of_account: bounded("free_failures_of_account", self.free_failures_of_account)?,
            accounts_of_source: bounded("free_accounts_of_source", self.free_accounts_of_source)?,
        })
    }
}
