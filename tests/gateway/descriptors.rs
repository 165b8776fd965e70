//! Open files: the limit, and how it is divided.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::fixture::{CANARY, Gateway, PATIENCE, Setup, basic};

/// The soft and the hard limit of open files of a process (proc(5)).
fn limits(gateway: &Gateway) -> (String, String) {
    let text = fs::read_to_string(format!("/proc/{}/limits", gateway.child.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut figures = line.split_whitespace().map(str::to_owned);
    (figures.next().unwrap(), figures.next().unwrap())
}

#[test]
fn the_soft_limit_is_raised_to_the_hard_one() {
    let under = ["sh", "-c", "ulimit -Sn 200 && ulimit -Hn 4000 && exec \"$@\"", "sh"];
    let gateway = Gateway::start_as(&Setup { under: &under, ..Setup::default() });
    assert_eq!(limits(&gateway), ("4000".to_owned(), "4000".to_owned()));
}

#[test]
fn a_crowd_of_idle_connections_leaves_the_operator_and_those_that_are_served_their_own() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let under = ["sh", "-c", "ulimit -n 1024 && exec \"$@\"", "sh"];
    let began = Instant::now();
    let gateway = Gateway::start_as(&Setup { under: &under, ..Setup::default() });
    gateway
        .logged("the limit of 1024 open files allows 277 connections", began, PATIENCE)
        .expect("it is told at the start");
    let mut served = TcpStream::connect(gateway.address).unwrap();
    served.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut ask = |path: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\r\n", basic("DOC", CANARY));
        served.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 16 * 1024];
        let count = served.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..count]).into_owned()
    };
    assert!(ask("/people/ANA").starts_with("HTTP/1.1 200"));
    let idle: Vec<_> = (0..1100).map(|_| TcpStream::connect(gateway.address).unwrap()).collect();
    let deadline = Instant::now() + PATIENCE;
    // Connections over the limit are closed; others stay.
    let is_open = |connection: &TcpStream| {
        connection.set_nonblocking(true).unwrap();
        matches!(connection.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    };
    while idle.iter().filter(|connection| is_open(connection)).count() != 276 {
        assert!(Instant::now() < deadline, "{}", idle.iter().filter(|connection| is_open(connection)).count());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!((gateway.admin_get("/livez").status, gateway.admin_get("/readyz").status), (200, 200));
    assert!(ask("/people/ANA").starts_with("HTTP/1.1 200"), "upstream and store have theirs");
    assert_eq!(gateway.log_lines("no connection can be accepted", began), 0);
}

#[test]
fn a_shortage_of_descriptors_is_logged_once() {
    let under = ["sh", "-c", "ulimit -n 1024 && exec \"$@\"", "sh"];
    let began = Instant::now();
    let gateway = Gateway::start_as(&Setup { under: &under, ..Setup::default() });
    // The gateway has opened all that it opens at a start.
    assert_eq!(gateway.get("/people/ANA", "ANA").status, 200);
    let pid = rustix::process::Pid::from_raw(i32::try_from(gateway.child.id()).unwrap()).unwrap();
    // As if another process had taken all descriptors (prlimit(2)).
    let none = Rlimit { current: Some(1), maximum: Some(1024) };
    let before = rustix::process::prlimit(Some(pid), Resource::Nofile, none).unwrap();
    let _waits = TcpStream::connect(gateway.address).unwrap();
    gateway.logged("no connection can be accepted", began, PATIENCE).expect("it is told");
    // The time is what is tested: twenty more attempts, one every 50 ms. Nothing but the log would show one.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(gateway.log_lines("no connection can be accepted", began), 1);
    rustix::process::prlimit(Some(pid), Resource::Nofile, before).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while gateway.log_lines("connections are accepted again", began) == 0 {
        assert_eq!(gateway.get("/people/ANA", "ANA").status, 200);
        assert!(Instant::now() < deadline, "that it is over is told, too");
        std::thread::sleep(Duration::from_millis(100));
    }
}
