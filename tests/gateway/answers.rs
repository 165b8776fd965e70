//! The part of an upstream's answer that reaches a client: one length or none, and no header that concerns only the
//! connection between gateway and upstream. Sources: RFC 9110, 7.6.1 and 8.6; RFC 9112, 6.1 to 6.3; RFC 9113,
//! 8.2.2.

use std::collections::BTreeMap;

use crate::fixture::{Gateway, find_header};
use crate::gateway::tls::connect_h2;
use crate::scripted::{Server, before_one};

/// An answer as a client received it: the status, the headers except the gateway's own, and the body.
#[derive(Debug, PartialEq)]
struct Got {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

/// Headers that the gateway sets itself.
const GATEWAYS: &[&str] = &[
    "date",
    "x-request-id",
    "connection",
    "transfer-encoding",
    "access-control-allow-origin",
    "access-control-expose-headers",
];

/// Over HTTP/1, without the headers of the connection. The head is returned separately.
fn over_http1(gateway: &Gateway, method: &str, id: &str) -> (Got, String) {
    let answer = gateway.send(format!("{method} /x/{id} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
    let chunked = find_header(&answer.head, "transfer-encoding").is_some();
    let body = if chunked { answer.body.split("\r\n").skip(1).step_by(2).collect() } else { answer.body };
    let lines = answer.head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers = lines.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    let headers = headers.filter(|(name, _)| !GATEWAYS.contains(&name.as_str())).collect();
    (Got { status: answer.status, headers, body }, answer.head)
}

fn over_http2(gateway: &Gateway, method: &str, id: &str) -> Got {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut sender = connect_h2(gateway).await;
        let request = http::Request::builder().method(method).uri(format!("https://localhost/x/{id}")).body(());
        let (answer, _) = sender.send_request(request.unwrap(), true).unwrap();
        let (head, mut body) = answer.await.unwrap().into_parts();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.data().await {
            bytes.extend_from_slice(&chunk.unwrap());
        }
        assert!(body.trailers().await.unwrap().is_none());
        for name in ["connection", "transfer-encoding"] {
            assert!(!head.headers.contains_key(name), "{name}: {head:?}");
        }
        let headers = head.headers.iter().filter(|(name, _)| !GATEWAYS.contains(&name.as_str()));
        let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        Got { status: head.status.as_u16(), headers, body: String::from_utf8(bytes).unwrap() }
    })
}

/// A server that returns the answer whose number is in the path.
fn server(answers: &'static [&'static str]) -> Server {
    Server::start(move |exchange| {
        let path = exchange.request.split(' ').nth(1).unwrap();
        let answer = answers[path.rsplit('/').next().unwrap().parse::<usize>().unwrap()];
        exchange.write(answer.as_bytes()) && !answer.contains("close")
    })
}

#[test]
fn an_answer_has_one_length_over_both_versions_or_is_refused() {
    const ANSWERS: &[&str] = &[
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\ntrue",
        "HTTP/1.1 200 OK\r\nContent-Length: 4, 4\r\n\r\ntrue",
        "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\ntrue",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\ntrue",
        "HTTP/1.1 200 OK\r\nContent-Length: 4, 5\r\n\r\ntrue",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n4\r\ntrue\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\nETag: \"a\"\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\nETag: \"a\"\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nConnection: close\r\n\r\ntrue",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 4\r\n\r\ntrue",
    ];
    let server = server(ANSWERS);
    let gateway = before_one(&server, "[upstream.ejection]\nfailures = 0\n");
    let length = |text: &'static str| vec![("content-length", text)];
    let tag = || vec![("etag", "\"a\"")];
    let cases = [
        (0, 200, length("4"), "true"),
        (1, 200, length("4"), "true"),
        (2, 200, length("4"), "true"),
        (3, 502, vec![], ""),
        (4, 502, vec![], ""),
        (5, 502, vec![], ""),
        (6, 204, vec![], ""),
        (7, 204, vec![], ""),
        (8, 304, tag(), ""),
        (9, 304, tag(), ""),
        (10, 502, vec![], ""),
        (11, 502, vec![], ""),
    ];
    assert_eq!(cases.len(), ANSWERS.len());
    for (number, status, headers, body) in cases {
        let headers: BTreeMap<_, _> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (one, head) = over_http1(&gateway, "GET", &number.to_string());
        let two = over_http2(&gateway, "GET", &number.to_string());
        assert!(head.starts_with("HTTP/1.1 "), "{head}");
        for got in [&one, &two] {
            assert_eq!(got.status, status, "{number}: {got:?}");
            assert!(!got.body.contains("true") || status == 200, "{number}: {got:?}");
        }
        if status != 502 {
            assert_eq!(one, Got { status, headers, body: body.to_owned() }, "{number}");
            assert_eq!(one, two, "{number}");
        }
        if matches!(status, 204 | 304) {
            assert_eq!(find_header(&head, "transfer-encoding"), None, "{number}: {head}");
        }
    }
    // HEAD returns the length that GET would have, and no coding.
    assert_eq!(over_http1(&gateway, "HEAD", "1").0.headers["content-length"], "4");
}

