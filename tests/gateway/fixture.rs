//! A gateway process for each test, with an upstream that remembers its requests, on an embedded store with four
//! accounts or on a database that the test names.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fedgate::accounts::{AccountChange, AccountStore, NewAccount};
use fedgate_base::config::Config;
use fedgate_base::db::schema;
use fedgate_core::password::{HashArena, HashCost, hash_with};

use crate::support::free_address;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The password of every account. No record may ever show it.
pub(crate) const CANARY: &str = "canary-b1rd";

/// The body of the upstream's large answer, in bytes: more than the buffers of two sockets.
pub(crate) const LARGE: usize = 32 * 1024 * 1024;

/// How many requests the upstream remembers.
const REMEMBERED: usize = 1000;

pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) tls_address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) dir: PathBuf,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) upstream: Upstream,
    pub(crate) child: Child,
    lines: Mutex<Receiver<(Instant, String)>>,
    log: Arc<Mutex<Vec<(Instant, String)>>>,
}

/// The settings of a gateway, beyond the minimum.
#[derive(Default)]
pub(crate) struct Setup<'a> {
    pub(crate) environment: &'a [(&'a str, &'a str)],
    /// Appended to the configuration.
    pub(crate) configuration: &'a str,
    /// The stock policy if there is none.
    pub(crate) policy: Option<&'a str>,
    /// The connection string of a database with schema and accounts. Without it the gateway has an embedded store.
    pub(crate) database: Option<&'a str>,
    /// The program and arguments that start the gateway, if it is not started directly.
    pub(crate) under: &'a [&'a str],
    /// The file for the gateway's process id.
    pub(crate) pid_file: Option<&'a std::path::Path>,
}

/// The files of a gateway that has not started.
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    upstream: Upstream,
    addresses: [SocketAddr; 3],
    under: Vec<String>,
    pid_file: Option<PathBuf>,
}

/// The requests that the upstream received.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
}

/// The first requests that an upstream received, head and body, and their total number.
#[derive(Default)]
struct Seen {
    first: Mutex<Vec<String>>,
    count: AtomicUsize,
}

impl Gateway {
    pub(crate) fn start() -> Self {
        Self::start_as(&Setup::default())
    }

    /// Starts with more configuration, appended to the minimum, and a policy.
    pub(crate) fn start_with(configuration: &str, policy: &str) -> Self {
        Self::start_in(&[], configuration, policy)
    }

    /// The same with environment variables.
    pub(crate) fn start_in(environment: &[(&str, &str)], configuration: &str, policy: &str) -> Self {
        Self::start_as(&Setup { environment, configuration, policy: Some(policy), ..Setup::default() })
    }

    pub(crate) fn start_as(setup: &Setup<'_>) -> Self {
        Self::start_at(Place::prepare(setup), setup.environment)
    }

    /// Starts on existing files, and waits until the gateway listens.
    pub(crate) fn start_at(place: Place, environment: &[(&str, &str)]) -> Self {
        let mut command = place.serve();
        Self::start_by(place, command.envs(environment.iter().copied()))
    }

    /// The same by a command of the test.
    pub(crate) fn start_by(place: Place, command: &mut Command) -> Self {
        let log = Arc::default();
        let (child, lines) = spawn(command, &log);
        let Place { dir, upstream, addresses: [address, tls_address, admin], pid_file, .. } = place;
        let gateway =
            Self { address, tls_address, admin, dir, pid_file, upstream, child, lines: Mutex::new(lines), log };
        gateway.wait_until_listening();
        gateway
    }

    /// Kills the gateway as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the gateway again, on the same files.
    pub(crate) fn start_again(&mut self, environment: &[(&str, &str)]) {
        let (child, lines) = spawn(serve(&self.dir).envs(environment.iter().copied()), &self.log);
        (self.child, self.lines) = (child, Mutex::new(lines));
        self.wait_until_listening();
    }

