//! Lists of what was written since a moment: nothing is missed, in whatever order transactions commit.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use fedgate_base::config::{PostgresConfig, StoreConfig};
use fedgate_base::db::schema;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::his::merges::{merge, unmerge};
use crate::support::postgres::Cluster;
use crate::support::{His, own, professional, root};

const FOREVER: &str = "2000-01-01";

/// The ids of all pages of a list, and the moment to ask from next time.
async fn changes(his: &His, target: &str, since: &str) -> (Vec<String>, String) {
    let (records, until) = records(his, target, since).await;
    (records.into_iter().map(|record| record["id"].as_str().unwrap().to_owned()).collect(), until)
}

async fn records(his: &His, target: &str, since: &str) -> (Vec<serde_json::Value>, String) {
    let with = if target.contains('?') { '&' } else { '?' };
    let (mut target, mut records, mut until) = (format!("{target}{with}changed_since={since}"), vec![], None);
    loop {
        let reply = his.get(&professional(), &target).await;
        assert_eq!(reply.status, 200, "{target}: {}", reply.text());
        let told = reply.header("fedgate-changes-until").map(str::to_owned);
        assert_eq!(told.is_some(), until.is_none(), "the first page alone tells the moment");
        until = until.or(told);
        records.extend(reply.json().as_array().unwrap().iter().map(|element| element[0].clone()));
        match reply.header("link") {
            Some(link) => target = link.strip_prefix('<').unwrap().split('>').next().unwrap().to_owned(),
            None => return (records, until.unwrap()),
        }
    }
}

fn postgres(his: &His) -> &PostgresConfig {
    let StoreConfig::Postgres(config) = &his.config else { unreachable!() };
    config
}

