//! A map of a bounded weight, in which what was used least recently gives way.
//!
//! The one rule: it holds no more than its capacity. It exists because of its size: an entry costs its key, its value,
//! some 16 bytes and no allocation of its own, where a general cache adds some 350 bytes in six allocations. Nothing
//! expires here: whoever finds an entry judges whether it still counts.
//!
//! A lock is held for one lookup, never while anything waits. There are several, so that threads seldom meet.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

/// The parts, each with its own lock. Together they have one capacity.
const SHARDS: usize = 16;
/// No entry.
const NONE: u32 = u32::MAX;

/// A map of a bounded weight.
pub(super) struct BoundedMap<K, V> {
    shards: Box<[Mutex<Shard<K, V>>]>,
    hasher: RandomState,
    capacity: usize,
    weight: AtomicUsize,
    /// How much an entry counts.
    weigh: fn(&V) -> usize,
}

/// The entries of one part, in a table by key, and in a list from the least to the most recently used one.
struct Shard<K, V> {
    table: HashTable<u32>,
    slots: Vec<Slot<K, V>>,
    oldest: u32,
    newest: u32,
}

struct Slot<K, V> {
    key: K,
    value: V,
    older: u32,
    newer: u32,
}

impl<K: Hash + Eq, V> BoundedMap<K, V> {
    /// An empty map for `capacity` entries.
    pub(super) fn new(capacity: u64) -> Self {
        Self::weighed(capacity, |_| 1)
    }

    /// An empty map, in which entries count by their weight.
    pub(super) fn weighed(capacity: u64, weigh: fn(&V) -> usize) -> Self {
        let capacity = usize::try_from(capacity).unwrap_or(usize::MAX).max(1);
        // In a small map, parts would push each other out of turn.
        let shards = if capacity < 1024 { 1 } else { SHARDS };
        let shards = (0..shards).map(|_| Mutex::new(Shard::default())).collect();
        Self { shards, hasher: RandomState::new(), capacity, weight: AtomicUsize::new(0), weigh }
    }

    /// The weight of all entries.
    pub(super) fn weight(&self) -> usize {
        self.weight.load(Ordering::Relaxed)
    }

    /// The value of a key, which counts as used now.
    pub(super) fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        self.with(key, |value| value.clone())
    }

    /// Does something with the value of a key, which counts as used now, under the lock. Its weight must stay.
    pub(super) fn with<Q, R>(&self, key: &Q, work: impl FnOnce(&mut V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash);
        let at = shard.find(hash, key)?;
        shard.use_now(at);
        shard.slots.get_mut(at as usize).map(|slot| work(&mut slot.value))
    }

    /// Looks at the value of a key, without using it.
    pub(super) fn peek<Q, R>(&self, key: &Q, look: impl FnOnce(&V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        let shard = self.shard(hash);
        shard.find(hash, key).and_then(|at| shard.slot(at)).map(|slot| look(&slot.value))
    }

    /// Inserts or replaces a value, and returns the ones that gave way to others.
    pub(super) fn insert(&self, key: K, value: V) -> Vec<V> {
        let mut value = Some(value);
        self.change(key, || None, |slot| *slot = value.take())
    }

    /// Changes the value of a key, or makes one with `new` and changes that, under the lock. One that is none afterwards is
    /// removed. Returns the values of other keys that gave way.
    pub(super) fn change(
        &self,
        key: K,
        new: impl FnOnce() -> Option<V>,
        change: impl FnOnce(&mut Option<V>),
    ) -> Vec<V> {
        let hash = self.hasher.hash_one(&key);
        let mut shard = self.shard(hash);
        // Taken out and put back as the newest.
        let before = shard.find(hash, &key).and_then(|at| shard.remove(at, &self.hasher));
        self.shrinks(before.as_ref());
        let mut value = before.or_else(new);
        change(&mut value);
        let Some(value) = value else { return vec![] };
        self.weight.fetch_add((self.weigh)(&value), Ordering::Relaxed);
        shard.push(hash, key, value, &self.hasher);
        let mut left = vec![];
        // The entry itself stays, however much it weighs: its own bound is its owner's.
        while self.weight() > self.capacity && shard.oldest != shard.newest {
            let oldest = shard.oldest;
            let Some(value) = shard.remove(oldest, &self.hasher) else { break };
            self.shrinks(Some(&value));
            left.push(value);
        }
        left
    }

    /// Removes a key.
    pub(super) fn remove<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash);
        let removed = shard.find(hash, key).and_then(|at| shard.remove(at, &self.hasher));
        self.shrinks(removed.as_ref());
        removed
    }

    /// Removes, in each part, the least recently used entries that are over, up to the first that is not. Returns how many.
    pub(super) fn sweep(&self, is_over: impl Fn(&V) -> bool, mut each: impl FnMut(V)) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            while shard.slot(shard.oldest).is_some_and(|slot| is_over(&slot.value)) {
                let oldest = shard.oldest;
                let Some(value) = shard.remove(oldest, &self.hasher) else { break };
                self.shrinks(Some(&value));
                each(value);
            }
            shard.give_back();
        }
    }

    /// Removes everything, and returns it. The locks are held only while it is taken out.
    pub(super) fn take_all(&self) -> Vec<V> {
        let mut all = vec![];
        for shard in &self.shards {
            let taken = std::mem::take(&mut *lock(shard));
            taken.slots.iter().for_each(|slot| self.shrinks(Some(&slot.value)));
            all.extend(taken.slots.into_iter().map(|slot| slot.value));
        }
        all
    }

    /// Looks at everything, in no order.
    pub(super) fn for_each(&self, mut look: impl FnMut(&K, &V)) {
        for shard in &self.shards {
            lock(shard).slots.iter().for_each(|slot| look(&slot.key, &slot.value));
        }
    }

    fn shrinks(&self, by: Option<&V>) {
        if let Some(value) = by {
            self.weight.fetch_sub((self.weigh)(value), Ordering::Relaxed);
        }
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard<K, V>> {
        // The table uses the other end of the hash.
        let number = (hash >> 32) as usize % self.shards.len().max(1);
        // INVARIANT: `new` makes at least one part, so that each number is one.
        #[expect(clippy::indexing_slicing, reason = "the number is below the length, which is not zero")]
        lock(&self.shards[number])
    }
}

