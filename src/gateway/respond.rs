//! Answers of the gateway's own: refusals, failures, OPTIONS.
//!
//! The one rule: the client is told status and stable code, nothing more. One JSON shape,
//! `{"error", "code", "request_id"}`; 401 alone is what Thalamus answers, because its clients know it.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, header};
use pingora_core::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::cors::Cors;
use super::request::content_length;

/// The header that tells the request id, in both directions.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// A declared body of up to this size is taken in before it is refused.
const SMALL_BODY_BYTES: u64 = 64 * 1024;
/// How long a refused body may go on coming in.
const LINGER: Duration = Duration::from_secs(2);

/// Lets a client finish sending a body that nobody will read: closing on it would reset the connection, and the client
/// would lose the answer. Larger bodies are answered at once and then let in for a while, to the same end.
async fn let_finish_sending(session: &mut Session) {
    let headers = &session.req_header().headers;
    // Who waits for 100 (Continue) sends nothing until it is answered.
    let waits = headers.contains_key(header::EXPECT);
    let length = content_length(headers).filter(|_| !waits);
    let downstream = session.as_downstream_mut();
    downstream.set_close_on_response_before_downstream_finish(false);
    downstream.set_total_drain_timeout(Some(LINGER));
    if length.is_some_and(|length| (1..=SMALL_BODY_BYTES).contains(&length)) {
        // What cannot be read ends the connection by itself.
        let _ = downstream.drain_request_body().await;
    }
}

/// One answer.
pub(super) struct Answer {
    status: u16,
    headers: Vec<(header::HeaderName, String)>,
    content_type: &'static str,
    body: Vec<u8>,
    close: bool,
}

impl Answer {
    /// An error in the one JSON shape.
    pub(super) fn error(status: u16, code: &str, message: &str, request_id: &str) -> Self {
        let body = serde_json::json!({ "error": message, "code": code, "request_id": request_id });
        Self {
            status,
            headers: Vec::new(),
            content_type: "application/json",
            body: body.to_string().into_bytes(),
            close: false,
        }
    }

    /// The challenge, as Thalamus words it (RFC 7617; the charset tells browsers to send UTF-8).
    pub(super) fn challenge(realm: &str) -> Self {
        Self {
            status: 401,
            headers: vec![(header::WWW_AUTHENTICATE, format!("Basic realm=\"{realm}\""))],
            content_type: "text/html; charset=utf-8",
            body: b"Unauthorized Access".to_vec(),
            close: false,
        }
    }

    /// What OPTIONS is told.
    pub(super) fn options(allow: &str) -> Self {
        let headers = vec![(header::ALLOW, allow.to_owned())];
        Self { status: 200, headers, content_type: "text/html; charset=utf-8", body: Vec::new(), close: false }
    }

    pub(super) fn with_header(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Ends the connection with this answer: what follows on it may not be what it seems.
    pub(super) fn and_close(mut self) -> Self {
        self.close = true;
        self
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// Builds the response header.
    fn header(&self, cors: &Cors, request_id: &str) -> Result<ResponseHeader> {
        let mut response = ResponseHeader::build(self.status, Some(8 + self.headers.len()))?;
        response.insert_header(header::CONTENT_TYPE, self.content_type)?;
        response.insert_header(header::CONTENT_LENGTH, self.body.len())?;
        response.insert_header(header::CACHE_CONTROL, "no-store")?;
        response.insert_header(REQUEST_ID, request_id)?;
        for (name, value) in &self.headers {
            response.insert_header(name, value)?;
        }
        cors.apply(&mut response)?;
        Ok(response)
    }

    /// Sends it. HEAD gets the header alone.
    pub(super) async fn send(self, session: &mut Session, cors: &Cors, request_id: &str) -> Result<()> {
        let_finish_sending(session).await;
        let mut response = self.header(cors, request_id)?;
        if session.req_header().method == Method::OPTIONS {
            cors.apply_preflight(&session.req_header().headers, &mut response)?;
        }
        if self.close {
            session.set_keepalive(None);
        }
        let headless = session.req_header().method == Method::HEAD || self.body.is_empty();
        session.write_response_header(Box::new(response), headless).await?;
        if !headless {
            session.write_response_body(Some(Bytes::from(self.body)), true).await?;
        }
        Ok(())
    }

    /// Sends it where the proxying of a request has failed; the connection ends.
    pub(super) async fn send_failure(self, session: &mut Session, cors: &Cors, request_id: &str) -> Result<()> {
        let_finish_sending(session).await;
        let response = self.header(cors, request_id)?;
        session.as_downstream_mut().write_error_response(response, Bytes::from(self.body)).await
    }
}
