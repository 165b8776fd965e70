//! Proofs: that a password was compared with a stored hash, known by a keyed MAC, so that none is hashed twice for a source.
//!
//! The one rule: the MAC covers account, stored hash and password, so that a changed password invalidates itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::Expiry;

use super::client::ClientSource;
use super::hasher::HashBooking;
use fedgate_base::moment::BootMoment;

/// What was compared, and the source that asked.
pub(super) type ProofKey = ([u8; 32], Option<ClientSource>);

/// That a password was compared with a stored hash, and the outcome.
pub(super) struct PasswordProof {
    pub(super) mac: [u8; 32],
    pub(super) right: bool,
    /// The verification, if it was scheduled.
    pub(super) booking: Option<HashBooking>,
    /// When it stops counting.
    pub(super) until: BootMoment,
    pub(super) start: BootMoment,
    /// Seconds after `start` when it was last used.
    pub(super) last_used: AtomicU64,
    /// The source that used it last.
    pub(super) last_source: AtomicU64,
}

impl PasswordProof {
    /// One that is made now for a source, and counts for so long.
    pub(super) fn new(mac: [u8; 32], from: Option<ClientSource>, right: bool, lasts: Duration) -> Self {
        let start = BootMoment::now();
        Self {
            mac,
            right,
            booking: None,
            until: start + lasts,
            start,
            last_used: AtomicU64::new(0),
            last_source: AtomicU64::new(number(from)),
        }
    }

    pub(super) fn counts(&self, now: BootMoment, idle: Duration) -> bool {
        let used = self.start + Duration::from_secs(self.last_used.load(Ordering::Relaxed));
        now < self.until && now.since(used) < idle
    }

    pub(super) fn touch(&self, now: BootMoment) {
        let seconds = now.since(self.start).as_secs();
        // Most requests of a busy account find the second unchanged and write nothing that other cores must see.
        if self.last_used.load(Ordering::Relaxed) != seconds {
            self.last_used.store(seconds, Ordering::Relaxed);
        }
    }

    /// Whether this source is another than the one that used it last.
    pub(super) fn is_strange_to(&self, from: Option<ClientSource>) -> bool {
        self.last_source.load(Ordering::Relaxed) != number(from)
    }

    pub(super) fn used_from(&self, from: Option<ClientSource>) {
        self.last_source.store(number(from), Ordering::Relaxed);
    }
}

/// The number of no source.
const NOBODY: u64 = u64::MAX;

fn number(from: Option<ClientSource>) -> u64 {
    from.map_or(NOBODY, ClientSource::number)
}

/// BLAKE3 under the process's key, over the parts with their lengths before them, so that no two questions are one.
pub fn keyed_mac(key: &[u8; 32], account: &str, stored: &str, password: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in [account.as_bytes(), stored.as_bytes(), password] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Proofs expire when they stop counting.
pub(super) struct UntilExpiry;

impl Expiry<ProofKey, Arc<PasswordProof>> for UntilExpiry {
    fn expire_after_create(&self, _: &ProofKey, proof: &Arc<PasswordProof>, _: Instant) -> Option<Duration> {
        Some(proof.until.since(proof.start))
    }
}
