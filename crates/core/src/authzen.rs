//! The Authorization API 1.0 of OpenID AuthZEN: what a question asks.
//!
//! The one rule: a question names its subject, action and resource, or is refused. Members that this module does not
//! know, `properties` and `context` among them, decide nothing.
//!
//! Called by the gateway, which decides. Knows nothing of HTTP or accounts.

use crate::codes::AnswerCode;
use crate::json::{JsonObject, JsonValue, parse};
use crate::methods::Method;

/// Most evaluations in one question.
pub const MOST_EVALUATIONS: usize = 100;
/// Most results of one page.
pub const MOST_RESULTS: usize = 100;
/// The longest id, type or name.
const MOST_TEXT_BYTES: usize = 1024;
/// The type of subjects: accounts.
pub const SUBJECT_TYPE: &str = "user";

/// A subject or a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedEntity {
    /// Its type.
    pub kind: String,
    /// Its id.
    pub id: String,
}

/// The question whether a subject may do something with a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedRight {
    /// The caller.
    pub subject: AskedEntity,
    /// The name of the action.
    pub action: String,
    /// The resource.
    pub resource: AskedEntity,
}

/// When the answer to several evaluations ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvaluationsSemantic {
    /// After all.
    ExecuteAll,
    /// After the first that is denied.
    DenyOnFirstDeny,
    /// After the first that is permitted.
    PermitOnFirstPermit,
}

/// The content of a question for evaluations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskedEvaluations {
    /// It names one, outside of a list, and is answered as one.
    One(AskedRight),
    /// It names several; none in the place of one that lacks a part.
    Several(Vec<Option<AskedRight>>, EvaluationsSemantic),
}

/// A page of results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedPage {
    /// Where it begins, as the page before has told.
    pub token: Option<String>,
    /// How many results it may have.
    pub limit: usize,
}

/// A search: what it looks for is left out of the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskedSearch {
    /// Who may do this with this resource.
    Subject {
        /// The type of subjects.
        kind: String,
        /// The name of the action.
        action: String,
        /// The resource.
        resource: AskedEntity,
        /// The page.
        page: AskedPage,
    },
    /// With which resources of a type the subject may do this.
    Resource {
        /// The subject.
        subject: AskedEntity,
        /// The name of the action.
        action: String,
        /// The type of resources.
        kind: String,
        /// The page.
        page: AskedPage,
    },
    /// What the subject may do with this resource.
    Action {
        /// The subject.
        subject: AskedEntity,
        /// The resource.
        resource: AskedEntity,
    },
}

/// What a search looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchKind {
    /// Subjects.
    Subject,
    /// Resources.
    Resource,
    /// Actions.
    Action,
}

impl EvaluationsSemantic {
    /// Whether the answer ends after a decision.
    pub fn ends_after(self, is_permitted: bool) -> bool {
        match self {
            Self::ExecuteAll => false,
            Self::DenyOnFirstDeny => !is_permitted,
            Self::PermitOnFirstPermit => is_permitted,
        }
    }
}

impl AskedRight {
    /// Reads a question for one evaluation.
    ///
    /// # Errors
    /// It is no JSON with one reading, or a part is missing or of a wrong type.
    pub fn read(body: &[u8]) -> Result<Self, AnswerCode> {
        Self::of(&object(body)?, &JsonObject::default())
    }

    /// Reads one evaluation, with the parts of another object in place of those that it leaves out.
    fn of(given: &JsonObject, defaults: &JsonObject) -> Result<Self, AnswerCode> {
        Ok(Self {
            subject: entity(given, defaults, "subject")?,
            action: text(given, defaults, "action", "name")?,
            resource: entity(given, defaults, "resource")?,
        })
    }
}

impl AskedEvaluations {
    /// Reads a question for evaluations.
    ///
    /// # Errors
    /// As for one; also more evaluations than [`MOST_EVALUATIONS`], or a semantic that is none.
    pub fn read(body: &[u8]) -> Result<Self, AnswerCode> {
        let question = object(body)?;
        let items = match question.member("evaluations") {
            None => &[],
            Some(JsonValue::Array(items)) => items.as_slice(),
            Some(_) => return Err(AnswerCode::BadRequest),
        };
        let semantic = match question.member("options") {
            None => EvaluationsSemantic::ExecuteAll,
            Some(JsonValue::Object(options)) => match options.member("evaluations_semantic").map(JsonValue::as_str) {
                None | Some(Some("execute_all")) => EvaluationsSemantic::ExecuteAll,
                Some(Some("deny_on_first_deny")) => EvaluationsSemantic::DenyOnFirstDeny,
                Some(Some("permit_on_first_permit")) => EvaluationsSemantic::PermitOnFirstPermit,
                Some(_) => return Err(AnswerCode::BadRequest),
            },
            Some(_) => return Err(AnswerCode::BadRequest),
        };
        if items.is_empty() {
            return AskedRight::of(&question, &JsonObject::default()).map(Self::One);
        }
        if items.len() > MOST_EVALUATIONS {
            return Err(AnswerCode::BadRequest);
        }
        let read = |item: &JsonValue| match item {
            JsonValue::Object(item) => AskedRight::of(item, &question).ok(),
            _ => None,
        };
        Ok(Self::Several(items.iter().map(read).collect(), semantic))
    }
}

