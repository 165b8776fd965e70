//! Random policies: their content, their spelling, and questions about them.

use super::dice::Dice;
use super::json::Json;

/// Role names, with near misses of each other. No two are the same role.
pub(crate) const ROLES: [&str; 15] = [
    "end_user",
    "health_professional",
    "root",
    "nurse",
    "End_User",
    "ROOT",
    "end_user ",
    "end",
    "roo",
    "é",
    "global",
    "infirmière",
    "infirmie\u{300}re",
    "看護師",
    "a\"b\\c/d\te",
];

/// Endpoint names, with near misses of each other.
pub(crate) const ENDPOINTS: [&str; 22] = [
    "login",
    "people",
    "person",
    "book",
    "page",
    "password",
    "personaldocs",
    "poldocs",
    "domiciliaryunits",
    "institutions",
    "account",
    "messages",
    "accesslog",
    "Person",
    "PAGE",
    "perso",
    "pag",
    "page ",
    "GET",
    "é",
    "e\u{301}",
    "*",
];

/// Keys of permissions that are methods.
const METHODS: [&str; 5] = ["GET", "POST", "PATCH", "DELETE", "PUT"];
/// Keys of permissions that are not methods, and grant nothing.
const NO_METHODS: [&str; 9] = ["HEAD", "OPTIONS", "get", "Get", "GET ", "TRACE", "*", "", "Global"];

/// Methods on the wire. The first six can be judged.
const WIRE: [&str; 14] =
    ["GET", "HEAD", "POST", "PATCH", "DELETE", "PUT", "OPTIONS", "get", "Post", "TRACE", "", "GET ", "global", "*"];

/// Account ids.
const PRINCIPALS: [&str; 8] =
    ["ITAPYT999HON", "ESPGNU777ORG", "ARGBUE111FAV", "a", "", "ÉMILE", "straße", "ESPGNU777ORG "];

/// The tree of a well-formed policy.
pub(crate) fn policy(dice: &mut Dice) -> Json {
    let entries = match dice.below(200) {
        0 => 20 + dice.below(30),
        _ => 1 + dice.below(6),
    };
    Json::List((0..entries).map(|_| entry(dice)).collect())
}

fn entry(dice: &mut Dice) -> Json {
    let mut permissions = Vec::new();
    for method in METHODS {
        if dice.chance(70) {
            permissions.push((method.to_owned(), endpoints(dice)));
        }
    }
    for _ in 0..dice.below(3).saturating_sub(1) {
        permissions.push((dice.pick(&NO_METHODS).to_owned(), endpoints(dice)));
    }
    let global = match dice.below(10) {
        0..4 => Json::Text("True".to_owned()),
        4..8 => Json::Text("False".to_owned()),
        8 => Json::Bool(true),
        _ => Json::Bool(false),
    };
    permissions.insert(dice.below(permissions.len() + 1), ("global".to_owned(), global));
    let related = match dice.below(10) {
        0..3 => Some(Json::Text("True".to_owned())),
        3 => Some(Json::Bool(true)),
        4 => Some(Json::Text("False".to_owned())),
        5 => Some(Json::Bool(false)),
        _ => None,
    };
    if let Some(related) = related {
        permissions.insert(dice.below(permissions.len() + 1), ("related".to_owned(), related));
    }
    let role = if dice.chance(60) { dice.pick(&ROLES[..4]) } else { dice.pick(&ROLES) };
    let mut members =
        vec![("role".to_owned(), Json::Text(role.to_owned())), ("permissions".to_owned(), Json::Object(permissions))];
    if dice.chance(20) {
        members.reverse();
    }
    Json::Object(members)
}

fn endpoints(dice: &mut Dice) -> Json {
    let count = dice.below(7);
    Json::List((0..count).map(|_| Json::Text(dice.pick(&ENDPOINTS).to_owned())).collect())
}

/// Spells a tree: in `odd` of a hundred cases with unusual white space and escapes.
pub(crate) fn spell(tree: &Json, dice: &mut Dice, odd: usize) -> String {
    let mut text = String::new();
    write(tree, dice, odd, &mut text);
    if dice.chance(50) {
        text.push('\n');
    }
    text
}

fn write(tree: &Json, dice: &mut Dice, odd: usize, text: &mut String) {
    blank(dice, odd, text);
    match tree {
        Json::Null => text.push_str("null"),
        Json::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Json::Number(digits) => text.push_str(digits),
        Json::Text(string) => quote(string, dice, odd, text),
        Json::List(items) => {
            text.push('[');
            for (position, item) in items.iter().enumerate() {
                text.push_str(if position > 0 { "," } else { "" });
                write(item, dice, odd, text);
            }
            blank(dice, odd, text);
            text.push(']');
        }
        Json::Object(members) => {
            text.push('{');
            for (position, (key, value)) in members.iter().enumerate() {
                text.push_str(if position > 0 { "," } else { "" });
                blank(dice, odd, text);
                quote(key, dice, odd, text);
                blank(dice, odd, text);
                text.push(':');
                write(value, dice, odd, text);
            }
            blank(dice, odd, text);
            text.push('}');
        }
    }
    blank(dice, odd, text);
}

fn blank(dice: &mut Dice, odd: usize, text: &mut String) {
    if odd > 0 && dice.chance(odd) {
        text.push_str(dice.pick(&["\n", " ", "\t", "\r\n", "\n    "]));
    }
}

fn quote(string: &str, dice: &mut Dice, odd: usize, text: &mut String) {
    text.push('"');
    let odd_here = odd > 0 && dice.chance(odd);
    for character in string.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\t' => text.push_str("\\t"),
            '/' if odd_here => text.push_str("\\/"),
            _ if odd_here && dice.chance(50) => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    text.push_str(&if dice.chance(50) { format!("\\u{unit:04x}") } else { format!("\\u{unit:04X}") });
                }
            }
            _ => text.push(character),
        }
    }
    text.push('"');
}

/// The roles of a principal: mostly some that the file defines, sometimes others, one twice, or none.
pub(crate) fn roles(defined: &[String], dice: &mut Dice) -> Vec<String> {
    let count = dice.pick(&[0, 1, 1, 1, 2, 2, 3, 4]);
    (0..count)
        .map(
            |_| if dice.chance(70) { defined[dice.below(defined.len())].clone() } else { dice.pick(&ROLES).to_owned() },
        )
        .collect()
}

/// A method as on the wire.
pub(crate) fn method(dice: &mut Dice) -> &'static str {
    if dice.chance(95) { dice.pick(&WIRE[..6]) } else { dice.pick(&WIRE) }
}

/// An account, and the subjects of its requests: itself, none, others, and ids that look like it.
pub(crate) fn principal(dice: &mut Dice) -> (String, Vec<Option<String>>) {
    let id = dice.pick(&PRINCIPALS);
    let shorter: String = id.chars().take(id.chars().count().saturating_sub(1)).collect();
    let subjects = [
        id.to_owned(),
        id.to_owned(),
        dice.pick(&PRINCIPALS).to_owned(),
        shorter,
        id.chars().skip(1).collect(),
        format!("{id}X"),
        format!("{id} "),
        format!(" {id}"),
        id.to_lowercase(),
        id.to_uppercase(),
        id.replace('É', "E\u{301}"),
        id.replace('O', "О"),
        format!("{id}\0"),
        String::new(),
    ];
    (id.to_owned(), [None, None, None].into_iter().chain(subjects.map(Some)).collect())
}
