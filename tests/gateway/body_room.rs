//! The room for guarded bodies, which are held until they are judged: one caller has a share of it.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::fixture::{CANARY, PATIENCE, basic};
use crate::gateway::fields::{guarded, send};
use crate::scripted::until;

/// The body of a slow upload: all that may be sent, and how much of it is.
const ANNOUNCED: usize = 1024 * 1024;
const SENT: usize = ANNOUNCED - 70_000;
/// More uploads than one caller's share holds (64 MiB of 256).
const UPLOADS: usize = 76;

#[test]
fn slow_uploads_of_one_account_leave_room_for_the_bodies_of_others() {
    let (gateway, _thalamus) = guarded();
    let head = format!(
        "PATCH /people/ANA HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nContent-Type: application/json\r\n\
         Content-Length: {ANNOUNCED}\r\n\r\n{{\"x\":\"",
        basic("ANA", CANARY)
    );
    let part = [head.as_bytes(), &vec![b'a'; SENT - 6]].concat();
    let uploads: Vec<_> = (0..UPLOADS)
        .map(|_| {
            let mut stream = TcpStream::connect(gateway.address).unwrap();
            // One that is refused may be closed before it has been sent.
            let _ = stream.write_all(&part);
            stream.set_nonblocking(true).unwrap();
            stream
        })
        .collect();
    let refused = || uploads.iter().find(|stream| matches!(stream.peek(&mut [0]), Ok(count) if count > 0));
    until("uploads over the share are refused", || refused().is_some());
    let mut one = refused().unwrap();
    one.set_nonblocking(false).unwrap();
    one.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = vec![0; 4096];
    let count = one.read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"code\":\"busy\""), "{answer}");
    let held = uploads
        .iter()
        .filter(|stream| matches!(stream.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock));
    assert!(held.count() > UPLOADS / 2, "the others go on");
    let small = |account: &str, subject: &str| {
        let target = format!("/people/{subject}");
        send(&gateway, "PATCH", &target, account, "Content-Type: application/json\r\n", b"{\"x\":1}").status
    };
    assert_eq!(small("DOC", "BOB"), 200, "another account has a share of its own");
    drop(uploads);
    until("her room is given back", || small("ANA", "ANA") == 200);
}
