//! Writes that a page of another origin makes a browser send, with the password that the browser holds.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::fixture::{CANARY, Gateway, PATIENCE, Response, Setup, basic};
use crate::gateway::exchanges::{TWO_HUNDRED, Tethered, before_fedhis};
use crate::gateway::http2::{END_HEADERS, END_STREAM, HEADERS, block_of, frame, open, read};
use crate::scripted::until;
use crate::support::free_address;

const CROSS_SITE: &str = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nOrigin: https://evil.example\r\n";
const PORTAL: &str = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\nOrigin: https://portal.example\r\n";
/// The header of older browsers.
const ORIGIN: &str = "Origin: https://evil.example\r\n";

/// A request of an administrator's browser.
fn ask(gateway: &Gateway, method: &str, path: &str, headers: &str, body: &str) -> Response {
    let more = format!("{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    gateway.request(method, path, "ADM", &more)
}

#[test]
fn a_form_of_another_origin_reaches_nothing_and_costs_no_password() {
    let environment = [
        ("FEDGATE_RECORDS_FILE", "records.jsonl"),
        // Each has a record of its own.
        ("FEDGATE_RECORDS_ANONYMOUS_OF_SOURCE_PER_MINUTE", "1000"),
        ("FEDGATE_RECORDS_ANONYMOUS_PER_MINUTE", "1000"),
    ];
    let gateway = Gateway::start_as(&Setup { environment: &environment, ..Setup::default() });
    let types = ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", ""];
    let mut last = String::new();
    for kind in types {
        for evidence in [
            CROSS_SITE,
            "Sec-Fetch-Site: same-site\r\n",
            ORIGIN,
            "Origin: null\r\n",
            "Referer: https://evil.example/\r\n",
        ] {
            for path in ["/people/NEW", "/pols/ANA/1", "/password/ADM", "/nowhere"] {
                let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
                let headers = format!("{evidence}{kind}");
                let answer = ask(&gateway, "POST", path, &headers, "{\"roles\": [\"root\"], \"x\": \"=\"}");
                assert_eq!(
                    (answer.status, &answer.json()["code"]),
                    (403, &"foreign_origin".into()),
                    "{path}: {headers}"
                );
                let origin = evidence.split("Origin: ").nth(1).map_or("*", |origin| origin.trim_end());
                assert_eq!(answer.header("access-control-allow-origin").as_deref(), Some(origin), "{headers}");
                let record = gateway.record();
                let told = (&record["status"], &record["decision"], &record["account"]);
                assert_eq!(told, (&403.into(), &"refuse".into(), &serde_json::Value::Null), "{record}");
                assert!(record["reason"].as_str().unwrap().starts_with("foreign_"), "{record}");
                last = record["request.id"].as_str().unwrap().to_owned();
            }
        }
    }
    assert!(gateway.upstream.seen().is_empty());
    let metrics = gateway.admin_get("/metrics").body;
    for (reason, count) in [("foreign_site", 32), ("foreign_origin", 32), ("foreign_referer", 16)] {
        assert!(metrics.contains(&format!("fedgate_refusals_total{{reason=\"{reason}\"}} {count}")), "{metrics}");
    }
    let explained = Command::new(env!("CARGO_BIN_EXE_fedgate"))
        .args(["explain", &last, "--config"])
        .arg(gateway.dir.join("fedgate.toml"))
        .arg("--records")
        .arg(gateway.dir.join("records.jsonl"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&explained.stdout);
    assert!(explained.status.success() && told.contains("refuse (foreign_referer)"), "{explained:?}");
}

#[test]
fn own_pages_portals_and_what_is_no_browser_write_as_before() {
    let gateway = Gateway::start();
    let json = "Content-Type: application/json\r\n";
    for (method, path) in [("POST", "/people/NEW"), ("PATCH", "/people/ANA"), ("DELETE", "/people/ANA")] {
        let body = if method == "DELETE" { "" } else { "{}" };
        let asked_first = if method == "POST" { json } else { "" };
        for headers in [
            format!("{PORTAL}{asked_first}"),
            format!("Origin: https://portal.example\r\n{asked_first}"),
            "Sec-Fetch-Site: same-origin\r\nOrigin: null\r\n".to_owned(),
            "Sec-Fetch-Site: none\r\n".to_owned(),
            "Origin: http://hospital.example\r\n".to_owned(),
            "Referer: http://hospital.example/password/ADM\r\n".to_owned(),
            // HMIS, phones, scripts.
            String::new(),
        ] {
            assert_eq!(ask(&gateway, method, path, &headers, body).status, 200, "{method}: {headers}");
        }
    }
    // Reads are never refused for their origin; a handshake opens a way to write.
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nOrigin: https://evil.example\r\n";
    for (headers, status) in [(CROSS_SITE, 200), (upgrade, 403)] {
        let before = gateway.upstream.count();
        let authorization = basic("ADM", CANARY);
        let request = format!("GET /people/ANA HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n{headers}\r\n");
        assert_eq!(gateway.send_and_close(request.as_bytes()).status, status, "{headers}");
        assert_eq!(gateway.upstream.count() - before, usize::from(status == 200), "{headers}");
    }
}

#[test]
fn a_restricted_list_of_origins_holds_for_writes_too() {
    let policy = std::fs::read_to_string("policies/roles.cfg").unwrap();
    let only = "allowed_origins = [\"https://portal.example\"]\n";
    for (more, evil, form) in [("", 403, 403), ("refuse_foreign_writes = false\n", 200, 200)] {
        let gateway = Gateway::start_with(&format!("[cors]\n{only}{more}"), &policy);
        let write = |headers: &str| ask(&gateway, "PATCH", "/people/ANA", headers, "{}").status;
        assert_eq!(write(PORTAL), 200);
        assert_eq!(write(ORIGIN), evil, "{more}");
        assert_eq!(write(&PORTAL.replace("portal.example", "evil.example")), evil, "{more}");
        assert_eq!(ask(&gateway, "POST", "/people/NEW", CROSS_SITE, "{}").status, form, "{more}");
    }
}

#[test]
fn over_http2_the_same_holds_and_own_is_its_authority() {
    let gateway = Gateway::start();
    let own = format!("https://localhost:{}", gateway.tls_address.port());
    let asked = format!("localhost:{}", gateway.tls_address.port());
    for (lines, status) in [
        (vec![("origin", own.as_str())], 200),
        (vec![("origin", "https://localhost")], 403),
        (vec![("origin", "https://evil.example"), ("content-type", "text/plain")], 403),
        (vec![("origin", "https://evil.example"), ("content-type", "application/json")], 200),
        (vec![("sec-fetch-site", "cross-site"), ("origin", &own)], 403),
        (vec![("sec-fetch-site", "same-origin"), ("origin", "null")], 200),
    ] {
        let mut stream = open(&gateway);
        let block = block_of("POST", "/pols/ANA/1", &lines);
        let named = crate::gateway::http2::literal(":authority", "localhost");
        let block = replaced(&block, &named, &crate::gateway::http2::literal(":authority", &asked));
        stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).unwrap();
        let frames = read(&mut stream, |kind, number| number == 1 && kind == HEADERS);
        let first = frames.last().unwrap().2.first().copied();
        assert_eq!(first == Some(TWO_HUNDRED), status == 200, "{lines:?}: {frames:?}");
        assert_eq!(gateway.record()["status"], status, "{lines:?}");
    }
}

/// Bytes with one part of them replaced.
fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let at = bytes.windows(old.len()).position(|window| window == old).unwrap();
    [&bytes[..at], new, &bytes[at + old.len()..]].concat()
}

