//! The strict HTTP/1 reader beneath pingora, one for each connection.
//!
//! The one rule: pingora never sees a byte of a head that was not read strictly and whole
//! ([`fedgate_core::framing`]). A head is held back until it is complete and checked. Its body passes through while
//! the framing is followed, and the bytes after it are held back again as the next head. A client that breaks the
//! framing, or is too slow, is answered or closed here.

mod stream_traits;

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::{GetSocketDigest, Peek};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::client_socket::ClientSocket;
use super::deadline::MovingDeadline;
use super::early_fault::EarlyFault;
use super::pace::{ByteRate, ClientPace};
use super::tunnel_door::TunnelDoor;
use crate::gateway::plain_text::random_hexadecimal;
use crate::observe::{KeptRecord, RecordDetail, RequestRecord, RequestRecorder};
use fedgate_core::admission::{HeldHead, screen_bytes};
use fedgate_core::framing::{BodyReader, FramingError, head_start};
use fedgate_core::host::HostList;
use fedgate_core::network::client_network;
use fedgate_core::reasons::RecordDecision;

/// How long the answer to a refused head may take to be written.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The limits of one client connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientLimits {
    /// Longest head, in bytes.
    pub(crate) head_bytes: usize,
    /// Time for a whole head, from its first byte.
    pub(crate) head: Duration,
    /// Slowest pace of a body.
    pub(crate) body: ByteRate,
    /// Whether pages of any origin may read the answers (CORS).
    pub(crate) any_origin: bool,
    /// Time without a byte before a request.
    pub(crate) idle: Duration,
    /// Time for an answer after the client has closed its sending half.
    pub(crate) half_closed: Duration,
}

/// A client's stream, read strictly.
pub(crate) struct StrictStream {
    inner: ClientSocket,
    phase: ReadPhase,
    /// Bytes of an incomplete head, or of a complete one that pingora has not read yet.
    held: Vec<u8>,
    /// How many bytes of `held` pingora may read.
    released: usize,
    allowed: ClientLimits,
    /// The hosts that a target in absolute form may name beside `Host`.
    hosts: Arc<HostList>,
    /// The end of the client's time: for a head, or for silence.
    deadline: MovingDeadline,
    /// The remaining time of a client that has closed its sending half.
    half_closed: Option<Pin<Box<Sleep>>>,
    began: Instant,
    recorder: RequestRecorder,
    /// The record of a refusal, until it is on disk.
    kept: Option<KeptRecord>,
}

enum ReadPhase {
    /// Between requests, or in a head.
    Head,
    /// In a body.
    Body(BodyReader, ClientPace),
    /// A whole request was read and is being answered. Bytes that arrive meanwhile wait for their turn.
    Serving,
    /// A head was refused: the answer, and how much of it is written.
    Answering(Vec<u8>, usize),
    /// Nothing more is read.
    Ended,
}

impl StrictStream {
    pub(crate) fn new(
        inner: ClientSocket,
        allowed: ClientLimits,
        hosts: Arc<HostList>,
        recorder: RequestRecorder,
    ) -> Self {
        let mut deadline = MovingDeadline::default();
        deadline.begin(allowed.idle);
        Self {
            inner,
            phase: ReadPhase::Head,
            held: Vec::new(),
            released: 0,
            allowed,
            hosts,
            deadline,
            half_closed: None,
            began: Instant::now(),
            recorder,
            kept: None,
        }
    }

    /// Hands released bytes to pingora.
    fn release(&mut self, out: &mut ReadBuf<'_>) {
        let count = self.released.min(out.remaining());
        out.put_slice(self.held.get(..count).unwrap_or_default());
        self.held.drain(..count);
        self.released -= count;
    }

    /// Checks the held bytes: releases a head that is whole and has one reading, and the bytes of its body.
    fn judge(&mut self) -> Result<(), FramingError> {
        let Some(HeldHead { end, body }) = screen_bytes(&mut self.held, self.allowed.head_bytes, &self.hosts)? else {
            return Ok(());
        };
        let mut body = BodyReader::new(body);
        let taken = body.feed(self.held.get(end..).unwrap_or_default())?;
        // Only this request is released. A pipelined request stays in `held`, so that pingora cannot read two at
        // once.
        self.released = end + taken;
        self.deadline.end();
        self.phase = match body.is_done() {
            true => ReadPhase::Serving,
            false => ReadPhase::Body(body, ClientPace::new(self.allowed.body)),
        };
        Ok(())
    }

    /// Whether no byte of a head has arrived.
    fn is_silent(&self) -> bool {
        self.held.len() == head_start(&self.held)
    }

    fn begin_head(&mut self) {
        // One deadline for the whole head: a client that sends a byte now and then gains no time (Slowloris).
        self.began = Instant::now();
        self.deadline.begin(self.allowed.head);
    }

