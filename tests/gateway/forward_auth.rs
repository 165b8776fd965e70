//! A proxy that holds a request asks whether it may pass: every kind of proxy, by hand-made questions.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::fixture::{CANARY, Gateway, PATIENCE, Response, Setup, basic};
use crate::gateway::authority::{Authority, Identity, client, start_in};
use crate::support::free_address;
use crate::support::tls::believing;

/// The kinds of proxies, as the configuration names them.
const STYLES: [&str; 5] = ["nginx", "traefik", "caddy", "haproxy", "envoy"];

/// A gateway with a listener for each kind of proxy.
struct Asked {
    gateway: Gateway,
    listeners: Vec<(&'static str, SocketAddr)>,
}

impl Asked {
    fn start(more: &str) -> Self {
        Self::start_before(more, "")
    }

    /// Starts with more keys of `[beside]`, and with further sections.
    fn start_before(more: &str, sections: &str) -> Self {
        let listeners: Vec<_> = STYLES.iter().map(|style| (*style, free_address())).collect();
        let keys: String = listeners.iter().map(|(style, address)| format!("{style} = [\"{address}\"]\n")).collect();
        let configuration = format!("{sections}\n[beside]\n{keys}{more}\n");
        let gateway = Gateway::start_as(&Setup { configuration: &configuration, ..Setup::default() });
        Self { gateway, listeners }
    }

    fn address(&self, style: &str) -> SocketAddr {
        self.listeners.iter().find(|(known, _)| *known == style).unwrap().1
    }

    fn ask(&self, style: &str, question: &Question<'_>) -> Response {
        self.send(style, &question.head(style))
    }

    fn send(&self, style: &str, head: &str) -> Response {
        send(&mut TcpStream::connect(self.address(style)).unwrap(), head)
    }
}

/// Sends a question, and reads until the connection ends.
fn send(stream: &mut TcpStream, head: &str) -> Response {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(head.as_bytes());
    let mut received = vec![];
    let ended = stream.read_to_end(&mut received).is_ok();
    Response::parse(&received, ended)
}

/// The request that a proxy holds.
#[derive(Clone, Copy)]
struct Question<'a> {
    method: &'a str,
    target: &'a str,
    account: &'a str,
    client: &'a str,
    extra: &'a str,
}

impl<'a> Question<'a> {
    fn new(method: &'a str, target: &'a str, account: &'a str) -> Self {
        Self { method, target, account, client: "192.0.2.7", extra: "" }
    }

    /// The lines with which a proxy of this kind tells the request: name and value.
    fn told(&self, style: &str) -> Vec<(&'static str, String)> {
        let lines: &[(&str, &str)] = match style {
            "nginx" | "haproxy" => {
                &[("X-Original-Method", self.method), ("X-Original-URI", self.target), ("X-Real-IP", self.client)]
            }
            "traefik" | "caddy" => &[
                ("X-Forwarded-Method", self.method),
                ("X-Forwarded-Uri", self.target),
                ("X-Forwarded-Host", "hospital.example"),
                ("X-Forwarded-For", self.client),
            ],
            _ => &[("X-Real-IP", self.client)],
        };
        let lines = lines.iter().map(|(name, value)| (*name, (*value).to_owned()));
        lines.chain([("X-Forwarded-Proto", "https".to_owned())]).collect()
    }

    fn head(&self, style: &str) -> String {
        self.head_of(style, &self.told(style))
    }

    fn head_of(&self, style: &str, told: &[(&str, String)]) -> String {
        let (method, target, host) = match style {
            "envoy" => (self.method, self.target, "hospital.example"),
            "nginx" | "haproxy" => ("GET", "/ask", "hospital.example"),
            _ => ("GET", "/ask", "fedgate:8446"),
        };
        let told: String = told.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let authorization = match self.account {
            "" => String::new(),
            account => format!("Authorization: {}\r\n", basic(account, CANARY)),
        };
        let extra = self.extra;
        format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{told}{authorization}{extra}Connection: close\r\n\r\n")
    }
}

