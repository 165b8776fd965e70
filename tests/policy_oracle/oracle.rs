//! The meaning of roles.cfg, judged from the start for every question: for each role of the principal, and each
//! entry of it, what Thalamus would do.
//!
//! It is written from the description of the file alone, and slow on purpose: nothing is compiled, indexed or
//! cached.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::json::Json;

/// The largest file, in bytes.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// The most keys in one `permissions`.
const MAX_KEYS: usize = 64;
/// The length of a role's or endpoint's name, in bytes.
const NAME_BYTES: RangeInclusive<usize> = 1..=256;

/// An accepted file.
pub(crate) struct Policy(Json);

/// One question, as a request puts it. The method is the word on the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) principal: &'a str,
    pub(crate) roles: &'a [String],
    pub(crate) method: &'a str,
    pub(crate) endpoint: &'a str,
    pub(crate) subject: Option<&'a str>,
    /// The persons to whom the principal is related.
    pub(crate) related: &'a [String],
}

/// The answer. The order is that of strength: of the answers of single entries, the strongest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    /// Denied: no policy can grant this method.
    NoMethod,
    /// Denied: no role of the principal is defined.
    NoRole,
    /// Denied: no role lists the endpoint under the method.
    NotGranted,
    /// Denied: listed, but the record is another person's.
    NotOwn,
    /// Allowed, for the principal's own record.
    Own,
    /// Allowed, for the principal's own record and those of related persons.
    Related,
    /// Allowed, for every person's record.
    Global,
}

impl Answer {
    /// Every answer.
    pub(crate) const ALL: [Self; 7] =
        [Self::NoMethod, Self::NoRole, Self::NotGranted, Self::NotOwn, Self::Own, Self::Related, Self::Global];
}

impl Policy {
    /// Reads a whole file, or returns why it is refused.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MAX_BYTES {
            return Err("too large".to_owned());
        }
        let tree = Json::read(bytes)?;
        let Json::List(entries) = &tree else { return Err("not a list of roles".to_owned()) };
        if entries.is_empty() {
            return Err("no role".to_owned());
        }
        for (position, entry) in entries.iter().enumerate() {
            entry_is_sound(entry).map_err(|fault| format!("entry {position}: {fault}"))?;
        }
        Ok(Self(tree))
    }

    /// Answers one question.
    pub(crate) fn answer(&self, ask: &Ask<'_>) -> Answer {
        let method = match ask.method {
            "HEAD" => "GET",
            method @ ("GET" | "POST" | "PUT" | "PATCH" | "DELETE") => method,
            _ => return Answer::NoMethod,
        };
        let mut strongest = Answer::NoRole;
        for role in ask.roles {
            for entry in self.entries() {
                if name(entry) == role {
                    strongest = strongest.max(answer_of_entry(entry, method, ask));
                }
            }
        }
        strongest
    }

    /// The roles that the file defines, to ask about.
    pub(crate) fn role_names(&self) -> Vec<String> {
        self.entries().iter().map(|entry| name(entry).to_owned()).collect()
    }

    /// The endpoints that the file lists, to ask about.
    pub(crate) fn endpoint_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for entry in self.entries() {
            let Some(Json::Object(permissions)) = entry.member("permissions") else { continue };
            for (_, listed) in permissions {
                names.extend(items(listed).iter().map(|item| text(item).to_owned()));
            }
        }
        names
    }

    fn entries(&self) -> &[Json] {
        items(&self.0)
    }
}

fn answer_of_entry(entry: &Json, method: &str, ask: &Ask<'_>) -> Answer {
    let permissions = entry.member("permissions").unwrap_or(&Json::Null);
    let listed = permissions.member(method).map(items).unwrap_or_default();
    if !listed.iter().any(|item| text(item) == ask.endpoint) {
        return Answer::NotGranted;
    }
    let says = |key: &str| match permissions.member(key) {
        Some(Json::Bool(yes)) => *yes,
        Some(Json::Text(word)) => word == "True",
        // Silence denies: an entry without `global` is not global.
        _ => false,
    };
    let widest = if says("related") { Answer::Related } else { Answer::Own };
    match ask.subject {
        _ if says("global") => Answer::Global,
        None => widest,
        Some(subject) if subject == ask.principal => widest,
        Some(subject) if says("related") && ask.related.iter().any(|related| related == subject) => widest,
        Some(_) => Answer::NotOwn,
    }
}

fn entry_is_sound(entry: &Json) -> Result<(), String> {
    let Json::Object(members) = entry else { return Err("no object".to_owned()) };
    keys_stand_once(members)?;
    if let Some((unknown, _)) = members.iter().find(|(key, _)| !["role", "permissions"].contains(&key.as_str())) {
        return Err(format!("unknown member `{unknown}`"));
    }
    if !entry.member("role").is_some_and(is_name) {
        return Err("`role` is no name".to_owned());
    }
    let Some(Json::Object(permissions)) = entry.member("permissions") else {
        return Err("`permissions` is no object".to_owned());
    };
    keys_stand_once(permissions)?;
    if permissions.len() > MAX_KEYS {
        return Err("too many keys".to_owned());
    }
    for (key, value) in permissions {
        let sound = match value {
            Json::Bool(_) => is_flag(key),
            Json::Text(word) => is_flag(key) && ["True", "False"].contains(&word.as_str()),
            Json::List(items) => !is_flag(key) && items.iter().all(is_name),
            Json::Null | Json::Number(_) | Json::Object(_) => false,
        };
        if !sound {
            return Err(format!("`{key}` is not what it should be"));
        }
    }
    Ok(())
}

fn is_flag(key: &str) -> bool {
    ["global", "related"].contains(&key)
}

fn is_name(value: &Json) -> bool {
    matches!(value, Json::Text(name) if NAME_BYTES.contains(&name.len()))
}

fn keys_stand_once(members: &[(String, Json)]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    match members.iter().find(|(key, _)| !seen.insert(key)) {
        Some((key, _)) => Err(format!("`{key}` stands twice")),
        None => Ok(()),
    }
}

fn name(entry: &Json) -> &str {
    entry.member("role").map(text).unwrap_or_default()
}

fn items(value: &Json) -> &[Json] {
    match value {
        Json::List(items) => items,
        _ => &[],
    }
}

fn text(value: &Json) -> &str {
    match value {
        Json::Text(text) => text,
        _ => "",
    }
}
