//! Two servers at once: after a switchover new connections lead to the new primary, while the old one still answers
//! open ones.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use fedgate::accounts::{AccountStore, AccountsError};
use fedgate::instances::wait_until_applied;
use fedgate_base::config::{PostgresConfig, StoreConfig};
use tokio::runtime::Runtime;

use crate::fixture::{Gateway, PATIENCE, password_hash};
use crate::outage::{BOUND, served, start, status};
use crate::support::postgres::Cluster;
use crate::support::postgres_text;
use crate::support::proxy::Proxy;

/// A primary, and the server that replaces it; a proxy that leads to the first, and both databases.
struct Switchover {
    runtime: Runtime,
    _old: Cluster,
    new: Cluster,
    proxy: Proxy,
    old_database: PostgresConfig,
    new_database: PostgresConfig,
}

/// The sessions of the watch: their last query asked for changes.
const WATCHING: &str = "query LIKE '%fedgate_account_changes c ON%'";

impl Switchover {
    fn prepare() -> Self {
        let runtime = Runtime::new().unwrap();
        let old = Cluster::start();
        let old_database = runtime.block_on(old.database_with_accounts(40, &password_hash()));
        let new = old.standby();
        let new_database = new.moved(&old_database);
        let proxy = Proxy::before(old.socket());
        Self { runtime, _old: old, new, proxy, old_database, new_database }
    }

    fn gateway(&self, more: &str) -> Gateway {
        start(&PostgresConfig { uri: self.proxy.uri(&self.old_database), ..self.old_database.clone() }, more)
    }

    /// Promotes the new primary with all committed changes, and leads new connections there.
    fn switch(&self) {
        self.runtime.block_on(self.new.follow(&self.old_database));
        self.new.promote();
        self.proxy.lead_to(self.new.socket());
    }

    fn on_old(&self, statement: &str) -> String {
        self.runtime.block_on(postgres_text(&self.old_database, statement))
    }

    fn on_new(&self, statement: &str) -> String {
        self.runtime.block_on(postgres_text(&self.new_database, statement))
    }

    /// Ends sessions on the old server, and returns their number.
    fn end_sessions(&self, which: &str) -> usize {
        let ended = self.on_old(&format!(
            "SELECT count(pg_terminate_backend(pid))::text FROM pg_stat_activity \
             WHERE application_name = 'fedgate' AND {which}"
        ));
        ended.parse().unwrap()
    }

    /// Breaks the watch's session, and waits for it if a query is running.
    fn end_the_watch(&self) {
        let began = Instant::now();
        while self.end_sessions(WATCHING) == 0 {
            assert!(began.elapsed() < PATIENCE, "nothing watches the old server");
        }
    }

    /// Revokes the right of accounts on the new primary, and returns when that was committed.
    fn revoke(&self) -> Instant {
        self.on_new(r#"UPDATE people SET data = data || '{"roles": ["end_user"]}' WHERE id IN ('P0', 'P30')"#);
        Instant::now()
    }
}

/// Asks until the revoked right is refused for good, of a cached caller and of a new one. No request that starts
/// later than `bound` is admitted by it.
fn is_refused(gateway: &Gateway, since: Instant, bound: Duration) {
    let mut refused = 0;
    while refused < 40 {
        assert!(since.elapsed() < PATIENCE, "the new primary is not asked");
        for account in [0, 30] {
            let began = since.elapsed();
            match status(gateway, account) {
                200 => assert!(
                    began < bound,
                    "P{account} is admitted by a request that began {began:?} after the revocation"
                ),
                403 => refused += 1,
                other => assert_eq!(other, 503),
            }
        }
    }
    println!("outage, a switchover: refused for good after {:?}", since.elapsed());
}

/// Waits until the probe reports ready, and the new primary lists the gateway with a lease.
fn is_ready_and_listed(gateway: &Gateway) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ready = gateway.admin_get("/readyz");
        let mut status = Command::new(env!("CARGO_BIN_EXE_fedgate"));
        let status =
            status.args(["status", "--json", "--config"]).arg(gateway.dir.join("fedgate.toml")).output().unwrap();
        let told: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        let listed = &told["instances"];
        let is_listed = listed.as_array().is_some_and(|all| all.len() == 1) && listed[0]["lease"] == "valid";
        if ready.status == 200 && ready.json()["accounts"]["lease_valid"] == true && is_listed {
            return;
        }
        assert!(Instant::now() < deadline, "{} {told}", ready.body);
        thread::sleep(Duration::from_millis(50));
    }
}

/// Opens several sessions of the pool.
fn fill_the_pool(gateway: &Gateway) {
    thread::scope(|scope| {
        for turn in 0..4 {
            scope.spawn(move || (0..5).for_each(|account| _ = status(gateway, 5 * turn + account)));
        }
    });
}

