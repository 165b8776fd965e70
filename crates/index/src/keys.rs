//! Blocking keys: numbers that two records of one person probably share.
//!
//! The one rule: a key never changes its meaning. Stores keep keys, so another way to make them needs another
//! [`KEYS_VERSION`], and a store of an older version is built again. A record has at most [`MAX_KEYS`] keys.
//!
//! Two records are candidates if they share one key. Each kind of key survives other errors:
//!
//! | kind | made of | survives |
//! |---|---|---|
//! | 1 | whole date of birth, two letters of a word of a name | errors behind the first two letters |
//! | 2 | a word of one name, three letters of a word of the other | a wrong date; errors in one name; names swapped |
//! | 3 | sound of a surname, year of birth, first letter of a given name | errors of spelling, a wrong day |
//! | 4 | sounds of a surname and a given name, in any order | errors of spelling, a wrong date, names swapped |
//! | 5 | an identifier | everything else |
//! | 6 | a telephone number | everything else |
//! | 7 | whole date of birth, postal code or four letters of the city | names that changed |
//! | 8 | a word of a name, postal code | another name, another date |
//! | 9 | postal code, four letters of the city, first letter of a word of a name | errors of spelling, another date |
//!
//! A double surname gives keys for each of its words, so one of its two words is enough.

use crate::fold::{BirthDate, FoldedIdentifier, FoldedPerson, NameWord};

/// The version of the keys. It changes with any change of a key.
pub const KEYS_VERSION: u32 = 1;
/// The most keys of a record.
pub const MAX_KEYS: usize = 56;

/// Words of a surname and of a given name that give keys, and identifiers and numbers that do.
const FAMILY_WORDS: usize = 3;
const GIVEN_WORDS: usize = 2;
const IDENTIFIERS: usize = 8;
const PHONES: usize = 4;

