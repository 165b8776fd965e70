//! WebSockets: the handshake, and the bytes that pass both ways afterwards.
//!
//! The one rule: the connection of a client changes its protocol once, by one judged request, and only between two
//! answers that say the same: that of the service, and that of the gateway. No byte that came before passes, and from
//! then on none passes in either direction unless the permit is found good at that moment, as for every stream
//! ([`super::stream`]).
//!
//! Called by [`super::stream`] for requests whose route serves streams.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Instant;

use futures_util::FutureExt;
use http::{Version, header};
use pingora_core::protocols::http::v1::client::HttpSession as ServerSession;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::context::{RequestContext, UNRECORDED};
use super::proxy::GatewayProxy;
use super::recording::NotRecorded;
use super::request::facts;
use super::stream_times::{StreamStop, StreamTimes};
use super::websocket_frames::{FrameBoundary, closing_frame};
use crate::gateway::edge::client_socket::ClientSocket;
use crate::pipeline::StreamPermit;
use fedgate_core::admission::{WEBSOCKET_CHOSEN, WebSocketOffer};
use fedgate_core::codes::AnswerCode;
use fedgate_core::reasons::StreamEnd;

/// Most bytes of one direction that wait here.
const PIECE_BYTES: usize = 8 * 1024;

/// The bytes of one direction that wait to be passed on.
struct WaitingPiece {
    bytes: Vec<u8>,
    passed: usize,
    /// Whether all that was passed on has left this program.
    is_flushed: bool,
    has_ended: bool,
    /// When something moved last.
    moved: Instant,
}

/// Whether a passed request opens a WebSocket.
pub(super) fn opens_websocket(session: &Session, ctx: &RequestContext) -> bool {
    let head = session.req_header();
    // Its handshake was checked when it was admitted. HTTP/1.0 has no upgrade, and ignores the header.
    head.version == Version::HTTP_11
        && ctx.permit().is_ok_and(|permit| permit.opens_websockets())
        && WebSocketOffer::of(&head.method, &head.headers).is_some()
}

/// Adds the handshake of the client to the request that is forwarded.
pub(super) fn offer_websocket(client: &RequestHeader, request: &mut RequestHeader) -> Result<()> {
    request.insert_header(header::CONNECTION, "Upgrade")?;
    request.insert_header(header::UPGRADE, "websocket")?;
    for name in WEBSOCKET_CHOSEN {
        for value in client.headers.get_all(&name) {
            request.append_header(name.clone(), value)?;
        }
    }
    Ok(())
}

/// Whether bytes have come behind the handshake. A client sends none before the answer (RFC 6455, 4.1); a second request
/// there would reach the service as data of the first one.
pub(super) async fn came_too_early(session: &mut Session) -> bool {
    // Lets the strict reader look. A client that has gone is noticed later.
    let _ = session.as_downstream_mut().read_body_or_idle(true).now_or_never();
    facts(session).is_none_or(|facts| facts.door.has_early_bytes())
}

impl GatewayProxy {
    /// Serves a WebSocket whose service has answered, to its end.
    pub(super) async fn run_websocket(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
        permit: &mut StreamPermit,
        times: &mut StreamTimes,
        mut server: ServerSession,
    ) -> Result<(), StreamStop> {
        let answer = self.accepted(session, ctx, &server)?;
        if came_too_early(session).await {
            let error = Error::explain(ErrorType::Custom(AnswerCode::BadWebSocket.code()), "bytes before the answer");
            return Err(error.into_down().into());
        }
        let kept = self.keeper.begin_stream(session, ctx, answer.status.as_u16()).await;
        kept.map_err(|NotRecorded| Error::explain(UNRECORDED, "the stream could not be recorded"))?;
        if !self.pipeline.permits(permit) {
            self.judge(permit, times).await?;
        }
        session.write_response_header(Box::new(answer), false).await.map_err(|error| error.into_down())?;
        let client = take_connection(session)?;
        // What the service has sent in the same packet as its answer.
        let first = match server.read_body_bytes().now_or_never() {
            Some(Ok(Some(first))) => first.to_vec(),
            Some(Ok(None)) | None => vec![],
            Some(Err(error)) => return Err(ctx.with_server(error.into_up()).into()),
        };
        self.pass_frames(*client, server.into_inner(), first, permit, times).await
    }

    /// The answer to the client, made of the service's.
    fn accepted(&self, session: &Session, ctx: &mut RequestContext, server: &ServerSession) -> Result<ResponseHeader> {
        let head = session.req_header();
        let offer = WebSocketOffer::of(&head.method, &head.headers).and_then(Result::ok);
        let answer = server.resp_header();
        let accepted = offer.zip(answer).filter(|(offer, answer)| offer.is_accepted_by(&answer.headers));
        let Some((_, accepted)) = accepted else {
            let what = "a change of protocol that does not fit the handshake";
            return Err(ctx.with_server(Error::explain(ErrorType::InvalidHTTPHeader, what).into_up()));
        };
        ctx.exchange.check(accepted)?;
        let mut response = ResponseHeader::build(101, Some(8))?;
        response.insert_header(header::UPGRADE, "websocket")?;
        response.insert_header(header::CONNECTION, "Upgrade")?;
        let told = [header::SEC_WEBSOCKET_ACCEPT, header::SEC_WEBSOCKET_PROTOCOL, header::SEC_WEBSOCKET_EXTENSIONS];
        for name in told {
            for value in accepted.headers.get_all(&name) {
                response.append_header(name.clone(), value)?;
            }
        }
        ctx.identify(&mut response)?;
        Ok(response)
    }

