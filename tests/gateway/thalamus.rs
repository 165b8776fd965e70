//! A stand-in that treats persons and pages as Thalamus does. It writes every member that it receives, as Python's
//! `json.loads` reads it, returns password hashes, and finds a page by its id alone. Some ids make it answer oddly.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

use crate::fixture::find_header;

#[derive(Clone)]
pub(crate) struct Thalamus {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) people: BTreeMap<String, Value>,
    pub(crate) pages: BTreeMap<String, Value>,
    /// Heads as they arrived.
    pub(crate) heads: Vec<String>,
    pub(crate) connections: usize,
}

pub(crate) const HASH: &str = "$2b$12$Kix1uT7Yn0y3zE4q5w6e7r";

impl Thalamus {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut state = State::default();
        for id in ["ANA", "BOB"] {
            let person = json!({ "id": id, "name": "Müller", "roles": ["end_user"], "active": true, "password": HASH });
            state.people.insert(id.to_owned(), person);
        }
        for (id, book) in [("a1", json!("ANA")), ("b1", json!("BOB")), ("n1", Value::Null)] {
            state.pages.insert(id.to_owned(), json!({ "id": id, "book": book, "info": format!("of {id}") }));
        }
        let thalamus = Self { address: listener.local_addr().unwrap(), state: Arc::new(Mutex::new(state)) };
        let state = Arc::clone(&thalamus.state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                state.lock().unwrap().connections += 1;
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        thalamus
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn person(&self, id: &str) -> Option<Value> {
        self.state().people.get(id).cloned()
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        state.lock().unwrap().heads.push(head.clone());
        let Some(body) = body(&head, &mut reader) else { return };
        let mut parts = head.split(' ');
        let (method, path) = (parts.next().unwrap(), parts.next().unwrap());
        let answer = answer(&mut state.lock().unwrap(), method, path, &head, &body);
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

fn body(head: &str, reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = find_header(head, "content-length") {
        body.resize(length.parse().unwrap(), 0);
        reader.read_exact(&mut body).ok()?;
    } else if find_header(head, "transfer-encoding").is_some() {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let mut chunk = vec![0; usize::from_str_radix(size.trim(), 16).ok()? + 2];
            reader.read_exact(&mut chunk).ok()?;
            if chunk.len() == 2 {
                return Some(body);
            }
            body.extend_from_slice(&chunk[..chunk.len() - 2]);
        }
    }
    Some(body)
}

fn answer(state: &mut State, method: &str, path: &str, head: &str, body: &[u8]) -> Vec<u8> {
    let oops = || reply("500 INTERNAL SERVER ERROR", "text/html", &format!("<html>{HASH}</html>"));
    let id = path.strip_prefix("/people/").unwrap_or_default().to_owned();
    // As Flask: a form has no JSON, and of repeated keys the last one counts.
    let is_form = find_header(head, "content-type").is_some_and(|kind| kind.contains("form"));
    let document = || serde_json::from_slice::<Value>(body).ok().filter(|value| value.is_object() && !is_form);
    if let Some((book, page)) = path.strip_prefix("/pols/").and_then(|path| path.split_once('/')) {
        return page_answer(state, (method, book, page), document());
    }
    let error = |status, text: &str| reply(status, "application/json", &json!({ "error": text }).to_string());
    match (method, path, id.as_str()) {
        (_, "/people", _) => {
            let rows: Vec<_> = state.people.values().map(|person| json!([person])).collect();
            // Indented, as with DEBUG, and escaped to ASCII.
            let text = serde_json::to_string_pretty(&rows).unwrap().replace('ü', "\\u00fc");
            reply("200 OK", "application/json", &format!("{text}\n"))
        }
        ("GET", _, "HTML") => reply("200 OK", "text/html", HASH),
        ("GET", _, "CRASH") => oops(),
        ("GET", _, "GZIP") => with("200 OK", "application/json\r\nContent-Encoding: gzip", b"\x1f\x8b\x08"),
        ("GET", _, "PART") => reply("206 PARTIAL CONTENT", "application/json", &format!("\"{HASH}\"")),
        ("GET", _, "BARE") => with("200 OK", "\r\nX-Nothing:", format!("{{\"password\":\"{HASH}\"}}").as_bytes()),
        ("GET", _, "BROKEN") => reply("200 OK", "application/json", &format!("{{\"a\":1,}}{HASH}")),
        ("GET", _, "CUT") => {
            let rows = format!("[{}", "{\"id\":\"A\",\"password\":\"x\"},".repeat(20_000));
            reply("200 OK", "application/json", &rows)
        }
        ("GET", _, "TAGGED") => {
            with("200 OK", "application/json\r\nETag: \"abc\"\r\nDigest: x=y\r\nAccept-Ranges: bytes", b"{\"a\":1}")
        }
        ("GET" | "HEAD", _, _) => match state.people.get(&id) {
            Some(person) => reply("200 OK", "application/json", &person.to_string()),
            None => reply("404 NOT FOUND", "application/json", "\"\"\n"),
        },
        ("POST", _, _) => {
            let Some(mut person) = document() else { return oops() };
            let id = id.to_uppercase();
            if state.people.contains_key(&id) {
                return error("422 UNPROCESSABLE ENTITY", "User already exists");
            }
            person["id"] = json!(id);
            if person.get("roles").is_none() {
                person["roles"] = json!(["end_user"]);
            }
            state.people.insert(id, person);
            reply("200 OK", "application/json", "null\n")
        }
        ("PATCH", _, _) => {
            let Some(patch) = document() else { return oops() };
            if patch.get("id").is_some() {
                return error("422 UNPROCESSABLE ENTITY", "Not allowed to change the person ID");
            }
            let Some(person) = state.people.get_mut(&id) else { return error("404 NOT FOUND", "User not found") };
            for (name, value) in patch.as_object().unwrap() {
                person[name] = value.clone();
            }
            reply("200 OK", "application/json", "null\n")
        }
        _ => oops(),
    }
}

fn page_answer(state: &mut State, (method, book, page): (&str, &str, &str), sent: Option<Value>) -> Vec<u8> {
    let json = |status, body: Value| reply(status, "application/json", &format!("{body}\n"));
    let stored = state.pages.get_mut(page);
    match (method, page, stored, sent) {
        ("GET", "CRASH", ..) => reply("500 INTERNAL SERVER ERROR", "text/html", HASH),
        ("GET", "HTML", ..) => reply("200 OK", "text/html", HASH),
        ("GET", "LIST", ..) => json("200 OK", json!([{ "book": book }])),
        ("GET", "DENIED", ..) => with(
            "401 UNAUTHORIZED",
            "text/html\r\nWWW-Authenticate: Basic realm=\"Authentication Required\"",
            b"Unauthorized Access",
        ),
        ("GET", _, Some(stored), _) => json("200 OK", stored.clone()),
        ("GET", ..) => json("404 NOT FOUND", json!({ "error": "Book or page or not found" })),
        ("POST", _, None, Some(sent)) => {
            state.pages.insert(page.to_owned(), sent);
            json("200 OK", Value::Null)
        }
        ("PATCH", _, Some(stored), Some(sent)) => {
            for (name, value) in sent.as_object().unwrap() {
                stored[name] = value.clone();
            }
            json("200 OK", Value::Null)
        }
        _ => json("405 METHOD NOT ALLOWED", json!({ "message": "The method is not allowed for the requested URL." })),
    }
}

fn reply(status: &str, content_type: &str, body: &str) -> Vec<u8> {
    with(status, content_type, body.as_bytes())
}

fn with(status: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let kind = if content_type.starts_with('\r') { String::new() } else { "Content-Type: ".to_owned() };
    let head = format!(
        "HTTP/1.1 {status}\r\nServer: gunicorn\r\n{kind}{}\r\nContent-Length: {}\r\n\r\n",
        content_type.trim_start_matches("\r\n"),
        body.len()
    );
    [head.as_bytes(), body].concat()
}
