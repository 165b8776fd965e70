//! Client certificates that do not count: in the handshake, and those that expire while their connection lasts.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig};
use time::OffsetDateTime;

use crate::fixture::{CANARY, Gateway, PATIENCE, basic};
use crate::gateway::authority::{Authority, Identity, client, start, start_in};
use crate::gateway::tls::connect_as;

/// The error that ends an HTTP/1 client's connection while it sends its request or waits for the answer.
fn end(gateway: &Gateway, config: ClientConfig) -> String {
    let mut stream = match connect_as(gateway, config, "localhost") {
        Ok(stream) => stream,
        Err(error) => return error.to_string(),
    };
    // Bytes that are sent before the alert is read must not cost the alert.
    let request = format!("GET /people HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(8000));
    let _ = stream.write_all(request.as_bytes());
    stream.read_to_end(&mut vec![]).map_or_else(|error| error.to_string(), |_| "no error".into())
}

/// The same over HTTP/2, whose preface follows the client's handshake at once.
async fn end_over_h2(gateway: &Gateway, mut config: ClientConfig) -> String {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = tokio::net::TcpStream::connect(gateway.tls_address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tls = match connector.connect("localhost".try_into().unwrap(), tcp).await {
        Ok(tls) => tls,
        Err(error) => return error.to_string(),
    };
    let (mut sender, connection) = match h2::client::handshake(tls).await {
        Ok(both) => both,
        Err(error) => return error.to_string(),
    };
    let request = http::Request::get("https://localhost/people").body(()).unwrap();
    let _ = sender.send_request(request, true);
    connection.await.map_or_else(|error| error.to_string(), |()| "no error".into())
}

#[test]
fn a_refused_client_hears_why_over_both_versions_of_http_and_of_tls() {
    let authority = Authority::new("Laboratories");
    let gateway = start(&authority, "required", "", |_| {});
    let expired = OffsetDateTime::now_utc() - time::Duration::HOUR;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cases: [(Option<Identity>, AlertDescription); 4] = [
        (Some(authority.client("DOC", 66)), AlertDescription::CertificateRevoked),
        (Some(authority.sign("DOC", 5, expired)), AlertDescription::CertificateExpired),
        (Some(Authority::new("Strangers").client("DOC", 5)), AlertDescription::UnknownCA),
        (None, AlertDescription::CertificateRequired),
    ];
    for (identity, expected) in &cases {
        let identity = identity.as_ref();
        for version in [&TLS12, &TLS13] {
            let expected = rustls::Error::AlertReceived(*expected).to_string();
            for _ in 0..5 {
                let found = end(&gateway, client(&gateway, identity, version));
                assert!(found.contains(&expected), "HTTP/1: {found}, not: {expected}");
                let found = runtime.block_on(end_over_h2(&gateway, client(&gateway, identity, version)));
                assert!(found.contains(&expected), "HTTP/2: {found}, not: {expected}");
            }
        }
    }
}

#[test]
fn a_refused_certificate_is_one_line_with_address_subject_fingerprint_and_reason() {
    let authority = Authority::new("Laboratories");
    let gateway = start(&authority, "optional", "", |_| {});
    let since = Instant::now();
    let hostile = format!("x\u{1b}[31m\nfake=line{}", "y".repeat(2000));
    let revoked = authority.client(&hostile, 66);
    assert!(end(&gateway, client(&gateway, Some(&revoked), &TLS13)).contains("alert"));
    assert!(gateway.logged(&revoked.fingerprint(), since, PATIENCE).is_some());
    let line = gateway.log_line(&revoked.fingerprint(), since).unwrap();
    for words in ["a client certificate is refused", "127.0.0.1", "CN=x", "it is revoked"] {
        assert!(line.contains(words), "{words}: {line}");
    }
    assert!(line.len() < 800 && !line.contains('\u{1b}'), "{line}");
    assert!(gateway.log_line("\nfake=line", since).is_none());
    gateway.measures("fedgate_client_certificates_refused_total 1", true);
    // However many there are.
    (0..60).for_each(|_| assert!(end(&gateway, client(&gateway, Some(&revoked), &TLS13)).contains("alert")));
    // A refusal is counted after its alert was sent.
    gateway.measures("fedgate_client_certificates_refused_total 61", true);
    assert!(gateway.log_lines(&revoked.fingerprint(), since) < 61, "lines are bounded");
}

/// Waits until a moment of the clock has passed.
fn wait_until(moment: OffsetDateTime) {
    let left = SystemTime::from(moment).duration_since(SystemTime::now());
    std::thread::sleep(left.unwrap_or_default());
}

#[test]
fn a_certificate_that_ends_while_its_connection_lasts_admits_nobody_from_that_second() {
    let authority = Authority::new("Laboratories");
    let gateway = start(&authority, "optional", "", |_| {});
    let end = OffsetDateTime::now_utc() + Duration::from_secs(4);
    let identity = authority.sign("DOC", 5, end);
    let short = start(&authority, "required", "", |_| {});
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let request = |authorization: &str| format!("GET /people HTTP/1.1\r\nHost: localhost\r\n{authorization}\r\n");
    let password = format!("Authorization: {}\r\n", basic("DOC", CANARY));
    // Over HTTP/1, where a certificate may be presented and where it must be.
    let mut open = connect_as(&gateway, client(&gateway, Some(&identity), &TLS13), "localhost").unwrap();
    let mut required = connect_as(&short, client(&short, Some(&identity), &TLS12), "localhost").unwrap();
    let ask = |stream: &mut rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream>, head: &str| {
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let count = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..count]).split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    // A resumed session, in whose handshake no certificate is verified.
    let mut resuming = client(&gateway, Some(&identity), &TLS12);
    resuming.resumption = rustls::client::Resumption::default();
    let resuming = Arc::new(resuming);
    let resumed = || {
        let mut stream = crate::gateway::tls::connect_with(&gateway, Arc::clone(&resuming), "localhost").unwrap();
        let status = ask(&mut stream, &request(""));
        (stream.conn.handshake_kind().unwrap(), status)
    };
    let mut h2 = runtime.block_on(async {
        let mut config = client(&gateway, Some(&identity), &TLS13);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = tokio::net::TcpStream::connect(gateway.tls_address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let tls = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
        let (sender, connection) = h2::client::handshake(tls).await.unwrap();
        tokio::spawn(connection);
        sender
    });
    let mut ask_h2 = || {
        runtime.block_on(async {
            let request = http::Request::get("https://localhost/people").body(()).unwrap();
            h2.send_request(request, true).unwrap().0.await.unwrap().status().as_u16()
        })
    };
    assert_eq!((ask(&mut open, &request("")), ask(&mut required, &request(""))), (200, 200));
    assert_eq!((ask(&mut required, &request(&password)), ask_h2()), (200, 200));
    assert_eq!(resumed().1, 200);
    assert!(OffsetDateTime::now_utc() < end, "all of that was before its end");
    // The last second belongs to its validity.
    wait_until(end + Duration::from_secs(1));
    assert_eq!((ask(&mut open, &request("")), ask_h2()), (401, 401));
    assert_eq!(ask(&mut open, &request(&password)), 200, "a name and a password count by themselves");
    assert_eq!(ask(&mut required, &request(&password)), 401, "but where a certificate is required");
    assert_eq!(resumed(), (rustls::HandshakeKind::Resumed, 401));
    assert!(gateway.logged("it, or an intermediate of it, has expired", Instant::now() - PATIENCE, PATIENCE).is_some());
}

#[test]
fn an_authority_that_has_expired_admits_nobody_unless_a_key_says_so() {
    let end = OffsetDateTime::now_utc() - time::Duration::HOUR;
    let authority = Authority::until("Laboratories", end);
    let identity = authority.client("DOC", 5);
    let refusing = start(&authority, "optional", "", |_| {});
    assert_eq!(crate::gateway::authority::status(&refusing, Some(&identity), "", &TLS13), 0);
    let told = "the authority `CN=Laboratories` has expired on";
    assert!(refusing.logged(told, Instant::now() - PATIENCE, PATIENCE).is_some());
    let lenient = start_in(&authority, "optional", "", &[("FEDGATE_TLS_CLIENT_CA_EXPIRED", "warn")], |_| {});
    assert_eq!(crate::gateway::authority::status(&lenient, Some(&identity), "", &TLS13), 200);
    assert!(lenient.logged(told, Instant::now() - PATIENCE, PATIENCE).is_some());
}
