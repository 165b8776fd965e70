//! Bodies of any size and coding through the gateway: byte for byte, in a memory that does not grow with them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Bytes;
use http::Request;

use crate::fixture::{CANARY, Gateway, PATIENCE, Setup, basic, find_header};
use crate::gateway::call_server::send;
use crate::gateway::stream_server::connect;
use crate::support::wanted;

/// The size of a large body, in MiB. `FEDGATE_TEST_BODY_MIB` overrides it.
const MIB: u64 = 48;
/// By how much the memory may grow meanwhile, in KiB: windows, buffers, and effects of the allocator.
const GROWTH_KIB: u64 = 24 * 1024;
/// What the service sends and receives, again and again.
const PIECE: usize = 1 << 20;

/// Bytes that no coding has made; a proxy has no business knowing that.
fn coded(number: u8) -> Vec<u8> {
    (0..5000u32).map(|at| (at * 31 + u32::from(number)).to_le_bytes()[0]).collect()
}

/// A service that takes and sends bodies of the size that the path names, or one coded answer.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || answer(stream.unwrap()));
        }
    });
    address
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while reader.read_line(&mut head)? > 0 && !head.ends_with("\r\n\r\n") {}
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let name = target.rsplit('/').next().unwrap();
    if let Some(coding) = name.strip_prefix("coded-") {
        let accepted = find_header(&head, "accept-encoding").unwrap_or_default();
        let body = coded(1);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\nETag: W/\"{coding}\"\r\nVary: \
             Accept-Encoding\r\nX-Accepted: {accepted}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        return stream.write_all(&[head.into_bytes(), body].concat());
    }
    let mebibytes: u64 = name.parse().unwrap();
    if head.starts_with("GET") {
        let length = mebibytes * PIECE as u64;
        stream.write_all(
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").as_bytes(),
        )?;
        let piece = vec![b'x'; PIECE];
        return (0..mebibytes).try_for_each(|_| stream.write_all(&piece));
    }
    let (mut left, mut block) = (mebibytes * PIECE as u64, vec![0; PIECE]);
    while left > 0 {
        let count = reader.read(&mut block)?;
        assert!(count > 0 && block[..count].iter().all(|byte| *byte == b'x'), "{left} bytes are missing");
        left -= count as u64;
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nread")
}

