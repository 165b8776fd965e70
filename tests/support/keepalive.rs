//! A client that keeps its connection and never retries: a failure is reported, and the next request connects
//! again.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// Longer than any wait of the gateway.
const PATIENCE: Duration = Duration::from_secs(20);

trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

pub struct Connection {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    stream: Option<BufReader<Box<dyn Stream>>>,
}

/// An answer, without its body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub request_id: String,
}

/// A GET with the value of an `Authorization` header, ready to send.
pub fn get(target: &str, authorization: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: hospital.example\r\nAuthorization: {authorization}\r\n\r\n").into_bytes()
}

/// Sends bytes over a new connection and reads until it ends.
pub fn whole(address: SocketAddr, request: &[u8]) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

impl Connection {
    pub fn to(address: SocketAddr) -> Self {
        Self { address, tls: None, stream: None }
    }

    /// A connection over TLS, to `localhost`.
    pub fn over_tls(address: SocketAddr, tls: &Arc<ClientConfig>) -> Self {
        Self { address, tls: Some(Arc::clone(tls)), stream: None }
    }

    /// Closes the connection: the next request connects again.
    pub fn close(&mut self) {
        self.stream = None;
    }

    /// Sends one request and reads its answer to the end.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        stream.get_mut().write_all(request)?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended before the answer"));
            }
        }
        let header = |name: &str| {
            head.lines().filter_map(|line| line.split_once(": ")).find(|(known, _)| known.eq_ignore_ascii_case(name))
        };
        let length = header("content-length").map_or(0, |(_, value)| value.parse().unwrap());
        // An answer to HEAD states the length of a body that it does not send.
        let length = if request.starts_with(b"HEAD ") { 0 } else { length };
        stream.read_exact(&mut vec![0; length])?;
        if header("transfer-encoding").is_some() {
            let mut line = String::new();
            while !line.ends_with("\r\n0\r\n\r\n") && line != "0\r\n\r\n" {
                if stream.read_line(&mut line)? == 0 {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended in a body"));
                }
            }
        }
        let status = head.split(' ').nth(1).unwrap_or_default().parse().unwrap_or_default();
        let request_id = header("x-request-id").map_or(String::new(), |(_, value)| value.to_owned());
        if !header("connection").is_some_and(|(_, value)| value.eq_ignore_ascii_case("close")) {
            self.stream = Some(stream);
        }
        Ok(Answer { status, request_id })
    }

    fn connect(&self) -> io::Result<BufReader<Box<dyn Stream>>> {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = "localhost".try_into().map_err(io::Error::other)?;
                let session = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(session, stream))
            }
        };
        Ok(BufReader::new(stream))
    }
}
