//! What a body is, by what its head says of it.

use http::{HeaderMap, StatusCode, header};

use super::check::BodyFault;

/// What becomes of an answer that has members to leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerKind {
    /// JSON, or said to be nothing else.
    Json,
    /// Not JSON, and no success: a page that says what went wrong.
    Page,
    /// Not JSON, or a part of it, or compressed: nobody can say what it holds.
    Opaque,
}

/// Whether a body can have no other reading than JSON in UTF-8.
///
/// Services of Python's kind read JSON whatever the `Content-Type` says, and their clients send none; forms are the
/// exception there, and every other type may be one elsewhere.
///
/// # Errors
/// [`BodyFault::MediaType`].
pub fn check_request(headers: &HeaderMap) -> Result<(), BodyFault> {
    // Types whose members are those of the document: in a JSON Patch (RFC 6902), say, they stand in values.
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

/// What an answer is.
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

/// A content coding other than none (RFC 9110, section 8.4).
fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// A `Content-Type` with more than one reading, or with a charset that is not UTF-8.
struct AmbiguousMedia;

/// The media type in lower case, if one is named.
fn media_type(headers: &HeaderMap) -> Result<Option<String>, AmbiguousMedia> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().map_err(|_| AmbiguousMedia)?.to_ascii_lowercase(),
        (Some(_), Some(_)) => return Err(AmbiguousMedia),
    };
    // A comma makes a second value of it, a backslash hides what a quoted parameter ends with.
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
