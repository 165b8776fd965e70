//! The requested host: its syntax, the hosts that are served, and the host in requests to upstreams.

use std::io::Write;

use http::{HeaderMap, Request};

use crate::fixture::{CANARY, Gateway, Setup, basic, find_header};
use crate::gateway::http2::{END_HEADERS, END_STREAM, HEADERS, RST_STREAM, block_of, frame, open, read};
use crate::gateway::tls::connect_h2;
use crate::scripted::{Server, before_one};
use crate::support::free_address;

/// Status and head of an answer over HTTP/2 to a request for this authority.
fn over_http2(gateway: &Gateway, authority: &str) -> (u16, HeaderMap) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut sender = connect_h2(gateway).await.ready().await.unwrap();
        let request = Request::get(format!("https://{authority}/people/ANA"))
            .header("authorization", basic("ANA", CANARY))
            .body(())
            .unwrap();
        let (head, _) = sender.send_request(request, true).unwrap().0.await.unwrap().into_parts();
        (head.status.as_u16(), head.headers)
    })
}

fn over_http1(gateway: &Gateway, host: &str) -> crate::fixture::Response {
    let authorization = basic("ANA", CANARY);
    let head = format!("GET /people/ANA HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n");
    gateway.send(format!("{head}Connection: close\r\n\r\n").as_bytes())
}

#[test]
fn a_host_that_is_none_is_refused_here_and_recorded() {
    let gateway = Gateway::start();
    for host in [
        "u@hospital.example",
        "u:p@h",
        "",
        "a b",
        "a/b",
        "a\\b",
        "a?b",
        "a:b",
        "a:1:2",
        "[::1",
        "::1",
        "a:99999",
        "%zz",
    ] {
        let refused = over_http1(&gateway, host);
        assert_eq!((refused.status, &refused.json()["code"]), (400, &"bad_host".into()), "{host}");
        assert_eq!(refused.header("connection").as_deref(), Some("close"), "{host}");
        assert_eq!(gateway.record()["reason"], "bad_host", "{host}");
    }
    // Authorities that the library accepts are checked again.
    for authority in ["a:99999", "a:1:2"] {
        if authority.parse::<http::uri::Authority>().is_ok() {
            assert_eq!(over_http2(&gateway, authority).0, 400, "{authority}");
            assert_eq!(gateway.record()["reason"], "bad_host", "{authority}");
        }
    }
    assert!(gateway.upstream.seen().is_empty());
    for host in ["hospital.example", "192.0.2.1:8443", "[::1]", "[2001:db8::1]:443", "his_1", "a:"] {
        assert_eq!(over_http1(&gateway, host).status, 200, "{host}");
    }
}

#[test]
fn an_upstream_is_asked_by_its_own_name_unless_hosts_are_listed_or_it_must_have_the_clients() {
    let own = |gateway: &Gateway| gateway.upstream.address.to_string();
    for (configuration, hosts, passes) in [
        ("", "", false),
        ("host = \"pass\"\n", "", true),
        ("", "hospital.example,other.example", true),
        ("host = \"own\"\n", "hospital.example", false),
    ] {
        let environment = &[("FEDGATE_GATEWAY_HOSTS", hosts)];
        let gateway = Gateway::start_as(&Setup { configuration, environment, ..Setup::default() });
        assert_eq!(over_http1(&gateway, "hospital.example:8443").status, 200);
        assert_eq!(over_http2(&gateway, "hospital.example:8443").0, 200);
        let seen = gateway.upstream.seen();
        assert_eq!(seen.len(), 2);
        for seen in seen {
            let expected = if passes { "hospital.example:8443".to_owned() } else { own(&gateway) };
            assert_eq!(find_header(&seen, "host"), Some(expected), "{seen}");
            assert_eq!(seen.to_ascii_lowercase().matches("\r\nhost:").count(), 1, "{seen}");
            assert_eq!(find_header(&seen, "x-forwarded-host").as_deref(), Some("hospital.example:8443"), "{seen}");
        }
    }
}

#[test]
fn a_listed_host_reaches_the_upstream_in_the_spelling_of_the_list() {
    let environment = &[("FEDGATE_GATEWAY_HOSTS", "Hospital.Example,[::1]")];
    let gateway = Gateway::start_as(&Setup { environment, ..Setup::default() });
    let spellings = [
        ("HOSPITAL.Example", "hospital.example"),
        ("hospital.example:", "hospital.example"),
        ("hospital.EXAMPLE:00443", "hospital.example:443"),
        ("[0::1]:8443", "[::1]:8443"),
    ];
    for (host, expected) in spellings {
        assert_eq!(over_http1(&gateway, host).status, 200, "{host}");
        // The library of this test takes no port with leading zeros.
        if host.parse::<http::uri::Authority>().is_ok_and(|host| host.port_u16() != Some(443)) {
            assert_eq!(over_http2(&gateway, host).0, 200, "{host}");
        }
        for seen in gateway.upstream.seen() {
            assert_eq!(find_header(&seen, "host").as_deref(), Some(expected), "{host}: {seen}");
            assert_eq!(find_header(&seen, "x-forwarded-host").as_deref(), Some(expected), "{host}: {seen}");
        }
        gateway.upstream.forget();
    }
}

