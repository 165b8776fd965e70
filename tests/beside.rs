//! fedgate beside nginx, Traefik, Caddy, HAProxy and Envoy: each with the shipped files of examples/beside, in which
//! only the ports differ. A proxy that this machine lacks is told, and not tried; `tests/run` installs all of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fixture::{CANARY, Gateway, PATIENCE, Response, Setup, basic};
use crate::support::free_address;

const EXAMPLE: &str = "examples/beside";

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(command: &mut Command, listens: SocketAddr) -> Running {
    let running = Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(listens).is_err() {
        assert!(Instant::now() < deadline, "{command:?} does not listen at {listens}");
        std::thread::sleep(Duration::from_millis(10));
    }
    running
}

/// The proxy, the gateway that it asks, and the service behind it.
struct Beside {
    proxy: SocketAddr,
    gateway: Gateway,
    _running: [Running; 2],
}

/// A program of the system, or of those that `tests/run` installs.
fn program(name: &str) -> Option<PathBuf> {
    let tools = std::env::current_dir().unwrap().join("target/test-tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).chain(["/usr/sbin".into(), tools]);
    places.find_map(|place| Some(place.join(name)).filter(|file| file.exists()))
}

/// A section of a shipped file, from its first line on.
fn shipped(file: &str) -> String {
    std::fs::read_to_string(Path::new(EXAMPLE).join(file)).unwrap()
}

impl Beside {
    /// None where the proxy is not installed.
    fn start(name: &str, ports: [u16; 2], files: &[&str], arguments: &[&str]) -> Option<Self> {
        let Some(found) = program(name) else {
            println!("{name} is not installed, and was not tried");
            return None;
        };
        let [asked, proxy, service] = [(); 3].map(|()| free_address());
        let routes = shipped("fedgate.toml");
        let routes = &routes[routes.find("[[route]]").unwrap()..].replace("\"records\"", "\"his\"");
        let configuration = format!("{routes}\n[beside]\n{name} = [\"{asked}\"]\n");
        let roles = shipped("roles.cfg").replace("patient", "end_user").replace("clinician", "health_professional");
        let gateway = Gateway::start_as(&Setup {
            configuration: &configuration,
            policy: Some(&roles),
            environment: &[("FEDGATE_GATEWAY_THALAMUS_ROUTES", "false")],
            ..Setup::default()
        });
        let place = gateway.dir.join(name);
        std::fs::create_dir_all(place.join("temp")).unwrap();
        for file in files {
            let text = shipped(&format!("{name}/{file}"));
            let known = [(ports[0], asked), (ports[1], proxy), (8080, service)];
            // In two steps: a new port may be one that is still to be replaced.
            let text = known.iter().fold(text, |text, (port, _)| text.replace(&port.to_string(), &format!("<{port}>")));
            let text = known
                .iter()
                .fold(text, |text, (port, address)| text.replace(&format!("<{port}>"), &address.port().to_string()));
            std::fs::write(place.join(file), text).unwrap();
        }
        let mut serve = Command::new("python3");
        let service = run(serve.arg(Path::new(EXAMPLE).join("service.py")).arg(service.port().to_string()), service);
        let mut command = Command::new(found);
        let log = std::fs::File::create(place.join("stderr.log")).unwrap();
        command.args(arguments).current_dir(&place).env("HOME", &place).stderr(log);
        let running = run(&mut command, proxy);
        Some(Self { proxy, gateway, _running: [running, service] })
    }

    fn send(&self, method: &str, target: &str, account: &str, extra: &str, body: &str) -> Response {
        let authorization = match account {
            "" => String::new(),
            account => format!("Authorization: {}\r\n", basic(account, CANARY)),
        };
        let port = self.proxy.port();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost:{port}\r\n{authorization}{extra}Connection: close\r\n\r\n{body}"
        );
        let mut stream = TcpStream::connect(self.proxy).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(head.as_bytes());
        let mut received = vec![];
        let ended = stream.read_to_end(&mut received).is_ok();
        Response::parse(&received, ended)
    }

    /// The request that the service received; none if it received none.
    fn received(answer: &Response) -> Option<Value> {
        let begin = answer.body.find('{')?;
        let end = answer.body.rfind('}')?;
        serde_json::from_str(answer.body.get(begin..=end)?).ok().filter(|value: &Value| value["target"].is_string())
    }

    /// The questions that every proxy answers alike. `others` is the status for what nginx answers otherwise.
    fn is_guarded(&mut self, others: impl Fn(u16) -> u16) {
        let passes = self.send("GET", "/records/ANA?x=%2F1", "ANA", "", "");
        assert_eq!(passes.status, 200, "{passes:?}");
        let seen = Self::received(&passes).unwrap();
        let record = self.gateway.record();
        assert_eq!((&seen["method"], &seen["target"]), (&"GET".into(), &"/records/ANA?x=%2F1".into()), "{seen}");
        for (name, value) in [
            ("fedgate-account", "ANA"),
            ("fedgate-roles", "end_user"),
            ("fedgate-endpoint", "record"),
            ("fedgate-subject", "ANA"),
            ("fedgate-scope", "own"),
            ("x-request-id", record["request.id"].as_str().unwrap()),
        ] {
            assert_eq!(seen[name], serde_json::json!([value]), "{name}: {seen}");
        }
        assert_eq!(seen["fedgate-assertion"].as_array().map(Vec::len), Some(1), "{seen}");
        assert_eq!(seen["authorization"], Value::Null, "the service needs no password");
        assert_eq!((&record["client.ip"], &record["path"]), (&"127.0.0.1".into(), &"/records/ANA".into()), "{record}");
        // What a client writes about itself, or about another request, has no effect.
        let forged = "Fedgate-Account: DOC\r\nFedgate-Roles: root\r\nFedgate-Subject: DOC\r\nFedgate-Assertion: x\r\n\
                      X-Original-Method: GET\r\nX-Original-URI: /health\r\nX-Forwarded-Method: GET\r\n\
                      X-Forwarded-Uri: /health\r\nX-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\
                      Forwarded: for=6.6.6.6\r\nX-Forwarded-Host: evil.example\r\n";
        let open = self.send("GET", "/health", "", forged, "");
        assert_eq!(open.status, 200, "{open:?}");
        let seen = Self::received(&open).unwrap();
        for name in ["fedgate-account", "fedgate-roles", "fedgate-subject"] {
            assert!(seen[name] == Value::Null || seen[name] == serde_json::json!([""]), "{name}: {seen}");
        }
        let record = self.gateway.record();
        assert_eq!((&record["client.ip"], &record["path"]), (&"127.0.0.1".into(), &"/health".into()), "{record}");
        for (method, target, account, extra, status) in [
            ("GET", "/records/DOC", "ANA", forged, 403),
            ("GET", "/records", "ANA", "", 403),
            ("PUT", "/records/ANA", "ANA", "Content-Length: 0\r\n", 403),
            ("GET", "/records/ANA", "", forged, 401),
            ("GET", "/records/ANA", "OFF", "", 401),
            (
                "PUT",
                "/records/ANA",
                "DOC",
                "Content-Length: 0\r\nOrigin: https://evil.example\r\nSec-Fetch-Mode: no-cors\r\n",
                403,
            ),
            ("PUT", "/records/ANA", "DOC", "Content-Length: 0\r\nSec-Fetch-Site: cross-site\r\n", 403),
            ("OPTIONS", "/records/ANA", "ANA", "", 403),
        ] {
            let refused = self.send(method, target, account, extra, "");
            assert_eq!(refused.status, status, "{method} {target} by {account}: {refused:?}");
            assert_eq!(Self::received(&refused), None, "{refused:?}");
            if status == 401 {
                let challenge = refused.header("www-authenticate").unwrap();
                assert!(challenge.starts_with("Basic "), "{challenge}");
            }
        }
        let nowhere = self.send("GET", "/nothing", "ANA", "", "");
        assert_eq!(nowhere.status, others(404), "{nowhere:?}");
        for target in [
            "/health/../records/DOC",
            "/health/%2e%2e/records/DOC",
            "//records/DOC",
            "/records/%44OC",
            "/records/DOC%2f",
        ] {
            let refused = self.send("GET", target, "ANA", "", "");
            assert!(refused.status >= 400 && Self::received(&refused).is_none(), "{target}: {refused:?}");
        }
        let body = "{\"note\": \"written\"}";
        let with_body = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        let written = self.send("PUT", "/records/ANA", "DOC", &with_body, body);
        let seen = Self::received(&written).unwrap_or_else(|| panic!("{written:?}"));
        assert_eq!((&seen["method"], &seen["body"]), (&"PUT".into(), &body.into()), "{seen}");
        let chunked = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
        let chunks = self.send("PUT", "/records/ANA", "DOC", chunked, "3\r\nabc\r\n0\r\n\r\n");
        assert!(matches!(chunks.status, 200 | 403 | 411 | 500), "{chunks:?}");
        assert_eq!(self.send("HEAD", "/records/ANA", "ANA", "", "").status, 200);
        assert_eq!(self.send("HEAD", "/records/ANA", "", "", "").status, 401);
        // Without fedgate, nothing passes.
        self.gateway.kill();
        let alone = self.send("GET", "/health", "", "", "");
        assert!(alone.status >= 500 && Self::received(&alone).is_none(), "{alone:?}");
    }
}

