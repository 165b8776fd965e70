//! Room for bodies that are held whole: of requests that are judged, and of records that are read for their owner.
//!
//! The one rule: one caller has a quarter of it, so that no caller's slow uploads make the gateway refuse those of all
//! others. A caller is an account, or the client address of an anonymous caller.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pipeline::Permit;
use fedgate_core::fields::BodyFault;
use fedgate_core::network::client_network;

/// Most bytes of held bodies, of all requests together.
const ROOM_BYTES: usize = 256 * 1024 * 1024;
/// The most of them that one caller may hold with several bodies. One body alone may be larger: the limit of its route
/// bounds it.
const CALLER_BYTES: usize = ROOM_BYTES / 4;

/// The holder of a body.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum BodyHolder {
    /// An account.
    Account(String),
    /// The client address of an anonymous caller; none on a Unix socket.
    Address(Option<IpAddr>),
}

impl BodyHolder {
    /// The caller of an admitted request.
    pub(crate) fn of(permit: &Permit, client: Option<IpAddr>) -> Self {
        match permit.principal() {
            Some(principal) => Self::Account(principal.account().to_owned()),
            None => Self::Address(client.map(client_network)),
        }
    }
}

/// Room for held bodies.
#[derive(Default)]
pub(crate) struct BodyRoom(Mutex<RoomTaken>);

/// The bytes that are held.
#[derive(Default)]
struct RoomTaken {
    total: usize,
    /// Only callers that hold any.
    callers: HashMap<BodyHolder, usize>,
}

/// The room of one body; given back when dropped.
pub(crate) struct BodyShare {
    room: Arc<BodyRoom>,
    holder: BodyHolder,
    bytes: usize,
}

impl BodyRoom {
    fn lock(&self) -> MutexGuard<'_, RoomTaken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BodyShare {
    /// No room yet.
    pub(crate) fn of(room: &Arc<BodyRoom>, holder: BodyHolder) -> Self {
        Self { room: Arc::clone(room), holder, bytes: 0 }
    }

    /// Takes more room.
    ///
    /// # Errors
    /// There is no room for it, in total or for this caller.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), BodyFault> {
        let mut taken = self.room.lock();
        let total = taken.total.saturating_add(bytes);
        let callers = taken.callers.get(&self.holder).copied().unwrap_or_default().saturating_add(bytes);
        let own = self.bytes.saturating_add(bytes);
        // A body that is the only one of its caller may be larger than a share.
        if total > ROOM_BYTES || (callers > CALLER_BYTES && callers > own) {
            return Err(BodyFault::NoRoom);
        }
        self.bytes = own;
        taken.total = total;
        taken.callers.insert(self.holder.clone(), callers);
        Ok(())
    }
}

impl Drop for BodyShare {
    fn drop(&mut self) {
        let mut taken = self.room.lock();
        taken.total = taken.total.saturating_sub(self.bytes);
        match taken.callers.get_mut(&self.holder) {
            Some(bytes) if *bytes > self.bytes => *bytes -= self.bytes,
            _ => {
                taken.callers.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_holds_its_share_and_leaves_the_rest_to_others() {
        let room = Arc::<BodyRoom>::default();
        let account = |name: &str| BodyHolder::Account(name.to_owned());
        let share = |holder: BodyHolder, bytes: usize| {
            let mut share = BodyShare::of(&room, holder);
            share.grow(bytes).is_ok().then_some(share)
        };
        let half = share(account("ANA"), CALLER_BYTES / 2).unwrap();
        let _other_half = share(account("ANA"), CALLER_BYTES / 2).unwrap();
        assert!(share(account("ANA"), 1).is_none(), "her share");
        drop(half);
        assert!(share(account("ANA"), CALLER_BYTES / 2).is_some(), "it is given back");
        let _of_an_address = share(BodyHolder::Address(None), CALLER_BYTES).unwrap();
        let mut alone = BodyShare::of(&room, account("BOB"));
        assert!(alone.grow(CALLER_BYTES).is_ok() && alone.grow(1).is_ok(), "one body may be larger");
        let mut second = BodyShare::of(&room, account("BOB"));
        assert!(second.grow(1).is_err() && second.bytes == 0);
        assert!(alone.grow(ROOM_BYTES).is_err(), "the whole");
        drop((alone, second));
        assert!(room.lock().callers.len() == 2 && !room.lock().callers.contains_key(&account("BOB")));
    }
}
