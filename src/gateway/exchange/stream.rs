//! Streams and long polls: their answers pass as they come, for as long as they are permitted. WebSockets begin here,
//! and go on in [`super::websocket`]; calls, in [`super::call`].
//!
//! The one rule: no byte of an answer is passed on before the permit of the stream has been found good at that moment
//! ([`Pipeline::permits`]). A stream whose permit is gone ends at once, whatever it waits for: the server, the client,
//! or the client's window.
//!
//! Called by [`super::proxy`] for admitted requests. pingora's own forwarding would hold a connection to the server for
//! each stream, or notice the end of a permit only with the next piece.

use std::pin::{Pin, pin};
use std::time::Instant;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::call::is_call;
use super::context::{RequestContext, UNRECORDED};
use super::desync::ServerExchange;
use super::hidden_members::is_old;
use super::proxy::GatewayProxy;
use super::recording::{NotRecorded, final_status};
use super::respond::{GatewayAnswer, RETRY_AFTER};
use super::retry::MAX_ATTEMPTS;
use super::stream_times::{CertificateLook, StreamStop, StreamTimes};
use super::websocket::{came_too_early, offer_websocket, opens_websocket};
use crate::gateway::upstream::ServerSet;
use crate::pipeline::StreamPermit;
use fedgate_core::codes::AnswerCode;
use fedgate_core::reasons::StreamEnd;

/// The error of an answer that the gateway breaks off.
const BROKEN_OFF: ErrorType = ErrorType::new("stream ended");

/// The server's side of a stream.
struct ServerStream {
    session: HttpSession,
    peer: Box<HttpPeer>,
}

impl GatewayProxy {
    /// Whether a passed request is answered by a stream.
    pub(super) fn is_stream(session: &Session, ctx: &RequestContext) -> bool {
        (session.req_header().method == Method::GET || is_call(session))
            && ctx.permit().is_ok_and(|permit| permit.is_stream())
    }

    /// Serves the stream of a passed request to its end.
    ///
    /// # Errors
    /// The client or the server has failed it, or its answer breaks off.
    pub(super) async fn serve_stream(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<()> {
        if opens_websocket(session, ctx) && came_too_early(session).await {
            ctx.is_unserved(AnswerCode::BadWebSocket.into());
            let answer = GatewayAnswer::error(AnswerCode::BadWebSocket).and_close();
            return Box::pin(self.keeper.answer(session, ctx, answer)).await;
        }
        if is_call(session) && !session.is_http2() {
            ctx.is_unserved(AnswerCode::Http2Needed.into());
            let answer = GatewayAnswer::error(AnswerCode::Http2Needed).and_close();
            return Box::pin(self.keeper.answer(session, ctx, answer)).await;
        }
        if !ctx.becomes_stream(session.is_http2())? {
            ctx.is_unserved(AnswerCode::ServiceBusy.into());
            let answer = GatewayAnswer::no_seat(session);
            return Box::pin(self.keeper.answer(session, ctx, answer)).await;
        }
        let _running = self.metrics.connections.stream();
        let mut permit = self.pipeline.begin_stream(ctx.permit()?);
        match self.run_stream(session, ctx, &mut permit).await {
            Ok(()) => Ok(()),
            Err(StreamStop::Failed(error)) => Err(error),
            // Boxed, as all that is short: a silent stream has room for its wait alone.
            Err(StreamStop::Ended(end)) => Box::pin(self.end_stream(session, ctx, end)).await,
        }
    }

    async fn run_stream(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        permit: &mut StreamPermit,
    ) -> Result<(), StreamStop> {
        let every = self.pipeline.freshness_bound() / 2;
        let certificate = self.admission.certificate_in_use(session, ctx.origin.client);
        let mut times = StreamTimes {
            end: self.streams.life.map(|life| ctx.start + life),
            silence: self.streams.silence,
            certificate: certificate.map(|used| CertificateLook { used, every, next: Instant::now() + every }),
        };
        if is_call(session) {
            return Box::pin(self.run_call(session, ctx, permit, &mut times)).await;
        }
        // Boxed, because the connection takes more room than what follows, and is soon over.
        let (mut server, response) = Box::pin(self.open_stream(session, ctx, permit, &mut times)).await?;
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            return match server.session {
                HttpSession::H1(server) => Box::pin(self.run_websocket(session, ctx, permit, &mut times, server)).await,
                _ => Err(Error::explain(ErrorType::InvalidHTTPHeader, "another protocol over HTTP/2").into_up().into()),
            };
        }
        Box::pin(self.begin_answer(session, ctx, permit, &mut times, response)).await?;
        self.pass_stream(session, ctx, permit, &mut times, &mut server).await?;
        if !opens_websocket(session, ctx) {
            self.upstreams
                .stream_connector()
                .release_http_session(server.session, &*server.peer, server.peer.options.idle_timeout)
                .await;
        }
        Ok(())
    }