fn start() -> Gateway {
    let configuration = format!(
        "[[upstream]]\nname = \"bodies\"\naddress = \"{}\"\n[[route]]\npath = \"/bodies/{{name}}\"\nmethods = [\"GET\", \
         \"POST\"]\nendpoint = \"page\"\nupstream = \"bodies\"\nmax_body_bytes = {}\n",
        serve(),
        2u64 << 30
    );
    let setup = Setup { configuration: &configuration, ..Setup::default() };
    std::thread::scope(|scope| scope.spawn(|| Gateway::start_as(&setup)).join().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coded_answer_passes_byte_for_byte() {
    let gateway = start();
    for coding in ["br", "gzip", "zstd"] {
        let request = format!(
            "GET /bodies/coded-{coding} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding};q=1, *;q=0\r\nAuthorization: \
             {}\r\nConnection: close\r\n\r\n",
            basic("ANA", CANARY)
        );
        let mut stream = TcpStream::connect(gateway.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut received = vec![];
        stream.read_to_end(&mut received).unwrap();
        let end = received.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8_lossy(&received[..end]).into_owned();
        let header = |name: &str| find_header(&head, name).unwrap_or_default();
        assert_eq!((header("content-encoding"), header("etag")), (coding.to_owned(), format!("W/\"{coding}\"")));
        assert!(header("vary").contains("Accept-Encoding"), "{head}");
        assert_eq!(header("x-accepted"), format!("{coding};q=1, *;q=0"));
        assert!(received[end..] == coded(1), "{coding}");
        let mut connection = connect(&gateway).await.ready().await.unwrap();
        let request = Request::get(format!("https://localhost/bodies/coded-{coding}"));
        let request = request.header("authorization", basic("ANA", CANARY)).header("accept-encoding", coding);
        let answer = connection.send_request(request.body(()).unwrap(), true).unwrap().0.await.unwrap();
        assert_eq!((&answer.headers()["content-encoding"], answer.status().as_u16()), (&coding.parse().unwrap(), 200));
        assert!(answer.headers()["vary"].to_str().unwrap().contains("Accept-Encoding"));
        let mut body = answer.into_body();
        let mut received = vec![];
        while let Some(piece) = body.data().await {
            received.extend_from_slice(&piece.unwrap());
        }
        assert!(received == coded(1), "{coding} over HTTP/2");
    }
}

fn up_http1(gateway: &Gateway, mebibytes: u64) {
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    let head = format!(
        "POST /bodies/{mebibytes} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nContent-Length: {}\r\nConnection: \
         close\r\n\r\n",
        basic("ANA", CANARY),
        mebibytes * PIECE as u64
    );
    stream.write_all(head.as_bytes()).unwrap();
    let piece = vec![b'x'; PIECE];
    (0..mebibytes).for_each(|_| stream.write_all(&piece).unwrap());
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("read"), "{answer}");
}

fn down_http1(gateway: &Gateway, mebibytes: u64) {
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    let authorization = basic("ANA", CANARY);
    let head = format!("GET /bodies/{mebibytes} HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let (mut reader, mut answer) = (BufReader::new(stream), String::new());
    while !answer.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut answer).unwrap() > 0, "{answer}");
    }
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (mut left, mut block) = (mebibytes * PIECE as u64, vec![0; PIECE]);
    while left > 0 {
        let count = reader.read(&mut block).unwrap();
        assert!(count > 0, "{left} bytes are missing");
        left -= count as u64;
    }
}

async fn up_http2(gateway: &Gateway, mebibytes: u64) {
    let mut connection = connect(gateway).await.ready().await.unwrap();
    let request = Request::post(format!("https://localhost/bodies/{mebibytes}"));
    let request = request.header("authorization", basic("ANA", CANARY));
    let request = request.header("content-length", mebibytes * PIECE as u64).body(()).unwrap();
    let (answer, mut to) = connection.send_request(request, false).unwrap();
    let piece = Bytes::from(vec![b'x'; PIECE]);
    for _ in 0..mebibytes {
        send(&mut to, piece.clone()).await.unwrap();
    }
    to.send_data(Bytes::new(), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
}

async fn down_http2(gateway: &Gateway, mebibytes: u64) {
    let mut connection = connect(gateway).await.ready().await.unwrap();
    let request = Request::get(format!("https://localhost/bodies/{mebibytes}"));
    let request = request.header("authorization", basic("ANA", CANARY)).body(()).unwrap();
    let mut body = connection.send_request(request, true).unwrap().0.await.unwrap().into_body();
    let mut count = 0;
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        count += piece.len() as u64;
        let _ = body.flow_control().release_capacity(piece.len());
    }
    assert_eq!(count, mebibytes * PIECE as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_costs_no_more_memory_than_a_small_one() {
    let mebibytes = wanted("FEDGATE_TEST_BODY_MIB", MIB);
    let gateway = start();
    let pass = async |mebibytes: u64| {
        tokio::task::block_in_place(|| {
            up_http1(&gateway, mebibytes);
            down_http1(&gateway, mebibytes);
        });
        up_http2(&gateway, mebibytes).await;
        down_http2(&gateway, mebibytes).await;
    };
    // Whatever is made once.
    pass(4).await;
    let before = gateway.resident_kib();
    let is_over = AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut most = 0;
            while !is_over.load(Ordering::SeqCst) {
                most = most.max(gateway.resident_kib());
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            most
        });
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(pass(mebibytes)));
        is_over.store(true, Ordering::SeqCst);
        watching.join().unwrap()
    });
    println!("bodies of {mebibytes} MiB: {before} KiB before, {most} KiB at most");
    assert!(most <= before + GROWTH_KIB, "{before} KiB before, {most} KiB at most");
}
