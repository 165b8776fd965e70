//! A crowd of clients that connect over TLS, ask once, and stay: the cost of each.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fixture::{CANARY, Gateway, basic};
use crate::support::tls::believing;
use crate::support::wanted;

/// The number of clients. `FEDGATE_TEST_CROWD` overrides it.
const CROWD: usize = 1000;
/// The goal is 10,000 in 300 MiB. In a smaller crowd the shared memory weighs more.
const KIB_EACH: u64 = 30;
const KIB_EACH_OF_FEW: u64 = 100;

#[test]
fn an_idle_tls_connection_takes_little_memory_and_the_next_client_is_served() {
    let count = wanted("FEDGATE_TEST_CROWD", CROWD);
    let gateway = Gateway::start_as(&crate::fixture::Setup {
        configuration: &format!(
            "[limits]\nconnections = {0}\nconnections_per_source = {0}\nidle_timeout_seconds = 600\n",
            count + 10
        ),
        ..Default::default()
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // The first clients fill memory that is allocated once.
        let trusting = believing(&gateway.dir.join("cert.pem"), rustls::ALL_VERSIONS);
        let connector = TlsConnector::from(Arc::new(trusting.with_no_client_auth()));
        let warm = crowd(&gateway, &connector, 50).await;
        let before = gateway.resident_kib();
        let asked = crowd(&gateway, &connector, count - warm.len()).await;
        let grown = gateway.resident_kib().saturating_sub(before);
        let each = grown / asked.len() as u64;
        println!("crowd, {} idle TLS connections that have asked once: {grown} KiB, {each} KiB each", asked.len());
        assert!(each <= if count < 10_000 { KIB_EACH_OF_FEW } else { KIB_EACH }, "{each} KiB each");
        assert_eq!(gateway.get("/people/ANA", "ANA").status, 200);
    });
}

async fn crowd(gateway: &Gateway, connector: &TlsConnector, count: usize) -> Vec<TlsStream<TcpStream>> {
    let at_once = Arc::new(Semaphore::new(32));
    let mut guests = tokio::task::JoinSet::new();
    for _ in 0..count {
        let (connector, address, at_once) = (connector.clone(), gateway.tls_address, Arc::clone(&at_once));
        guests.spawn(async move {
            let _turn = at_once.acquire().await.unwrap();
            let tcp = TcpStream::connect(address).await.unwrap();
            let mut stream = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
            let authorization = basic("ANA", CANARY);
            let request =
                format!("GET /people/ANA HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = [0; 4096];
            let mut length = 0;
            while !answer[..length].ends_with(b"\r\n\r\ntrue") {
                let more = stream.read(&mut answer[length..]).await.unwrap();
                assert!(more > 0, "{}", String::from_utf8_lossy(&answer[..length]));
                length += more;
            }
            stream
        });
    }
    guests.join_all().await
}
