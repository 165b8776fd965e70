//! Addresses that programs under test listen on.
//!
//! The one rule: no two tests get the same port, in one process or in several. A port is claimed for the life of the
//! test process, also where a test needs one on which nothing listens. It cannot be bound and handed over, because the
//! programs take addresses, as they do at an operator's, and a program that is started again needs the same one.

use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::sync::Mutex;

/// The ports that tests give out. They lie below those that the system gives to connections (ip(7)), so no connection
/// takes one before a program listens on it.
const PORTS: Range<u16> = 10_000..32_000;
/// How many of them one process claims at a time.
const BLOCK: u16 = 250;

/// A block of ports that belongs to this process. The name of the block is bound as an abstract socket (unix(7)) for as
/// long as the process lives, so no other test process of the machine gives out its ports.
fn claim_block() -> (UnixListener, Range<u16>) {
    let blocks: Vec<u16> = PORTS.step_by(usize::from(BLOCK)).collect();
    let first = rand::random_range(0..blocks.len());
    let claim = |begin: &u16| {
        let name = UnixAddress::from_abstract_name(format!("fedgate-test-ports-{begin}")).unwrap();
        Some((UnixListener::bind_addr(&name).ok()?, *begin..*begin + BLOCK))
    };
    let claimed = blocks.iter().cycle().skip(first).take(blocks.len()).find_map(claim);
    claimed.expect("other test processes have claimed every block of ports")
}

/// An address that a program under test will listen on. No other test gets it, in this process or another.
pub fn free_address() -> SocketAddr {
    static CLAIMED: Mutex<(Vec<UnixListener>, Range<u16>)> = Mutex::new((Vec::new(), 0..0));
    let mut claimed = CLAIMED.lock().unwrap();
    loop {
        let Some(port) = claimed.1.next() else {
            let (name, ports) = claim_block();
            claimed.0.push(name);
            claimed.1 = ports;
            continue;
        };
        // A program that is no test may listen there.
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
