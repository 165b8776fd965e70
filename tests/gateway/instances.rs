//! The list of running gateways, on which `--wait` relies: a gateway that is not listed uses no cached rights.

use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::fixture::{Gateway, PATIENCE};

fn disable(gateway: &Gateway, account: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedgate"));
    command.args(["account", "disable", account, "--wait", "--config"]).arg(gateway.dir.join("fedgate.toml"));
    command.output().unwrap()
}

fn store(gateway: &Gateway) -> rusqlite::Connection {
    let store = rusqlite::Connection::open(gateway.dir.join("test.db")).unwrap();
    store.busy_timeout(Duration::from_secs(5)).unwrap();
    store
}

fn accounts(gateway: &Gateway) -> serde_json::Value {
    gateway.admin_get("/readyz").json()["accounts"].clone()
}

#[test]
fn an_instance_that_cannot_report_itself_logs_it_and_uses_no_cached_right() {
    let gateway = Gateway::start();
    assert_eq!(gateway.get("/people/ANA", "ANA").status, 200);
    let began = Instant::now();
    store(&gateway)
        .execute_batch(
            "CREATE TRIGGER not_now BEFORE INSERT ON fedgate_instances BEGIN SELECT RAISE(ABORT, 'not now'); END",
        )
        .unwrap();
    gateway.logged("cannot report itself: accounts are unavailable", began, PATIENCE).expect("the operator is told");
    while accounts(&gateway)["lease_valid"] == true {
        assert!(began.elapsed() < PATIENCE, "it goes on with what is cached");
        thread::sleep(Duration::from_millis(20));
    }
    // It serves by asking the store for each request, and no operator has to wait for it.
    assert_eq!((gateway.admin_get("/readyz").status, gateway.get("/people/ANA", "ANA").status), (200, 200));
    assert!(accounts(&gateway)["fault"].as_str().unwrap().contains("not now"));
    let out = disable(&gateway, "ANA");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("no gateway is listed as running"), "{text}");
    assert_eq!(gateway.get("/people/ANA", "ANA").status, 401);

    store(&gateway).execute_batch("DROP TRIGGER not_now").unwrap();
    gateway.logged("this instance reports again", began, PATIENCE).expect("and that it is over");
    while accounts(&gateway)["lease_valid"] != true {
        assert!(began.elapsed() < 2 * PATIENCE, "it never caches again");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(accounts(&gateway)["fault"].is_null());
}

#[test]
fn a_wait_for_a_change_that_is_lost_meanwhile_reports_the_loss() {
    let gateway = Gateway::start();
    assert_eq!(gateway.get("/people/ANA", "ANA").status, 200);
    while accounts(&gateway)["lease_valid"] != true {
        thread::sleep(Duration::from_millis(20));
    }
    gateway.signal(Signal::STOP);
    let out = thread::scope(|scope| {
        let waiting = scope.spawn(|| disable(&gateway, "ANA"));
        let store = store(&gateway);
        let active = || {
            store.query_row("SELECT data ->> '$.active' FROM people WHERE id = 'ANA'", [], |row| row.get::<_, bool>(0))
        };
        let deadline = Instant::now() + PATIENCE;
        while active().unwrap() {
            assert!(Instant::now() < deadline, "the change is never made");
            thread::sleep(Duration::from_millis(2));
        }
        // As a failover to a replica that lacks the last commit. Not at once: the command must have asked for the epoch of
        // its change, which nothing outside shows, and it waits for a second.
        thread::sleep(Duration::from_millis(300));
        store
            .execute_batch(
                "BEGIN; UPDATE people SET data = json_set(data, '$.active', json('true')) WHERE id = 'ANA'; \
                 UPDATE fedgate_epoch SET epoch = epoch - 2; COMMIT",
            )
            .unwrap();
        waiting.join().unwrap()
    });
    gateway.signal(Signal::CONT);
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(1) && error.contains("the account epoch went back"), "{error}");
}
