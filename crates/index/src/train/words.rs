//! Counts how often words occur in names, in bounded memory.

use std::collections::{BTreeMap, HashMap};

use crate::fold::{FoldedName, FoldedPerson};
use crate::model::NameFrequencies;

/// The most words that are counted at once. Beyond it the rarest are dropped (lossy counting).
const MAX_COUNTED: usize = 500_000;
/// The most words that a model lists, and how often a listed word occurs at least.
const MAX_LISTED: usize = 5_000;
const LEAST_COUNT: u64 = 3;

/// How often words occur in given names and surnames.
#[derive(Debug, Clone, Default)]
pub struct NameCounts {
    given: WordCounts,
    family: WordCounts,
}

#[derive(Debug, Clone, Default)]
struct WordCounts {
    words: HashMap<Box<str>, u64>,
    people: u64,
    dropped_below: u64,
}

impl NameCounts {
    /// Counts the names of a record.
    pub fn count(&mut self, person: &FoldedPerson) {
        self.given.count(&person.given);
        self.family.count(&person.family);
    }

    /// The frequencies of given names and of surnames. Nothing, before both have been counted.
    #[must_use]
    pub fn frequencies(&self) -> Option<[NameFrequencies; 2]> {
        Some([self.given.frequencies()?, self.family.frequencies()?])
    }
}

impl WordCounts {
    fn count(&mut self, name: &FoldedName) {
        self.people += u64::from(!name.is_missing());
        for word in name.words() {
            match self.words.get_mut(word.standard()) {
                Some(count) => *count += 1,
                None => drop(self.words.insert(word.standard().into(), self.dropped_below + 1)),
            }
        }
        while self.words.len() > MAX_COUNTED {
            self.dropped_below += 1;
            self.words.retain(|_, count| *count > self.dropped_below);
        }
    }

    fn frequencies(&self) -> Option<NameFrequencies> {
        let people = self.people as f64;
        let mut counted: Vec<(&str, u64)> = self.words.iter().map(|(word, count)| (word.as_ref(), *count)).collect();
        counted.sort_unstable_by(|(word, count), (other, of_other)| of_other.cmp(count).then(word.cmp(other)));
        let is_listed = |(_, count): &&(&str, u64)| *count >= LEAST_COUNT;
        let listed = counted.iter().take(MAX_LISTED).take_while(is_listed).count();
        let (listed, others) = counted.split_at_checked(listed)?;
        let share = |count: f64| format!("{:.3e}", (count / people).clamp(1e-12, 1.0)).parse().unwrap_or(1.0);
        let words: BTreeMap<String, f64> =
            listed.iter().map(|(word, count)| ((*word).to_owned(), share(*count as f64))).collect();
        // The mean of the others. Errors of spelling are among them, so that it is at least one of all people.
        let sum: u64 = others.iter().map(|(_, count)| count).sum();
        let mean = if others.is_empty() { 1.0 } else { sum as f64 / others.len() as f64 };
        (people > 0.0).then(|| NameFrequencies { others: share(mean), words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::Demographics;

    #[test]
    fn shares_are_of_people_and_rare_words_have_a_common_one() {
        let mut counts = NameCounts::default();
        assert!(counts.frequencies().is_none());
        for number in 0..100 {
            let family = if number < 40 { "García López".to_owned() } else { format!("Rare{number}") };
            let person = Demographics { given: Some("Ana".into()), family: Some(family), ..Default::default() };
            counts.count(&FoldedPerson::of(&person));
        }
        let [given, family] = counts.frequencies().unwrap();
        assert_eq!(given.words["ana"], 1.0);
        assert_eq!((family.words["garcia"], family.words["lopez"], family.words.len()), (0.4, 0.4, 2));
        assert_eq!(family.others, 0.01);
    }

    #[test]
    fn counting_has_a_bound_and_keeps_the_frequent_words() {
        let mut counts = WordCounts::default();
        let frequent = FoldedName::of("garcia");
        for number in 0..MAX_COUNTED + 1000 {
            counts.count(&FoldedName::of(&format!("x{number}")));
            counts.count(&frequent);
        }
        assert!(counts.words.len() <= MAX_COUNTED);
        assert_eq!(counts.words["garcia"], (MAX_COUNTED + 1000) as u64);
    }
}
