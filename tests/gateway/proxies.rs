//! Behind a balancer: whose statement about the client counts, PROXY headers, and the redirect from HTTP to HTTPS.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::fixture::{CANARY, Gateway, PATIENCE, Setup, basic, find_header};
use crate::support::free_address;

fn trusting(networks: &str, more: &[(&str, &str)]) -> Gateway {
    let environment: Vec<_> = [("FEDGATE_GATEWAY_TRUSTED_PROXIES", networks)].iter().chain(more).copied().collect();
    Gateway::start_as(&Setup { environment: &environment, ..Setup::default() })
}

const FORGED: &str = "X-Forwarded-For: 6.6.6.6, 198.51.100.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
                      Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Request-Id: balancer-0001\r\n\
                      traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";

#[test]
fn what_a_trusted_proxy_says_is_believed_and_nobody_else_is() {
    for (networks, client, protocol) in [("127.0.0.0/8", "198.51.100.9", "https"), ("10.0.0.0/8", "127.0.0.1", "http")]
    {
        let gateway = trusting(networks, &[]);
        let answer = gateway.request("GET", "/people/ANA", "ANA", FORGED);
        assert_eq!(answer.status, 200);
        let seen = gateway.upstream.seen().pop().unwrap();
        assert_eq!(find_header(&seen, "x-forwarded-for").as_deref(), Some(client), "{seen}");
        assert_eq!(find_header(&seen, "x-forwarded-proto").as_deref(), Some(protocol));
        assert_eq!(find_header(&seen, "x-forwarded-host").as_deref(), Some("hospital.example"));
        assert_eq!(find_header(&seen, "forwarded"), Some(format!("for={client};proto={protocol}")));
        assert_eq!(find_header(&seen, "x-real-ip"), None);
        let trace = find_header(&seen, "traceparent").unwrap();
        assert!(trace.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && !trace.contains("00f067aa0ba902b7"));
        let record = gateway.record();
        assert_eq!(record["client.ip"], client);
        assert_eq!(record["trace.id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        // The client's id is returned beside the gateway's own, and never in its place.
        let own = answer.header("x-request-id").unwrap();
        assert_eq!(
            (&record["request.id"], &record["client.request_id"]),
            (&own.as_str().into(), &"balancer-0001".into())
        );
        assert_eq!(answer.header("x-correlation-id").as_deref(), Some("balancer-0001"));
        let seen_by_pages = answer.header("access-control-expose-headers").unwrap_or_default();
        assert!(seen_by_pages.split(", ").any(|name| name == "X-Correlation-Id"), "{seen_by_pages}");
        assert!(own.len() == 32 && find_header(&seen, "x-request-id").as_deref() == Some(&own), "{seen}");
    }
}

#[test]
fn a_guesser_has_to_wait_there_and_the_cached_password_is_no_way_around_it() {
    let gateway = trusting("127.0.0.0/8", &[]);
    let from = |source: &str, password: &str| {
        let headers = format!("Authorization: {}\r\nX-Forwarded-For: {source}\r\n", basic("DOC", password));
        gateway.request("GET", "/people/DOC", "", &headers)
    };
    assert_eq!(from("192.0.2.1", CANARY).status, 200);
    // A wait begins at a second, so on a busy machine it may be over before the next request. Then another address
    // tries.
    let kept_waiting = (1..=20).find_map(|host| {
        let source = format!("198.51.100.{host}");
        let (mut guesses, mut looked_at) = (0..50, 0);
        let refused = guesses.find_map(|guess| {
            let answer = from(&source, &format!("guess-{host}-{guess}"));
            looked_at += u32::from(answer.status == 401);
            (answer.status != 401).then_some(answer)
        });
        let refused = refused.expect("guesses are refused sooner or later");
        assert!(looked_at >= 6 || host > 1, "{looked_at} guesses are free");
        assert_eq!((refused.status, &refused.json()["code"]), (429, &"too_many_attempts".into()));
        assert!(refused.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1, "{}", refused.head);
        assert_eq!(from("192.0.2.1", CANARY).status, 200, "who was here before does not wait");
        Some(from(&source, CANARY)).filter(|answer| answer.status != 200)
    });
    let kept_waiting = kept_waiting.expect("a right guess is looked at in no wait, although it is cached");
    assert_eq!((kept_waiting.status, &kept_waiting.json()["code"]), (429, &"too_many_attempts".into()));
}

#[test]
fn a_proxy_header_names_the_client_and_is_required_of_trusted_proxies() {
    let gateway = trusting("127.0.0.2/32", &[("FEDGATE_GATEWAY_PROXY_PROTOCOL", "true")]);
    let request = format!(
        "GET /people/ANA HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n",
        basic("ANA", CANARY)
    );
    let send = |source: [u8; 4], preface: &[u8]| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((source, 0).into()).unwrap();
            socket.connect(gateway.address).await.unwrap().into_std().unwrap()
        });
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream: TcpStream = stream;
        let _ = stream.write_all(preface).and_then(|()| stream.write_all(request.as_bytes()));
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    let v2 =
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &[198, 51, 100, 8, 192, 0, 2, 1, 0x10, 0, 1, 0xbb]].concat();
    for (preface, client) in
        [(b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 443\r\n".as_slice(), "198.51.100.7"), (&v2, "198.51.100.8")]
    {
        assert!(send([127, 0, 0, 2], preface).starts_with("HTTP/1.1 200 "));
        assert_eq!(gateway.record()["client.ip"], client);
        let seen = gateway.upstream.seen().pop().unwrap();
        assert_eq!(find_header(&seen, "x-forwarded-for").as_deref(), Some(client), "the client is not trusted");
    }
    // Nor is a header whose address is in a trusted network: trust is for proxies, which speak by PROXY headers
    // here.
    assert!(send([127, 0, 0, 2], b"PROXY TCP4 127.0.0.2 192.0.2.1 4711 443\r\n").starts_with("HTTP/1.1 200 "));
    assert_eq!(gateway.record()["client.ip"], "127.0.0.2");
    // If the balancer names no address (UNKNOWN, LOCAL, UNSPEC), the connection's own counts, and the client cannot
    // name one.
    for preface in [
        b"PROXY UNKNOWN\r\n".as_slice(),
        b"PROXY UNKNOWN 6.6.6.6 6.6.6.6 1 2\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c\x06\x06\x06\x06\x06\x06\x06\x06\0\x01\0\x02",
        b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0",
    ] {
        assert!(send([127, 0, 0, 2], preface).starts_with("HTTP/1.1 200 "), "{}", preface.escape_ascii());
        assert_eq!(gateway.record()["client.ip"], "127.0.0.2");
        let seen = gateway.upstream.seen().pop().unwrap();
        assert_eq!(find_header(&seen, "x-forwarded-for").as_deref(), Some("127.0.0.2"));
    }
    assert_eq!(send([127, 0, 0, 2], b""), "", "a balancer that does not say whom it speaks for");
    // From any other peer it is not HTTP, and refused as such.
    assert!(send([127, 0, 0, 3], b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 443\r\n").starts_with("HTTP/1.1 400 "));
    assert!(send([127, 0, 0, 3], b"").starts_with("HTTP/1.1 200 "));
}

#[test]
fn plain_http_leads_to_https_and_forwards_nothing() {
    let redirect = free_address();
    let gateway = Gateway::start_as(&Setup {
        environment: &[("FEDGATE_GATEWAY_REDIRECT", &redirect.to_string())],
        ..Setup::default()
    });
    let ask = |bytes: &str| crate::support::keepalive::whole(redirect, bytes.as_bytes()).unwrap();
    let port = gateway.tls_address.port();
    for (host, target, location) in [
        ("clinic.example", "/people/ANA?x=1", format!("https://clinic.example:{port}/people/ANA?x=1")),
        ("clinic.example:8080", "/", format!("https://clinic.example:{port}/")),
    ] {
        let answer = ask(&format!(
            "POST {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {}\r\nContent-Length: 2\r\n\r\n{{}}",
            basic("ANA", CANARY)
        ));
        assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
        assert_eq!(find_header(&answer, "location"), Some(location));
    }
    // An HTTP/1.0 client waits for the end of the connection, and so does one that would continue.
    for end in ["HTTP/1.0", "HTTP/1.1"] {
        let answer = ask(&format!("GET / {end}\r\nHost: clinic.example\r\nConnection: keep-alive\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
        let answer = ask(&format!("GET / {end}\r\nHost: clinic.example\r\n\r\n"));
        assert_eq!(find_header(&answer, "connection").as_deref(), Some("close"));
    }
    let here = ask("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    let there = gateway.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(here.starts_with("HTTP/1.1 200 ") && there.status == 200, "{here}");
    assert_eq!(find_header(&here, "allow"), there.header("allow"));
    assert!(there.header("allow").is_some() && find_header(&here, "x-request-id").is_some(), "{here}");
    // pingora closes on a host that is none; what it takes for one is looked at again.
    for host in ["evil@clinic.example", "clinic.example,evil"] {
        let answer = ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    assert!(ask("GET / HTTP/1.1\r\nHost: a\nb: c\r\n\r\n").starts_with("HTTP/1.1 400 "), "read as strictly as any");
    assert!(gateway.upstream.seen().is_empty());
}