impl<K, V> Default for Shard<K, V> {
    fn default() -> Self {
        Self { table: HashTable::new(), slots: Vec::new(), oldest: NONE, newest: NONE }
    }
}

impl<K: Hash + Eq, V> Shard<K, V> {
    fn slot(&self, at: u32) -> Option<&Slot<K, V>> {
        self.slots.get(at as usize)
    }

    fn find<Q>(&self, hash: u64, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.table.find(hash, |at| self.slot(*at).is_some_and(|slot| slot.key.borrow() == key)).copied()
    }

    fn use_now(&mut self, at: u32) {
        if self.newest != at {
            self.unlink(at);
            self.link(at);
        }
    }

    /// Adds an entry whose key is not there, as the newest.
    fn push(&mut self, hash: u64, key: K, value: V, hasher: &RandomState) {
        // Not doubled, as a vector would do: half of a large map would be empty.
        if self.slots.len() == self.slots.capacity() {
            self.slots.reserve_exact(self.slots.len() / 4 + 8);
        }
        let Ok(at) = u32::try_from(self.slots.len()) else { return };
        self.slots.push(Slot { key, value, older: NONE, newer: NONE });
        let slots = &self.slots;
        let rehash = |at: &u32| slots.get(*at as usize).map_or(0, |slot| hasher.hash_one(&slot.key));
        self.table.insert_unique(hash, at, rehash);
        self.link(at);
    }

    /// Removes an entry; the last one takes its place in memory.
    fn remove(&mut self, at: u32, hasher: &RandomState) -> Option<V> {
        let hash = hasher.hash_one(&self.slot(at)?.key);
        self.unlink(at);
        self.table.find_entry(hash, |other| *other == at).ok()?.remove();
        let last = u32::try_from(self.slots.len()).ok()?.checked_sub(1)?;
        let removed = self.slots.swap_remove(at as usize);
        if at != last {
            let moved = self.slot(at)?;
            let (hash, older, newer) = (hasher.hash_one(&moved.key), moved.older, moved.newer);
            if let Some(number) = self.table.find_mut(hash, |other| *other == last) {
                *number = at;
            }
            self.set_newer(older, at);
            self.set_older(newer, at);
        }
        Some(removed.value)
    }

    /// Makes an entry that is in no list the newest.
    fn link(&mut self, at: u32) {
        let before = self.newest;
        if let Some(slot) = self.slots.get_mut(at as usize) {
            (slot.older, slot.newer) = (before, NONE);
        }
        self.set_newer(before, at);
        self.newest = at;
    }

