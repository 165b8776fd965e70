use super::*;
use crate::fields::{Demographics, Fields};
use serde_json::{Value, json};

fn folded(document: &Value) -> FoldedPerson {
    FoldedPerson::of(&Demographics::take(&Fields::default(), document))
}

fn ana() -> Value {
    json!({"name": "Ana María", "lastname": "Zubizarreta Soler", "dob": "1985-10-04", "gender": "f",
        "address": {"suburb": "Málaga", "postcode": "29001"}, "phone": "952123456"})
}

fn changed(changes: &Value) -> Value {
    let mut document = ana();
    for (member, value) in changes.as_object().unwrap() {
        document[member] = value.clone();
    }
    document
}

fn grade_of(changes: &Value) -> Grade {
    assess(&Model::default(), &folded(&ana()), &folded(&changed(changes))).grade
}

#[test]
fn a_pair_has_the_grade_that_a_person_would_give_it() {
    for (what, changes, grade) in [
        ("the same", json!({}), Grade::Certain),
        ("spelled without accents", json!({"name": "ANA MARIA", "address": {"suburb": "malaga"}}), Grade::Certain),
        ("one surname", json!({"lastname": "Zubizarreta"}), Grade::Certain),
        ("one typing error", json!({"lastname": "Zubizareta Soler"}), Grade::Certain),
        (
            "moved, with another number",
            json!({"address": {"suburb": "Lugo", "postcode": "27001"}, "phone": "982111222"}),
            Grade::Certain,
        ),
        ("swapped names", json!({"name": "Zubizarreta Soler", "lastname": "Ana María"}), Grade::Certain),
        ("a twin", json!({"name": "Pilar"}), Grade::Probable),
        ("a twin who shares a name", json!({"name": "Ana Pilar"}), Grade::Probable),
        ("a brother who is a twin", json!({"name": "Pedro", "gender": "m"}), Grade::CertainlyNot),
        ("a mother of the same name", json!({"dob": "1951-03-17"}), Grade::Probable),
        ("married", json!({"lastname": "Ferreira"}), Grade::Probable),
        (
            "somebody else",
            json!({"name": "Pedro", "lastname": "Ruiz", "dob": "1951-03-17", "gender": "m"}),
            Grade::CertainlyNot,
        ),
    ] {
        let found = grade_of(&changes);
        // Both are for review.
        assert!(found == grade || (grade == Grade::Probable && found == Grade::Possible), "{what}: {found:?}");
    }
}

#[test]
fn an_estimated_date_is_not_enough_for_certainty_without_an_identifier() {
    let with = |identifiers: Value| {
        let one = json!({"name": "Ali", "lastname": "Hassan", "dob": "1985-01-01", "identifiers": identifiers});
        assess(&Model::default(), &folded(&one), &folded(&one)).grade
    };
    assert!(with(json!([])) < Grade::Certain);
    assert_eq!(with(json!(["X1234567"])), Grade::Certain);
}

#[test]
fn the_order_of_two_records_makes_no_difference() {
    let changes = [
        json!({}),
        json!({"name": "Pilar"}),
        json!({"name": "Zubizarreta", "lastname": "Ana"}),
        json!({"dob": "1985"}),
        json!({"lastname": ""}),
        json!({"lastname": "Soler"}),
        json!({"name": "Mohammed Ali"}),
        json!({"name": "Muhammad"}),
        json!({"lastname": "Garcia Garcia"}),
        json!({"lastname": "García"}),
        json!({"phone": ["1", "95 21 23 456"]}),
    ];
    let people: Vec<_> = changes.iter().map(|changes| folded(&changed(changes))).collect();
    let model = Model::default();
    for one in &people {
        for other in &people {
            let assessment = assess(&model, one, other);
            assert_eq!(assessment, assess(&model, other, one));
            assert!((0.0..=1.0).contains(&assessment.score));
            let sum: Millibits = assessment.reasons.iter().map(|reason| reason.weight).sum();
            assert_eq!(assessment.evidence, model.prior() + sum + assessment.relatives, "the reasons add up");
        }
    }
}

#[test]
fn records_without_anything_to_compare_are_no_match() {
    let nobody = FoldedPerson::default();
    let assessment = assess(&Model::default(), &nobody, &folded(&ana()));
    assert_eq!(assessment.grade, Grade::CertainlyNot);
    assert!(assessment.reasons.iter().all(|reason| reason.weight == 0));
}
