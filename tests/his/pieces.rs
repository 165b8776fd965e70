//! Documents that travel in pieces: in both directions, with slow and vanished clients, within a budget.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fedgate_base::config::Address;

use crate::support::{Actor, His, client, own, professional, root};

/// More than three pieces, and not a whole number of them. Each byte tells its place.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7]).collect()
}

const LENGTH: usize = 700_001;
const TARGET: &str = "/personal_docs/ANA/p/d";

pub(super) async fn with_page(his: &His) {
    his.person("ANA", "{}").await;
    his.page("ANA", "p", r#"{"id":"p"}"#).await;
}

async fn upload(his: &His, target: &str, bytes: &[u8]) -> u16 {
    let request = his.request(&professional(), "POST", target).header("content-type", "image/png");
    request.body(bytes).send().await.status
}

/// The pieces that wait in the store.
async fn staged(his: &His) -> String {
    his.sql_text("SELECT CAST(count(*) AS text) FROM fedgate_pieces").await.unwrap()
}

/// Waits until the number of waiting pieces is enough.
async fn wait_for_staged(his: &His, is_enough: impl Fn(&str) -> bool) {
    let wait = async {
        while !is_enough(&staged(his).await) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("pieces come and go");
}

/// The same service on a Unix socket, whose buffers are small.
pub(super) async fn on_socket(his: &His, change: impl FnOnce(&mut fedgate_base::config::HisConfig)) -> His {
    let socket = Address::Unix(his.scratch.0.join("small.sock"));
    his.with(|config| {
        config.listen = socket;
        change(config);
    })
    .await
}

/// Sends a request, and reads the head and a little of the body.
pub(super) fn begin(his: &His, actor: &Actor, target: &str) -> (UnixStream, Vec<u8>) {
    let Address::Unix(path) = &his.address else { unreachable!() };
    begin_at(path, &his.request(actor, "GET", target).head())
}

fn begin_at(path: &Path, head: &str) -> (UnixStream, Vec<u8>) {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let mut start = vec![0; 2000];
    let read = stream.read_exact(&mut start);
    read.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&start).trim_end_matches('\0')));
    (stream, start)
}

pub(super) fn finish((mut stream, mut start): (UnixStream, Vec<u8>)) -> client::Reply {
    let _ = stream.read_to_end(&mut start);
    client::parse(&start, false)
}