fn claims(answer: &Response) -> Value {
    let assertion = answer.header("fedgate-assertion").unwrap();
    let payload = URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

fn code(answer: &Response) -> String {
    answer.json()["code"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_proxy_of_each_kind_learns_what_its_client_would_and_nothing_is_forwarded() {
    let asked = Asked::start("");
    for style in STYLES {
        let passes = asked.ask(style, &Question::new("GET", "/people/ANA?x=1", "ANA"));
        assert_eq!((passes.status, passes.complete, passes.body.as_str()), (200, true, ""), "{style}: {passes:?}");
        for (name, value) in [
            ("fedgate-account", "ANA"),
            ("fedgate-roles", "end_user"),
            ("fedgate-endpoint", "person"),
            ("fedgate-subject", "ANA"),
            ("fedgate-scope", "own"),
        ] {
            assert_eq!(passes.header(name).as_deref(), Some(value), "{style}: {name}");
        }
        let claims = claims(&passes);
        assert_eq!((&claims["sub"], &claims["method"]), (&"ANA".into(), &"GET".into()), "{style}");
        assert_eq!((&claims["path"], &claims["subject"]), (&"/people/ANA".into(), &"ANA".into()), "{style}");
        let record = asked.gateway.record();
        assert_eq!(record["request.id"].as_str().map(str::to_owned), passes.header("x-request-id"), "{style}");
        for (member, value) in [
            ("method", "GET"),
            ("path", "/people/ANA"),
            ("client.ip", "192.0.2.7"),
            ("account", "ANA"),
            ("subject.id", "ANA"),
            ("decision", "allow"),
        ] {
            assert_eq!(record[member], value, "{style}: {record}");
        }
        let roles = asked.ask(style, &Question::new("DELETE", "/people/B%C3%84R", "ADM"));
        assert_eq!(roles.status, 200, "{style}: {roles:?}");
        assert_eq!(roles.header("fedgate-subject").as_deref(), Some("B%C3%84R"), "{style}");
        asked.gateway.record();
        for (method, target, account, status, expected) in [
            ("GET", "/people/DOC", "ANA", 403, "not_permitted"),
            ("DELETE", "/people/ANA", "ANA", 403, "not_permitted"),
            ("GET", "/people/ANA", "OFF", 401, ""),
            ("GET", "/people/ANA", "", 401, ""),
            ("GET", "/nothing", "ANA", 404, "not_found"),
            ("GET", "/nothing", "", 401, ""),
            ("PUT", "/people/ANA", "ANA", 405, "method_not_allowed"),
            ("BREW", "/people/ANA", "ANA", 405, "method_not_allowed"),
            ("OPTIONS", "/people/ANA", "ANA", 403, "not_decided_beside"),
        ] {
            let question = Question::new(method, target, account);
            let answer = asked.ask(style, &question);
            assert_eq!(answer.status, status, "{style}: {method} {target}: {answer:?}");
            match status {
                401 => assert!(answer.header("www-authenticate").unwrap().starts_with("Basic "), "{answer:?}"),
                _ => assert_eq!(code(&answer), expected, "{style}: {method} {target}"),
            }
            assert!(answer.header("fedgate-account").is_none() && answer.header("fedgate-assertion").is_none());
            let record = asked.gateway.record();
            assert_eq!((&record["method"], &record["client.ip"]), (&method.into(), &"192.0.2.7".into()), "{record}");
            assert_ne!(record["decision"], "allow", "{record}");
        }
    }
    assert!(asked.gateway.upstream.seen().is_empty(), "the proxy forwards, nobody else");
}

#[test]
fn an_answer_about_head_has_no_body_and_the_proxys_connection_goes_on() {
    let asked = Asked::start("");
    for style in STYLES {
        for (account, status) in [("ANA", 200), ("", 401)] {
            let mut stream = TcpStream::connect(asked.address(style)).unwrap();
            let head = Question::new("HEAD", "/people/ANA", account).head(style);
            let first = head.replace("Connection: close\r\n", "");
            let answer = send(&mut stream, &(first + &head));
            let answers: Vec<_> = answer.head.matches("HTTP/1.1 ").chain(answer.body.matches("HTTP/1.1 ")).collect();
            assert_eq!((answer.status, answers.len()), (status, 2), "{style}: {answer:?}");
            assert_eq!(answer.header("content-length").as_deref(), Some("0"), "{style}");
        }
    }
}

#[test]
fn what_a_proxy_does_not_tell_once_in_its_own_way_is_refused() {
    let asked = Asked::start("");
    let question = Question::new("GET", "/people/ANA", "ANA");
    for style in STYLES {
        let told = question.told(style);
        for (at, (name, value)) in told.iter().enumerate() {
            let without: Vec<_> =
                told.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, line)| line.clone()).collect();
            let twice: Vec<_> = told.iter().cloned().chain([(*name, value.clone())]).collect();
            let empty: Vec<_> = without.iter().cloned().chain([(*name, String::new())]).collect();
            for (how, lines) in [("missing", &without), ("twice", &twice), ("empty", &empty)] {
                let answer = asked.send(style, &question.head_of(style, lines));
                assert_eq!((answer.status, code(&answer).as_str()), (400, "original_unclear"), "{style}: {name} {how}");
                assert_eq!(asked.gateway.record()["reason"], "original_unclear", "{style}: {name} {how}");
            }
        }
        // The client of the proxy has sent what a proxy of another kind would tell.
        let forged = "X-Original-Method: GET\r\nX-Original-URI: /people\r\nX-Original-URL: /people\r\n\
                      X-Forwarded-Method: GET\r\nX-Forwarded-Uri: /people\r\nX-Real-IP: 6.6.6.6\r\n\
                      Forwarded: for=6.6.6.6\r\nX-Envoy-Original-Path: /people\r\nFedgate-Account: ADM\r\n\
                      Fedgate-Assertion: forged\r\n";
        let own: Vec<String> = told.iter().map(|(name, _)| format!("{name}: ")).collect();
        let lines: Vec<&str> = forged.split_inclusive("\r\n").collect();
        let extra: String = lines.into_iter().filter(|line| !own.iter().any(|own| line.starts_with(own))).collect();
        let answer = asked.ask(style, &Question { extra: &extra, ..question });
        assert_eq!(answer.status, 200, "{style}: {answer:?}");
        assert_eq!(answer.header("fedgate-account").as_deref(), Some("ANA"), "{style}");
        assert_eq!((&claims(&answer)["path"], &claims(&answer)["sub"]), (&"/people/ANA".into(), &"ANA".into()));
        assert_eq!(asked.gateway.record()["client.ip"], "192.0.2.7", "{style}");
    }
}

#[test]
fn a_target_is_judged_as_strictly_as_on_the_wire() {
    let asked = Asked::start("");
    for style in STYLES {
        for (method, target) in [
            ("GET", "/people/../people/ANA"),
            ("GET", "/people/%2e%2e/adm"),
            ("GET", "/people/ANA%2fx"),
            ("GET", "/people//ANA"),
            ("GET", "/people/ANA#x"),
            ("GET", "http://hospital.example/people/ANA"),
            ("GET", "http://evil.example/people/ANA"),
            ("GET", "//evil.example/people/ANA"),
            ("GET", "people/ANA"),
            ("GET", "*"),
            ("GET", "/people/ANA\\..\\DOC"),
            ("GET", "/people/%zz"),
            ("GET", "/people/ANA%00"),
            ("CONNECT", "hospital.example:443"),
            ("CONNECT", "/people/ANA"),
            ("TRACE", "/people/ANA"),
            ("get", "/people/ANA"),
        ] {
            // Envoy's question has the target as its own, and absolute targets are read before.
            if style == "envoy" && target.starts_with("http://hospital") {
                continue;
            }
            let answer = asked.ask(style, &Question::new(method, target, "ANA"));
            assert!((400..500).contains(&answer.status), "{style}: {method} {target}: {answer:?}");
            assert!(answer.header("fedgate-account").is_none(), "{style}: {method} {target}");
        }
        let long = format!("/people/{}", "A".repeat(20_000));
        let answer = asked.ask(style, &Question::new("GET", &long, "ANA"));
        assert!(matches!(answer.status, 414 | 431), "{style}: {answer:?}");
        // The host that the client asked for counts, and so does a page that made its browser ask.
        let two = asked
            .ask(style, &Question { extra: "Host: evil.example\r\n", ..Question::new("GET", "/people/ANA", "ANA") });
        assert_eq!(two.status, 400, "{style}");
        // A form of a page of another site, which no preflight announces.
        let page = "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\nContent-Type: text/plain\r\n";
        let answer = asked.ask(style, &Question { extra: page, ..Question::new("POST", "/people/ANA", "ADM") });
        assert_eq!((answer.status, code(&answer).as_str()), (403, "foreign_origin"), "{style}");
        let own = "Origin: https://hospital.example\r\nSec-Fetch-Site: same-origin\r\n";
        let answer = asked.ask(style, &Question { extra: own, ..Question::new("POST", "/people/ANA", "ADM") });
        assert_eq!(answer.status, 200, "{style}: {answer:?}");
        for extra in ["Upgrade: websocket\r\n", "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n"] {
            let answer = asked.ask(style, &Question { extra, ..Question::new("POST", "/people/ANA", "ADM") });
            assert_eq!(answer.status, 400, "{style}: {extra}: {answer:?}");
        }
        let two = format!("Authorization: {}\r\n", basic("ADM", CANARY));
        let answer = asked.ask(style, &Question { extra: &two, ..Question::new("GET", "/people/ANA", "ANA") });
        assert_eq!(code(&answer), "several_authorizations", "{style}");
    }
}

#[test]
fn the_client_is_the_one_that_the_proxy_names_and_waits_for_itself() {
    let trusting = "[beside]\ntraefik = [\"TRAEFIK\"]\n";
    let address = free_address();
    let configuration = trusting.replace("TRAEFIK", &address.to_string());
    let environment = [("FEDGATE_GATEWAY_TRUSTED_PROXIES", "10.0.0.0/8")];
    let gateway =
        Gateway::start_as(&Setup { configuration: &configuration, environment: &environment, ..Setup::default() });
    let asked = Asked { gateway, listeners: vec![("traefik", address)] };
    for (chain, client) in [
        ("192.0.2.7", "192.0.2.7"),
        ("6.6.6.6, 192.0.2.7", "192.0.2.7"),
        ("6.6.6.6, 192.0.2.7, 10.0.0.9", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::7"),
    ] {
        let question = Question { client: chain, ..Question::new("GET", "/people/ANA", "ANA") };
        assert_eq!(asked.ask("traefik", &question).status, 200);
        assert_eq!(asked.gateway.record()["client.ip"], client, "{chain}");
    }
    for chain in ["192.0.2.7, ", "unknown", "192.0.2.7, evil"] {
        let question = Question { client: chain, ..Question::new("GET", "/people/ANA", "ANA") };
        assert_eq!(code(&asked.ask("traefik", &question)), "original_unclear", "{chain}");
    }
    // Wrong passwords delay the address that tries them, not the proxy.
    let tries = |number: usize| {
        let wrong = format!("Authorization: {}\r\n", basic("DOC", &format!("wrong{number}")));
        let question = Question { client: "192.0.2.66", extra: &wrong, ..Question::new("GET", "/people/DOC", "") };
        asked.ask("traefik", &question).status
    };
    assert!((0..100).any(|number| tries(number) == 429), "guesses without an end");
    let question = Question { client: "192.0.2.8", ..Question::new("GET", "/people/DOC", "DOC") };
    assert_eq!(asked.ask("traefik", &question).status, 200, "another client of the same proxy");
}

#[test]
fn only_a_named_proxy_may_ask() {
    let asked = Asked::start("networks = [\"192.0.2.1\"]\n");
    for style in STYLES {
        let answer = asked.ask(style, &Question::new("GET", "/people/ANA", "ANA"));
        assert_eq!((answer.status, code(&answer).as_str()), (403, "proxy_unknown"), "{style}");
        let record = asked.gateway.record();
        assert_eq!(
            (&record["client.ip"], &record["reason"]),
            (&"127.0.0.1".into(), &"proxy_unknown".into()),
            "{record}"
        );
    }
}

/// The answer to a question over TLS, by a proxy with a certificate or none; none if it cannot connect.
fn ask_over_tls(gateway: &Gateway, address: SocketAddr, identity: Option<&Identity>, head: &str) -> Option<Response> {
    let config = client(gateway, identity, &rustls::version::TLS13);
    let mut tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut tcp).ok()?;
    }
    let mut stream = rustls::StreamOwned::new(connection, tcp);
    stream.write_all(head.as_bytes()).ok()?;
    let mut received = vec![];
    let ended = stream.read_to_end(&mut received).is_ok();
    Some(Response::parse(&received, ended))
}

