//! Open files: as many as the system allows this process, and how many of them clients may use.
//!
//! The one rule: the admin listener, upstreams, the store and files keep descriptors that no number of clients can
//! take.
//!
//! Both programs call it when they begin to serve.

mod unsent;

use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use unsent::bound_unsent;

/// The files that a program opens while it starts, and some more.
const AT_START: usize = 64;
/// The pause before the next attempt to accept, when the system has no more sockets.
pub const RETRY: Duration = Duration::from_millis(50);
/// How long there must be no failure before a shortage counts as over.
const SHORTAGE_OVER: Duration = Duration::from_secs(5);

/// The descriptors of a process apart from its clients and their upstreams: for the admin listener, the store and
/// files.
const OWN: usize = 128;
/// The descriptors of a connection with its request: one for the client, and two for the server, because the gateway
/// has a second handle of every connection to a server.
const PER_CONNECTION: usize = 3;
/// The descriptors of an idle connection to a server.
const PER_IDLE: usize = 2;
/// Most idle connections to servers that are kept, and how many of them for each thread.
const MOST_IDLE: usize = 1280;
const IDLE_PER_THREAD: usize = 160;

/// Raises the soft limit of open files to the hard limit (getrlimit(2)); the soft limit exists for programs that use
/// `select`. Returns the limit; none if there is none.
pub fn raise() -> Option<usize> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    getrlimit(Resource::Nofile).current.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Checks that as many files can be opened as a program needs to start. Runtimes and connectors to upstreams panic
/// without them.
///
/// # Errors
/// They cannot be opened; the text names the limit.
pub fn can_start() -> io::Result<()> {
    let limit = raise();
    let mut held = Vec::with_capacity(AT_START);
    while held.len() < AT_START {
        match File::open("/dev/null") {
            Ok(file) => held.push(file),
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::MFILE | Errno::NFILE)) => {
                let remedy = "raise the limit of open files (`ulimit -n`, `LimitNOFILE` of systemd)";
                let limit = limit.map_or("none".to_owned(), |limit| limit.to_string());
                let text = format!(
                    "{error}: {} more can be opened (the limit of this process is {limit}), and {AT_START} are \
                     needed to start; {remedy}",
                    held.len()
                );
                return Err(io::Error::new(error.kind(), text));
            }
            // Any other fault is found when the configuration is used.
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

/// How many idle connections to servers a gateway with so many threads keeps: they take a sixteenth of the limit at
/// most.
pub fn idle(limit: Option<usize>, threads: usize) -> usize {
    let wanted = threads.saturating_mul(IDLE_PER_THREAD).min(MOST_IDLE);
    limit.map_or(wanted, |limit| wanted.min(limit / (16 * PER_IDLE)))
}

/// How many of the configured connections a limit allows beside `idle` ones to servers. As many requests may be in
/// progress, and each may need a connection to a server of its own.
pub fn connections(limit: Option<usize>, configured: usize, idle: usize) -> usize {
    let own = idle.saturating_mul(PER_IDLE).saturating_add(OWN);
    limit.map_or(configured, |limit| configured.min((limit.saturating_sub(own) / PER_CONNECTION).max(1)))
}

/// The limit that allows this many connections.
pub fn needed(connections: usize, threads: usize) -> usize {
    let own = idle(None, threads).saturating_mul(PER_IDLE).saturating_add(OWN);
    connections.saturating_mul(PER_CONNECTION).saturating_add(own)
}

/// How many callers' connections a limit allows for a service that needs no others for them.
pub fn callers(limit: Option<usize>, configured: usize) -> usize {
    limit.map_or(configured, |limit| configured.min(limit.saturating_sub(OWN).max(1)))
}

/// The limit that allows this many.
pub fn needed_by_callers(connections: usize) -> usize {
    connections.saturating_add(OWN)
}

/// Whether the system has no more sockets. All listeners together log its beginning and end once.
#[derive(Default)]
pub struct SocketShortage(Mutex<Option<Instant>>);

impl SocketShortage {
    /// Records that a connection could not be accepted.
    pub fn is_felt(&self, error: &io::Error) {
        if self.lock().replace(Instant::now()).is_none() {
            tracing::error!(%error, "no connection can be accepted; is the limit of open files too low?");
        }
    }

    /// Records that a connection was accepted.
    pub fn is_not_felt(&self) {
        let mut last = self.lock();
        if last.is_some_and(|last| last.elapsed() > SHORTAGE_OVER) {
            *last = None;
            tracing::info!("connections are accepted again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_take_what_the_process_needs_itself() {
        for (limit, threads) in [1, OWN, 1024, 20_000, 65_536].into_iter().flat_map(|limit| [(limit, 1), (limit, 64)]) {
            let idle = idle(Some(limit), threads);
            let borne = connections(Some(limit), 20_000, idle);
            let taken = borne * PER_CONNECTION + idle * PER_IDLE + OWN;
            assert!(borne >= 1 && (borne == 1 || taken <= limit), "{limit}, {threads}: {borne}");
        }
        // The limit of the shipped systemd units bears the default.
        assert_eq!(connections(Some(65_536), 20_000, idle(Some(65_536), 64)), 20_000);
        for threads in [1, 64] {
            let limit = Some(needed(20_000, threads));
            assert_eq!(connections(limit, 20_000, idle(limit, threads)), 20_000);
        }
        assert_eq!((callers(Some(1024), 4096), callers(Some(needed_by_callers(4096)), 4096)), (1024 - OWN, 4096));
        assert_eq!(connections(None, 20_000, idle(None, 2)), 20_000);
    }
}
