//! Calls of gRPC through the gateway: body and answer flow at once, trailers pass, and the right is judged on.

use std::time::{Duration, Instant};

use axum::body::Bytes;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use rustix::process::Signal;
use tokio::time::timeout;

use crate::fixture::{CANARY, Gateway, PATIENCE, Setup, basic};
use crate::gateway::call_server::{CallServer, send};
use crate::gateway::stream_server::connect;

/// No account changes but by the tests.
const STILL: &str = "[authentication]\nupgrade_hashes = false\n";

fn start(server: &CallServer, max_body_bytes: u64, more: &str) -> Gateway {
    let configuration = format!("{}{STILL}{more}", server.routes(max_body_bytes));
    let setup = Setup { configuration: &configuration, ..Setup::default() };
    std::thread::scope(|scope| scope.spawn(|| Gateway::start_as(&setup)).join().unwrap())
}

/// A call that has begun: the body, and the answer to come.
struct Call {
    to: SendStream<Bytes>,
    answer: h2::client::ResponseFuture,
    _connection: h2::client::SendRequest<Bytes>,
}

impl Call {
    async fn begin(gateway: &Gateway, method: &str, account: &str) -> Self {
        let mut connection = connect(gateway).await.ready().await.unwrap();
        let request = Request::post(format!("https://localhost/lab.Results/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", "1H")
            .header("x-user", "ADM")
            .header("authorization", basic(account, CANARY))
            .body(())
            .unwrap();
        let (answer, to) = connection.send_request(request, false).unwrap();
        Self { to, answer, _connection: connection }
    }

    async fn head(&mut self) -> Response<RecvStream> {
        timeout(PATIENCE, &mut self.answer).await.expect("a head").unwrap()
    }
}

/// The rest of an answer, and its trailers.
async fn rest(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let read = async {
        let mut all = vec![];
        while let Some(piece) = body.data().await {
            let piece = piece?;
            let _ = body.flow_control().release_capacity(piece.len());
            all.extend_from_slice(&piece);
        }
        Ok((all, body.trailers().await?))
    };
    timeout(PATIENCE, read).await.expect("an end")
}

fn status(trailers: &Option<HeaderMap>) -> &str {
    trailers.as_ref().and_then(|trailers| trailers.get("grpc-status")).map_or("", |status| status.to_str().unwrap())
}

fn reasons(gateway: &Gateway, count: usize) -> Vec<String> {
    (0..count).map(|_| gateway.record()["reason"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_flows_both_ways_at_once_and_its_trailers_pass() {
    let server = CallServer::start().await;
    let gateway = start(&server, 64 << 20, "");
    // Message by message: each is answered before the next one is sent.
    let mut call = Call::begin(&gateway, "Echo", "ANA").await;
    let answer = call.head().await;
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    assert!(!answer.headers().contains_key("server") && answer.headers().contains_key("x-request-id"));
    let mut body = answer.into_body();
    for message in ["one", "two"] {
        send(&mut call.to, message.into()).await.unwrap();
        let echoed = timeout(PATIENCE, body.data()).await.expect("an echo").unwrap().unwrap();
        assert_eq!(echoed, message);
        let _ = body.flow_control().release_capacity(echoed.len());
    }
    gateway.measures("fedgate_streams 1", true);
    // Trailers of a body say nothing.
    let mut own = HeaderMap::new();
    own.insert("fedgate-assertion", "forged".parse().unwrap());
    call.to.send_trailers(own).unwrap();
    let (left, trailers) = rest(&mut body).await.unwrap();
    let trailers = trailers.unwrap();
    assert_eq!((left.len(), trailers.len()), (0, 2), "{trailers:?}");
    assert!(trailers["grpc-status"] == "0" && trailers["grpc-message"] == "said", "{trailers:?}");
    gateway.measures("fedgate_streams 0", true);
    let seen = server.seen().remove(0);
    for part in ["POST /lab.Results/Echo", "\"te\": \"trailers\"", "grpc-timeout", "fedgate-assertion"] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    assert!(!seen.contains("x-user") && !seen.contains("authorization") && !seen.contains("forged"), "{seen}");
    assert_eq!(reasons(&gateway, 2), ["stream_begins", "own"]);
    // Much more than all windows, written before anything is read.
    let mut call = Call::begin(&gateway, "Echo", "ANA").await;
    let large = Bytes::from(vec![7; 8 << 20]);
    let Call { to, answer, .. } = &mut call;
    let written = async {
        send(to, large.clone()).await.unwrap();
        to.send_data(Bytes::new(), true).unwrap();
    };
    let read = async { rest(&mut answer.await.unwrap().into_body()).await.unwrap() };
    let ((), (echoed, trailers)) = timeout(PATIENCE, async { tokio::join!(written, read) }).await.expect("all of it");
    assert!(echoed == large && status(&trailers) == "0");
    // Answers without a body, and before the body.
    let mut call = Call::begin(&gateway, "Fail", "ANA").await;
    let failed = call.head().await;
    assert!(failed.headers()["grpc-status"] == "5" && failed.body().is_end_stream());
    let mut call = Call::begin(&gateway, "Early", "ANA").await;
    let (_, trailers) = rest(&mut call.head().await.into_body()).await.unwrap();
    assert_eq!(status(&trailers), "8");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_needs_the_right_http2_on_both_sides_and_a_body_within_its_limit() {
    let server = CallServer::start().await;
    let gateway = start(&server, 1000, "[limits]\nstream_silence_seconds = 2\n");
    let post = |extra: &str| gateway.request("POST", "/lab.Results/Echo", "ANA", extra);
    let old = post("Content-Type: application/grpc\r\nContent-Length: 0\r\n");
    assert_eq!((old.status, &old.json()["code"]), (505, &"http2_needed".into()));
    assert_eq!(gateway.record()["reason"], "http2_needed");
    assert_eq!(gateway.get("/lab.Results/Echo", "ANA").status, 405);
    for (account, status) in [("", 401), ("OFF", 401)] {
        assert_eq!(Call::begin(&gateway, "Echo", account).await.head().await.status(), status, "{account}");
    }
    assert_eq!(server.seen(), Vec::<String>::new());
    let mut large = Call::begin(&gateway, "Echo", "ANA").await;
    let mut body = large.head().await.into_body();
    let _ = send(&mut large.to, Bytes::from(vec![7; 1001])).await;
    assert!(rest(&mut body).await.is_err(), "broken off");
    server.runs(0).await;
    let mut silent = Call::begin(&gateway, "Silent", "ANA").await;
    assert_eq!(silent.head().await.status(), 504);
    server.runs(0).await;
    // A client that leaves.
    let mut left = Call::begin(&gateway, "Echo", "ANA").await;
    left.head().await;
    server.runs(1).await;
    drop(left);
    server.runs(0).await;
    // A service that speaks HTTP/1.1 alone.
    let plain = crate::gateway::stream_server::StreamServer::start(false).await;
    let routes = server.routes(1000).replace(&server.address.to_string(), &plain.address.to_string());
    let setup = Setup { configuration: &routes, ..Setup::default() };
    let gateway = std::thread::scope(|scope| scope.spawn(|| Gateway::start_as(&setup)).join().unwrap());
    assert_eq!(Call::begin(&gateway, "Echo", "ANA").await.head().await.status(), 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_with_the_right_that_began_it() {
    let server = CallServer::start().await;
    let gateway = start(&server, 64 << 20, "");
    let mut others = Call::begin(&gateway, "Echo", "DOC").await;
    let mut other = others.head().await.into_body();
    let mut idle = Call::begin(&gateway, "Echo", "ANA").await;
    let mut waiting = Call::begin(&gateway, "Silent", "ANA").await;
    // Its client opens no window, so the answer waits at the gateway.
    let mut slow = Call::begin(&gateway, "Echo", "ANA").await;
    let (mut idle_body, mut slow_body) = (idle.head().await.into_body(), slow.head().await.into_body());
    let _ = timeout(Duration::from_millis(300), send(&mut slow.to, Bytes::from(vec![7; 1 << 20]))).await;
    server.runs(4).await;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_fedgate"));
    command.args(["account", "disable", "ANA", "--wait", "--config"]).arg(gateway.dir.join("fedgate.toml"));
    assert!(command.output().await.unwrap().status.success());
    assert!(rest(&mut idle_body).await.is_err() && rest(&mut slow_body).await.is_err(), "reset");
    assert_eq!(waiting.head().await.status(), 401, "as its next request");
    server.runs(1).await;
    gateway.measures("fedgate_streams_ended_total{reason=\"account_changed\"} 3", true);
    send(&mut others.to, "on".into()).await.unwrap();
    assert_eq!(timeout(PATIENCE, other.data()).await.expect("an echo").unwrap().unwrap(), "on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_tells_calls_to_go_elsewhere() {
    let server = CallServer::start().await;
    let mut gateway = start(&server, 1000, "");
    let mut call = Call::begin(&gateway, "Echo", "ANA").await;
    let mut body = call.head().await.into_body();
    gateway.signal(Signal::TERM);
    let (_, trailers) = rest(&mut body).await.unwrap();
    assert_eq!(status(&trailers), "14", "UNAVAILABLE");
    drop(call);
    let deadline = Instant::now() + PATIENCE;
    while gateway.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it stops");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(reasons(&gateway, 2), ["stream_begins", "gateway_stops"]);
}

#[test]
fn a_route_of_calls_has_neither_guards_nor_an_upstream_without_http2() {
    for (upstream, route, fault) in [
        ("stream_http2 = false\n", "", "stream"),
        ("", "[[route.guard]]\nmembers = [\"a\"]\n", "guard"),
        ("", "hide = [\"a\"]\n", "hide"),
    ] {
        let text = format!(
            "{upstream}[[route]]\npath = \"/x\"\nmethods = [\"POST\"]\nendpoint = \"page\"\nupstream = \"his\"\nstream = \
             true\n{route}"
        );
        let place = crate::fixture::Place::prepare(&Setup { configuration: "", ..Setup::default() });
        let file = place.dir.join("fedgate.toml");
        let whole = std::fs::read_to_string(&file).unwrap() + &text;
        std::fs::write(&file, whole).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fedgate"));
        let output = command.args(["check", "--config"]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains(&format!("route.{fault} of /x")), "{said}");
    }
}
