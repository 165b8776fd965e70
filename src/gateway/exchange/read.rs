//! Forwards a request without a body, which is most of them: one head out, one answer back.
//!
//! The one rule: it does what pingora's own forwarding does, in the same order and with the same functions
//! ([`super::proxy`]), and nothing besides. pingora's is made for bodies that flow both ways at once: it couples two
//! tasks by channels, which cost more than the whole decision about a request. Requests with a body go through it.
//!
//! Called by [`super::proxy`] for admitted requests.

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Method, header};
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::v1::client::HttpSession as ServerSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tokio::task::unconstrained;

use super::context::RequestContext;
use super::proxy::GatewayProxy;
use crate::gateway::upstream::KeptConnection;

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
        let (peer, key) = (server.peer.peer(), server.peer.key());
        // A server that cuts kept connections could fail every attempt on them. So the second one has its own.
        let kept = if ctx.attempts > 1 { None } else { self.kept.take(key) };
        let reused = kept.is_some();
        let KeptConnection { stream, line } = match kept {
            Some(kept) => kept,
            None => match self.kept.connect(peer).await {
                Ok(stream) => KeptConnection { line: self.upstreams.line(stream.id()), stream },
                Err(error) => return Err(self.not_connected(session, error.into_up(), ctx)),
            },
        };
        self.connected(session, line.clone(), ctx);
        let mut asked = ServerSession::new_with_options(stream, peer);
        if let Err(error) = self.exchange(session, ctx, peer, &mut asked).await {
            return Err(self.attempt_failed(session, error, ctx, reused));
        }
        // From here on, its end is no longer that of this request.
        ctx.hold = None;
        asked.respect_keepalive();
        if let Some(stream) = asked.reuse().await.filter(|_| ctx.attempts == 1) {
            self.kept.put(key, KeptConnection { stream, line }, peer.options.idle_timeout);
        }
        Ok(())
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
        let mut request = Box::new(self.rewrite_request(session.req_header(), ctx)?);
        // A length of zero, at most.
        request.remove_header(&header::CONTENT_LENGTH);
        asked.write_request_header(request).await.map_err(|error| error.into_up())?;
        asked.finish_body().await.map_err(|error| error.into_up())?;
        loop {
            let first = next_piece(session, asked).await?;
            let (pieces, failed) = self.gather(session, ctx, asked, first).await;
            // What had arrived before a failure goes out first: how far an answer came must not depend on the clock.
            let is_whole = !pieces.is_empty() && session.write_response_tasks(pieces).await?;
            match failed {
                Some(error) => return Err(error),
                None if is_whole => break,
                None => {}
            }
        }
        session.as_mut().finish_body().await.map_err(|error| error.into_down()).map(drop)
    }

    /// A piece, and those behind it that have arrived already: nearly always the head with the whole body, which go out
    /// in one write. With the failure that came behind them.
    async fn gather(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        asked: &mut ServerSession,
        first: HttpTask,
    ) -> (Vec<HttpTask>, Option<Box<Error>>) {
        let (mut pieces, mut next) = (Vec::with_capacity(MOST_PIECES), Ok(first));
        loop {
            let piece = match next {
                Ok(piece) => piece,
                Err(error) => return (pieces, Some(error)),
            };
            let is_end = match self.judge_piece(session, ctx, piece).await {
                Ok(piece) => {
                    let is_end = piece.is_end();
                    pieces.push(piece);
                    is_end
                }
                // What was not passed on yet is not, either: a record that cannot be read for its members is 502.
                Err(error) => return (vec![], Some(error)),
            };
            if is_end || pieces.len() == MOST_PIECES {
                return (pieces, None);
            }
            match unconstrained(asked.read_response_task()).now_or_never() {
                Some(read) => next = read.map_err(|error| error.into_up()),
                None => return (pieces, None),
            }
        }
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
                ctx.answered(body.as_ref().map_or(0, Bytes::len))?;
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
