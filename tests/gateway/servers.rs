//! Several servers of one upstream: which one takes a request, and which are left out.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::atomic::Ordering;

use crate::fixture::{Response, find_header};
use crate::scripted::{OK, Server, before, before_one, until};
use crate::support::free_address;

const PROBED: &str = "[upstream.health]\npath = \"/alive\"\ninterval_ms = 30\nunhealthy_after = 2\nhealthy_after = 2\n";
const NEVER_EJECTED: &str = "[upstream.ejection]\nfailures = 0\n";

fn addresses(servers: &[Server]) -> Vec<String> {
    servers.iter().map(|server| server.address.to_string()).collect()
}

fn loads(servers: &[Server]) -> Vec<usize> {
    servers.iter().map(|server| server.seen().len()).collect()
}

#[test]
fn each_takes_its_turn() {
    let servers = [Server::good(), Server::good(), Server::good()];
    let gateway = before(&addresses(&servers), "");
    for _ in 0..4 {
        for method in ["GET", "POST", "PUT"] {
            assert_eq!(gateway.call(method, "1"), 200);
        }
    }
    assert_eq!(loads(&servers), [4, 4, 4]);
}

#[test]
fn one_persons_record_stays_with_one_server_and_only_the_lost_ones_move() {
    let servers = [Server::good(), Server::good(), Server::good()];
    let gateway = before(&addresses(&servers), &format!("balance = \"consistent\"\n{PROBED}"));
    let subjects: Vec<String> = (0..24).map(|number| format!("PERSON{number}")).collect();
    let homes = || {
        let home = |subject: &String| {
            assert_eq!(gateway.record_of(subject), 200);
            let line = format!("GET /s/{subject} ");
            servers.iter().map(|server| server.seen().iter().filter(|seen| seen.starts_with(&line)).count()).collect()
        };
        subjects.iter().map(home).collect::<Vec<Vec<usize>>>()
    };
    let first = homes();
    assert!(first.iter().all(|counts| counts.iter().sum::<usize>() == 1), "{first:?}");
    let used = (0..3).filter(|server| first.iter().any(|counts| counts[*server] > 0)).count();
    assert_eq!(used, 3, "24 subjects are spread: {first:?}");
    let second = homes();
    assert!(first.iter().zip(&second).all(|(a, b)| a.iter().zip(b).all(|(a, b)| 2 * a == *b)), "all came back");

    servers[1].lives.store(false, Ordering::SeqCst);
    let healthy = format!("fedgate_upstream_healthy{{server=\"{}\",upstream=\"x\"}}", servers[1].address);
    until("the dead server was not noticed", || gateway.figure(&healthy) == 0.0);
    for (before, after) in first.iter().zip(homes()) {
        match before[1] {
            0 => assert!(before.iter().zip(&after).all(|(a, b)| 3 * a == *b), "{before:?} moved: {after:?}"),
            _ => assert_eq!(after[1], 2, "nothing more went to the dead server"),
        }
    }
}

#[test]
fn a_server_that_fails_its_probes_gets_nothing_until_it_passes_them() {
    let servers = [Server::good(), Server::good()];
    let gateway = before(&addresses(&servers), &format!("{PROBED}{NEVER_EJECTED}"));
    let start = std::time::Instant::now();
    servers[0].lives.store(false, Ordering::SeqCst);
    gateway.logged("is unhealthy and gets no requests", start, crate::fixture::PATIENCE).expect("it is told");
    let before = loads(&servers)[0];
    (0..6).for_each(|_| assert_eq!(gateway.call("POST", "1"), 200));
    assert_eq!(loads(&servers)[0], before);
    servers[0].lives.store(true, Ordering::SeqCst);
    gateway.logged("is healthy again", start, crate::fixture::PATIENCE).expect("it is told");
    (0..6).for_each(|_| assert_eq!(gateway.call("POST", "1"), 200));
    assert_eq!(loads(&servers)[0], before + 3);
    // If no server passes its probe, all are used, and they turn out to be healthy.
    servers.iter().for_each(|server| server.lives.store(false, Ordering::SeqCst));
    let healthy = |server: &Server| format!("fedgate_upstream_healthy{{server=\"{}\",upstream=\"x\"}}", server.address);
    until("they are not noticed", || servers.iter().all(|server| gateway.figure(&healthy(server)) == 0.0));
    assert_eq!(gateway.call("POST", "1"), 502);
    servers.iter().for_each(|server| server.lives.store(true, Ordering::SeqCst));
    assert_eq!(gateway.call("POST", "1"), 200);
}

