//! Answers from which members are removed.
//!
//! The one rule: an answer that cannot be read is not shown. A success that is no JSON, partial, or compressed is
//! replaced by 502. Any other answer that is no JSON keeps its status and loses its body, because an error page may
//! show data of the service.

use bytes::Bytes;
use http::{Method, Version, header};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use fedgate_core::codes::AnswerCode;
use fedgate_core::fields::{AnswerKind, JsonError, MemberRemover, answer_kind};

/// The error of an answer that is withheld.
pub(crate) const WITHHELD: ErrorType = ErrorType::Custom(AnswerCode::AnswerWithheld.code());

/// How the body of an answer is passed on.
#[derive(Default)]
pub(crate) enum AnswerFilter {
    /// Unchanged.
    #[default]
    Whole,
    /// Without some members; whether any byte of it has come.
    Without(Box<MemberRemover>, bool),
    /// Without a body: it has none, or its body is not shown.
    Nothing,
}

/// Asks the upstream for an answer that can be read: whole, and not compressed.
pub(crate) fn ask_plainly(request: &mut RequestHeader) -> Result<()> {
    // A part, a 304 or a compressed body cannot be filtered.
    for name in [header::RANGE, header::IF_RANGE, header::IF_NONE_MATCH, header::TE] {
        request.remove_header(&name);
    }
    // Lines of JSON are not one document, which is what is read here.
    let accepted = request.headers.get_all(header::ACCEPT);
    if accepted.iter().any(|value| value.as_bytes().to_ascii_lowercase().windows(6).any(|part| part == b"ndjson")) {
        request.insert_header(header::ACCEPT, "application/json")?;
    }
    request.insert_header(header::ACCEPT_ENCODING, "identity")
}

/// Whether a client of this version knows neither chunks nor interim answers.
pub(crate) fn is_old(version: Version) -> bool {
    matches!(version, Version::HTTP_09 | Version::HTTP_10)
}

/// Removes the chunked coding for a client that does not know it: the end of the connection ends the answer.
pub(crate) fn suit(session: &mut Session, response: &mut ResponseHeader) {
    let is_final = !response.status.is_informational();
    if is_final && is_old(session.req_header().version) && response.headers.contains_key(header::TRANSFER_ENCODING) {
        response.remove_header(&header::TRANSFER_ENCODING);
        session.set_keepalive(None);
    }
}

/// Prepares the head of an answer for the way in which its body is passed on.
pub(crate) fn prepare(
    session: &mut Session,
    response: &mut ResponseHeader,
    remover: MemberRemover,
) -> Result<AnswerFilter> {
    if response.status.is_informational() {
        return Ok(AnswerFilter::Whole);
    }
    // Each describes the original body, removed members included: a digest would let a caller test guesses of them.
    for name in ["etag", "content-md5", "digest", "content-digest", "repr-digest", "accept-ranges"] {
        response.remove_header(name);
    }
    if session.req_header().method == Method::HEAD || matches!(response.status.as_u16(), 204 | 304) {
        response.remove_header(&header::CONTENT_LENGTH);
        return Ok(AnswerFilter::Nothing);
    }
    if response.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0") {
        return Ok(AnswerFilter::Nothing);
    }
    response.remove_header(&header::TRANSFER_ENCODING);
    match answer_kind(response.status, &response.headers) {
        AnswerKind::Opaque => Error::e_explain(WITHHELD, "the answer is not JSON, or not all of it, or compressed"),
        AnswerKind::Page => {
            response.remove_header(&header::CONTENT_ENCODING);
            response.insert_header(header::CONTENT_LENGTH, 0)?;
            Ok(AnswerFilter::Nothing)
        }
        AnswerKind::Json => {
            response.remove_header(&header::CONTENT_LENGTH);
            // The length depends on the removed members, so the answer is sent in chunks.
            response.set_version(Version::HTTP_11);
            response.insert_header(header::TRANSFER_ENCODING, "chunked")?;
            Ok(AnswerFilter::Without(Box::new(remover), false))
        }
    }
}

impl AnswerFilter {
    /// Passes on the visible part of the next bytes.
    pub(crate) fn pass(&mut self, body: &mut Option<Bytes>, is_end: bool) -> Result<()> {
        match self {
            Self::Whole => Ok(()),
            Self::Nothing => {
                *body = None;
                Ok(())
            }
            Self::Without(remover, has_begun) => {
                let bytes = body.take().unwrap_or_default();
                *has_begun |= !bytes.is_empty();
                let mut out = Vec::with_capacity(bytes.len() + remover.held());
                remover.feed(&bytes, &mut out).map_err(unreadable)?;
                // JSON that breaks off is an error: half an answer must not look whole.
                if is_end && *has_begun {
                    remover.finish().map_err(unreadable)?;
                }
                *body = (!out.is_empty()).then(|| Bytes::from(out));
                Ok(())
            }
        }
    }

    /// The number of removed members.
    pub(crate) fn removed(&self) -> u64 {
        match self {
            Self::Whole | Self::Nothing => 0,
            Self::Without(remover, _) => remover.removed(),
        }
    }
}

/// The error of an answer whose members cannot be found.
pub(crate) fn unreadable(fault: JsonError) -> Box<Error> {
    Error::explain(WITHHELD, format!("the answer is not JSON: {fault}"))
}
