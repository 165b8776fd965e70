//! One request, one answer: keeps the two together on a connection that many requests share.
//!
//! The one rule: the end of a body is written once, and a connection whose order may be lost serves no other
//! request. HTTP/1 pairs answers with requests only by their order (RFC 9112, 9.3.2), so one end too many makes
//! every later answer that of another caller.
//!
//! fedhis names the exchange in its answers, which shows a lost order whatever its cause. Called by the callbacks
//! of [`super::proxy`], once per attempt.

use bytes::Bytes;
use http::{Method, Version, header};
use pingora_core::{Error, ErrorType, Result, RetryType};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use crate::gateway::plain_text::random_hexadecimal;
use crate::gateway::upstream::ServerLine;
use fedgate_core::assertion::EXCHANGE;

/// One attempt of a request.
#[derive(Default)]
pub(crate) struct ServerExchange {
    /// Its random name, which a service may repeat in its answer.
    word: String,
    /// Its connection.
    line: Option<ServerLine>,
}

/// Removes an empty last piece of a body: pingora 0.9.1 writes it as a chunk of no bytes, which is the end of a
/// body, and then writes the end again.
pub(crate) fn end_once(body: &mut Option<Bytes>, is_end: bool) {
    if is_end && body.as_ref().is_some_and(Bytes::is_empty) {
        *body = None;
    }
}

impl ServerExchange {
    /// Begins an attempt on a connection.
    pub(crate) fn begin(line: Option<ServerLine>) -> Self {
        Self { word: random_hexadecimal::<8>(), line }
    }

    /// Adds its name to the request, and `Connection: close` if the connection is not kept.
    pub(crate) fn tell(&self, request: &mut RequestHeader, keeps: bool) -> Result<()> {
        if !keeps {
            request.insert_header(header::CONNECTION, "close")?;
        }
        request.insert_header(EXCHANGE, &self.word)
    }

    /// Holds the next piece of an HTTP/2 body back until the server takes more, or the client has cancelled it.
    ///
    /// pingora watches the client while it has room for one more piece, and not while a write to the server blocks.
    /// A cancelled stream would keep its part of the connection's window for as long as that write may take, and
    /// the other streams would stall. A piece that waits here leaves that room. An HTTP/1 connection shares
    /// nothing, and unread bytes hide that the client has left.
    ///
    /// # Errors
    /// The client has cancelled the request, or gone.
    pub(crate) async fn keep_back(&self, session: &mut Session) -> Result<()> {
        let Some(line) = self.line.as_ref().filter(|_| session.is_http2()) else { return Ok(()) };
        tokio::select! {
            biased;
            taken = line.is_taken() => {
                // On an error, pingora's own write finds it.
                let _ = taken;
                Ok(())
            }
            gone = session.as_mut().read_body_or_idle(true) => gone.map(drop).map_err(|error| error.into_down()),
        }
    }

    /// Checks that an answer is to this request, as far as that can be known.
    ///
    /// # Errors
    /// The answer names another exchange, or none although the connection has named them before. On a kept
    /// connection, a request that may be retried is; any other is 502.
    pub(crate) fn check(&self, response: &ResponseHeader) -> Result<()> {
        let echoed = response.headers.get(EXCHANGE).map(|word| word.as_bytes());
        let is_named = echoed == Some(self.word.as_bytes());
        if let (true, Some(line)) = (is_named, &self.line) {
            line.note_names();
        }
        // Interim answers come from layers below the services, which know no exchange.
        let may_be_unnamed = response.status.is_informational() || !self.line.as_ref().is_some_and(ServerLine::names);
        if is_named || (echoed.is_none() && may_be_unnamed) {
            return Ok(());
        }
        tracing::warn!("a server sent an answer to another request; the connection is closed");
        let mut error = Error::explain(ErrorType::InvalidHTTPHeader, "an answer to another request").into_up();
        // Repeatable only on a reused connection, where it is an answer to an earlier request.
        error.retry = RetryType::ReusedOnly;
        Err(error)
    }

    /// Closes the connection to further requests if the answer has no body by rule and its head announces one: a
    /// server that sends that body would answer the next request with it. The same if HTTP/1.0 has chunks, whose
    /// end is not reliable (RFC 9112, 6.1).
    pub(crate) fn end(&self, method: &Method, response: &ResponseHeader) {
        let has_none = *method == Method::HEAD || matches!(response.status.as_u16(), 204 | 304);
        let is_coded = response.headers.contains_key(header::TRANSFER_ENCODING);
        let announces =
            is_coded || response.headers.get_all(header::CONTENT_LENGTH).iter().any(|length| length.as_bytes() != b"0");
        let is_unclear = (has_none && announces) || (is_coded && response.version != Version::HTTP_11);
        if let (true, Some(line)) = (is_unclear && !response.status.is_informational(), &self.line) {
            line.retire();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_piece_is_left_out_at_the_end_alone() {
        let piece = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        for (body, is_end, expected) in [
            (piece(""), true, None),
            (piece(""), false, piece("")),
            (piece("a"), true, piece("a")),
            (piece("a"), false, piece("a")),
            (None, true, None),
        ] {
            let mut left = body.clone();
            end_once(&mut left, is_end);
            assert_eq!(left, expected, "{body:?}, {is_end}");
        }
    }
}