#[test]
fn a_probe_carries_nothing_that_lets_anybody_in() {
    let server = Server::good();
    let gateway = before_one(&server, &format!("forward_authorization = true\n{PROBED}"));
    assert_eq!(gateway.record_of("ANA"), 200);
    assert!(find_header(&server.seen()[0], "authorization").is_some());
    until("no probe", || server.probes().len() > 2);
    for probe in server.probes() {
        let names: Vec<String> =
            probe.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0.to_ascii_lowercase())).collect();
        assert!(probe.starts_with("GET /alive HTTP/1.1\r\n"), "{probe}");
        assert_eq!(names, ["host", "user-agent", "connection"], "{probe}");
    }
}

#[test]
fn without_a_path_a_connection_is_proof_of_life() {
    let (dead, alive) = (free_address(), Server::good());
    let probed = "[upstream.health]\ninterval_ms = 30\nunhealthy_after = 1\nhealthy_after = 1\n";
    let start = std::time::Instant::now();
    let gateway = before(&[dead.to_string(), alive.address.to_string()], &format!("{probed}{NEVER_EJECTED}"));
    gateway.logged("is unhealthy", start, crate::fixture::PATIENCE).expect("it is told");
    (0..4).for_each(|_| assert_eq!(gateway.call("POST", "1"), 200));
    let back = Server::listen(TcpListener::bind(dead).unwrap(), |exchange| exchange.write(OK));
    gateway.logged("is healthy again", start, crate::fixture::PATIENCE).expect("it is told");
    (0..4).for_each(|_| assert_eq!(gateway.call("POST", "1"), 200));
    assert_eq!(loads(&[back, alive]), [2, 6]);
}

#[test]
fn a_failed_connection_is_tried_at_another_server_once_and_never_for_post_or_patch() {
    let (dead, alive) = (free_address(), Server::good());
    let gateway = before(&[dead.to_string(), alive.address.to_string()], NEVER_EJECTED);
    for method in ["GET", "PUT", "DELETE"] {
        let told = [(); 4].map(|()| gateway.call(method, "1"));
        assert_eq!(told, [200; 4], "{method}");
    }
    let retries = gateway.figure(&format!("fedgate_upstream_retries_total{{server=\"{dead}\",upstream=\"x\"}}"));
    assert_eq!((retries, alive.seen().len()), (6.0, 12), "every other one went to the dead server first");
    for method in ["POST", "PATCH"] {
        let mut told = [(); 4].map(|()| gateway.call(method, "1"));
        told.sort_unstable();
        assert_eq!(told, [200, 200, 502, 502], "{method}");
    }
    assert_eq!(alive.seen().len(), 16);
    let failures = |address| format!("fedgate_upstream_failures_total{{server=\"{address}\",upstream=\"x\"}}");
    assert_eq!(gateway.figure(&failures(dead)), 10.0);

    let (dead, gone) = (free_address(), free_address());
    let gateway = before(&[dead.to_string(), gone.to_string()], NEVER_EJECTED);
    assert_eq!(gateway.call("GET", "1"), 502);
    assert_eq!((gateway.figure(&failures(dead)), gateway.figure(&failures(gone))), (1.0, 1.0), "once each");
    let retries =
        |address| gateway.figure(&format!("fedgate_upstream_retries_total{{server=\"{address}\",upstream=\"x\"}}"));
    assert_eq!(retries(dead) + retries(gone), 1.0);
}

