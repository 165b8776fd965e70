//! How many bytes the system takes for a connection before they can be sent.
//!
//! The one rule: a slow reader is seen to make progress. Without a bound, the system takes megabytes for a connection on a
//! fast network, and then none until a good part of them has gone. A reader of 100 KB/s seems to be silent meanwhile.
//!
//! The listeners of both programs call it.

use std::os::fd::AsFd;

use socket2::SockRef;

/// The bytes beyond which a socket has no room.
const MOST_UNSENT: u32 = 128 * 1024;

/// Bounds the unsent bytes of each connection that a listening socket accepts from now on (`TCP_NOTSENT_LOWAT`).
pub fn bound_unsent(listener: &impl AsFd) {
    if let Err(error) = SockRef::from(listener).set_tcp_notsent_lowat(MOST_UNSENT) {
        tracing::debug!("the system does not bound the unsent bytes of a connection: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_has_the_bound_of_its_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        bound_unsent(&listener);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(SockRef::from(&accepted).tcp_notsent_lowat().unwrap(), MOST_UNSENT);
    }
}
