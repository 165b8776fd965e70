//! The example nodes: two of them, and the least one, synchronise through gateway and HIS while everything restarts.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Scratch, free_address, write_private};

const PATIENCE: Duration = Duration::from_secs(60);
/// A person of the demo, whose pages the nodes write.
const PERSON: &str = "ESPGNU777ORG";

/// A process that is killed with the test.
struct Killed(Child);

impl Killed {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// As `kill -9` does.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A hub with the demo's data: a gateway and a HIS, in a directory.
struct Hub {
    directory: PathBuf,
    address: SocketAddr,
    his: RefCell<Killed>,
    _gateway: Killed,
}

impl Hub {
    fn start(directory: PathBuf) -> Self {
        let address = free_address();
        let mut demo = Command::new(env!("CARGO_BIN_EXE_fedgate"));
        let mut demo = Killed::start(demo.args(["demo", "--listen", &address.to_string(), "--dir"]).arg(&directory));
        until("the demo listens", || TcpStream::connect(address).is_ok());
        let pid = rustix::process::Pid::from_child(&demo.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        demo.0.wait().unwrap();
        let his = RefCell::new(Self::his(&directory));
        let mut gateway = Command::new(env!("CARGO_BIN_EXE_fedgate"));
        gateway.args(["serve", "--config"]).arg(directory.join("fedgate.toml"));
        let gateway = Killed::start(gateway.env("FEDGATE_GATEWAY_LISTEN", address.to_string()));
        until("the gateway listens", || TcpStream::connect(address).is_ok());
        Self { directory, address, his, _gateway: gateway }
    }

    fn his(directory: &Path) -> Killed {
        let mut his = Command::new(crate::support::programs::fedhis());
        let his = Killed::start(his.args(["serve", "--config"]).arg(directory.join("fedgate.toml")));
        let socket = directory.join("his.sock");
        until("the HIS listens", || UnixStream::connect(&socket).is_ok());
        his
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    fn certificate(&self) -> PathBuf {
        self.directory.join("certs/localhost.pem")
    }

    fn store(&self) -> rusqlite::Connection {
        let store = rusqlite::Connection::open(self.directory.join("fedgate.db")).unwrap();
        store.busy_timeout(PATIENCE).unwrap();
        store
    }

    /// How many messages tell of the creation of a page.
    fn creations(&self, page: &str) -> i64 {
        let count = "SELECT count(*) FROM fedgate_messages WHERE id = ?1 AND method = 'POST'";
        self.store().query_row(count, [page], |row| row.get(0)).unwrap()
    }
}

/// A node with a database of its own.
struct Node<'a> {
    hub: &'a Hub,
    account: &'static str,
    database: PathBuf,
    password: PathBuf,
}

impl<'a> Node<'a> {
    fn new(hub: &'a Hub, account: &'static str, password: &str) -> Self {
        let (database, file) = (hub.directory.join(format!("{account}.node")), hub.directory.join(account));
        write_private(&file, password);
        Self { hub, account, database, password: file }
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new("python3");
        command.args(["examples/node/node.py", verb]).arg(&self.database);
        command
    }

    fn runs(&self) -> Killed {
        let mut command = self.command("run");
        command.args(["--account", self.account, "--wait", "1", "--hub", &self.hub.url(), "--ca"]);
        Killed::start(command.arg(self.hub.certificate()).arg("--password-file").arg(&self.password))
    }

