//! The faults of a history: everything that positions must survive, one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::stage::{PROCESSES, Servers, Stage};
use crate::support::postgres::Cluster;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HubFault {
    /// `kill -9` of a process of fedhis.
    KillInstance,
    /// SIGSTOP of a process of fedhis, and SIGCONT.
    SuspendInstance,
    /// A session holds the lock that giving positions takes, and is ended or killed.
    HoldSequencer,
    /// The sessions that give positions are killed.
    KillSequencers,
    /// SIGSTOP of the whole server.
    SuspendServer,
    /// `kill -9` of one process of the server: the server ends all others, and recovers.
    CrashSession,
    /// `kill -9` of the whole server, which starts again and recovers.
    KillServer,
    /// The primary is killed for good, and its synchronous standby promoted.
    Promote,
}

use HubFault::*;

const EMBEDDED: [HubFault; 3] = [KillInstance, SuspendInstance, HoldSequencer];
const SINGLE: [HubFault; 7] =
    [KillInstance, SuspendInstance, HoldSequencer, KillSequencers, SuspendServer, CrashSession, KillServer];
/// Killing a session that waits for the standby would make a commit visible that the standby lacks.
const PAIR: [HubFault; 3] = [KillInstance, SuspendInstance, HoldSequencer];

/// Causes faults until it is told to stop, with the promotion after two others, and returns how many of each kind there
/// were. Each fault has ended when it returns.
pub(crate) async fn inject(
    stage: &Stage,
    servers: &Servers<'_>,
    mut random: StdRng,
    stop: Arc<AtomicBool>,
) -> BTreeMap<HubFault, usize> {
    let mut counts = BTreeMap::new();
    for round in 0.. {
        sleep(Duration::from_millis(random.random_range(20..200))).await;
        let kinds: &[HubFault] = match servers {
            Servers::Sqlite => &EMBEDDED,
            Servers::Single(_) => &SINGLE,
            Servers::Pair(..) => &PAIR,
            Servers::Spoiled(..) => &[HoldSequencer, KillSequencers],
        };
        let is_pair = matches!(servers, Servers::Pair(..));
        if stop.load(Ordering::SeqCst) && !(is_pair && round <= 2) {
            break;
        }
        let fault = if is_pair && round == 2 { Promote } else { kinds[random.random_range(0..kinds.len())] };
        *counts.entry(fault).or_default() += 1;
        cause(fault, stage, servers, &mut random).await;
    }
    counts
}

async fn cause(fault: HubFault, stage: &Stage, servers: &Servers<'_>, random: &mut StdRng) {
    let pause = Duration::from_millis(random.random_range(10..400));
    match (fault, servers) {
        (KillInstance, _) => stage.kill(random.random_range(0..PROCESSES), pause).await,
        (SuspendInstance, _) => stage.suspend(random.random_range(0..PROCESSES), pause).await,
        (HoldSequencer, _) => hold(stage, pause, random.random()).await,
        (KillSequencers, _) => kill_sequencers(stage).await,
        (SuspendServer, Servers::Single(cluster)) => {
            cluster.freeze(true);
            sleep(pause).await;
            cluster.freeze(false);
        }
        (CrashSession, Servers::Single(cluster)) => cluster.crash_session(),
        (KillServer, Servers::Single(cluster)) => {
            cluster.crash();
            sleep(pause).await;
            cluster.resume();
        }
        (Promote, Servers::Pair(primary, standby)) => promote(primary, standby),
        (fault, _) => panic!("{fault:?} does not belong to this store"),
    }
}

fn promote(primary: &Cluster, standby: &Cluster) {
    primary.crash();
    standby.promote();
}

/// Holds the lock of the sequencer; on SQLite, that of all writers.
async fn hold(stage: &Stage, pause: Duration, is_killed: bool) {
    if stage.is_embedded() {
        let connection = stage.connection();
        if connection.execute_batch("BEGIN IMMEDIATE").is_ok() {
            sleep(pause).await;
            let _ = connection.execute_batch("ROLLBACK");
        }
        return;
    }
    let Some(session) = stage.session().await else { return };
    let held = session.batch_execute("BEGIN; SELECT FROM fedgate_relay FOR UPDATE; SELECT nextval('fedgate_entry')");
    if held.await.is_ok() {
        sleep(pause).await;
        let end = if is_killed { "SELECT pg_terminate_backend(pg_backend_pid())" } else { "ROLLBACK" };
        let _ = session.batch_execute(end).await;
    }
}

async fn kill_sequencers(stage: &Stage) {
    let Some(session) = stage.session().await else { return };
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                WHERE datname = current_database() AND query LIKE '%fedgate_give_positions%' AND pid <> pg_backend_pid()";
    let _ = session.batch_execute(kill).await;
}
