//! Servers that follow a script, and gateways in front of them.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::fixture::{Gateway, PATIENCE, Response, basic, read_request};

pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue";

/// The input of a script, and the means to answer.
pub(crate) struct Exchange<'a> {
    pub(crate) stream: &'a mut TcpStream,
    /// The request's number on this connection, from 0.
    pub(crate) number: usize,
    pub(crate) request: &'a str,
}

impl Exchange<'_> {
    /// Writes, and returns whether that succeeded. The gateway may have left.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(&self) {
        rustix::net::sockopt::set_socket_linger(&*self.stream, Some(Duration::ZERO)).unwrap();
    }

    /// Writes the bytes repeatedly, and returns whether the gateway ended that.
    pub(crate) fn drip(&mut self, bytes: &[u8]) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if !self.write(bytes) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Whether the gateway ends the connection in time, without another byte.
    pub(crate) fn ends(&mut self) -> bool {
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        match self.stream.read(&mut [0; 64]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// A server. The script decides after each request whether the connection continues.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    received: Arc<Mutex<Vec<u8>>>,
    /// Whether the server answers. If not, it ends every connection at once.
    pub(crate) lives: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(script: impl Fn(&mut Exchange<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    /// A server that answers everything.
    pub(crate) fn good() -> Self {
        Self::start(|exchange| exchange.write(OK))
    }

    pub(crate) fn listen(
        listener: TcpListener,
        script: impl Fn(&mut Exchange<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        let server = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            connections: Arc::default(),
            received: Arc::default(),
            lives: Arc::new(AtomicBool::new(true)),
        };
        let (script, served) = (Arc::new(script), server.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, server) = (Arc::clone(&script), served.clone());
                server.connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || server.serve(stream, &*script));
            }
        });
        server
    }

    fn serve(&self, mut stream: TcpStream, script: &dyn Fn(&mut Exchange<'_>) -> bool) {
        let mut reader = BufReader::new(Noted { stream: stream.try_clone().unwrap(), received: &self.received });
        for number in 0.. {
            let Some(request) = read_request(&mut reader) else { return };
            if !self.lives.load(Ordering::SeqCst) {
                return;
            }
            self.seen.lock().unwrap().push(request.clone());
            if !script(&mut Exchange { stream: &mut stream, number, request: &request }) {
                return;
            }
        }
    }

    /// The requests so far, of clients (`x-request-id` is the gateway's) or of probes.
    fn requests(&self, of_clients: bool) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let is_clients = |request: &&String| request.to_ascii_lowercase().contains("\r\nx-request-id: ") == of_clients;
        seen.iter().filter(is_clients).cloned().collect()
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.requests(true)
    }

    pub(crate) fn probes(&self) -> Vec<String> {
        self.requests(false)
    }

    /// How often a text occurs in all bytes received, whether requests are whole or not.
    pub(crate) fn received(&self, text: &str) -> usize {
        String::from_utf8_lossy(&self.received.lock().unwrap()).matches(text).count()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A connection whose bytes are recorded as they arrive.
struct Noted<'a> {
    stream: TcpStream,
    received: &'a Mutex<Vec<u8>>,
}

impl Read for Noted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.received.lock().unwrap().extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

/// A gateway whose public route `/x/{id}` leads to these servers. `/s/{id}` is a person's record.
pub(crate) fn before(servers: &[String], upstream: &str) -> Gateway {
    before_in(&[], servers, upstream)
}

/// The same with environment variables.
pub(crate) fn before_in(environment: &[(&str, &str)], servers: &[String], upstream: &str) -> Gateway {
    let methods = "[\"GET\", \"POST\", \"PUT\", \"PATCH\", \"DELETE\"]";
    let read_timeout = if upstream.contains("read_timeout_ms") { "" } else { "read_timeout_ms = 1000\n" };
    let configuration = format!(
        "[[upstream]]\nname = \"x\"\nservers = {servers:?}\nconnect_timeout_ms = 500\n{read_timeout}{upstream}\n\
         [[route]]\npath = \"/x/{{id}}\"\nmethods = {methods}\npublic = true\nupstream = \"x\"\n\
         [[route]]\npath = \"/s/{{id}}\"\nmethods = [\"GET\"]\nendpoint = \"person\"\nsubject = \"id\"\nupstream = \"x\"\n"
    );
    // One thread: its requests share the kept connections, which most of these tests are about.
    let environment = &[&[("FEDGATE_GATEWAY_THREADS", "1")], environment].concat();
    Gateway::start_as(&crate::fixture::Setup { environment, configuration: &configuration, ..Default::default() })
}

pub(crate) fn before_one(server: &Server, upstream: &str) -> Gateway {
    before(&[server.address.to_string()], upstream)
}

impl Gateway {
    /// The status of a request to the scripted servers, with a body where the method has one.
    pub(crate) fn call(&self, method: &str, id: &str) -> u16 {
        self.call_with(method, id, "{}").status
    }

    pub(crate) fn call_with(&self, method: &str, id: &str, body: &str) -> Response {
        let (length, body) = match method {
            "GET" | "DELETE" => (String::new(), ""),
            _ => (format!("Content-Length: {}\r\n", body.len()), body),
        };
        let request = format!("{method} /x/{id} HTTP/1.1\r\nHost: a\r\n{length}Connection: close\r\n\r\n{body}");
        self.send(request.as_bytes())
    }

    /// The status of a request for a person's record, by a caller who may read every record.
    pub(crate) fn record_of(&self, subject: &str) -> u16 {
        let authorization = basic("DOC", crate::fixture::CANARY);
        self.send(
            format!(
                "GET /s/{subject} HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\nConnection: close\r\n\r\n"
            )
            .as_bytes(),
        )
        .status
    }

    /// A figure of the metrics, by the beginning of its line; 0 if it is missing.
    pub(crate) fn figure(&self, line: &str) -> f64 {
        let text = self.admin_get("/metrics").body;
        let found = text.lines().find_map(|known| known.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or_default()
    }
}

/// Waits until the condition holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
