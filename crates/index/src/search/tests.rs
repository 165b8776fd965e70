use super::*;
use crate::fields::{Demographics, Fields};
use crate::words::find;
use serde_json::{Value, json};

fn person(document: &Value) -> FoldedPerson {
    FoldedPerson::of(&Demographics::take(&Fields::default(), document))
}

/// The words of a vocabulary that the parts find.
fn found(query: &Query, vocabulary: &[String]) -> Vec<FoundWords> {
    let of_part = |part: &QueryPart| {
        let finds = |word: &&String| {
            let word = NameWord::of_letters(word);
            part.word.as_ref().is_some_and(|typed| find(typed, &word).is_some())
        };
        FoundWords { words: vocabulary.iter().filter(finds).cloned().collect(), is_complete: true }
    };
    query.parts().iter().map(of_part).collect()
}

#[test]
fn whoever_a_query_means_has_a_key_of_each_complete_way() {
    let people = [
        (
            "ESPGNU777ORG",
            json!({"name": "Ana María", "lastname": "de la Cruz García", "dob": "1985-10-04", "gender": "f",
            "phone": "+34 952 123 456", "identifiers": ["12345678-Z", "2020"]}),
        ),
        ("MARA-1", json!({"name": "Mohamed", "lastname": "El Khatib", "dob": "1985-10", "gender": "m"})),
        ("x", json!({"name": "a1 b2 c3 d4 e5 Maria", "lastname": "San Juan Garcia", "dob": "1985"})),
        ("ANA", json!({"name": "Van", "lastname": "Li"})),
    ];
    let vocabulary: Vec<String> = people.iter().flat_map(|(_, document)| words_of(&person(document))).collect();
    let mut meant = 0;
    for text in [
        "ana",
        "maria garcia",
        "gracia maria",
        "mar gar",
        "cruz ana 1985",
        "garcia 1985",
        "1985-10",
        "1985-10-04 ana",
        "f",
        "m 1985",
        "ana f",
        "espgnu777org",
        "ESPGN",
        "ESPGNU777",
        "mara",
        "mara-1",
        "12345678z",
        "2020",
        "952123456",
        "123456",
        "0034952123456",
        "muhammad khatib",
        "e5 maria",
        "san juan",
        "sa garcia",
        "de la",
        "van",
        "l v",
        "maria f 1985",
        "x",
        "ana maria cruz garcia 1985 f",
        "2020 ana",
        "1985",
    ] {
        let query = Query::parse(text).unwrap();
        let ways = ways(&query, &found(&query, &vocabulary));
        assert!(ways.iter().any(|way| way.is_complete), "{text}");
        for (id, document) in &people {
            let person = person(document);
            if query.rank(id, &person).is_none() {
                continue;
            }
            meant += 1;
            let keys = search_keys(id, &person, &words_of(&person));
            for way in ways.iter().filter(|way| way.is_complete) {
                assert!(way.keys.iter().chain(&way.others).any(|key| keys.contains(key)), "{text} {id} {way:?}");
            }
        }
    }
    assert!(meant > 40, "{meant}");
}

#[test]
fn the_rarest_way_comes_first_and_one_that_is_not_complete_last() {
    let query = Query::parse("maria garcia 1985").unwrap();
    let mut words = vec![FoundWords { words: vec![], is_complete: true }; 3];
    let parts =
        |words: &[FoundWords]| -> Vec<Vec<usize>> { ways(&query, words).into_iter().map(|way| way.parts).collect() };
    assert_eq!(parts(&words)[0], [0, 1]);
    words[0].is_complete = false;
    assert_eq!(parts(&words)[0], [1, 2]);
    assert_eq!(parts(&words).last().unwrap(), &[0]);
}

#[test]
fn a_person_has_a_bounded_number_of_keys_that_never_change() {
    let words: Vec<_> = (b'a'..=b'p').map(|sign| char::from(sign).to_string().repeat(5)).collect();
    let numbers: Vec<_> = (0..16).map(|number| format!("6001234{number:02}")).collect();
    let many = person(&json!({"name": words, "lastname": words, "dob": "1985-10-04", "gender": "f", "phone": numbers,
        "identifiers": numbers}));
    let keys = search_keys("ESPGNU777ORG", &many, &words_of(&many));
    assert!(keys.len() <= 110, "{}", keys.len());
    assert!(keys.is_sorted_by(|one, other| one < other));
    assert_eq!(word_key("garcia"), WORD, "another number needs another WORDS_VERSION");
    assert_eq!(birth_key(BirthDate::parse("1985-10-04").unwrap()), DAY);
}

const WORD: u64 = 5_321_983_608_732_230_650;
const DAY: u64 = 14_025_737_225_988_263_231;
