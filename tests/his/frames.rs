//! HTTP/2 by prior knowledge, as a gateway speaks it for streams.

use std::time::Duration;

use bytes::Bytes;
use fedgate_base::config::Address;
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Actor, His, own, root};

const PATIENCE: Duration = Duration::from_secs(20);

/// A connection, and its end.
async fn connect(his: &His) -> (SendRequest<Bytes>, tokio::task::JoinHandle<bool>) {
    let Address::Tcp(address) = his.address else { unreachable!() };
    let (sender, connection) = h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap();
    (sender, tokio::spawn(async move { connection.await.is_ok() }))
}

/// Asks for a target; the answer and its body.
async fn ask(his: &His, sender: &SendRequest<Bytes>, target: &str, accept: &str) -> (u16, h2::RecvStream) {
    ask_as(his, sender, &root(), target, accept).await
}

async fn ask_as(
    his: &His,
    sender: &SendRequest<Bytes>,
    actor: &Actor,
    target: &str,
    accept: &str,
) -> (u16, h2::RecvStream) {
    let head = his.request(actor, "GET", target).head();
    let token = head.lines().find_map(|line| line.strip_prefix("fedgate-assertion: ")).unwrap();
    let request = http::Request::get(format!("http://his{target}")).header("accept", accept);
    let request = request.header("fedgate-assertion", token).body(()).unwrap();
    let (answer, _) = sender.clone().ready().await.unwrap().send_request(request, true).unwrap();
    let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
    (answer.status().as_u16(), answer.into_body())
}

async fn hears(body: &mut h2::RecvStream, words: &str) {
    let mut text = String::new();
    while !text.contains(words) {
        let bytes = timeout(PATIENCE, body.data()).await.unwrap().expect("no end").unwrap();
        body.flow_control().release_capacity(bytes.len()).unwrap();
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_share_a_connection_that_stays_while_one_of_them_is_open() {
    let usual = His::on_sqlite().await;
    let his = usual.with(|his| his.connections.most = Some(1)).await;
    let (sender, end) = connect(&his).await;
    let mut streams = vec![];
    for _ in 0..50 {
        let (status, mut body) = ask(&his, &sender, "/messages", "text/event-stream").await;
        assert_eq!(status, 200);
        hears(&mut body, "retry:").await;
        streams.push(body);
    }
    assert_eq!(ask(&his, &sender, "/login", "*/*").await.0, 200);
    // Without room, a newcomer waits until all streams of the connection are over.
    let waits = async { his.get(&root(), "/login").await.status };
    let mut waits = std::pin::pin!(waits);
    assert!(timeout(Duration::from_millis(700), &mut waits).await.is_err());
    usual.person("ANA", "{}").await;
    for body in &mut streams {
        hears(body, "\"ANA\"").await;
    }
    drop(streams);
    assert_eq!(timeout(PATIENCE, waits).await.unwrap(), 200);
    assert!(timeout(PATIENCE, end).await.unwrap().unwrap(), "it ends in order");
}

/// The place of a stream of `ANA` in which nothing was sent to her, once it names this position.
async fn names(body: &mut h2::RecvStream, place: &str) {
    hears(body, &format!("id: {place}\n\n")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_events_sends_its_place_at_once_and_from_time_to_time() {
    let his = His::on_sqlite().await;
    let (sender, _) = connect(&his).await;
    for person in ["ANA", "BOB"] {
        his.person(person, "{}").await;
    }
    let ana = own("ANA");
    let (_, mut body) = ask_as(&his, &sender, &ana, "/messages?after=last", "text/event-stream").await;
    names(&mut body, "2.1").await;
    drop(body);
    let (_, mut body) = ask_as(&his, &sender, &ana, "/messages?after=2.1", "text/event-stream").await;
    names(&mut body, "2.1").await;
    // Messages of others move the place on. So a reader does not come too late only because nothing was sent to it.
    his.page("BOB", "p1", r#"{"id":"p1"}"#).await;
    names(&mut body, "3.1").await;
    his.page("ANA", "p2", r#"{"id":"p2"}"#).await;
    hears(&mut body, "id: 4.1\ndata: ").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_an_assertion_is_refused_and_a_connection_without_streams_has_its_time() {
    let usual = His::on_sqlite().await;
    let his = usual.with(|his| his.connections.heads.idle = Duration::from_secs(1)).await;
    let (sender, end) = connect(&his).await;
    let request = http::Request::get("http://his/people").body(()).unwrap();
    let (answer, _) = sender.clone().ready().await.unwrap().send_request(request, true).unwrap();
    assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 401);
    assert!(timeout(PATIENCE, end).await.unwrap().unwrap(), "it ends in order");
}

crate::on_both_stores! {
    async fn each_of_many_reads_on_a_connection_gets_its_own_record(his) {
        for n in 0..8 {
            his.person(&format!("P{n}Z"), "{}").await;
            his.page(&format!("P{n}Z"), &format!("page{n}z"), &format!(r#"{{"id":"page{n}z"}}"#)).await;
        }
        let (sender, _end) = connect(&his).await;
        let read = async |n: usize| {
            let (person, page) = (format!("P{}Z", n % 8), format!("page{}z", n % 8));
            let (target, expected) = match n % 3 {
                0 => (format!("/people/{person}"), person),
                1 => (format!("/pols/{person}/{page}"), page),
                _ => (format!("/pols/{person}"), page),
            };
            let (status, mut body) = ask(&his, &sender, &target, "application/json").await;
            assert_eq!(status, 200, "{target}");
            hears(&mut body, &format!("\"{expected}\"")).await;
        };
        futures_util::future::join_all((0..48).map(read)).await;
    }
}
