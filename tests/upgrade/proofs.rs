//! Verified passwords pass to a successor: none is hashed again, and what has changed meanwhile is refused.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use fedgate::accounts::{AccountChange, AccountStore, NewAccount};
use fedgate_base::config::Config;
use fedgate_core::password::{HashArena, HashCost, hash_with};
use tokio::runtime::Runtime;

use super::Replaceable;
use super::process::wait_for_end;
use crate::fixture::{CANARY, Gateway, PATIENCE, Place, Setup, basic, password_hash};
use crate::support::postgres::Cluster;

/// The number of accounts that have signed in before the upgrade.
const KNOWN: usize = 25;
const OTHER: &str = "another-b1rd";

/// A gateway with the accounts `P0`, `P1`, … in an embedded store or in a database.
fn with_accounts(cluster: Option<&Cluster>) -> Replaceable {
    let Some(cluster) = cluster else {
        let running = Replaceable::start(5);
        in_store(&running, async |accounts| {
            for number in 0..KNOWN {
                let roles = vec!["end_user".to_owned(), "health_professional".to_owned()];
                let id = format!("P{number}");
                let account = NewAccount { id, roles, password_hash: password_hash(), name: None, lastname: None };
                assert!(accounts.add(&account).await.unwrap());
            }
        });
        return running;
    };
    let database = Runtime::new().unwrap().block_on(cluster.database_with_accounts(KNOWN, &password_hash()));
    Replaceable::start_on(5, Some(&database.uri))
}

fn in_store(running: &Replaceable, tasks: impl AsyncFnOnce(AccountStore)) {
    let config = Config::load(&running.gateway.dir.join("fedgate.toml")).unwrap();
    Runtime::new().unwrap().block_on(async {
        tasks(AccountStore::open(&config.store).await.unwrap()).await;
    });
}

fn change(running: &Replaceable, account: &str, change: AccountChange) {
    in_store(running, async |accounts| assert!(accounts.change(account, &change).await.unwrap()));
}

fn hash(password: &str) -> String {
    hash_with(password.as_bytes(), HashCost { memory_kib: 64, passes: 1 }, &mut HashArena::default()).unwrap()
}

fn status(gateway: &Gateway, account: &str, password: &str) -> u16 {
    let authorization = format!("Authorization: {}\r\n", basic(account, password));
    gateway.request("GET", "/people", "", &authorization).status
}

fn all_are_served(gateway: &Gateway) {
    for number in 0..KNOWN {
        assert_eq!(status(gateway, &format!("P{number}"), CANARY), 200, "P{number}");
    }
}

/// Replaces the process, and waits until the old one has ended.
fn upgraded(running: &Replaceable) {
    let before = running.read_pid().unwrap();
    let out = running.upgrade();
    assert!(out.status.success(), "{out:?}");
    wait_for_end(before);
}

fn hashed(gateway: &Gateway, count: usize) {
    gateway.measures(&format!("fedgate_passwords_hashed_total {count}"), true);
}

#[test]
fn no_password_is_hashed_again_after_an_upgrade() {
    for cluster in [None, Some(Cluster::shared())] {
        let running = with_accounts(cluster);
        all_are_served(&running.gateway);
        hashed(&running.gateway, KNOWN);
        // From one process to the next, and on to the one after it.
        for _ in 0..2 {
            upgraded(&running);
            all_are_served(&running.gateway);
            hashed(&running.gateway, 0);
            running.gateway.measures(&format!("fedgate_cache_proof_hits_total {KNOWN}"), true);
        }
        // A wrong password is hashed, as ever, and is not handed over as a right one.
        assert_eq!(status(&running.gateway, "P0", OTHER), 401);
        hashed(&running.gateway, 1);
        upgraded(&running);
        assert_eq!(status(&running.gateway, "P0", OTHER), 401);
        assert_eq!(status(&running.gateway, "P0", CANARY), 200);
        hashed(&running.gateway, 1);
    }
}

