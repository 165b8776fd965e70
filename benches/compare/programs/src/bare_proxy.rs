//! The baseline of the comparison: pingora as it comes, which checks and records nothing.
//!
//!     bare_proxy LISTEN UPSTREAM CERTIFICATE KEY THREADS
//!
//! UPSTREAM is an address, or `unix:` with the path of a socket. Only `benches/compare/run` starts this program.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark ends on anything odd")]

use async_trait::async_trait;
use pingora_core::Result;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    let [listen, upstream, certificate, key, threads] = arguments.as_slice() else {
        panic!("see the head of this file")
    };
    let conf = ServerConf { threads: threads.parse().unwrap(), ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    let peer = match upstream.strip_prefix("unix:") {
        Some(path) => HttpPeer::new_uds(path, false, String::new()).unwrap(),
        None => HttpPeer::new(upstream, false, String::new()),
    };
    let mut service = http_proxy_service(&server.configuration, BareProxy(peer));
    let mut tls = TlsSettings::intermediate(certificate, key).unwrap();
    tls.enable_h2();
    service.add_tls_with_settings(listen, None, tls);
    server.add_service(service);
    server.run_forever();
}
