//! One account asks the HIS for too much through the gateway, and leaves before it is answered. Other callers are
//! served, and no server is ejected.

use std::collections::VecDeque;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use crate::fixture::{CANARY, Gateway, Setup, basic, password_hash};
use crate::gateway::exchanges::before_fedhis_as;
use crate::gateway::http2::{END_HEADERS, END_STREAM, HEADERS, RST_STREAM, frame, literal, open};
use crate::scripted::until;
use crate::support::postgres::Cluster;
use crate::support::postgres_text;

const TARGET: &str = "/domiciliary-units";
/// Searches over HTTP/1, and over HTTP/2 on as many connections.
const SEARCHES: usize = 160;
const CONNECTIONS: usize = 2;
const STREAMS: u32 = 20;
/// How many wait at a time.
const WAITING: usize = 12;

/// A query that the database never finishes.
fn slow_units(units: &str) -> String {
    format!(
        "ALTER TABLE dus RENAME TO kept; INSERT INTO kept (id, data) VALUES ('U', '{{}}'); CREATE VIEW dus AS {units}"
    )
}

fn search(gateway: &Gateway, account: &str, number: usize) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    let authorization = basic(account, CANARY);
    write!(stream, "GET {TARGET} HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n\r\n").unwrap();
    if number.is_multiple_of(2) {
        // The connection will end with a reset.
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    }
    stream
}

/// The same on streams of one connection, each of which is reset while it waits.
fn search_over_http2(gateway: &Gateway, account: &str, waiting: impl Fn()) {
    let mut stream = open(gateway);
    let authorization = basic(account, CANARY);
    let head = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", TARGET),
        ("authorization", &authorization),
    ];
    let block: Vec<u8> = head.iter().flat_map(|(name, value)| literal(name, value)).collect();
    let streams = || (1..).step_by(2).take(STREAMS as usize);
    for number in streams() {
        stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, number, &block)).unwrap();
    }
    stream.flush().unwrap();
    waiting();
    for number in streams() {
        stream.write_all(&frame(RST_STREAM, 0, number, &8u32.to_be_bytes())).unwrap();
    }
    stream.flush().unwrap();
}

fn two_hundred_searches_that_are_left_stop_nobody(gateway: &Gateway, account: &str, other: &str) {
    let status = |who: &str| gateway.get(&format!("/people/{who}"), who).status;
    let its_share_is_taken = || until("the searches take the share of their account", || status(account) == 503);
    let others_are_served = || assert_eq!(status(other), 200);
    assert_eq!((status(account), status(other)), (200, 200));
    let mut waiting = VecDeque::new();
    for number in 0..SEARCHES {
        waiting.push_back(search(gateway, account, number));
        if waiting.len() > WAITING {
            waiting.pop_front();
        }
        match number % 40 {
            20 if number < 80 => its_share_is_taken(),
            _ => others_are_served(),
        }
    }
    drop(waiting);
    for _ in 0..CONNECTIONS {
        search_over_http2(gateway, account, its_share_is_taken);
        others_are_served();
    }
    until("the account itself is served again", || status(account) == 200);
    let well = gateway.admin_get("/readyz").json();
    assert_eq!(well["upstreams"]["his"], 1, "no server is blamed: {well}");
}

#[test]
fn searches_that_are_left_stop_nobody_on_sqlite() {
    let (gateway, _his) = before_fedhis_as(&Setup::default());
    let units = "SELECT id, data FROM kept WHERE (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) \
                 SELECT count(*) FROM c) > 0";
    rusqlite::Connection::open(gateway.dir.join("test.db")).unwrap().execute_batch(&slow_units(units)).unwrap();
    two_hundred_searches_that_are_left_stop_nobody(&gateway, "DOC", "ADM");
}

#[test]
fn searches_that_are_left_stop_nobody_on_postgres_and_leave_it_without_work() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(Cluster::shared().database_with_accounts(2, &password_hash()));
    let (gateway, _his) = before_fedhis_as(&Setup { database: Some(&database.uri), ..Setup::default() });
    let sql = |text: &str| runtime.block_on(postgres_text(&database, text));
    sql(&slow_units("SELECT id, data FROM kept, pg_sleep(3600)"));
    two_hundred_searches_that_are_left_stop_nobody(&gateway, "P0", "P1");
    let at_work =
        "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    until("the server leaves off", || sql(at_work) == "0");
}
