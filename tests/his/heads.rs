//! Heads that do not arrive, and connections that are kept.

use std::time::{Duration, Instant};

use fedgate_base::config::{Address, HeadsConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::support::{His, root};

const PATIENCE: Duration = Duration::from_secs(20);
const HEAD: Duration = Duration::from_millis(400);

/// A service with short limits for heads, and a connection to it.
async fn hasty(idle: Duration) -> (His, His, TcpStream) {
    let usual = His::on_sqlite().await;
    let his = usual.with(|his| his.connections.heads = HeadsConfig { timeout: HEAD, idle }).await;
    let stream = connection(&his).await;
    (usual, his, stream)
}

async fn connection(his: &His) -> TcpStream {
    let Address::Tcp(address) = his.address else { unreachable!() };
    TcpStream::connect(address).await.unwrap()
}

/// Whether the service ends the connection without a byte that could be taken for an answer.
async fn ends(mut stream: impl AsyncReadExt + Unpin) -> bool {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    read.is_ok() && !bytes.starts_with(b"HTTP/1.1 2")
}

/// The status of a request on a kept connection. The answer is read to its end.
async fn ask(his: &His, stream: &mut TcpStream) -> u16 {
    let head = his.request(&root(), "GET", "/login").head().replace("connection: close\r\n", "");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"true") {
        let mut more = [0; 4096];
        let count = stream.read(&mut more).await.unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&more[..count]);
    }
    std::str::from_utf8(&bytes[9..12]).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_head_does_not_arrive_is_closed() {
    let (_usual, his, silent) = hasty(Duration::from_secs(600)).await;
    let mut halted = connection(&his).await;
    halted.write_all(b"GET / HTTP/1.1\r\nhost: h").await.unwrap();
    // A byte now and then does not extend the limit of a head.
    let (reader, mut writer) = connection(&his).await.into_split();
    let drips = tokio::spawn(async move {
        while writer.write_all(b"G").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    // Nor does it for the second head of a connection, after an answer.
    let mut second = connection(&his).await;
    assert_eq!(ask(&his, &mut second).await, 200);
    second.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let all = tokio::join!(ends(silent), ends(halted), ends(reader), ends(second));
    assert_eq!(all, (true, true, true, true));
    drips.abort();
    assert_eq!(his.get(&root(), "/login").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_lives_on_for_longer_than_a_head_may_take_and_not_for_ever() {
    let (usual, his, mut kept) = hasty(Duration::from_secs(600)).await;
    for _ in 0..3 {
        assert_eq!(ask(&his, &mut kept).await, 200);
        tokio::time::sleep(HEAD * 2).await;
    }
    assert_eq!(ask(&his, &mut kept).await, 200);
    let his = usual.with(|his| his.connections.heads = HeadsConfig { timeout: PATIENCE * 10, idle: HEAD }).await;
    let mut idle = connection(&his).await;
    assert_eq!(ask(&his, &mut idle).await, 200);
    assert!(ends(idle).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_body_has_its_own_time_and_a_socket_the_same_limits() {
    let (usual, his, mut slow) = hasty(Duration::from_secs(600)).await;
    let body = br#"{"name":"Ana"}"#;
    let head = his.request(&root(), "POST", "/people/ANA").header("content-length", &body.len().to_string()).head();
    slow.write_all(head.as_bytes()).await.unwrap();
    let began = Instant::now();
    for byte in body {
        slow.write_all(&[*byte]).await.unwrap();
        tokio::time::sleep(HEAD / 8).await;
    }
    assert!(began.elapsed() > HEAD);
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));

    let path = usual.scratch.0.join("hasty.sock");
    let _his = usual
        .with(|his| {
            his.listen = Address::Unix(path.clone());
            his.connections.heads = HeadsConfig { timeout: HEAD, idle: HEAD };
        })
        .await;
    assert!(ends(UnixStream::connect(&path).await.unwrap()).await);
}