#[test]
fn a_certificate_shows_which_proxy_asks_and_never_who_its_client_is() {
    let authority = Authority::new("Proxies");
    // Its name is that of an account.
    let (proxy, other) = (authority.client("ADM", 7), authority.client("ADM", 8));
    let address = free_address();
    let (listen, shown) = (address.to_string(), proxy.fingerprint());
    let environment = [("FEDGATE_BESIDE_NGINX", listen.as_str()), ("FEDGATE_BESIDE_CERTIFICATES", &shown)];
    let gateway = start_in(&authority, "optional", "", &environment, |_| {});
    let ask = |identity: Option<&Identity>, account: &str| {
        let head = Question::new("GET", "/people/ANA", account).head("nginx");
        ask_over_tls(&gateway, address, identity, &head).unwrap()
    };
    let passes = ask(Some(&proxy), "ANA");
    assert_eq!((passes.status, passes.header("fedgate-account").as_deref()), (200, Some("ANA")), "{passes:?}");
    assert_eq!(ask(Some(&proxy), "").status, 401, "the proxy's certificate signs nobody in");
    assert_eq!(code(&ask(Some(&other), "ANA")), "proxy_unknown");
    assert_eq!(code(&ask(None, "ANA")), "proxy_unknown");
    let plain = send(&mut TcpStream::connect(address).unwrap(), &Question::new("GET", "/", "ANA").head("nginx"));
    assert_eq!(plain.status, 400, "{plain:?}");
    assert!(plain.header("fedgate-account").is_none(), "{plain:?}");
}

