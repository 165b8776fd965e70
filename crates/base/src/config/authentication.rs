//! The section `[authentication]`: passwords, and how long results are remembered.

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
    /// The longest time for which a cached right may outlive the last confirmation that nothing changed.
    pub freshness_bound: Duration,
    /// How much longer it may be used while the database is away; zero refuses at once.
    pub serve_cached_for: Duration,
    /// The longest time for which a verified password is remembered.
    pub verified_for: Duration,
    /// How long a verified password is remembered without use.
    pub verified_idle: Duration,
    /// The most accounts that are remembered.
    pub cached_accounts: u64,
    /// The kind of new hashes.
    pub hashes: HashesConfig,
    /// Threads that verify passwords.
    pub hasher_threads: usize,
    /// The most work, as an estimated time, that may wait in each lane; more is refused with 503.
    pub hasher_queue: Duration,
    /// Whether `hasher_queue` was configured the old way, as a count of verifications.
    pub hasher_queue_is_counted: bool,
    /// Rejections are answered after a whole multiple of this time; zero answers at once.
    pub rejection_step: Duration,
    /// The failures without consequence.
    pub free: FreeFailures,
}

/// The kind of new hashes.
#[derive(Debug, Clone, Copy)]
pub struct HashesConfig {
    /// Whether bcrypt hashes are replaced by argon2id after a login, and new hashes are argon2id. None if the operator
    /// has not decided; then the store's origin decides.
    pub upgraded: Option<bool>,
    /// The cost of new argon2id hashes.
    pub cost: HashCost,
}

/// How many failures have no consequence. The next one starts a wait.
#[derive(Debug, Clone, Copy)]
pub struct FreeFailures {
    /// Different wrong passwords for one account from one client address.
    pub of_pair: u32,
    /// Wrong passwords for one account from all client addresses that it does not know.
    pub of_account: u32,
    /// Accounts on which one client address fails.
    pub accounts_of_source: u32,
}

/// Gateways stay listed for an hour after their last report. A caller that waits for instances must still find each
/// one that may admit.
const MOST_CACHED_SECONDS: u64 = 2400;
const MOST_BOUND_MS: u64 = 600_000;
/// The longest time, in ms, for which any instance may use a cached right after a confirmation.
pub const LONGEST_BOUND_MS: u64 = MOST_BOUND_MS + 1000 * MOST_CACHED_SECONDS;
/// The highest cost of a password hash. Beyond it, hashing harms the gateway more than an attacker.
const MOST_COST: HashCost = HashCost { memory_kib: 256 * 1024, passes: 10 };
/// The most hashing threads; each has its own arena.
const MOST_HASHERS: u64 = 256;
const MOST_WAITING: u64 = 100_000;
const MOST_WAITING_MS: u64 = 600_000;
/// A caller waits no longer for a first sign-in; some 230 hashes of argon2id, or 45 of bcrypt 12, on each thread.
const QUEUE_MS: u64 = 10_000;
/// The assumed duration of a verification where the queue is configured as a count.
const COUNTED_MS: u64 = 40;
/// The longest step: a caller who mistypes a password waits this long.
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
        // The realm is a quoted string in a header: a quote would end it.
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
            // One core is left for requests, if there are several.
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
        // Each client address remembers this many entries, so an attacker must not be able to fill more memory.
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
