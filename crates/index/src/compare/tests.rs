use super::*;
use crate::fields::{Demographics, Fields};
use serde_json::{Value, json};

fn folded(document: &Value) -> FoldedPerson {
    FoldedPerson::of(&Demographics::take(&Fields::default(), document))
}

fn levels(one: &Value, other: &Value, field: FieldName) -> Level {
    let (one, other) = (folded(one), folded(other));
    let pattern = compare(&one, &other);
    assert_eq!(pattern, compare(&other, &one), "the order makes no difference");
    pattern.level(field)
}

#[test]
fn surnames_have_levels() {
    for (one, other, level) in [
        ("García", "GARCIA", Level::Same),
        ("García López", "Lopez Garcia", Level::Same),
        ("Mac Donald", "Macdonald", Level::Same),
        ("de la Cruz", "Cruz", Level::Same),
        ("García", "García López", Level::Part),
        ("Mohammed", "Muhammad", Level::Sound),
        ("محمد", "Mohamed", Level::Sound),
        ("Jiménez", "Ximenes", Level::Sound),
        ("Иванов", "Ivanoff", Level::Sound),
        ("smith", "smiht", Level::Close),
        ("García López", "Garcia Lopes", Level::Sound),
        ("mccarthy", "mccattmhy", Level::Near),
        ("García López", "García Martín", Level::Overlap),
        ("G", "García", Level::Initial),
        ("García", "Okafor", Level::Different),
        ("", "García", Level::Missing),
    ] {
        assert_eq!(
            levels(&json!({"lastname": one}), &json!({"lastname": other}), FieldName::Family),
            level,
            "{one} {other}"
        );
    }
}

#[test]
fn exchanged_names_are_found_and_counted_once() {
    for (one, other, level) in [
        (("Ana", "García"), ("Garcia", "Ana"), Level::Swapped),
        (("Raquel", "Campbell"), ("Campbel", "Raquel"), Level::SwappedClose),
        (("Raquel", "Lodge"), ("Garnett", "Raquel"), Level::Crossed),
        (("Ana", "García"), ("Ana", "García"), Level::Same),
    ] {
        let document = |(name, lastname)| json!({"name": name, "lastname": lastname});
        assert_eq!(levels(&document(one), &document(other), FieldName::Given), level, "{one:?} {other:?}");
        let family = levels(&document(one), &document(other), FieldName::Family);
        assert_eq!(family, if level == Level::Same { Level::Same } else { Level::Missing });
    }
}

#[test]
fn dates_have_levels_and_estimates_say_no_more_than_a_year() {
    for (one, other, level) in [
        ("1985-10-04", "1985-10-04", Level::Same),
        ("1985-10-04", "1985-04-10", Level::Swapped),
        ("1985-10-04", "1985-10-05", Level::Close),
        ("1985-10-04", "1958-10-04", Level::Close),
        ("1985-10-04", "1993-10-04", Level::Near),
        ("1985-10-04", "1985-10-27", Level::Near),
        ("1985-10-04", "1985-10", Level::Month),
        ("1985-10-04", "1985", Level::Year),
        ("1985-01-01", "1985-01-01", Level::Year),
        ("1985-10-04", "1985-01-01", Level::Year),
        ("1985-01-01", "1987-06-03", Level::NearYear),
        ("1985-10-04", "1985-03-17", Level::Far),
        ("1985-10-04", "1970-03-17", Level::Different),
        ("1985", "1970", Level::Different),
        ("1985", "", Level::Missing),
    ] {
        assert_eq!(levels(&json!({"dob": one}), &json!({"dob": other}), FieldName::BirthDate), level, "{one} {other}");
    }
}

#[test]
fn codes_numbers_and_identifiers_have_levels() {
    let of = |field, one: Value, other: Value| match field {
        FieldName::PostalCode => {
            levels(&json!({"address": {"postcode": one}}), &json!({"address": {"postcode": other}}), field)
        }
        FieldName::Phone => levels(&json!({"phone": one}), &json!({"phone": other}), field),
        FieldName::Identifiers => levels(&json!({"identifiers": one}), &json!({"identifiers": other}), field),
        _ => levels(&json!({"gender": one}), &json!({"gender": other}), field),
    };
    let dni = |value: &str| json!([{"system": "dni", "value": value}]);
    for (field, one, other, level) in [
        (FieldName::PostalCode, json!("29001"), json!("29 001"), Level::Same),
        (FieldName::PostalCode, json!("29001"), json!("29010"), Level::Close),
        (FieldName::PostalCode, json!("29001"), json!("29789"), Level::Near),
        (FieldName::PostalCode, json!("29001"), json!("08700"), Level::Different),
        (FieldName::Phone, json!("+34952123456"), json!(["600000001", "952123456"]), Level::Same),
        (FieldName::Phone, json!("952123456"), json!("952123465"), Level::Close),
        (FieldName::Phone, json!("952123456"), json!("612987654"), Level::Different),
        (FieldName::Identifiers, dni("12345678Z"), json!("12345678-z"), Level::Same),
        (FieldName::Identifiers, dni("12345678Z"), dni("12345687Z"), Level::Close),
        (FieldName::Identifiers, dni("12345678Z"), dni("87654321X"), Level::Different),
        (FieldName::Identifiers, dni("12345678Z"), json!("87654321X"), Level::Missing),
        (FieldName::Gender, json!("f"), json!("mujer"), Level::Same),
        (FieldName::Gender, json!("f"), json!("m"), Level::Different),
        (FieldName::Gender, json!("f"), json!("unknown"), Level::Missing),
    ] {
        assert_eq!(of(field, one.clone(), other.clone()), level, "{one} {other}");
    }
}

#[test]
fn every_level_of_a_pair_is_one_that_its_field_has() {
    let names = ["ana", "ana maria", "anna", "a", "garcia", "garcia lopez", "grcia", "juan jose", "juan carlos", ""];
    let dates = ["1985-10-04", "1985-04-10", "1985", "1985-01-01", "1986-02", "1970-03-17", ""];
    let mut people = Vec::new();
    for (at, given) in names.iter().enumerate() {
        for (place, family) in names.iter().enumerate() {
            let date = dates[(at + place) % dates.len()];
            people
                .push(folded(&json!({"name": given, "lastname": family, "dob": date, "address": {"suburb": family}})));
        }
    }
    for one in &people {
        for other in &people {
            let pattern = compare(one, other);
            assert_eq!(pattern, compare(other, one));
            for field in FieldName::ALL {
                let level = pattern.level(field);
                assert!(level == Level::Missing || field.levels().contains(&level), "{field:?} {level:?}");
            }
        }
    }
}
