//! A deadline that moves with each request, and a timer that seldom does.
//!
//! The one rule: the timer never fires later than the deadline. If it fires earlier, it is set again. To set a timer takes
//! a lock, and a kept connection moves its deadline three times for each request; so the timer follows only while the
//! connection waits.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The deadline of what a connection waits for now, if it has one.
#[derive(Default)]
pub(crate) struct MovingDeadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl MovingDeadline {
    /// So long from now.
    pub(crate) fn begin(&mut self, time: Duration) {
        self.at = Some(Instant::now() + time);
    }

    /// No deadline.
    pub(crate) fn end(&mut self) {
        self.at = None;
    }

    /// Ready once the deadline has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::timeout;

    use super::*;

    async fn passes_within(deadline: &mut MovingDeadline, seconds: u64) -> bool {
        timeout(Duration::from_secs(seconds), poll_fn(|cx| deadline.poll(cx))).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn it_passes_when_the_last_one_that_was_set_does() {
        let mut deadline = MovingDeadline::default();
        assert!(!passes_within(&mut deadline, 1000).await, "there is none");
        deadline.begin(Duration::from_secs(60));
        assert!(!passes_within(&mut deadline, 50).await);
        // Later than the timer, which has 10 s left.
        deadline.begin(Duration::from_secs(60));
        assert!(!passes_within(&mut deadline, 59).await);
        assert!(passes_within(&mut deadline, 2).await);
        deadline.begin(Duration::from_secs(60));
        assert!(!passes_within(&mut deadline, 1).await);
        // Earlier than the timer.
        deadline.begin(Duration::from_secs(10));
        assert!(!passes_within(&mut deadline, 9).await && passes_within(&mut deadline, 2).await);
        deadline.begin(Duration::from_secs(10));
        deadline.end();
        assert!(!passes_within(&mut deadline, 1000).await);
    }
}
