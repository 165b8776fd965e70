//! TLS 1.2 and 1.3, HTTP/1.1 and HTTP/2.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use chrono::Datelike;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, StreamOwned, SupportedProtocolVersion};

use crate::fixture::{CANARY, Gateway, PATIENCE, basic};
use crate::support::tls::believing;

pub(crate) fn client(
    gateway: &Gateway,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> ClientConfig {
    let mut config = believing(&gateway.dir.join("cert.pem"), versions).with_no_client_auth();
    // A resumed session would not check the certificate.
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

fn connect(gateway: &Gateway, config: ClientConfig) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    connect_as(gateway, config, "localhost")
}

/// Connects to a name, and completes the handshake.
pub(crate) fn connect_as(
    gateway: &Gateway,
    config: ClientConfig,
    name: &'static str,
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    connect_with(gateway, Arc::new(config), name)
}

pub(crate) fn connect_with(
    gateway: &Gateway,
    config: Arc<ClientConfig>,
    name: &'static str,
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut tcp = TcpStream::connect(gateway.tls_address)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    let mut connection = ClientConnection::new(config, name.try_into().unwrap()).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut tcp)?;
    }
    Ok(StreamOwned::new(connection, tcp))
}

/// A connection that speaks HTTP/2.
pub(crate) async fn connect_h2(gateway: &Gateway) -> h2::client::SendRequest<bytes::Bytes> {
    let config = client(gateway, &[&rustls::version::TLS13], &[b"h2"]);
    let tcp = tokio::net::TcpStream::connect(gateway.tls_address).await.unwrap();
    let tls =
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) = h2::client::handshake(tls).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[test]
fn both_versions_are_served_and_the_upstream_learns_of_https() {
    let gateway = Gateway::start();
    for (version, expected) in
        [(&rustls::version::TLS12, ProtocolVersion::TLSv1_2), (&rustls::version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        let mut stream = connect(&gateway, client(&gateway, &[version], &[])).unwrap();
        assert_eq!(stream.conn.protocol_version(), Some(expected));
        let request = format!(
            "GET /people/ANA HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\nConnection: close\r\n\r\n",
            basic("ANA", CANARY)
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let seen = gateway.upstream.seen();
        assert_eq!(crate::fixture::find_header(seen.last().unwrap(), "x-forwarded-proto").as_deref(), Some("https"));
    }
}

#[test]
fn a_client_of_http_1_0_is_served() {
    let gateway = Gateway::start();
    let mut stream = connect(&gateway, client(&gateway, &[&rustls::version::TLS13], &[b"http/1.0"])).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.0"[..]));
    let head =
        format!("GET /people/ANA HTTP/1.0\r\nHost: localhost\r\nAuthorization: {}\r\n\r\n", basic("ANA", CANARY));
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.") && answer[8..].starts_with(" 200 "), "{answer}");
}

#[test]
fn a_renewed_certificate_serves_new_connections_and_a_bad_one_does_not() {
    let gateway = Gateway::start();
    let request =
        format!("GET /people/ANA HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\r\n", basic("ANA", CANARY));
    let ask = |stream: &mut StreamOwned<ClientConnection, TcpStream>| {
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let count = stream.read(&mut answer).unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 200 "));
    };
    // Roots are read from the file: a client made now trusts the old certificate, and a later one the new.
    let old = || client(&gateway, &[&rustls::version::TLS13], &[]);
    let (old_roots, mut open) = (old(), connect(&gateway, old()).unwrap());
    ask(&mut open);
    std::fs::write(gateway.dir.join("cert.pem"), "half a certifica").unwrap();
    gateway.measures("fedgate_certificate_faults 0", false);
    ask(&mut connect(&gateway, old_roots.clone()).unwrap());
    crate::fixture::certificate(&gateway.dir);
    let deadline = std::time::Instant::now() + PATIENCE;
    while connect(&gateway, client(&gateway, &[&rustls::version::TLS13], &[])).is_err() {
        assert!(std::time::Instant::now() < deadline, "the renewed certificate was never served");
    }
    assert!(connect(&gateway, old_roots).is_err(), "the old one is served no more");
    ask(&mut open);
}

#[test]
fn no_handshake_is_dropped_while_certificates_are_renewed() {
    let gateway = Gateway::start();
    let mut pairs = vec![gateway.dir.clone()];
    for number in 0..4 {
        let dir = gateway.dir.join(format!("pair-{number}"));
        std::fs::create_dir(&dir).unwrap();
        crate::fixture::certificate(&dir);
        pairs.push(dir);
    }
    let mut roots = rustls::RootCertStore::empty();
    for dir in &pairs {
        roots.add(CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    let over = std::sync::atomic::AtomicBool::new(false);
    let served = std::thread::scope(|scope| {
        let client = || {
            let mut served = std::collections::BTreeMap::<Vec<u8>, u32>::new();
            while !over.load(std::sync::atomic::Ordering::SeqCst) {
                let stream = connect(&gateway, config.clone()).expect("a handshake");
                *served.entry(stream.conn.peer_certificates().unwrap()[0].to_vec()).or_default() += 1;
            }
            served
        };
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(client)).collect();
        for dir in &pairs[1..] {
            // One file after the other, as operators do it. In between, the pair does not match, and the gateway reports it.
            std::fs::copy(dir.join("cert.pem"), gateway.dir.join("cert.pem")).unwrap();
            gateway.measures("fedgate_certificate_faults 0", false);
            std::fs::copy(dir.join("cert.key"), gateway.dir.join("cert.key")).unwrap();
            let renewed = CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap();
            let is_served = || {
                connect(&gateway, config.clone()).expect("a handshake").conn.peer_certificates().unwrap()[0] == renewed
            };
            let deadline = std::time::Instant::now() + PATIENCE;
            while !is_served() {
                assert!(std::time::Instant::now() < deadline, "the pair of {} was never served", dir.display());
            }
            gateway.measures("fedgate_certificate_faults 0", true);
        }
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    let handshakes: u32 = served.iter().map(|(_, count)| count).sum();
    let different: std::collections::BTreeSet<_> = served.iter().map(|(certificate, _)| certificate).collect();
    println!(
        "{handshakes} handshakes while the certificate was renewed 4 times: 0 failed, {} certificates",
        different.len()
    );
    assert!(different.len() >= pairs.len() - 1, "clients saw the renewals: {}", different.len());
}

#[test]
fn a_session_is_resumed_in_both_versions() {
    let gateway = Gateway::start();
    let request = format!(
        "GET /people/ANA HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nConnection: close\r\n\r\n",
        basic("ANA", CANARY)
    );
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut config = client(&gateway, &[version], &[]);
        config.resumption = rustls::client::Resumption::default();
        config.enable_early_data = true;
        let config = Arc::new(config);
        let ask = || {
            let mut stream = connect_with(&gateway, Arc::clone(&config), "localhost").unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert!(!stream.conn.is_early_data_accepted());
            stream.conn.handshake_kind().unwrap()
        };
        assert_eq!((ask(), ask(), ask()), (HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed));
    }
}

#[test]
fn the_lowest_version_can_be_raised() {
    let policy = std::fs::read_to_string("policies/roles.cfg").unwrap();
    let gateway = Gateway::start_in(&[("FEDGATE_TLS_MIN_VERSION", "1.3")], "", &policy);
    assert!(connect(&gateway, client(&gateway, &[&rustls::version::TLS12], &[])).is_err());
    assert!(connect(&gateway, client(&gateway, &[&rustls::version::TLS13], &[])).is_ok());
}

#[test]
fn http2_is_judged_as_http1_is() {
    let gateway = Gateway::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let sender = connect_h2(&gateway).await;
        let mut sender = sender.ready().await.unwrap();
        for (path, account, status) in [
            ("/people/ANA", "ANA", 200),
            ("/people/DOC", "ANA", 403),
            ("/people/ANA", "", 401),
            ("/people/../x", "ANA", 400),
        ] {
            let mut request = http::Request::get(format!("https://localhost{path}"));
            if !account.is_empty() {
                request = request.header("authorization", basic(account, CANARY));
            }
            let (answer, _) = sender.send_request(request.body(()).unwrap(), true).unwrap();
            assert_eq!(answer.await.unwrap().status().as_u16(), status, "{path} {account}");
            sender = sender.ready().await.unwrap();
        }
    });
    assert_eq!(gateway.upstream.seen().len(), 1);
}

#[test]
fn a_scanner_finds_the_intermediate_profile_of_mozilla_kept() {
    let gateway = Gateway::start();
    // A certificate as an authority would issue it: the test is about how the listener speaks.
    let day = |days| {
        let now = chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now());
        let date = (now + chrono::TimeDelta::days(days)).date_naive();
        rcgen::date_time_ymd(date.year(), u8::try_from(date.month()).unwrap(), u8::try_from(date.day()).unwrap())
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    (parameters.not_before, parameters.not_after) = (day(-1), day(89));
    std::fs::write(gateway.dir.join("cert.pem"), parameters.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(gateway.dir.join("cert.key"), key.serialize_pem()).unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while connect(&gateway, client(&gateway, &[&rustls::version::TLS13], &[])).is_err() {
        assert!(std::time::Instant::now() < deadline, "the certificate was never served");
    }
    let mut scanner = std::process::Command::new("target/test-tools/bin/sslyze");
    scanner.args(["--mozilla_config=intermediate", &gateway.tls_address.to_string()]);
    let out = scanner.output().expect("tests/run installs the scanner");
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.contains("Checking results against Mozilla"), "{text}");
    let objections: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("        * ")).collect();
    // No client knows the authority of these tests.
    assert!(
        objections.iter().all(|objection| objection.starts_with("certificate_path_validation: ")),
        "{objections:?}\n{text}"
    );
    for (what, verdict) in [
        ("TLS 1.0 Cipher Suites", "the server rejected all cipher suites"),
        ("TLS 1.1 Cipher Suites", "the server rejected all cipher suites"),
        ("Deflate Compression", "OK - Compression disabled"),
        ("Client Renegotiation DoS Attack", "OK - Not vulnerable"),
        ("ROBOT Attack", "OK - Not vulnerable"),
    ] {
        let told: String =
            text.split(what).nth(1).unwrap_or_else(|| panic!("{what}: {text}")).chars().take(200).collect();
        assert!(told.contains(verdict), "{what}: {told}");
    }
}

#[test]
fn hsts_is_sent_where_configured_and_over_tls_alone() {
    for (seconds, told) in [("0", None), ("31536000", Some("max-age=31536000"))] {
        let environment = [("FEDGATE_TLS_HSTS_SECONDS", seconds)];
        let gateway = Gateway::start_as(&crate::fixture::Setup { environment: &environment, ..Default::default() });
        let over_tls = |account: &str| {
            let mut stream = connect(&gateway, client(&gateway, &[&rustls::version::TLS13], &[])).unwrap();
            let authorization = basic(account, CANARY);
            let head = format!("GET /people/ANA HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n");
            stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            answer
        };
        for (account, status) in [("ANA", "200"), ("NOBODY", "401")] {
            let answer = over_tls(account);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert_eq!(crate::fixture::find_header(&answer, "strict-transport-security").as_deref(), told, "{answer}");
        }
        let plain = gateway.get("/people/ANA", "ANA");
        assert_eq!((plain.status, plain.header("strict-transport-security")), (200, None));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let over_http2 = runtime.block_on(async {
            let mut sender = connect_h2(&gateway).await.ready().await.unwrap();
            let request = http::Request::get("https://localhost/people/ANA").body(()).unwrap();
            sender.send_request(request, true).unwrap().0.await.unwrap()
        });
        let header = over_http2.headers().get("strict-transport-security").map(|told| told.to_str().unwrap());
        assert_eq!((over_http2.status().as_u16(), header), (401, told));
    }
}
