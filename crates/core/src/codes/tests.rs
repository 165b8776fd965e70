//! The laws of the catalogue, and docs/API.md held against it.

use std::collections::HashMap;

use super::*;
use crate::fields::{MAX_DEPTH, MAX_DIGITS};

#[test]
fn a_code_has_one_status_and_one_text_beside_those_of_thalamus() {
    let mut by_code: HashMap<&str, Vec<AnswerCode>> = HashMap::new();
    AnswerCode::ALL.iter().for_each(|answer| by_code.entry(answer.code()).or_default().push(*answer));
    assert!(by_code.len() > 80, "{}", by_code.len());
    for (code, answers) in by_code {
        assert!(code.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'), "{code}");
        assert!(answers.iter().all(|answer| answer.status() == answers[0].status()), "{code}");
        let own = answers.iter().filter(|answer| answer.origin() == TextOrigin::Fedgate);
        assert!(own.count() <= 1, "{code} has two texts of this project");
    }
}

#[test]
fn a_text_belongs_to_one_code_or_is_that_of_thalamus() {
    for (at, answer) in AnswerCode::ALL.iter().enumerate() {
        let same = AnswerCode::ALL[..at].iter().find(|other| other.text() == answer.text());
        assert!(same.is_none() || answer.origin() == TextOrigin::Thalamus, "{answer:?} {same:?}");
        let is_sentence = answer.text().starts_with(|first: char| first.is_uppercase() || first == '`');
        let is_ours = answer.origin() == TextOrigin::Fedgate;
        assert!(!is_ours || is_sentence && !answer.text().ends_with('.'), "{answer:?}");
    }
}

#[test]
fn texts_name_the_limits_that_hold() {
    assert!(AnswerCode::JsonTooDeep.text().contains(&format!(" {MAX_DEPTH} levels")));
    assert!(AnswerCode::JsonNumberTooLong.text().contains(&format!(" {MAX_DIGITS} digits")));
}

#[test]
fn an_answer_is_found_by_its_code_and_written_in_one_shape() {
    let told: serde_json::Value = serde_json::from_str(&AnswerCode::NotPermitted.json("r1")).unwrap();
    assert_eq!(told, serde_json::json!({ "error": "Not permitted", "code": "not_permitted", "request_id": "r1" }));
    assert_eq!(AnswerCode::find("page_not_found"), Some(AnswerCode::BookOrPageNotFound));
    assert_eq!(AnswerCode::find("internal"), None);
}

/// The document with the table, which `WRITE_TABLE=1` brings up to date (`just codes`).
const API: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/API.md");

/// The tables of docs/API.md between its marks, and everything else.
fn documented() -> (String, String) {
    let text = std::fs::read_to_string(API).unwrap();
    let mut parts = text.split("<!-- codes -->");
    let (Some(before), Some(table), Some(after), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        panic!("docs/API.md has one table between two marks `<!-- codes -->`");
    };
    (table.to_owned(), [before, after].concat())
}

/// Replaces the rows between the marks.
fn write_table(rows: &[&str]) {
    let (table, _) = documented();
    let head: Vec<&str> = table.lines().take(3).collect();
    let text = std::fs::read_to_string(API).unwrap();
    let written = format!("{}\n{}\n", head.join("\n"), rows.join("\n"));
    std::fs::write(API, text.replace(&table, &written)).unwrap();
}

#[test]
fn the_documented_table_is_the_catalogue() {
    let row = |answer: &AnswerCode| format!("| {} | `{}` | {} |", answer.status(), answer.code(), answer.text());
    let rows: Vec<String> = AnswerCode::ALL.iter().map(row).collect();
    let mut expected: Vec<&str> = rows.iter().map(String::as_str).collect();
    // One text of several codes' stands once for each code.
    expected.dedup();
    if std::env::var_os("WRITE_TABLE").is_some() {
        write_table(&expected);
    }
    let (table, _) = documented();
    let found: Vec<&str> =
        table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| status |")).collect();
    let missing: Vec<_> = expected.iter().filter(|row| !found.contains(row)).collect();
    let unknown: Vec<_> = found.iter().filter(|row| !expected.contains(row)).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing: {missing:#?}, unknown: {unknown:#?}");
    assert_eq!(found, expected, "in the order of the catalogue");
}

#[test]
fn every_other_row_of_the_document_names_a_status_and_codes_of_the_catalogue() {
    let (_, rest) = documented();
    let mut seen = 0;
    for line in rest.lines() {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (Some(status), Some(codes)) = (cells.next().and_then(|cell| cell.parse::<u16>().ok()), cells.next()) else {
            continue;
        };
        for code in codes.split('`').skip(1).step_by(2) {
            seen += 1;
            let known = AnswerCode::find(code).map(AnswerCode::status);
            assert_eq!(known, Some(status), "{line}");
        }
    }
    assert!(seen > 60, "the rows were found: {seen}");
}

#[test]
fn every_code_is_explained_beside_the_table() {
    let (_, rest) = documented();
    let missing: Vec<_> = AnswerCode::ALL
        .iter()
        .map(|answer| answer.code())
        .filter(|code| !rest.contains(&format!("`{code}`")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