/// An nginx in front of a gateway, with these lines in its configuration.
fn nginx(gateway: &Gateway, lines: &str) -> (std::net::SocketAddr, Tethered) {
    let (address, file, place) = (free_address(), gateway.dir.join("nginx.conf"), gateway.dir.display());
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {place}/nginx_{kind};\n"))
        .concat();
    let text = format!(
        "daemon off;\nmaster_process off;\npid {place}/nginx.pid;\nerror_log /dev/null;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}\
         server {{ listen {address}; location / {{ proxy_pass http://{}; {lines} }} }} }}\n",
        gateway.address
    );
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("nginx");
    let child = command.arg("-c").arg(file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let front = Tethered(child);
    until("nginx listens", || std::net::TcpStream::connect(address).is_ok());
    (address, front)
}

#[test]
fn behind_a_proxy_that_rewrites_host_the_own_origin_is_forwarded_or_configured() {
    const TELLS: &str = "proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Forwarded-Proto $scheme;";
    let trusted = ("FEDGATE_GATEWAY_TRUSTED_PROXIES", "127.0.0.0/8");
    let own = ("FEDGATE_CORS_OWN_ORIGINS", "http://hospital.example,http://other.example");
    for (environment, lines, is_own) in [
        (vec![trusted], TELLS, true),
        (vec![trusted], "", false),
        (vec![], TELLS, false),
        (vec![own], "", true),
        (vec![], "proxy_set_header Host $http_host;", true),
    ] {
        let gateway = Gateway::start_as(&Setup { environment: &environment, ..Setup::default() });
        let (address, _front) = nginx(&gateway, lines);
        let ask = |headers: &str| {
            let authorization = basic("ADM", CANARY);
            let request = format!(
                "POST /people/NEW HTTP/1.1\r\nHost: hospital.example\r\nAuthorization: {authorization}\r\n{headers}\
                 Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\nConnection: close\r\n\r\na=b"
            );
            let answer = crate::support::keepalive::whole(address, request.as_bytes()).unwrap();
            answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
        };
        let expected = if is_own { 200 } else { 403 };
        assert_eq!(ask("Origin: http://hospital.example\r\n"), expected, "{environment:?} {lines}");
        assert_eq!(ask("Sec-Fetch-Site: same-origin\r\nOrigin: http://hospital.example\r\n"), 200, "{lines}");
        assert_eq!(ask("Origin: http://evil.example\r\n"), 403, "{environment:?} {lines}");
        assert_eq!(ask(""), 200, "{environment:?} {lines}");
    }
}

#[test]
fn our_own_form_changes_a_password_and_anybody_elses_does_not() {
    let (gateway, _his) = before_fedhis();
    let page = gateway.get("/password/ANA", "ANA");
    assert_eq!(page.status, 200, "{page:?}");
    assert_eq!(page.header("referrer-policy").as_deref(), Some("same-origin"), "or browsers send `Origin: null`");
    let cookie = page.header("set-cookie").unwrap();
    let (cookie, _) = cookie.split_once(';').unwrap();
    let token = page.body.split("name=\"csrf_token\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let submit = |evidence: &str, new: &str| {
        let body = format!("csrf_token={token}&current={CANARY}&password={new}&pconfirm={new}");
        let more = format!(
            "{evidence}Cookie: {cookie}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        gateway.request("POST", "/password/ANA", "ANA", &more).status
    };
    for foreign in [CROSS_SITE, ORIGIN, "Origin: null\r\n", "Sec-Fetch-Site: same-site\r\n"] {
        assert_eq!(submit(foreign, "another-word-1"), 403, "{foreign}");
    }
    // With Sec-Fetch-Site, from before it existed, and from a browser that sends no Origin.
    let own = [
        "Sec-Fetch-Site: same-origin\r\nOrigin: http://hospital.example\r\n",
        "Origin: http://hospital.example\r\nReferer: http://hospital.example/password/ANA\r\n",
        "Referer: http://hospital.example/password/ANA\r\n",
    ];
    for own in own {
        // The form arrives, and shows its error: the password is the old one.
        assert_eq!(submit(own, CANARY), 200, "{own}");
    }
    // The attack: JSON in a form of type text/plain, as an administrator.
    let json = "{\"id\": \"EVE\", \"name\": \"=\", \"roles\": [\"root\"], \"password\": \"taken-over\"}";
    let form = format!("{CROSS_SITE}Content-Type: text/plain\r\n");
    assert_eq!(ask(&gateway, "POST", "/people/EVE", &form, json).status, 403);
    assert_eq!(gateway.get("/people/EVE", "ADM").status, 404);
    assert_eq!(submit(own[0], "another-word-1"), 302);
    let deadline = Instant::now() + PATIENCE;
    while gateway.get("/people/ANA", "ANA").status != 401 {
        assert!(Instant::now() < deadline, "the password is another one");
    }
}
