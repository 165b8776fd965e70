//! The form of answers: a resource in JSON or XML, and an OperationOutcome for each error.
//!
//! The one rule: whatever is answered under `/fhir` by this service is a resource, faults that other modules find included.

use axum::http::Extensions;
use axum::response::{IntoResponse, Response};
use fedgate_fhir::format::AnswerFormat;
use fedgate_fhir::outcome::{IssueCode, IssueSeverity, OutcomeIssue, RequestFault, outcome};
use fedgate_fhir::resource::Resource;
use fedgate_fhir::search::QueryPairs;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, StatusCode, Uri};

use crate::error::HisError;
use fedgate_base::db::DbError;

/// A result whose errors are answers.
pub(crate) type FhirResult<T> = Result<T, FhirRefusal>;

/// The form of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FhirForm(AnswerFormat);

/// A fault of a request, which `complete` writes in the client's form.
#[derive(Debug, Clone)]
pub(crate) struct FhirFault(pub(crate) RequestFault);

/// Why there is no other answer.
pub(crate) enum FhirRefusal {
    /// The request has a fault.
    Fault(RequestFault),
    /// The service found one, or has one.
    Service(HisError),
}

impl FhirForm {
    /// The form that a request asks for.
    ///
    /// # Errors
    /// Neither form is welcome.
    pub(crate) fn of(uri: &Uri, headers: &HeaderMap) -> Result<Self, RequestFault> {
        let pairs = QueryPairs::parse(uri.query().unwrap_or_default().as_bytes()).unwrap_or_default();
        Self::chosen(pairs.value("_format"), headers)
    }

    /// The form for a value of `_format`.
    ///
    /// # Errors
    /// Neither form is welcome.
    pub(crate) fn chosen(format: Option<&str>, headers: &HeaderMap) -> Result<Self, RequestFault> {
        let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        AnswerFormat::choose(format, Some(&accept.join(","))).map(Self)
    }

    /// The form of errors of a request under `/fhir`; none for others.
    pub(crate) fn of_errors(uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        let is_fhir = uri.path().starts_with("/fhir/");
        is_fhir.then(|| Self::of(uri, headers).unwrap_or(Self(AnswerFormat::Json)))
    }

    pub(crate) fn content_type(self) -> &'static str {
        self.0.content_type()
    }

    /// An answer that nobody keeps.
    pub(crate) fn answer(self, resource: &Resource) -> Response {
        ([(CONTENT_TYPE, self.content_type()), (CACHE_CONTROL, "no-store")], resource.write(self.0)).into_response()
    }

    /// The text of a fault.
    pub(crate) fn fault(self, fault: &RequestFault) -> String {
        fault.resource().write(self.0)
    }

    /// The text of an error of this service.
    pub(crate) fn problem(self, problem: &HisError, request_id: Option<&str>) -> String {
        let code = match problem.status().as_u16() {
            401 | 403 => IssueCode::Forbidden,
            404 => IssueCode::NotFound,
            405 | 415 => IssueCode::NotSupported,
            413 => IssueCode::TooLong,
            429 => IssueCode::Throttled,
            408 | 503 => IssueCode::Transient,
            400..=499 => IssueCode::Structure,
            _ => IssueCode::Exception,
        };
        let mut issue = OutcomeIssue::new(IssueSeverity::Error, code, problem.to_string());
        let word = problem.answer().code();
        issue.diagnostics = Some(request_id.map_or_else(|| word.to_owned(), |id| format!("{word}, request {id}")));
        outcome(&[issue]).write(self.0)
    }
}

impl IntoResponse for FhirRefusal {
    /// An answer without a body: `verify_assertion` completes it.
    fn into_response(self) -> Response {
        match self {
            Self::Service(problem) => problem.into_response(),
            Self::Fault(fault) => {
                let status = StatusCode::from_u16(fault.status()).unwrap_or(StatusCode::BAD_REQUEST);
                let mut response = status.into_response();
                let extensions: &mut Extensions = response.extensions_mut();
                extensions.insert(FhirFault(fault));
                response
            }
        }
    }
}

impl From<RequestFault> for FhirRefusal {
    fn from(fault: RequestFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<HisError> for FhirRefusal {
    fn from(problem: HisError) -> Self {
        match problem {
            HisError::TooLarge => Self::Fault(RequestFault::TooLarge),
            problem => Self::Service(problem),
        }
    }
}

impl From<DbError> for FhirRefusal {
    fn from(error: DbError) -> Self {
        Self::Service(error.into())
    }
}
