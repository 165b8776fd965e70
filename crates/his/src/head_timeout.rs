//! The time limits of heads: a connection whose head does not arrive is closed, and an idle one is kept for a
//! gateway.
//!
//! The one rule: the limit of a head runs from its first byte, and for the first head of a connection from the
//! moment the connection opened. Before the next head begins, a kept connection may be silent for longer than
//! gateways keep one. If this side closed first, a write that is already on its way would fail.
//!
//! hyper runs its limit from the end of the last request, idle time included. So it is given a timer that looks
//! at the bytes read instead. Called by `listen`.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use fedgate_base::config::HeadsConfig;

/// A connection that counts its reads.
pub(super) struct CountedReads<S> {
    stream: S,
    reads: Arc<AtomicU64>,
    silence: Arc<HeadSilence>,
}

impl<S> CountedReads<S> {
    /// The connection, and the timer for its heads. Both keep `silence` up to date.
    ///
    /// The connection opened at `opened`, from which the limit of its first head counts.
    pub(super) fn new(
        stream: S,
        limits: HeadsConfig,
        opened: Instant,
        silence: &Arc<HeadSilence>,
    ) -> (Self, HeadTimer) {
        let reads = Arc::new(AtomicU64::new(0));
        let is_begun = AtomicBool::new(false);
        let timer = HeadTimer { reads: Arc::clone(&reads), limits, opened, is_begun, silence: Arc::clone(silence) };
        (Self { stream, reads, silence: Arc::clone(silence) }, timer)
    }
}

/// Since when a connection has been waiting for a head of which no byte has arrived.
#[derive(Default)]
pub(super) struct HeadSilence(Mutex<Option<Instant>>);

impl HeadSilence {
    /// Since when the connection is silent; `None` while it is not.
    pub(super) fn since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection is silent from now on.
    pub(super) fn begins(&self) {
        self.becomes(Some(Instant::now()));
    }

    /// The connection is not silent any more.
    pub(super) fn ends(&self) {
        self.becomes(None);
    }

    fn becomes(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedReads<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = bytes.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, bytes));
        if bytes.filled().len() > before {
            self.reads.fetch_add(1, Ordering::Relaxed);
            // Any byte ends the silence: a connection with half a head is not closed to make room.
            self.silence.becomes(None);
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountedReads<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The timer of one connection. hyper sets it each time it begins to wait for a head.
pub(super) struct HeadTimer {
    reads: Arc<AtomicU64>,
    limits: HeadsConfig,
    opened: Instant,
    /// Whether the connection has waited for a head before.
    is_begun: AtomicBool,
    silence: Arc<HeadSilence>,
}

impl Timer for HeadTimer {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now())
    }

    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Sleep>> {
        // The deadline that hyper asks for is ignored: it counts idle time against the head.
        let is_kept = self.is_begun.swap(true, Ordering::Relaxed);
        self.silence.becomes(Some(Instant::now()));
        let first = self.limits.timeout.saturating_sub(self.opened.elapsed());
        let limit = if is_kept { self.limits.idle } else { first };
        Box::pin(HeadSleep {
            reads: Arc::clone(&self.reads),
            before: self.reads.load(Ordering::Relaxed),
            head: is_kept.then_some(self.limits.timeout),
            sleep: Box::pin(tokio::time::sleep(limit)),
        })
    }
}

/// Completes when a head has taken too long.
struct HeadSleep {
    reads: Arc<AtomicU64>,
    /// The number of reads when the wait began.
    before: u64,
    /// The limit that starts with the head's first byte; `None` once it runs.
    head: Option<Duration>,
    sleep: Pin<Box<tokio::time::Sleep>>,
}

impl Sleep for HeadSleep {}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.reads.load(Ordering::Relaxed) != self.before
            && let Some(head) = self.head.take()
        {
            // The idle time ends with the first byte, and a slow head has its own limit from here.
            self.sleep.as_mut().reset(tokio::time::Instant::now() + head);
        }
        self.sleep.as_mut().poll(context)
    }
}