impl AskedSearch {
    /// Reads a search.
    ///
    /// # Errors
    /// As for one evaluation.
    pub fn read(body: &[u8], wanted: SearchKind) -> Result<Self, AnswerCode> {
        let (question, none) = (object(body)?, JsonObject::default());
        let entity = |name| entity(&question, &none, name);
        let text = |name, member| text(&question, &none, name, member);
        Ok(match wanted {
            SearchKind::Subject => Self::Subject {
                kind: text("subject", "type")?,
                action: text("action", "name")?,
                resource: entity("resource")?,
                page: AskedPage::of(&question)?,
            },
            SearchKind::Resource => Self::Resource {
                subject: entity("subject")?,
                action: text("action", "name")?,
                kind: text("resource", "type")?,
                page: AskedPage::of(&question)?,
            },
            SearchKind::Action => Self::Action { subject: entity("subject")?, resource: entity("resource")? },
        })
    }
}

impl AskedPage {
    fn of(question: &JsonObject) -> Result<Self, AnswerCode> {
        let page = match question.member("page") {
            None => return Ok(Self { token: None, limit: MOST_RESULTS }),
            Some(JsonValue::Object(page)) => page,
            Some(_) => return Err(AnswerCode::BadRequest),
        };
        let token = match page.member("token") {
            None => None,
            Some(token) => Some(token.as_str().ok_or(AnswerCode::BadRequest)?.to_owned()),
        };
        let limit = match page.member("limit") {
            None => MOST_RESULTS,
            Some(JsonValue::Number(limit)) => match limit.parse::<usize>() {
                Ok(limit) if limit > 0 => limit.min(MOST_RESULTS),
                _ => return Err(AnswerCode::BadRequest),
            },
            Some(_) => return Err(AnswerCode::BadRequest),
        };
        Ok(Self { token: token.filter(|token| !token.is_empty()), limit })
    }
}

/// The method whose key in roles.cfg is the name of an action.
pub fn action_method(name: &str) -> Option<Method> {
    Method::ALL.into_iter().find(|method| method.as_str() == name)
}

/// The document as an object.
fn object(body: &[u8]) -> Result<JsonObject, AnswerCode> {
    match parse(body) {
        Ok(JsonValue::Object(object)) => Ok(object),
        Ok(_) => Err(AnswerCode::BadRequest),
        Err(_) => Err(AnswerCode::MalformedJson),
    }
}

fn entity(given: &JsonObject, defaults: &JsonObject, name: &str) -> Result<AskedEntity, AnswerCode> {
    Ok(AskedEntity { kind: text(given, defaults, name, "type")?, id: text(given, defaults, name, "id")? })
}

