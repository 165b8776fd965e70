use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::*;
use crate::json;

fn names(names: &[&str]) -> Arc<FoldedNames> {
    Arc::new(FoldedNames::new(names.iter().copied()).unwrap())
}

/// The guard of a person: `roles`, `active` and `password`, and `id` unless it names the subject.
fn check(subject: Option<&str>) -> BodyCheck {
    let plain = GuardedMember { free: FreeValue::None, anywhere: false };
    let members = [plain, plain, plain, GuardedMember { free: FreeValue::Subject, anywhere: false }];
    let members = GuardedMembers {
        names: names(&["roles", "active", "password", "id"]),
        members: Box::new(members),
        only_object: false,
    };
    BodyCheck::new(Arc::new(members), u64::MAX, subject)
}

fn judge_in(mut check: BodyCheck, parts: &[&[u8]]) -> Result<(), BodyFault> {
    parts.iter().try_for_each(|part| check.feed(part))?;
    check.finish()
}

fn judge(body: impl AsRef<[u8]>) -> Result<(), BodyFault> {
    judge_in(check(Some("ANA")), &[body.as_ref()])
}

fn remove_in(names: &Arc<FoldedNames>, parts: &[&[u8]]) -> Result<String, JsonError> {
    let (mut remover, mut out) = (MemberRemover::new(Arc::clone(names)), Vec::new());
    parts.iter().try_for_each(|part| remover.feed(part, &mut out))?;
    remover.finish()?;
    Ok(String::from_utf8(out).unwrap())
}

/// Cuts at each place, and one cut into single bytes.
fn cuts(bytes: &[u8]) -> Vec<Vec<&[u8]>> {
    let two = (0..=bytes.len()).map(|at| vec![&bytes[..at], &bytes[at..]]);
    two.chain([bytes.chunks(1).collect()]).collect()
}