/// The keys of a record in ascending order, each once.
///
/// ```
/// use fedgate_index::{fields::Demographics, fold::FoldedPerson, keys::blocking_keys};
///
/// let person = |given: &str, family: &str| {
///     let person = Demographics { given: Some(given.into()), family: Some(family.into()), ..Default::default() };
///     blocking_keys(&FoldedPerson::of(&person))
/// };
/// let (ana, swapped) = (person("Ana", "García López"), person("Lopez", "Ana"));
/// assert!(swapped.iter().any(|key| ana.contains(key)));
/// ```
#[must_use]
pub fn blocking_keys(person: &FoldedPerson) -> Vec<u64> {
    let mut keys = Vec::with_capacity(MAX_KEYS);
    let family = person.family.words().get(..FAMILY_WORDS.min(person.family.words().len())).unwrap_or_default();
    let given = person.given.words().get(..GIVEN_WORDS.min(person.given.words().len())).unwrap_or_default();
    for identifier in person.identifiers.iter().take(IDENTIFIERS) {
        keys.push(KeyHash::new(5).text(&identifier.value).end());
    }
    for phone in person.phones.iter().take(PHONES) {
        keys.push(KeyHash::new(6).text(phone).end());
    }
    if let Some(birth) = person.birth.filter(|birth| birth.is_whole()) {
        for word in family.iter().chain(given) {
            keys.push(KeyHash::new(1).number(birth.number()).text(start(word, 2)).end());
        }
    }
    places(person, family, given, &mut keys);
    for (surname, name) in family.iter().flat_map(|surname| given.iter().map(move |name| (surname, name))) {
        keys.push(KeyHash::new(2).text(surname.standard()).text(start(name, 3)).end());
        keys.push(KeyHash::new(2).text(name.standard()).text(start(surname, 3)).end());
        if let Some(birth) = person.birth {
            let key = KeyHash::new(3).number(surname.sound().number()).number(birth.year().into());
            keys.push(key.text(start(name, 1)).end());
        }
        let sounds = [surname.sound().number(), name.sound().number()];
        let [first, last] = if sounds.is_sorted() { sounds } else { [sounds[1], sounds[0]] };
        keys.push(KeyHash::new(4).number(first).number(last).end());
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// A number for all that is compared of a record. Records that are compared alike have the same; a store keeps it to see
/// whether a record has changed in a way that counts.
#[must_use]
pub fn record_mark(person: &FoldedPerson) -> u64 {
    let FoldedPerson { given, family, birth, gender, city, postal_code, phones, identifiers } = person;
    let mut mark = KeyHash::new(0).text(postal_code);
    for name in [given, family, city] {
        mark = name.all().fold(mark.number(name.all().count() as u64), |mark, word| mark.text(word.text()));
    }
    mark = mark.number(birth.map_or(0, BirthDate::number)).number(gender.map_or(0, |gender| gender as u64 + 1));
    mark = phones.iter().fold(mark.number(phones.len() as u64), |mark, phone| mark.text(phone));
    let identified = |mark: KeyHash, known: &FoldedIdentifier| mark.text(&known.system).text(&known.value);
    identifiers.iter().fold(mark, identified).end()
}

/// The keys of the place where a person lives.
fn places(person: &FoldedPerson, family: &[NameWord], given: &[NameWord], keys: &mut Vec<u64>) {
    let code = Some(person.postal_code.as_ref()).filter(|code| !code.is_empty());
    let city = person.city.words().first().map(|word| start(word, 4));
    let birth = person.birth.filter(|birth| birth.is_whole()).map(|birth| birth.number());
    for place in [code, city].into_iter().flatten() {
        keys.extend(birth.map(|birth| KeyHash::new(7).number(birth).text(place).end()));
    }
    for word in family.iter().chain(given) {
        keys.extend(code.map(|code| KeyHash::new(8).text(word.standard()).text(code).end()));
        let both = code.zip(city);
        keys.extend(both.map(|(code, city)| KeyHash::new(9).text(code).text(city).text(start(word, 1)).end()));
    }
}

/// The first letters of the standard spelling of a word.
fn start(word: &NameWord, letters: usize) -> &str {
    word.standard().get(..letters).unwrap_or(word.standard())
}

/// The hash of a key: FNV-1a of 64 bits over the kind and the parts, each part with the byte `1F` after it, and then the
/// finalizer of SplitMix64. It is written out here because it must never change.
pub(crate) struct KeyHash(u64);

impl KeyHash {
    pub(crate) fn new(kind: u8) -> Self {
        Self(0xcbf2_9ce4_8422_2325).byte(kind)
    }

    fn byte(self, byte: u8) -> Self {
        Self((self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
    }

    pub(crate) fn text(self, text: &str) -> Self {
        text.bytes().chain([0x1f]).fold(self, Self::byte)
    }

    /// Eight bytes, the lowest first.
    pub(crate) fn number(self, number: u64) -> Self {
        number.to_le_bytes().into_iter().chain([0x1f]).fold(self, Self::byte)
    }

    pub(crate) fn end(self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::{Demographics, Fields, MAX_VALUES};
    use serde_json::{Value, json};

    fn keys(document: &Value) -> Vec<u64> {
        blocking_keys(&FoldedPerson::of(&Demographics::take(&Fields::default(), document)))
    }

    fn ana() -> Value {
        json!({"name": "Ana", "lastname": "García López", "dob": "1985-10-04", "phone": "952123456",
            "identifiers": ["12345678Z"], "address": {"postcode": "29001"}})
    }

    #[test]
    fn keys_are_the_same_numbers_for_ever() {
        let numbers = keys(&ana());
        assert_eq!(KEYS_VERSION, 1, "write the new numbers here");
        assert_eq!(numbers, KNOWN, "stores keep these numbers: a change needs another KEYS_VERSION");
    }

    #[test]
    fn a_mark_tells_of_each_change_that_counts_and_of_no_other() {
        let mark = |document: &Value| record_mark(&FoldedPerson::of(&Demographics::take(&Fields::default(), document)));
        let right = mark(&ana());
        let with = |name: &str, value: Value| {
            let mut other = ana();
            other[name] = value;
            mark(&other)
        };
        for (name, value) in [
            ("name", json!("Eva")),
            ("lastname", json!("García")),
            ("dob", json!("1985-10-05")),
            ("gender", json!("f")),
            ("phone", json!("952123457")),
            ("phone", Value::Null),
            ("identifiers", json!(["12345678X"])),
            ("address", json!({"postcode": "29002"})),
            ("address", json!({"postcode": "29001", "suburb": "Málaga"})),
        ] {
            assert_ne!(with(name, value.clone()), right, "{name} {value}");
        }
        assert_eq!(with("lastname", json!("GARCIA lópez")), right);
        assert_eq!(with("note", json!("other")), right);
    }

    #[test]
    fn a_record_with_errors_shares_a_key_with_the_right_one() {
        let right = keys(&ana());
        for (what, wrong) in [
            ("only the second surname", json!({"name": "Ana", "lastname": "Lopez"})),
            ("swapped names", json!({"name": "Garcia", "lastname": "Ana"})),
            ("another name, the same day", json!({"name": "Maria", "lastname": "Gavira", "dob": "1985-10-04"})),
            ("spelled by ear", json!({"name": "Anna", "lastname": "Garsia", "dob": "1985-01-01"})),
            ("an identifier alone", json!({"identifiers": ["12345678-z"]})),
            ("a number alone", json!({"phone": "+34952123456"})),
            ("a neighbour of that name", json!({"name": "Ana", "lastname": "Ruiz", "address": {"postcode": "29001"}})),
            ("another name at the same place", json!({"dob": "1985-10-04", "address": {"postcode": "29001"}})),
        ] {
            assert!(keys(&wrong).iter().any(|key| right.contains(key)), "{what}");
        }
        let other = json!({"name": "Pedro", "lastname": "Ruiz", "dob": "1985-10-05", "phone": "952123457"});
        assert!(!keys(&other).iter().any(|key| right.contains(key)));
    }

    #[test]
    fn a_record_has_a_bounded_number_of_keys_and_an_empty_one_has_none() {
        let names: Vec<_> = (b'a'..=b'p').map(|sign| char::from(sign).to_string().repeat(5) + "x").collect();
        let numbers: Vec<_> = (0..MAX_VALUES).map(|number| format!("6001234{number:02}")).collect();
        let many = keys(&json!({"name": names, "lastname": names, "dob": "1985-10-04", "phone": numbers,
            "identifiers": numbers, "address": {"postcode": "29001"}}));
        assert!(many.len() <= MAX_KEYS && many.len() > 30, "{}", many.len());
        assert!(many.is_sorted_by(|one, other| one < other));
        assert!(keys(&json!({})).is_empty());
    }

    const KNOWN: [u64; 17] = [
        90491976686841267,
        2094003970893087714,
        2885513363280514592,
        3127695936770459146,
        4810450069936866279,
        8183010490325357616,
        8775500119101804070,
        8981812420963168124,
        10085687589143752943,
        11186030539624934863,
        12720157579413313240,
        13228052427172593376,
        13997359785514272689,
        14315526751670522637,
        16006555714833018577,
        16295668567641618559,
        16314456641319770932,
    ];
}
