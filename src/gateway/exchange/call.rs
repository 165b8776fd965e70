//! Calls of gRPC and the like: a body and an answer that flow at the same time over HTTP/2, with trailers behind.
//!
//! The one rule: it is a stream ([`super::stream`]) in both directions. No piece of the body or of the answer passes
//! unless the permit is found good at that moment. Of the answer's trailers those of gRPC pass alone, and of the body's
//! none: a trailer could otherwise say what the judged head may not.
//!
//! Called by [`super::stream`] for POST on routes of streams. Knows nothing of messages.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Instant;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::context::{BODY_TOO_LARGE, RequestContext, UNRECORDED};
use super::desync::ServerExchange;
use super::proxy::GatewayProxy;
use super::recording::NotRecorded;
use super::retry::MAX_ATTEMPTS;
use super::stream_times::{StreamStop, StreamTimes};
use crate::gateway::upstream::ServerSet;
use crate::pipeline::StreamPermit;
use fedgate_core::reasons::StreamEnd;

/// The trailers of an answer that pass begin so (gRPC over HTTP/2, Responses).
const PASSED_TRAILERS: &str = "grpc-";
/// The status by which a call says that it may be tried again elsewhere: `UNAVAILABLE`.
const UNAVAILABLE: HeaderValue = HeaderValue::from_static("14");

/// One direction of a call: the pieces that wait for the receiver's window.
struct CallLane {
    to: SendStream<Bytes>,
    waiting: Bytes,
    /// Whether the sender has ended.
    has_ended: bool,
    /// Whether the receiver has been told so.
    is_over: bool,
    moved: Instant,
}

/// The server's side of a call.
struct ServerCall {
    session: Http2Session,
    peer: Box<HttpPeer>,
    up: CallLane,
}

/// Whether a passed request is a call.
pub(super) fn is_call(session: &Session) -> bool {
    session.req_header().method == Method::POST
}

