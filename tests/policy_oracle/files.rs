//! Which bytes are a policy: hand-written files with the answer beside them, and random damage to valid ones.

use fedgate_core::policy::{EndpointTable, RoleRights};

use super::dice::Dice;
use super::drafts;
use super::oracle::Ask;
use super::pair::Pair;
use super::random::number;
use super::spoils;

/// Damaged files in one run.
const DAMAGED: u64 = 60_000;

const STOCK: &str = include_str!("../../policies/roles.cfg");

#[derive(Debug, PartialEq)]
enum Fate {
    Accepted,
    Refused,
}
use Fate::{Accepted, Refused};

fn fate(bytes: &[u8]) -> Fate {
    Pair::read(bytes, &"by hand").map_or(Refused, |_| Accepted)
}

/// A file of one entry with these permissions.
fn of(permissions: &str) -> String {
    format!(r#"[{{"role": "r", "permissions": {permissions}}}]"#)
}

#[test]
fn permissions_are_lists_of_strings_and_one_global() {
    #[rustfmt::skip]
    let cases = [
        (r#"{"GET": ["person"], "global": "True"}"#, Accepted),
        (r#"{"GET": ["person"], "global": "False"}"#, Accepted),
        (r#"{"GET": ["person"], "global": true}"#, Accepted),
        (r#"{"GET": ["person"], "global": false}"#, Accepted),
        (r#"{"GET": ["person", "person"], "global": false}"#, Accepted),
        (r#"{"GET": [], "global": false}"#, Accepted),
        (r#"{"global": false}"#, Accepted),
        (r#"{"global": false, "GET": ["person"]}"#, Accepted),
        (r#"{"PUT": ["person"], "HEAD": ["person"], "get": ["person"], "": [], "global": false}"#, Accepted),
        (r#"{"GET": ["no such endpoint", "\u00e9"], "global": false}"#, Accepted),
        (r#"{"GET": ["person"]}"#, Accepted),
        ("{}", Accepted),
        (r#"{"GET": ["person"], "\u0067lobal": "True"}"#, Accepted),
        (r#"{"GET": ["person"], "global": "False", "related": "True"}"#, Accepted),
        (r#"{"GET": ["person"], "related": true}"#, Accepted),
        (r#"{"GET": ["person"], "related": "True", "global": true}"#, Accepted),
        (r#"{"GET": ["person"], "related": "true"}"#, Refused),
        (r#"{"GET": ["person"], "related": ["person"]}"#, Refused),
        (r#"{"GET": ["person"], "related": null}"#, Refused),
        (r#"{"GET": ["person"], "related": 1}"#, Refused),
        (r#"{"GET": ["person"], "related": true, "relat\u0065d": false}"#, Refused),
        (r#"{"GET": ["person"], "Related": true}"#, Refused),
        (r#"{"GET": ["person"], "global": "true"}"#, Refused),
        (r#"{"GET": ["person"], "global": "false"}"#, Refused),
        (r#"{"GET": ["person"], "global": "TRUE"}"#, Refused),
        (r#"{"GET": ["person"], "global": "True "}"#, Refused),
        (r#"{"GET": ["person"], "global": ""}"#, Refused),
        (r#"{"GET": ["person"], "global": 1}"#, Refused),
        (r#"{"GET": ["person"], "global": 0}"#, Refused),
        (r#"{"GET": ["person"], "global": null}"#, Refused),
        (r#"{"GET": ["person"], "global": []}"#, Refused),
        (r#"{"GET": ["person"], "global": ["True"]}"#, Refused),
        (r#"{"GET": ["person"], "global": {}}"#, Refused),
        (r#"{"GET": ["person"], "global": True}"#, Refused),
        (r#"{"GET": ["person"], "Global": "True", "global": "False"}"#, Refused),
        (r#"{"GET": ["person"], "global": "True", "global": "True"}"#, Refused),
        (r#"{"GET": ["person"], "global": "True", "glob\u0061l": "False"}"#, Refused),
        (r#"{"GET": "person", "global": false}"#, Refused),
        (r#"{"GET": "", "global": false}"#, Refused),
        (r#"{"FOO": "person", "global": false}"#, Refused),
        (r#"{"GET": null, "global": false}"#, Refused),
        (r#"{"GET": true, "global": false}"#, Refused),
        (r#"{"GET": {"person": true}, "global": false}"#, Refused),
        (r#"{"GET": ["person", 1], "global": false}"#, Refused),
        (r#"{"GET": ["person", null], "global": false}"#, Refused),
        (r#"{"GET": [["person"]], "global": false}"#, Refused),
        (r#"{"GET": ["person"], "GET": ["person"], "global": false}"#, Refused),
        (r#"{"GET": ["person"], "\u0047ET": ["page"], "global": false}"#, Refused),
        (r#"{"FOO": [], "FOO": [], "global": false}"#, Refused),
        ("[]", Refused),
        ("null", Refused),
        (r#""GET""#, Refused),
    ];
    for (permissions, expected) in cases {
        assert_eq!(fate(of(permissions).as_bytes()), expected, "{permissions}");
    }
}

#[test]
fn a_file_is_a_list_of_roles_and_nothing_else() {
    const OK: &str = r#"{"role": "r", "permissions": {"GET": ["person"], "global": false}}"#;
    let cases = [
        (STOCK.to_owned(), Accepted),
        (format!("[{OK}]"), Accepted),
        (format!("\r\n\t [ {OK} ]\n\n"), Accepted),
        (format!("[{OK},{OK}]"), Accepted),
        (r#"[{"permissions": {"global": false}, "role": "r"}]"#.to_owned(), Accepted),
        (String::new(), Refused),
        (" \n".to_owned(), Refused),
        ("[]".to_owned(), Refused),
        ("{}".to_owned(), Refused),
        ("null".to_owned(), Refused),
        ("[null]".to_owned(), Refused),
        ("[[]]".to_owned(), Refused),
        ("[{}]".to_owned(), Refused),
        (OK.to_owned(), Refused),
        (format!("[[{OK}]]"), Refused),
        (format!("{{\"roles\": [{OK}]}}"), Refused),
        (format!("[{OK},]"), Refused),
        (format!("[,{OK}]"), Refused),
        (format!("[{OK} {OK}]"), Refused),
        (format!("[{OK}"), Refused),
        (format!("[{OK}]]"), Refused),
        (format!("[{OK}] x"), Refused),
        (format!("[{OK}][{OK}]"), Refused),
        (format!("[{OK}]\0"), Refused),
        (format!("\u{feff}[{OK}]"), Refused),
        (format!("\u{a0}[{OK}]"), Refused),
        (format!("\u{b}[{OK}]"), Refused),
        (format!("// roles\n[{OK}]"), Refused),
        (format!("[{OK}, null]"), Refused),
        (format!("[{OK}, \"r\"]"), Refused),
        (OK.replace('"', "'"), Refused),
        (r#"[{"role": "r"}]"#.to_owned(), Refused),
        (r#"[{"permissions": {"global": false}}]"#.to_owned(), Refused),
        (r#"[{"role": null, "permissions": {"global": false}}]"#.to_owned(), Refused),
        (r#"[{"role": 1, "permissions": {"global": false}}]"#.to_owned(), Refused),
        (r#"[{"role": ["r"], "permissions": {"global": false}}]"#.to_owned(), Refused),
        (r#"[{"role": "r", "permissions": {"global": false}, "comment": ""}]"#.to_owned(), Refused),
        (r#"[{"role": "r", "permissions": {"global": false}, "Role": "r"}]"#.to_owned(), Refused),
        (r#"[{"role": "r", "role": "r", "permissions": {"global": false}}]"#.to_owned(), Refused),
        (r#"[{"role": "r", "\u0072ole": "q", "permissions": {"global": false}}]"#.to_owned(), Refused),
        (r#"[{"role": "r", "permissions": {"global": false}, "permissions": {"global": true}}]"#.to_owned(), Refused),
        (r#"[{"role": "\ud800", "permissions": {"global": false}}]"#.to_owned(), Refused),
        (r#"[{"role": "\udc00\ud800", "permissions": {"global": false}}]"#.to_owned(), Refused),
        (r#"[{"role": "\ud83d\ude00", "permissions": {"global": false}}]"#.to_owned(), Accepted),
        ("[{\"role\": \"a\nb\", \"permissions\": {\"global\": false}}]".to_owned(), Refused),
        ("[{\"role\": \"a\0b\", \"permissions\": {\"global\": false}}]".to_owned(), Refused),
        ("[".repeat(200_000), Refused),
        (format!("[{{\"role\": \"r\", \"permissions\": {{\"GET\": {}", "[".repeat(200_000)), Refused),
        ("{\"role\":".repeat(100_000), Refused),
    ];
    for (file, expected) in cases {
        let shown: String = file.chars().take(200).collect();
        assert_eq!(fate(file.as_bytes()), expected, "{shown}");
    }
}

#[test]
fn an_entry_is_an_object_not_a_list_of_its_values() {
    assert_eq!(fate(br#"[["r", {"GET": ["person"], "global": true}]]"#), Refused);
}

#[test]
fn global_means_the_same_however_it_is_escaped() {
    assert_eq!(fate(of(r#"{"GET": ["person"], "global": "Tru\u0065"}"#).as_bytes()), Accepted);
    assert_eq!(fate(of(r#"{"GET": ["person"], "global": "F\u0061lse"}"#).as_bytes()), Accepted);
    assert_eq!(fate(of(r#"{"GET": ["person"], "global": "tru\u0065"}"#).as_bytes()), Refused);
}

#[test]
fn names_have_1_to_256_bytes_and_permissions_64_keys() {
    let role = |name: &str| format!(r#"[{{"role": "{name}", "permissions": {{"global": false}}}}]"#);
    let endpoint = |name: &str| of(&format!(r#"{{"GET": ["person", "{name}"]}}"#));
    let keys = |count: usize| {
        of(&format!("{{{}}}", (0..count).map(|it| format!(r#""M{it}": []"#)).collect::<Vec<_>>().join(", ")))
    };
    let widest = "é".repeat(128);
    let cases = [
        (role(&widest), Accepted),
        (endpoint(&widest), Accepted),
        (keys(64), Accepted),
        (role(""), Refused),
        (endpoint(""), Refused),
        (role(&format!("{widest}x")), Refused),
        (endpoint(&format!("{widest}x")), Refused),
        (keys(65), Refused),
    ];
    for (file, expected) in cases {
        assert_eq!(fate(file.as_bytes()), expected, "{file}");
    }
}

#[test]
fn a_file_is_plain_utf_8() {
    let ok = of(r#"{"GET": ["é"], "global": false}"#);
    let utf16 = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> { ok.encode_utf16().flat_map(unit).collect() };
    let with =
        |bytes: &[u8]| ok.bytes().flat_map(|byte| if byte == b'r' { bytes.to_vec() } else { vec![byte] }).collect();
    let cases: [(&str, Vec<u8>); 8] = [
        ("byte order mark", [b"\xef\xbb\xbf", ok.as_bytes()].concat()),
        ("UTF-16, little end", utf16(u16::to_le_bytes)),
        ("UTF-16, big end", utf16(u16::to_be_bytes)),
        ("UTF-32", ok.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect()),
        ("Latin-1", ok.chars().map(|c| u8::try_from(c).unwrap()).collect()),
        ("overlong NUL", with(b"\xc0\x80")),
        ("surrogate", with(b"\xed\xa0\x80")),
        ("beyond Unicode", with(b"\xf4\x90\x80\x80")),
    ];
    assert_eq!(fate(ok.as_bytes()), Accepted);
    for (encoding, bytes) in cases {
        assert_eq!(fate(&bytes), Refused, "{encoding}");
    }
}

#[test]
fn a_file_beyond_8_mib_is_refused() {
    let ok = of(r#"{"GET": ["person"], "global": false}"#);
    let padded = |length: usize| format!("{ok}{}", " ".repeat(length - ok.len()));
    assert_eq!(fate(padded(8 << 20).as_bytes()), Accepted);
    assert_eq!(fate(padded((8 << 20) + 1).as_bytes()), Refused);
}

#[test]
fn a_damaged_file_is_refused_or_means_what_it_says() {
    let files = number("FEDGATE_ORACLE_CASES", DAMAGED).min(DAMAGED);
    let seed = number("FEDGATE_ORACLE_SEED", 1);
    let mut table = EndpointTable::default();
    let _number = table.intern("person").unwrap();
    let (mut accepted, mut refused) = (0_u64, 0_u64);
    for file in 0..files {
        let mut dice = Dice::new(!seed, file);
        let origin = format!("damage seed {seed}, file {file}");
        let mut bytes = if dice.chance(20) {
            STOCK.as_bytes().to_vec()
        } else {
            let policy = drafts::policy(&mut dice);
            drafts::spell(&policy, &mut dice, 10).into_bytes()
        };
        for _ in 0..dice.pick(&[1, 1, 1, 2, 5]) {
            spoils::bytes(&mut bytes, &mut dice);
        }
        let Some(pair) = Pair::read(&bytes, &origin) else {
            refused += 1;
            continue;
        };
        accepted += 1;
        for role in pair.oracle.role_names() {
            let roles = [role];
            let rights = RoleRights::compile(&pair.engine, &roles, &table);
            for endpoint in pair.oracle.endpoint_names() {
                let ask = Ask {
                    principal: "A",
                    roles: &roles,
                    method: drafts::method(&mut dice),
                    endpoint: &endpoint,
                    subject: Some("B"),
                    related: &[],
                };
                let _answer = pair.ask(&rights, &table, &ask, &origin);
            }
        }
    }
    println!("{files} damaged files: {accepted} accepted by both, {refused} refused by both, 0 mismatches, 0 panics");
    assert!(accepted > files / 20 && refused > files / 2, "the damage is neither harmless nor always fatal");
}
