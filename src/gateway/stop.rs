//! Stopping: on SIGTERM or SIGINT, finish what is in flight, then end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

/// How often the number of requests in flight is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Waits for the signal, then for the requests in flight.
pub(super) struct StopSignal {
    timeout: Duration,
    in_flight: Arc<AtomicUsize>,
    draining: Arc<AtomicBool>,
}

impl StopSignal {
    pub(super) fn new(timeout: Duration, in_flight: Arc<AtomicUsize>, draining: Arc<AtomicBool>) -> Self {
        Self { timeout, in_flight, draining }
    }
}

#[async_trait]
impl ShutdownSignalWatch for StopSignal {
    async fn recv(&self) -> ShutdownSignal {
        let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::error!("signals cannot be waited for; the service can only be killed");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM received, finishing requests in flight"),
            _ = interrupt.recv() => tracing::info!("SIGINT received, finishing requests in flight"),
        }
        self.draining.store(true, Ordering::Release);
        let deadline = Instant::now() + self.timeout;
        while self.in_flight.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            tokio::select! {
                () = sleep(LOOK) => {}
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        ShutdownSignal::GracefulTerminate
    }
}
