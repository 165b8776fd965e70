//! A service with an event stream, and readers of it over both versions of HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use http::header;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::fixture::{CANARY, Gateway, PATIENCE, basic};
use crate::support::tls::believing;

/// The service.
#[derive(Clone)]
pub(crate) struct StreamServer {
    pub(crate) address: std::net::SocketAddr,
    events: broadcast::Sender<Option<Bytes>>,
    connections: Arc<AtomicUsize>,
}

impl StreamServer {
    /// Listens, and speaks HTTP/2 by prior knowledge, or HTTP/1.1.
    pub(crate) async fn start(http2: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, events) = (listener.local_addr().unwrap(), broadcast::channel(1000).0);
        let server = Self { address, events, connections: Arc::default() };
        let router = Router::new()
            .route("/live", get(live))
            .route("/poll", get(poll))
            .route("/finite", get(async || "all of it"))
            .with_state(server.clone());
        let counted = Arc::clone(&server.connections);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let (stream, service) = (TokioIo::new(stream), TowerToHyperService::new(router.clone()));
                tokio::spawn(async move {
                    if http2 {
                        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        let _ = builder.serve_connection(stream, service).await;
                    } else {
                        let builder = hyper::server::conn::http1::Builder::new();
                        let _ = builder.serve_connection(stream, service).await;
                    }
                });
            }
        });
        server
    }

    /// Sends an event to every reader.
    pub(crate) fn say(&self, event: &str) {
        let _ = self.events.send(Some(format!("data: {event}\n\n").into()));
    }

    /// Ends every stream.
    pub(crate) fn end(&self) {
        let _ = self.events.send(None);
    }

    /// The open streams.
    pub(crate) fn readers(&self) -> usize {
        self.events.receiver_count()
    }

    /// The connections that were ever made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The configuration of a gateway in front of it, in addition to its usual upstream.
    pub(crate) fn routes(&self) -> String {
        let route = |path: &str, more: &str| {
            format!(
                "[[route]]\npath = \"{path}\"\nmethods = [\"GET\"]\nupstream = \"streams\"\nstream = true\n{more}\n"
            )
        };
        let (asked, public) = ("endpoint = \"messages\"", "public = true");
        format!(
            "[[upstream]]\nname = \"streams\"\naddress = \"{}\"\n{}{}{}",
            self.address,
            route("/live", asked),
            route("/poll", asked),
            route("/finite", public)
        )
    }
}

