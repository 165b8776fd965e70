//! Answers of the gateway itself: refusals, failures, OPTIONS.
//!
//! The one rule: the client receives a status and a stable code, nothing more. One JSON shape,
//! `{"error", "code", "request_id"}`; only 401 is worded as by Thalamus, because its clients know it. A request
//! that asks for `application/problem+json` gets the same facts in the form of RFC 9457, and a browser on the
//! password page gets a page.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use pingora_core::protocols::http::ServerSession;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::context::RequestContext;
use super::held_body::waits_for_100;
use super::page_notice::{self, PageNotice};
use fedgate_core::admission::content_length;
use fedgate_core::codes::AnswerCode;
use fedgate_core::methods::is_safe;
use fedgate_core::web_page::{self, PageLanguage, asks_for};

/// Seconds after which a request that was refused for now may be tried again.
pub(crate) const RETRY_AFTER: &str = "1";
/// A declared body of up to this size is read before it is refused.
const SMALL_BODY_BYTES: u64 = 64 * 1024;
/// An answer's body of up to this size is not held back for a client's window over HTTP/2.
const UNASKED_BYTES: usize = 8 * 1024;
/// How long a refused body may keep arriving.
const LINGER: Duration = Duration::from_secs(2);

/// Lets a client finish sending a body that nothing will read. Closing during it would reset the connection, and
/// the client would lose the answer. Larger bodies are answered at once and then read for a while, for the same
/// reason.
async fn let_finish_sending(session: &mut Session) {
    let headers = &session.req_header().headers;
    // A client that waits for 100 (Continue) sends nothing until it is answered.
    let waits = waits_for_100(headers);
    let length = content_length(headers).filter(|_| !waits);
    let downstream = session.as_downstream_mut();
    downstream.set_close_on_response_before_downstream_finish(false);
    downstream.set_total_drain_timeout(Some(LINGER));
    if length.is_some_and(|length| (1..=SMALL_BODY_BYTES).contains(&length)) {
        // A read error ends the connection by itself.
        let _ = downstream.drain_request_body().await;
    }
}

/// The same over HTTP/2, where the stream would be reset behind the answer, and clients take that for a failed
/// request. Over HTTP/1, pingora reads the rest when it ends the request.
async fn let_finish_stream(session: &mut Session) {
    if session.is_http2() {
        // A body that cannot be read, or does not end in time, is reset with the stream.
        let _ = session.as_downstream_mut().drain_request_body().await;
    }
}

/// Writes the whole body of an answer.
///
/// Over HTTP/2, a small one goes to the HTTP library at once, which sends it when the client's window allows. A client
/// that keeps its window closed then holds these bytes, and no request in progress.
async fn write_body(session: &mut Session, body: Bytes) -> Result<()> {
    if let ServerSession::H2(http2) = session.as_downstream_mut()
        && body.len() <= UNASKED_BYTES
        && let Some(mut writer) = http2.take_response_body_writer()
    {
        let sent = writer.send_data(body, true);
        return sent.map_err(|error| Error::because(ErrorType::WriteError, "an answer", error).into_down());
    }
    session.write_response_body(Some(body), true).await.map_err(|error| error.into_down())
}

/// One answer.
pub(crate) struct GatewayAnswer {
    status: u16,
    headers: Vec<(header::HeaderName, String)>,
    body: AnswerBody,
    close: bool,
    /// Whether the rest of the request's body is read.
    reads_body: bool,
}

/// The default body of an answer.
enum AnswerBody {
    /// The error, as JSON.
    Error(AnswerCode),
    /// The text of Thalamus to an unauthenticated caller.
    Challenge,
    /// The body of a service's answer, with its media type.
    Relayed(String, Bytes),
    /// Nothing.
    None,
}

/// An answer's body, its media type and language.
struct AnswerContent {
    media_type: String,
    body: Bytes,
    /// The reader's language, if a person reads it.
    language: Option<PageLanguage>,
}

/// The media type of event streams (WHATWG HTML, 9.2).
const EVENT_STREAM: &str = "text/event-stream";
/// An event stream that ends at once: a comment, which no reader sees.
const ENDED_STREAM: &[u8] = b": this gateway stops; ask again\n\n";
/// The media type of RFC 9457.
const PROBLEM: &str = "application/problem+json";
/// The media type of pages, as Flask names it.
const HTML: &str = "text/html; charset=utf-8";

