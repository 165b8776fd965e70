//! The services behind the proxies: each request head gets an answer that was made at the start.
//!
//! They read no more of a request than they need to find its end, so that the proxies are what is measured.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

/// The bytes of an answer's body, and of the body of a page.
const BODY: usize = 600;
const PAGE: usize = 16 * 1024;

/// The answer of a service to a request head.
type Choice = dyn Fn(&[u8]) -> Arc<[u8]> + Send + Sync;

/// Answers JSON on every one of the addresses.
pub(crate) async fn upstream(listen: &[&str]) {
    let (short, page) = (json(BODY), json(PAGE));
    let choice = move |head: &[u8]| Arc::clone(if head.starts_with(b"GET /pols/") { &page } else { &short });
    let choice: Arc<Choice> = Arc::new(choice);
    for address in &listen[1..] {
        tokio::spawn(serve((*address).to_owned(), Arc::clone(&choice)));
    }
    serve(listen[0].to_owned(), choice).await;
}

/// Answers whether `Authorization` has one of the values in a file.
pub(crate) async fn authorizer(listen: &str, credentials: &str) {
    let text = std::fs::read_to_string(credentials).unwrap();
    let known: HashSet<String> = text.lines().map(str::to_owned).collect();
    let yes: Arc<[u8]> = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".as_slice().into();
    let no: Arc<[u8]> = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".as_slice().into();
    let choice = move |head: &[u8]| {
        let value = header(head, "authorization");
        Arc::clone(if value.is_some_and(|value| known.contains(value)) { &yes } else { &no })
    };
    serve(listen.to_owned(), Arc::new(choice)).await;
}

fn json(length: usize) -> Arc<[u8]> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    (head + &format!("{{\"info\":\"{}\"}}", "x".repeat(length - 11))).into_bytes().into()
}

async fn serve(listen: String, choice: Arc<Choice>) {
    if let Some(path) = listen.strip_prefix("unix:") {
        let listener = UnixListener::bind(path).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(answer_each(stream, Arc::clone(&choice)));
        }
    }
    let listener = TcpListener::bind(&listen).await.unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let _ = stream.set_nodelay(true);
        tokio::spawn(answer_each(stream, Arc::clone(&choice)));
    }
}

async fn answer_each(mut stream: impl AsyncRead + AsyncWrite + Unpin, choice: Arc<Choice>) {
    let mut bytes = Vec::with_capacity(16 * 1024);
    loop {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) else {
            if !stream.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
                return;
            }
            continue;
        };
        let answer = choice(&bytes[..end]);
        let length = header(&bytes[..end], "content-length").map_or(0, |value| value.parse().unwrap());
        while bytes.len() < end + length {
            if !stream.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
                return;
            }
        }
        bytes.drain(..end + length);
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// The value of a header; `name` is in lower case.
fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    head.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
        let is_named = line.len() > name.len()
            && line[name.len()] == b':'
            && line[..name.len()].eq_ignore_ascii_case(name.as_bytes());
        is_named.then(|| std::str::from_utf8(&line[name.len() + 1..]).unwrap().trim())
    })
}
