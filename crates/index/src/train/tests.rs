use super::*;
use crate::compare::compare;
use crate::fields::Demographics;
use crate::fold::FoldedPerson;

/// A generator of numbers that is the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % bound
    }
}

fn name(number: usize) -> String {
    const PARTS: [&str; 8] = ["ga", "lo", "ri", "mu", "te", "vax", "no", "pi"];
    (0..4).map(|place| PARTS[number / 8_usize.pow(place) % 8]).collect()
}

/// 400 people of whom the first 100 have a second record, in which two in five have another given name.
fn people() -> Vec<(usize, FoldedPerson)> {
    let mut numbers = Numbers(7);
    let mut people = Vec::new();
    for person in 0..400 {
        let (given, family, day) = (numbers.below(4096), numbers.below(4096), numbers.below(28 * 12));
        let birth = format!("{}-{:02}-{:02}", 1940 + numbers.below(60), day / 28 + 1, day % 28 + 1);
        for copy in 0..if person < 100 { 2 } else { 1 } {
            let given = if copy == 1 && person % 5 < 2 { numbers.below(4096) } else { given };
            let document = Demographics {
                given: Some(name(given)),
                family: Some(name(family)),
                birth_date: Some(birth.clone()),
                ..Default::default()
            };
            people.push((person, FoldedPerson::of(&document)));
        }
    }
    people
}

fn examples() -> Examples {
    let people = people();
    let mut examples = Examples::default();
    for (at, (_, one)) in people.iter().enumerate() {
        for (_, other) in &people[at + 1..] {
            let pattern = compare(one, other);
            examples.random.count(pattern);
            if pattern.level(FieldName::Family) == Level::Same || pattern.level(FieldName::BirthDate) == Level::Same {
                examples.blocked.count(pattern);
            }
            examples.all_pairs += 1;
        }
    }
    examples
}

#[test]
fn the_share_of_a_wrong_name_is_found_without_labels() {
    let trained = train(&Model::default(), &examples());
    assert!((95.0..105.0).contains(&trained.matches), "{}", trained.matches);
    let given = |level| trained.model.shares(LevelTable::Of(FieldName::Given), level).of_match;
    assert!((0.54..0.66).contains(&given(Level::Same)), "{}", given(Level::Same));
    assert!(given(Level::Different) + given(Level::Far) + given(Level::Near) > 0.3);
    let expected = trained.model.one_match_in() / (500.0 * 499.0 / 2.0 / 100.0);
    assert!((0.9..1.1).contains(&expected), "{expected}");
    assert!(trained.rounds < MOST_ROUNDS);
}

#[test]
fn fields_without_values_keep_their_weights_and_changes_are_reported() {
    let (earlier, trained) = (Model::default(), train(&Model::default(), &examples()));
    for table in [FieldName::Gender, FieldName::City, FieldName::Phone].map(LevelTable::Of) {
        for level in table.levels() {
            assert_eq!(trained.model.weight(table, *level), earlier.weight(table, *level));
        }
    }
    let different =
        |change: &&WeightChange| (change.table, change.level) == (LevelTable::Of(FieldName::Given), Level::Different);
    let change = trained.changes.iter().find(different).unwrap();
    assert!(change.after > change.before + 2000, "two in five have another name: {change:?}");
    assert_eq!(Model::parse(&trained.model.to_text()).unwrap(), trained.model, "a learned model is a file");
}

#[test]
fn the_same_counts_give_the_same_model() {
    let one = train(&Model::default(), &examples());
    assert_eq!(one, train(&Model::default(), &examples()));
}

#[test]
fn nothing_is_learned_from_nothing() {
    let trained = train(&Model::default(), &Examples::default());
    assert_eq!(trained.matches, 0.0);
    assert!(trained.changes.is_empty());
}