#[test]
fn a_host_that_is_not_listed_is_served_by_no_listener() {
    let redirect = free_address();
    let environment =
        [("FEDGATE_GATEWAY_HOSTS", "hospital.example,localhost"), ("FEDGATE_GATEWAY_REDIRECT", &*redirect.to_string())];
    let gateway = Gateway::start_as(&Setup { environment: &environment, ..Setup::default() });
    let refused = over_http1(&gateway, "evil.example");
    assert_eq!((refused.status, &refused.json()["code"]), (421, &"host_not_served".into()));
    assert_eq!(gateway.record()["reason"], "host_not_served");
    assert_eq!(over_http2(&gateway, "evil.example").0, 421);
    assert_eq!(gateway.record()["reason"], "host_not_served");
    assert!(gateway.upstream.seen().is_empty());
    assert_eq!(over_http1(&gateway, "HOSPITAL.example:1").status, 200);
    assert_eq!(over_http2(&gateway, "localhost").0, 200);
    let leads = |host: &str| {
        let request = format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n");
        crate::support::keepalive::whole(redirect, request.as_bytes()).unwrap()
    };
    assert!(leads("hospital.example").starts_with("HTTP/1.1 308 "));
    assert!(leads("evil.example").starts_with("HTTP/1.1 400 "));
}

#[test]
fn a_target_in_absolute_form_is_forwarded_in_origin_form_where_its_host_is_served() {
    let authorization = basic("ANA", CANARY);
    let ask = |gateway: &Gateway, target: &str| {
        let head = format!("GET {target} HTTP/1.1\r\nHost: hospital.example\r\nAuthorization: {authorization}\r\n");
        gateway.send(format!("{head}Connection: close\r\n\r\n").as_bytes())
    };
    for (hosts, of_other) in [("", (400, "bad_host")), ("hospital.example,other.example", (200, "own"))] {
        let environment = &[("FEDGATE_GATEWAY_HOSTS", hosts)];
        let gateway = Gateway::start_as(&Setup { environment, ..Setup::default() });
        assert_eq!(ask(&gateway, "http://hospital.example:80/people/ANA?x").status, 200);
        let record = gateway.record();
        assert_eq!((&record["path"], &record["reason"]), (&"/people/ANA".into(), &"own".into()));
        let seen = gateway.upstream.seen();
        assert!(seen[0].starts_with("GET /people/ANA?x HTTP/1.1\r\n"), "{seen:?}");
        assert_eq!(find_header(&seen[0], "x-forwarded-host").as_deref(), Some("hospital.example"));
        assert_eq!(ask(&gateway, "http://other.example/people/ANA").status, of_other.0);
        let record = gateway.record();
        assert_eq!(record["reason"], of_other.1, "{record}");
        // The target's host counts, whatever `Host` says.
        let forwarded = gateway.upstream.seen().split_off(1);
        let hosts: Vec<_> = forwarded.iter().filter_map(|seen| find_header(seen, "x-forwarded-host")).collect();
        assert_eq!(hosts, if of_other.0 == 200 { vec!["other.example"] } else { vec![] });
        assert_eq!(ask(&gateway, "http://evil/people/ANA").json()["code"], "bad_host");
        assert_eq!(gateway.record()["path"], "http://evil/people/ANA");
        assert_eq!(ask(&gateway, "http://hospital.example/people/DOC").status, 403);
        // HTTP/2 has no such form: the host has a field of its own, and no other may differ from it.
        for (path, host) in [("http://localhost/people/ANA", "localhost"), ("/people/ANA", "other.example")] {
            let count = gateway.upstream.count();
            let mut stream = open(&gateway);
            let block = block_of("GET", path, &[("host", host)]);
            stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).unwrap();
            let frames = read(&mut stream, |kind, number| number == 1 && (kind == HEADERS || kind == RST_STREAM));
            let (kind, _, answer) = frames.last().unwrap();
            // An indexed `:status 400` (RFC 7541, appendix A).
            assert!(*kind == RST_STREAM || answer.first() == Some(&0x8c), "{path}, {host}: {frames:?}");
            assert_eq!(gateway.upstream.count(), count);
        }
    }
}

#[test]
fn an_address_that_a_browser_would_read_as_another_host_stays_as_it_is() {
    let server = Server::start(|exchange| {
        let own = find_header(exchange.request, "host").unwrap();
        let path = match exchange.request.split(' ').nth(1) {
            Some("/x/tab") => "/\t/evil.example/",
            Some("/x/backslash") => "/\t\\evil.example/",
            _ => "//evil.example/",
        };
        let answer = format!("HTTP/1.1 302 Found\r\nLocation: http://{own}{path}\r\nContent-Length: 0\r\n\r\n");
        exchange.write(answer.as_bytes())
    });
    let gateway = before_one(&server, "");
    for id in ["tab", "backslash", "slashes"] {
        let location = gateway.call_with("GET", id, "").header("location").unwrap();
        assert!(location.starts_with("http://127.0.0.1:") && location.ends_with("evil.example/"), "{id}: {location}");
    }
}

#[test]
fn an_address_that_a_service_makes_of_its_own_name_leads_back_to_the_gateway() {
    let server = Server::start(|exchange| {
        let own = find_header(exchange.request, "host").unwrap();
        let answer = format!("HTTP/1.1 302 Found\r\nLocation: http://{own}/x/2?y\r\nContent-Length: 0\r\n\r\n");
        exchange.write(answer.as_bytes())
    });
    for (upstream, location) in [("", "/x/2?y"), ("host = \"pass\"", "http://a/x/2?y")] {
        let gateway = before_one(&server, upstream);
        let answer = gateway.call_with("GET", "1", "");
        assert_eq!((answer.status, answer.header("location").as_deref()), (302, Some(location)));
    }
}
