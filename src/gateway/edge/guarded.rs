//! The byte stream of an HTTP/1 client, guarded beneath pingora.
//!
//! The one rule: pingora never sees a byte of a head that was not read strictly and whole ([`crate::framing`]). A head
//! is held back until it is complete and checked; a body passes through while its framing is followed; what comes after
//! it is held back again as the next head. A client that breaks the rules, or keeps them waiting, is answered here.

mod facts;

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

use super::fault::EarlyFault;
use super::pace::{ByteRate, ClientPace};
use super::socket::ClientSocket;
use crate::observe::{KeptRecord, RecordDetail, RequestRecord, RequestRecorder};
use fedgate_core::framing::{BodyReader, FramingError, check_head, head_end, head_start, in_origin_form};
use fedgate_core::host::HostList;
use fedgate_core::network::client_network;

/// How long an answer to a broken request may take to be written.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What a client may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAllowance {
    /// Bytes of a head.
    pub(crate) head_bytes: usize,
    /// For a whole head, from its first byte.
    pub(crate) head: Duration,
    /// For a body.
    pub(crate) body: ByteRate,
    /// Whether pages of any origin may read the answers.
    pub(crate) any_origin: bool,
    /// Without a byte, before a request.
    pub(crate) idle: Duration,
    /// For an answer, once the client has closed its sending half.
    pub(crate) half_closed: Duration,
}

/// A client's stream, guarded.
pub(crate) struct StrictStream {
    inner: ClientSocket,
    phase: ReadPhase,
    /// Bytes of a head that is not complete, or that is and waits to be read.
    held: Vec<u8>,
    /// How many of `held` may be read.
    released: usize,
    allowed: ClientAllowance,
    /// The hosts that a target in absolute form may name beside `Host`.
    hosts: Arc<HostList>,
    timer: Option<Pin<Box<Sleep>>>,
    /// How long a client whose sending half is closed is waited for yet.
    half_closed: Option<Pin<Box<Sleep>>>,
    began: Instant,
    recorder: RequestRecorder,
    /// The record of a refusal, on its way to the disk.
    kept: Option<KeptRecord>,
}

enum ReadPhase {
    /// Between requests, or in a head.
    Head,
    /// In a body.
    Body(BodyReader, ClientPace),
    /// A request is there whole and is being answered: what comes meanwhile waits for its turn.
    Serving,
    /// The client broke the rules in a head: the answer, and how much of it is written.
    Answering(Vec<u8>, usize),
    /// Nothing more is read.
    Ended,
}

impl StrictStream {
    pub(crate) fn new(
        inner: ClientSocket,
        allowed: ClientAllowance,
        hosts: Arc<HostList>,
        recorder: RequestRecorder,
    ) -> Self {
        Self {
            inner,
            phase: ReadPhase::Head,
            held: Vec::new(),
            released: 0,
            allowed,
            hosts,
            timer: Some(Box::pin(tokio::time::sleep(allowed.idle))),
            half_closed: None,
            began: Instant::now(),
            recorder,
            kept: None,
        }
    }

    /// Takes in what was held back, as far as it is released.
    fn release(&mut self, out: &mut ReadBuf<'_>) {
        let count = self.released.min(out.remaining());
        out.put_slice(self.held.get(..count).unwrap_or_default());
        self.held.drain(..count);
        self.released -= count;
    }

    /// Looks at what is held: releases a head that is whole and right, and what belongs to its body.
    fn judge(&mut self) -> Result<(), FramingError> {
        let start = head_start(&self.held);
        let head = self.held.get(start..).unwrap_or_default();
        let Some(mut end) = head_end(head, self.allowed.head_bytes)? else { return Ok(()) };
        self.held.drain(..start);
        if let Some(origin) = in_origin_form(self.held.get(..end).unwrap_or_default(), &self.hosts)? {
            self.held.splice(..end, origin.iter().copied());
            end = origin.len();
        }
        let mut body = BodyReader::new(check_head(self.held.get(..end).unwrap_or_default())?);
        let taken = body.feed(self.held.get(end..).unwrap_or_default())?;
        self.released = end + taken;
        self.timer = None;
        self.phase = match body.is_done() {
            true => ReadPhase::Serving,
            false => ReadPhase::Body(body, ClientPace::new(self.allowed.body)),
        };
        Ok(())
    }

    /// Whether nothing of a head has come.
    fn is_silent(&self) -> bool {
        self.held.len() == head_start(&self.held)
    }

    fn begin_head(&mut self) {
        self.began = Instant::now();
        self.timer = Some(Box::pin(tokio::time::sleep(self.allowed.head)));
    }