#[test]
fn nginx_asks_before_it_forwards() {
    let arguments = ["-p", ".", "-c", "nginx.conf"];
    let Some(mut beside) = Beside::start("nginx", [8451, 8461], &["nginx.conf"], &arguments) else { return };
    // nginx hands on 401 and 403.
    beside.is_guarded(|_| 500);
}

#[test]
fn traefik_asks_before_it_forwards() {
    let files = ["traefik.yml", "routes.yml"];
    let Some(mut beside) = Beside::start("traefik", [8452, 8462], &files, &["--configfile=traefik.yml"]) else {
        return;
    };
    // It listens before it has read its routes.
    let deadline = Instant::now() + PATIENCE;
    while beside.send("GET", "/health", "", "", "").status != 200 {
        assert!(Instant::now() < deadline, "Traefik has no routes");
        std::thread::sleep(Duration::from_millis(50));
    }
    while beside.gateway.record_within(Duration::from_millis(300)).is_some() {}
    beside.is_guarded(|status| status);
}

#[test]
fn caddy_asks_before_it_forwards() {
    let arguments = ["run", "--config", "Caddyfile"];
    let Some(mut beside) = Beside::start("caddy", [8453, 8463], &["Caddyfile"], &arguments) else { return };
    beside.is_guarded(|status| status);
}

#[test]
fn haproxy_asks_before_it_forwards() {
    let files = ["haproxy.cfg", "fedgate.lua"];
    let Some(mut beside) = Beside::start("haproxy", [8454, 8464], &files, &["-f", "haproxy.cfg"]) else { return };
    beside.is_guarded(|status| status);
}

#[test]
fn envoy_asks_before_it_forwards() {
    let arguments = ["-c", "envoy.yaml", "--disable-hot-restart", "--concurrency", "1"];
    let Some(mut beside) = Beside::start("envoy", [8455, 8465], &["envoy.yaml"], &arguments) else { return };
    beside.is_guarded(|status| status);
}