    /// Refuses the request whose head is held. No other answer is being written: a head is read only when its turn
    /// has come.
    fn refuse(&mut self, fault: EarlyFault) {
        // The headers of a refused head are not read, so a request id that the client chose is unknown.
        let own_id = random_hexadecimal::<16>();
        let kept = self.keep(&own_id, fault);
        let request_id = kept.request_id().unwrap_or(&own_id);
        let is_head = self.held.get(head_start(&self.held)..).is_some_and(|head| head.starts_with(b"HEAD "));
        self.phase = ReadPhase::Answering(fault.answer(request_id, self.allowed.any_origin, is_head), 0);
        self.kept = Some(kept);
        self.deadline.begin(ANSWER_TIMEOUT);
    }

    fn keep(&self, request_id: &str, fault: EarlyFault) -> KeptRecord {
        let head = self.held.get(head_start(&self.held)..).unwrap_or_default();
        let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        // The bound of a record: a request line may be as long as a head.
        let line = String::from_utf8_lossy(line.get(..line.len().min(2048)).unwrap_or_default()).into_owned();
        let mut parts = line.split(' ');
        let (method, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let address = client_ip(&self.inner);
        let client = address.map(|ip| ip.to_string()).unwrap_or_default();
        self.recorder.keep(
            &RequestRecord {
                time: SystemTime::now(),
                request_id,
                client_request_id: None,
                client: &client,
                method,
                path: target.split('?').next().unwrap_or_default(),
                account: None,
                roles: &[],
                endpoint: "",
                subject: None,
                same_person: false,
                related: false,
                decision: RecordDecision::Refuse,
                reason: fault.code().into(),
                lacks: None,
                status: fault.code().status(),
                duration: self.began.elapsed(),
                is_stream: false,
                policy: "",
                trace_id: None,
                detail: RecordDetail::WithinRate(address.map(client_network)),
            },
            None,
        )
    }

    /// Writes the answer, closes the connection, and ends the stream for pingora, which has seen no byte of the
    /// request.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ReadPhase::Answering(answer, written) = &mut self.phase else { return Poll::Ready(Ok(())) };
        while let Some(rest) = answer.get(*written..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.inner).poll_write(cx, rest) {
                Poll::Ready(Ok(count @ 1..)) => *written += count,
                // The client is gone or takes no bytes. The refusal is already on record.
                Poll::Ready(_) => {
                    self.phase = ReadPhase::Ended;
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        let _ = ready!(Pin::new(&mut self.inner).poll_flush(cx));
        let _ = ready!(Pin::new(&mut self.inner).poll_shutdown(cx));
        self.phase = ReadPhase::Ended;
        Poll::Ready(Ok(()))
    }

    /// Reads until a head is released; false if none will come.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut block = [0u8; 4096];
        loop {
            let mut fresh = ReadBuf::new(&mut block);
            match Pin::new(&mut self.inner).poll_read(cx, &mut fresh) {
                Poll::Ready(Ok(())) if fresh.filled().is_empty() => return Poll::Ready(Ok(false)),
                Poll::Ready(Ok(())) => {
                    let was_silent = self.is_silent();
                    self.held.extend_from_slice(fresh.filled());
                    if was_silent && !self.is_silent() {
                        self.begin_head();
                    }
                    if let Err(error) = self.judge() {
                        self.refuse(EarlyFault::Framing(error));
                        return self.poll_refused(cx).map_ok(|()| false);
                    }
                    if self.released > 0 {
                        return Poll::Ready(Ok(true));
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        match self.deadline.poll(cx) {
            // A silent client gets no answer: browsers open spare connections, and close them unused. A slow head
            // gets 408.
            Poll::Ready(()) if self.is_silent() => {
                self.recorder.metrics().connections.ended("idle");
                self.phase = ReadPhase::Ended;
                Poll::Ready(Ok(false))
            }
            Poll::Ready(()) => {
                self.recorder.metrics().connections.ended("head");
                self.refuse(EarlyFault::HeadTooSlow);
                self.poll_refused(cx).map_ok(|()| false)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Waits for the next request; false if none will come.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if let ReadPhase::Serving = self.phase
            && self.released == 0
        {
            self.phase = ReadPhase::Head;
            self.half_closed = None;
            // They are a request of their own now.
            if let Some(door) = self.inner.door() {
                door.note_early_bytes(false);
            }
            self.deadline.begin(self.allowed.idle);
            // Bytes that arrived during the previous request are the next head, or its beginning.
            if !self.is_silent() {
                self.begin_head();
                if let Err(error) = self.judge() {
                    self.refuse(EarlyFault::Framing(error));
                }
            }
        }
        match &self.phase {
            ReadPhase::Head => self.poll_head(cx),
            ReadPhase::Answering(..) => self.poll_refused(cx).map_ok(|()| false),
            // The rest of an unread body would be taken for the next head, so nothing follows it.
            ReadPhase::Serving | ReadPhase::Body(..) | ReadPhase::Ended => Poll::Ready(Ok(self.released > 0)),
        }
    }

    /// Holds back bytes that arrive before their turn, one head of them at most; ready when the client has gone. If
    /// the client pipelined more data, a disconnect shows only on the next write.
    ///
    /// A client that has closed its sending half may wait for the answer (netcat does, and some probes), or may
    /// have gone. TCP does not tell the two apart, so the answer has a limited time.
    fn poll_meanwhile(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut block = [0u8; 4096];
        while self.half_closed.is_none() && self.held.len() <= self.allowed.head_bytes {
            let mut fresh = ReadBuf::new(&mut block);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut fresh)) {
                Ok(()) if !fresh.filled().is_empty() => self.held.extend_from_slice(fresh.filled()),
                // TLS that ends without close_notify. The request is whole, so nothing of it was truncated.
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Poll::Ready(Err(error)),
                Ok(()) | Err(_) => self.half_closed = Some(Box::pin(tokio::time::sleep(self.allowed.half_closed))),
            }
        }
        match &mut self.half_closed {
            Some(timer) => timer.as_mut().poll(cx).map(Ok),
            None => Poll::Pending,
        }
    }

    /// The same, for an exchange that may ask for the connection: it is handed over, and ends here.
    fn poll_served(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_asked = self.inner.door().is_some_and(TunnelDoor::is_asked);
        // INVARIANT: nothing is held then. The exchange asks only where no byte has come behind the request.
        if is_asked && self.held.is_empty() {
            let leaving = self.inner.depart();
            if let Some(door) = self.inner.door() {
                door.give(leaving);
            }
            self.phase = ReadPhase::Ended;
            return Poll::Ready(Ok(()));
        }
        let poll = self.poll_meanwhile(cx);
        if let Some(door) = self.inner.door().filter(|_| !self.held.is_empty()) {
            door.note_early_bytes(true);
        }
        poll
    }

    /// Answers a refused request after it is on record, within `ANSWER_TIMEOUT`.
    fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deadline.poll(cx).is_ready() {
            self.phase = ReadPhase::Ended;
            return Poll::Ready(Ok(()));
        }
        if let Some(kept) = &mut self.kept {
            let is_kept = ready!(Pin::new(kept).poll(cx));
            self.kept = None;
            // A refusal that cannot be recorded is not answered: the connection just ends.
            if !is_kept {
                self.phase = ReadPhase::Ended;
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_answer(cx)
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ReadPhase::Body(body, pace) = &mut self.phase else { return Poll::Ready(Ok(())) };
        let before = out.filled().len();
        // The pace runs only from a read that finds no byte. A body that waits for the upstream costs its client
        // nothing.
        if Pin::new(&mut self.inner).poll_read(cx, out)?.is_pending() {
            ready!(pace.poll_too_slow(cx));
            self.recorder.metrics().connections.ended("body");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the body came too slowly")));
        }
        let fresh = out.filled().get(before..).unwrap_or_default();
        match body.feed(fresh) {
            Ok(taken) => {
                pace.moved(taken as u64);
                // Request smuggling: bytes behind the body are the next head and must not travel as a part of this
                // body.
                self.held.extend_from_slice(fresh.get(taken..).unwrap_or_default());
                out.set_filled(before + taken);
                if body.is_done() {
                    self.phase = ReadPhase::Serving;
                }
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                // Bytes behind a framing error have no meaning. None is passed on, and the request and its
                // connection fail.
                out.set_filled(before);
                self.phase = ReadPhase::Ended;
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)))
            }
        }
    }
}

/// The client's address; none on a Unix socket.
fn client_ip(stream: &ClientSocket) -> Option<IpAddr> {
    match stream.get_socket_digest()?.peer_addr() {
        Some(SocketAddr::Inet(address)) => Some(address.ip()),
        _ => None,
    }
}

impl AsyncRead for StrictStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.released > 0 {
            self.release(out);
            return Poll::Ready(Ok(()));
        }
        match &self.phase {
            ReadPhase::Head => {
                if ready!(self.poll_head(cx)?) {
                    self.release(out);
                }
                Poll::Ready(Ok(()))
            }
            ReadPhase::Body(..) => self.poll_body(cx, out),
            ReadPhase::Serving => self.poll_served(cx),
            ReadPhase::Answering(..) => self.poll_refused(cx),
            ReadPhase::Ended => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for StrictStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// Never shows a byte before it was checked; only lets the caller wait for the next request.
#[async_trait]
impl Peek for StrictStream {
    async fn try_peek(&mut self, _bytes: &mut [u8]) -> io::Result<bool> {
        poll_fn(|cx| self.poll_request(cx)).await
    }
}
