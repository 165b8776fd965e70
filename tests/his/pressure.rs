//! One caller asks for too much, leaves too early, or waits for a lock: others are served.

use std::time::{Duration, Instant};

use fedgate_base::config::{Address, SqliteConfig, StoreConfig};
use fedgate_base::db::{Database, SessionPool, WaitReason};
use fedgate_his::store::{ListQuery, ListWindow, RecordReach};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::postgres::Cluster;
use crate::support::proxy::Proxy;
use crate::support::{His, Scratch, professional, root};

/// How long a busy machine may take for what should take a moment.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes every query for units run for ever in the database.
async fn slow_units(his: &His) {
    let slow = match &his.database {
        Database::Postgres(_) => "SELECT id, data FROM kept, pg_sleep(3600)",
        Database::Sqlite(_) => {
            "SELECT id, data FROM kept WHERE (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) \
             SELECT count(*) FROM c) > 0"
        }
    };
    let sql = format!(
        "ALTER TABLE dus RENAME TO kept; INSERT INTO kept (id, data) VALUES ('U', '{{}}'); CREATE VIEW dus AS {slow}"
    );
    his.sql(&sql).await;
    if let Database::Postgres(_) = &his.database {
        his.sql("GRANT SELECT ON dus TO fedhis").await;
    }
}

