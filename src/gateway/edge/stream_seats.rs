//! Seats for running streams, counted in total, per client address and per account.
//!
//! The one rule: a running stream has one of these seats, and none of those for requests. So streams of any number
//! leave room for requests, and neither one address nor one account takes the seats of all others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::connection_slots::{ConnectionSlot, ConnectionSlots};
use fedgate_base::config::StreamLimits;

/// The seats of one gateway.
pub(crate) struct StreamSeats {
    all: ConnectionSlots,
    /// Streams that have a connection of their own: half of the connections are left for others.
    with_connection: ConnectionSlots,
    accounts: Arc<AccountSeats>,
}

/// The streams of each account.
#[derive(Debug)]
struct AccountSeats {
    most: usize,
    taken: Mutex<HashMap<Box<str>, usize>>,
}

/// The seat of one stream; given back when dropped.
#[derive(Debug)]
pub(crate) struct StreamSeat {
    _seat: ConnectionSlot,
    _connection: Option<ConnectionSlot>,
    _among_own: Option<AccountSeat>,
}

#[derive(Debug)]
struct AccountSeat {
    accounts: Arc<AccountSeats>,
    account: Box<str>,
}

impl StreamSeats {
    /// Within these limits. At most half of the connections serve one stream each.
    pub(crate) fn new(limits: &StreamLimits, connections: usize) -> Self {
        let accounts = AccountSeats { most: limits.per_account, taken: Mutex::default() };
        Self {
            all: ConnectionSlots::new(limits.most, limits.per_source),
            with_connection: ConnectionSlots::new((connections / 2).max(1), limits.per_source),
            accounts: Arc::new(accounts),
        }
    }

    /// Takes a seat, if one is free in total, for this client address and for this account. Over HTTP/1, the stream
    /// has its connection for itself.
    pub(crate) fn take(&self, client: Option<IpAddr>, account: Option<&str>, is_http2: bool) -> Option<StreamSeat> {
        let seat = self.all.take(client)?;
        let connection = match is_http2 {
            true => None,
            false => Some(self.with_connection.take(client)?),
        };
        let among_own = match account {
            None => None,
            Some(account) => Some(AccountSeats::take(&self.accounts, account)?),
        };
        Some(StreamSeat { _seat: seat, _connection: connection, _among_own: among_own })
    }
}

impl AccountSeats {
    fn take(seats: &Arc<Self>, account: &str) -> Option<AccountSeat> {
        let mut taken = seats.lock();
        let count = taken.entry(account.into()).or_default();
        if *count >= seats.most {
            return None;
        }
        *count += 1;
        Some(AccountSeat { accounts: Arc::clone(seats), account: account.into() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AccountSeat {
    fn drop(&mut self) {
        let mut taken = self.accounts.lock();
        match taken.get_mut(&self.account) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                taken.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn neither_an_address_nor_an_account_takes_the_seats_of_others() {
        let limits =
            StreamLimits { most: 5, per_source: 3, per_account: 2, life: None, silence: Duration::from_secs(1) };
        let seats = StreamSeats::new(&limits, 4);
        let (here, there) = (Some("192.0.2.1".parse().unwrap()), Some("192.0.2.2".parse().unwrap()));
        let take = |client, account| seats.take(client, account, true);
        let mut held = vec![take(here, Some("ANA")).unwrap(), take(here, Some("ANA")).unwrap()];
        assert!(take(here, Some("ANA")).is_none() && take(there, Some("ANA")).is_none(), "two of an account");
        held.push(take(here, Some("BOB")).unwrap());
        assert!(take(here, Some("BOB")).is_none(), "three of an address, and none is lost by the refusals");
        held.extend([take(there, Some("BOB")).unwrap(), take(there, None).unwrap()]);
        assert!(take(None, None).is_none(), "five in total");
        held.truncate(1);
        assert!(take(here, Some("ANA")).is_some());
        let on_connections = [there, here].map(|client| seats.take(client, None, false).unwrap());
        assert!(seats.take(None, None, false).is_none(), "half of the connections");
        assert!(take(None, None).is_some());
        drop((held, on_connections));
        assert!(seats.accounts.lock().is_empty() && seats.all.taken() + seats.with_connection.taken() == 0);
    }
}
