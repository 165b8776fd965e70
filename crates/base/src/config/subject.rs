//! `subject` of a `[[route]]`: where its requests name the person whose record they concern.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::error::ConfigError;
use fedgate_core::subject::{
    AnswerEdits, FilteredList, IdForms, JsonPlace, MAX_FORMS, MAX_POINTERS, QueryPlaces, SubjectPointers, SubjectRule,
};

/// The most parameters of each list.
const MAX_PARAMETERS: usize = 64;

/// A subject as written: the name of a parameter of the path, or a table of places.
#[derive(Debug)]
pub(super) enum SubjectSection {
    Path(String),
    Places(Box<SubjectTable>),
}

impl<'de> Deserialize<'de> for SubjectSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        // By hand, because serde's untagged enums do not say which key or type is wrong.
        impl<'de> Visitor<'de> for Either {
            type Value = SubjectSection;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a parameter of the path, or a table with path, query, body or answer")
            }

            fn visit_str<E>(self, path: &str) -> Result<Self::Value, E> {
                Ok(SubjectSection::Path(path.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let table = SubjectTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(SubjectSection::Places(Box::new(table)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubjectTable {
    path: Option<String>,
    #[serde(default)]
    query: Vec<String>,
    #[serde(default)]
    beside: Vec<String>,
    #[serde(default)]
    missing: MissingSubject,
    #[serde(default)]
    body: Vec<String>,
    #[serde(default)]
    answer: Vec<String>,
    #[serde(default)]
    empty: BTreeMap<String, String>,
    #[serde(default)]
    if_match: bool,
    #[serde(default)]
    forms: Vec<String>,
    #[serde(default)]
    list: ListReach,
    #[serde(default)]
    count: Vec<String>,
    #[serde(default)]
    links: Vec<String>,
}

/// How a list of several persons' records is shown to a caller who may see only some of them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ListReach {
    /// Not at all.
    #[default]
    Refuse,
    /// Without the others' records.
    Filter,
}

/// How a query without a subject is read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum MissingSubject {
    /// It concerns everybody.
    #[default]
    Everybody,
    /// The gateway adds the caller's own id.
    Own,
}

/// The subject of a route: the parameter of its path, and the other places.
#[derive(Debug, Clone, Default)]
pub struct SubjectConfig {
    /// The parameter of the path pattern.
    pub path: Option<String>,
    /// The other places.
    pub rule: Option<SubjectRule>,
}

/// The facts of a route that a subject has to fit.
pub(super) struct SubjectRoute<'a> {
    pub(super) methods: &'a [String],
    pub(super) is_public: bool,
    pub(super) is_stream: bool,
}

impl SubjectSection {
    /// Checks a subject; `fault` takes key, problem and remedy.
    pub(super) fn check(
        self,
        route: &SubjectRoute<'_>,
        fault: impl Fn(&str, &str, &str) -> ConfigError,
    ) -> Result<SubjectConfig, ConfigError> {
        match self {
            Self::Path(path) => Ok(SubjectConfig { path: Some(path), rule: None }),
            Self::Places(table) => table.check(route, fault),
        }
    }
}

impl SubjectTable {
    fn check(
        self,
        route: &SubjectRoute<'_>,
        fault: impl Fn(&str, &str, &str) -> ConfigError,
    ) -> Result<SubjectConfig, ConfigError> {
        let has = |method: &str| route.methods.iter().any(|known| known == method);
        let has_place =
            self.path.is_some() || !(self.query.is_empty() && self.body.is_empty() && self.answer.is_empty());
        if !has_place {
            return Err(fault("subject", "names no place", "give it path, query, body or answer, or leave it out"));
        }
        if self.path.is_none() {
            // A place that a method does not have says nothing of its requests.
            let needs = |methods: &[&str], is_named: bool| !is_named && methods.iter().any(|method| has(method));
            if needs(&["POST", "PUT", "PATCH"], !self.body.is_empty()) {
                let problem = "is missing beside POST, PUT or PATCH: the body could be about anybody";
                return Err(fault(
                    "subject.body",
                    problem,
                    "name its member, or write another [[route]] for these methods",
                ));
            }
            if needs(&["PUT", "PATCH", "DELETE"], !self.answer.is_empty() || !self.query.is_empty()) {
                let problem = "is missing beside PUT, PATCH or DELETE: the stored record could be anybody's";
                return Err(fault(
                    "subject.answer",
                    problem,
                    "name the member of the stored record that says whose it is",
                ));
            }
        }
        let is_pointer = |pointer: &String| pointer.starts_with('/');
        if !self.empty.keys().all(is_pointer) || (!self.empty.is_empty() && self.answer.is_empty()) {
            let remedy = "write pointers with their texts, such as { \"/resourceType\" = \"Bundle\" }, beside `answer`";
            return Err(fault("subject.empty", "has a name that is no pointer, or no `answer` beside it", remedy));
        }
        if route.is_public {
            return Err(fault("subject", "is a table beside `public = true`", "leave one of the two out"));
        }
        if self.missing == MissingSubject::Own && self.query.is_empty() {
            return Err(fault("subject.missing", "is set without `query`", "name the parameter of the query"));
        }
        if self.query.len() > MAX_PARAMETERS || self.beside.len() > MAX_PARAMETERS {
            return Err(fault("subject.query", "or `beside` has more than 64 names", "name fewer parameters"));
        }
        let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:$[]@!*'(),/".contains(&byte);
        let is_name = |name: &String| !name.is_empty() && name.bytes().all(is_sign);
        if !self.query.iter().chain(&self.beside).all(is_name) || self.query.iter().any(|name| name == "*") {
            let problem = "or `beside` holds a name that no query has in this spelling";
            return Err(fault("subject.query", problem, "write names without encoding, such as \"patient\""));
        }
        let (names, beside) = (self.query.iter().map(String::as_str), self.beside.iter().map(String::as_str));
        let places = QueryPlaces::new(names, beside);
        if let Some(name) = self.beside.iter().find(|name| *name != "*" && places.is_variant(name)) {
            let problem = format!("holds `{name}`, which a service may take for a parameter of `query`");
            return Err(fault("subject.beside", &problem, "leave it out"));
        }
        if !self.body.is_empty() && !["POST", "PUT", "PATCH"].iter().any(|method| has(method)) {
            return Err(fault("subject.body", "is set on a route without bodies", "leave it out"));
        }
        if !self.body.is_empty() && route.is_stream {
            return Err(fault("subject.body", "is set beside `stream = true`", "leave one of the two out"));
        }
        if !self.answer.is_empty() && route.is_stream {
            return Err(fault("subject.answer", "is set beside `stream = true`", "leave one of the two out"));
        }
        if self.if_match && (self.answer.is_empty() || !["PUT", "PATCH", "DELETE"].iter().any(|method| has(method))) {
            return Err(fault(
                "subject.if_match",
                "is set where no stored record is read before a change",
                "leave it out",
            ));
        }
        let forms = match self.forms.as_slice() {
            [] => IdForms::plain(),
            forms => IdForms::parse(forms.iter().map(String::as_str)).map_err(|form| {
                let problem = match form {
                    "" => format!("holds more than {MAX_FORMS} forms"),
                    _ => format!("holds `{form}`"),
                };
                fault("subject.forms", &problem, "write forms such as \"Patient/{id}\", each with one {id}")
            })?,
        };
        let pointers = |key: &str, pointers: &[String]| {
            let written: Vec<_> = pointers.iter().map(String::as_str).collect();
            let parsed = if written.is_empty() { Ok(None) } else { SubjectPointers::parse(&written).map(Some) };
            parsed.map_err(|pointer| {
                let problem = match pointer {
                    "" => format!("holds more than {MAX_POINTERS} pointers"),
                    _ => format!(
                        "holds `{pointer}`, which is no pointer, lies within another or is another in other letters"
                    ),
                };
                let remedy = "write pointers such as \"/subject/reference\", with * for every element of a list";
                fault(key, &problem, remedy)
            })
        };
        let (body, answer) = (pointers("subject.body", &self.body)?, pointers("subject.answer", &self.answer)?);
        let edits = self.edits(has("GET"), route, &fault)?;
        let has_query = !(self.query.is_empty() && self.beside.is_empty());
        let rule = SubjectRule {
            forms,
            system: None,
            query: has_query.then_some(places),
            fills_query: self.missing == MissingSubject::Own,
            body,
            answer,
            empty: self.empty.into_iter().collect(),
            adds_if_match: self.if_match,
            edits,
        };
        Ok(SubjectConfig { path: self.path, rule: Some(rule) })
    }

    /// What is left out of answers.
    fn edits(
        &self,
        reads: bool,
        route: &SubjectRoute<'_>,
        fault: impl Fn(&str, &str, &str) -> ConfigError,
    ) -> Result<AnswerEdits, ConfigError> {
        let is_filter = self.list == ListReach::Filter;
        for (key, is_set) in [
            ("subject.list", is_filter),
            ("subject.count", !self.count.is_empty()),
            ("subject.links", !self.links.is_empty()),
        ] {
            if is_set && (self.answer.is_empty() || !reads) {
                return Err(fault(
                    key,
                    "is set without `answer`, or on a route without GET",
                    "name where the answer says whose each record is",
                ));
            }
        }
        // Of a record that is to be changed, nothing can be left out.
        if is_filter && route.methods.iter().any(|method| method != "GET") {
            return Err(fault(
                "subject.list",
                "is \"filter\" on a route with other methods than GET",
                "give the others a route of their own",
            ));
        }
        let answer: Vec<_> = self.answer.iter().map(String::as_str).collect();
        let list = is_filter
            .then(|| {
                let problem = "is \"filter\", and the pointers of `answer` go through different lists";
                FilteredList::parse(&answer).ok_or_else(|| {
                    fault(
                        "subject.list",
                        problem,
                        "write pointers that all begin with the one list, such as \"/entry/*\"",
                    )
                })
            })
            .transpose()?;
        let count = places("subject.count", &self.count, &fault)?;
        Ok(AnswerEdits { list, count, links: places("subject.links", &self.links, &fault)? })
    }
}

/// The places of members in an answer.
fn places(
    key: &str,
    pointers: &[String],
    fault: impl Fn(&str, &str, &str) -> ConfigError,
) -> Result<Box<[JsonPlace]>, ConfigError> {
    if pointers.len() > MAX_POINTERS {
        return Err(fault(key, "holds more than 16 pointers", "name fewer"));
    }
    let parsed = pointers.iter().map(|pointer| {
        JsonPlace::parse(pointer).map_err(|pointer| {
            let problem = format!("holds `{pointer}`, which is no pointer");
            fault(key, &problem, "write pointers such as \"/total\", with * for every element of a list")
        })
    });
    parsed.collect()
}