/// Sends the professional's request for the units, and does not read the answer.
async fn search(his: &His) -> TcpStream {
    let Address::Tcp(address) = his.address else { unreachable!() };
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = his.request(&professional(), "GET", "/domiciliary-units").head();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Polls until the condition holds.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A session beside those of the service.
async fn beside(his: &His) -> tokio_postgres::Client {
    let StoreConfig::Postgres(config) = &his.config else { unreachable!() };
    let (client, connection) = tokio_postgres::connect(&config.uri, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// How many sessions the service has, and how many of them run a slow query.
async fn at_work(client: &tokio_postgres::Client) -> (i64, i64) {
    let row = client
        .query_one(
            "SELECT count(*), count(*) FILTER (WHERE state = 'active' AND wait_event = 'PgSleep') FROM pg_stat_activity \
             WHERE datname = current_database() AND application_name = 'fedgate' AND usename = 'fedhis'",
            &[],
        )
        .await
        .unwrap();
    (row.get(0), row.get(1))
}

fn pool(his: &His) -> &SessionPool {
    match &his.served {
        Database::Postgres(pool) => pool,
        Database::Sqlite(_) => unreachable!(),
    }
}

crate::on_both_stores! {
    async fn many_slow_searches_of_one_account_stop_nobody_and_end_with_their_requests(his) {
        his.person("ANA", "{}").await;
        slow_units(&his).await;
        let mut searches = vec![];
        for _ in 0..60 {
            searches.push(search(&his).await);
        }
        // While they wait, another account is served, repeatedly.
        for _ in 0..20 {
            assert_eq!(his.get(&root(), "/people/ANA").await.status, 200);
        }
        drop(searches);
        until("the account that went away is served again", async || {
            his.get(&professional(), "/people/ANA").await.status == 200
        }).await;
        // Each round leaves as fast as it comes.
        for _ in 0..10 {
            let round = [search(&his).await, search(&his).await, search(&his).await, search(&his).await];
            assert_eq!(his.get(&root(), "/people/ANA").await.status, 200);
            drop(round);
        }
        until("nothing is left of it", async || his.get(&professional(), "/people/ANA").await.status == 200).await;
    }

    async fn a_caller_beyond_its_share_learns_so_and_no_server_is_blamed(his) {
        slow_units(&his).await;
        let _searches = [search(&his).await, search(&his).await];
        until("the third of one account is told to come again", async || {
            let reply = his.get(&professional(), "/people").await;
            reply.status == 503 && reply.error().2 == "busy" && reply.header("fedgate-busy") == Some("1")
                && reply.header("retry-after") == Some("1")
        }).await;
        assert_eq!(his.get(&root(), "/people").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abandoned_statements_end_on_the_server_and_never_load_it_beyond_the_pool() {
    let his = His::on_postgres().await;
    let watch = beside(&his).await;
    slow_units(&his).await;
    let mut most = 0;
    for _ in 0..6 {
        let round = [search(&his).await, search(&his).await, search(&his).await];
        until("a search is at work", async || at_work(&watch).await.1 > 0).await;
        drop(round);
        let (_, searches) = at_work(&watch).await;
        most = most.max(searches);
        // The server shows a session that was closed for a moment beside the one that follows it.
        until("no session is beyond the pool", async || at_work(&watch).await.0 <= 4).await;
    }
    assert!(most <= 4, "{most} searches in a pool of 4");
    until("the server leaves off", async || at_work(&watch).await.1 == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_never_hits_the_next_statement() {
    let mut config = Cluster::shared().database().await;
    config.pool_size = 1;
    let pool = fedgate_base::db::postgres::pool(&config).unwrap();
    for round in 0..12u64 {
        // Abandoned before its end, near its end, and after its session received the cancel request.
        let abandoned = async {
            pool.get().await.unwrap().execute("SELECT pg_sleep(0.058)", &[]).await.unwrap();
        };
        let _ = tokio::time::timeout(Duration::from_millis(1 + round % 12), abandoned).await;
        let next = pool.get().await.unwrap();
        for _ in 0..20 {
            next.query_one("SELECT pg_sleep(0.0005), 1", &[]).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_abandoned_in_a_transaction_is_undone_and_leaves_none_open() {
    let mut config = Cluster::shared().database().await;
    config.pool_size = 1;
    let pool = fedgate_base::db::postgres::pool(&config).unwrap();
    pool.get().await.unwrap().batch_execute("CREATE TABLE t (n int)").await.unwrap();
    for sleeps in ["SELECT pg_sleep(0.02)", "SELECT pg_sleep(3600)"] {
        let abandoned = async {
            let mut session = pool.get().await.unwrap();
            let transaction = session.transaction().await.unwrap();
            transaction.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
            transaction.execute(sleeps, &[]).await.unwrap();
            std::future::pending::<()>().await;
        };
        let _ = tokio::time::timeout(Duration::from_millis(300), abandoned).await;
        let next = pool.get().await.unwrap();
        let count = next.query_one("SELECT count(*) FROM t", &[]).await.unwrap();
        assert_eq!(count.get::<_, i64>(0), 0, "{sleeps}");
        // Time stands still within one transaction.
        let now = async || next.query_one("SELECT now()::text", &[]).await.unwrap().get::<_, String>(0);
        assert_ne!(now().await, now().await, "{sleeps}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_takes_too_long_is_distinct_from_an_unavailable_database() {
    let mut config = Cluster::shared().database().await;
    config.uri.push_str(" options='-c statement_timeout=1000'");
    let his = His::on(config).await;
    slow_units(&his).await;
    let reply = his.get(&root(), "/domiciliary-units").await;
    assert_eq!((reply.error().0, reply.error().2.as_str()), (503, "query_timeout"));
    assert_eq!((reply.header("fedgate-busy"), reply.header("retry-after")), (Some("1"), Some("1")));
    let error = pool(&his).get().await.unwrap().execute("SELECT pg_sleep(5)", &[]).await.unwrap_err();
    assert_eq!(error.waited_for(), Some(WaitReason::Statement));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_left_early_leaves_its_rows_in_the_database() {
    const ROW: usize = 1 << 20;
    let cluster = Cluster::shared();
    let mut config = cluster.database().await;
    let proxy = Proxy::before(cluster.socket());
    config.uri = proxy.uri(&config);
    let his = His::on(config).await;
    let rows = "INSERT INTO people SELECT 'P' || n, jsonb_build_object('filler', repeat('x', 1048576)) \
                FROM generate_series(10, 73) n";
    his.sql(rows).await;
    his.indexed().await;
    let before = proxy.answered();
    let list = ListQuery::People { members: vec![] };
    let chunk = his.store.chunk(&list, &ListWindow::default(), 64, usize::MAX, &RecordReach::Global).await.unwrap();
    assert_eq!((chunk.rows.len(), chunk.is_last), (1, false), "one row fills a chunk");
    // All four sessions are usable at once.
    for _ in 0..8 {
        assert_eq!(his.get(&root(), "/people/P10?").await.status, 200);
    }
    let moved = proxy.answered() - before;
    assert!(moved < (16 + 8 + 8) * ROW, "{moved} bytes for nine rows of a MiB");
}

/// Both stores, with a short wait for locks.
pub(super) async fn impatient() -> [His; 2] {
    let lock_timeout = Duration::from_millis(300);
    let mut postgres = Cluster::shared().database().await;
    postgres.lock_timeout = lock_timeout;
    let scratch = Scratch::new();
    let sqlite = SqliteConfig { path: scratch.0.join("his.db"), lock_timeout };
    [His::on(postgres).await, His::start(StoreConfig::Sqlite(sqlite), scratch).await]
}

/// Keeps a record locked from outside: a session on PostgreSQL, another process's transaction on SQLite.
pub(super) enum Blocker {
    Session(tokio_postgres::Client),
    Connection(rusqlite::Connection),
}

impl Blocker {
    pub(super) async fn on(his: &His, sql: &str) -> Self {
        match &his.config {
            StoreConfig::Postgres(_) => {
                let client = beside(his).await;
                client.batch_execute(&format!("BEGIN; {sql}")).await.unwrap();
                Self::Session(client)
            }
            StoreConfig::Sqlite(config) => {
                let connection = rusqlite::Connection::open(&config.path).unwrap();
                connection.execute_batch(&format!("BEGIN IMMEDIATE; {sql}")).unwrap();
                Self::Connection(connection)
            }
        }
    }

    pub(super) async fn leaves(self) {
        match self {
            Self::Session(client) => client.batch_execute("ROLLBACK").await.unwrap(),
            Self::Connection(connection) => connection.execute_batch("ROLLBACK").unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_row_keeps_no_reader_waiting_and_writers_are_refused_soon() {
    for his in impatient().await {
        a_locked_row_keeps_no_reader_waiting_and_writers_are_refused_soon_on(his).await;
    }
}

async fn a_locked_row_keeps_no_reader_waiting_and_writers_are_refused_soon_on(his: His) {
    his.person("ANA", "{}").await;
    his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
    let blocker = Blocker::on(
        &his,
        "UPDATE people SET data = data WHERE id = 'ANA'; UPDATE pols SET data = data WHERE id = 'p1'",
    )
    .await;
    let (professional, root) = (professional(), root());
    let began = Instant::now();
    let patch = async |number: usize| {
        let (actor, target) = match number % 3 {
            0 => (&root, "/people/ANA"),
            1 => (&professional, "/pols/ANA/p1"),
            _ => (&professional, "/people/ANA"),
        };
        let patch =
            his.request(actor, "PATCH", target).header("if-match", if number.is_multiple_of(2) { "*" } else { "" });
        let reply = patch.body(r#"{"n":1}"#).send().await;
        (reply.error().2, reply.header("fedgate-busy").map(str::to_owned))
    };
    let reads = async {
        // The same accounts continue to read all the while.
        let mut count = 0;
        while began.elapsed() < Duration::from_millis(600) {
            for (actor, target) in [(&root, "/people/ANA"), (&professional, "/people"), (&professional, "/pols/ANA")] {
                assert_eq!(his.get(actor, target).await.status, 200, "{target}");
                count += 1;
            }
        }
        count
    };
    let (count, told) = tokio::join!(reads, futures_util::future::join_all((0..17).map(patch)));
    assert!(count > 10, "{count} reads");
    for (code, is_busy) in &told {
        assert!(["record_locked", "busy"].contains(&code.as_str()) && is_busy.is_some(), "{told:?}");
    }
    assert!(told.iter().any(|(code, _)| code == "record_locked"), "{told:?}");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    blocker.leaves().await;
    assert_eq!(his.patch(&root, "/people/ANA", r#"{"n":2}"#).await.status, 200);
    assert_eq!(his.get(&root, "/people/ANA").await.json()["n"], 2, "what was refused was not done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_write_that_meets_a_lock_is_refused_for_now() {
    for his in impatient().await {
        every_kind_of_write_that_meets_a_lock_is_refused_for_now_on(his).await;
    }
}

async fn every_kind_of_write_that_meets_a_lock_is_refused_for_now_on(his: His) {
    his.person("ANA", r#"{"name":"Ana"}"#).await;
    his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
    let unit = his.post(&root(), "/institutions/I1", r#"{"id":"I1"}"#).await;
    assert_eq!(unit.status, 200, "{unit:?}");
    let document = his.post(&root(), "/personal_docs/ANA/p1/d1", r#"{"document":"YQ=="}"#).await;
    assert_eq!(document.status, 200, "{document:?}");
    let lock = match &his.database {
        Database::Postgres(_) => {
            "SELECT FROM people FOR UPDATE; SELECT FROM pols FOR UPDATE; SELECT FROM institutions FOR UPDATE; \
             SELECT FROM personal_docs FOR UPDATE"
        }
        Database::Sqlite(_) => "",
    };
    let blocker = Blocker::on(&his, lock).await;
    let root = root();
    let writes = [
        ("DELETE", "/people/ANA", ""),
        ("PATCH", "/institutions/I1", r#"{"n":1}"#),
        ("DELETE", "/institutions/I1", ""),
        ("DELETE", "/pols/ANA/p1", ""),
        ("POST", "/pols/ANA/p2", r#"{"id":"p2"}"#),
        ("POST", "/personal_docs/ANA/p1/d2", r#"{"document":"YQ=="}"#),
        ("DELETE", "/personal_docs/ANA/p1/d1", ""),
    ];
    let told = futures_util::future::join_all(writes.map(async |(method, target, body)| {
        let began = Instant::now();
        let reply = his.request(&root, method, target).body(body).send().await;
        assert!(began.elapsed() < PATIENCE, "{method} {target}");
        (method, target, if reply.status == 200 { "done".to_owned() } else { reply.error().2 })
    }))
    .await;
    for (method, target, code) in &told {
        // Writes beyond the share of one account wait for the others.
        assert!(["record_locked", "busy"].contains(&code.as_str()), "{method} {target}: {told:?}");
    }
    assert_eq!(his.get(&root, "/institutions/I1").await.status, 200);
    blocker.leaves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_change_that_meets_a_lock_names_its_holder() {
    for his in impatient().await {
        an_operators_change_that_meets_a_lock_names_its_holder_on(his).await;
    }
}

async fn an_operators_change_that_meets_a_lock_names_its_holder_on(his: His) {
    his.person("ANA", "{}").await;
    let accounts = fedgate::accounts::AccountStore::open(&his.config).await.unwrap();
    let disable = fedgate::accounts::AccountChange::Active(false);
    let lock = match &his.database {
        Database::Postgres(_) => {
            "SET LOCAL application_name = 'report'; UPDATE people SET data = data || '{\"canary\": 1}'"
        }
        Database::Sqlite(_) => "",
    };
    let blocker = Blocker::on(&his, lock).await;
    let told = accounts.change("ANA", &disable).await.unwrap_err().to_string();
    let expected = match &blocker {
        Blocker::Session(client) => {
            let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
            vec![
                format!("session {pid} (user `postgres`, application `report`"),
                "idle in transaction".into(),
                format!("pg_terminate_backend({pid})"),
            ]
        }
        Blocker::Connection(_) => vec![format!("process {} (`", std::process::id())],
    };
    assert!(expected.iter().all(|words| told.contains(words)), "{told}");
    assert!(!told.contains("canary") && told.contains("nothing was changed"), "{told}");
    blocker.leaves().await;
    assert!(accounts.change("ANA", &disable).await.unwrap());
    assert_eq!(his.get(&root(), "/people/ANA").await.json()["active"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_transaction_and_the_head_of_a_line_are_named_too() {
    let [his, _] = impatient().await;
    his.person("ANA", "{}").await;
    let accounts = fedgate::accounts::AccountStore::open(&his.config).await.unwrap();
    let disable = fedgate::accounts::AccountChange::Active(false);
    let client = beside(&his).await;
    client.batch_execute("BEGIN; UPDATE people SET data = data; PREPARE TRANSACTION 'forgotten'").await.unwrap();
    // A session that waits for the same lock cannot end the wait, and is not named.
    let before = beside(&his).await;
    let (_, told) = tokio::join!(
        async { before.batch_execute("SET lock_timeout = 2500; UPDATE people SET data = data").await },
        async {
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            let deadline = std::time::Instant::now() + Duration::from_secs(2);
            while client.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0 {
                assert!(std::time::Instant::now() < deadline, "the other session waits for its lock");
            }
            accounts.change("ANA", &disable).await.unwrap_err().to_string()
        }
    );
    assert!(told.contains("locked by the prepared transaction `forgotten`, prepared 2"), "{told}");
    assert!(!told.contains("session"), "{told}");
    client.batch_execute("ROLLBACK PREPARED 'forgotten'").await.unwrap();
    assert!(accounts.change("ANA", &disable).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_share_the_sessions_that_the_server_gives_when_it_gives_fewer_than_the_pool_may_have() {
    let his = His::on_postgres().await;
    his.person("ANA", r#"{"name":"Ana"}"#).await;
    his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
    assert_eq!(his.get(&professional(), "/pols/ANA").await.status, 200);
    his.sql(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT %s', current_database(), (SELECT count(*) \
         FROM pg_stat_activity WHERE datname = current_database() AND usename = 'fedhis')); END $$",
    )
    .await;
    let answers = (0..24).map(|turn| {
        let target = ["/people/ANA", "/pols/ANA?page_type=x", "/people?name=Ana"][turn % 3];
        let (his, professional) = (&his, professional());
        async move { his.get(&professional, target).await.status }
    });
    let statuses = futures_util::future::join_all(answers).await;
    assert_eq!(statuses, [200; 24]);
}
