//! `kill -9` at any moment: acknowledged writes are there afterwards, and no write is there by half.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::Rng;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::his::program::configuration;
use crate::support::{His, root, wanted};

/// How often the service is killed. `FEDGATE_TEST_KILLS` overrides it.
const KILLS: u32 = 12;
/// As many as wait for one another, and share commits.
const WRITERS: usize = 16;
/// How many of them must have been answered before the service is killed.
const ANSWERED: usize = 2 * WRITERS;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_by_a_kill() {
    let kills = wanted("FEDGATE_TEST_KILLS", KILLS);
    // The test's own service mints assertions that the killed one accepts, and reads its store afterwards.
    let his = His::on_sqlite().await;
    his.person("ANA", "{}").await;
    let (config, socket) = (configuration(&his.scratch.0), his.scratch.0.join("his.sock"));
    let mut acknowledged = BTreeSet::new();
    for kill in 0..kills {
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new(crate::support::programs::fedhis());
        command.args(["serve", "--config"]).arg(&config).stdin(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "it does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        let written = AtomicUsize::new(0);
        let pages = std::thread::scope(|scope| {
            let writer = |number: usize| {
                let (his, socket, written) = (&his, &socket, &written);
                move || {
                    let page = |count: usize| format!("k{kill}-{number}-{count}");
                    let writes = (0..).map(page).take_while(|page| write(his, socket, page));
                    writes.inspect(|_| _ = written.fetch_add(1, Ordering::SeqCst)).collect::<Vec<_>>()
                }
            };
            let writers: Vec<_> = (0..WRITERS).map(|number| scope.spawn(writer(number))).collect();
            // However slow the machine is, some writes are acknowledged and others in progress.
            while written.load(Ordering::SeqCst) < ANSWERED && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(rand::rng().random_range(1..80)));
            child.kill().unwrap();
            child.wait().unwrap();
            writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        });
        acknowledged.extend(pages);
    }
    let stored =
        his.sql_text("SELECT group_concat(id || '=' || (data ->> 'text')) FROM pols").await.unwrap_or_default();
    let stored: BTreeSet<_> = stored.split(',').map(str::to_owned).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|page| !stored.contains(&format!("{page}={page}"))).collect();
    println!("kill -9, {kills} times: {} writes acknowledged, {} lost", acknowledged.len(), lost.len());
    assert!(lost.is_empty(), "{lost:?}");
    assert!(acknowledged.len() > kills as usize, "there were writes");
    assert!(stored.iter().filter(|page| !page.is_empty()).all(|page| {
        let (id, text) = page.split_once('=').unwrap();
        id == text
    }));
}

/// A limit on the size of files represents the full disk: a commit fails for everybody in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_what_is_acknowledged_is_stored_and_what_is_refused_is_not() {
    let his = His::on_sqlite().await;
    his.person("ANA", "{}").await;
    let (config, socket) = (configuration(&his.scratch.0), his.scratch.0.join("his.sock"));
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh", crate::support::programs::fedhis(), "serve", "--config"]);
    let mut child = command.arg(&config).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < deadline, "it does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let limit = |bytes| {
        let maximum = rustix::process::getrlimit(Resource::Fsize).maximum;
        prlimit(Some(pid), Resource::Fsize, Rlimit { current: bytes, maximum }).unwrap();
    };
    let (mut stored, mut refused) = (vec![], vec![]);
    for round in 0..6 {
        // A different size each time, so that different statements and commits find no room.
        let full = round % 2 == 1;
        limit(full.then_some(8_000 * round));
        let answers = std::thread::scope(|scope| {
            let writer = |number: usize| {
                let (his, socket) = (&his, &socket);
                move || {
                    let page = |count: usize| format!("d{round}-{number}-{count}");
                    (0..6).map(page).map(|page| (write(his, socket, &page), page)).collect::<Vec<_>>()
                }
            };
            let writers: Vec<_> = (0..WRITERS).map(|number| scope.spawn(writer(number))).collect();
            writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        });
        let before = (stored.len(), refused.len());
        for (is_stored, page) in answers {
            if is_stored { stored.push(page) } else { refused.push(page) }
        }
        assert!(if full { refused.len() > before.1 } else { stored.len() > before.0 }, "round {round}: {before:?}");
    }
    limit(None);
    child.kill().unwrap();
    child.wait().unwrap();
    let found = his.sql_text("SELECT group_concat(id) FROM pols").await.unwrap_or_default();
    let found: BTreeSet<_> = found.split(',').collect();
    assert!(stored.iter().all(|page| found.contains(page.as_str())));
    assert!(!refused.iter().any(|page| found.contains(page.as_str())));
}

/// Writes one page, and returns whether that was acknowledged.
fn write(his: &His, socket: &std::path::Path, page: &str) -> bool {
    let body = format!("{{\"id\":\"{page}\",\"book\":\"ANA\",\"text\":\"{page}\"}}");
    let target = format!("/pols/ANA/{page}");
    let head = his.request(&root(), "POST", &target).header("content-length", &body.len().to_string()).head();
    let Ok(mut stream) = UnixStream::connect(socket) else { return false };
    let mut answer = String::new();
    let exchanged = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body.as_bytes()))
        .and_then(|()| stream.read_to_string(&mut answer));
    // Half an answer is an acknowledgement too, once its status has arrived.
    let _ = exchanged;
    answer.starts_with("HTTP/1.1 200 ")
}
