//! The indexes of large tables: lists use them, and nobody waits while they are built.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fedgate_base::config::{PostgresConfig, StoreConfig};
use fedgate_base::db::schema;

use crate::his::program::configuration_on;
use crate::support::postgres::Cluster;
use crate::support::{His, professional};

const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until a question has this answer.
async fn becomes(his: &His, question: &str, answer: &str) {
    let StoreConfig::Postgres(config) = &his.config else { unreachable!() };
    let deadline = Instant::now() + PATIENCE;
    while crate::support::postgres_text(config, question).await != answer {
        assert!(Instant::now() < deadline, "{question} is not {answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everybody's plans since `from` that read people or pages, as PostgreSQL's log has them.
fn plans(cluster: &Cluster, from: usize, wanted: usize) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = cluster.log();
        let plans: Vec<String> = log[from..]
            .split("LOG:  duration: ")
            .filter(|entry| entry.contains("plan:\n") && entry.contains(") AS listed ORDER BY "))
            .map(|entry| entry.split_once("\n\t").map_or(entry, |(_, plan)| plan).to_owned())
            .collect();
        if plans.len() >= wanted {
            return plans;
        }
        assert!(Instant::now() < deadline, "{} plans", plans.len());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a plan sorts only rows behind the last id that was read, and fewer than a part has. PostgreSQL 18 may find the
/// last people so, by an index that begins with another column, of which it knows the few values (skip scan).
fn sorts_the_last(plan: &str) -> bool {
    let rows = |line: &str| line.split("rows=").nth(1)?.split(' ').next()?.parse::<u64>().ok();
    let sorted = plan.lines().find(|line| line.contains("->  Sort  (cost=")).and_then(rows);
    sorted.is_some_and(|rows| rows < 1024) && plan.contains("Index Cond: ((id)::text > ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_finds_the_people_of_a_list_by_an_index_also_with_generic_plans() {
    let cluster = Cluster::shared();
    let thalamus = cluster.database().await;
    // As Thalamus leaves it. A fifth of a page each, so that reading all of them costs more than the index.
    let (session, connection) = tokio_postgres::connect(&thalamus.uri, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let people = "
        CREATE TABLE people (id varchar PRIMARY KEY, data jsonb);
        CREATE TABLE pols (id varchar PRIMARY KEY, book varchar REFERENCES people (id), data jsonb);
        INSERT INTO people SELECT upper(md5(n::text)), jsonb_build_object(
            'id', upper(md5(n::text)), 'lastname', 'L' || n % 50, 'name', 'N' || n % 70, 'dob', date '1950-01-01' + n % 900,
            'gender', CASE WHEN n = 7 THEN 'x' WHEN n % 2 = 0 THEN 'f' ELSE 'm' END, 'rest', repeat(md5(n::text), 45)
        ) FROM generate_series(1, 4000) AS n;
        INSERT INTO pols SELECT p.id || n, p.id, jsonb_build_object('id', p.id || n, 'rest', repeat(p.id, 20))
        FROM (SELECT id FROM people LIMIT 400) AS p CROSS JOIN generate_series(1, 10) AS n;";
    session.batch_execute(people).await.unwrap();
    for plans_are in ["force_generic_plan", "force_custom_plan"] {
        let options = format!(
            "-c session_preload_libraries=auto_explain -c auto_explain.log_min_duration=0 -c plan_cache_mode={plans_are}"
        );
        let uri = format!("{} options='{options}'", thalamus.uri);
        let his = His::on(PostgresConfig { uri, ..thalamus.clone() }).await;
        his.sql("ANALYZE pols").await;
        let member = |name: &str| format!("Index Scan using fedgate_people_{name} on people");
        let reply = his.get(&professional(), "/people?limit=1&changed_since=2099-01-01").await;
        let until = reply.header("fedgate-changes-until").unwrap().to_owned();
        his.sql(
            "UPDATE people SET data = data || '{\"note\": \"x\"}' WHERE data ->> 'dob' < '1950-01-11'; ANALYZE people",
        )
        .await;
        let (before, since) = ("/people?changed_since=2000-01-01".to_owned(), format!("/people?changed_since={until}"));
        let someone = his.sql_text("SELECT max(book) FROM pols").await.unwrap();
        let (by_id, of_book) =
            (" using people_pkey on people".to_owned(), "Index Scan using fedgate_pols_book on pols");
        for (target, index, count) in [
            ("/people?lastname=L7", member("lastname"), 80),
            ("/people?lastname=L7&limit=30", member("lastname"), 30),
            ("/people?lastname=L7&limit=30&after=8", member("lastname"), 30),
            ("/people?name=N3&limit=50", member("name"), 50),
            ("/people?dob=1950-01-09", member("dob"), 5),
            ("/people?dob=1950-01-09&gender=f&lastname=L8&name=N8", member("dob"), 1),
            ("/people?gender=f&limit=100", member("gender"), 100),
            ("/people?gender=f", member("gender"), 2000),
            ("/people?gender=x", member("gender"), 1),
            ("/people?gender=m&lastname=L7", member("lastname"), 79),
            (&since, member("changed"), 49),
            (&format!("{since}&limit=20"), member("changed"), 20),
            (&before, member("changed"), 4000),
            ("/people", by_id.clone(), 4000),
            ("/people?limit=20&after=8", by_id, 20),
            (&format!("/pols/{someone}?limit=9"), of_book.to_owned(), 9),
        ] {
            let from = cluster.log().len();
            let reply = his.get(&professional(), target).await;
            assert_eq!((reply.status, reply.json().as_array().unwrap().len()), (200, count), "{target}");
            // A page takes one statement.
            let is_page = target.contains("limit=");
            let plans = plans(cluster, from, 1);
            assert!(!is_page || plans.len() == 1, "{target}: {plans:#?}");
            for plan in plans {
                let is_slow =
                    ["Seq Scan on people", "Seq Scan on pols", "Bitmap", "Sort", "JIT"].map(|word| plan.contains(word));
                let is_right = plan.contains(&index) && is_slow == [false; 5];
                let is_end =
                    target == "/people" && is_slow == [false, false, false, true, false] && sorts_the_last(&plan);
                assert!(is_right || is_end, "{plans_are} {target}: {plan}");
            }
        }
    }
}

/// A database whose indexes of pages and of surnames are missing, and in which a transaction has written a page: whoever
/// builds an index of pages has to wait for it.
async fn unfinished() -> (His, PostgresConfig, tokio_postgres::Client) {
    let his = His::on_postgres().await;
    his.person("ANA", r#"{"lastname":"Betz"}"#).await;
    his.sql("DROP INDEX fedgate_pols_book; DROP INDEX fedgate_people_lastname").await;
    let StoreConfig::Postgres(config) = his.config.clone() else { unreachable!() };
    let (writer, connection) = tokio_postgres::connect(&config.uri, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    writer.batch_execute("BEGIN; INSERT INTO pols VALUES ('held', 'ANA', '{\"id\": \"held\"}')").await.unwrap();
    (his, config, writer)
}

/// `fedhis migrate`, with its messages in a file.
fn migrate(config: &Path, messages: &Path) -> Child {
    let mut command = Command::new(crate::support::programs::fedhis());
    command.args(["migrate", "--config"]).arg(config).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(std::fs::File::create(messages).unwrap()).spawn().unwrap()
}

/// Waits until a file of messages has these words.
async fn tells(file: &Path, words: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut told = String::new();
        std::fs::File::open(file).unwrap().read_to_string(&mut told).unwrap();
        if told.contains(words) {
            return;
        }
        assert!(Instant::now() < deadline, "`{words}` is not in: {told}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const BUILDS: &str = "SELECT count(*)::text FROM pg_stat_progress_create_index WHERE datname = current_database()";
const VALID: &str = "SELECT string_agg(relname || ' ' || indisvalid, ', ' ORDER BY relname) FROM pg_index
    JOIN pg_class ON pg_class.oid = indexrelid WHERE relname IN ('fedgate_pols_book', 'fedgate_people_lastname')";
const BOTH: &str = "fedgate_people_lastname true, fedgate_pols_book true";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_builds_indexes_while_others_write_and_one_migration_at_a_time() {
    let (his, config, writer) = unfinished().await;
    // The limit of statements that a session has otherwise ends no build.
    let uri = format!("{} options='-c statement_timeout=5000'", config.uri);
    let file = configuration_on(&his.scratch.0, &uri);
    let [first, second] = ["first", "second"].map(|name| his.scratch.0.join(name));
    let mut building = migrate(&file, &first);
    becomes(&his, BUILDS, "1").await;
    let mut waiting = migrate(&file, &second);
    tells(&second, "another migration is at work").await;
    tells(&first, "building index `fedgate_pols_book` of `pols`: ").await;
    tells(&first, "it waits for the transaction of session ").await;
    // Neither a writer of pages nor one of persons waits for the build.
    his.sql(
        "SET lock_timeout = 1; INSERT INTO pols VALUES ('beside', 'ANA', '{\"id\": \"beside\"}'); RESET lock_timeout",
    )
    .await;
    his.page("ANA", "other", r#"{"id":"other"}"#).await;
    his.person("BOB", r#"{"lastname":"Betz"}"#).await;
    let long = "SELECT (max(now() - query_start) > interval '6 seconds')::text FROM pg_stat_activity
                WHERE datname = current_database() AND query LIKE 'CREATE INDEX%' AND pid <> pg_backend_pid()";
    becomes(&his, long, "true").await;
    assert_eq!(his.sql_text(BUILDS).await.as_deref(), Some("1"));
    writer.batch_execute("COMMIT").await.unwrap();
    for child in [&mut building, &mut waiting] {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(his.sql_text(VALID).await.as_deref(), Some(BOTH));
    let found = his.get(&professional(), "/people?lastname=Betz").await.json();
    assert_eq!(found.as_array().unwrap().len(), 2, "{found}");
    let book = his.get(&professional(), "/pols/ANA").await.json();
    assert_eq!(book.as_array().unwrap().len(), 3, "{book}");
}

const AT_WORK: &str = "SELECT {} FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'
    AND application_name = 'fedhis migrate' AND query LIKE '% INDEX CONCURRENTLY %'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_builds_an_index_again_whose_build_was_interrupted() {
    let (his, config, writer) = unfinished().await;
    let file = configuration_on(&his.scratch.0, &config.uri);
    let messages = his.scratch.0.join("messages");
    for end in ["pg_terminate_backend", "pg_cancel_backend"] {
        let mut building = migrate(&file, &messages);
        // The first one builds the index, and the second one drops it: both wait for the writer.
        becomes(&his, &AT_WORK.replace("{}", "count(*)::text"), "1").await;
        let ended = AT_WORK.replace("{}", &format!("{end}(pid)"));
        let deadline = Instant::now() + PATIENCE;
        while building.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the migration goes on after {end}");
            his.sql(&ended).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(building.wait().unwrap().code(), Some(1), "{end}");
    }
    becomes(&his, VALID, "fedgate_pols_book false").await;
    let told = schema::unbuilt_indexes(&his.database).await.unwrap().unwrap().to_string();
    assert!(told.contains("no usable indexes `fedgate_pols_book`, `fedgate_people_lastname`; run"), "{told}");
    writer.batch_execute("ROLLBACK").await.unwrap();
    assert!(migrate(&file, &messages).wait().unwrap().success());
    tells(&messages, "dropping index `fedgate_pols_book`, whose build was interrupted").await;
    assert_eq!(schema::unbuilt_indexes(&his.database).await.unwrap(), None);
    assert_eq!(his.sql_text(VALID).await.as_deref(), Some(BOTH));
}