    fn wait_until_listening(&self) {
        let deadline = Instant::now() + PATIENCE;
        for address in [self.address, self.tls_address, self.admin] {
            while TcpStream::connect(address).is_err() {
                assert!(Instant::now() < deadline, "the gateway does not listen");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Sends bytes and reads until the connection ends.
    pub(crate) fn send(&self, bytes: &[u8]) -> Response {
        Self::send_to(self.address, bytes)
    }

    /// The answer of the admin listener.
    pub(crate) fn admin_get(&self, path: &str) -> Response {
        Self::send_to(self.admin, format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes())
    }

    /// Waits until the metrics have a line, or have it no more.
    pub(crate) fn measures(&self, line: &str, is_there: bool) {
        let deadline = Instant::now() + PATIENCE;
        while self.admin_get("/metrics").body.lines().any(|found| found == line) != is_there {
            assert!(Instant::now() < deadline, "`{line}` in the metrics did not become {is_there}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn send_to(address: SocketAddr, bytes: &[u8]) -> Response {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The gateway may refuse before it has read everything.
        let _ = stream.write_all(bytes);
        let mut received = Vec::new();
        let ended = stream.read_to_end(&mut received).is_ok();
        Response::parse(&received, ended)
    }

    /// As [`send`](Self::send), and closes the sending half.
    pub(crate) fn send_and_close(&self, bytes: &[u8]) -> Response {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(bytes);
        let mut received = Vec::new();
        let mut block = [0; 4096];
        // An answer that leaves the connection open has ended when its body has.
        let ended = loop {
            match stream.read(&mut block) {
                Ok(0) => break true,
                Ok(count) => received.extend_from_slice(&block[..count]),
                Err(_) => break false,
            }
            let answer = Response::parse(&received, true);
            if answer.header("content-length").is_some() && (answer.complete || bytes.starts_with(b"HEAD ")) {
                break true;
            }
        };
        Response::parse(&received, ended)
    }

    /// A request of an account (password: the canary) or of none, on a connection that ends with the answer.
    pub(crate) fn request(&self, method: &str, target: &str, account: &str, extra: &str) -> Response {
        let authorization =
            if account.is_empty() { String::new() } else { format!("Authorization: {}\r\n", basic(account, CANARY)) };
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: hospital.example\r\n{authorization}{extra}Connection: close\r\n\r\n").as_bytes())
    }

    pub(crate) fn get(&self, target: &str, account: &str) -> Response {
        self.request("GET", target, account, "")
    }

    /// The next record, parsed.
    pub(crate) fn record(&self) -> serde_json::Value {
        self.record_within(PATIENCE).expect("a record").1
    }

    /// The next record and when it was read, if it comes in time.
    pub(crate) fn record_within(&self, patience: Duration) -> Option<(Instant, serde_json::Value)> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (read, line) = self.lines.lock().unwrap().recv_timeout(left).ok()?;
            assert!(!line.contains(CANARY), "a password in a record: {line}");
            let record: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
            // Changes of accounts are written between the records of requests, at any time.
            if record["event"].is_null() {
                return Some((read, record));
            }
        }
    }

    /// Whether no further record has arrived, without waiting for one.
    pub(crate) fn no_record_waits(&self) -> bool {
        self.lines.lock().unwrap().try_recv().is_err()
    }

    /// Whether no further record is waiting.
    pub(crate) fn no_record(&self) -> bool {
        self.lines.lock().unwrap().recv_timeout(Duration::from_millis(100)).is_err()
    }

    /// When the log first contained `words`, at `since` or later, if it does so in time.
    pub(crate) fn logged(&self, words: &str, since: Instant, patience: Duration) -> Option<Instant> {
        let deadline = Instant::now() + patience;
        loop {
            let found =
                self.log.lock().unwrap().iter().find(|(at, line)| *at >= since && line.contains(words)).cloned();
            if found.is_some() || Instant::now() > deadline {
                return found.map(|(at, _)| at);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The next record as it was written.
    pub(crate) fn record_line(&self) -> String {
        self.lines.lock().unwrap().recv_timeout(PATIENCE).expect("a record").1
    }

    /// Every line of the log so far.
    pub(crate) fn whole_log(&self) -> Vec<String> {
        self.log.lock().unwrap().iter().map(|(_, line)| line.clone()).collect()
    }

    /// A line of the log that contains `words`, at `since` or later.
    pub(crate) fn log_line(&self, words: &str, since: Instant) -> Option<String> {
        let log = self.log.lock().unwrap();
        log.iter().find(|(at, line)| *at >= since && line.contains(words)).map(|(_, line)| line.clone())
    }

    /// How many lines of the log contain `words`, at `since` or later.
    pub(crate) fn log_lines(&self, words: &str, since: Instant) -> usize {
        self.log.lock().unwrap().iter().filter(|(at, line)| *at >= since && line.contains(words)).count()
    }

    /// The memory that the process holds, in KiB (`VmRSS`, proc(5)).
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let secrets = ["ANA", "DOC", "ADM", "OFF"].map(|account| basic(account, CANARY)[6..].to_owned());
        let is_told = |line: &str| line.contains(CANARY) || secrets.iter().any(|secret| line.contains(secret));
        let told = self.log.lock().unwrap().iter().find(|(_, line)| is_told(line)).cloned();
        assert!(told.is_none() || std::thread::panicking(), "a password in the log: {told:?}");
        if std::thread::panicking() {
            let log = self.log.lock().unwrap();
            log.iter().skip(log.len().saturating_sub(30)).for_each(|(_, line)| eprintln!("{}: {line}", self.address));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Place {
    /// Writes configuration, policy, secret and certificate, and the embedded store if one is used.
    pub(crate) fn prepare(setup: &Setup<'_>) -> Self {
        let dir = std::env::temp_dir().join(format!("fedgate-gateway-{:x}", rand::random::<u128>()));
        std::fs::create_dir_all(&dir).unwrap();
        secret_file(&dir.join("secret"), &[b'k'; 40]);
        let stock = || std::fs::read_to_string("policies/roles.cfg").unwrap();
        std::fs::write(dir.join("roles.cfg"), setup.policy.map_or_else(stock, str::to_owned)).unwrap();
        certificate(&dir);
        let upstream = Upstream::start();
        let (address, tls_address, admin) = (free_address(), free_address(), free_address());
        let store = match setup.database {
            Some(uri) => format!("kind = \"postgres\"\nuri = \"{uri}\""),
            None => "path = \"test.db\"".to_owned(),
        };
        let pid_file = setup.pid_file.map_or(String::new(), |path| format!("pid_file = \"{}\"\n", path.display()));
        let text = format!(
            "[gateway]\nlisten = [\"{tls_address}\"]\nlisten_plain = [\"{address}\"]\nadmin = [\"{admin}\"]\n{pid_file}max_body_bytes = 2048\nthreads = 2\n\
             [tls]\ncertificate = \"cert.pem\"\nkey = \"cert.key\"\n[policy]\nroles = \"roles.cfg\"\n[store]\n{store}\n\
             [assertion]\nsecret_file = \"secret\"\n\
             [[upstream]]\nname = \"his\"\naddress = \"{}\"\nconnect_timeout_ms = 500\nread_timeout_ms = 3000\n{}",
            upstream.address, setup.configuration
        );
        std::fs::write(dir.join("fedgate.toml"), text).unwrap();
        if setup.database.is_none() {
            let config = Config::load(&dir.join("fedgate.toml")).unwrap();
            tokio::runtime::Runtime::new().unwrap().block_on(add_accounts(&config));
        }
        let under = setup.under.iter().map(|&word| word.to_owned()).collect();
        Self {
            dir,
            upstream,
            addresses: [address, tls_address, admin],
            under,
            pid_file: setup.pid_file.map(Into::into),
        }
    }

    /// The command that serves.
    pub(crate) fn serve(&self) -> Command {
        let plain = serve(&self.dir);
        match self.under.as_slice() {
            [] => plain,
            [launcher, arguments @ ..] => {
                let mut command = Command::new(launcher);
                command.args(arguments).arg(plain.get_program()).args(plain.get_args()).stdin(Stdio::null());
                command
            }
        }
    }
}

fn serve(dir: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedgate"));
    command.args(["serve", "--config"]).arg(dir.join("fedgate.toml")).stdin(Stdio::null());
    command
}

/// A process, and the lines of its stdout. The lines of its stderr are kept in `log`.
fn spawn(command: &mut Command, log: &Arc<Mutex<Vec<(Instant, String)>>>) -> (Child, Receiver<(Instant, String)>) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (sender, lines) = channel();
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    std::thread::spawn(move || each_line(out, |line| sender.send(line).is_ok()));
    let kept = Arc::clone(log);
    std::thread::spawn(move || {
        each_line(err, |line| {
            kept.lock().unwrap().push(line);
            true
        })
    });
    (child, lines)
}

/// Passes on each line with the moment when it was read, until the receiver stops.
fn each_line(from: impl Read, mut tell: impl FnMut((Instant, String)) -> bool) {
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        if !tell((Instant::now(), line)) {
            break;
        }
    }
}

/// The hash of every account's password, at a cost that tests can pay.
pub(crate) fn password_hash() -> String {
    hash_with(CANARY.as_bytes(), HashCost { memory_kib: 64, passes: 1 }, &mut HashArena::default()).unwrap()
}

async fn add_accounts(config: &Config) {
    let accounts = AccountStore::open(&config.store).await.unwrap();
    schema::migrate(accounts.database()).await.unwrap();
    let password_hash = password_hash();
    for (id, roles) in [("ANA", "end_user"), ("DOC", "end_user,health_professional"), ("ADM", "root"), ("OFF", "root")]
    {
        let roles = roles.split(',').map(str::to_owned).collect();
        let account =
            NewAccount { id: id.into(), roles, password_hash: password_hash.clone(), name: None, lastname: None };
        assert!(accounts.add(&account).await.unwrap());
    }
    assert!(accounts.change("OFF", &AccountChange::Active(false)).await.unwrap());
    // These events are not what a test is about.
    let made = accounts.take_events(100).await.unwrap();
    accounts.events_are_recorded(made.iter().map(|event| event.id).collect()).await.unwrap();
}

pub(crate) fn certificate(dir: &std::path::Path) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(dir.join("cert.pem"), certificate.pem()).unwrap();
    secret_file(&dir.join("cert.key"), key.serialize_pem().as_bytes());
}

fn secret_file(path: &std::path::Path, content: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

pub(crate) fn basic(account: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{account}:{password}")))
}

/// An answer as a client received it.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
    /// Whether the body ended as its framing says.
    pub(crate) complete: bool,
}

impl Response {
    pub(crate) fn parse(received: &[u8], ended: bool) -> Self {
        let text = String::from_utf8_lossy(received).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let head = head.to_owned();
        let header = |name: &str| find_header(&head, name);
        let complete = ended
            && match (header("content-length"), header("transfer-encoding")) {
                (Some(length), _) => length.parse() == Ok(body.len()),
                (None, Some(_)) => body.ends_with("0\r\n\r\n"),
                (None, None) => true,
            };
        Self { status, body: body.to_owned(), complete, head }
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        find_header(&self.head, name)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

pub(crate) fn find_header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        line.split_once(": ").filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    })
}

impl Upstream {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let seen = Arc::clone(&upstream.seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || answer(stream, &seen));
            }
        });
        upstream
    }