#[test]
fn what_changed_meanwhile_is_refused_by_the_successor() {
    for cluster in [None, Some(Cluster::shared())] {
        let running = with_accounts(cluster);
        all_are_served(&running.gateway);
        // While the predecessor remembers the old password as verified, and after it has handed that over.
        change(&running, "P1", AccountChange::PasswordHash(hash(OTHER)));
        change(&running, "P2", AccountChange::Active(false));
        change(&running, "P3", AccountChange::Roles(vec!["end_user".to_owned()]));
        // The same password with another salt is another hash, which nobody has verified.
        change(&running, "P4", AccountChange::PasswordHash(hash(CANARY)));
        upgraded(&running);
        change(&running, "P5", AccountChange::PasswordHash(hash(OTHER)));
        change(&running, "P6", AccountChange::Active(false));
        change(&running, "P7", AccountChange::Roles(vec!["end_user".to_owned()]));
        #[rustfmt::skip]
        let cases = [
            // account  password  status  hashed so far
            ("P1",      CANARY,   401,    1),
            ("P1",      OTHER,    200,    2),
            ("P2",      CANARY,   401,    2),
            ("P3",      CANARY,   403,    2),
            ("P4",      CANARY,   200,    3),
            ("P5",      CANARY,   401,    4),
            ("P5",      OTHER,    200,    5),
            ("P6",      CANARY,   401,    5),
            ("P7",      CANARY,   403,    5),
            ("P8",      CANARY,   200,    5),
        ];
        for (account, password, expected, so_far) in cases {
            assert_eq!(status(&running.gateway, account, password), expected, "{account}");
            hashed(&running.gateway, so_far);
        }
    }
}

/// Starts a successor that is told `mark`, with changes to its command. Returns the predecessor's end of its socket pair.
fn heir(mark: &str, change: impl FnOnce(&Place, &mut Command)) -> (Gateway, UnixStream) {
    let (predecessor, theirs) = UnixStream::pair().unwrap();
    predecessor.set_read_timeout(Some(PATIENCE)).unwrap();
    // No sockets: it opens its own.
    (&predecessor).write_all(b"s").unwrap();
    let place = Place::prepare(&Setup::default());
    let mut command = place.serve();
    command.env("FEDGATE_SUCCESSOR", mark).stdin(Stdio::from(OwnedFd::from(theirs)));
    change(&place, &mut command);
    (Gateway::start_by(place, &mut command), predecessor)
}

fn word(predecessor: &UnixStream) -> [u8; 6] {
    let mut word = [0; 6];
    { predecessor }.read_exact(&mut word).unwrap();
    word
}

fn begins_without(gateway: &Gateway, predecessor: &UnixStream) {
    assert_eq!(word(predecessor), *b"ready\n");
    assert_eq!(gateway.get("/people/ANA", "ANA").status, 200);
    hashed(gateway, 1);
}

#[test]
fn a_transfer_that_is_cut_off_too_large_or_of_another_version_begins_without_and_serves() {
    let of = |parts: &[&[u8]]| parts.concat();
    let (head, key) = (b"fedgate proofs 1\n", &[7; 32]);
    let transfers = [
        of(&[]),
        of(&[head, key]),
        of(&[head, key, &9u32.to_le_bytes(), &[1; 100]]),
        of(&[head, key, &u32::MAX.to_le_bytes(), &[0; 200_000]]),
        of(&[b"fedgate proofs 2\n", key, &[0; 36]]),
        // Complete, with a wrong sum.
        of(&[head, key, &0u32.to_le_bytes(), &[0; 32]]),
    ];
    for transfer in transfers {
        let began = Instant::now();
        let (gateway, predecessor) = heir("proofs", |_, _| {});
        assert_eq!(word(&predecessor), *b"proof\n");
        // It fails where the successor has stopped reading.
        let _ = (&predecessor).write_all(&transfer);
        let _ = predecessor.shutdown(Shutdown::Write);
        begins_without(&gateway, &predecessor);
        assert!(gateway.log_line("verified passwords were not taken over", began).is_some());
    }
}

#[test]
fn a_predecessor_of_an_earlier_version_is_asked_for_nothing() {
    let (gateway, predecessor) = heir("1", |_, _| {});
    begins_without(&gateway, &predecessor);
}

#[test]
fn a_predecessor_of_another_user_is_asked_for_nothing() {
    const NOBODY: u32 = 65_534;
    let mut probe = Command::new(env!("CARGO_BIN_EXE_fedgate"));
    let probe = probe.arg("--version").uid(NOBODY).gid(NOBODY).current_dir("/").stdout(Stdio::null()).status();
    if !rustix::process::geteuid().is_root() || !probe.is_ok_and(|status| status.success()) {
        println!("not shown: this test cannot run the program as another user");
        return;
    }
    let began = Instant::now();
    let (gateway, predecessor) = heir("proofs", |place, command| {
        for file in std::fs::read_dir(&place.dir).unwrap() {
            std::os::unix::fs::chown(file.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        std::os::unix::fs::chown(&place.dir, Some(NOBODY), Some(NOBODY)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    });
    begins_without(&gateway, &predecessor);
    assert!(gateway.log_line("the predecessor runs as another user", began).is_some());
}
