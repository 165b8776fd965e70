//! Forwards a request without a body, which is most of them: one head out, one answer back.
//!
//! The one rule: it does what pingora's own forwarding does, in the same order and with the same functions
//! ([`super::proxy`]), and nothing besides. pingora's is made for bodies that flow both ways at once: it couples two
//! tasks by channels, which cost more than the whole decision about a request. Requests with a body go through it.
//!
//! Called by [`super::proxy`] for admitted requests.

use futures_util::FutureExt;
use http::{Method, header};
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v1::client::HttpSession as ServerSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tokio::task::unconstrained;

use super::context::RequestContext;
use super::proxy::GatewayProxy;

/// Most pieces of an answer that are written at once.
const MOST_PIECES: usize = 4;

impl GatewayProxy {
    /// Whether a passed request is forwarded here.
    pub(super) fn is_read(session: &mut Session, ctx: &RequestContext) -> bool {
        let is_safe = matches!(session.req_header().method, Method::GET | Method::HEAD);
        is_safe && ctx.held.is_none() && session.as_mut().is_body_empty()
    }

    /// Forwards a request, and its answer; once more if the first attempt failed and that is allowed.
    ///
    /// # Errors
    /// The client or the server has failed it.
    pub(super) async fn serve_read(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<()> {
        loop {
            match self.read_once(session, ctx).await {
                // `RetryPolicy` allows one.
                Err(error) if error.retry() => {}
                done => return done,
            }
        }
    }

    async fn read_once(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<()> {
        let server = self.choose_server(ctx)?;
        let second;
        let peer = if ctx.attempts > 1 {
            second = server.peer.second_attempt();
            &*second
        } else {
            server.peer.first_attempt()
        };
        let connector = self.connector.get();
        match connector.get_http_session(peer).await {
            Ok((HttpSession::H1(mut asked), reused)) => match self.exchange(session, ctx, peer, &mut asked).await {
                Ok(()) => {
                    release(connector, peer, asked).await;
                    Ok(())
                }
                Err(error) => Err(self.attempt_failed(session, error, ctx, reused)),
            },
            // INVARIANT: the peers of requests speak HTTP/1 alone.
            Ok(_) => Err(Error::explain(ErrorType::InternalError, "a server's connection is not of HTTP/1")),
            Err(error) => Err(self.not_connected(session, error.into_up(), ctx)),
        }
    }

    /// Sends the head, and passes the answer on.
    async fn exchange(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        peer: &HttpPeer,
        asked: &mut ServerSession,
    ) -> Result<()> {
        (asked.read_timeout, asked.write_timeout) = (peer.options.read_timeout, peer.options.write_timeout);
        self.connected(session, asked.stream().id(), ctx);
        let head = session.req_header();
        let mut request = Box::new(self.rewrite_request(head, ctx)?);
        // A length of zero, at most.
        request.remove_header(&header::CONTENT_LENGTH);
        asked.write_request_header(request).await.map_err(|error| error.into_up())?;
        asked.finish_body().await.map_err(|error| error.into_up())?;
        loop {
            let mut piece = next_piece(session, asked).await?;
            let mut pieces = Vec::with_capacity(MOST_PIECES);
            loop {
                let is_end = piece.is_end();
                pieces.push(self.judge_piece(session, ctx, piece).await?);
                if is_end || pieces.len() == MOST_PIECES {
                    break;
                }
                // What has arrived already goes out in the same write: nearly always the head with the whole body.
                match unconstrained(asked.read_response_task()).now_or_never() {
                    Some(next) => piece = next.map_err(|error| error.into_up())?,
                    None => break,
                }
            }
            if session.write_response_tasks(pieces).await? {
                break;
            }
        }
        session.as_mut().finish_body().await.map_err(|error| error.into_down()).map(drop)
    }

    /// Judges and changes a piece of an answer before the client receives it.
    async fn judge_piece(&self, session: &mut Session, ctx: &mut RequestContext, piece: HttpTask) -> Result<HttpTask> {
        Ok(match piece {
            HttpTask::Header(mut head, is_end) => {
                Self::judge_answer(session, &mut head, ctx)?;
                if !is_end && has_open_body(session, &head) {
                    head.insert_header(header::TRANSFER_ENCODING, "chunked")?;
                }
                self.finish_head(session, &mut head, ctx).await?;
                HttpTask::Header(head, is_end)
            }
            HttpTask::Body(mut body, is_end) => {
                ctx.in_time()?;
                ctx.passing.pass(&mut body, is_end)?;
                HttpTask::Body(body, is_end)
            }
            HttpTask::UpgradedBody(..) => {
                return Err(Error::explain(ErrorType::InternalError, "a tunnel that nobody asked for"));
            }
            rest @ (HttpTask::Trailer(_) | HttpTask::Done | HttpTask::Failed(_)) => rest,
        })
    }
}

/// The next piece of an answer, unless the client leaves before.
async fn next_piece(session: &mut Session, asked: &mut ServerSession) -> Result<HttpTask> {
    tokio::select! {
        biased;
        piece = asked.read_response_task() => piece.map_err(|error| error.into_up()),
        gone = session.as_downstream_mut().read_body_or_idle(true) => {
            let gone = gone.map_or_else(|error| error, |_| Error::new(ErrorType::ConnectionClosed));
            Err(gone.into_down())
        }
    }
}

/// Whether the end of a body is not known before it comes: a client of HTTP/1.1 receives chunks.
fn has_open_body(session: &Session, head: &ResponseHeader) -> bool {
    let has_none = session.req_header().method == Method::HEAD
        || head.status.is_informational()
        || matches!(head.status.as_u16(), 204 | 304);
    !has_none
        && !head.headers.contains_key(header::TRANSFER_ENCODING)
        && !head.headers.contains_key(header::CONTENT_LENGTH)
}

/// Keeps the connection for another request, if it may serve one.
async fn release(connector: &Connector, peer: &HttpPeer, asked: ServerSession) {
    connector.release_http_session(HttpSession::H1(asked), peer, peer.options.idle_timeout).await;
}
