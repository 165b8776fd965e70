//! The file format of roles.cfg: turns bytes into checked role definitions.
//!
//! The format is a JSON array of
//! `{"role": NAME, "permissions": {METHOD: [ENDPOINT, …], …, "global": "True" | "False"}}`, as Thalamus reads it, and
//! beside `global` may be `related`, which Thalamus ignores. The one rule: the whole file is refused if Thalamus would read a part of it in a way that the author did not mean (a
//! string in place of a list, a repeated key). Every fault names its line.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

use super::{Method, PolicyReach};
use crate::escape;

/// The largest policy file, in bytes.
pub const MAX_POLICY_BYTES: usize = 8 * 1024 * 1024;
/// The most keys in one `permissions`.
const MAX_KEYS: usize = 64;
/// The longest name of a role, endpoint or method, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// One entry of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleDefinition {
    /// The role's name.
    pub name: String,
    /// The line on which the entry begins, from 1.
    pub line: usize,
    /// The reach of its permissions.
    pub reach: PolicyReach,
    /// Whether `global` is written as a JSON boolean, which Thalamus reads as false.
    pub global_is_boolean: bool,
    /// Whether `related` is written beside a `global` that makes it void.
    pub is_related_void: bool,
    /// The keys of its `permissions`, as written. A key with an empty list grants nothing, but is included.
    pub keys: Vec<String>,
    /// Every (method, endpoint) that it lists.
    pub grants: Vec<RoleGrant>,
}

/// One endpoint in the list of a method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleGrant {
    /// The key as written. A key that is not a method grants nothing.
    pub method: String,
    /// The endpoint's name as written. A name without a route grants nothing.
    pub endpoint: String,
    /// The line of the endpoint, from 1.
    pub line: usize,
}

impl RoleDefinition {
    /// Whether the role lists `endpoint` under `method`.
    pub fn grants(&self, method: Method, endpoint: &str) -> bool {
        self.grants.iter().any(|grant| grant.method == method.as_str() && grant.endpoint == endpoint)
    }
}

/// Why a policy file is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PolicyError {
    /// Larger than 8 MiB.
    #[error("file is larger than {} MiB", MAX_POLICY_BYTES >> 20)]
    TooLarge,
    /// No bytes, or blanks alone. A write that was cut short, or a full disk, leaves such a file.
    #[error("file is empty; write the roles into it, or restore an earlier one")]
    Empty,
    /// Not UTF-8, or UTF-8 with a byte order mark or a NUL.
    #[error("file is not plain UTF-8 (a byte order mark, UTF-16 and NUL have no place in it)")]
    Encoding,
    /// Not JSON, or not of the right shape.
    #[error("line {line}: {problem}")]
    Shape {
        /// The line, from 1.
        line: usize,
        /// The fault and its place.
        problem: String,
    },
    /// An empty list of roles. It is valid JSON, but a truncated write is likelier than the wish to lock everybody
    /// out.
    #[error("file defines no role; a policy without roles would deny everybody everything")]
    NoRoles,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleEntry<'a> {
    role: String,
    #[serde(borrow)]
    permissions: RoleMembers<'a>,
}

/// The members of a JSON object in their order, each key once.
struct RoleMembers<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for RoleMembers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CollectMembers;
        impl<'de> Visitor<'de> for CollectMembers {
            type Value = RoleMembers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of methods")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(String, &'de RawValue)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                    // JSON parsers keep the first or the last of two equal keys, so the author's meaning is unknown.
                    if members.iter().any(|(known, _)| *known == key) {
                        return Err(serde::de::Error::custom(format_args!("duplicate key `{}`", escape::name(&key))));
                    }
                    if members.len() == MAX_KEYS {
                        return Err(serde::de::Error::custom(format_args!("more than {MAX_KEYS} keys")));
                    }
                    members.push((key, value));
                }
                Ok(RoleMembers(members))
            }
        }
        deserializer.deserialize_map(CollectMembers)
    }
}

/// The most characters of a JSON parser's message that are quoted: a name that it quotes itself, and some words about
/// it.
const MOST_OF_A_COMPLAINT: usize = escape::NAME_CHARACTERS + 32;

fn told(complaint: &str) -> std::borrow::Cow<'_, str> {
    escape::start(complaint, MOST_OF_A_COMPLAINT)
}

/// Parses the bytes of a roles.cfg file.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<RoleDefinition>, PolicyError> {
    let mut faults = FaultList { most: 1, found: vec![] };
    let roles = read(bytes, &mut faults)?;
    faults.found.pop().map_or(Ok(roles), Err)
}

/// The faults of a roles.cfg file, up to `most`. A text that is not a list of roles has one fault.
pub(super) fn faults(bytes: &[u8], most: usize) -> Vec<PolicyError> {
    let mut faults = FaultList { most, found: vec![] };
    match read(bytes, &mut faults) {
        Ok(_) => faults.found,
        Err(fault) => vec![fault],
    }
}

/// The faults of single entries. Reading stops when there are as many as requested.
struct FaultList {
    most: usize,
    found: Vec<PolicyError>,
}

impl FaultList {
    fn is_full(&self) -> bool {
        self.found.len() >= self.most
    }

    fn note<T>(&mut self, read: Result<T, PolicyError>) -> Option<T> {
        read.map_err(|fault| self.found.push(fault)).ok()
    }
}

