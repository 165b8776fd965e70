//! PostgreSQL unavailable under load: killed, hanging, missing at the start, a standby, and behind a pooling proxy.

#[path = "outage/frozen.rs"]
mod frozen;
#[path = "outage/granted.rs"]
mod granted;
#[path = "outage/switchover.rs"]
mod switchover;
#[path = "outage/unreadable.rs"]
mod unreadable;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::fixture::{CANARY, Gateway, PATIENCE, Setup, basic, password_hash};
use crate::support::keepalive::{Connection, get};
use crate::support::postgres::Cluster;
use crate::support::{percentiles, wanted};
use fedgate::accounts::{AccountStore, AccountsError};
use fedgate_base::config::{PostgresConfig, StoreConfig};
use tokio::runtime::Runtime;
use tokio_postgres::{NoTls, SimpleQueryMessage};

const BOUND: Duration = Duration::from_secs(1);
/// How long the database is down. `FEDGATE_TEST_OUTAGE_SECONDS` overrides it.
const SECONDS: u64 = 6;
/// Accounts that are used before the outage. Later ones are first used during it.
const KNOWN: usize = 20;
const ACCOUNTS: usize = 2000;
const CLIENTS: usize = 4;
/// The goal for recovery is 2 s; a busy machine gets more.
const BACK: Duration = Duration::from_secs(10);

fn database(cluster: &Cluster) -> PostgresConfig {
    Runtime::new().unwrap().block_on(cluster.database_with_accounts(ACCOUNTS, &password_hash()))
}

fn start(database: &PostgresConfig, more: &str) -> Gateway {
    let configuration = format!("[authentication]\nupgrade_hashes = false\n{more}");
    Gateway::start_as(&Setup { configuration: &configuration, database: Some(&database.uri), ..Setup::default() })
}

fn status(gateway: &Gateway, account: usize) -> u16 {
    let authorization = format!("Authorization: {}\r\n", basic(&format!("P{account}"), CANARY));
    gateway.request("GET", "/people", "", &authorization).status
}

/// Waits for the first 200, and returns how long that took.
fn served(gateway: &Gateway, account: usize, patience: Duration) -> Duration {
    let began = Instant::now();
    while status(gateway, account) != 200 {
        assert!(began.elapsed() < patience, "not served again within {patience:?}");
        thread::sleep(Duration::from_millis(5));
    }
    began.elapsed()
}

/// One answer: when it was requested, how long it took, the status (0: none), and whether its account was used
/// before.
struct Answer {
    start: Instant,
    took: Duration,
    status: u16,
    is_known: bool,
}

