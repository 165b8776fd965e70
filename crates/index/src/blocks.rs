//! The pairs of a whole register that share a blocking key, each once, in bounded memory.
//!
//! The one rule: a pair is shown once, at the earlier of its two persons, however many keys it shares. So a register can be
//! walked through from person to person, by several threads, and from any person on.
//!
//! A key that very many persons share says little, and its pairs would be most of the work: such a block is left out. Two
//! records of one person that share nothing else are then not found.

use crate::fold::FoldedPerson;
use crate::keys::blocking_keys;

/// The most persons of a register.
pub const MAX_PERSONS: usize = 1 << PLACE_BITS;

/// An entry has a key's highest bits, and below them the place of a person. Keys that have these bits in common are taken
/// for one, which only adds pairs to be judged.
const PLACE_BITS: u32 = 24;
const PLACE: u64 = (1 << PLACE_BITS) - 1;

/// The keys of a register, as they are collected.
#[derive(Debug)]
struct BlockEntries {
    entries: Vec<u64>,
    persons: u32,
}

/// Which persons of a register share keys.
#[derive(Debug)]
pub struct Blocks {
    /// Where each block begins in `members`, and the end of the last one.
    begins: Vec<u32>,
    /// The places of persons, ascending within each block.
    members: Vec<u32>,
    /// Where the blocks of each person begin in `of_persons`, and the end of the last one.
    of_person: Vec<u32>,
    of_persons: Vec<u32>,
    /// Blocks that were left out because they have too many persons.
    pub left_out: usize,
}

/// What one thread remembers of the persons whom it has seen.
#[derive(Debug)]
pub struct SeenPersons(Vec<u32>);

impl BlockEntries {
    fn add(&mut self, person: &FoldedPerson) {
        let place = u64::from(self.persons);
        self.entries.extend(blocking_keys(person).into_iter().map(|key| (key & !PLACE) | place));
        self.persons += 1;
    }

    fn blocks(mut self, most: usize) -> Blocks {
        self.entries.sort_unstable();
        self.entries.dedup();
        let (mut begins, mut members, mut left_out) = (vec![0_u32], Vec::new(), 0);
        let mut counts = vec![0_u32; self.persons as usize + 1];
        for block in self.entries.chunk_by(|one, other| one & !PLACE == other & !PLACE) {
            match block.len() {
                0 | 1 => continue,
                persons if persons > most => left_out += 1,
                _ => {
                    for entry in block {
                        let place = place_of(*entry);
                        members.push(place);
                        if let Some(count) = counts.get_mut(place as usize) {
                            *count += 1;
                        }
                    }
                    begins.push(length(&members));
                }
            }
        }
        drop(self.entries);
        members.shrink_to_fit();
        // Counts become beginnings.
        let mut sum = 0;
        for count in &mut counts {
            sum += std::mem::replace(count, sum);
        }
        let (of_person, mut next) = (counts.clone(), counts);
        let mut of_persons = vec![0_u32; members.len()];
        for (block, bounds) in (0_u32..).zip(begins.windows(2)) {
            for place in slice(&members, bounds) {
                if let Some(next) = next.get_mut(*place as usize) {
                    if let Some(free) = of_persons.get_mut(*next as usize) {
                        *free = block;
                    }
                    *next += 1;
                }
            }
        }
        Blocks { begins, members, of_person, of_persons, left_out }
    }
}

fn place_of(entry: u64) -> u32 {
    u32::try_from(entry & PLACE).unwrap_or(u32::MAX)
}

/// INVARIANT: 2^24 persons of 56 keys each are fewer than 2^32 entries.
fn length(members: &[u32]) -> u32 {
    u32::try_from(members.len()).unwrap_or(u32::MAX)
}

fn slice<'a>(all: &'a [u32], bounds: &[u32]) -> &'a [u32] {
    let [begin, end] = bounds else { return &[] };
    all.get(*begin as usize..*end as usize).unwrap_or_default()
}

