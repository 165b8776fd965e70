//! Clients that leave around the answer, over both HTTP versions: one record each, with the result of the request.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::fixture::{CANARY, Gateway, PATIENCE, Setup, basic};
use crate::gateway::http2::{Connection, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, block_of, frame, open};
use crate::scripted::until;

/// How a client leaves.
#[derive(Debug, Clone, Copy)]
enum Leave {
    /// It resets the stream and stays connected.
    Reset,
    /// It ends the connection.
    End,
    /// It ends the connection with a reset.
    Abort,
}

/// The part of the client that stays.
type Rest = Option<Connection>;

/// Sends a request when no other is served, and waits until the gateway works on it.
fn until_works(gateway: &Gateway, send: impl FnOnce()) {
    gateway.measures("fedgate_requests_in_flight 0", true);
    send();
    gateway.measures("fedgate_requests_in_flight 1", true);
}

fn over_http2(gateway: &Gateway, method: &str, path: &str, leave: Leave) -> Rest {
    let mut stream = open(gateway);
    let block = block_of(method, path, &[]);
    until_works(gateway, || stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).unwrap());
    match leave {
        Leave::Reset => {
            stream.write_all(&frame(RST_STREAM, 0, 1, &8u32.to_be_bytes())).unwrap();
            return Some(stream);
        }
        Leave::End => {}
        Leave::Abort => rustix::net::sockopt::set_socket_linger(&stream.sock, Some(Duration::ZERO)).unwrap(),
    }
    None
}

fn over_http1(gateway: &Gateway, method: &str, path: &str, leave: Leave) -> Rest {
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    let authorization = basic("ANA", CANARY);
    let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n\r\n");
    until_works(gateway, || stream.write_all(head.as_bytes()).unwrap());
    if let Leave::Abort | Leave::Reset = leave {
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    }
    None
}

/// The records of the file, parsed.
fn records(gateway: &Gateway) -> Vec<Value> {
    let text = std::fs::read_to_string(gateway.dir.join("records.jsonl")).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    // A change of an account is among them.
    lines.filter(|line| line["event"].is_null()).collect()
}

#[test]
fn a_client_that_goes_away_around_the_answer_leaves_one_record() {
    // The account is disabled, so its password is refused, which takes a multiple of this.
    let configuration = "[authentication]\nrejection_step_ms = 400\n[records]\nfile = \"records.jsonl\"\n";
    let mut gateway = Gateway::start_as(&Setup { configuration, ..Default::default() });
    type Go = fn(&Gateway, &str, &str, Leave) -> Rest;
    let versions: [(&str, Go, &[Leave]); 2] = [
        ("HTTP/2", over_http2, &[Leave::Reset, Leave::End, Leave::Abort]),
        ("HTTP/1", over_http1, &[Leave::End, Leave::Abort]),
    ];
    let mut expected = 0;
    for (version, go, leaves) in versions {
        for leave in leaves {
            // A read and a write for which the upstream takes its time.
            for method in ["GET", "POST"] {
                let _stays = go(&gateway, method, "/pols/ANA/slow", *leave);
                expected += 1;
                until("a record", || records(&gateway).len() == expected);
                let record = records(&gateway).pop().unwrap();
                // Over HTTP/1 a client that closed may have closed only its sending half, so it is answered.
                let told = match (version, leave) {
                    ("HTTP/1", Leave::End) => (Some("allow"), Some("own"), Some(200)),
                    _ => (Some("fail"), Some("client_gone"), Some(0)),
                };
                assert_eq!(
                    (record["decision"].as_str(), record["reason"].as_str(), record["status"].as_u64()),
                    told,
                    "{version}, {leave:?}, {method}: {record}"
                );
            }
        }
    }
    // An answer of the gateway itself, which is recorded before it is sent.
    let ana = std::process::Command::new(env!("CARGO_BIN_EXE_fedgate"))
        .args(["account", "disable", "ANA", "--wait", "--config"])
        .arg(gateway.dir.join("fedgate.toml"))
        .output()
        .unwrap();
    assert!(ana.status.success(), "{ana:?}");
    let began = Instant::now();
    for (version, go, leaves) in versions {
        for leave in leaves {
            let _stays = go(&gateway, "GET", "/people/ANA", *leave);
            expected += 1;
            until("a record", || records(&gateway).len() >= expected);
            let record = records(&gateway).pop().unwrap();
            assert_eq!(
                (record["decision"].as_str(), record["reason"].as_str(), record["status"].as_u64()),
                (Some("refuse"), Some("inactive_account"), Some(401)),
                "{version}, {leave:?}: {record}"
            );
        }
    }
    // A stop writes all that there is.
    gateway.signal(Signal::TERM);
    until("the gateway stops", || gateway.child.try_wait().unwrap().is_some());
    assert_eq!(records(&gateway).len(), expected, "no second one: {:?}", records(&gateway));
    for words in ["broke off", "could not be forwarded"] {
        assert_eq!(gateway.logged(words, began, Duration::ZERO), None, "a client that goes away logs nothing");
    }
    assert!(began.elapsed() < PATIENCE * 3);
}