async fn live(State(server): State<StreamServer>) -> Response {
    let events = server.events.subscribe();
    let events = stream::unfold(events, async |mut events| {
        let event = events.recv().await.ok().flatten()?;
        Some((Ok::<_, std::convert::Infallible>(event), events))
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}

/// Answers with the next event alone.
async fn poll(State(server): State<StreamServer>) -> Response {
    let event = server.events.subscribe().recv().await.unwrap();
    event.unwrap_or_default().into_response()
}

/// The version of HTTP that a reader speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

pub(crate) const BOTH: [Version; 2] = [Version::Http1, Version::Http2];

/// How an answer ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As its framing says.
    Whole,
    /// Without its end.
    BrokenOff,
}

/// A reader of an answer.
pub(crate) struct Reader {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
    source: Source,
}

enum Source {
    Http1(TcpStream),
    Http2(h2::RecvStream, #[expect(dead_code, reason = "held, not read")] h2::client::SendRequest<Bytes>),
}

impl Reader {
    /// Asks for a path, and reads the head.
    pub(crate) async fn open(gateway: &Gateway, version: Version, path: &str, account: &str) -> Self {
        Self::open_as(gateway, version, path, account, "*/*").await
    }

    /// The same, as a client that accepts this.
    pub(crate) async fn open_as(gateway: &Gateway, version: Version, path: &str, account: &str, accept: &str) -> Self {
        let opened = async {
            match version {
                Version::Http1 => {
                    let stream = TcpStream::connect(gateway.address).await.unwrap();
                    Self::ask_http1(stream, "HTTP/1.1", path, account, accept).await
                }
                Version::Http2 => Self::ask_http2(connect(gateway).await, path, account, accept).await,
            }
        };
        timeout(PATIENCE, opened).await.expect("a head")
    }

    /// The same in a version of HTTP/1.
    pub(crate) async fn open_http1(gateway: &Gateway, version: &str, path: &str, account: &str) -> Self {
        let stream = TcpStream::connect(gateway.address).await.unwrap();
        Self::ask_http1(stream, version, path, account, "*/*").await
    }

    async fn ask_http1(mut stream: TcpStream, version: &str, path: &str, account: &str, accept: &str) -> Self {
        let authorization = basic(account, CANARY);
        let request = format!(
            "GET {path} {version}\r\nHost: hospital.example\r\nAccept: {accept}\r\nAuthorization: \
             {authorization}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reader = Self { status: 0, head: String::new(), text: String::new(), source: Source::Http1(stream) };
        while !reader.text.contains("\r\n\r\n") {
            assert!(reader.more().await.is_some(), "no head: {:?}", reader.text);
        }
        let (head, rest) =
            reader.text.split_once("\r\n\r\n").map(|(head, rest)| (head.to_owned(), rest.to_owned())).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head, text: rest, ..reader }
    }

    /// The same as a stream of an HTTP/2 connection.
    pub(crate) async fn open_http2(connection: h2::client::SendRequest<Bytes>, path: &str, account: &str) -> Self {
        Self::ask_http2(connection, path, account, "*/*").await
    }

    async fn ask_http2(connection: h2::client::SendRequest<Bytes>, path: &str, account: &str, accept: &str) -> Self {
        let mut connection = connection.ready().await.unwrap();
        let request = http::Request::get(format!("https://localhost{path}"));
        let request =
            request.header("accept", accept).header("authorization", basic(account, CANARY)).body(()).unwrap();
        let (answer, _) = connection.send_request(request, true).unwrap();
        let answer = answer.await.unwrap();
        let (head, body) = answer.into_parts();
        let source = Source::Http2(body, connection);
        Self { status: head.status.as_u16(), head: format!("{:?}", head.headers), text: String::new(), source }
    }

    /// Reads the next bytes; how the answer ended, if it has.
    async fn read(&mut self) -> Result<(), End> {
        match &mut self.source {
            Source::Http1(stream) => {
                let mut block = [0; 4096];
                let count = stream.read(&mut block).await.unwrap_or_default();
                self.text.push_str(&String::from_utf8_lossy(&block[..count]));
                let is_whole = self.text.ends_with("0\r\n\r\n");
                if count > 0 && !is_whole { Ok(()) } else { Err(if is_whole { End::Whole } else { End::BrokenOff }) }
            }
            Source::Http2(body, _) => match body.data().await {
                Some(Ok(bytes)) => {
                    let _ = body.flow_control().release_capacity(bytes.len());
                    self.text.push_str(&String::from_utf8_lossy(&bytes));
                    Ok(())
                }
                Some(Err(_)) => Err(End::BrokenOff),
                None => Err(End::Whole),
            },
        }
    }

    async fn more(&mut self) -> Option<()> {
        timeout(PATIENCE, self.read()).await.expect("bytes, or an end").ok()
    }

    /// Waits for words in the answer.
    pub(crate) async fn hears(&mut self, words: &str) {
        while !self.text.contains(words) {
            assert!(self.more().await.is_some(), "`{words}` never comes: {:?}", self.text);
        }
    }

    /// Waits for the end of the answer.
    pub(crate) async fn ends(&mut self) -> End {
        loop {
            if let Err(end) = timeout(PATIENCE, self.read()).await.expect("an end") {
                return end;
            }
        }
    }
}

/// An HTTP/2 connection to a gateway.
pub(crate) async fn connect(gateway: &Gateway) -> h2::client::SendRequest<Bytes> {
    let mut trusting = believing(&gateway.dir.join("cert.pem"), rustls::ALL_VERSIONS).with_no_client_auth();
    trusting.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(gateway.tls_address).await.unwrap();
    let tls = TlsConnector::from(Arc::new(trusting)).connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    let (sender, connection) = h2::client::handshake(tls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    sender
}
