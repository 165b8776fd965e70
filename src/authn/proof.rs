//! Proofs that a password was compared with a stored hash. Each has a keyed MAC, so that no password is hashed twice
//! for one client address.
//!
//! The one rule: the MAC covers account, stored hash and password, so a changed password invalidates its proofs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Authenticator;
use super::client::ClientSource;
use super::hasher::HashBooking;
use fedgate_base::moment::BootMoment;

/// How long a wrong password is remembered as wrong.
pub(super) const REJECTED_FOR: Duration = Duration::from_secs(10);

/// The MAC of the comparison, and the client address.
pub(super) type ProofKey = ([u8; 32], Option<ClientSource>);

/// A comparison of a password with a stored hash, and its outcome.
pub(super) struct PasswordProof {
    pub(super) mac: [u8; 32],
    pub(super) right: bool,
    /// The verification, if it was scheduled.
    pub(super) booking: Option<HashBooking>,
    /// When the proof expires.
    pub(super) until: BootMoment,
    pub(super) start: BootMoment,
    /// Seconds from `start` to its last use.
    pub(super) last_used: AtomicU64,
    /// The number of the client address that used it last.
    pub(super) last_source: AtomicU64,
}

impl PasswordProof {
    /// A proof that is made now for a client address, and expires after `lasts`.
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
        now < self.until && now.since(self.last_used()) < idle
    }

    /// When it was last used, to the second.
    pub(super) fn last_used(&self) -> BootMoment {
        self.start + Duration::from_secs(self.last_used.load(Ordering::Relaxed))
    }

    pub(super) fn touch(&self, now: BootMoment) {
        let seconds = now.since(self.start).as_secs();
        // Most requests of a busy account find the same second, and write nothing that other cores must see.
        if self.last_used.load(Ordering::Relaxed) != seconds {
            self.last_used.store(seconds, Ordering::Relaxed);
        }
    }

    /// A number that differs for another password.
    pub(super) fn mark(&self) -> u64 {
        short(self.mac)
    }

    /// Whether another client address used it last.
    pub(super) fn is_strange_to(&self, from: Option<ClientSource>) -> bool {
        self.last_source.load(Ordering::Relaxed) != number(from)
    }

    pub(super) fn used_from(&self, from: Option<ClientSource>) {
        self.last_source.store(number(from), Ordering::Relaxed);
    }
}

/// The number for clients without an address.
const NOBODY: u64 = u64::MAX;

fn number(from: Option<ClientSource>) -> u64 {
    from.map_or(NOBODY, ClientSource::number)
}

/// BLAKE3 under the process's key. Each part is preceded by its length, so that no two different inputs have one
/// encoding.
pub fn keyed_mac(key: &[u8; 32], account: &str, stored: &str, password: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in [account.as_bytes(), stored.as_bytes(), password] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// The first 64 bits of a MAC: enough to compare passwords for the throttle, where a collision admits nobody.
pub(super) fn short(mac: [u8; 32]) -> u64 {
    u64::from_le_bytes(mac.first_chunk().copied().unwrap_or_default())
}

impl Authenticator {
    /// The key of all MACs of this process: that of its predecessor, if that has handed its proofs over.
    pub(super) fn key(&self) -> &[u8; 32] {
        self.handed_key.get().unwrap_or(&self.key)
    }

    /// The MAC of a comparison.
    pub(super) fn mac(&self, account: &str, stored: &str, password: &[u8]) -> [u8; 32] {
        keyed_mac(self.key(), account, stored, password)
    }

    /// Identifies a password for the throttle, whatever hash it is compared with.
    pub(super) fn fingerprint(&self, account: &str, password: &[u8]) -> u64 {
        short(self.mac(account, "", password))
    }

    /// Identifies the stored hash that a password was proved against, for the throttle.
    pub(super) fn stored_mark(&self, account: &str, stored: &str) -> u64 {
        short(self.mac(account, stored, b""))
    }

    /// The outcome of a comparison that was made now.
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
}
