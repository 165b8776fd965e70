//! The proofs that a gateway remembers, and the comparisons that are being made.
//!
//! The one rule: what is asked once is compared once, and wrong passwords push out no right ones: they have room of their
//! own, and are over soon.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;

use super::bounded::BoundedMap;
use super::cache::{DropCause, DroppedEntries};
use super::proof::{PasswordProof, ProofKey, REJECTED_FOR};
use fedgate_base::moment::BootMoment;

/// The most wrong passwords that are remembered.
const MOST_WRONG: u64 = 4096;
/// The most comparisons that callers of the same password share at a time. Beyond it, each is made for itself.
const MOST_UNDERWAY: u64 = 10_000;

/// Proofs by their MAC and the client address. The MAC covers account, stored hash and password, so a changed password
/// invalidates its proofs.
pub(super) struct ProofCache {
    right: BoundedMap<ProofKey, Arc<PasswordProof>>,
    wrong: BoundedMap<ProofKey, Arc<PasswordProof>>,
    /// Only while they are compared, and for some seconds if the caller goes away meanwhile.
    underway: Cache<ProofKey, Arc<PasswordProof>>,
    dropped: DroppedEntries,
    /// How long a proof lasts without use.
    idle: Duration,
}

impl ProofCache {
    pub(super) fn new(capacity: u64, idle: Duration) -> Self {
        let underway = Cache::builder().max_capacity(MOST_UNDERWAY).time_to_live(REJECTED_FOR);
        Self {
            right: BoundedMap::new(capacity),
            wrong: BoundedMap::new(capacity.min(MOST_WRONG)),
            underway: underway.build(),
            dropped: DroppedEntries::default(),
            idle,
        }
    }

    pub(super) fn get(&self, key: &ProofKey) -> Option<Arc<PasswordProof>> {
        self.right.get(key).or_else(|| self.wrong.get(key))
    }

    pub(super) fn insert(&self, key: ProofKey, proof: Arc<PasswordProof>) {
        let of_kind = if proof.right { &self.right } else { &self.wrong };
        of_kind.insert(key, proof).iter().for_each(|left| self.dropped.note(left.start, DropCause::Room));
    }

    pub(super) async fn invalidate(&self, key: &ProofKey) {
        self.underway.invalidate(key).await;
        let found = [self.right.remove(key), self.wrong.remove(key)];
        found.iter().flatten().for_each(|proof| self.dropped.note(proof.start, DropCause::Change));
    }

    /// The proof of a comparison that is made now, once for all who ask for it meanwhile.
    ///
    /// # Errors
    /// The comparison failed, for all of them.
    pub(super) async fn compared<E: Send + Sync + 'static>(
        &self,
        key: ProofKey,
        compare: impl Future<Output = Result<Arc<PasswordProof>, E>>,
    ) -> Result<Arc<PasswordProof>, Arc<E>> {
        let proof = self.underway.try_get_with(key, async {
            let proof = compare.await?;
            // Before the entry of the comparison is gone: whoever finds none of both compares again.
            self.insert(key, Arc::clone(&proof));
            Ok(proof)
        });
        let proof = proof.await?;
        self.underway.invalidate(&key).await;
        Ok(proof)
    }

    /// How many proofs there are, without those that are over.
    pub(super) fn count(&self) -> u64 {
        let now = BootMoment::now();
        for kind in [&self.right, &self.wrong] {
            kind.sweep(|proof| !proof.counts(now, self.idle), |proof| self.dropped.note(proof.start, DropCause::Age));
        }
        (self.right.weight() + self.wrong.weight()) as u64
    }

    /// Looks at each right proof.
    pub(super) fn each_right(&self, mut look: impl FnMut(&ProofKey, &PasswordProof)) {
        self.right.for_each(|key, proof| look(key, proof));
    }

    /// The proofs that were dropped.
    pub(super) fn dropped(&self) -> &DroppedEntries {
        &self.dropped
    }

    /// Forgets all of them, as time does.
    #[cfg(test)]
    pub(super) fn invalidate_all(&self) {
        let all = [self.right.take_all(), self.wrong.take_all()];
        all.iter().flatten().for_each(|proof| self.dropped.note(proof.start, DropCause::Change));
        self.underway.invalidate_all();
    }
}
