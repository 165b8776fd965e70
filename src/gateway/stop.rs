//! Signals, and how the gateway comes to its end: hand over or stop, finish what is in flight, close.
//!
//! The one rule: a request that was sent is answered. Until the end, a connection that is kept open is served once more
//! and told to close with that answer; so a client that was silent meanwhile finds nobody gone.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};

/// How often what is open is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What the process is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// SIGTERM: stop; clients that are silent get their time.
    Stop,
    /// SIGINT: stop as soon as nothing is in flight.
    StopNow,
    /// SIGUSR2: hand over to a successor.
    Upgrade,
}

/// The signals of the process.
pub(super) struct Orders {
    terminate: Signal,
    interrupt: Signal,
    upgrade: Signal,
}

impl Orders {
    /// # Errors
    /// The operating system refuses.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    pub(super) async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.terminate.recv() => Order::Stop,
            _ = self.interrupt.recv() => Order::StopNow,
            _ = self.upgrade.recv() => Order::Upgrade,
        }
    }

    /// Waits for so long, or until another order to stop comes.
    pub(super) async fn wait(&mut self, time: Duration) {
        self.drain(time, || 1).await;
    }

    /// Waits until nothing is open, or the time is up, or another order to stop comes.
    pub(super) async fn drain(&mut self, timeout: Duration, open: impl Fn() -> usize) {
        let deadline = Instant::now() + timeout;
        while open() > 0 && Instant::now() < deadline {
            tokio::select! {
                () = sleep(LOOK) => {}
                order = self.next() => if order != Order::Upgrade { return },
            }
        }
    }
}