impl GatewayAnswer {
    /// An error in the one JSON shape.
    pub(crate) fn error(answer: AnswerCode) -> Self {
        Self::with(answer.status(), AnswerBody::Error(answer))
    }

    fn with(status: u16, body: AnswerBody) -> Self {
        Self { status, headers: Vec::new(), body, close: false, reads_body: true }
    }

    /// The answer to a request that cannot be recorded.
    pub(crate) fn not_recorded() -> Self {
        Self::error(AnswerCode::NotRecorded).with_header(header::RETRY_AFTER, RETRY_AFTER)
    }

    /// The answer to a request for which there is no seat. Over HTTP/2 it has no body, so that the stream ends at once:
    /// a client's closed window holds back a body, but neither headers nor an empty frame (RFC 9113, 6.9.1).
    pub(crate) fn no_seat(session: &Session) -> Self {
        let answer = match session.is_http2() {
            true => {
                let answer = Self::with(AnswerCode::ServiceBusy.status(), AnswerBody::None);
                Self { reads_body: false, ..answer }
            }
            false => Self::error(AnswerCode::ServiceBusy),
        };
        answer.with_header(header::RETRY_AFTER, RETRY_AFTER)
    }

    /// The challenge, worded as by Thalamus, with the charset of RFC 7617, section 2.1: without it, clients such as
    /// Java's `Authenticator` send `?` for each letter that is not in Latin-1.
    pub(crate) fn challenge(realm: &str) -> Self {
        let challenge = (header::WWW_AUTHENTICATE, format!("Basic realm=\"{realm}\", charset=\"UTF-8\""));
        let answer = Self::with(AnswerCode::Unauthenticated.status(), AnswerBody::Challenge);
        Self { headers: vec![challenge], ..answer }
    }

    /// The answer of a service to a request of the gateway itself.
    pub(crate) fn relayed(status: u16, content_type: &str, body: Bytes) -> Self {
        Self::with(status, AnswerBody::Relayed(content_type.to_owned(), body))
    }

    /// An event stream that has ended, for a reader that names such a stream; none for another client. A browser opens
    /// it again after an end, and never after any status but 200 (WHATWG HTML, 9.2.2 and 9.2.3). It waits as long as the
    /// service has told it before: a `retry` of the gateway would replace that.
    pub(crate) fn ended_stream(session: &Session) -> Option<Self> {
        let mut accepted = session.req_header().headers.get_all(header::ACCEPT).iter();
        let reads_events = accepted.any(|accept| asks_for(accept.as_bytes(), EVENT_STREAM));
        reads_events.then(|| Self::relayed(200, EVENT_STREAM, Bytes::from_static(ENDED_STREAM)))
    }

    /// The answer to a proxy that asks: the request may pass.
    pub(crate) fn passes() -> Self {
        Self::with(200, AnswerBody::None)
    }

    /// The answer to OPTIONS.
    pub(crate) fn options(allow: &str) -> Self {
        Self::with(200, AnswerBody::None).with_header(header::ALLOW, allow)
    }

