//! The kind of body that a message has, judged by its head.

use http::{HeaderMap, StatusCode, header};

use super::check::BodyFault;

/// How an answer with members to remove is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerKind {
    /// JSON, or without a declared type.
    Json,
    /// Not JSON, and not a success: a page that reports an error.
    Page,
    /// A success that is not JSON, a partial answer, or a coded one: its members cannot be found.
    Opaque,
}

/// Checks that a body can only be read as JSON in UTF-8.
///
/// Services such as Python's read JSON whatever the `Content-Type` says, and their clients often send none. Forms are
/// the exception there; elsewhere any other type may have another reading.
///
/// # Errors
/// [`BodyFault::MediaType`].
pub fn check_request(headers: &HeaderMap) -> Result<(), BodyFault> {
    // Only types whose members are those of the document. In a JSON Patch (RFC 6902), for example, member names appear
    // as values.
    let is_read_as_json = |kind: &str| {
        matches!(
            kind,
            "application/json"
                | "text/json"
                | "application/merge-patch+json"
                | "application/fhir+json"
                | "text/plain"
                | "application/octet-stream"
        )
    };
    match media_type(headers) {
        Ok(kind) if kind.as_deref().is_none_or(is_read_as_json) && !is_encoded(headers) => Ok(()),
        _ => Err(BodyFault::MediaType),
    }
}

/// The kind of an answer.
pub fn answer_kind(status: StatusCode, headers: &HeaderMap) -> AnswerKind {
    if status == StatusCode::PARTIAL_CONTENT || is_encoded(headers) {
        return AnswerKind::Opaque;
    }
    match media_type(headers) {
        Ok(media_type) if media_type.as_deref().is_none_or(is_json) => AnswerKind::Json,
        _ if status.is_success() => AnswerKind::Opaque,
        _ => AnswerKind::Page,
    }
}

fn is_json(media_type: &str) -> bool {
    matches!(media_type, "application/json" | "text/json")
        || media_type.starts_with("application/") && media_type.ends_with("+json")
}

/// Whether there is a content coding other than `identity` (RFC 9110, section 8.4).
fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// The `Content-Type` has more than one reading, or a charset other than UTF-8.
struct AmbiguousMedia;

/// The media type in lower case, if one is named.
fn media_type(headers: &HeaderMap) -> Result<Option<String>, AmbiguousMedia> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().map_err(|_| AmbiguousMedia)?.to_ascii_lowercase(),
        (Some(_), Some(_)) => return Err(AmbiguousMedia),
    };
    // A comma starts a second value for some parsers, and a backslash hides where a quoted parameter ends.
    if value.contains([',', '\\']) {
        return Err(AmbiguousMedia);
    }
    let mut parts = value.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default().to_owned();
    let is_utf8 = |charset: &str| matches!(charset.trim_matches('"'), "utf-8" | "utf8");
    let charsets = parts.filter_map(|part| part.split_once('=')).filter(|(name, _)| name.trim().starts_with("charset"));
    if charsets.into_iter().any(|(_, charset)| !is_utf8(charset.trim())) {
        return Err(AmbiguousMedia);
    }
    Ok(Some(media_type))
}