#[test]
fn a_server_that_fails_requests_is_left_out() {
    let failing =
        Server::start(|exchange| exchange.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"));
    let rude = Server::start(|exchange| exchange.request.starts_with("never"));
    for bad in [failing, rude] {
        let good = Server::good();
        let servers = [bad, good];
        let gateway =
            before(&addresses(&servers), "[upstream.ejection]\nfailures = 3\nseconds = 3600\nmax_seconds = 3600\n");
        let told: Vec<u16> = (0..20).map(|_| gateway.call("POST", "1")).collect();
        assert_eq!(told.iter().filter(|status| **status != 200).count(), 3, "{told:?}");
        assert_eq!(loads(&servers), [3, 17]);
        let ejections = format!("fedgate_upstream_ejections_total{{server=\"{}\",upstream=\"x\"}}", servers[0].address);
        assert_eq!(gateway.figure(&ejections), 1.0);
    }
}

#[test]
fn a_server_that_is_too_busy_for_one_request_is_not_left_out() {
    let busy = b"HTTP/1.1 503 Service Unavailable\r\nFedgate-Busy: 1\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    let servers = [Server::start(|exchange| exchange.write(busy)), Server::good()];
    let gateway =
        before(&addresses(&servers), "[upstream.ejection]\nfailures = 3\nseconds = 3600\nmax_seconds = 3600\n");
    let told: Vec<Response> = (0..20).map(|_| gateway.call_with("POST", "1", "{}")).collect();
    assert_eq!(loads(&servers), [10, 10]);
    let refused: Vec<&Response> = told.iter().filter(|answer| answer.status == 503).collect();
    assert_eq!(refused.len(), 10);
    for answer in refused {
        assert_eq!(
            (answer.header("retry-after").as_deref(), answer.header("fedgate-busy")),
            (Some("1"), None),
            "{answer:?}"
        );
    }
    let healthy = format!("fedgate_upstream_healthy{{server=\"{}\",upstream=\"x\"}}", servers[0].address);
    assert_eq!(gateway.figure(&healthy), 1.0);
    let old_name = healthy.replace("_healthy", "_well");
    assert_eq!(gateway.figure(&old_name), 1.0, "it stays for one version");
}

#[test]
fn one_server_alone_is_never_left_out() {
    let server =
        Server::start(|exchange| exchange.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"));
    let gateway = before_one(&server, "[upstream.ejection]\nfailures = 1\n");
    let healthy = format!("fedgate_upstream_healthy{{server=\"{}\",upstream=\"x\"}}", server.address);
    assert_eq!(gateway.figure(&healthy), 1.0);
    (0..5).for_each(|_| assert_eq!(gateway.call("POST", "1"), 503));
    assert_eq!(server.seen().len(), 5);
    until("a server that fails is not healthy", || gateway.figure(&healthy) == 0.0);
    assert_eq!(gateway.admin_get("/readyz").json()["upstreams"]["x"], 0);
}

#[test]
fn servers_have_names_and_sockets() {
    let server = Server::good();
    let dir = std::env::temp_dir().join(format!("fedgate-socket-{:x}", rand::random::<u64>()));
    std::fs::create_dir_all(&dir).unwrap();
    let socket = dir.join("his.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                while stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) && stream.write_all(OK).is_ok() {}
            });
        }
    });
    let name = format!("LocalHost:{}", server.address.port());
    let gateway = before(&[name, format!("unix:{}", socket.display())], "");
    (0..6).for_each(|_| assert_eq!(gateway.call("POST", "1"), 200));
    assert_eq!(server.seen().len(), 3);
    std::fs::remove_dir_all(&dir).unwrap();
}