/// A session of its own, outside of the service.
async fn session(his: &His) -> tokio_postgres::Client {
    let (session, connection) = tokio_postgres::connect(&postgres(his).uri, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    session
}

crate::on_both_stores! {
    async fn what_was_entered_late_is_found_by_the_moment_of_its_entry(his) {
        for id in ["A", "B"] {
            his.person(id, r#"{"lastname":"Betz"}"#).await;
        }
        his.page("A", "p1", r#"{"id":"p1","page_date":"2026-01-01","page_type":"x"}"#).await;
        assert_eq!(changes(&his, "/people", FOREVER).await.0, ["A", "B"]);
        let (pages, until) = changes(&his, "/pols/A", FOREVER).await;
        assert_eq!(pages, ["p1"]);
        assert!(changes(&his, "/pols/A", &until).await.0.is_empty());
        // Entered now, with a date of long ago.
        his.page("A", "p0", r#"{"id":"p0","page_date":"1985-10-06","page_type":"y"}"#).await;
        let (pages, next) = changes(&his, "/pols/A", &until).await;
        assert_eq!((pages, next > until), (vec!["p0".to_owned()], true));
        assert_eq!(changes(&his, "/pols/A?page_type=x", &until).await.0, [""; 0]);
        assert_eq!(changes(&his, "/pols/A?since=2000-01-01", &until).await.0, [""; 0]);
        assert_eq!(changes(&his, "/pols/B", FOREVER).await.0, [""; 0]);
        // In the order of the writes, each row at its last one.
        for id in ["B", "A"] {
            assert_eq!(his.patch(&root(), &format!("/people/{id}"), r#"{"name":"x"}"#).await.status, 200);
        }
        assert_eq!(his.patch(&root(), "/pols/A/p1", r#"{"summary":"x"}"#).await.status, 200);
        assert_eq!(changes(&his, "/people", &next).await.0, ["B", "A"]);
        assert_eq!(changes(&his, "/people?lastname=Betz&limit=1", &next).await.0, ["B", "A"]);
        assert_eq!(changes(&his, "/people?lastname=None", &next).await.0, [""; 0]);
        assert_eq!(changes(&his, "/pols/A", FOREVER).await.0, ["p0", "p1"]);
        // Whoever may read only the own book asks in the same way.
        let reply = his.get(&own("A"), &format!("/pols/A?changed_since={next}")).await;
        assert_eq!((reply.json()[0][0]["id"].as_str(), reply.json().as_array().unwrap().len()), (Some("p1"), 1));
        for unit in ["domiciliary-units", "institutions"] {
            assert_eq!(his.post(&root(), &format!("/{unit}/U"), r#"{"id":"U"}"#).await.status, 200);
            let (units, until) = changes(&his, &format!("/{unit}"), &next).await;
            assert_eq!(units, ["U"]);
            assert!(changes(&his, &format!("/{unit}"), &until).await.0.is_empty());
        }
        // Lines are the same rows.
        let target = format!("/people?changed_since={next}");
        let lines = his.request(&professional(), "GET", &target).header("accept", "application/x-ndjson").send().await;
        assert_eq!(lines.text().lines().count(), 2);
        assert!(lines.header("fedgate-changes-until").is_some());
        // The time is no part of the record.
        let record = his.get(&professional(), "/pols/A/p1").await;
        assert!(!record.text().contains("fedgate"), "{}", record.text());
    }

    async fn a_moment_or_a_place_that_cannot_be_read_is_refused(his) {
        for target in [
            "/people?changed_since=yesterday", "/people?changed_since=", "/pols/A?changed_since=2026-13-01",
            "/institutions?changed_since=1", "/people?changed_since=2026-01-01&after=ANA", "/people?changed_since=2026-01-01&limit=0",
            "/pols/A?changed_since=2026-01-01&after=1x.A", "/people?q=ana&changed_since=2026-01-01",
        ] {
            let reply = his.get(&professional(), target).await;
            assert_eq!((reply.status, reply.error().2.as_str()), (400, "bad_query"), "{target}");
        }
        // Before all, and after all.
        his.person("A", "{}").await;
        assert_eq!(changes(&his, "/people", "1900-01-01").await.0, ["A"]);
        assert_eq!(changes(&his, "/people", "9999-12-31").await.0, [""; 0]);
        // Without it, no moment is told.
        assert!(his.get(&professional(), "/people").await.header("fedgate-changes-until").is_none());
    }

    async fn a_row_that_is_written_while_pages_are_read_is_on_a_later_one_or_in_the_next_list(his) {
        for number in 0..40 {
            his.person(&format!("P{number:02}"), &json!({"rest": "x".repeat(number * 900)}).to_string()).await;
        }
        let first = his.get(&professional(), &format!("/people?changed_since={FOREVER}&limit=7")).await;
        let until = first.header("fedgate-changes-until").unwrap().to_owned();
        let mut seen: Vec<String> =
            first.json().as_array().unwrap().iter().map(|one| one[0]["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(seen.last().unwrap(), "P06");
        // One that was listed, one that was not yet.
        for id in ["P03", "P20"] {
            assert_eq!(his.patch(&root(), &format!("/people/{id}"), r#"{"name":"new"}"#).await.status, 200);
        }
        let mut link = first.header("link").map(str::to_owned);
        while let Some(next) = link {
            let target = next.strip_prefix('<').unwrap().split('>').next().unwrap();
            let reply = his.get(&professional(), target).await;
            assert_eq!((reply.status, reply.header("fedgate-changes-until")), (200, None));
            seen.extend(reply.json().as_array().unwrap().iter().map(|one| one[0]["id"].as_str().unwrap().to_owned()));
            link = reply.header("link").map(str::to_owned);
        }
        assert_eq!(&seen[seen.len() - 2..], ["P03", "P20"]);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 40);
        assert_eq!(changes(&his, "/people", &until).await.0, ["P03", "P20"]);
        // A list without pages takes several questions.
        assert_eq!(changes(&his, "/people", FOREVER).await.0.len(), 40);
        assert_eq!(changes(&his, "/people?limit=1000", FOREVER).await.0.len(), 40);
    }

    async fn merges_and_their_ends_are_changes_of_what_the_lists_show(his) {
        for id in ["A", "B", "C"] {
            his.person(id, r#"{"name":"Ana"}"#).await;
            his.page(id, &format!("p{id}"), &format!(r#"{{"id":"p{id}"}}"#)).await;
        }
        let until = changes(&his, "/people", FOREVER).await.1;
        let number = merge(&his, "A", "B").await;
        let messages = his.sql_text("SELECT CAST(count(*) AS text) FROM fedgate_messages").await;
        assert_eq!(changes(&his, "/people", &until).await.0, ["B"]);
        // The pages of the other id are new in this book.
        let (pages, next) = changes(&his, "/pols/B", &until).await;
        assert_eq!(pages, ["pA", "pB"]);
        assert_eq!(changes(&his, "/pols/B?limit=1", &until).await.0, ["pA", "pB"]);
        assert!(changes(&his, "/pols/B", &next).await.0.is_empty());
        assert!(changes(&his, "/people", &next).await.0.is_empty());
        his.page("A", "late", r#"{"id":"late"}"#).await;
        assert_eq!(changes(&his, "/pols/B", &next).await.0, ["late"]);
        assert_eq!(unmerge(&his, number).await.status, 200);
        let mut again = changes(&his, "/people", &next).await.0;
        again.sort_unstable();
        assert_eq!(again, ["A", "B"], "the old id is in the list again");
        // A message for the page, and one for the end of the merge.
        let more = his.sql_text("SELECT CAST(count(*) AS text) FROM fedgate_messages").await;
        assert_eq!(more.unwrap().parse::<i64>().unwrap() - messages.unwrap().parse::<i64>().unwrap(), 2);
        // The survivor is deleted, and what was merged into it stands alone.
        let next = changes(&his, "/people", FOREVER).await.1;
        merge(&his, "C", "A").await;
        let merged = changes(&his, "/people", &next).await.1;
        his.sql("DELETE FROM pols WHERE book = 'A'; DELETE FROM people WHERE id = 'A'").await;
        assert_eq!(changes(&his, "/people", &merged).await.0, ["C"]);
    }

    async fn a_reader_that_goes_on_from_each_answer_has_what_was_acknowledged_before_it(his) {
        const PERSONS: usize = 12;
        for person in 0..PERSONS {
            his.person(&format!("P{person}"), r#"{"count":0}"#).await;
        }
        // What each writer was told, and how many of them have ended.
        let (told, ended) = (Mutex::new(vec![0_u64; PERSONS]), AtomicUsize::new(0));
        let write = async |first: usize| {
            for count in 1..=40_u64 {
                for person in (first..PERSONS).step_by(4) {
                    let body = json!({ "count": count }).to_string();
                    assert_eq!(his.patch(&root(), &format!("/people/P{person}"), body).await.status, 200);
                    told.lock().unwrap()[person] = count;
                }
            }
            ended.fetch_add(1, Ordering::SeqCst);
        };
        let read = async || {
            let (mut mirror, mut since) = (BTreeMap::new(), FOREVER.to_owned());
            loop {
                let is_last = ended.load(Ordering::SeqCst) == 4;
                let before = told.lock().unwrap().clone();
                let (rows, until) = records(&his, "/people?limit=5", &since).await;
                for row in rows {
                    mirror.insert(row["id"].as_str().unwrap().to_owned(), row["count"].as_u64().unwrap());
                }
                for (person, count) in before.iter().enumerate() {
                    assert!(mirror[&format!("P{person}")] >= *count, "P{person} is older than {count} in {mirror:?}");
                }
                since = until;
                if is_last {
                    return;
                }
            }
        };
        tokio::join!(write(0), write(1), write(2), write(3), read(), read());
    }

    async fn a_database_of_before_is_stamped_from_its_migration_on(his) {
        for id in ["A", "B"] {
            his.person(id, "{}").await;
        }
        let told = changes(&his, "/people", FOREVER).await.1;
        // As an older program left it.
        let columns = ["people", "pols", "dus", "institutions", "fedgate_same_persons"].map(|table| match his.config {
            StoreConfig::Postgres(_) => format!("DROP TRIGGER fedgate_changed ON {table}; ALTER TABLE {table} DROP COLUMN fedgate_changed CASCADE;"),
            StoreConfig::Sqlite(_) => format!("DROP TRIGGER fedgate_changed_{table}_inserted; DROP TRIGGER fedgate_changed_{table}_updated; ALTER TABLE {table} DROP COLUMN fedgate_changed;"),
        });
        let seen = match his.config {
            StoreConfig::Postgres(_) => "DROP TRIGGER fedgate_person_seen_again ON fedgate_same_persons;",
            StoreConfig::Sqlite(_) => "DROP INDEX fedgate_people_changed; DROP TRIGGER fedgate_person_seen_again_deleted; DROP TRIGGER fedgate_person_seen_again_updated;",
        };
        his.sql(&format!("{seen} {}", columns.concat())).await;
        his.sql("UPDATE people SET data = '{\"id\": \"A\", \"name\": \"late\"}' WHERE id = 'A'").await;
        assert!(schema::missing_objects(&his.database).await.unwrap().is_some());
        schema::migrate(&his.database).await.unwrap();
        assert_eq!(schema::missing_objects(&his.database).await.unwrap(), None);
        // What was written meanwhile has no time, so the list is whole; after that it is not.
        let (all, until) = changes(&his, "/people", &told).await;
        assert_eq!(all, ["A", "B"]);
        assert!(changes(&his, "/people", &until).await.0.is_empty());
        assert_eq!(changes(&his, "/people?limit=1", &told).await.0, ["A", "B"]);
        assert_eq!(his.patch(&root(), "/people/B", r#"{"name":"x"}"#).await.status, 200);
        assert_eq!(changes(&his, "/people", &until).await.0, ["B"]);
        assert_eq!(changes(&his, "/people", &told).await.0, ["A", "B"]);
        // Migrated again, nothing begins anew.
        schema::migrate(&his.database).await.unwrap();
        assert_eq!(changes(&his, "/people", &until).await.0, ["B"]);
    }
}

#[tokio::test]
async fn postgres_lists_what_a_long_transaction_wrote_in_the_first_answer_after_its_commit() {
    let his = His::on_postgres().await;
    his.person("A", "{}").await;
    let held = session(&his).await;
    let start = changes(&his, "/pols/A", FOREVER).await.1;
    held.batch_execute("BEGIN; INSERT INTO pols VALUES ('held', 'A', '{\"id\": \"held\"}')").await.unwrap();
    // Written and committed later, and seen first.
    his.page("A", "p1", r#"{"id":"p1"}"#).await;
    let (pages, until) = changes(&his, "/pols/A", &start).await;
    assert_eq!(pages, ["p1"]);
    his.page("A", "p2", r#"{"id":"p2"}"#).await;
    let (pages, until) = changes(&his, "/pols/A", &until).await;
    assert_eq!(pages, ["p1", "p2"], "again, because the transaction is still open");
    held.batch_execute("COMMIT").await.unwrap();
    let (pages, until) = changes(&his, "/pols/A", &until).await;
    assert_eq!(pages, ["held", "p1", "p2"]);
    assert!(changes(&his, "/pols/A", &until).await.0.is_empty(), "nothing is open any more");
    // A prepared transaction is open until it is committed, whatever becomes of its session.
    held.batch_execute("BEGIN; UPDATE pols SET data = '{\"id\": \"held\", \"new\": true}' WHERE id = 'held'; PREPARE TRANSACTION 'changes'")
        .await
        .unwrap();
    drop(held);
    let (pages, until) = changes(&his, "/pols/A", &until).await;
    assert!(pages.is_empty());
    his.sql("COMMIT PREPARED 'changes'").await;
    assert_eq!(changes(&his, "/pols/A", &until).await.0, ["held"]);
}

#[tokio::test]
async fn postgres_stamps_no_row_earlier_than_a_moment_that_was_told_whatever_the_clock_says() {
    let his = His::on_postgres().await;
    his.person("A", "{}").await;
    // The clock was an hour ahead when the last reader was told.
    his.sql(
        "SELECT setval('fedgate_change_clock', CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) + 3600000000)",
    )
    .await;
    let mut until = changes(&his, "/people", FOREVER).await.1;
    for id in ["B", "C", "D"] {
        his.person(id, "{}").await;
        let (persons, next) = changes(&his, "/people", &until).await;
        assert_eq!((persons, next > until), (vec![id.to_owned()], true));
        until = next;
    }
}

#[tokio::test]
async fn postgres_keeps_the_times_in_a_dump() {
    let his = His::on_postgres().await;
    for id in ["A", "B"] {
        his.person(id, "{}").await;
    }
    let until = changes(&his, "/people", FOREVER).await.1;
    assert_eq!(his.patch(&root(), "/people/A", r#"{"name":"x"}"#).await.status, 200);
    let restored = His::on(Cluster::shared().dumped_and_restored(postgres(&his))).await;
    assert_eq!(changes(&restored, "/people", &until).await.0, ["A"]);
    restored.person("C", "{}").await;
    assert_eq!(changes(&restored, "/people", &until).await.0, ["A", "C"]);
}

/// Random transactions of several sessions, and readers who go on from their last answer: after each answer a reader has
/// what is committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_readers_of_changes_have_what_is_committed_in_whatever_order() {
    const SESSIONS: usize = 4;
    const ROWS: usize = 8;
    let his = His::on_postgres().await;
    his.person("A", "{}").await;
    let mut dice = StdRng::seed_from_u64(crate::support::wanted("FEDGATE_TEST_SEED", 7));
    let mut sessions = vec![];
    for _ in 0..SESSIONS {
        sessions.push(session(&his).await);
    }
    // What is committed, what each open transaction will have committed, and what its savepoint keeps.
    type Rows = BTreeMap<usize, u64>;
    let mut committed = Rows::new();
    let mut open: Vec<Option<(Rows, Option<Rows>)>> = vec![None; SESSIONS];
    let (mut mirror, mut since, mut count) = (BTreeMap::<String, u64>::new(), FOREVER.to_owned(), 0_u64);
    for _ in 0..crate::support::wanted("FEDGATE_TEST_CHANGES", 2500) {
        let number = dice.random_range(0..SESSIONS);
        let (session, transaction) = (&sessions[number], &mut open[number]);
        let statement = match (transaction.take(), dice.random_range(0..10)) {
            (None, _) => {
                *transaction = Some((Rows::new(), None));
                "BEGIN".to_owned()
            }
            (Some((rows, _)), 0..2) => {
                committed.extend(rows);
                "COMMIT".to_owned()
            }
            (Some(_), 2) => "ROLLBACK".to_owned(),
            (Some((rows, None)), 3) => {
                *transaction = Some((rows.clone(), Some(rows)));
                "SAVEPOINT here".to_owned()
            }
            (Some((_, Some(kept))), 3) => {
                *transaction = Some((kept, None));
                "ROLLBACK TO here; RELEASE here".to_owned()
            }
            (Some((mut rows, kept)), _) => {
                // Each session has rows of its own, so that none waits for another.
                let row = number * ROWS + dice.random_range(0..ROWS);
                count += 1;
                rows.insert(row, count);
                *transaction = Some((rows, kept));
                format!(
                    "INSERT INTO pols (id, book, data) VALUES ('p{row}', 'A', '{{\"id\": \"p{row}\", \"count\": {count}}}')
                     ON CONFLICT (id) DO UPDATE SET data = excluded.data"
                )
            }
        };
        session.batch_execute(&statement).await.unwrap();
        if dice.random_range(0..3_usize) == 0 {
            let target = ["/pols/A", "/pols/A?limit=3"][dice.random_range(0..2_usize)];
            let (rows, until) = records(&his, target, &since).await;
            for row in rows {
                mirror.insert(row["id"].as_str().unwrap().to_owned(), row["count"].as_u64().unwrap());
            }
            let expected: BTreeMap<String, u64> =
                committed.iter().map(|(row, count)| (format!("p{row}"), *count)).collect();
            assert_eq!(mirror, expected, "since {since}");
            since = until;
        }
    }
    assert!(committed.len() > SESSIONS, "{committed:?}");
}

#[tokio::test]
async fn postgres_keeps_the_moment_of_readers_near_the_latest_stamp_without_any_reader() {
    let his = His::on_postgres().await;
    his.person("ANA", "{}").await;
    // So that a clock that is set back, or an earlier one of another server, hides no row from lists of changes.
    let is_near = "SELECT CAST(pg_sequence_last_value('fedgate_change_clock'::regclass) \
                   >= extract(epoch FROM max(fedgate_changed)) * 1000000 - 30000000 AS text) FROM people";
    assert_eq!(his.sql_text(is_near).await.as_deref(), Some("true"));
    let locks = "SELECT CAST(count(*) AS text) FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint >> 16 = x'6673'::bigint \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(his.sql_text(locks).await.as_deref(), Some("0"), "the lock of the sequence is given back");
}
