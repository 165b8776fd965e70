//! The three laws, and proofs that the model is not empty: events that must be reachable.

use stateright::Property;

use super::bounds::{Bounds, Flaw};
use super::instance::{Instance, Poll, Read, Session};
use super::primary::{ACCOUNTS, Changed, Changes, Primary};
use super::{Protocol, State};

pub(crate) const CACHED_EQUALS_UNCACHED: &str = "law 1: what the cache may answer was the row within the bound";
pub(crate) const CONFIRMED_WITHIN_BOUND: &str =
    "law 2: an entry is used only within the bound after a confirmed question";
pub(crate) const REVOKED_EVERYWHERE: &str =
    "law 3: nothing that starts later than the bound after a revocation is allowed";

pub(crate) const LAWS: [&str; 3] = [CACHED_EQUALS_UNCACHED, CONFIRMED_WITHIN_BOUND, REVOKED_EVERYWHERE];

pub(crate) const READ_FROM_LEFT: &str = "a server that was left behind answers with what is no longer the row";
pub(crate) const SERVED_AGAIN: &str = "after that, a request is decided by the new primary";

pub(crate) fn properties(bounds: &Bounds) -> Vec<Property<Protocol>> {
    let mut properties = of_every_walk();
    if bounds.switchovers > 0 {
        let read = |_: &Protocol, state: &State| {
            let reads =
                state.instances.iter().filter(|instance| instance.behind).filter_map(|instance| instance.read.as_ref());
            let stale = |read: &Read| read.answer.is_some_and(|row| row.version != state.primary.current(read.account));
            state.primary.left.is_some() && reads.into_iter().any(stale)
        };
        let served = |protocol: &Protocol, state: &State| {
            let decided = |instance: &Instance| instance.decisions(protocol.flaw).read.is_some();
            state.primary.switchovers > 0
                && state.instances.iter().any(|instance| !instance.behind && decided(instance))
        };
        properties.extend([Property::sometimes(READ_FROM_LEFT, read), Property::sometimes(SERVED_AGAIN, served)]);
    }
    properties
}

fn of_every_walk() -> Vec<Property<Protocol>> {
    vec![
        Property::always(CACHED_EQUALS_UNCACHED, cached_equals_uncached),
        Property::always(CONFIRMED_WITHIN_BOUND, confirmed_within_bound),
        Property::always(REVOKED_EVERYWHERE, revoked_everywhere),
        Property::sometimes("a request is decided from the cache", |protocol: &Protocol, state: &State| {
            state.instances.iter().any(|instance| instance.decisions(protocol.flaw).cached.is_some())
        }),
        Property::sometimes("a request is decided by a read", |protocol: &Protocol, state: &State| {
            state.instances.iter().any(|instance| instance.decisions(protocol.flaw).read.is_some())
        }),
        Property::sometimes("all instances answer from their caches at once", |protocol: &Protocol, state: &State| {
            state.instances.iter().all(|instance| usable(protocol, instance).next().is_some())
        }),
        Property::sometimes("a revocation becomes visible in a cache", |protocol: &Protocol, state: &State| {
            versions(protocol, state).any(|id| !state.primary.version(id).right)
        }),
        Property::sometimes(
            "a right is still cached while it is no longer the row",
            |protocol: &Protocol, state: &State| {
                versions(protocol, state).any(|id| state.primary.version(id).superseded > 0)
            },
        ),
        Property::sometimes("a lease runs out and its entries stay unused", |protocol: &Protocol, state: &State| {
            state
                .instances
                .iter()
                .any(|instance| instance.lease == protocol.bounds.bound && instance.entries.iter().any(Option::is_some))
        }),
        Property::sometimes("a read is too late for the gate", |_: &Protocol, state: &State| {
            let late = |instance: &Instance| {
                let row = instance.read.as_ref().and_then(|read| read.answer);
                row.is_some_and(|row| Some(row.epoch) < instance.applied)
            };
            state.instances.iter().any(late)
        }),
        Property::sometimes("the log does not reach back far enough", |_: &Protocol, state: &State| {
            let gap = |instance: &Instance| match instance.session {
                Session::Open { known: Some(known), poll: Poll::Answered(_, changes), .. } => {
                    changes.epoch > known && matches!(changes, Changes { accounts: Changed::Everything, .. })
                }
                _ => false,
            };
            state.instances.iter().any(gap)
        }),
        Property::sometimes("a failover that lost a commit is survived", |protocol: &Protocol, state: &State| {
            let Primary { commits, history, failovers, .. } = &state.primary;
            let committed_again = |id: &u8| *id as usize >= ACCOUNTS && history.contains(id);
            *failovers > 0
                && *commits as usize > history.len()
                && versions(protocol, state).any(|id| committed_again(&id))
        }),
    ]
}

/// The versions that a request starting now would find in a cache.
fn usable<'a>(protocol: &Protocol, instance: &'a Instance) -> impl Iterator<Item = u8> + 'a {
    let leased = instance.lease < protocol.bounds.bound || protocol.flaw == Some(Flaw::NoLease);
    instance.entries.iter().flatten().copied().filter(move |_| leased)
}

fn versions<'a>(protocol: &'a Protocol, state: &'a State) -> impl Iterator<Item = u8> + 'a {
    state.instances.iter().flat_map(|instance| usable(protocol, instance))
}

fn cached_equals_uncached(protocol: &Protocol, state: &State) -> bool {
    let fresh = versions(protocol, state).all(|id| state.primary.version(id).superseded < protocol.bounds.bound);
    let decided = |instance: &Instance| match (&instance.request, instance.decisions(protocol.flaw).cached) {
        (Some(request), Some(id)) => request.accepts(id),
        _ => true,
    };
    fresh && state.instances.iter().all(decided)
}

fn confirmed_within_bound(protocol: &Protocol, state: &State) -> bool {
    state.instances.iter().all(|instance| {
        let from_cache = instance.decisions(protocol.flaw).cached.is_some();
        let confirmed = instance.request.as_ref().is_some_and(|request| request.confirmed);
        !from_cache || confirmed
    })
}

fn revoked_everywhere(protocol: &Protocol, state: &State) -> bool {
    state.instances.iter().all(|instance| {
        let Some(request) = &instance.request else { return true };
        let mut decisions = instance.decisions(protocol.flaw);
        decisions.read.take_if(|_| request.excused);
        let mut allows = decisions.all().filter(|id| state.primary.version(*id).right);
        allows.all(|id| request.accepts(id))
    })
}