#[test]
fn a_member_is_found_in_every_spelling() {
    #[rustfmt::skip]
    let found = [
        r#"{"roles":["root"]}"#, r#" { "a" : 1 , "roles" : [] } "#, r#"{"ro\u006ces":1}"#, r#"{"\u0072\u006F\u006c\u0065\u0073":null}"#,
        r#"{"Roles":1}"#, r#"{"ROLES":1}"#, "{\"role\u{17f}\":1}", r#"{"role\u017f":1}"#,
        r#"{"a":1,"a":2,"active":false}"#, r#"{"password":"x"}"#, r#"{"a":{"b":[{}]},"password":null}"#,
        r#"[{"a":1},{"roles":1}]"#, r#"[[{"active":1}]]"#,
        r#"{"id":"BOB"}"#, r#"{"id":"ANA","id":"BOB"}"#, r#"{"id":null}"#, r#"{"id":["ANA"]}"#, r#"{"id":{"a":"ANA"}}"#,
        r#"{"id":"ANAN"}"#, r#"{"id":"AN"}"#, r#"{"id":"ana"}"#, r#"{"I\u0064":"B"}"#,
    ];
    for body in found {
        assert!(matches!(judge(body), Err(BodyFault::MemberNotPermitted(_))), "{body}");
    }
    #[rustfmt::skip]
    let other = [
        r#"{}"#, r#"[]"#, r#"{"role":1,"roless":2,"xroles":3,"":4,"activ":5}"#, r#"{"a":{"roles":1,"id":"BOB"}}"#, r#"[[[]]]"#,
        r#"{"a":"roles","b":["roles"],"c":[{"password":1}]}"#, r#"{"id":"ANA"}"#, r#"{"id":"\u0041N\u0041","b":1}"#,
        r#"{"measurements":[{"id":7}],"id": "ANA" }"#,
    ];
    for body in other {
        assert_eq!(judge(body), Ok(()), "{body}");
    }
    assert_eq!(judge_in(check(None), &[br#"{"id":"ANA"}"#]), Err(BodyFault::MemberNotPermitted(3)), "no subject");
}

#[test]
fn a_member_is_guarded_at_any_depth_and_left_to_permitted_callers() {
    let member = GuardedMember { free: FreeValue::None, anywhere: true };
    let members = Arc::new(GuardedMembers {
        names: names(&["roles", "active"]),
        members: Box::new([member, member]),
        only_object: false,
    });
    let deep = br#"{"person":{"list":[{"roles":1}]}}"#;
    let judge = |withheld, body: &[u8]| judge_in(BodyCheck::new(Arc::clone(&members), withheld, None), &[body]);
    assert_eq!(judge(0b11, deep), Err(BodyFault::MemberNotPermitted(0)));
    assert_eq!(judge(0b10, deep), Ok(()));
    assert_eq!(
        judge(0, b"{\"roles\":}"),
        Err(BodyFault::Json(JsonError::Malformed(9))),
        "JSON it must be for everyone"
    );
}

#[test]
fn what_is_not_json_with_one_reading_is_refused() {
    use JsonError::*;
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    #[rustfmt::skip]
    let cases: Vec<(Vec<u8>, JsonError)> = vec![
        (b"".to_vec(), Malformed(0)),
        (b"{\"a\":1".to_vec(), Malformed(6)),
        (b"{\"a\":1,}".to_vec(), Malformed(7)),
        (b"{\"a\" 1}".to_vec(), Malformed(5)),
        (b"{a:1}".to_vec(), Malformed(1)),
        (b"[1,]".to_vec(), Malformed(3)),
        (b"[1}".to_vec(), Malformed(2)),
        (b"[01]".to_vec(), Malformed(2)),
        (b"[1.]".to_vec(), Malformed(3)),
        (b"[-]".to_vec(), Malformed(2)),
        (b"[NaN]".to_vec(), Malformed(1)),
        (b"[nulL]".to_vec(), Malformed(4)),
        (b"[\"\t\"]".to_vec(), Malformed(2)),
        (b"[\"\\x\"]".to_vec(), Malformed(3)),
        (b"[\"\\u00g0\"]".to_vec(), Malformed(6)),
        (b"[\"\xff\"]".to_vec(), NotUtf8),
        (b"[\"\xc0\xaf\"]".to_vec(), NotUtf8),
        (b"[\"\xed\xa0\x80\"]".to_vec(), NotUtf8),
        (b"\xef\xbb\xbf{}".to_vec(), ByteOrderMark),
        (b"\xff\xfe{\0}\0".to_vec(), Malformed(0)),
        (b"{\0}\0".to_vec(), Malformed(1)),
        (b"{} {}".to_vec(), TrailingGarbage(3)),
        (b"{}\0".to_vec(), TrailingGarbage(2)),
        (b"{}x".to_vec(), TrailingGarbage(2)),
        (b"{\"roles\\u0000\":1}".to_vec(), UnpairedOrNul(12)),
        (b"[\"\\ud800\"]".to_vec(), UnpairedOrNul(8)),
        (b"[\"\\ude00\\ud83d\"]".to_vec(), UnpairedOrNul(7)),
        (b"[\"\\ud83d\\u0041\"]".to_vec(), UnpairedOrNul(13)),
        (deep(65).into_bytes(), TooDeep),
        (deep(10_000).into_bytes(), TooDeep),
        (format!("[{}]", "9".repeat(1_000_000)).into_bytes(), NumberTooLong(2)),
        (b"[1e64]".to_vec(), NumberTooLong(5)),
        (b"{\"a\":[1e-1000 ]}".to_vec(), NumberTooLong(13)),
    ];
    for (bytes, error) in cases {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        assert_eq!(judge(&bytes), Err(BodyFault::Json(error)), "{shown}");
    }
    assert_eq!(judge(deep(64)), Ok(()));
    for scalar in ["1", "\"&roles=root&\"", " true "] {
        assert_eq!(judge(scalar), Err(BodyFault::NotAnObject), "{scalar}");
    }
}

#[test]
fn members_are_left_out_at_any_depth_and_the_rest_stays() {
    let names = names(&["password", "pin"]);
    #[rustfmt::skip]
    let cases = [
        (r#"{"id":"A","password":"$2b$12$x","roles":[]}"#, r#"{"id":"A","roles":[]}"#),
        (r#"{"password":"x"}"#, r#"{}"#),
        (r#"{"password":{"a":[1,{"b":2}],"password":1},"b":2}"#, r#"{"b":2}"#),
        (r#"{"a":1,"password":[1,2]}"#, r#"{"a":1}"#),
        (r#"{"password":1,"pin":2,"a":3,"pass\u0077ord":4,"b":5,"Password":6}"#, r#"{"a":3,"b":5}"#),
        (" [ [ { \"id\" : 1.50 , \"password\" : \"x\" } ] ,\n [{ }] ] \n", r#"[[{"id":1.50}],[{}]]"#),
        (r#"{"data":{"pin":1,"x":{"y":[{"password":1}]}}}"#, r#"{"data":{"x":{"y":[{}]}}}"#),
        (r#"{"a":"password","pass":"p","passwords":"q","pas\u0073":1}"#, r#"{"a":"password","pass":"p","passwords":"q","pas\u0073":1}"#),
        (r#"{"e\u00e9é\ud83d\ude00":"\ud800","\ud800password":1}"#, r#"{"e\u00e9é\ud83d\ude00":"\ud800","\ud800password":1}"#),
        ("null", "null"), ("\"password\"\n", "\"password\""), ("-12.5e3", "-12.5e3"),
    ];
    for (answer, expected) in cases {
        for parts in cuts(answer.as_bytes()) {
            assert_eq!(remove_in(&names, &parts).as_deref(), Ok(expected), "{parts:?}");
        }
    }
    for broken in
        ["", "{", "{\"a\":1", "NaN", "<html>", "{}{}", "{\"password\":}", "{\"password\":1,}", "[\"password\":1]"]
    {
        assert!(remove_in(&names, &[broken.as_bytes()]).is_err(), "{broken}");
    }
}

/// A random document whose names resemble the guarded ones.
fn document(dice: &mut StdRng, depth: usize) -> String {
    const NAMES: &[&str] = &[
        "password",
        "pass\\u0077ord",
        "PASSWORD",
        "pass",
        "passwords",
        "id",
        "i\\u0064",
        "",
        "é",
        "\\ud83d\\ude00",
        "p\\\"w",
    ];
    const SCALARS: &[&str] = &[
        "null",
        "true",
        "-0",
        "12.50",
        "1e2",
        "1e63",
        "1e64",
        "-2.5e-61",
        "\"password\"",
        "\"\\\"é\\u00e9\"",
        "\"\"",
        "9007199254740993",
    ];
    let space = |dice: &mut StdRng| ["", " ", "\n\t"][dice.random_range(0..3)];
    let (before, after) = (space(dice), space(dice));
    let count = dice.random_range(0..4);
    let value = match dice.random_range(0..if depth > 4 { 1 } else { 3 }) {
        0 => SCALARS[dice.random_range(0..SCALARS.len())].to_owned(),
        1 => format!("[{}]", (0..count).map(|_| document(dice, depth + 1)).collect::<Vec<_>>().join(",")),
        _ => {
            let member = |dice: &mut StdRng| {
                format!(
                    "{}\"{}\"{}:{}",
                    space(dice),
                    NAMES[dice.random_range(0..NAMES.len())],
                    space(dice),
                    document(dice, depth + 1)
                )
            };
            format!("{{{}}}", (0..count).map(|_| member(dice)).collect::<Vec<_>>().join(","))
        }
    };
    format!("{before}{value}{after}")
}

fn without_password(value: Value) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .filter(|(name, _)| !name.eq_ignore_ascii_case("password"))
            .map(|(name, value)| (name, without_password(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_password).collect(),
        scalar => scalar,
    }
}

#[test]
fn removal_agrees_with_a_parsed_tree_however_the_bytes_are_cut() {
    let (names, mut dice) = (names(&["password"]), StdRng::seed_from_u64(7));
    let mut removed = 0;
    for _ in 0..2_000 {
        let text = document(&mut dice, 0);
        let whole = remove_in(&names, &[text.as_bytes()]).unwrap();
        let expected = without_password(serde_json::from_str(&text).unwrap());
        assert_eq!(serde_json::from_str::<Value>(&whole).unwrap(), expected, "{text}");
        removed += usize::from(expected != serde_json::from_str::<Value>(&text).unwrap());
        if text.len() < 200 {
            for parts in cuts(text.as_bytes()) {
                assert_eq!(remove_in(&names, &parts).as_deref(), Ok(whole.as_str()), "{parts:?}");
            }
        }
    }
    assert!(removed > 200, "{removed}");
}

/// Whether a document has one of the guarded members, judged by the HIS's parser.
fn holds_password(value: &json::JsonValue) -> bool {
    match value {
        json::JsonValue::Object(object) => ["password", "PASSWORD"].iter().any(|name| object.member(name).is_some()),
        json::JsonValue::Array(items) => items.iter().any(holds_password),
        _ => false,
    }
}

#[test]
fn judgement_agrees_with_the_parser_of_the_his_however_the_bytes_are_cut() {
    let mut dice = StdRng::seed_from_u64(11);
    let member = GuardedMember { free: FreeValue::None, anywhere: false };
    let members =
        Arc::new(GuardedMembers { names: names(&["password"]), members: Box::new([member]), only_object: false });
    let judge = |parts: &[&[u8]]| judge_in(BodyCheck::new(Arc::clone(&members), 1, None), parts);
    let mut counts = [0; 3];
    for round in 0..4_000 {
        let mut text = format!("[{}]", document(&mut dice, 0)).into_bytes();
        // Every second document is damaged at one place.
        if round % 2 == 1 {
            let at = dice.random_range(0..text.len());
            let byte = *b"\"\\{}[],:x0\x00\x80 u-."[dice.random_range(0..16)..].first().unwrap();
            if dice.random() { text[at] = byte } else { text.insert(at, byte) }
        }
        let expected = match json::parse(&text) {
            Ok(value) if holds_password(&value) => 2,
            Ok(_) => 1,
            Err(_) => 0,
        };
        counts[expected] += 1;
        let whole = judge(&[&text]);
        let shown = String::from_utf8_lossy(&text).into_owned();
        match (expected, whole) {
            (2, Err(BodyFault::MemberNotPermitted(_))) | (1, Ok(())) | (0, Err(BodyFault::Json(_))) => {}
            // The damage comes after the part that decides.
            (0, Err(BodyFault::MemberNotPermitted(_) | BodyFault::NotAnObject)) => {}
            (_, judged) => panic!("{judged:?}: {shown}"),
        }
        if text.len() < 120 {
            for parts in cuts(&text) {
                assert_eq!(judge(&parts), whole, "{shown}");
            }
        }
    }
    assert!(counts.iter().all(|count| *count > 200), "{counts:?}");
}

#[test]
fn memory_does_not_grow_with_the_answer() {
    let names = names(&["password"]);
    let mut remover = MemberRemover::new(names);
    let mut out = Vec::new();
    let person = format!(
        "[{{\"id\":\"A\",{:200}\"password\":\"{}\",\"{}\":\"{}\"}}],",
        "",
        "x".repeat(60),
        "n".repeat(200),
        "v".repeat(400)
    );
    remover.feed(b"[", &mut out).unwrap();
    let (mut fed, mut most) = (0, 0);
    while fed < 10 << 20 {
        for part in person.as_bytes().chunks(7) {
            out.clear();
            remover.feed(part, &mut out).unwrap();
            (fed, most) = (fed + part.len(), most.max(remover.held()));
            assert!(out.len() <= part.len() + remover.held() + 16);
        }
    }
    remover.feed(b"1]", &mut out).unwrap();
    remover.finish().unwrap();
    assert!(most < 16, "{most}");
    assert_eq!(remover.removed() as usize, fed / person.len());
    // Neither does a single long name or stretch of white space.
    let mut remover = MemberRemover::new(self::names(&["password"]));
    remover.feed(b"{ \"pass", &mut out).unwrap();
    for _ in 0..1000 {
        remover.feed(&[b'p'; 1000], &mut out).unwrap();
        out.clear();
        assert!(remover.held() < 16);
    }
    let mut remover = MemberRemover::new(self::names(&["password"]));
    remover.feed(b"{ \"pass", &mut out).unwrap();
    for _ in 0..1000 {
        remover.feed(br"\udc00\ud800", &mut out).unwrap();
        out.clear();
        assert!(remover.held() < 32, "halves of pairs");
    }
}

#[test]
fn content_types_and_codings_that_are_read_otherwise_are_refused() {
    let headers = |lines: &[(header::HeaderName, &'static str)]| {
        lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).fold(
            HeaderMap::new(),
            |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            },
        )
    };
    let (kind, coding) = (header::CONTENT_TYPE, header::CONTENT_ENCODING);
    #[rustfmt::skip]
    let cases = [
        (vec![], true), (vec![(kind.clone(), "application/json")], true), (vec![(kind.clone(), "Application/JSON; Charset=\"UTF-8\"")], true),
        (vec![(kind.clone(), "application/json-patch+json")], false),
        (vec![(kind.clone(), "application/vnd.api+json")], false),
        (vec![(kind.clone(), "application/merge-patch+json")], true), (vec![(kind.clone(), "text/plain")], true),
        (vec![(coding.clone(), "identity")], true),
        (vec![(kind.clone(), "application/x-www-form-urlencoded")], false), (vec![(kind.clone(), "multipart/form-data; boundary=x")], false),
        (vec![(kind.clone(), "application/xml")], false), (vec![(kind.clone(), "application/x-yaml")], false), (vec![(kind.clone(), "")], false),
        (vec![(kind.clone(), "application/json; charset=utf-16")], false), (vec![(kind.clone(), "application/json;charset*=utf-7")], false),
        (vec![(kind.clone(), "application/json, application/x-www-form-urlencoded")], false),
        (vec![(kind.clone(), "application/json"), (kind.clone(), "multipart/form-data")], false),
        (vec![(coding.clone(), "gzip")], false), (vec![(coding.clone(), "identity"), (coding.clone(), "deflate")], false),
    ];
    for (lines, passes) in cases {
        assert_eq!(check_request(&headers(&lines)).is_ok(), passes, "{lines:?}");
    }
    #[rustfmt::skip]
    let answers = [
        (200, vec![], AnswerKind::Json), (200, vec![(kind.clone(), "application/json")], AnswerKind::Json), (500, vec![(kind.clone(), "text/html")], AnswerKind::Page),
        (302, vec![(kind.clone(), "text/html; charset=utf-8")], AnswerKind::Page), (200, vec![(kind.clone(), "text/html")], AnswerKind::Opaque),
        (206, vec![(kind.clone(), "application/json")], AnswerKind::Opaque), (200, vec![(kind, "application/json"), (coding, "gzip")], AnswerKind::Opaque),
    ];
    for (status, lines, expected) in answers {
        assert_eq!(
            answer_kind(StatusCode::from_u16(status).unwrap(), &headers(&lines)),
            expected,
            "{status} {lines:?}"
        );
    }
}
