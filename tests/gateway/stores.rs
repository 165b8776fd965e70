//! The file of an embedded store after the programs that had it open have stopped.

use std::fs;
use std::process::Child;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::fixture::{CANARY, PATIENCE, basic};
use crate::gateway::exchanges::before_fedhis;

fn stop(child: &mut Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it does not stop");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn after_both_programs_have_stopped_in_either_order_the_file_alone_holds_every_write() {
    for (is_gateway_first, signal) in [(true, Signal::TERM), (false, Signal::TERM), (true, Signal::INT)] {
        let (mut gateway, mut his) = before_fedhis();
        for number in 0..20 {
            let authorization = format!("Authorization: {}\r\n", basic("ADM", CANARY));
            let request = format!(
                "POST /people/NEW{number} HTTP/1.1\r\nHost: a\r\n{authorization}Content-Length: 2\r\nConnection: close\r\n\r\n{{}}"
            );
            assert_eq!(gateway.send(request.as_bytes()).status, 200);
        }
        let store = gateway.dir.join("test.db");
        assert!(store.with_file_name("test.db-wal").exists(), "it is in use");
        match is_gateway_first {
            true => {
                stop(&mut gateway.child, signal);
                stop(&mut his.0, signal);
            }
            false => {
                stop(&mut his.0, signal);
                stop(&mut gateway.child, signal);
            }
        }
        for beside in ["test.db-wal", "test.db-shm"] {
            assert!(!store.with_file_name(beside).exists(), "{beside} {is_gateway_first} {signal:?}");
        }
        let alone = gateway.dir.join("alone.db");
        fs::copy(&store, &alone).unwrap();
        let count = "SELECT count(*) FROM people WHERE id LIKE 'NEW%'";
        let alone = rusqlite::Connection::open(alone).unwrap();
        assert_eq!(alone.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap(), 20);
        // At the next start no outage is reported, because there is none.
        assert_eq!(gateway.log_lines("accounts are unavailable", Instant::now() - PATIENCE), 0);
    }
}
