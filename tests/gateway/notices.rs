//! The gateway's own messages on the page of passwords: a page for browsers, JSON for other clients.

use std::collections::BTreeMap;

use crate::fixture::{CANARY, Gateway, Response, Setup, basic};
use crate::gateway::tls::connect_h2;
use crate::support::free_address;

/// The header of browsers.
const ACCEPT: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

fn ask(gateway: &Gateway, method: &str, target: &str, account: &str, language: &str, more: &str) -> Response {
    let accept = format!("Accept: {ACCEPT}\r\nAccept-Language: {language}\r\n{more}");
    gateway.request(method, target, account, &accept)
}

fn is_page(answer: &Response, language: &str, words: &str) {
    assert_eq!(answer.header("content-type").as_deref(), Some("text/html; charset=utf-8"), "{answer:?}");
    assert_eq!(answer.header("content-language").as_deref(), Some(language), "{answer:?}");
    assert_eq!(answer.header("vary").as_deref(), Some("Accept, Accept-Language"));
    assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"));
    assert!(answer.header("content-security-policy").unwrap().starts_with("default-src 'none'; style-src 'sha256-"));
    assert!(answer.body.contains(words) && answer.body.contains(&format!("<html lang=\"{language}\">")), "{answer:?}");
    assert!(answer.body.contains(&answer.header("x-request-id").unwrap()), "{answer:?}");
    assert!(answer.complete && !answer.body.contains("<script"), "{answer:?}");
}

#[test]
fn a_browser_reads_on_the_page_of_passwords_what_programs_get_as_json() {
    let gateway = Gateway::start();
    let closed = "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n";
    for (method, target, account, more, status, code, english, spanish) in [
        ("GET", "/password/ANA", "", "", 401, "unauthenticated", "Not signed in", "No ha entrado"),
        ("GET", "/password/DOC", "ANA", "", 403, "not_permitted", "Not allowed", "No permitido"),
        ("POST", "/password/ANA", "ANA", closed, 403, "foreign_origin", "Another site", "Otro sitio"),
        ("GET", "/password/../adm", "ANA", "", 400, "bad_request_target", "This did not work", "No ha funcionado"),
        ("DELETE", "/password/ANA", "ANA", "", 405, "method_not_allowed", "This did not work", "No ha funcionado"),
    ] {
        for (language, tag, words) in [("en-GB,en;q=0.9", "en", english), ("es-ES,es;q=0.9,en;q=0.8", "es", spanish)] {
            let answer = ask(&gateway, method, target, account, language, more);
            assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
            // For a page of another origin, `Vary` has the origin too.
            is_page(&answer, tag, words);
            assert!(answer.body.contains(code), "{answer:?}");
            assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{answer:?}");
        }
        for accept in ["", "Accept: */*\r\n", "Accept: application/json\r\n", "Accept: text/html;q=0, */*\r\n"] {
            let answer = gateway.request(method, target, account, &format!("{accept}{more}"));
            match status {
                401 => assert_eq!(answer.body, "Unauthorized Access", "{accept}"),
                _ => assert_eq!(answer.json()["code"], code, "{accept}"),
            }
            assert_eq!(answer.header("content-language"), None);
        }
        let problem =
            ask(&gateway, method, target, account, "es", &format!("Accept: application/problem+json\r\n{more}"));
        assert_eq!(problem.json()["status"], status);
    }
    // On other paths the clients are programs, whatever they accept.
    assert_eq!(ask(&gateway, "GET", "/people/DOC", "ANA", "es", "").json()["code"], "not_permitted");
}

#[test]
fn a_browser_reads_how_long_to_wait_and_what_is_unknown() {
    let closed = free_address();
    let upstream = format!("[[upstream]]\nname = \"x\"\naddress = \"{closed}\"\nconnect_timeout_ms = 500\n");
    let routes = "[[route]]\npath = \"/password/{id}\"\nmethods = [\"GET\", \"POST\"]\nendpoint = \"password\"\nsubject = \"id\"\nupstream = \"x\"\n";
    let environment = [("FEDGATE_GATEWAY_THALAMUS_ROUTES", "false")];
    let configuration = format!("{upstream}{routes}");
    let gateway =
        Gateway::start_as(&Setup { environment: &environment, configuration: &configuration, ..Setup::default() });
    let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 0\r\n";
    is_page(&ask(&gateway, "GET", "/password/ANA", "ANA", "es", ""), "es", "Ahora no es posible");
    is_page(&ask(&gateway, "POST", "/password/ANA", "ANA", "es", form), "es", "No se sabe si");
    // The same over HTTP/2.
    let headers = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut sender = connect_h2(&gateway).await.ready().await.unwrap();
        let request = http::Request::get("https://localhost/password/ANA").header("accept", ACCEPT);
        let request = request.header("accept-language", "es").header("authorization", basic("ANA", CANARY));
        let (head, mut body) =
            sender.send_request(request.body(()).unwrap(), true).unwrap().0.await.unwrap().into_parts();
        let html = body.data().await.unwrap().unwrap();
        assert_eq!(head.status, 502);
        assert!(String::from_utf8_lossy(&html).contains("Ahora no es posible"));
        head.headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect::<BTreeMap<_, _>>()
    });
    assert_eq!(headers["content-language"], "es");
    let wrong = |password: &str| {
        let authorization = basic("DOC", password);
        let head = format!("GET /password/DOC HTTP/1.1\r\nHost: a\r\nAccept: {ACCEPT}\r\nAccept-Language: es\r\n");
        gateway.send(format!("{head}Authorization: {authorization}\r\nConnection: close\r\n\r\n").as_bytes())
    };
    let refused = (0..40).map(|number| wrong(&format!("wrong-{number}"))).find(|answer| answer.status == 429);
    let refused = refused.expect("guesses have to wait");
    is_page(&refused, "es", "Demasiados intentos");
    let seconds = refused.header("retry-after").unwrap();
    let unit = if seconds == "1" { "segundo" } else { "segundos" };
    assert!(refused.body.contains(&format!("Espere <strong>{seconds}</strong> {unit},")), "{refused:?}");
}