#[test]
fn no_read_admits_by_a_server_that_was_left_behind_while_the_watch_is_on_the_new_one() {
    // The old server still claims to be the primary, or refuses writes.
    for is_read_only in [false, true] {
        let switchover = Switchover::prepare();
        let gateway = switchover.gateway("");
        served(&gateway, 0, PATIENCE);
        fill_the_pool(&gateway);
        switchover.switch();
        // The watch's session breaks; those of the pool continue.
        if is_read_only {
            switchover.on_old("ALTER SYSTEM SET default_transaction_read_only = on");
            switchover.on_old("SELECT pg_reload_conf()");
            // A watch that has noticed by now has left by itself.
            switchover.end_sessions(WATCHING);
        } else {
            switchover.end_the_watch();
        }
        served(&gateway, 0, PATIENCE);
        is_refused(&gateway, switchover.revoke(), BOUND);
        served(&gateway, 1, PATIENCE);
    }
}

#[test]
fn the_watch_does_not_stay_on_a_server_that_was_left_behind_while_reads_go_to_the_new_one() {
    let switchover = Switchover::prepare();
    let gateway = switchover.gateway("");
    served(&gateway, 0, PATIENCE);
    fill_the_pool(&gateway);
    switchover.switch();
    let began = Instant::now();
    assert_ne!(switchover.end_sessions(&format!("NOT ({WATCHING})")), 0, "the pool has sessions");
    // A report, at most a second later, meets the new server.
    gateway.logged("new connections lead to another server", began, PATIENCE).expect("the operator is told");
    served(&gateway, 0, PATIENCE);
    is_refused(&gateway, switchover.revoke(), BOUND);
}

#[test]
fn a_switchover_that_breaks_no_session_is_noticed_by_where_new_connections_lead() {
    let switchover = Switchover::prepare();
    let gateway = switchover.gateway("");
    served(&gateway, 0, PATIENCE);
    let began = Instant::now();
    switchover.switch();
    gateway.logged("new connections lead to another server", began, PATIENCE).expect("the operator is told");
    served(&gateway, 0, PATIENCE);
    is_ready_and_listed(&gateway);
    is_refused(&gateway, switchover.revoke(), BOUND);
}

#[test]
fn a_primary_that_is_set_read_only_confirms_nothing_and_admits_nobody() {
    let cluster = Cluster::start();
    let runtime = Runtime::new().unwrap();
    let database = runtime.block_on(cluster.database_with_accounts(4, &password_hash()));
    let gateway = start(&database, "");
    served(&gateway, 0, PATIENCE);
    let writing = format!("{} options='-c default_transaction_read_only=off'", database.uri);
    let writing = PostgresConfig { uri: writing, ..database.clone() };
    let set = |value: &str| {
        for statement in
            [&format!("ALTER SYSTEM SET default_transaction_read_only = {value}"), "SELECT pg_reload_conf()"]
        {
            runtime.block_on(postgres_text(&writing, statement));
        }
    };
    let began = Instant::now();
    set("on");
    gateway.logged("was set read-only", began, PATIENCE).expect("the operator is told");
    for account in [0, 1] {
        while status(&gateway, account) == 200 {
            assert!(began.elapsed() < PATIENCE, "P{account} is served by who takes no writes");
        }
        assert_eq!(status(&gateway, account), 503);
    }
    let ready = gateway.admin_get("/readyz");
    assert!(ready.status == 503 && ready.body.contains("was set read-only"), "{}", ready.body);
    set("off");
    served(&gateway, 0, PATIENCE);
    assert_eq!(gateway.admin_get("/readyz").status, 200);
}

#[test]
fn reads_that_belong_together_are_answered_by_one_server_or_fail() {
    let switchover = Switchover::prepare();
    let uri = switchover.proxy.uri(&switchover.old_database);
    let config = StoreConfig::Postgres(PostgresConfig { uri, ..switchover.old_database.clone() });
    let accounts = switchover.runtime.block_on(async {
        let accounts = AccountStore::open(&config).await.unwrap();
        accounts.keep_to_one_server().await.unwrap();
        accounts.changes_since(None).await.unwrap();
        accounts
    });
    switchover.switch();
    switchover.end_sessions("true");
    let deadline = Instant::now() + PATIENCE;
    while !matches!(switchover.runtime.block_on(accounts.changes_since(None)), Err(AccountsError::AnotherServer)) {
        assert!(Instant::now() < deadline, "who moved to another server is not told");
    }
    let waited = switchover.runtime.block_on(wait_until_applied(&accounts, Instant::now(), |_| {}));
    let told = waited.unwrap_err().to_string();
    assert!(told.contains("look at the account"), "{told}");
}
