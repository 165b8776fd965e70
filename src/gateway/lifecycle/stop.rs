//! Signals, and the end of the gateway: hand over or stop, finish requests in flight, close.
//!
//! The one rule: a request that was sent is answered, if that is possible within the stop timeout. Until then, a kept
//! connection is served once more and closed with that answer, so that a silent client does not meet a closed one.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};

use super::handover::{HandedOver, SuccessorProcess, notify};
use super::pid_file::PidFile;

/// How often open connections are counted.
const LOOK: Duration = Duration::from_millis(20);
/// How often the process id file is checked.
const LOOK_AT_PID: Duration = Duration::from_secs(1);

/// The order that a signal gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopOrder {
    /// SIGTERM: stop; silent clients get their time.
    Stop,
    /// SIGINT: stop as soon as nothing is in flight.
    StopNow,
    /// SIGUSR2: hand over to a successor.
    Upgrade,
}

/// Why the process ends.
pub(crate) enum ServingEnd {
    /// A successor listens.
    HandedOver(SuccessorProcess),
    /// The process must stop, and with it a successor that it has started.
    Stopped(StopOrder, Option<SuccessorProcess>),
}

/// The signals of the process.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    upgrade: Signal,
}

impl StopSignals {
    /// # Errors
    /// The operating system refuses.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    pub(crate) async fn next(&mut self) -> StopOrder {
        tokio::select! {
            _ = self.terminate.recv() => StopOrder::Stop,
            _ = self.interrupt.recv() => StopOrder::StopNow,
            _ = self.upgrade.recv() => StopOrder::Upgrade,
        }
    }

    /// Waits until a successor has taken over the sockets, or the process must stop.
    pub(crate) async fn until_end(&mut self, handed: &HandedOver, pid: &mut PidFile) -> ServingEnd {
        loop {
            let order = tokio::select! {
                order = self.next() => order,
                () = sleep(LOOK_AT_PID) => {
                    // A cleanup of temporary files may have deleted it.
                    pid.restore();
                    continue;
                }
            };
            if order != StopOrder::Upgrade {
                return ServingEnd::Stopped(order, None);
            }
            tracing::info!("SIGUSR2 received, starting a successor");
            let failed = match SuccessorProcess::start(handed.clone()) {
                Ok(mut successor) => tokio::select! {
                    biased;
                    // Both stop: an operator who ends the service must not be left with a successor.
                    order = self.stop() => return ServingEnd::Stopped(order, Some(successor)),
                    listens = successor.listens() => match listens {
                        Ok(successors) => {
                            pid.leave();
                            tracing::info!(
                                pid = successors,
                                "the successor listens; this process finishes its requests in flight"
                            );
                            return ServingEnd::HandedOver(successor);
                        }
                        Err(error) => error,
                    },
                },
                Err(error) => error,
            };
            tracing::error!("the successor did not take over: {failed}; this process goes on");
            // The successor may have told systemd that it is the main process.
            notify(&[NotifyState::MainPid(std::process::id())]);
            pid.renew();
        }
    }

    /// The next order to stop.
    async fn stop(&mut self) -> StopOrder {
        loop {
            match self.next().await {
                StopOrder::Upgrade => {}
                order => return order,
            }
        }
    }

    /// Waits for a time, or until another order to stop comes.
    pub(crate) async fn wait(&mut self, time: Duration) {
        self.drain(time, || 1).await;
    }

    /// Waits until nothing is open, the time is up, or another order to stop comes.
    pub(crate) async fn drain(&mut self, timeout: Duration, open: impl Fn() -> usize) {
        let deadline = Instant::now() + timeout;
        while open() > 0 && Instant::now() < deadline {
            tokio::select! {
                () = sleep(LOOK) => {}
                // A second order ends the wait: the operator is in a hurry.
                order = self.next() => if order != StopOrder::Upgrade { return },
            }
        }
    }
}