    /// Passes bytes both ways until one side ends, or the stream has to.
    async fn pass_frames(
        &self,
        client: ClientSocket,
        server: impl AsyncRead + AsyncWrite + Send + Unpin,
        first: Vec<u8>,
        permit: &mut StreamPermit,
        times: &mut StreamTimes,
    ) -> Result<(), StreamStop> {
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let (mut from_server, mut to_server) = tokio::io::split(server);
        let (mut up, mut down) = (WaitingPiece::of(vec![]), WaitingPiece::of(first));
        let (mut frames, mut is_woken) = (FrameBoundary::default(), false);
        loop {
            let judged = self.may_pass(permit, times, is_woken).await;
            if let Err(end) = judged.and_then(|()| is_in_time(times, &up, &down)) {
                if frames.is_between_frames() && down.is_flushed {
                    let closed = async {
                        to_client.write_all(&closing_frame(end)).await?;
                        to_client.shutdown().await
                    };
                    // As far as it needs no waiting: the end itself may not wait for the client.
                    let _ = closed.now_or_never();
                }
                return Err(end.into());
            }
            // What one side has sent before its end is still passed on, and then the other side ends, too.
            if up.is_over() || down.is_over() {
                let _ = to_client.shutdown().now_or_never();
                return Ok(());
            }
            is_woken = false;
            let wake = times.wake(if up.waits() { up.moved } else { up.moved.max(down.moved) });
            tokio::select! {
                () = permit.changed() => is_woken = true,
                moved = up.move_on(&mut from_client, &mut to_server) => moved.map(|_| ()).map_err(of_server)?,
                moved = down.move_on(&mut from_server, &mut to_client) => {
                    frames.feed(down.bytes.get(moved.map_err(of_client)?).unwrap_or_default());
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }
}

/// Whether a WebSocket has not run for too long, and something moves.
fn is_in_time(times: &StreamTimes, up: &WaitingPiece, down: &WaitingPiece) -> Result<(), StreamEnd> {
    let now = Instant::now();
    if times.end.is_some_and(|end| now >= end) {
        return Err(StreamEnd::StreamTooLong);
    }
    let is_late = |since: Instant| now >= since + times.silence;
    // A slow client is ended by its socket; nothing else ends a service that takes nothing.
    match up.waits() && is_late(up.moved) {
        true => Err(StreamEnd::UpstreamSilent),
        false if is_late(up.moved.max(down.moved)) => Err(StreamEnd::Idle),
        false => Ok(()),
    }
}

/// The client's connection, out of HTTP.
fn take_connection(session: &mut Session) -> Result<Box<ClientSocket>> {
    let lost = || Error::explain(ErrorType::InternalError, "a connection that cannot change its protocol");
    facts(session).ok_or_else(lost)?.door.ask();
    // The strict reader hands it over, and ends.
    let _ = session.as_downstream_mut().read_body_or_idle(true).now_or_never();
    let taken = facts(session).ok_or_else(lost)?.door.take();
    // Otherwise the client has sent something at this very moment, or has gone.
    taken.ok_or_else(|| Error::explain(ErrorType::ConnectionClosed, "the client has gone").into_down())
}

fn of_client(error: io::Error) -> Box<Error> {
    Error::because(ErrorType::WriteError, "a WebSocket", error).into_down()
}

fn of_server(error: io::Error) -> Box<Error> {
    Error::because(ErrorType::ConnectionClosed, "a WebSocket", error).into_down()
}

impl WaitingPiece {
    fn of(bytes: Vec<u8>) -> Self {
        Self { bytes, passed: 0, is_flushed: true, has_ended: false, moved: Instant::now() }
    }

    fn is_empty(&self) -> bool {
        self.passed == self.bytes.len()
    }

    /// Whether something waits for the receiver.
    fn waits(&self) -> bool {
        !self.is_empty() || !self.is_flushed
    }

    fn is_over(&self) -> bool {
        self.has_ended && !self.waits()
    }

    /// Takes one step: writes what waits, or sends it off, or reads more. Returns where the bytes are that were
    /// written. Dropped before its end, it has done nothing.
    async fn move_on(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<Range<usize>> {
        if let Some(rest) = self.bytes.get(self.passed..).filter(|rest| !rest.is_empty()) {
            let count = match to.write(rest).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => count,
            };
            let written = self.passed..self.passed + count;
            self.passed += count;
            (self.is_flushed, self.moved) = (false, Instant::now());
            return Ok(written);
        }
        if !self.is_flushed {
            to.flush().await?;
            (self.is_flushed, self.moved) = (true, Instant::now());
            return Ok(0..0);
        }
        if self.has_ended {
            std::future::pending::<()>().await;
        }
        // A silent WebSocket holds no buffer.
        (self.bytes, self.passed) = (Vec::new(), 0);
        let bytes = &mut self.bytes;
        poll_fn(|cx| {
            // On the stack, and only while something is read.
            let mut block = [0; PIECE_BYTES];
            let mut fresh = ReadBuf::new(&mut block);
            // The end of a connection, in whichever way, is the end of a WebSocket.
            let _ = ready!(Pin::new(&mut *from).poll_read(cx, &mut fresh));
            bytes.extend_from_slice(fresh.filled());
            Poll::Ready(())
        })
        .await;
        (self.has_ended, self.moved) = (self.bytes.is_empty(), Instant::now());
        Ok(0..0)
    }
}
