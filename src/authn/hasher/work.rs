//! The cost of comparing a password with a stored hash, as estimated time of one thread.
//!
//! The one rule: the estimate uses the hash's own parameters, scaled by how long hashes of its kind have taken on this
//! machine. An attacker may have written a stored hash to keep the hashers busy, so hashes count by their work.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fedgate_core::password::{HashCost, HashWork};

/// The least that a job counts, because queueing has a cost too.
const LEAST: Duration = Duration::from_millis(1);
/// The duration of a bcrypt round, and of a KiB in a pass of argon2id, on a slow core, in ns. A whole hash of today
/// takes 250 and 60 ms.
const TYPICAL: (u64, u64) = (61_000, 640);
/// The largest factor by which a measurement counts as different. Beyond it, the machine is stuck rather than slow.
const FURTHEST: u64 = 8;
/// Shorter hashes measure the thread's other work more than the hashing.
const TELLING: Duration = Duration::from_millis(5);

/// The measured pace of hashing, in ns per unit of work.
pub(super) struct HashingPace {
    bcrypt: AtomicU64,
    argon2id: AtomicU64,
}

impl Default for HashingPace {
    fn default() -> Self {
        Self { bcrypt: AtomicU64::new(TYPICAL.0), argon2id: AtomicU64::new(TYPICAL.1) }
    }
}

impl HashingPace {
    /// The estimated duration of a hash of this work.
    pub(super) fn estimate(&self, work: HashWork) -> Duration {
        let (pace, units, _) = self.of(work);
        Duration::from_nanos(pace.load(Ordering::Relaxed).saturating_mul(units)).max(LEAST)
    }

    /// The estimated duration of the most expensive hash that is made today, here or by Thalamus.
    pub(super) fn dearest_of_today(&self, own: HashCost) -> Duration {
        self.estimate(own.work()).max(self.estimate(HashWork::OF_THALAMUS))
    }

    /// How many hashes like Thalamus's are typically made in this time, at least one. Measurements on this machine do
    /// not count, because they would reveal which kinds of hash occurred.
    pub(super) fn verifications_in(time: Duration) -> u32 {
        let typical = Self::default().estimate(HashWork::OF_THALAMUS);
        u32::try_from(time.as_nanos() / typical.as_nanos().max(1)).unwrap_or(u32::MAX).max(1)
    }

    /// Learns that a hash of this work took this long.
    pub(super) fn learn(&self, work: HashWork, took: Duration) {
        let (pace, units, typical) = self.of(work);
        if units == 0 || Duration::from_nanos(typical.saturating_mul(units)) < TELLING {
            return;
        }
        let measured = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) / units;
        let measured = measured.clamp(typical / FURTHEST, typical * FURTHEST);
        // Each measurement counts for an eighth, so an interrupted hash has little effect. If two threads store at
        // once, one measurement is lost.
        pace.store((pace.load(Ordering::Relaxed) * 7 + measured) / 8, Ordering::Relaxed);
    }

    fn of(&self, work: HashWork) -> (&AtomicU64, u64, u64) {
        match work {
            HashWork::Bcrypt { rounds } => (&self.bcrypt, rounds, TYPICAL.0),
            HashWork::Argon2id { kib_passes } => (&self.argon2id, kib_passes, TYPICAL.1),
            HashWork::None => (&self.argon2id, 0, TYPICAL.1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT_12: HashWork = HashWork::OF_THALAMUS;

    #[test]
    fn an_estimate_follows_the_parameters_and_what_hashes_have_taken() {
        let pace = HashingPace::default();
        let milliseconds = |work| pace.estimate(work).as_millis();
        assert_eq!((milliseconds(BCRYPT_12), milliseconds(HashCost::DEFAULT.work())), (249, 60));
        assert_eq!(milliseconds(HashWork::Bcrypt { rounds: 1 << 15 }), 1998, "eight times as much");
        assert_eq!((milliseconds(HashWork::None), milliseconds(HashWork::Bcrypt { rounds: 16 })), (1, 1));
        assert_eq!(pace.dearest_of_today(HashCost::DEFAULT).as_millis(), 249);
        assert_eq!(pace.dearest_of_today(HashCost { memory_kib: 262_144, passes: 10 }).as_millis(), 1677);
        (0..100).for_each(|_| pace.learn(BCRYPT_12, Duration::from_millis(550)));
        assert!((540..=550).contains(&milliseconds(BCRYPT_12)), "{}", milliseconds(BCRYPT_12));
        assert_eq!(milliseconds(HashCost::DEFAULT.work()), 60, "each kind by itself");
        pace.learn(BCRYPT_12, Duration::from_millis(150));
        assert!((490..510).contains(&milliseconds(BCRYPT_12)), "one outlier moves it by an eighth");
    }

    #[test]
    fn absurd_measurements_are_bounded_and_short_ones_are_ignored() {
        let pace = HashingPace::default();
        pace.learn(HashWork::Bcrypt { rounds: 64 }, Duration::from_secs(1));
        pace.learn(HashWork::None, Duration::from_secs(1));
        assert_eq!(pace.estimate(BCRYPT_12).as_millis(), 249);
        (0..1000).for_each(|_| pace.learn(BCRYPT_12, Duration::from_secs(3600)));
        assert!((1900..=1998).contains(&pace.estimate(BCRYPT_12).as_millis()));
        (0..1000).for_each(|_| pace.learn(BCRYPT_12, Duration::from_millis(5)));
        assert!((31..=32).contains(&pace.estimate(BCRYPT_12).as_millis()), "{:?}", pace.estimate(BCRYPT_12));
    }
}