    /// Puts a page into the outbox, and returns its id.
    fn posts(&self, summary: &str) -> String {
        let page = serde_json::json!({ "page_type": "medical", "summary": summary });
        let out = self.command("post").args([PERSON, &page.to_string()]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// The position, the number of unsent pages, and the records as lines.
    fn shows(&self) -> (i64, i64, BTreeSet<String>) {
        let out = self.command("show").output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        let mut lines = text.lines();
        let first: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
        let number = |name: &str| first[name].as_i64().unwrap_or(-1);
        (number("position"), number("unsent"), lines.map(str::to_owned).collect())
    }

    fn set_position(&self, position: i64) {
        let database = rusqlite::Connection::open(&self.database).unwrap();
        database.busy_timeout(PATIENCE).unwrap();
        database.execute("UPDATE reached SET place = ?1", [position.to_string()]).unwrap();
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until both nodes have the same records, all of these pages among them, and nothing is left to send.
fn until_equal(nodes: [&Node<'_>; 2], pages: &[String]) {
    let is_there = |lines: &BTreeSet<String>| pages.iter().all(|page| lines.iter().any(|line| line.contains(page)));
    until("both nodes have the same", || {
        let shown = nodes.map(Node::shows);
        shown[0] == shown[1] && shown.iter().all(|(_, unsent, all)| *unsent == 0 && is_there(all))
    });
}

#[test]
fn two_nodes_have_the_same_whatever_restarts_and_the_hub_stores_each_page_once() {
    let scratch = Scratch::new();
    let hub = Hub::start(scratch.0.join("hub"));
    let mut pages = vec![];
    let (laboratory, office) =
        (Node::new(&hub, "ITAPYT999HON", "gnusolidario"), Node::new(&hub, "ARGBUE111FAV", "freedom"));
    {
        let _laboratory_runs = laboratory.runs();
        let mut office_runs = office.runs();
        // Killed at any moment, also between an answer of the hub and what the node notes of it.
        for round in 0..3 {
            pages.extend((0..2).map(|n| laboratory.posts(&format!("laboratory {round} {n}"))));
            pages.extend((0..2).map(|n| office.posts(&format!("office {round} {n}"))));
            if round == 1 {
                until("a page of the office has arrived", || hub.creations(&pages[2]) == 1);
            }
            office_runs.kill();
            office_runs = office.runs();
        }
        until_equal([&laboratory, &office], &pages);
    }
    // The HIS is killed while both are at work, and pages are posted while it is away.
    {
        let _runs = [laboratory.runs(), office.runs()];
        pages.push(laboratory.posts("before the HIS is killed"));
        hub.his.borrow_mut().kill();
        pages.extend([laboratory.posts("without the HIS"), office.posts("without the HIS, too")]);
        hub.his.replace(Hub::his(&hub.directory));
        until_equal([&laboratory, &office], &pages);
    }
    pages.iter().for_each(|page| assert_eq!(hub.creations(page), 1, "{page}"));
    // The hub keeps the messages no longer that the one needs, and has never given the position of the other.
    let patch = "UPDATE pols SET data = json_set(data, '$.summary', 'changed') WHERE id = ?1";
    hub.store().execute(patch, [&pages[0]]).unwrap();
    let forget = "DELETE FROM fedgate_messages WHERE position < (SELECT max(position) FROM fedgate_messages)";
    laboratory.set_position(laboratory.shows().0 - 1);
    assert!(hub.store().execute(forget, []).unwrap() > 10);
    office.set_position(1_000_000);
    let _runs = [laboratory.runs(), office.runs()];
    pages.push(office.posts("after all"));
    until_equal([&laboratory, &office], &pages);
    let (_, _, records) = office.shows();
    assert!(records.iter().any(|line| line.contains(&pages[0]) && line.contains(r#""summary": "changed""#)));
    the_least_node_follows_too(&hub, &office, &laboratory.posts("for the least node"));
}

/// The program of docs/RELAY.md, word for word.
fn the_least_node_follows_too(hub: &Hub, office: &Node<'_>, page: &str) {
    let database = hub.directory.join("least.node");
    let mut least = Command::new("python3");
    least.args(["examples/node/follow.py", &hub.url(), "ITAPYT999HON"]).arg(&database);
    let _runs = Killed::start(least.env("HUB_PASSWORD", "gnusolidario").env("SSL_CERT_FILE", hub.certificate()));
    let count = |which: &str| {
        let database = rusqlite::Connection::open(&database).unwrap();
        database.busy_timeout(PATIENCE).unwrap();
        let count = format!("SELECT count(*) FROM record WHERE {which}");
        database.query_row(&count, [], |row| row.get::<_, i64>(0)).unwrap_or(0)
    };
    until("the least node has the lists", || count(&format!("id = '{page}'")) == 1);
    let next = office.posts("for all of them");
    until("the least node follows", || count(&format!("id = '{next}'")) == 1);
    let (_, _, records) = office.shows();
    let expected = records.iter().filter(|line| line.contains(r#""resource": "page""#)).count();
    assert_eq!(usize::try_from(count("resource = 'page'")).unwrap(), expected);
}
