//! The pace of bytes between a client and the gateway.
//!
//! The one rule: a client may keep the gateway waiting for one span of time per quota of bytes. Earlier bytes earn
//! it nothing, and the time that the gateway itself takes is not counted against it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// A quota of bytes, and the waiting time that it may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByteRate {
    span: Duration,
    bytes: u64,
}

/// The pace of a transfer whose task cannot be woken, an upload or an answer: measured by the clock alone.
pub(crate) struct TransferPace {
    tempo: ByteRate,
    moved: u64,
    until: Instant,
}

impl TransferPace {
    pub(crate) fn begin(tempo: ByteRate) -> Self {
        Self { tempo, moved: 0, until: Instant::now() + tempo.span }
    }

    /// When the transfer will be too slow, unless more bytes arrive.
    pub(crate) fn until(&self) -> std::time::Instant {
        self.until.into_std()
    }

    pub(crate) fn is_too_slow(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Counts bytes; true if they completed a quota and so began a new span.
    pub(crate) fn moved(&mut self, bytes: u64) -> bool {
        self.moved = self.moved.saturating_add(bytes);
        let is_span = self.moved >= self.tempo.bytes;
        if is_span {
            // Back to zero instead of a credit: one fast burst must not pay for a long silence later.
            (self.moved, self.until) = (0, Instant::now() + self.tempo.span);
        }
        is_span
    }
}

/// The pace of a client's bytes, measured by the time that the gateway waits for them.
pub(crate) struct ClientPace {
    tempo: ByteRate,
    moved: u64,
    /// How long the gateway has waited since the last full quota.
    waited: Duration,
    /// When the current wait began, and its timer.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl ByteRate {
    /// At least so many bytes a second, as a mean over a span.
    pub(crate) fn new(span: Duration, bytes_per_second: u64) -> Self {
        let milliseconds = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self { span, bytes: (bytes_per_second.saturating_mul(milliseconds) / 1000).max(1) }
    }

    /// The same rate, as a mean over another span.
    pub(crate) fn over(self, span: Duration) -> Self {
        let part = u128::from(self.bytes) * span.as_millis() / self.span.as_millis().max(1);
        Self { span, bytes: u64::try_from(part).unwrap_or(u64::MAX).max(1) }
    }
}

impl ClientPace {
    pub(crate) fn new(tempo: ByteRate) -> Self {
        Self { tempo, moved: 0, waited: Duration::ZERO, waiting: None }
    }

    /// Counts bytes, and ends the current wait.
    pub(crate) fn moved(&mut self, bytes: u64) {
        if let Some((since, _)) = self.waiting.take() {
            self.waited += since.elapsed();
        }
        self.moved = self.moved.saturating_add(bytes);
        if self.moved >= self.tempo.bytes {
            (self.moved, self.waited) = (0, Duration::ZERO);
        }
    }

    /// To be polled while no byte moves: ready once the client has used up its waiting time.
    pub(crate) fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // The timer gets what is left of the span: a client that drips single bytes does not restart it.
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
        let mut upload = TransferPace::begin(ByteRate::new(SPAN, 100));
        advance(SPAN / 2).await;
        assert!(!upload.moved(999) && !upload.is_too_slow());
        assert!(upload.moved(1));
        advance(SPAN - Duration::from_millis(1)).await;
        assert!(!upload.is_too_slow());
        advance(Duration::from_millis(1)).await;
        assert!(upload.is_too_slow());
    }

    #[test]
    fn a_rate_is_the_same_over_any_span() {
        let rate = ByteRate::new(SPAN, 100).over(Duration::from_millis(2500));
        assert_eq!((rate.span, rate.bytes), (Duration::from_millis(2500), 250));
        assert_eq!(ByteRate::new(Duration::from_millis(500), 100).bytes, 50);
        assert_eq!(rate.over(Duration::from_millis(1)).bytes, 1, "silence is always too slow");
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
