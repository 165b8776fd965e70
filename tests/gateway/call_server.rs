//! A service with calls over HTTP/2, as gRPC has them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use h2::SendStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The service. What it does follows from the last segment of the path.
#[derive(Clone)]
pub(crate) struct CallServer {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    running: watch::Sender<usize>,
}

impl CallServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, seen: Arc::default(), running: watch::channel(0).0 };
        let shared = server.clone();
        tokio::spawn(async move {
            loop {
                tokio::spawn(shared.clone().serve(listener.accept().await.unwrap().0));
            }
        });
        server
    }

    async fn serve(self, stream: TcpStream) {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((request, respond))) = connection.accept().await {
            let shared = self.clone();
            tokio::spawn(async move {
                shared.running.send_modify(|running| *running += 1);
                shared.answer(request, respond).await;
                shared.running.send_modify(|running| *running -= 1);
            });
        }
    }

    async fn answer(&self, request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) -> Option<()> {
        let head = format!("{} {} {:?}", request.method(), request.uri().path(), request.headers());
        self.seen.lock().unwrap().push(head);
        let kind = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let mut body = request.into_body();
        let answer = || Response::builder().header("content-type", "application/grpc").header("server", "x");
        match kind.as_str() {
            "Fail" => {
                let failed = answer().header("grpc-status", "5").body(()).unwrap();
                respond.send_response(failed, true).ok()?;
            }
            "Silent" => _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await,
            "Early" => {
                let mut to = respond.send_response(answer().body(()).unwrap(), false).ok()?;
                to.send_trailers(trailers("8")).ok()?;
            }
            _ => {
                let mut to = respond.send_response(answer().body(()).unwrap(), false).ok()?;
                while let Some(piece) = body.data().await {
                    let piece = piece.ok()?;
                    let _ = body.flow_control().release_capacity(piece.len());
                    send(&mut to, piece).await?;
                }
                to.send_trailers(trailers("0")).ok()?;
            }
        }
        Some(())
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until so many calls run.
    pub(crate) async fn runs(&self, count: usize) {
        let mut running = self.running.subscribe();
        let reached = running.wait_for(|running| *running == count);
        tokio::time::timeout(crate::fixture::PATIENCE, reached).await.expect("so many calls").unwrap();
    }

    /// The configuration of a gateway in front of it.
    pub(crate) fn routes(&self, max_body_bytes: u64) -> String {
        format!(
            "[[upstream]]\nname = \"calls\"\naddress = \"{}\"\n[[route]]\npath = \"/lab.Results/{{method}}\"\n\
             methods = [\"POST\"]\nendpoint = \"page\"\nupstream = \"calls\"\nstream = true\nmax_body_bytes = \
             {max_body_bytes}\n",
            self.address
        )
    }
}

fn trailers(status: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for (name, value) in [("grpc-status", status), ("grpc-message", "said"), ("set-cookie", "a=b"), ("x-user", "ADM")] {
        trailers.insert(name, value.parse().unwrap());
    }
    trailers
}

/// Sends bytes as the window of the receiver allows.
pub(crate) async fn send(to: &mut SendStream<Bytes>, mut bytes: Bytes) -> Option<()> {
    while !bytes.is_empty() {
        to.reserve_capacity(bytes.len());
        let capacity = match to.capacity() {
            0 => std::future::poll_fn(|cx| to.poll_capacity(cx)).await?.ok()?,
            capacity => capacity,
        };
        to.send_data(bytes.split_to(capacity.min(bytes.len())), false).ok()?;
    }
    Some(())
}