    /// Passes the pieces of an answer on as they come.
    async fn pass_stream(
        &self,
        session: &mut Session,
        ctx: &RequestContext,
        permit: &mut StreamPermit,
        times: &mut StreamTimes,
        server: &mut ServerStream,
    ) -> Result<(), StreamStop> {
        loop {
            let piece = self.next_piece(session, ctx, permit, times, server).await?;
            let Some(piece) = piece else { return Ok(()) };
            if !piece.is_empty() {
                Box::pin(self.write_piece(session, permit, times, piece)).await?;
            }
        }
    }

    /// The next piece of an answer.
    async fn next_piece(
        &self,
        session: &mut Session,
        ctx: &RequestContext,
        permit: &mut StreamPermit,
        times: &mut StreamTimes,
        server: &mut ServerStream,
    ) -> Result<Option<Bytes>, StreamStop> {
        let piece = pin!(server.session.read_response_body());
        let piece = self.unless_ended(session, permit, times, piece).await?;
        piece.map_err(|error| ctx.with_server(error.into_up()).into())
    }

    /// Writes a piece, as soon as the permit is found good.
    async fn write_piece(
        &self,
        session: &mut Session,
        permit: &mut StreamPermit,
        times: &mut StreamTimes,
        piece: Bytes,
    ) -> Result<(), StreamStop> {
        self.may_pass(permit, times, false).await?;
        let mut written = pin!(session.as_downstream_mut().write_response_body(piece, false));
        loop {
            tokio::select! {
                biased;
                () = permit.changed() => Box::pin(self.judge(permit, times)).await?,
                written = &mut written => return Ok(written.map_err(|error| error.into_down())?),
                () = until(times.end) => return Err(StreamEnd::StreamTooLong.into()),
                () = until(times.next_look()) => Box::pin(self.judge(permit, times)).await?,
            }
        }
    }