#[test]
fn what_concerns_the_connection_to_the_upstream_does_not_reach_a_client() {
    const ANSWERS: &[&str] = &[
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX-Hop: 1\r\nConnection: x-hop\r\nContent-Length: 4\r\n\r\n\
         HTTP/1.1 200 OK\r\nConnection: X-Hop, X-Other\r\nX-Hop: 1\r\nX-Other: 2\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nProxy-Authenticate: Basic\r\nTE: trailers\r\nUpgrade: h2c\r\nX-Kept: 3\r\n\
         Content-Length: 4\r\n\r\ntrue",
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nX-Kept: 3\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntrue\r\n0\r\nX-Sum: 1\r\n\r\n",
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.0\r\nConnection: Upgrade\r\nX-Kept: 3\r\nContent-Length: 4\r\n\r\ntrue",
    ];
    let server = server(ANSWERS);
    let gateway = before_one(&server, "");
    for (number, status) in [(0, 200), (1, 200), (2, 426)] {
        let id = number.to_string();
        let stream = gateway.send(format!("GET /x/{id} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
        let all = format!("{}\r\n\r\n{}", stream.head, stream.body).to_ascii_lowercase();
        for gone in ["x-hop", "x-other", "keep-alive", "proxy-", "te:", "upgrade:", "trailer", "x-sum"] {
            assert!(!all.contains(&format!("\r\n{gone}")), "{gone} in {all}");
        }
        assert_eq!(all.matches("content-length").count() + all.matches("transfer-encoding").count(), 1, "{all}");
        assert!(all.contains("connection: close") && all.contains("x-kept: 3"), "{all}");
        let got = over_http2(&gateway, "GET", &id);
        let names: Vec<_> = got.headers.keys().map(String::as_str).collect();
        let expected = if number == 1 { vec!["x-kept"] } else { vec!["content-length", "x-kept"] };
        assert_eq!((got.status, names, got.body.as_str()), (status, expected, "true"));
    }
    assert!(server.connections() <= 2, "connections are kept");
}

#[test]
fn chunks_of_http_1_0_are_read_and_their_connection_is_not_used_again() {
    let server = server(&[
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n4\r\ntrue\r\n0\r\n\r\n",
    ]);
    let gateway = before_one(&server, "");
    for number in 1..=2 {
        assert_eq!(over_http1(&gateway, "GET", "0").0.body, "true");
        assert_eq!(server.connections(), number);
    }
}

#[test]
fn a_head_whose_forwarding_fails_gets_its_status_over_both_versions() {
    const ANSWERS: &[&str] = &[
        // Two lengths; then silence: no answer within the read limit.
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n",
        "",
    ];
    let server = server(ANSWERS);
    let gateway = before_one(&server, "read_timeout_ms = 300\n[upstream.ejection]\nfailures = 0\n");
    let closed = crate::support::free_address().to_string();
    let nobody = crate::scripted::before(&[closed], "[upstream.ejection]\nfailures = 0\n");
    for (gateway, id, status, code) in [
        (&gateway, "0", 502, "upstream_unreachable"),
        (&gateway, "1", 504, "upstream_timeout"),
        (&nobody, "1", 502, "upstream_unreachable"),
    ] {
        let (told, _) = over_http1(gateway, "GET", id);
        assert!(told.body.contains(&format!("\"{code}\"")), "{told:?}");
        let (one, two) = (over_http1(gateway, "HEAD", id).0, over_http2(gateway, "HEAD", id));
        for head in [&one, &two] {
            assert_eq!((head.status, head.body.as_str()), (status, ""), "{id}: {head:?}");
            assert_eq!(head.headers["content-length"], told.headers["content-length"], "{id}: {head:?}");
        }
        for _ in 0..3 {
            assert_eq!(gateway.record()["status"], status);
        }
    }
    // A request that is refused before it is read.
    let refused = gateway.send(b"HEAD /x/0 HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n");
    assert_eq!((refused.status, refused.body.as_str()), (400, ""), "{refused:?}");
}