/// Reads the valid roles, and notes the faults of the others.
fn read(bytes: &[u8], faults: &mut FaultList) -> Result<Vec<RoleDefinition>, PolicyError> {
    if bytes.len() > MAX_POLICY_BYTES {
        return Err(PolicyError::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| PolicyError::Encoding)?;
    if text.starts_with('\u{feff}') || text.contains('\0') {
        return Err(PolicyError::Encoding);
    }
    if text.trim().is_empty() {
        return Err(PolicyError::Empty);
    }
    let file = PolicyFile { text, line_ends: text.match_indices('\n').map(|(offset, _)| offset).collect() };
    let entries: Vec<&RawValue> = file.read(text, "the file must be a list of roles")?;
    if entries.is_empty() {
        return Err(PolicyError::NoRoles);
    }
    let mut roles = vec![];
    for entry in entries {
        if faults.is_full() {
            break;
        }
        let role = file.role(entry, faults);
        roles.extend(faults.note(role));
    }
    Ok(roles)
}

struct PolicyFile<'a> {
    text: &'a str,
    /// The offsets of the line ends, so that a line number costs a binary search.
    line_ends: Vec<usize>,
}

impl<'a> PolicyFile<'a> {
    /// The line on which a part of the text begins, from 1.
    fn line(&self, part: &str) -> usize {
        let offset = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        self.line_ends.partition_point(|end| *end < offset) + 1
    }

    fn read<T: Deserialize<'a>>(&self, part: &'a str, expected: &str) -> Result<T, PolicyError> {
        serde_json::from_str(part).map_err(|e| {
            // The column would be that of the part, so only the line is reported.
            let line = self.line(part) + e.line().saturating_sub(1);
            let problem = e.to_string();
            let problem = problem.rsplit_once(" at line ").map_or(problem.as_str(), |(problem, _)| problem);
            // The message quotes the input, of any length and content, and then says what was expected.
            let problem = match problem.rsplit_once(", expected ") {
                Some((met, expected)) => format!("{}, expected {}", told(met), told(expected)),
                None => told(problem).into_owned(),
            };
            PolicyError::Shape { line, problem: format!("{problem}; {expected}") }
        })
    }

    /// Reads one role. A fault in one method is noted, and reading continues with the next.
    fn role(&self, entry: &'a RawValue, faults: &mut FaultList) -> Result<RoleDefinition, PolicyError> {
        let line = self.line(entry.get());
        let shape =
            "a role is {\"role\": NAME, \"permissions\": {METHOD: [ENDPOINT, …], \"global\": \"True\" or \"False\"}}";
        if !entry.get().starts_with('{') {
            // Serde would also accept a list of the values in the order of the fields.
            return Err(PolicyError::Shape { line, problem: format!("an entry is not an object; {shape}") });
        }
        let RoleEntry { role: name, permissions } = self.read(entry.get(), shape)?;
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            let problem = format!("`role` must be a name of 1 to {MAX_NAME_BYTES} bytes");
            return Err(PolicyError::Shape { line, problem });
        }
        let mut definition = RoleDefinition {
            name,
            line,
            reach: PolicyReach::Own,
            global_is_boolean: false,
            is_related_void: false,
            keys: Vec::new(),
            grants: Vec::new(),
        };
        let mut is_related = false;
        for (key, value) in permissions.0 {
            if faults.is_full() {
                break;
            }
            definition.keys.push(key.clone());
            if key == "global" {
                let is_global = self.flag(&key, value);
                if faults.note(is_global) == Some(true) {
                    definition.reach = PolicyReach::Global;
                }
                definition.global_is_boolean = !value.get().starts_with('"');
                continue;
            }
            if key == "related" {
                let flag = self.flag(&key, value);
                is_related = faults.note(flag) == Some(true);
                continue;
            }
            let grants = self.grants(&definition.name, &key, value);
            definition.grants.extend(faults.note(grants).into_iter().flatten());
        }
        definition.is_related_void = is_related && definition.reach == PolicyReach::Global;
        if is_related {
            definition.reach = definition.reach.max(PolicyReach::Related);
        }
        Ok(definition)
    }

    /// The endpoints that a role lists under a method.
    fn grants(&self, role: &str, method: &str, value: &'a RawValue) -> Result<Vec<RoleGrant>, PolicyError> {
        let expected =
            format!("`{}` of role `{}` must be a list of endpoint names", escape::name(method), escape::name(role));
        let endpoints = self.read::<Vec<&RawValue>>(value.get(), &expected)?;
        let grants = endpoints.into_iter().map(|endpoint| {
            let (line, name): (_, String) = (self.line(endpoint.get()), self.read(endpoint.get(), &expected)?);
            if name.is_empty() || name.len() > MAX_NAME_BYTES {
                let problem = format!("endpoint names have 1 to {MAX_NAME_BYTES} bytes; {expected}");
                return Err(PolicyError::Shape { line, problem });
            }
            Ok(RoleGrant { method: method.to_owned(), endpoint: name, line })
        });
        grants.collect()
    }

    /// The value of `global` or `related`.
    fn flag(&self, key: &str, value: &RawValue) -> Result<bool, PolicyError> {
        // The decoded word, so that escapes in its spelling do not count.
        let word: Option<String> = serde_json::from_str(value.get()).ok();
        match (value.get(), word.as_deref()) {
            ("true", _) | (_, Some("True")) => Ok(true),
            ("false", _) | (_, Some("False")) => Ok(false),
            (other, _) => {
                let other = escape::start(other, 40);
                let problem = format!("`{key}` is {other}; write \"True\" or \"False\"");
                Err(PolicyError::Shape { line: self.line(value.get()), problem })
            }
        }
    }
}