impl GatewayProxy {
    /// Serves a call to its end.
    pub(super) async fn run_call(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        permit: &mut StreamPermit,
        times: &mut StreamTimes,
    ) -> Result<(), StreamStop> {
        permit.begins().await;
        self.judge(permit, times).await?;
        let mut server = Box::pin(self.open_call(session, ctx, permit, times)).await?;
        let head = self.call_head(session, ctx, permit, times, &mut server).await?;
        let Some(to_client) = self.begin_call(session, ctx, permit, times, head, &server).await? else {
            return Ok(());
        };
        let mut down = CallLane::to(to_client);
        let passed = self.pass_call(session, ctx, permit, times, &mut server, &mut down).await;
        match passed {
            Err(StreamStop::Ended(end)) if end.is_orderly() && !down.is_over => {
                let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), UNAVAILABLE)]);
                let _ = down.to.send_trailers(trailers);
                Err(StreamStop::Ended(end))
            }
            Err(stop) => {
                // A reset also drops what waits for the client's window.
                down.to.send_reset(Reason::CANCEL);
                Err(stop)
            }
            Ok(()) => {
                let released = HttpSession::H2(server.session);
                let idle_timeout = server.peer.options.idle_timeout;
                self.upstreams.stream_connector().release_http_session(released, &*server.peer, idle_timeout).await;
                Ok(())
            }
        }
    }

    /// Connects to a server, and sends the head of the request. Only a connection may fail and be made again: a call may
    /// have changed something as soon as its head was sent.
    async fn open_call(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        permit: &mut StreamPermit,
        times: &mut StreamTimes,
    ) -> Result<ServerCall, StreamStop> {
        let (connected, peer) = loop {
            let servers = &ctx.upstream(&self.upstreams)?.servers;
            let server = servers.choose(ctx.permit()?, ctx.server.as_deref(), Instant::now());
            let server = server.ok_or_else(|| {
                Error::explain(ErrorType::ConnectNoRoute, "no server of the upstream has an address").into_up()
            })?;
            ctx.attempts += 1;
            ctx.server = Some(server.clone());
            let peer = ServerSet::call_peer(&server);
            let connected = {
                let connecting = self.upstreams.stream_connector().get_http_session(&*peer);
                self.unless_ended(session, permit, times, pin!(connecting)).await?
            };
            match connected {
                Ok((connected, _)) => break (connected, peer),
                Err(error) => {
                    servers.failed(&server, &self.metrics);
                    if ctx.attempts >= MAX_ATTEMPTS {
                        return Err(ctx.with_server(error.into_up()).into());
                    }
                }
            }
        };
        let HttpSession::H2(mut asked) = connected else {
            let error = Error::explain(ErrorType::H2Error, "the server does not speak HTTP/2, which a call needs");
            return Err(ctx.with_server(error.into_up()).into());
        };
        ctx.exchange = ServerExchange::begin(None);
        let mut request = Box::new(self.rewrite_request(session.req_header(), ctx)?);
        request.remove_header(&header::CONNECTION);
        // The end of the body is told by its framing; it may break off.
        request.remove_header(&header::CONTENT_LENGTH);
        // Of the gateway itself, which passes the trailers on.
        request.insert_header(header::TE, "trailers")?;
        let sent = asked.write_request_header(request, false);
        sent.map_err(|error| ctx.with_server(error.into_up()))?;
        let up = asked.take_request_body_writer().map(CallLane::to);
        let up = up.ok_or_else(|| Error::explain(ErrorType::InternalError, "a call without a body"))?;
        Ok(ServerCall { session: asked, peer, up })
    }

    /// Passes the body on until the head of the answer comes.
    async fn call_head(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        permit: &mut StreamPermit,
        times: &mut StreamTimes,
        server: &mut ServerCall,
    ) -> Result<ResponseHeader, StreamStop> {
        let limit = ctx.permit()?.max_body_bytes();
        {
            let ServerCall { session: asked, up, .. } = &mut *server;
            let mut answered = pin!(asked.read_response_header());
            let mut is_woken = false;
            loop {
                self.may_pass(permit, times, is_woken).await?;
                is_in_time(times, up, None)?;
                is_woken = false;
                let wake = times.wake(up.moved);
                tokio::select! {
                    () = permit.changed() => is_woken = true,
                    answered = &mut answered => {
                        answered.map_err(|error| ctx.with_server(error.into_up()))?;
                        break;
                    }
                    taken = up.take(session, false) => ctx.count_body(taken?, limit)?,
                    () = tokio::time::sleep_until(wake.into()) => {}
                }
            }
        }
        let head = server.session.response_header().cloned();
        let mut head =
            head.ok_or_else(|| Error::explain(ErrorType::ReadError, "an answer without a head").into_up())?;
        Self::judge_answer(session, &mut head, ctx)?;
        Ok(head)
    }

    /// Sends the head of the answer; the writer of the rest, unless there is none.
    async fn begin_call(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        permit: &mut StreamPermit,
        times: &mut StreamTimes,
        mut head: ResponseHeader,
        server: &ServerCall,
    ) -> Result<Option<SendStream<Bytes>>, StreamStop> {
        self.finish_head(session, &mut head, ctx).await?;
        let kept = self.keeper.begin_stream(session, ctx, head.status.as_u16()).await;
        kept.map_err(|NotRecorded| Error::explain(UNRECORDED, "the call could not be recorded"))?;
        if !self.pipeline.permits(permit) {
            self.judge(permit, times).await?;
        }
        let is_whole = server.session.response_finished();
        let ServerSession::H2(client) = session.as_downstream_mut() else {
            return Err(Error::explain(ErrorType::InternalError, "a call over HTTP/1").into());
        };
        // One frame if nothing follows: a call without a message has its status here (gRPC, Trailers-Only).
        client.write_response_header(Box::new(head), is_whole).map_err(|error| error.into_down())?;
        Ok(if is_whole { None } else { client.take_response_body_writer() })
    }

    /// Passes pieces both ways until the answer ends, or the call has to.
    async fn pass_call(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        permit: &mut StreamPermit,
        times: &mut StreamTimes,
        server: &mut ServerCall,
        down: &mut CallLane,
    ) -> Result<(), StreamStop> {
        let limit = ctx.permit()?.max_body_bytes();
        let ServerCall { session: asked, up, .. } = server;
        let mut is_woken = false;
        while !down.is_over {
            self.may_pass(permit, times, is_woken).await?;
            is_in_time(times, up, Some(down))?;
            is_woken = false;
            let since = match (up.waiting.is_empty(), down.waiting.is_empty()) {
                (true, true) => up.moved.max(down.moved),
                (false, true) => up.moved,
                (true, false) => down.moved,
                (false, false) => up.moved.min(down.moved),
            };
            let wake = times.wake(since);
            tokio::select! {
                () = permit.changed() => is_woken = true,
                taken = up.take(session, true) => ctx.count_body(taken?, limit)?,
                given = down.give(asked) => given.map_err(|error| match error.esource() {
                    pingora_core::ErrorSource::Upstream => ctx.with_server(error),
                    _ => error,
                })?,
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
        Ok(())
    }
}

/// Whether a call has not run for too long, and something moves.
fn is_in_time(times: &StreamTimes, up: &CallLane, down: Option<&CallLane>) -> Result<(), StreamStop> {
    let now = Instant::now();
    if times.end.is_some_and(|end| now >= end) {
        return Err(StreamEnd::StreamTooLong.into());
    }
    let is_late = |since: Instant| now >= since + times.silence;
    if down.is_some_and(|down| !down.waiting.is_empty() && is_late(down.moved)) {
        // Slow read attack: a window that is never opened blocks no socket.
        let error = Error::explain(ErrorType::WriteTimedout, "the client takes the answer too slowly");
        return Err(error.into_down().into());
    }
    let moved = down.map_or(up.moved, |down| up.moved.max(down.moved));
    match !up.waiting.is_empty() && is_late(up.moved) || is_late(moved) {
        true => Err(StreamEnd::UpstreamSilent.into()),
        false => Ok(()),
    }
}

impl CallLane {
    fn to(to: SendStream<Bytes>) -> Self {
        Self { to, waiting: Bytes::new(), has_ended: false, is_over: false, moved: Instant::now() }
    }

    /// Sends what waits, as far as the receiver's window allows; or the end behind it. False if there is nothing to send.
    ///
    /// Dropped before its end, it has done nothing.
    async fn send(&mut self) -> Result<bool, h2::Error> {
        if self.waiting.is_empty() {
            return Ok(false);
        }
        self.to.reserve_capacity(self.waiting.len());
        let capacity = match self.to.capacity() {
            0 => poll_fn(|cx| self.to.poll_capacity(cx)).await.transpose()?.ok_or(Reason::CANCEL)?,
            capacity => capacity,
        };
        let piece = self.waiting.split_to(capacity.min(self.waiting.len()));
        self.to.send_data(piece, false)?;
        self.moved = Instant::now();
        Ok(true)
    }

    /// Takes one step of the client's body; returns the bytes that have come.
    async fn take(&mut self, session: &mut Session, is_answered: bool) -> Result<usize> {
        let of_server = |error| Error::because(ErrorType::WriteError, "the body of a call", error).into_up();
        if self.send().await.map_err(of_server)? {
            return Ok(0);
        }
        if self.has_ended && !self.is_over {
            self.to.send_data(Bytes::new(), true).map_err(of_server)?;
            (self.is_over, self.moved) = (true, Instant::now());
            return Ok(0);
        }
        if self.is_over && is_answered {
            // The other lane notices when the client leaves.
            std::future::pending::<()>().await;
        }
        let client = session.as_downstream_mut();
        let came = match self.is_over {
            true => client.read_body_or_idle(true).await,
            false => client.read_request_body().await,
        };
        self.waiting = match came.map_err(|error| error.into_down())? {
            Some(piece) => piece,
            None => {
                self.has_ended = true;
                Bytes::new()
            }
        };
        self.moved = Instant::now();
        Ok(self.waiting.len())
    }

    /// Takes one step of the server's answer.
    async fn give(&mut self, server: &mut Http2Session) -> Result<()> {
        let of_client = |error| Error::because(ErrorType::WriteError, "the answer of a call", error).into_down();
        if self.send().await.map_err(of_client)? {
            return Ok(());
        }
        if self.has_ended {
            let trailers = server.read_trailers().await.map_err(|error| error.into_up())?;
            match trailers.map(passed_trailers).filter(|trailers| !trailers.is_empty()) {
                Some(trailers) => self.to.send_trailers(trailers).map_err(of_client)?,
                None => self.to.send_data(Bytes::new(), true).map_err(of_client)?,
            }
            self.is_over = true;
            return Ok(());
        }
        let to = &mut self.to;
        tokio::select! {
            biased;
            _ = poll_fn(|cx| to.poll_reset(cx)) => {
                return Err(Error::explain(ErrorType::H2Error, "the client has gone").into_down());
            }
            piece = server.read_response_body() => match piece.map_err(|error| error.into_up())? {
                Some(piece) => self.waiting = piece,
                None => self.has_ended = true,
            },
        }
        self.moved = Instant::now();
        Ok(())
    }
}

/// The trailers that pass.
fn passed_trailers(mut trailers: HeaderMap) -> HeaderMap {
    let unlisted = trailers.keys().filter(|name| !name.as_str().starts_with(PASSED_TRAILERS)).cloned();
    for name in unlisted.collect::<Vec<_>>() {
        trailers.remove(name);
    }
    trailers
}

impl RequestContext {
    /// Counts bytes of a body, up to a limit.
    fn count_body(&mut self, bytes: usize, limit: u64) -> Result<()> {
        self.body_bytes += bytes as u64;
        match self.body_bytes > limit {
            true => Error::e_explain(BODY_TOO_LARGE, "the body is larger than the route allows"),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_of_grpc_pass_and_no_others() {
        let sent = [
            ("grpc-status", "0"),
            ("grpc-message", "ok"),
            ("grpc-status-details-bin", "CAA"),
            ("set-cookie", "a=b"),
            ("content-type", "text/html"),
            ("fedgate-busy", "1"),
            ("x-user", "admin"),
        ];
        let sent = sent.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let passed = passed_trailers(HeaderMap::from_iter(sent));
        let mut names: Vec<_> = passed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["grpc-message", "grpc-status", "grpc-status-details-bin"]);
    }
}