/// A text of a part, or of the part's default if it leaves the text out.
fn text(given: &JsonObject, defaults: &JsonObject, part: &str, member: &str) -> Result<String, AnswerCode> {
    for object in [given, defaults] {
        let part = match object.member(part) {
            None => continue,
            Some(JsonValue::Object(part)) => part,
            Some(_) => return Err(AnswerCode::BadRequest),
        };
        match part.member(member).map(JsonValue::as_str) {
            None => continue,
            Some(Some(text)) if (1..=MOST_TEXT_BYTES).contains(&text.len()) => return Ok(text.to_owned()),
            Some(_) => return Err(AnswerCode::BadRequest),
        }
    }
    Err(AnswerCode::BadRequest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &str =
        r#""subject":{"type":"user","id":"ANA"},"action":{"name":"GET"},"resource":{"type":"person","id":"ANA"}"#;

    fn right(action: &str, id: &str) -> AskedRight {
        let entity = |kind: &str, id: &str| AskedEntity { kind: kind.into(), id: id.into() };
        AskedRight { subject: entity("user", "ANA"), action: action.into(), resource: entity("person", id) }
    }

    #[test]
    fn a_question_has_every_part_in_one_reading_and_may_have_more() {
        assert_eq!(AskedRight::read(format!("{{{RIGHT}}}").as_bytes()), Ok(right("GET", "ANA")));
        let more = format!(r#"{{{RIGHT},"context":{{"a":1}},"future":[1]}}"#);
        assert_eq!(AskedRight::read(more.as_bytes()), Ok(right("GET", "ANA")));
        for (from, to) in [
            (r#""type":"user","#, ""),
            (r#","id":"ANA"},"action"#, r#"},"action"#),
            (r#"{"name":"GET"}"#, "{}"),
            (r#"{"name":"GET"}"#, r#"{"name":1}"#),
            (r#"{"name":"GET"}"#, r#"{"name":""}"#),
            (r#"{"name":"GET"}"#, r#""GET""#),
            (r#""action":{"name":"GET"},"#, ""),
            (r#"{"type":"user","id":"ANA"}"#, r#""ANA""#),
        ] {
            let text = format!("{{{RIGHT}}}").replacen(from, to, 1);
            assert_eq!(AskedRight::read(text.as_bytes()), Err(AnswerCode::BadRequest), "{text}");
        }
        for text in ["", "{", "nul"] {
            assert_eq!(AskedRight::read(text.as_bytes()), Err(AnswerCode::MalformedJson), "{text}");
        }
        let twice = format!(r#"{{"subject":{{"type":"user","id":"DOC"}},{RIGHT}}}"#);
        assert_eq!(AskedRight::read(twice.as_bytes()), Ok(right("GET", "ANA")), "the last one counts, as elsewhere");
    }

    #[test]
    fn evaluations_take_what_they_leave_out_from_the_question_and_lack_what_neither_has() {
        let read = |items: &str, more: &str| {
            let text = format!(
                r#"{{"subject":{{"type":"user","id":"ANA"}},"action":{{"name":"GET"}},"resource":{{"type":"person"}},
                    "evaluations":[{items}]{more}}}"#
            );
            AskedEvaluations::read(text.as_bytes())
        };
        let items = r#"{"resource":{"id":"1"}},{"action":{"name":"PUT"},"resource":{"type":"person","id":"2"}},{},7,
                       {"resource":"3"}"#;
        let expected = vec![Some(right("GET", "1")), Some(right("PUT", "2")), None, None, None];
        let all = EvaluationsSemantic::ExecuteAll;
        assert_eq!(read(items, ""), Ok(AskedEvaluations::Several(expected, all)));
        for (name, semantic) in [
            ("execute_all", all),
            ("deny_on_first_deny", EvaluationsSemantic::DenyOnFirstDeny),
            ("permit_on_first_permit", EvaluationsSemantic::PermitOnFirstPermit),
        ] {
            let more = format!(r#","options":{{"evaluations_semantic":"{name}"}}"#);
            assert_eq!(read("{}", &more), Ok(AskedEvaluations::Several(vec![None], semantic)));
        }
        for more in [r#","options":{"evaluations_semantic":"any"}"#, r#","options":1"#] {
            assert_eq!(read("{}", more), Err(AnswerCode::BadRequest), "{more}");
        }
        assert!(read(&vec!["{}"; MOST_EVALUATIONS].join(","), "").is_ok());
        assert_eq!(read(&vec!["{}"; MOST_EVALUATIONS + 1].join(","), ""), Err(AnswerCode::BadRequest));
        for text in [format!("{{{RIGHT}}}"), format!(r#"{{{RIGHT},"evaluations":[]}}"#)] {
            assert_eq!(AskedEvaluations::read(text.as_bytes()), Ok(AskedEvaluations::One(right("GET", "ANA"))));
        }
    }

    #[test]
    fn a_search_names_all_but_what_it_looks_for() {
        let read = |text: &str, wanted| AskedSearch::read(text.as_bytes(), wanted);
        let subject = r#"{"subject":{"type":"user"},"action":{"name":"GET"},"resource":{"type":"person","id":"1"},
                          "page":{"limit":1000,"token":"t"}}"#;
        let Ok(AskedSearch::Subject { page, .. }) = read(subject, SearchKind::Subject) else { panic!("{subject}") };
        assert_eq!(page, AskedPage { token: Some("t".into()), limit: MOST_RESULTS });
        assert!(read(subject, SearchKind::Resource).is_err(), "the subject has no id");
        for page in [r#"{"limit":0}"#, r#"{"limit":-1}"#, r#"{"limit":"1"}"#, r#"{"token":1}"#, "1"] {
            let text = subject.replace(r#"{"limit":1000,"token":"t"}"#, page);
            assert_eq!(read(&text, SearchKind::Subject), Err(AnswerCode::BadRequest), "{page}");
        }
        assert!(read(&format!("{{{RIGHT}}}"), SearchKind::Action).is_ok());
        let nothing = r#"{"subject":{"type":"user","id":"ANA"}}"#;
        assert!(read(nothing, SearchKind::Action).is_err() && read(nothing, SearchKind::Resource).is_err());
    }
}