impl Blocks {
    /// The blocks of two to `most` persons. Persons beyond [`MAX_PERSONS`] are in none.
    #[must_use]
    pub fn of(persons: &[FoldedPerson], most: usize) -> Self {
        let persons = persons.get(..MAX_PERSONS).unwrap_or(persons);
        // Counted first: a list that grows takes twice its room.
        let count = persons.iter().map(|person| blocking_keys(person).len()).sum();
        let mut entries = BlockEntries { entries: Vec::with_capacity(count), persons: 0 };
        persons.iter().for_each(|person| entries.add(person));
        entries.blocks(most)
    }

    /// How many persons there are.
    #[must_use]
    pub fn persons(&self) -> usize {
        self.of_person.len().saturating_sub(1)
    }

    /// What a thread needs to remember.
    #[must_use]
    pub fn nobody_seen(&self) -> SeenPersons {
        SeenPersons(vec![u32::MAX; self.persons()])
    }

    /// The persons behind `place` who share a key with the person there, each once. `seen` must be of these blocks.
    pub fn later(&self, place: u32, seen: &mut SeenPersons, mut found: impl FnMut(u32)) {
        let at = place as usize;
        let Some(bounds) = self.of_person.get(at..at.saturating_add(2)) else { return };
        for block in slice(&self.of_persons, bounds) {
            let block = *block as usize;
            let Some(bounds) = self.begins.get(block..block.saturating_add(2)) else { continue };
            for other in slice(&self.members, bounds).iter().rev().take_while(|other| **other > place) {
                if let Some(last) = seen.0.get_mut(*other as usize)
                    && std::mem::replace(last, place) != place
                {
                    found(*other);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::{Demographics, Fields};
    use serde_json::json;
    use std::collections::BTreeSet;

    fn register(people: usize) -> Vec<FoldedPerson> {
        let names = ["Ana", "Eva", "Pedro", "Rui", "Salma", "Omar"];
        let families = ["García", "López", "Haddad", "Silva", "Costa"];
        let person = |at: usize| {
            let document = json!({
                "name": names[at % 6], "lastname": families[(at / 2) % 5], "dob": format!("19{:02}-0{}-11", at % 7 + 50, at % 9 + 1),
                "address": {"postcode": format!("290{:02}", at % 11)}
            });
            FoldedPerson::of(&Demographics::take(&Fields::default(), &document))
        };
        (0..people).map(person).collect()
    }

    fn pairs(people: &[FoldedPerson], most: usize) -> Vec<(u32, u32)> {
        let blocks = Blocks::of(people, most);
        let (mut seen, mut pairs) = (blocks.nobody_seen(), vec![]);
        for place in 0..u32::try_from(people.len()).unwrap() {
            blocks.later(place, &mut seen, |other| pairs.push((place, other)));
        }
        pairs
    }

    #[test]
    fn every_pair_that_shares_a_key_is_shown_once() {
        let people = register(150);
        let keys: Vec<BTreeSet<u64>> =
            people.iter().map(|person| blocking_keys(person).into_iter().collect()).collect();
        let mut expected = BTreeSet::new();
        for (one, of_one) in (0_u32..).zip(&keys) {
            for (other, of_other) in (0_u32..).zip(&keys).skip(one as usize + 1) {
                if !of_one.is_disjoint(of_other) {
                    expected.insert((one, other));
                }
            }
        }
        let mut found = pairs(&people, usize::MAX);
        let count = found.len();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), count, "each once");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
        assert!(expected.len() > 500, "{}", expected.len());
    }

    #[test]
    fn a_block_of_too_many_is_left_out_and_said() {
        let people: Vec<_> = std::iter::repeat_n(register(1).remove(0), 20).collect();
        assert_eq!(pairs(&people, 20).len(), 190);
        assert_eq!(pairs(&people, 19).len(), 0);
        assert!(Blocks::of(&people, 19).left_out > 0);
        assert_eq!(Blocks::of(&[], 2).persons(), 0);
    }
}
