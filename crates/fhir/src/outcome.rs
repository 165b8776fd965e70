//! What is wrong with a request, and the OperationOutcome that says so.
//!
//! The one rule: an answer names the place and the kind of a fault, and never repeats a value of the request. Called by
//! the readers of this package, and by the endpoints for the faults that they find (R4, OperationOutcome).

use thiserror::Error;

use crate::resource::{Group, Node, Resource};

/// The most characters of a place or of a parameter's name in an answer.
const MAX_PLACE_CHARACTERS: usize = 128;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestFault {
    /// The body has too many bytes
    #[error("the body is too large")]
    TooLarge,
    /// The body is nested too deeply, or has too many elements
    #[error("the body is nested too deeply, or has too many elements")]
    TooComplex,
    /// The body is neither JSON nor XML in UTF-8, as its type says, or has two readings
    #[error("the body cannot be read")]
    Malformed,
    /// `Content-Type` is not one of FHIR
    #[error("the body must be application/fhir+json or application/fhir+xml of FHIR R4")]
    UnsupportedMediaType,
    /// `_format` and `Accept` ask for a form that is not written
    #[error("answers are application/fhir+json or application/fhir+xml of FHIR R4")]
    NotAcceptable,
    /// The body is another resource than the operation takes
    #[error("the body must be a Patient, or Parameters with one Patient named `resource`")]
    UnexpectedResource,
    /// An element is missing
    #[error("an element is missing")]
    Missing(Place),
    /// An element has another type, or occurs too often
    #[error("an element has the wrong type, or occurs too often")]
    WrongType(Place),
    /// An element has a value that its type does not allow
    #[error("an element has a value that its type does not allow")]
    BadValue(Place),
    /// A code is not one of its value set
    #[error("a code is not one of its value set")]
    UnknownCode(Place),
    /// A modifier extension changes the meaning of the request in a way that is not known here
    #[error("a modifier extension is not supported")]
    UnknownModifierExtension(Place),
    /// Implicit rules change the meaning of the request
    #[error("implicit rules are not supported")]
    ImplicitRules(Place),
    /// A parameter of `$match` is not known
    #[error("the operation has no such parameter")]
    UnknownOperationParameter,
    /// A parameter of a search is not known, and the client asked for strict handling
    #[error("a search parameter is not supported")]
    UnknownParameter(Place),
    /// The modifier of a search parameter is not supported
    #[error("the modifier of a search parameter is not supported")]
    UnknownModifier(Place),
    /// A search parameter has a value that cannot be read
    #[error("a search parameter has a value that cannot be read")]
    BadParameter(Place),
    /// There is no such Patient, or it is out of the caller's reach
    #[error("there is no such Patient")]
    NotFound,
}

/// The place of a fault: a path of names such as `Patient.name.family`, or a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(String);

impl Place {
    pub(crate) fn of(path: &str) -> Self {
        // Names come from the client: bounded, and without anything but letters, digits and few signs.
        let plain = |sign: char| if sign.is_ascii_alphanumeric() || "._:-$".contains(sign) { sign } else { '?' };
        Self(path.chars().take(MAX_PLACE_CHARACTERS).map(plain).collect())
    }

    /// The place as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl RequestFault {
    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::NotAcceptable => 406,
            Self::NotFound => 404,
            Self::TooComplex
            | Self::Malformed
            | Self::UnexpectedResource
            | Self::Missing(_)
            | Self::WrongType(_)
            | Self::BadValue(_)
            | Self::UnknownCode(_)
            | Self::UnknownModifierExtension(_)
            | Self::ImplicitRules(_)
            | Self::UnknownOperationParameter
            | Self::UnknownParameter(_)
            | Self::UnknownModifier(_)
            | Self::BadParameter(_) => 400,
        }
    }

    /// The answer's resource.
    #[must_use]
    pub fn resource(&self) -> Resource {
        outcome(&[self.issue()])
    }

    fn issue(&self) -> OutcomeIssue {
        let (code, place) = match self {
            Self::TooLarge => (IssueCode::TooLong, None),
            Self::TooComplex => (IssueCode::TooCostly, None),
            Self::Malformed | Self::UnexpectedResource => (IssueCode::Structure, None),
            Self::UnsupportedMediaType | Self::NotAcceptable | Self::UnknownOperationParameter => {
                (IssueCode::NotSupported, None)
            }
            Self::Missing(place) => (IssueCode::Required, Some(place)),
            Self::WrongType(place) => (IssueCode::Structure, Some(place)),
            Self::BadValue(place) | Self::BadParameter(place) => (IssueCode::Value, Some(place)),
            Self::UnknownCode(place) => (IssueCode::CodeInvalid, Some(place)),
            Self::UnknownModifierExtension(place) => (IssueCode::Extension, Some(place)),
            Self::ImplicitRules(place) | Self::UnknownParameter(place) | Self::UnknownModifier(place) => {
                (IssueCode::NotSupported, Some(place))
            }
            Self::NotFound => (IssueCode::NotFound, None),
        };
        let mut issue = OutcomeIssue::new(IssueSeverity::Error, code, self.to_string());
        match self {
            // A parameter is no path of elements, so its name is a detail (R4, OperationOutcome.issue.expression).
            Self::UnknownParameter(name) | Self::UnknownModifier(name) | Self::BadParameter(name) => {
                issue.diagnostics = Some(name.0.clone());
            }
            _ => issue.expression = place.map(|place| place.0.clone()),
        }
        issue
    }
}

