//! An HTTP/1.1 client that is small enough to send what no library would.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use fedgate_base::config::Address;

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body ended as its framing says.
    pub is_complete: bool,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The `error` and `code` of a JSON error.
    pub fn error(&self) -> (u16, String, String) {
        let json = self.json();
        let member = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        assert!(json["request_id"].is_string() || self.status == 401, "{json}");
        (self.status, member("error"), member("code"))
    }
}

/// Sends one request on a connection of its own and reads the answer to its end.
pub async fn exchange(address: &Address, head: &str, body: &[u8]) -> Reply {
    match address {
        Address::Tcp(address) => converse(TcpStream::connect(address).await.unwrap(), head, body).await,
        Address::Unix(path) => converse(UnixStream::connect(path).await.unwrap(), head, body).await,
    }
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, head: &str, body: &[u8]) -> Reply {
    stream.write_all(head.as_bytes()).await.unwrap();
    // The service may answer and close before it has read everything.
    let _ = stream.write_all(body).await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    parse(&bytes, head.starts_with("HEAD"))
}

pub fn parse(bytes: &[u8], is_head: bool) -> Reply {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> =
        lines.map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let mut reply = Reply { status, headers, body: Vec::new(), is_complete: true };
    let rest = &bytes[end + 4..];
    if reply.header("transfer-encoding") == Some("chunked") && !is_head {
        (reply.body, reply.is_complete) = unchunk(rest);
    } else {
        let length = reply.header("content-length").map(|length| length.parse::<usize>().unwrap());
        reply.is_complete = is_head || length.is_none_or(|length| length == rest.len());
        reply.body = rest.to_vec();
    }
    reply
}

fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else { return (body, false) };
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        let from = end + 2;
        if size == 0 {
            return (body, true);
        }
        if rest.len() < from + size + 2 {
            body.extend_from_slice(&rest[from..]);
            return (body, false);
        }
        body.extend_from_slice(&rest[from..from + size]);
        rest = &rest[from + size + 2..];
    }
}
