//! How fast bytes must move between a client and the gateway.
//!
//! The one rule: a client may keep the gateway waiting for one span of time between any so many bytes. What it moved
//! before earns it nothing, and what the gateway itself took its time for is not counted against it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// So many bytes within so much waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByteRate {
    span: Duration,
    bytes: u64,
}

/// Bytes that nobody can be woken for, held against a tempo by the clock alone.
pub(crate) struct UploadPace {
    tempo: ByteRate,
    moved: u64,
    until: Instant,
}

impl UploadPace {
    pub(crate) fn begin(tempo: ByteRate) -> Self {
        Self { tempo, moved: 0, until: Instant::now() + tempo.span }
    }

    /// When it is too slow, as far as is known now.
    pub(crate) fn until(&self) -> std::time::Instant {
        self.until.into_std()
    }

    pub(crate) fn is_too_slow(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Notes bytes that have moved; true if that gave it more time.
    pub(crate) fn moved(&mut self, bytes: u64) -> bool {
        self.moved = self.moved.saturating_add(bytes);
        let is_span = self.moved >= self.tempo.bytes;
        if is_span {
            (self.moved, self.until) = (0, Instant::now() + self.tempo.span);
        }
        is_span
    }
}

/// A client's bytes, held against a tempo.
pub(crate) struct ClientPace {
    tempo: ByteRate,
    moved: u64,
    /// What the client was waited for since so many bytes had moved.
    waited: Duration,
    /// Since when it is being waited for, and until when it may be.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl ByteRate {
    /// At least so many bytes a second, on the mean of a span.
    pub(crate) fn new(span: Duration, bytes_per_second: u64) -> Self {
        Self { span, bytes: bytes_per_second.saturating_mul(span.as_secs()).max(1) }
    }
}

impl ClientPace {
    pub(crate) fn new(tempo: ByteRate) -> Self {
        Self { tempo, moved: 0, waited: Duration::ZERO, waiting: None }
    }

    /// Notes bytes that have moved.
    pub(crate) fn moved(&mut self, bytes: u64) {
        if let Some((since, _)) = self.waiting.take() {
            self.waited += since.elapsed();
        }
        self.moved = self.moved.saturating_add(bytes);
        if self.moved >= self.tempo.bytes {
            (self.moved, self.waited) = (0, Duration::ZERO);
        }
    }

    /// To be asked while no byte moves: ready once the client has been waited for too long.
    pub(crate) fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let left = self.tempo.span.saturating_sub(self.waited);
        let (_, timer) = self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
        timer.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{advance, timeout};

    use super::*;

    const SPAN: Duration = Duration::from_secs(10);

    /// Whether a client that is silent for so long keeps its time.
    async fn may_be_silent(pace: &mut ClientPace, time: Duration) -> bool {
        timeout(time, poll_fn(|cx| pace.poll_too_slow(cx))).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_may_keep_us_waiting_one_span_between_so_many_bytes() {
        let mut pace = ClientPace::new(ByteRate::new(SPAN, 100));
        assert!(may_be_silent(&mut pace, Duration::from_secs(6)).await);
        pace.moved(999);
        assert!(may_be_silent(&mut pace, Duration::from_secs(3)).await);
        pace.moved(1);
        assert!(may_be_silent(&mut pace, Duration::from_secs(9)).await, "a new span");
        pace.moved(999);
        assert!(!may_be_silent(&mut pace, Duration::from_secs(2)).await, "the rest of it");
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_has_a_span_for_so_many_bytes() {
        let mut upload = UploadPace::begin(ByteRate::new(SPAN, 100));
        advance(SPAN / 2).await;
        assert!(!upload.moved(999) && !upload.is_too_slow());
        assert!(upload.moved(1));
        advance(SPAN - Duration::from_millis(1)).await;
        assert!(!upload.is_too_slow());
        advance(Duration::from_millis(1)).await;
        assert!(upload.is_too_slow());
    }

    #[tokio::test(start_paused = true)]
    async fn what_moved_before_earns_nothing_and_our_own_time_costs_nothing() {
        let mut pace = ClientPace::new(ByteRate::new(SPAN, 100));
        pace.moved(1 << 40);
        advance(SPAN * 100).await;
        assert!(may_be_silent(&mut pace, SPAN - Duration::from_secs(1)).await);
        assert!(!may_be_silent(&mut pace, Duration::from_secs(2)).await);
    }
}