    /// Waits for the server, unless the stream has to end before, or the client leaves.
    pub(super) async fn unless_ended<T>(
        &self,
        session: &mut Session,
        permit: &mut StreamPermit,
        times: &mut StreamTimes,
        // Pinned by the caller: moved in here, it would take its room twice.
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, StreamStop> {
        let silent = Instant::now() + times.silence;
        loop {
            let next = [Some(silent), times.end, times.next_look()].into_iter().flatten().min().unwrap_or(silent);
            tokio::select! {
                biased;
                () = permit.changed() => Box::pin(self.judge(permit, times)).await?,
                done = &mut work => return Ok(done),
                gone = session.as_downstream_mut().read_body_or_idle(true) => {
                    let gone = gone.map_or_else(|error| error, |_| Error::new(ErrorType::ConnectionClosed));
                    return Err(gone.into_down().into());
                }
                () = tokio::time::sleep_until(next.into()) => {
                    let now = Instant::now();
                    if times.end.is_some_and(|end| now >= end) {
                        return Err(StreamEnd::StreamTooLong.into());
                    }
                    if now >= silent {
                        return Err(StreamEnd::UpstreamSilent.into());
                    }
                    Box::pin(self.judge(permit, times)).await?;
                }
            }
        }
    }

    /// Whether a stream may pass what waits. It is judged first where something may have changed since the last time.
    pub(super) async fn may_pass(
        &self,
        permit: &mut StreamPermit,
        times: &mut StreamTimes,
        is_woken: bool,
    ) -> Result<(), StreamEnd> {
        if is_woken || self.traffic.ends_streams() || !self.pipeline.permits(permit) || times.look_is_due() {
            Box::pin(self.judge(permit, times)).await?;
        }
        Ok(())
    }

    /// Judges a stream again: its certificate, and its rights.
    pub(super) async fn judge(&self, permit: &mut StreamPermit, times: &mut StreamTimes) -> Result<(), StreamEnd> {
        if let Some(look) = &mut times.certificate {
            look.next = Instant::now() + look.every;
            if self.admission.has_lapsed(&look.used) {
                return Err(StreamEnd::CertificateLapsed);
            }
        }
        match self.traffic.ends_streams() {
            true => Err(StreamEnd::GatewayStops),
            false => self.pipeline.judge_stream(permit).await,
        }
    }

    /// Asks a server, and waits for the head of its answer.
    async fn open_stream(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        permit: &mut StreamPermit,
        times: &mut StreamTimes,
    ) -> Result<(ServerStream, Box<ResponseHeader>), StreamStop> {
        permit.begins().await;
        self.judge(permit, times).await?;
        let mut http2 = ctx.upstream(&self.upstreams)?.servers.shares_streams() && !opens_websocket(session, ctx);
        let mut server = loop {
            match self.ask_server(session, ctx, permit, times, &mut http2).await {
                Ok(server) => break server,
                Err(StreamStop::Failed(error)) if error.retry() && ctx.attempts < MAX_ATTEMPTS => {}
                Err(stop) => return Err(stop),
            }
        };
        let response = Box::new(self.final_head(session, ctx, permit, times, &mut server).await?);
        Ok((server, response))
    }

    /// Passes the head of an answer on.
    async fn begin_answer(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        permit: &mut StreamPermit,
        times: &mut StreamTimes,
        mut response: Box<ResponseHeader>,
    ) -> Result<(), StreamStop> {
        let has_body = !matches!(response.status.as_u16(), 204 | 304);
        let is_open = has_body && !response.headers.contains_key(header::CONTENT_LENGTH);
        if is_open {
            // HTTP/2 servers send none. `finish_head` removes it for clients that know no chunks.
            response.insert_header(header::TRANSFER_ENCODING, "chunked")?;
            if is_old(session.req_header().version) {
                session.set_keepalive(None);
            }
        }
        if opens_websocket(session, ctx) {
            // The client may go on as if its handshake had succeeded.
            session.set_keepalive(None);
        }
        self.finish_head(session, &mut response, ctx).await?;
        if is_open && response.status.is_success() {
            let kept = self.keeper.begin_stream(session, ctx, response.status.as_u16()).await;
            kept.map_err(|NotRecorded| Error::explain(UNRECORDED, "the stream could not be recorded"))?;
        }
        if !self.pipeline.permits(permit) {
            self.judge(permit, times).await?;
        }
        session.write_response_header(response, !has_body).await.map_err(|error| error.into_down())?;
        Ok(())
    }

    /// Sends the request to a server. `http2` becomes false if it may be that the server does not speak that.
    async fn ask_server(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        permit: &mut StreamPermit,
        times: &mut StreamTimes,
        http2: &mut bool,
    ) -> Result<ServerStream, StreamStop> {
        let servers = &ctx.upstream(&self.upstreams)?.servers;
        let server = servers.choose(ctx.permit()?, ctx.server.as_deref(), Instant::now());
        let server = server.ok_or_else(|| {
            Error::explain(ErrorType::ConnectNoRoute, "no server of the upstream has an address").into_up()
        })?;
        ctx.attempts += 1;
        ctx.server = Some(server.clone());
        let peer = match opens_websocket(session, ctx) {
            true => ServerSet::websocket_peer(&server),
            false => ServerSet::stream_peer(&server, *http2),
        };
        let connected = self.upstreams.stream_connector().get_http_session(&*peer);
        let connected = self.unless_ended(session, permit, times, pin!(connected)).await?;
        let (mut asked, is_reused) = connected.map_err(|error| {
            servers.failed(&server, &self.metrics);
            // A server that speaks no HTTP/2 may end the connection before it is asked.
            *http2 &= !matches!(error.etype(), ErrorType::H2Error | ErrorType::HandshakeError);
            let mut error = ctx.with_server(error.into_up());
            error.set_retry(true);
            error
        })?;
        // An exchange of its own: a stream is not paired with its request by the order on a connection.
        ctx.exchange = ServerExchange::begin(None);
        let mut request = Box::new(self.rewrite_request(session.req_header(), ctx)?);
        match asked.as_http2() {
            None if opens_websocket(session, ctx) => offer_websocket(session.req_header(), &mut request)?,
            Some(_) => drop(request.remove_header(&header::CONNECTION)),
            None => request.insert_header(header::CONNECTION, "close")?,
        }
        let sent = async {
            asked.write_request_header(request).await?;
            asked.finish_request_body().await?;
            asked.read_response_header().await
        };
        let answered = self.unless_ended(session, permit, times, pin!(sent)).await?;
        if let Err(error) = answered {
            let mut error = ctx.with_server(error.into_up());
            // GET may be sent again, as long as no head has come. Some servers end a connection of HTTP/2 in silence.
            error.set_retry(true);
            *http2 &= is_reused;
            match is_no_http2(&error) {
                true => servers.shares_no_streams(),
                false if !is_reused => servers.failed(&server, &self.metrics),
                false => {}
            }
            return Err(error.into());
        }
        Ok(ServerStream { session: asked, peer })
    }

    /// The head of the final answer, checked as every answer of a server is.
    async fn final_head(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        permit: &mut StreamPermit,
        times: &mut StreamTimes,
        server: &mut ServerStream,
    ) -> Result<ResponseHeader, StreamStop> {
        loop {
            let head = server.session.response_header().cloned();
            let mut head =
                head.ok_or_else(|| Error::explain(ErrorType::ReadError, "an answer without a head").into_up())?;
            if head.status == StatusCode::SWITCHING_PROTOCOLS && opens_websocket(session, ctx) {
                return Ok(head);
            }
            Self::judge_answer(session, &mut head, ctx)?;
            if !head.status.is_informational() {
                return Ok(head);
            }
            let next = server.session.read_response_header();
            self.unless_ended(session, permit, times, pin!(next)).await?.map_err(|error| error.into_up())?;
        }
    }

    /// Ends a stream whose time or right is over.
    async fn end_stream(&self, session: &mut Session, ctx: &mut RequestContext, end: StreamEnd) -> Result<()> {
        ctx.stream_end = Some(end);
        self.metrics.connections.stream_ended(end.as_str());
        if final_status(session).is_none() {
            let ended = if end.asks_again() { GatewayAnswer::ended_stream(session) } else { None };
            if let Some(answer) = ended {
                return self.keeper.answer(session, ctx, answer.and_close()).await;
            }
            let answer = match end.answer() {
                AnswerCode::Unauthenticated => self.admission.challenge(),
                answer if answer.status() == 503 => {
                    GatewayAnswer::error(answer).with_header(header::RETRY_AFTER, RETRY_AFTER)
                }
                answer => GatewayAnswer::error(answer),
            };
            return self.keeper.answer(session, ctx, answer.and_close()).await;
        }
        session.set_keepalive(None);
        if end.is_orderly() {
            return Ok(());
        }
        if session.is_http2() {
            // A reset also drops what waits for the client's window; dropping the stream would send that first.
            session.as_downstream_mut().shutdown().await;
        }
        let error = Error::explain(BROKEN_OFF, end.as_str());
        Err(Error { esource: ErrorSource::Downstream, ..*error }.into())
    }
}

/// Whether a server has answered HTTP/2 in another language.
fn is_no_http2(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<h2::Error>();
    cause.is_some_and(|cause| cause.is_go_away() && cause.is_library())
}

/// Waits until a moment; for ever if there is none.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