#[tokio::test]
async fn over_http2_a_proxy_learns_the_same() {
    let authority = Authority::new("Proxies");
    let proxy = authority.client("a proxy", 7);
    let [nginx, envoy] = [(); 2].map(|()| free_address());
    let (shown, first, second) = (proxy.fingerprint(), nginx.to_string(), envoy.to_string());
    let environment = [
        ("FEDGATE_BESIDE_NGINX", first.as_str()),
        ("FEDGATE_BESIDE_ENVOY", &second),
        ("FEDGATE_BESIDE_CERTIFICATES", &shown),
    ];
    let start = || start_in(&authority, "optional", "", &environment, |_| {});
    let gateway = std::thread::scope(|scope| scope.spawn(start).join().unwrap());
    let builder = believing(&gateway.dir.join("cert.pem"), &[&rustls::version::TLS13]);
    let mut config = builder.with_client_auth_cert(proxy.chain.clone(), proxy.key.clone_key()).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    for (style, address) in [("nginx", nginx), ("envoy", envoy)] {
        let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
        let tls = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
        let (sender, connection) = h2::client::handshake(tls).await.unwrap();
        tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        let question = Question::new("GET", "/people/ANA", "ANA");
        for (lines, extra, body, status) in [
            (question.told(style), None, false, 200),
            (question.told(style)[1..].to_vec(), None, false, 400),
            (question.told(style), Some(("x-forwarded-proto", "http")), false, 400),
            (question.told(style), Some(("fedgate-account", "ADM")), false, 200),
            (question.told(style), None, true, 400),
        ] {
            let target = if style == "envoy" { question.target } else { "/ask" };
            let mut request = http::Request::get(format!("https://hospital.example{target}"));
            request = request.header("authorization", basic("ANA", CANARY));
            for (name, value) in lines.iter().map(|(name, value)| (*name, value.as_str())).chain(extra) {
                request = request.header(name, value);
            }
            let (answer, mut stream) = sender.send_request(request.body(()).unwrap(), !body).unwrap();
            if body {
                stream.send_data(bytes::Bytes::from_static(b"x"), true).unwrap();
            }
            let answer = answer.await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{style}: {lines:?} {extra:?}");
            let account = answer.headers().get("fedgate-account").map(|account| account.to_str().unwrap());
            assert_eq!(account, (status == 200).then_some("ANA"), "{style}");
        }
    }
}