/// Waits until so many more requests are answered.
fn until_answered(answered: &AtomicUsize, more: usize) {
    let (wanted, deadline) = (answered.load(Ordering::Relaxed) + more, Instant::now() + PATIENCE);
    while answered.load(Ordering::Relaxed) < wanted {
        assert!(Instant::now() < deadline, "requests are answered");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Ends the clients when it is dropped.
struct EndsLoad<'a>(&'a AtomicBool);

impl Drop for EndsLoad<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// While `outage` runs, keep-alive clients send requests of known and new accounts in turn.
fn under_load(gateway: &Gateway, outage: impl FnOnce(&AtomicUsize)) -> Vec<Answer> {
    let (stop, next, answered) = (AtomicBool::new(false), AtomicUsize::new(KNOWN), AtomicUsize::new(0));
    thread::scope(|scope| {
        let client = |number: usize| {
            let (stop, next, answered) = (&stop, &next, &answered);
            move || {
                let mut connection = Connection::to(gateway.address);
                let mut answers = Vec::new();
                for turn in number.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let is_known = turn.is_multiple_of(2);
                    let account = if is_known { turn % KNOWN } else { next.fetch_add(1, Ordering::Relaxed) % ACCOUNTS };
                    let request = get("/people", &basic(&format!("P{account}"), CANARY));
                    let start = Instant::now();
                    let status = connection.ask(&request).map_or(0, |answer| answer.status);
                    answered.fetch_add(1, Ordering::Relaxed);
                    answers.push(Answer { start, took: start.elapsed(), status, is_known });
                    thread::sleep(Duration::from_millis(5));
                }
                answers
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(client(number))).collect();
        // The clients end also where a wait below fails.
        let ended = EndsLoad(&stop);
        until_answered(&answered, 20 * CLIENTS);
        outage(&answered);
        drop(ended);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

fn outage_lasts() -> Duration {
    Duration::from_secs(wanted("FEDGATE_TEST_OUTAGE_SECONDS", SECONDS))
}

/// An outage under load, from `away` to `back`.
fn outage(name: &str, away: impl FnOnce(&Cluster), back: impl FnOnce(&Cluster)) {
    let cluster = Cluster::start();
    outage_of(name, &database(&cluster), || away(&cluster), || back(&cluster));
}

/// As [`outage`], of a given database.
fn outage_of(name: &str, database: &PostgresConfig, away: impl FnOnce(), back: impl FnOnce()) {
    let gateway = start(database, "");
    (0..KNOWN).for_each(|account| assert!(served(&gateway, account, PATIENCE) < PATIENCE));
    let (mut gone, mut returned, mut recovery) = (Instant::now(), Instant::now(), Duration::ZERO);
    let began = Instant::now();
    let answers = under_load(&gateway, |_| {
        away();
        gone = Instant::now();
        // The time is what is tested: answers must stay right however long the outage lasts.
        thread::sleep(outage_lasts());
        returned = Instant::now();
        back();
        recovery = served(&gateway, 0, BACK);
    });
    let known_at = gateway.logged("accounts are unavailable", began, Duration::ZERO).expect("the operator is told");
    let during = || answers.iter().filter(|answer| answer.start > gone && answer.start + answer.took < returned);
    let refused = during().filter(|answer| answer.status == 503 && answer.start > known_at.max(gone + BOUND));
    let times: Vec<_> = refused.map(|answer| answer.took).collect();
    let late_allows = during().filter(|answer| answer.status == 200 && answer.start > gone + BOUND);
    let late_allows: Vec<_> =
        late_allows.map(|answer| (answer.start - gone, answer.took, answer.is_known.then_some("known"))).collect();
    let longest = during().map(|answer| answer.took).max().unwrap_or_default();
    println!(
        "outage, {name}: {} requests in {:.0} s, {} allows after the bound, 503 once the outage was known {}; \
         known {} ms after it began, longest answer of all {} ms; first 200 after {} ms",
        during().count(),
        (returned - gone).as_secs_f64(),
        late_allows.len(),
        percentiles(times.clone()),
        known_at.saturating_duration_since(gone).as_millis(),
        longest.as_millis(),
        recovery.as_millis()
    );
    assert!(late_allows.is_empty(), "allowed after the bound (since it was gone, took): {late_allows:?}");
    let other = answers.iter().find(|answer| ![200, 503].contains(&answer.status));
    assert_eq!(other.map(|answer| answer.status), None, "no false 401, no lost answer");
    assert!(times.len() > 100, "there was load");
    assert!(longest < BACK, "nobody waits for long: {longest:?}");
}

#[test]
fn a_database_that_is_killed_is_503_at_once_never_401_and_served_again_when_it_is_back() {
    outage("killed", Cluster::kill, Cluster::resume);
}

#[test]
fn a_database_that_hangs_is_the_same() {
    outage("hanging", |cluster| cluster.freeze(true), |cluster| cluster.freeze(false));
}

#[test]
fn a_database_that_has_no_connection_left_is_the_same() {
    let cluster = Cluster::start();
    let owned = database(&cluster);
    let run = |statements: &str| {
        Runtime::new().unwrap().block_on(async {
            let (client, connection) = tokio_postgres::connect(&owned.uri, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute(statements).await.unwrap();
        });
    };
    run("CREATE ROLE gateway LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO gateway; \
         GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO gateway; \
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO gateway");
    let limited = PostgresConfig { uri: owned.uri.replace("user=postgres", "user=gateway"), ..owned.clone() };
    let none_left = "ALTER ROLE gateway CONNECTION LIMIT 0; \
                     SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gateway'";
    outage_of("no connection left", &limited, || run(none_left), || run("ALTER ROLE gateway CONNECTION LIMIT -1"));
}

#[test]
fn a_gateway_started_while_the_database_is_away_starts_answers_503_and_serves_later() {
    let cluster = Cluster::start();
    let database = database(&cluster);
    cluster.kill();
    let began = Instant::now();
    let gateway = start(&database, "");
    gateway.logged("accounts are unavailable", began, PATIENCE).expect("the operator is told");
    assert_eq!(status(&gateway, 0), 503);
    cluster.resume();
    println!("outage, away at the start: first 200 after {} ms", served(&gateway, 0, BACK).as_millis());
}

#[test]
fn an_operator_may_serve_cached_callers_through_an_outage_and_others_get_503() {
    let cluster = Cluster::start();
    let gateway = start(&database(&cluster), "serve_cached_for_seconds = 30\n");
    (0..KNOWN).for_each(|account| assert!(served(&gateway, account, PATIENCE) < PATIENCE));
    // A lease begins with the first confirmation after the first report; without one, nobody is served from the cache.
    gateway.measures("fedgate_lease_valid 1", true);
    let mut gone = Instant::now();
    let began = Instant::now();
    let answers = under_load(&gateway, |answered| {
        cluster.kill();
        gone = Instant::now();
        gateway.logged("accounts are unavailable", began, PATIENCE).expect("the operator is told");
        // Until the usual lease would have ended.
        while gone.elapsed() < 2 * BOUND {
            until_answered(answered, CLIENTS);
        }
        until_answered(answered, 400);
    });
    let mut counts = [0, 0];
    for answer in answers.iter().filter(|answer| answer.start > gone) {
        let expected = if answer.is_known { 200 } else { 503 };
        assert_eq!(answer.status, expected, "{:?} after the kill", answer.start - gone);
        counts[usize::from(answer.is_known)] += 1;
    }
    println!(
        "outage, served from the cache: {} known callers served, {} others told 503, no exception",
        counts[1], counts[0]
    );
    assert!(counts.iter().all(|count| *count > 50));
}

#[test]
fn a_standby_that_streams_is_named_and_never_believed_until_it_is_promoted() {
    let cluster = Cluster::start();
    let database = database(&cluster);
    let standby = cluster.standby();
    let database = standby.moved(&database);
    // This holds for every request, not only for the watch: such a server would answer, possibly with old data.
    let (read, changes) = Runtime::new().unwrap().block_on(async {
        let accounts = AccountStore::open(&StoreConfig::Postgres(database.clone())).await.unwrap();
        (accounts.read("P0").await, accounts.changes_since(None).await)
    });
    assert!(matches!(read, Err(AccountsError::Standby)), "{read:?}");
    assert!(matches!(changes, Err(AccountsError::Standby)), "{changes:?}");
    let began = Instant::now();
    let gateway = start(&database, "");
    for _ in 0..20 {
        assert_eq!(status(&gateway, 0), 503);
    }
    gateway.logged("read-only standby", began, PATIENCE).expect("the operator is told");
    assert_eq!(status(&gateway, 0), 503);
    standby.promote();
    println!("outage, a promoted standby: served again after {:?}", served(&gateway, 0, BACK));
}

/// The first value of a statement's first row, if any, as text.
fn sql(database: &PostgresConfig, statement: &str) -> Option<String> {
    Runtime::new().unwrap().block_on(async {
        let (client, connection) = tokio_postgres::connect(&database.uri, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let rows = client.simple_query(statement).await.unwrap();
        rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
    })
}

#[test]
fn a_failover_that_lost_a_grant_and_took_the_epoch_back_leaves_nothing_of_it() {
    let cluster = Cluster::start();
    let database = database(&cluster);
    let standby = cluster.standby();
    let replica = standby.moved(&database);
    let roles = |roles| format!(r#"UPDATE people SET data = data || '{{"roles": ["{roles}"]}}' WHERE id = 'P0'"#);
    let epoch = |database| sql(database, "SELECT epoch FROM fedgate_epoch").unwrap().parse::<u64>().unwrap();
    sql(&database, &roles("end_user"));
    let deadline = Instant::now() + PATIENCE;
    while epoch(&replica) < epoch(&database) {
        assert!(Instant::now() < deadline, "the standby does not follow");
    }
    standby.kill();
    sql(&database, &roles("health_professional"));
    // One connection string for both, as an operator would write it.
    let directory = |database: &PostgresConfig| database.uri.split(' ').next().unwrap().replace("host=", "");
    let (hosts, name) = ([&database, &replica].map(directory).join(","), database.uri.split("dbname=").nth(1).unwrap());
    let uri = format!("host={hosts} user=postgres dbname={name} target_session_attrs=read-write");
    let gateway = start(&PostgresConfig { uri, ..database.clone() }, "");
    served(&gateway, 0, PATIENCE);
    served(&gateway, 1, PATIENCE);
    let before = epoch(&database);
    cluster.kill();
    let began = Instant::now();
    standby.resume();
    standby.promote();
    // A cached caller may use the grant until the bound, and no longer. A grant that was lost reaches nobody.
    while status(&gateway, 0) != 403 {
        assert!(began.elapsed() < BACK + BACK, "what was lost is still used, or nobody is served");
        thread::sleep(Duration::from_millis(5));
    }
    println!("outage, a failover: what was lost is refused after {:?}", began.elapsed());
    assert_eq!(status(&gateway, 1), 200);
    assert!(epoch(&replica) < before, "the epoch went back");
    sql(&replica, &roles("health_professional"));
    served(&gateway, 0, PATIENCE);
}

#[test]
fn accounts_whose_changes_go_unseen_are_not_served_and_what_went_unseen_is_read_anew() {
    let cluster = Cluster::start();
    let database = database(&cluster);
    let gateway = start(&database, "");
    served(&gateway, 0, PATIENCE);
    served(&gateway, 1, PATIENCE);
    // As after a restore that leaves no moment in which any gateway could see the disabled state.
    let disabled = r#"UPDATE people SET data = data || '{"active": false}' WHERE id = 'P0'"#;
    let triggers = [
        ("", "fedgate_people_updated"),
        ("", "fedgate_people_deleted"),
        ("REPLICA", "fedgate_people_updated_by_replica"),
        ("REPLICA", "fedgate_people_deleted_by_replica"),
        ("ALWAYS", "fedgate_people_truncated"),
        ("ALWAYS", "fedgate_login_kept"),
    ];
    let on = triggers.map(|(whom, trigger)| format!("ALTER TABLE people ENABLE {whom} TRIGGER {trigger};")).concat();
    let off = "ALTER TABLE people DISABLE TRIGGER USER;";
    sql(&database, &format!("BEGIN; {off} {disabled}; {on} COMMIT"));
    let began = Instant::now();
    while status(&gateway, 0) != 401 {
        assert!(began.elapsed() < PATIENCE, "a change without an epoch is never seen");
    }
    assert_eq!(status(&gateway, 1), 200);
    let began = Instant::now();
    sql(&database, off);
    gateway.logged("run `fedhis migrate`", began, PATIENCE).expect("the operator is told");
    while status(&gateway, 1) != 503 {
        assert!(began.elapsed() < PATIENCE, "still served, whatever changes");
    }
    // `ENABLE TRIGGER USER` would leave some triggers in the mode for the wrong sessions.
    sql(&database, &on);
    served(&gateway, 1, BACK);
}

#[test]
fn a_cached_caller_is_served_however_many_wait_for_the_database() {
    let cluster = Cluster::start();
    let database = database(&cluster);
    let gateway = start(&database, "");
    let began = Instant::now();
    while gateway.admin_get("/readyz").json()["accounts"]["lease_valid"] != true {
        assert!(began.elapsed() < PATIENCE, "nothing is cached");
    }
    served(&gateway, 0, PATIENCE);
    let over = AtomicBool::new(false);
    let began = Instant::now();
    thread::scope(|scope| {
        // No account can be read, and many requests want to: every connection for requests is taken and waited for.
        let runtime = Runtime::new().unwrap();
        let (client, connection) = runtime.block_on(tokio_postgres::connect(&database.uri, NoTls)).unwrap();
        runtime.spawn(connection);
        runtime.block_on(client.batch_execute("BEGIN; LOCK people IN ACCESS EXCLUSIVE MODE")).unwrap();
        for number in 0..40 {
            let (gateway, over) = (&gateway, &over);
            scope.spawn(move || {
                for turn in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    status(gateway, KNOWN + (number + 40 * turn) % (ACCOUNTS - KNOWN));
                }
            });
        }
        // Longer than an instance stays listed after its last report.
        let mut is_served = true;
        while is_served && began.elapsed() < outage_lasts() + 4 * BOUND {
            // A machine that pauses for a moment ends a lease too, but only briefly.
            let asked = Instant::now();
            while status(&gateway, 0) != 200 && is_served {
                is_served = asked.elapsed() < 2 * BOUND;
            }
            thread::sleep(Duration::from_millis(20));
        }
        over.store(true, Ordering::Relaxed);
        assert!(is_served, "after {:?}", began.elapsed());
        runtime.block_on(client.batch_execute("COMMIT")).unwrap();
    });
    assert_eq!(gateway.logged("cannot report itself", began, Duration::ZERO), None);
    served(&gateway, KNOWN + 1, BACK);
}

#[test]
fn a_transaction_pooling_proxy_is_named_and_refused_from_the_first_request_on() {
    let cluster = Cluster::start();
    let database = database(&cluster);
    let (uri, _pooler) = cluster.pooled(&database, true);
    let began = Instant::now();
    let gateway = start(&PostgresConfig { uri, ..database }, "");
    assert_eq!(status(&gateway, 0), 503, "while nobody knows yet");
    gateway.logged("transaction-pooling proxy", began, PATIENCE).expect("the operator is told");
    for account in 0..5 {
        assert_eq!(status(&gateway, account), 503);
    }
}

#[test]
fn a_pooling_proxy_as_it_is_installed_is_named_too() {
    let cluster = Cluster::start();
    let database = database(&cluster);
    let (uri, _pooler) = cluster.pooled(&database, false);
    let began = Instant::now();
    let gateway = start(&PostgresConfig { uri, ..database }, "");
    gateway.logged("leads to a pooling proxy", began, PATIENCE).expect("the operator is told");
    assert_eq!(status(&gateway, 0), 503);
}
