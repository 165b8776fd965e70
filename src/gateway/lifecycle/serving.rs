//! The course of serving: accept, wait for an order to stop or to hand over, finish what is in flight.
//!
//! The one rule: nothing fails after the first connection is accepted. A predecessor that has handed over cannot take it
//! back.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch::Sender;

use super::error::ServeError;
use super::handover::{self, HandedOver, InheritedSockets};
use super::listeners::{ConnectionAcceptors, ListeningSockets};
use super::pid_file::PidFile;
use super::stop::{ServingEnd, StopOrder, StopSignals};
use crate::authn::Authenticator;
use crate::gateway::edge::connection::ShutdownCourse;
use crate::gateway::edge::live_traffic::LiveTraffic;
use fedgate_base::config::GatewayConfig;
use fedgate_base::workers::RequestWorkers;

/// How long the last requests in flight may take after everything else.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);

/// Accepts connections until an order ends that, and then waits for the open ones as long as the order allows.
///
/// # Errors
/// A socket or the process id file cannot be used; nothing was accepted then.
pub(crate) async fn until_end(
    gateway: &GatewayConfig,
    traffic: &LiveTraffic,
    workers: &RequestWorkers,
    acceptors: ConnectionAcceptors,
    listeners: ListeningSockets,
    inherited: InheritedSockets,
    authenticator: &Arc<Authenticator>,
) -> Result<(), ServeError> {
    let mut orders = StopSignals::listen()?;
    let (closing, ending) = (Sender::new(false), Sender::new(false));
    let stopping = traffic.stopping.subscribe();
    let course = ShutdownCourse { closing: closing.subscribe(), stopping, ending: ending.subscribe() };
    let sockets = Arc::new(listeners.duplicates()?);
    let handed_on = HandedOver { sockets, authenticator: Arc::clone(authenticator) };
    let acceptors = acceptors.ready(listeners)?;
    // Before the first request, and as late as possible: what the predecessor verifies after this is hashed again.
    if let Some(proofs) = inherited.proofs() {
        let count = authenticator.take_proofs(proofs);
        tracing::info!(count, "verified passwords were taken over from the predecessor");
    }
    let path = gateway.pid_file.as_deref();
    // Before `ready`: a successor whose process id cannot be written must leave its predecessor serving.
    let mut pid = PidFile::write(path, inherited.origin()).map_err(|error| ServeError::of_pid_file(path, error))?;
    handover::notify(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
    inherited.ready();
    acceptors.accept(workers, &course);
    let end = orders.until_end(&handed_on, &mut pid).await;
    traffic.stopping.send_replace(true);
    let (order, leaving) = match end {
        ServingEnd::HandedOver(successor) => {
            successor.release();
            closing.send_replace(true);
            (StopOrder::Upgrade, None)
        }
        ServingEnd::Stopped(order, successor) => {
            tracing::info!("stopping: requests in flight are finished");
            handover::notify(&[NotifyState::Stopping]);
            (order, successor.map(|successor| tokio::spawn(successor.end(gateway.stop_timeout))))
        }
    };
    if order == StopOrder::Stop {
        orders.wait(gateway.stop_delay).await;
    }
    // Not before the delay: until a balancer has noticed, their clients would come back here.
    traffic.ending_streams.send_replace(true);
    match order {
        // SIGINT ignores silent connections; the other two wait until each of them is closed.
        StopOrder::StopNow => orders.drain(gateway.stop_timeout, || traffic.in_flight()).await,
        StopOrder::Stop | StopOrder::Upgrade => orders.drain(gateway.stop_timeout, || traffic.open()).await,
    }
    closing.send_replace(true);
    drop(handed_on);
    // Silent connections are closed now; a request that has arrived is in flight and finishes.
    ending.send_replace(true);
    orders.drain(LAST_WORDS, || traffic.open()).await;
    if let Some(leaving) = leaving {
        let _ = leaving.await;
    }
    Ok(())
}