/// Routes that need more than a head, and one that does not.
const ROUTES: &str = r#"
[[route]]
path = "/lab/{id}"
methods = ["GET", "POST"]
endpoint = "person"
subject = "id"
upstream = "his"
[[route.guard]]
members = ["roles"]
permission = "account"
[[route]]
path = "/shown/{id}"
methods = ["GET"]
endpoint = "person"
subject = "id"
upstream = "his"
hide = ["password"]
[[route]]
path = "/flow/{id}"
methods = ["GET"]
endpoint = "person"
subject = "id"
upstream = "his"
stream = true
[[route]]
path = "/open"
methods = ["POST"]
public = true
upstream = "his"
[[route.guard]]
members = ["roles"]
[[route]]
path = "/results"
methods = ["GET", "POST"]
endpoint = "page"
upstream = "his"
[route.subject]
query = ["patient"]
body = ["/patient"]
missing = "own"
[[route]]
path = "/results/{id}"
methods = ["GET"]
endpoint = "page"
upstream = "his"
[route.subject]
answer = ["/patient"]
"#;

#[test]
fn what_the_head_alone_does_not_decide_is_refused_and_check_names_it() {
    let asked = Asked::start_before("", ROUTES);
    for style in STYLES {
        for (method, target, account, status) in [
            ("GET", "/lab/ANA", "ANA", 200),
            ("POST", "/lab/ANA", "ADM", 403),
            ("GET", "/shown/ANA", "ANA", 403),
            ("GET", "/flow/ANA", "ANA", 403),
            ("POST", "/open", "", 403),
            ("GET", "/results?patient=ANA", "ANA", 200),
            ("GET", "/results", "ANA", 403),
            ("POST", "/results", "ANA", 403),
            ("POST", "/results", "ADM", 200),
            ("GET", "/results/9", "ANA", 403),
            ("GET", "/results/9", "DOC", 200),
        ] {
            let answer = asked.ask(style, &Question::new(method, target, account));
            assert_eq!(answer.status, status, "{style}: {method} {target} by {account}: {answer:?}");
            if status == 403 {
                assert_eq!(code(&answer), "not_decided_beside", "{style}: {method} {target}");
            }
        }
    }
    assert!(asked.gateway.upstream.seen().is_empty());
    let config = asked.gateway.dir.join("fedgate.toml");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fedgate"));
    let out = command.args(["check", "--config"]).arg(config).output().unwrap();
    let told = String::from_utf8_lossy(&out.stdout).into_owned();
    for line in [
        "POST /lab/{id}: its body has guarded members",
        "GET /shown/{id}: its answers have hidden members",
        "GET /flow/{id}: its answer is a stream",
        "POST /open: its body has guarded members",
        "GET /results: its query may be completed",
        "POST /results: its body names the subject",
        "GET /results/{id}: its answer names the subject",
    ] {
        assert!(told.contains(line), "{line} in {told}");
    }
    assert!(!told.contains("GET /lab/{id}:"), "{told}");
}