    /// The requests so far, head and body. Under load only the first ones.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.first.lock().unwrap().clone()
    }

    /// Forgets the requests so far, but for their number.
    pub(crate) fn forget(&self) {
        self.seen.first.lock().unwrap().clear();
    }

    /// The number of requests.
    pub(crate) fn count(&self) -> usize {
        self.seen.count.load(Ordering::SeqCst)
    }
}

/// One whole request, head and body; `None` when the connection ends.
pub(crate) fn read_request(reader: &mut impl BufRead) -> Option<String> {
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        if reader.read_line(&mut request).unwrap_or(0) == 0 {
            return None;
        }
    }
    if let Some(length) = find_header(&request, "content-length") {
        let mut body = vec![0; length.parse().unwrap()];
        reader.read_exact(&mut body).ok()?;
        request.push_str(&String::from_utf8_lossy(&body));
    } else if find_header(&request, "transfer-encoding").is_some() {
        while !request.ends_with("\r\n0\r\n\r\n") {
            if reader.read_line(&mut request).unwrap_or(0) == 0 {
                return None;
            }
        }
    }
    Some(request)
}

/// Answers requests on one connection; some page ids make it misbehave.
fn answer(mut stream: TcpStream, seen: &Seen) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(request) = read_request(&mut reader) {
        let target = request.split(' ').nth(1).unwrap_or_default().to_owned();
        seen.count.fetch_add(1, Ordering::SeqCst);
        let mut first = seen.first.lock().unwrap();
        if first.len() < REMEMBERED {
            first.push(request);
        }
        drop(first);
        let ok = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\nServer: secret/1.0\r\n\
                   X-Powered-By: secret\r\nX-Accel-Redirect: /secret\r\nVia: 1.1 secret\r\nX-AspNet-Version: 4\r\n\
                   Access-Control-Allow-Origin: https://upstream.example\r\n\r\ntrue";
        let _ = match target.rsplit('/').next() {
            Some("hang") => return std::thread::sleep(PATIENCE),
            Some("slow") => {
                std::thread::sleep(Duration::from_millis(700));
                stream.write_all(ok)
            }
            Some("late") => {
                std::thread::sleep(Duration::from_millis(1200));
                stream.write_all(ok)
            }
            Some("large") => stream
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes())
                .and_then(|()| stream.write_all(&vec![b'x'; LARGE])),
            Some("forbidden") => stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
            Some("expired") => {
                stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nFedgate-Clock: 1\r\nContent-Length: 0\r\n\r\n")
            }
            Some("distrust") => stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"),
            Some("short") => return drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\nhalf")),
            Some("garbage") => return drop(stream.write_all(b"\x00\x01garbage\r\n\r\n")),
            _ => stream.write_all(ok),
        };
    }
}
