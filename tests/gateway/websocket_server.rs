//! A service with WebSockets, in hand-made bytes, and clients of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fedgate_core::admission::accept_of;

use crate::fixture::{CANARY, Gateway, PATIENCE, basic, find_header};
use crate::gateway::tls::{client, connect_as};

/// The example of RFC 6455, 1.3.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The service. What it does follows from the last segment of the path.
#[derive(Clone)]
pub(crate) struct SocketServer {
    pub(crate) address: SocketAddr,
    /// Each head with the bytes that came with it.
    seen: Arc<Mutex<Vec<String>>>,
    open: Arc<AtomicUsize>,
}

impl SocketServer {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap(), seen: Arc::default(), open: Arc::default() };
        let shared = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, shared) = (stream.unwrap(), shared.clone());
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        server
    }

    fn serve(&self, mut stream: TcpStream) {
        self.open.fetch_add(1, Ordering::SeqCst);
        let _ = self.answer(&mut stream);
        let _ = stream.shutdown(std::net::Shutdown::Both);
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    fn answer(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let (mut received, mut block) = (vec![], [0; 64 * 1024]);
        while !received.windows(4).any(|four| four == b"\r\n\r\n") {
            match stream.read(&mut block)? {
                0 => return Ok(()),
                count => received.extend_from_slice(&block[..count]),
            }
        }
        let head = String::from_utf8_lossy(&received).into_owned();
        self.seen.lock().unwrap().push(head.clone());
        let key = find_header(&head, "sec-websocket-key").unwrap_or_default();
        let mut accept = accept_of(&key);
        let target = head.split(' ').nth(1).unwrap().to_owned();
        let kind = target.split('?').next().unwrap().rsplit('/').next().unwrap();
        let (mut upgrade, mut more) = ("websocket", String::new());
        match kind {
            "plain" => return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"),
            "denied" => return stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"),
            "never" => return until_end(stream),
            "wrong" => accept = accept_of("other"),
            "other" => upgrade = "h2c",
            "unoffered" => more = "Sec-WebSocket-Protocol: other\r\n".into(),
            "chat" => more = "Sec-WebSocket-Protocol: chat\r\nSet-Cookie: a=b\r\nServer: x\r\n".into(),
            _ => {}
        }
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: {upgrade}\r\nConnection: upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
        );
        // The first frame comes with the answer.
        stream.write_all(&[answer.as_bytes(), &frame(b"hello")].concat())?;
        match kind {
            "flood" => loop {
                stream.write_all(&frame(&[b'x'; 60_000]))?;
            },
            "half" => {
                stream.write_all(&[0x82, 100, b'a'])?;
                until_end(stream)
            }
            "deaf" => loop {
                std::thread::sleep(Duration::from_millis(50));
                if self.seen.lock().unwrap().is_empty() {
                    return Ok(());
                }
            },
            "bye" => Ok(()),
            _ => loop {
                let count = stream.read(&mut block)?;
                if count == 0 {
                    return Ok(());
                }
                stream.write_all(&block[..count])?;
            },
        }
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Forgets what it has seen, and lets those go that only wait.
    pub(crate) fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    /// Waits until so many connections are open.
    pub(crate) fn has_open(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.open.load(Ordering::SeqCst) != count {
            assert!(Instant::now() < deadline, "{} connections, not {count}", self.open.load(Ordering::SeqCst));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The configuration of a gateway in front of it.
    pub(crate) fn routes(&self) -> String {
        let route = |path: &str, more: &str| {
            format!("[[route]]\npath = \"{path}\"\nmethods = [\"GET\"]\nupstream = \"sockets\"\n{more}\n")
        };
        format!(
            "[[upstream]]\nname = \"sockets\"\naddress = \"{}\"\n{}{}{}{}",
            self.address,
            route("/ws/{kind}", "endpoint = \"messages\"\nstream = true"),
            route("/feeds/{person}/{kind}", "endpoint = \"person\"\nsubject = \"person\"\nstream = true"),
            route("/open/{kind}", "public = true\nstream = true"),
            route("/still/{kind}", "endpoint = \"messages\"")
        )
    }
}

fn until_end(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut block = [0; 4096];
    while stream.read(&mut block)? > 0 {}
    Ok(())
}

/// A frame of binary data, as a server sends it.
pub(crate) fn frame(content: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x82];
    match content.len() {
        length @ ..=125 => frame.push(length as u8),
        length @ ..=0xffff => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(content);
    frame
}

/// A request for a WebSocket.
pub(crate) fn handshake(path: &str, account: &str, more: &str) -> String {
    let authorization = match account {
        "" => String::new(),
        account => format!("Authorization: {}\r\n", basic(account, CANARY)),
    };
    format!(
        "GET {path} HTTP/1.1\r\nHost: hospital.example\r\n{authorization}Upgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

trait ReadWrite: Read + Write + Send {}
impl<T: Read + Write + Send> ReadWrite for T {}

/// A client's side.
pub(crate) struct Socket {
    stream: Box<dyn ReadWrite>,
    pub(crate) head: String,
    pub(crate) received: Vec<u8>,
}

impl Socket {
    /// Opens a WebSocket, and waits for the first frame.
    pub(crate) fn open(gateway: &Gateway, path: &str, account: &str) -> Self {
        let mut socket = Self::ask(gateway, false, &handshake(path, account, ""));
        assert_eq!(socket.status(), 101, "{}", socket.head);
        socket.hears(&frame(b"hello"));
        socket
    }

    /// Sends bytes, and reads the head of the answer.
    pub(crate) fn ask(gateway: &Gateway, over_tls: bool, bytes: &str) -> Self {
        let mut stream: Box<dyn ReadWrite> = match over_tls {
            true => Box::new(
                connect_as(gateway, client(gateway, &[&rustls::version::TLS13], &[b"http/1.1"]), "localhost").unwrap(),
            ),
            false => {
                let stream = TcpStream::connect(gateway.address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                Box::new(stream)
            }
        };
        stream.write_all(bytes.as_bytes()).unwrap();
        stream.flush().unwrap();
        let mut socket = Self { stream, head: String::new(), received: vec![] };
        let end = loop {
            if let Some(end) = socket.received.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            assert!(socket.more() > 0, "no head: {:?}", String::from_utf8_lossy(&socket.received));
        };
        let rest = socket.received.split_off(end + 4);
        socket.head = String::from_utf8_lossy(&std::mem::replace(&mut socket.received, rest)).into_owned();
        socket
    }

    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn says(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    /// Sends bytes until the other side has gone.
    pub(crate) fn floods(mut self) {
        while self.stream.write_all(&[0; 64 * 1024]).is_ok() {}
    }

    fn more(&mut self) -> usize {
        let mut block = [0; 64 * 1024];
        let count = self.stream.read(&mut block).unwrap_or_default();
        self.received.extend_from_slice(&block[..count]);
        count
    }

    /// Waits for bytes, and forgets all up to them.
    pub(crate) fn hears(&mut self, bytes: &[u8]) {
        loop {
            if let Some(at) = self.received.windows(bytes.len()).position(|window| window == bytes) {
                self.received.drain(..at + bytes.len());
                return;
            }
            assert!(self.more() > 0, "{} bytes, and an end", self.received.len());
        }
    }

    /// Sends bytes, and waits until they come back; whether it has ended instead.
    pub(crate) fn ends_or_echoes(&mut self, bytes: &[u8]) -> bool {
        if self.stream.write_all(bytes).and_then(|()| self.stream.flush()).is_err() {
            return true;
        }
        loop {
            if let Some(at) = self.received.windows(bytes.len()).position(|window| window == bytes) {
                self.received.drain(..at + bytes.len());
                return false;
            }
            if self.more() == 0 {
                return true;
            }
        }
    }

    /// Waits for the end; what came before it.
    pub(crate) fn ends(&mut self) -> Vec<u8> {
        let began = Instant::now();
        while self.more() > 0 {
            assert!(began.elapsed() < PATIENCE, "it goes on");
        }
        assert!(began.elapsed() < PATIENCE, "it does not end");
        std::mem::take(&mut self.received)
    }
}