    fn unlink(&mut self, at: u32) {
        let Some((older, newer)) = self.slot(at).map(|slot| (slot.older, slot.newer)) else { return };
        self.set_newer(older, newer);
        self.set_older(newer, older);
    }

    /// Says which entry is newer than `at`; without one, which is the oldest of all.
    fn set_newer(&mut self, at: u32, newer: u32) {
        match self.slots.get_mut(at as usize) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
    }

    /// Says which entry is older than `at`; without one, which is the newest of all.
    fn set_older(&mut self, at: u32, older: u32) {
        match self.slots.get_mut(at as usize) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
    }

    /// Returns memory that entries have left.
    fn give_back(&mut self) {
        if self.slots.len() < self.slots.capacity() / 4 {
            self.slots.shrink_to(self.slots.len() * 2);
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn the_least_recently_used_entry_gives_way() {
        let map = BoundedMap::new(3);
        for number in 1..=3 {
            assert!(map.insert(number, number * 10).is_empty());
        }
        assert_eq!(map.get(&1), Some(10), "used");
        assert_eq!(map.peek(&2, |value| *value), Some(20), "looked at");
        assert_eq!(map.insert(4, 40), [20]);
        assert_eq!((map.get(&2), map.insert(1, 11), map.insert(5, 50)), (None, vec![], vec![30]));
        assert_eq!((map.remove(&1), map.remove(&1), map.weight()), (Some(11), None, 2));
        let mut all = map.take_all();
        all.sort_unstable();
        assert_eq!((all, map.weight(), map.get(&4)), (vec![40, 50], 0, None));
        assert_eq!((map.insert(6, 60), map.get(&6)), (vec![], Some(60)));
    }

    #[test]
    fn entries_count_by_their_weight_and_one_may_be_as_heavy_as_it_is() {
        let map = BoundedMap::weighed(4, Vec::len);
        let grow =
            |key, by: usize| map.change(key, || Some(vec![]), |value| value.as_mut().unwrap().extend(vec![key; by]));
        assert_eq!(grow(1, 2), Vec::<Vec<i32>>::new());
        assert_eq!((grow(2, 1), map.weight()), (vec![], 3));
        assert_eq!((grow(2, 2), map.weight()), (vec![vec![1, 1]], 3));
        assert_eq!((grow(3, 9), map.weight()), (vec![vec![2, 2, 2]], 9));
        assert_eq!((map.change(3, || None, |value| *value = None), map.weight()), (vec![], 0));
    }

    #[test]
    fn a_sweep_ends_at_the_first_entry_that_is_not_over() {
        let map = BoundedMap::new(100);
        (0..10).for_each(|number| drop(map.insert(number, number)));
        map.get(&0);
        let mut swept = vec![];
        map.sweep(|value| *value < 4, |value| swept.push(value));
        assert_eq!((swept, map.weight(), map.get(&0)), (vec![1, 2, 3], 7, Some(0)));
    }

    /// Against a list that is searched from end to end.
    #[test]
    fn it_does_what_a_plain_list_does() {
        let mut random = StdRng::seed_from_u64(7);
        let (map, mut list) = (BoundedMap::new(20), VecDeque::<(u8, u32)>::new());
        for step in 0..20_000 {
            let key = random.random_range(0..40u8);
            let at = list.iter().position(|(other, _)| *other == key);
            match random.random_range(0..4) {
                0 => {
                    let found = at.and_then(|at| list.remove(at));
                    list.extend(found);
                    assert_eq!(map.get(&key), found.map(|(_, value)| value), "step {step}");
                }
                1 => assert_eq!(map.remove(&key), at.and_then(|at| list.remove(at)).map(|(_, value)| value)),
                _ => {
                    at.and_then(|at| list.remove(at));
                    list.push_back((key, step));
                    let left = if list.len() > 20 { list.pop_front() } else { None };
                    assert_eq!(map.insert(key, step), left.map(|(_, value)| value).into_iter().collect::<Vec<_>>());
                }
            }
            assert_eq!(map.weight(), list.len());
        }
        let mut seen = vec![];
        map.for_each(|key, value| seen.push((*key, *value)));
        seen.sort_unstable();
        let mut expected = Vec::from(list);
        expected.sort_unstable();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_large_map_has_one_capacity_over_all_its_parts() {
        let map = BoundedMap::new(2000);
        let left: usize = (0..5000).map(|number: u32| map.insert(number, number).len()).sum();
        assert_eq!((map.weight(), left), (2000, 3000));
        assert!(map.get(&4999).is_some());
    }
}
