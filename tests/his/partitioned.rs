//! What holds for pages and documents in partitions as it does for one table, and what is refused.

use std::time::{Duration, Instant};

use fedgate_base::config::PostgresConfig;
use fedgate_base::db::schema;
use serde_json::json;

use crate::his::merges::{merge, unmerge};
use crate::his::partitions::{PATIENCE, Stage};
use crate::his::program::{configuration, fedhis};
use crate::support::postgres::Cluster;
use crate::support::{His, Scratch, own, professional};

async fn partitioned() -> Stage {
    let stage = Stage::new().await;
    stage.quiet_persons().await;
    stage.moves("5").await;
    stage
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_ids_unique_over_all_partitions_and_moves_a_row_with_its_book() {
    let stage = partitioned().await;
    let (his, session) = (&stage.his, stage.session().await);
    for at in 0..5 {
        // In whichever partition the book is.
        let (same, other) = (json!({ "id": "q0-1", "n": 3, "author": "A" }), json!({ "id": "q0-1", "n": 9 }));
        let is_owner = at == 0;
        let reply = his.post(&professional(), &format!("/pols/Q{at}/q0-1"), same.to_string()).await;
        assert_eq!(reply.status, if is_owner { 200 } else { 422 }, "{}", reply.text());
        let reply = his.post(&professional(), &format!("/pols/Q{at}/q0-1"), other.to_string()).await;
        assert_eq!(reply.status, 422, "{}", reply.text());
        let document =
            his.post(&professional(), &format!("/personal_docs/Q{at}/q{at}-1/doc0"), r#"{"document":"YQ=="}"#).await;
        assert_eq!(document.status, 422, "{}", document.text());
        let added = format!("INSERT INTO pols (id, book, data) VALUES ('q0-1', 'Q{at}', '{{}}')");
        let code = session.batch_execute(&added).await.unwrap_err().code().unwrap().code().to_owned();
        assert_eq!(code, "23505");
        let added = format!("INSERT INTO personal_docs (id, fedacct, pol) VALUES ('doc0', 'Q{at}', 'q{at}-1')");
        assert_eq!(session.batch_execute(&added).await.unwrap_err().code().unwrap().code(), "23505");
    }
    // Two who give one id in two books at once.
    let asked = (0..6).map(|at| async move {
        let body = json!({ "id": "race", "at": at }).to_string();
        his.post(&professional(), &format!("/pols/Q{at}/race"), body).await.status
    });
    let mut answers = futures_util::future::join_all(asked).await;
    answers.sort_unstable();
    assert_eq!(answers, [200, 422, 422, 422, 422, 422]);
    assert_eq!(stage.text("SELECT count(*)::text FROM pols WHERE id = 'race'").await, "1");
    // A foreign key leads to the ids: a page with documents stays, and a document needs a page.
    assert_eq!(his.delete(&professional(), "/pols/Q0/q0-3").await.error().2, "page_in_use");
    for wrong in [
        "INSERT INTO personal_docs (id, fedacct, pol) VALUES ('none', 'Q0', 'missing')",
        "INSERT INTO pols (id, book) VALUES ('none', 'NOBODY')",
        "DELETE FROM pols WHERE id = 'q0-3'",
        "DELETE FROM people WHERE id = 'Q0'",
    ] {
        assert_eq!(session.batch_execute(wrong).await.unwrap_err().code().unwrap().code(), "23503", "{wrong}");
    }
    // As with one table, a row that gets another book has left it, and has come to the other one: two messages.
    let last = "SELECT max(entry) FROM fedgate_messages";
    let last = stage.text(&format!("SELECT ({last})::text")).await;
    for book in ["Q1", "Q2", "Q3", "Q4", "Q5"] {
        session.batch_execute(&format!("UPDATE pols SET book = '{book}' WHERE id = 'q0-3'")).await.unwrap();
        assert_eq!(stage.text("SELECT book || tableoid::regclass FROM pols WHERE id = 'q0-3'").await[..2], *book);
        assert_eq!(stage.text("SELECT book FROM fedgate_page_ids WHERE id = 'q0-3'").await, book);
        assert_eq!(his.get(&professional(), &format!("/pols/{book}/q0-3")).await.status, 200);
    }
    let told = format!(
        "SELECT string_agg(method || ' ' || person, ', ' ORDER BY entry) FROM fedgate_messages WHERE entry > {last}"
    );
    assert_eq!(
        stage.text(&told).await,
        "DELETE Q0, POST Q1, DELETE Q1, POST Q2, DELETE Q2, POST Q3, DELETE Q3, POST Q4, DELETE Q4, POST Q5"
    );
    session.batch_execute("UPDATE pols SET id = 'renamed' WHERE id = 'q1-5'").await.unwrap();
    let ids = "SELECT (SELECT count(*) FROM pols) || ' ' || count(*) FROM fedgate_page_ids JOIN pols USING (id, book)";
    assert_eq!(stage.text(ids).await, "121 121");
    let taken = session.batch_execute("UPDATE pols SET id = 'renamed' WHERE id = 'q2-5'").await.unwrap_err();
    assert_eq!(taken.code().unwrap().code(), "23505");
    session.batch_execute("TRUNCATE personal_docs; TRUNCATE pols").await.unwrap();
    assert_eq!(stage.text("SELECT count(*)::text FROM fedgate_page_ids, fedgate_document_ids").await, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_reads_and_writes_one_partition_for_one_person() {
    let cluster = Cluster::shared();
    let stage = partitioned().await;
    stage.his.sql("ANALYZE pols; ANALYZE personal_docs").await;
    for plans_are in ["force_generic_plan", "force_custom_plan"] {
        let options = format!(
            "-c session_preload_libraries=auto_explain -c auto_explain.log_min_duration=0 -c auto_explain.log_analyze=on \
             -c plan_cache_mode={plans_are}"
        );
        let uri = format!("{} options='{options}'", stage.config.uri);
        let his = His::on(PostgresConfig { uri, ..stage.config.clone() }).await;
        let patch = json!({ "n": 7 }).to_string();
        for (method, target, body) in [
            ("GET", "/pols/Q2/q2-7", ""),
            ("GET", "/pols/Q2", ""),
            ("GET", "/pols/Q2?limit=5", ""),
            ("PATCH", "/pols/Q2/q2-7", &patch),
            ("GET", "/personal_docs/Q2/q2-3/doc2", ""),
            ("GET", "/personal_docs/Q2/q2-3", ""),
            ("DELETE", "/pols/Q2/q2-7", ""),
            ("POST", "/pols/Q2/q2-7", r#"{"id":"q2-7"}"#),
        ] {
            let from = cluster.log().len();
            let request = his.request(&professional(), method, target);
            let reply = if body.is_empty() { request } else { request.body(body) }.send().await;
            assert_eq!(reply.status, 200, "{target} {}", reply.text());
            let (plans, read) = partitions_read(cluster, from);
            assert!(
                plans > 0 && read == plans || method == "POST" && read == 0,
                "{plans_are} {method} {target}: {plans} {read}"
            );
        }
    }
}

/// How many plans since `from` have partitions, and how many partitions these read.
fn partitions_read(cluster: &Cluster, from: usize) -> (usize, usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = cluster.log();
        let scans = |plan: &str| {
            let is_scan =
                |line: &&str| line.contains(" on fedgate_pols_5_") || line.contains(" on fedgate_personal_docs_5_");
            let lines: Vec<&str> = plan.lines().filter(|line| line.contains("Scan")).filter(is_scan).collect();
            (lines.len(), lines.iter().filter(|line| !line.contains("never executed")).count())
        };
        let entries = log[from..].split("LOG:  duration: ").skip(1);
        // Not those of the triggers, which look up ids.
        let plans = entries.filter(|entry| entry.contains("plan:\n")).map(scans).filter(|(all, _)| *all > 0);
        let (count, read) = plans.fold((0, 0), |(count, sum), (_, read)| (count + 1, sum + read));
        if count > 0 || Instant::now() > deadline || log[from..].contains("INSERT INTO pols") {
            return (count, read);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_shows_merged_books_from_two_partitions() {
    let stage = partitioned().await;
    let his = &stage.his;
    let number = merge(his, "Q1", "Q2").await;
    let ids = |reply: crate::support::Reply| {
        let pages = reply.json();
        pages.as_array().unwrap().iter().map(|page| page[0]["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let both = ids(his.get(&professional(), "/pols/Q2").await);
    assert_eq!(both.len(), 40);
    assert!(both.is_sorted());
    assert_eq!(ids(his.get(&professional(), "/pols/Q2?limit=25").await), both[..25]);
    for (person, page) in [("Q1", "q2-4"), ("Q2", "q1-4"), ("Q1", "q1-6"), ("Q2", "q2-6")] {
        let (target, read) = (format!("/pols/{person}/{page}"), format!("/pols/Q2/{page}"));
        assert_eq!(his.get(&professional(), &read).await.json()["id"], page);
        assert_eq!(his.patch(&professional(), &target, r#"{"n":-1}"#).await.status, 200);
        assert_eq!(his.get(&professional(), &read).await.json()["n"], -1);
        let document = format!("/personal_docs/{person}/{page}/of-{page}");
        assert_eq!(his.post(&professional(), &document, r#"{"document":"YQ=="}"#).await.status, 200);
        assert_eq!(his.get(&professional(), &format!("/personal_docs/Q2/{page}/of-{page}")).await.body, b"a");
        assert_eq!(his.delete(&professional(), &document).await.status, 200);
        assert_eq!(his.delete(&professional(), &target).await.status, 200);
        assert_eq!(his.get(&professional(), &read).await.status, 404);
    }
    assert_eq!(his.get(&professional(), "/pols/Q3/q2-8").await.status, 404, "of somebody else");
    assert_eq!(his.get(&own("Q2"), "/pols/Q2/q3-8").await.status, 404);
    assert_eq!(unmerge(his, number).await.status, 200);
    assert_eq!(his.get(&professional(), "/pols/Q1/q2-8").await.status, 404, "no longer");
    assert_eq!(ids(his.get(&professional(), "/pols/Q1").await).len(), 18);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_mends_what_was_dropped_of_partitioned_tables_and_restores_a_dump_of_them() {
    let stage = partitioned().await;
    let before = stage.seen().await;
    let made = "SELECT count(*)::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        WHERE indisvalid AND relname ~ '^fedgate_(pols|personal_docs)_(book|fedacct|pol|5_[0-4]_(book|fedacct|pol))$'";
    assert_eq!(stage.text(made).await, "18");
    let indexes = "DROP INDEX fedgate_pols_book; DROP INDEX fedgate_personal_docs_pol";
    for (dropped, words) in [
        (indexes, ""),
        (
            "DROP TRIGGER fedgate_id_kept ON pols; DELETE FROM fedgate_page_ids WHERE id = 'q4-4'",
            "trigger `fedgate_id_kept` of `pols`",
        ),
        ("DROP TABLE fedgate_document_ids", "table `fedgate_document_ids`"),
        ("DROP TRIGGER fedgate_message ON pols", "trigger `fedgate_message` of `pols`"),
    ] {
        stage.his.sql(dropped).await;
        let missing = format!("{:?}", schema::missing_objects(&stage.his.database).await.unwrap());
        assert!(missing.contains(words), "{dropped}: {missing}");
        let unbuilt = schema::unbuilt_indexes(&stage.his.database).await.unwrap();
        assert_eq!(unbuilt.is_some(), dropped == indexes);
        schema::migrate(&stage.his.database).await.unwrap();
        assert_eq!(schema::missing_objects(&stage.his.database).await.unwrap(), None);
        assert_eq!(schema::unbuilt_indexes(&stage.his.database).await.unwrap(), None);
    }
    assert_eq!(stage.text(made).await, "18");
    let ids = "SELECT (SELECT count(*) FROM fedgate_page_ids) || ' ' || count(*) FROM fedgate_document_ids";
    assert_eq!(stage.text(ids).await, "120 6");
    assert_eq!(stage.seen().await, before);
    let restored = His::on(Cluster::shared().dumped_and_restored(&stage.config)).await;
    assert_eq!(schema::missing_objects(&restored.database).await.unwrap(), None);
    let list = |his| async move { His::get(his, &professional(), "/pols/Q3").await.text().to_owned() };
    assert_eq!(list(&restored).await, list(&stage.his).await);
    assert_eq!(restored.post(&professional(), "/pols/Q1/q0-1", r#"{"id":"q0-1"}"#).await.status, 422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_move_would_lose_is_named_and_nothing_is_done() {
    let scratch = Scratch::new();
    let told = |out: &std::process::Output| String::from_utf8_lossy(&out.stderr).into_owned();
    let sqlite = fedhis(&["migrate", "--partition", "4"], &configuration(&scratch.0));
    assert!(sqlite.status.code() == Some(2) && told(&sqlite).contains("which has no partitions"), "{}", told(&sqlite));
    let stage = Stage::new().await;
    stage.quiet_persons().await;
    for count in ["1", "129", "70000", "-1", "many"] {
        let out = fedhis(&["migrate", &format!("--partition={count}")], &stage.file);
        assert_eq!(out.status.code(), Some(2), "{count}: {}", told(&out));
    }
    for (added, words, dropped) in [
        ("CREATE VIEW seen AS SELECT id FROM pols", "`seen` reads it; drop it", "DROP VIEW seen"),
        (
            "CREATE INDEX mine ON pols ((data ->> 'author'))",
            "the index `mine` is not one of fedgate",
            "DROP INDEX mine",
        ),
        ("CREATE TABLE mine (page varchar REFERENCES pols (id))", "of `mine` refers to it", "DROP TABLE mine"),
        ("CREATE PUBLICATION mine FOR TABLE pols", "the publication `mine` sends it", "DROP PUBLICATION mine"),
        ("INSERT INTO pols (id) VALUES ('lost')", "1 of its rows have no `book`", "DELETE FROM pols WHERE id = 'lost'"),
        (
            "ALTER TABLE pols ENABLE ROW LEVEL SECURITY",
            "row level security",
            "ALTER TABLE pols DISABLE ROW LEVEL SECURITY",
        ),
        ("CREATE TABLE mine () INHERITS (pols)", "`mine` inherits from it", "DROP TABLE mine"),
        (
            "CREATE FUNCTION mine(pols) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "the function `mine(pols)` depends",
            "DROP FUNCTION mine",
        ),
    ] {
        stage.his.sql(added).await;
        let out = fedhis(&["migrate", "--partition", "4"], &stage.file);
        assert!(out.status.code() == Some(2) && told(&out).contains(words), "{added}: {}", told(&out));
        stage.his.sql(dropped).await;
    }
    let begun = "SELECT count(*)::text FROM pg_class WHERE relname ~ 'fedgate_pols_(new|old|[0-9])'";
    assert_eq!(stage.text(begun).await, "0");
    // Rights, also of columns, triggers, comments, options and further columns come along.
    stage
        .his
        .sql(
            "DROP ROLE IF EXISTS moved_reader; CREATE ROLE moved_reader; GRANT SELECT ON pols TO moved_reader WITH GRANT OPTION;
             GRANT UPDATE (data) ON pols TO moved_reader; COMMENT ON TABLE pols IS 'It''s a book';
             ALTER TABLE pols ADD COLUMN further bigint DEFAULT 7, SET (fillfactor = 90), ADD CHECK (further < 9);
             CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.further = 8; RETURN NEW; END';
             CREATE TRIGGER mine BEFORE UPDATE ON pols FOR EACH ROW EXECUTE FUNCTION mine()",
        )
        .await;
    let has = "SELECT obj_description('pols'::regclass, 'pg_class') || has_table_privilege('moved_reader', 'pols', 'SELECT WITH GRANT OPTION')
        || has_column_privilege('moved_reader', 'pols', 'data', 'UPDATE') || has_column_privilege('moved_reader', 'pols', 'id', 'UPDATE')
        || (SELECT sum(further) FROM pols) || (SELECT count(*) FROM pg_trigger WHERE tgname = 'mine' AND tgrelid = 'pols'::regclass)
        || (SELECT max(reloptions::text) FROM pg_class WHERE relname ~ '^pols$|^fedgate_pols_2_')
        || (SELECT count(*) FROM pg_constraint WHERE contype = 'c' AND conrelid = 'pols'::regclass)";
    let had = stage.text(has).await;
    assert!(had.starts_with("It's a booktruetruefalse8401{fillfactor=90}") || had.starts_with("It's a book"), "{had}");
    for count in ["2", "0"] {
        stage.moves(count).await;
        assert_eq!(stage.text(has).await, had, "{count}");
    }
    stage.his.sql("DROP OWNED BY moved_reader; DROP ROLE moved_reader").await;
}