    pub(crate) fn with_header(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Ends the connection with this answer: the next bytes on it may have another meaning than they seem.
    pub(crate) fn and_close(mut self) -> Self {
        self.close = true;
        self
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// The body, in the form that the request asks for.
    fn content(&self, session: &Session, request_id: &str) -> AnswerContent {
        let head = session.req_header();
        let wants_problem =
            head.headers.get_all(header::ACCEPT).iter().any(|accept| asks_for(accept.as_bytes(), PROBLEM));
        let content =
            |media_type: &str, body: Bytes| AnswerContent { media_type: media_type.to_owned(), body, language: None };
        let answer = match &self.body {
            AnswerBody::None => return content(HTML, Bytes::new()),
            AnswerBody::Relayed(media_type, body) => return content(media_type, body.clone()),
            AnswerBody::Error(answer) => *answer,
            AnswerBody::Challenge => AnswerCode::Unauthenticated,
        };
        match (&self.body, page_notice::reader(session)) {
            _ if wants_problem => {
                let title = StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
                let problem = serde_json::json!({
                    "type": "about:blank", "title": title, "status": self.status, "detail": answer.text(),
                    "code": answer.code(), "request_id": request_id,
                });
                content(PROBLEM, problem.to_string().into())
            }
            (_, Some(language)) => {
                let retry_after = self.headers.iter().find(|(name, _)| *name == header::RETRY_AFTER);
                let notice = PageNotice {
                    status: self.status,
                    code: answer.code(),
                    is_write: !is_safe(head.method.as_str()),
                    retry_after: retry_after.map(|(_, seconds)| seconds.as_str()),
                    request_id,
                };
                AnswerContent { language: Some(language), ..content(HTML, notice.html(language).into()) }
            }
            (AnswerBody::Challenge, None) => content(HTML, answer.text().into()),
            (_, None) => content("application/json", answer.json(request_id).into()),
        }
    }

    /// Builds the response header.
    fn header(&self, content: &AnswerContent, method: &Method, ctx: &RequestContext) -> Result<ResponseHeader> {
        let mut response = ResponseHeader::build(self.status, Some(12 + self.headers.len()))?;
        response.insert_header(header::CONTENT_TYPE, &content.media_type)?;
        // A proxy that asks about a HEAD asks by another method, and would wait for the body.
        let asked_for_another = ctx.beside.is_some() && *method == Method::HEAD;
        let length = if asked_for_another { 0 } else { content.body.len() };
        response.insert_header(header::CONTENT_LENGTH, length)?;
        response.insert_header(header::CACHE_CONTROL, "no-store")?;
        if let Some(language) = content.language {
            response.insert_header(header::CONTENT_LANGUAGE, language.tag())?;
            response.insert_header(header::VARY, "Accept, Accept-Language")?;
            response.insert_header(header::CONTENT_SECURITY_POLICY, web_page::POLICY_OF_STYLED)?;
            response.insert_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")?;
            response.insert_header(header::REFERRER_POLICY, "same-origin")?;
        }
        ctx.identify(&mut response)?;
        for (name, value) in &self.headers {
            response.insert_header(name, value)?;
        }
        ctx.cors.apply(&mut response)?;
        Ok(response)
    }

    /// Sends the answer. HEAD gets only the header section.
    pub(crate) async fn send(self, session: &mut Session, ctx: &RequestContext) -> Result<()> {
        if self.reads_body {
            let_finish_sending(session).await;
        }
        let content = self.content(session, &ctx.request_id);
        let mut response = self.header(&content, &session.req_header().method, ctx)?;
        if session.req_header().method == Method::OPTIONS {
            ctx.cors.apply_preflight(&session.req_header().headers, &mut response)?;
        }
        if self.close {
            session.set_keepalive(None);
        }
        let headless = session.req_header().method == Method::HEAD || content.body.is_empty();
        // pingora gives a write error no source. As an internal error, a client that went away would be answered
        // 500 and recorded twice.
        session.write_response_header(Box::new(response), headless).await.map_err(|error| error.into_down())?;
        if !headless {
            write_body(session, content.body).await?;
        }
        if self.reads_body {
            let_finish_stream(session).await;
        }
        Ok(())
    }

    /// Sends the answer to a request whose forwarding failed; the connection ends.
    pub(crate) async fn send_failure(self, session: &mut Session, ctx: &RequestContext) -> Result<()> {
        let_finish_sending(session).await;
        let content = self.content(session, &ctx.request_id);
        let response = self.header(&content, &session.req_header().method, ctx)?;
        // pingora would write the body on HEAD, too; an HTTP/2 client then resets the stream and learns no status.
        let body = if session.req_header().method == Method::HEAD { Bytes::new() } else { content.body };
        let downstream = session.as_downstream_mut();
        // What pingora's `write_error_response` does, but for the body.
        downstream.set_keepalive(None);
        if downstream.response_written().is_some_and(|written| !written.status.is_informational()) {
            return Ok(());
        }
        downstream.write_response_header(Box::new(response)).await.map_err(|error| error.into_down())?;
        match body.is_empty() {
            true => downstream.finish_body().await.map_err(|error| error.into_down())?,
            false => write_body(session, body).await?,
        }
        let_finish_stream(session).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_sent_to_clients_that_accept_it() {
        for (accept, expected) in [
            ("application/problem+json", true),
            ("text/html, Application/Problem+JSON;q=0.5", true),
            ("application/problem+json; q=0", false),
            ("application/json", false),
            ("*/*", false),
            ("application/*", false),
            ("", false),
        ] {
            assert_eq!(asks_for(accept.as_bytes(), PROBLEM), expected, "{accept}");
        }
    }
}
