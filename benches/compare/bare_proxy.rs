//! The baseline of comparisons: pingora as it comes, which checks and records nothing.
//!
//!     bare_proxy proxy LISTEN UPSTREAM CERTIFICATE KEY THREADS
//!     bare_proxy upstream LISTEN
//!
//! `upstream` is the service behind every proxy of the comparison: 600 bytes of JSON for each request head.
//! Only `benches/compare/run` starts it. It is no part of what is installed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark ends on anything odd")]

use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::Result;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The bytes of the answer's body.
const BODY: usize = 600;

struct BareProxy(HttpPeer);

#[async_trait]
impl ProxyHttp for BareProxy {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.0.clone()))
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["proxy", listen, upstream, certificate, key, threads] => {
            let conf = ServerConf { threads: threads.parse().unwrap(), ..ServerConf::default() };
            let mut server = Server::new_with_opt_and_conf(None, conf);
            let peer = HttpPeer::new(*upstream, false, String::new());
            let mut service = http_proxy_service(&server.configuration, BareProxy(peer));
            let mut tls = TlsSettings::intermediate(certificate, key).unwrap();
            tls.enable_h2();
            service.add_tls_with_settings(listen, None, tls);
            server.add_service(service);
            server.run_forever();
        }
        ["upstream", listen] => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            runtime.block_on(serve(listen));
        }
        _ => panic!("see the head of this file"),
    }
}

async fn serve(listen: &str) {
    let listener = TcpListener::bind(listen).await.unwrap();
    let body = format!("{{\"info\":\"{}\"}}", "x".repeat(BODY - 11));
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {BODY}\r\n\r\n");
    let answer: Arc<[u8]> = (head + &body).into_bytes().into();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(answer_each(stream, Arc::clone(&answer)));
    }
}

async fn answer_each(mut stream: TcpStream, answer: Arc<[u8]>) {
    let _ = stream.set_nodelay(true);
    let mut head = Vec::with_capacity(8192);
    while stream.read_buf(&mut head).await.is_ok_and(|count| count > 0) {
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}