    /// Refuses the request whose head is held. Nothing else is being answered: a head is read when its turn has come.
    fn refuse(&mut self, fault: EarlyFault) {
        let own_id = format!("{:032x}", rand::random::<u128>());
        let kept = self.keep(&own_id, fault, fault.status());
        let request_id = kept.request_id().unwrap_or(&own_id);
        let is_head = self.held.get(head_start(&self.held)..).is_some_and(|head| head.starts_with(b"HEAD "));
        self.phase = ReadPhase::Answering(fault.answer(request_id, self.allowed.any_origin, is_head), 0);
        self.kept = Some(kept);
        self.timer = Some(Box::pin(tokio::time::sleep(ANSWER_TIMEOUT)));
    }

    fn keep(&self, request_id: &str, fault: EarlyFault, status: u16) -> KeptRecord {
        let head = self.held.get(head_start(&self.held)..).unwrap_or_default();
        let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
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
                decision: "refuse",
                reason: fault.code(),
                lacks: None,
                status,
                duration: self.began.elapsed(),
                policy: "",
                trace_id: None,
                detail: RecordDetail::WithinRate(address.map(client_network)),
            },
            None,
        )
    }

    /// Writes the answer, closes, and ends the stream for pingora, which has seen nothing of the request.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ReadPhase::Answering(answer, written) = &mut self.phase else { return Poll::Ready(Ok(())) };
        while let Some(rest) = answer.get(*written..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.inner).poll_write(cx, rest) {
                Poll::Ready(Ok(count @ 1..)) => *written += count,
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

    /// Reads until a head is released; false when there will be none.
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
        match self.poll_timer(cx) {
            // A client that sent nothing is let go silently; one that dawdles is told.
            Poll::Ready(()) if self.is_silent() => {
                self.recorder.metrics().ended("idle");
                self.phase = ReadPhase::Ended;
                Poll::Ready(Ok(false))
            }
            Poll::Ready(()) => {
                self.recorder.metrics().ended("head");
                self.refuse(EarlyFault::HeadTooSlow);
                self.poll_refused(cx).map_ok(|()| false)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Waits for the next request; false when there will be none.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if let ReadPhase::Serving = self.phase
            && self.released == 0
        {
            self.phase = ReadPhase::Head;
            self.half_closed = None;
            self.timer = Some(Box::pin(tokio::time::sleep(self.allowed.idle)));
            // What came while the request before was served is the next one, or its beginning.
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
            // A body that nobody read to its end is followed by nothing.
            ReadPhase::Serving | ReadPhase::Body(..) | ReadPhase::Ended => Poll::Ready(Ok(self.released > 0)),
        }
    }

    /// Keeps what comes before its turn, a head of it at most; ready when the client has gone. That one has gone who sent
    /// more is seen when it is written to.
    ///
    /// A client that has closed its sending half may wait for the answer (netcat does, and some probes), or have gone: TCP tells
    /// no difference. So it is waited for, a while.
    fn poll_meanwhile(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut block = [0u8; 4096];
        while self.half_closed.is_none() && self.held.len() <= self.allowed.head_bytes {
            let mut fresh = ReadBuf::new(&mut block);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut fresh)) {
                Ok(()) if !fresh.filled().is_empty() => self.held.extend_from_slice(fresh.filled()),
                // TLS without a word of goodbye ends as such; of a request that is there whole, nothing was cut off.
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Poll::Ready(Err(error)),
                Ok(()) | Err(_) => self.half_closed = Some(Box::pin(tokio::time::sleep(self.allowed.half_closed))),
            }
        }
        match &mut self.half_closed {
            Some(timer) => timer.as_mut().poll(cx).map(Ok),
            None => Poll::Pending,
        }
    }

    /// Answers a refused request, once that is on record, for as long as that may take.
    fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.poll_timer(cx).is_ready() {
            self.phase = ReadPhase::Ended;
            return Poll::Ready(Ok(()));
        }
        if let Some(kept) = &mut self.kept {
            let is_kept = ready!(Pin::new(kept).poll(cx));
            self.kept = None;
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
        if Pin::new(&mut self.inner).poll_read(cx, out)?.is_pending() {
            ready!(pace.poll_too_slow(cx));
            self.recorder.metrics().ended("body");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the body came too slowly")));
        }
        let fresh = out.filled().get(before..).unwrap_or_default();
        match body.feed(fresh) {
            Ok(taken) => {
                pace.moved(taken as u64);
                self.held.extend_from_slice(fresh.get(taken..).unwrap_or_default());
                out.set_filled(before + taken);
                if body.is_done() {
                    self.phase = ReadPhase::Serving;
                }
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                // Nothing of the rest is passed on: the request fails, and with it the connection.
                out.set_filled(before);
                self.phase = ReadPhase::Ended;
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)))
            }
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

/// The peer's address; none on a Unix socket.
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
            ReadPhase::Serving => self.poll_meanwhile(cx),
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

/// Bytes are shown to nobody before they are judged; but whoever holds the stream may wait for the next request.
#[async_trait]
impl Peek for StrictStream {
    async fn try_peek(&mut self, _bytes: &mut [u8]) -> io::Result<bool> {
        poll_fn(|cx| self.poll_request(cx)).await
    }
}
