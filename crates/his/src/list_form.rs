//! The form of a list of records: as Thalamus sends it, or as lines of JSON (`Accept: application/x-ndjson`).
//!
//! The one rule: a line is one JSON text. Rows that other programs wrote with line breaks lose them.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::response::Response;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use http::request::Parts;

use super::accept::{self, JSON_LINES};

/// How the rows of a list are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListForm {
    /// As in Thalamus: a JSON list, with each record in a list of its own.
    Thalamus,
    /// One record, or one document's list, in each line.
    Lines,
}

impl<S: Sync> FromRequestParts<S> for ListForm {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let named = accept::first_named(&parts.headers, &["application/json", JSON_LINES]);
        Ok(if named == Some(JSON_LINES) { Self::Lines } else { Self::Thalamus })
    }
}

impl ListForm {
    /// The answer with its content type.
    pub(super) fn named(self, mut answer: Response) -> Response {
        if self == Self::Lines {
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON_LINES));
        }
        answer
    }
}

/// Makes JSON one line. A line break is never part of a string there, and only rows that other programs wrote have any.
pub(super) fn one_line(json: &mut String) {
    if json.contains(['\n', '\r']) {
        *json = json.replace(['\n', '\r'], " ");
    }
}
