//! Faults of policy files: in their meaning, in their spelling, on the disk.
//!
//! A spoiled file is not always refused. Oracle and engine decide that.

use super::dice::Dice;
use super::json::Json;

/// Spoils one thing in the tree of a policy.
pub(crate) fn tree(tree: &mut Json, dice: &mut Dice) {
    match dice.below(20) {
        0 => *tree = Json::List(Vec::new()),
        1 => *tree = Json::Object(vec![("roles".to_owned(), tree.clone())]),
        2 => *tree = stranger(dice),
        _ => {
            let Json::List(entries) = tree else { return };
            let chosen = dice.below(entries.len());
            entry(&mut entries[chosen], dice);
        }
    }
}

fn entry(entry: &mut Json, dice: &mut Dice) {
    if dice.chance(5) {
        *entry = stranger(dice);
        return;
    }
    let Json::Object(members) = entry else { return };
    let chosen = dice.below(members.len());
    match dice.below(20) {
        0 => drop(members.remove(chosen)),
        1 => members.push(members[chosen].clone()),
        2 => members.push((members[chosen].0.clone(), stranger(dice))),
        3 => members[chosen].1 = stranger(dice),
        4 => {
            members.push((dice.pick(&["comment", "Role", "permission", "roles", "", "global"]).to_owned(), word(dice)))
        }
        _ => {
            for (key, value) in members {
                if let (true, Json::Object(permissions)) = (key == "permissions", value) {
                    spoil_permissions(permissions, dice);
                }
            }
        }
    }
}

fn spoil_permissions(permissions: &mut Vec<(String, Json)>, dice: &mut Dice) {
    let chosen = dice.below(permissions.len());
    match dice.below(8) {
        0 => drop(permissions.remove(chosen)),
        1 => permissions.push(permissions[chosen].clone()),
        2 => permissions.push((permissions[chosen].0.clone(), Json::List(Vec::new()))),
        3 => permissions[chosen].1 = stranger(dice),
        4 => permissions[chosen].1 = word(dice),
        5 => {
            let list = permissions.iter_mut().find_map(|(_, value)| match value {
                Json::List(items) => Some(items),
                _ => None,
            });
            if let Some(items) = list {
                items.insert(dice.below(items.len() + 1), stranger(dice));
            }
        }
        _ => {
            for (_, value) in permissions.iter_mut().filter(|(key, _)| key == "global" || key == "related") {
                *value = if dice.chance(50) { word(dice) } else { stranger(dice) };
            }
        }
    }
}

/// A string where it may not belong. Two of them are valid for `global`, and a name may have up to 256 bytes.
fn word(dice: &mut Dice) -> Json {
    if dice.chance(10) {
        return Json::Text("é".repeat(128) + dice.pick(&["", "x"]));
    }
    let words = ["True", "False", "true", "TRUE", "False ", "yes", "1", "", "person", "person, page", "None"];
    Json::Text(dice.pick(&words).to_owned())
}

/// A value of any kind.
fn stranger(dice: &mut Dice) -> Json {
    match dice.below(10) {
        0 => Json::Null,
        1 => Json::Bool(true),
        2 => Json::Bool(false),
        3 => Json::Number(dice.pick(&["0", "1", "-1", "1.5", "1e400", "123456789012345678901234567890"]).to_owned()),
        4 => Json::List(Vec::new()),
        5 => Json::List(vec![Json::Text("person".to_owned())]),
        6 => Json::List(vec![Json::List(vec![Json::Text("person".to_owned())])]),
        7 => Json::Object(Vec::new()),
        8 => Json::Object(vec![("person".to_owned(), Json::Bool(true))]),
        _ => word(dice),
    }
}

/// Spoils one thing in the bytes of a file.
pub(crate) fn bytes(bytes: &mut Vec<u8>, dice: &mut Dice) {
    match dice.below(7) {
        0 => encoding(bytes, dice),
        1 => insert(
            bytes,
            dice,
            &[
                "// comment\n",
                "/**/",
                "#",
                ",",
                "NaN",
                "Infinity",
                "\u{feff}",
                "\u{a0}",
                "\u{2028}",
                "\0",
                "\u{b}",
                "\u{c}",
                "01",
                "+1",
                "\\ud800",
                "\\u12",
                "\\x41",
                "\\u0000",
                "\\u00e9",
                "\n",
                "'",
                "\"",
                "True",
                "null",
                "[",
                "]",
                "{",
                "}",
                ":",
                "é",
                "\u{7f}",
            ],
        ),
        2 => bytes.extend_from_slice(dice.pick(&["x", "[]", ",", "]", "\0", "\u{feff}", "null", "}"]).as_bytes()),
        3 => bytes.truncate(dice.below(bytes.len() + 1)),
        4 => tokens(bytes, dice),
        5 => {
            *bytes = String::from_utf8_lossy(bytes)
                .replacen(dice.pick(&["\"", "]", "[\"", "{", ":"]), dice.pick(&["'", ",]", "", " "]), 1)
                .into()
        }
        _ => {
            for _ in 0..1 + dice.below(3) {
                one_byte(bytes, dice);
            }
        }
    }
}

fn encoding(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    match dice.below(5) {
        0 => *bytes = [b"\xef\xbb\xbf", bytes.as_slice()].concat(),
        1 => *bytes = text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        2 => *bytes = [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect(),
        3 => *bytes = text.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect(),
        _ => {
            let at = dice.below(bytes.len() + 1);
            let invalid: &[u8] =
                dice.pick(&[b"\xff".as_slice(), b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe9", b"\x80"]);
            bytes.splice(at..at, invalid.iter().copied());
        }
    }
}

fn insert(bytes: &mut Vec<u8>, dice: &mut Dice, pieces: &[&str]) {
    let at = dice.below(bytes.len() + 1);
    bytes.splice(at..at, dice.pick(pieces).bytes());
}

fn one_byte(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let at = dice.below(bytes.len() + 1);
    let byte = if dice.chance(50) { dice.pick(b"\"\\{}[]:, \ntrueTF0\x00\xc3") } else { dice.throw().to_le_bytes()[0] };
    match (dice.below(4), bytes.get_mut(at)) {
        (0, Some(there)) => *there = byte,
        (1, Some(there)) => *there ^= 1 << dice.below(8),
        (2, Some(_)) => drop(bytes.remove(at)),
        _ => bytes.insert(at, byte),
    }
}

/// Drops, doubles or swaps whole tokens.
fn tokens(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let mut tokens: Vec<Vec<u8>> = Vec::new();
    let (mut quoted, mut escaped, mut open) = (false, false, false);
    for &byte in bytes.iter() {
        let alone = !quoted && b"{}[]:, \t\r\n".contains(&byte);
        match tokens.last_mut() {
            Some(token) if open && !alone => token.push(byte),
            _ => tokens.push(vec![byte]),
        }
        open = !alone;
        quoted ^= byte == b'"' && !escaped;
        escaped = quoted && byte == b'\\' && !escaped;
    }
    for _ in 0..1 + dice.below(2) {
        if tokens.is_empty() {
            return;
        }
        let (one, other) = (dice.below(tokens.len()), dice.below(tokens.len()));
        match dice.below(4) {
            0 => drop(tokens.remove(one)),
            1 => tokens.insert(other, tokens[one].clone()),
            2 => tokens.swap(one, other),
            _ => tokens[one] = tokens[other].clone(),
        }
    }
    *bytes = tokens.concat();
}
