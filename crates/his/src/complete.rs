//! Completes the body of an error as the last step, when the request id is known.

use axum::response::Response;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue};
use serde::Serialize;

use super::error::{HisError, JSON};
use super::fhir_form::{FhirFault, FhirForm};
use super::html::form;
use super::html::words::PageWords;
use fedgate_core::assertion::BUSY_HEADER;

/// The form in which a client reads errors.
pub(super) enum ErrorForm {
    /// The members of docs/API.md.
    Json,
    /// A page, for a browser on a page for people.
    Page(&'static PageWords),
    /// An OperationOutcome.
    Fhir(FhirForm),
}

/// Gives an answer made by [`HisError`] its body.
pub(super) fn complete(response: Response, request_id: Option<&str>, form: &ErrorForm) -> Response {
    if let (ErrorForm::Fhir(form), Some(FhirFault(fault))) = (form, response.extensions().get()) {
        let text = form.fault(fault);
        return with_body(response, form.content_type(), text);
    }
    let Some(problem) = response.extensions().get::<HisError>().cloned() else {
        return response;
    };
    if let ErrorForm::Page(words) = form {
        let mut page = match problem {
            HisError::TooManyGuesses(wait) => form::guessed(words, problem.status(), wait),
            _ => form::failed(words, problem.status(), problem.answer().code()),
        };
        for name in [RETRY_AFTER, ALLOW, HeaderName::from_static(BUSY_HEADER)] {
            if let Some(value) = response.headers().get(&name) {
                page.headers_mut().insert(name, value.clone());
            }
        }
        return page;
    }
    if let ErrorForm::Fhir(form) = form {
        return with_body(response, form.content_type(), form.problem(&problem, request_id));
    }
    let candidates = problem.candidates().and_then(|text| serde_json::from_str(text).ok());
    let body = ErrorBody { error: problem.to_string(), code: problem.answer().code(), request_id, candidates };
    with_body(response, JSON, serde_json::to_string(&body).unwrap_or_default())
}

fn with_body(response: Response, content_type: &'static str, text: String) -> Response {
    let (mut parts, _) = response.into_parts();
    // Headers of the router (`Allow`) stay. The length changes.
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    parts.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Response::from_parts(parts, text.into())
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: String,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidates: Option<serde_json::Value>,
}
