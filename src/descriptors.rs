//! Open files: as many as the system allows this process, and how many of them clients may take.
//!
//! The one rule: the admin listener, upstreams, the store and files have descriptors that no crowd of clients takes.
//!
//! Called by both programs when they begin to serve.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process needs beside its clients and their upstreams: the admin listener's connections, the store's, files.
const OWN: usize = 128;

/// Raises the soft limit of open files to the hard one (getrlimit(2)): the soft one is there for programs that use `select`.
/// Returns how many may be open; none where there is no limit.
pub fn raise() -> Option<usize> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    getrlimit(Resource::Nofile).current.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// How many of the connections that are configured a limit bears: a client's may need another one to an upstream.
pub fn connections(limit: Option<usize>, configured: usize) -> usize {
    limit.map_or(configured, |limit| configured.min((limit.saturating_sub(OWN) / 2).max(1)))
}

/// The limit that bears so many connections.
pub fn needed(connections: usize) -> usize {
    connections.saturating_mul(2).saturating_add(OWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_take_what_the_process_needs_itself() {
        for limit in [1, OWN, 1024, 65_536] {
            let borne = connections(Some(limit), 20_000);
            assert!(borne >= 1 && (borne == 1 || needed(borne) <= limit), "{limit}: {borne}");
        }
        assert_eq!(connections(Some(needed(20_000)), 20_000), 20_000);
        assert_eq!(connections(None, 20_000), 20_000);
    }
}