/// How grave an issue is (R4, value set `issue-severity`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssueSeverity {
    /// The request failed.
    Error,
    /// The request was answered, perhaps otherwise than the client expects.
    Warning,
    /// The request was answered.
    Information,
}

/// The kind of an issue (R4, value set `issue-type`, as far as it is used here and by the HIS).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the value set")]
pub enum IssueCode {
    Structure,
    Required,
    Value,
    CodeInvalid,
    Extension,
    NotSupported,
    NotFound,
    MultipleMatches,
    TooLong,
    TooCostly,
    Forbidden,
    Transient,
    Throttled,
    Exception,
    Informational,
}

/// One issue of an OperationOutcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeIssue {
    /// How grave it is.
    pub severity: IssueSeverity,
    /// Its kind.
    pub code: IssueCode,
    /// What a person reads.
    pub text: String,
    /// Details for the client's developer.
    pub diagnostics: Option<String>,
    /// The element of the request that it concerns.
    pub expression: Option<String>,
}

impl OutcomeIssue {
    /// An issue without details.
    #[must_use]
    pub fn new(severity: IssueSeverity, code: IssueCode, text: impl Into<String>) -> Self {
        Self { severity, code, text: text.into(), diagnostics: None, expression: None }
    }
}

impl IssueSeverity {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Information => "information",
        }
    }
}

impl IssueCode {
    fn name(self) -> &'static str {
        match self {
            Self::Structure => "structure",
            Self::Required => "required",
            Self::Value => "value",
            Self::CodeInvalid => "code-invalid",
            Self::Extension => "extension",
            Self::NotSupported => "not-supported",
            Self::NotFound => "not-found",
            Self::MultipleMatches => "multiple-matches",
            Self::TooLong => "too-long",
            Self::TooCostly => "too-costly",
            Self::Forbidden => "forbidden",
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::Exception => "exception",
            Self::Informational => "informational",
        }
    }
}

/// The OperationOutcome of some issues. It needs at least one (R4, OperationOutcome.issue).
#[must_use]
pub fn outcome(issues: &[OutcomeIssue]) -> Resource {
    outcome_with_id(None, issues)
}

/// The same with an id, as an entry of a Bundle has one.
pub(crate) fn outcome_with_id(id: Option<&str>, issues: &[OutcomeIssue]) -> Resource {
    let issue = |issue: &OutcomeIssue| {
        let details = Group::default().text("text", issue.text.as_str());
        let members = Group::default()
            .text("severity", issue.severity.name())
            .text("code", issue.code.name())
            .with("details", Node::Group(details))
            .maybe_text("diagnostics", issue.diagnostics.as_deref())
            .list("expression", issue.expression.iter().map(|path| Node::Text(path.clone())));
        Node::Group(members)
    };
    let members = Group::default().maybe_text("id", id).list("issue", issues.iter().map(issue));
    Resource::new("OperationOutcome", members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::AnswerFormat;

    #[test]
    fn a_fault_has_a_status_a_code_and_a_place_and_no_value_of_the_request() {
        for (fault, status, part) in [
            (RequestFault::TooLarge, 413, r#""code":"too-long""#),
            (RequestFault::NotAcceptable, 406, r#""severity":"error","code":"not-supported""#),
            (RequestFault::NotFound, 404, r#""severity":"error","code":"not-found""#),
            (
                RequestFault::UnknownModifierExtension(Place::of("Patient.modifierExtension")),
                400,
                r#""code":"extension","details":{"text":"a modifier extension is not supported"},"expression":["Patient.modifierExtension"]"#,
            ),
            (RequestFault::BadParameter(Place::of("birth\n\"date")), 400, r#""diagnostics":"birth??date""#),
        ] {
            assert_eq!(fault.status(), status, "{fault}");
            let text = fault.resource().write(AnswerFormat::Json);
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(Place::of(&"x".repeat(1000)).as_str().len(), MAX_PLACE_CHARACTERS);
    }
}