crate::on_both_stores! {
    async fn a_document_of_several_pieces_is_stored_read_listed_and_sent_again(his) {
        with_page(&his).await;
        let whole = bytes(LENGTH);
        for _ in 0..2 {
            assert_eq!(upload(&his, TARGET, &whole).await, 200, "and the same again");
        }
        let mut other = whole.clone();
        other[LENGTH - 1] ^= 1;
        assert_eq!(upload(&his, TARGET, &other).await, 422, "another");
        assert_eq!(upload(&his, TARGET, &whole[..LENGTH - 1]).await, 422, "shorter");
        assert_eq!(upload(&his, "/personal_docs/ANA/none/x", &whole).await, 404);
        // In base64 with escaped slashes. Of several members the last one counts.
        let encoded = STANDARD.encode(&whole).replace('/', "\\/");
        let junk = STANDARD.encode(&other);
        let json = format!(r#"{{"document":"{junk}","content_type":"image/png","document":"{encoded}","n":[1]}}"#);
        assert_eq!(his.post(&professional(), "/personal_docs/ANA/p/j", &json).await.status, 200);
        assert_eq!(his.post(&professional(), "/personal_docs/ANA/p/j", &json).await.status, 200);
        let nothing = format!(r#"{{"document":"{junk}","document":null}}"#);
        assert_eq!(his.post(&professional(), "/personal_docs/ANA/p/n", &nothing).await.error().2, "document_missing");
        let empty = his.request(&professional(), "POST", "/personal_docs/ANA/p/n").header("content-type", "image/png");
        assert_eq!(empty.send().await.error().2, "document_missing", "bytes that never came take no id");
        assert_eq!(his.get(&own("ANA"), "/personal_docs/ANA/p/n").await.status, 404);

        for target in [TARGET, "/personal_docs/ANA/p/j"] {
            let reply = his.get(&own("ANA"), target).await;
            assert!(reply.status == 200 && reply.body == whole && reply.is_complete, "{target}");
            assert_eq!(reply.header("content-length"), Some(LENGTH.to_string().as_str()));
            let piece = 192 * 1024;
            for (first, last) in [(0, 0), (piece - 1, piece), (piece, 2 * piece - 1), (1, LENGTH - 2), (LENGTH - 1, LENGTH - 1)] {
                let range = format!("bytes={first}-{last}");
                let part = his.request(&own("ANA"), "GET", target).header("range", &range).send().await;
                assert!(part.status == 206 && part.body == whole[first..=last], "{range}");
            }
        }
        let list = his.get(&own("ANA"), "/personal_docs/ANA").await;
        assert!(list.is_complete);
        let list = list.json();
        let contents: Vec<Option<&str>> = list.as_array().unwrap().iter().map(|row| row[3].as_str()).collect();
        let encoded = STANDARD.encode(&whole);
        assert!(contents == [Some(encoded.as_str()), Some(encoded.as_str())]);
        assert_eq!(list[1][2], serde_json::json!({"content_type": "image/png", "n": [1]}));
        wait_for_staged(&his, |count| count == "0").await;
    }

    async fn the_same_bytes_have_one_tag_and_others_another(his) {
        with_page(&his).await;
        let tag = async |target: &str, bytes: &[u8]| {
            assert_eq!(upload(&his, target, bytes).await, 200);
            his.get(&own("ANA"), target).await.header("etag").unwrap().to_owned()
        };
        let first = tag(TARGET, &bytes(LENGTH)).await;
        his.delete(&professional(), TARGET).await;
        assert_eq!(tag(TARGET, &bytes(LENGTH)).await, first);
        assert_ne!(tag("/personal_docs/ANA/p/e", &bytes(LENGTH)[1..]).await, first);
        let known = his.request(&own("ANA"), "GET", TARGET).header("if-none-match", &first).send().await;
        assert_eq!((known.status, known.body.len()), (304, 0));
    }

    async fn a_document_that_is_replaced_while_it_is_read_is_never_mixed(all) {
        const LARGE: usize = 4_000_000;
        let his = on_socket(&all, |config| config.max_document_bytes = LARGE).await;
        with_page(&his).await;
        for target in [TARGET, "/personal_docs/ANA"] {
            assert_eq!(upload(&his, TARGET, &vec![b'1'; LARGE]).await, 200);
            let reading = begin(&his, &own("ANA"), target);
            assert_eq!(his.delete(&professional(), TARGET).await.status, 200);
            assert_eq!(upload(&his, TARGET, &vec![b'2'; LARGE]).await, 200);
            let reply = tokio::task::spawn_blocking(move || finish(reading)).await.unwrap();
            assert!(reply.status == 200 && !reply.is_complete, "it breaks off");
            let second = if target == TARGET { b"2".to_vec() } else { STANDARD.encode("222").into_bytes() };
            assert!(!reply.body.windows(second.len()).any(|bytes| bytes == second), "and tells nothing of the other");
            assert_eq!(his.delete(&professional(), TARGET).await.status, 200);
        }
    }

    async fn pieces_of_a_client_that_goes_away_or_sends_too_much_are_taken_away(his) {
        with_page(&his).await;
        let Address::Tcp(address) = his.address else { unreachable!() };
        let request = his.request(&professional(), "POST", TARGET).header("content-type", "image/png");
        let head = request.header("content-length", "1000000").head();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&bytes(500_000)).unwrap();
        wait_for_staged(&his, |count| count != "0").await;
        drop(stream);
        wait_for_staged(&his, |count| count == "0").await;
        assert_eq!(upload(&his, TARGET, &vec![1; (1 << 20) + 1]).await, 413);
        let broken = format!(r#"{{"document":"{}","#, STANDARD.encode(bytes(600_000)));
        assert_eq!(his.post(&professional(), TARGET, &broken).await.status, 400);
        wait_for_staged(&his, |count| count == "0").await;
        assert_eq!(his.get(&own("ANA"), "/personal_docs/ANA").await.text(), "[]");
    }

    async fn what_is_known_beside_a_document_has_the_bound_of_a_body(his) {
        with_page(&his).await;
        for (around, status) in [("x".repeat(1_000_000), 200), ("x".repeat(1_100_000), 413)] {
            let body = format!(r#"{{"document":"{}","x":"{around}"}}"#, STANDARD.encode(bytes(600_000)));
            let reply = his.post(&professional(), TARGET, &body).await;
            assert_eq!(reply.status, status);
        }
    }

    async fn readers_that_do_not_read_hold_their_own_share_alone(all) {
        const LARGE: usize = 4_000_000;
        all.person("BOB", "{}").await;
        all.page("BOB", "q", r#"{"id":"q"}"#).await;
        // A share is a quarter: one piece and some more.
        let his = on_socket(&all, |config| {
            (config.max_document_bytes, config.max_bytes_in_flight) = (LARGE, 1 << 20);
        })
        .await;
        with_page(&his).await;
        let whole = bytes(LARGE);
        let big = all.with(|config| config.max_document_bytes = LARGE).await;
        assert_eq!(upload(&big, TARGET, &whole).await, 200);
        assert_eq!(upload(&big, "/personal_docs/BOB/q/e", &whole).await, 200);
        let stalled = begin(&his, &own("ANA"), TARGET);
        let other = his.get(&own("BOB"), "/personal_docs/BOB/q/e").await;
        assert!(other.body == whole, "another caller is served");
        // The same caller waits for the reader, and is served when the reader has gone; others are served meanwhile.
        let actor = own("ANA");
        let (again, ()) = tokio::join!(his.get(&actor, TARGET), async {
            assert_eq!(his.get(&own("BOB"), "/personal_docs/BOB/q/e").await.status, 200);
            drop(stalled);
        });
        assert!(again.status == 200 && again.body == whole);
    }

    async fn bodies_that_do_not_come_hold_their_own_share_alone(all) {
        all.person("ANA", "{}").await;
        // A share is a quarter.
        let his = all.with(|config| config.max_bytes_in_flight = 1 << 20).await;
        let Address::Tcp(address) = his.address else { unreachable!() };
        let body = format!(r#"{{"id":"p2","text":"{}"}}"#, "x".repeat(300_000));
        let request = his.request(&professional(), "POST", "/pols/ANA/p1").header("content-length", "300000");
        let mut stalled = std::net::TcpStream::connect(address).unwrap();
        stalled.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stalled.write_all(request.header("expect", "100-continue").head().as_bytes()).unwrap();
        // The service asks for the body when there is room for it, and not before.
        let mut asked = [0; 25];
        stalled.read_exact(&mut asked).unwrap();
        assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
        stalled.write_all(b"{").unwrap();
        let actor = professional();
        let mut own = std::pin::pin!(his.post(&actor, "/pols/ANA/p2", &body));
        let waits = tokio::time::timeout(Duration::from_millis(300), &mut own).await;
        assert!(waits.is_err(), "its account waits for room: {waits:?}");
        assert_eq!(his.post(&root(), "/pols/ANA/p3", body.replace("p2", "p3")).await.status, 200, "another is served");
        drop(stalled);
        // If the other was served so slowly that the wait ended, the answer is 503, and the client comes again.
        let served = match own.await {
            told if told.status == 503 => his.post(&actor, "/pols/ANA/p2", &body).await,
            served => served,
        };
        assert_eq!(served.status, 200, "{served:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_of_before_are_read_however_they_are_kept() {
    let his = His::on_postgres().await;
    with_page(&his).await;
    // As Thalamus' column stores it: compressed.
    his.sql(
        "ALTER TABLE personal_docs ALTER COLUMN document SET STORAGE EXTENDED;
         INSERT INTO personal_docs (id, fedacct, pol, data, document)
         SELECT id, 'ANA', pol, '{}', convert_to(repeat('fedgate ', 100000), 'UTF8')
         FROM (VALUES ('d', 'p'), ('e', NULL)) AS old (id, pol)",
    )
    .await;
    let whole = "fedgate ".repeat(100_000);
    assert!(his.get(&own("ANA"), TARGET).await.text() == whole);
    let list = his.get(&own("ANA"), "/personal_docs/ANA").await.json();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert!(list[0][3] == STANDARD.encode(&whole).as_str());
    assert!(list[1][1].is_null() && list[1][3] == list[0][3], "one without a page");
    // After a migration, new documents are stored uncompressed.
    fedgate_base::db::schema::migrate(&his.database).await.unwrap();
    let kept = "SELECT attstorage::text FROM pg_attribute \
                WHERE attrelid = 'personal_docs'::regclass AND attname = 'document'";
    assert_eq!(his.sql_text(kept).await.as_deref(), Some("e"));
}

/// `fedhis serve`, which ends with the test.
pub(super) struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    pub(super) fn start(config: &Path) -> Self {
        let mut command = Command::new(crate::support::programs::fedhis());
        command.args(["serve", "--config"]).arg(config).env("FEDGATE_LOG", "info").stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("listening on")));
        std::thread::spawn(move || lines.for_each(drop));
        Self(child)
    }

    /// The most memory that the process has used, in KiB.
    pub(super) fn most_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().split(' ').next().unwrap().parse().unwrap()
    }
}

/// The memory that the whole service may use.
const MOST_KIB: u64 = 128 * 1024;

/// The configuration of the program on the store of a service.
pub(super) fn configuration(his: &His) -> std::path::PathBuf {
    let config = super::program::configuration(&his.scratch.0);
    if let fedgate_base::config::StoreConfig::Postgres(postgres) = &his.config {
        let text = std::fs::read_to_string(&config).unwrap();
        let sqlite = format!("kind = \"sqlite\"\npath = \"{}\"", his.scratch.0.join("his.db").display());
        let text = text.replace(&sqlite, &format!("kind = \"postgres\"\nuri = \"{}\"", postgres.uri));
        std::fs::write(&config, text).unwrap();
    }
    config
}

async fn stalled_readers(his: His, store: &str) {
    /// What an upload and its readers may take beside the program itself; the readers' documents are 640 MiB.
    const MOST_MORE_KIB: u64 = 112 * 1024;
    const READERS: usize = 40;
    const LARGE: usize = 16 << 20;
    with_page(&his).await;
    let program = Program::start(&configuration(&his));
    let started = program.most_memory();
    let socket = Address::Unix(his.scratch.0.join("his.sock"));
    let head = his.request(&professional(), "POST", TARGET).header("content-type", "image/png");
    let head = head.header("content-length", &LARGE.to_string()).head();
    assert_eq!(client::exchange(&socket, &head, &bytes(LARGE)).await.status, 200);
    let uploaded = program.most_memory();
    let heads: Vec<String> = (0..READERS).map(|_| his.request(&own("ANA"), "GET", TARGET).head()).collect();
    let Address::Unix(path) = &socket else { unreachable!() };
    // Some begin, and the others wait for their own share. A reader of another account is served beside them.
    let mut streams = vec![];
    for head in &heads {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        streams.push(stream);
    }
    let head = his.request(&professional(), "GET", TARGET).head();
    let reply = client::exchange(&socket, &head, b"").await;
    assert!(reply.status == 200 && reply.body.len() == LARGE && reply.is_complete);
    let most = program.most_memory();
    println!(
        "{store}: {started} KiB at the start, {uploaded} KiB at most after an upload of 16 MiB, {most} KiB with {READERS} \
         stalled readers of it"
    );
    assert!(most < started + MOST_MORE_KIB, "{most} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_does_not_grow_with_readers_that_do_not_read_on_sqlite() {
    stalled_readers(His::on_sqlite().await, "sqlite").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_does_not_grow_with_readers_that_do_not_read_on_postgres() {
    stalled_readers(His::on_postgres().await, "postgres").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_does_not_grow_with_json_on_sqlite() {
    much_json(His::on_sqlite().await, "sqlite").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_does_not_grow_with_json_on_postgres() {
    much_json(His::on_postgres().await, "postgres").await;
}

async fn much_json(his: His, store: &str) {
    with_page(&his).await;
    let program = Program::start(&configuration(&his));
    let socket = Address::Unix(his.scratch.0.join("his.sock"));
    let json = |id: &str, bytes: usize| format!("{{\"id\":\"{id}\",\"a\":[{}0]}}", "{\"\":0},".repeat(bytes / 7));
    let post = async |actor: &Actor, target: &str, body: &str| {
        let head = his.request(actor, "POST", target).header("content-length", &body.len().to_string()).head();
        client::exchange(&socket, &head, body.as_bytes()).await
    };
    let before = program.most_memory();
    assert_eq!(post(&professional(), TARGET, &json("d", 22_000_000)).await.error().2, "body_too_large");
    let refused = program.most_memory();
    // The largest that is accepted.
    let document = json("d", 1_040_000).replacen('{', "{\"document\":\"AAEC\",", 1);
    assert_eq!(post(&professional(), TARGET, &document).await.status, 200);
    let one = program.most_memory();
    assert!(one < MOST_KIB, "{one} KiB");
    // Many at a time, as pages.
    let pages: Vec<String> = (0..16).map(|page| format!("page{page}")).collect();
    let posts = pages.iter().enumerate().map(async |(number, page)| {
        let actor = if number % 2 == 0 { professional() } else { root() };
        let reply = post(&actor, &format!("/pols/ANA/{page}"), &json(page, 1_040_000)).await;
        // Each account has room for one of them at a time, and its wait has a bound.
        if reply.status == 200 { "done".to_owned() } else { reply.error().2 }
    });
    let told = futures_util::future::join_all(posts).await;
    assert!(told.iter().all(|code| code == "done" || code == "busy") && told.contains(&"done".to_owned()), "{told:?}");
    let most = program.most_memory();
    println!(
        "{store}: {before} KiB at the start, {refused} KiB after 22 MB of JSON, {one} KiB after 1 MiB of it, {most} KiB after \
         {} more at a time",
        told.len()
    );
    // Without a bound, each would take some 20 MiB at a time.
    assert!(most < 2 * MOST_KIB, "{most} KiB");
}
