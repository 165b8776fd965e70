//! The relay: every accepted write leaves one message, and every reader finds each message it may see, once and in order.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fedgate_base::db::Database;
use serde_json::{Value, json};

use crate::support::{Actor, His, own, professional, root};

const PATIENCE: Duration = Duration::from_secs(30);

/// All messages after a position that a caller sees, read page by page.
async fn messages(his: &His, actor: &Actor, query: &str, after: u64, limit: usize) -> Vec<Value> {
    let (mut after, mut all) = (after, vec![]);
    loop {
        let reply = his.get(actor, &format!("/messages?after={after}&limit={limit}{query}")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let next = next_of(reply.header("link").unwrap());
        let page: Vec<Value> = serde_json::from_str(reply.text()).unwrap();
        assert!(page.len() <= limit);
        all.extend(page);
        if next == after {
            return all;
        }
        after = next;
    }
}

fn next_of(link: &str) -> u64 {
    let (target, _) = link.strip_prefix('<').unwrap().split_once(">; rel=\"next\"").unwrap();
    let place = target.rsplit_once("after=").unwrap().1;
    place.split_once('.').unwrap().0.parse().unwrap()
}

/// Waits until a caller sees so many messages after a position.
async fn awaited(his: &His, actor: &Actor, after: u64, count: usize) -> Vec<Value> {
    let began = Instant::now();
    loop {
        // A reader beyond the last position is refused, and here the position may only be on its way.
        let last = his.get(actor, "/messages?after=last").await;
        if next_of(last.header("link").unwrap()) < after {
            assert!(began.elapsed() < PATIENCE, "no position {after}");
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let all = messages(his, actor, "", after, 1000).await;
        if all.len() >= count {
            return all;
        }
        assert!(began.elapsed() < PATIENCE, "{count}: {all:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The members that a test compares.
fn short(message: &Value) -> Value {
    let member = |name: &str| message[name].clone();
    json!([member("resource"), member("person"), member("id"), member("method"), member("data")])
}

crate::on_both_stores! {
    async fn each_accepted_write_leaves_one_message_and_a_refused_one_leaves_none(his) {
        his.person("ANA", r#"{"name":"Ana","password":"secret of Ana","roles":["end_user"]}"#).await;
        assert_eq!(his.patch(&own("ANA"), "/people/ANA", r#"{"name":"Ana María"}"#).await.status, 200);
        his.page("ANA", "p1", r#"{"id":"p1","author":"Dr. B","summary":"s","n":1.50}"#).await;
        assert_eq!(his.patch(&professional(), "/pols/ANA/p1", r#"{"summary":null}"#).await.status, 200);
        assert_eq!(his.post(&root(), "/personal_docs/ANA/p1/d1", r#"{"document":"aGVsbG8=","data":{"k":"v"}}"#).await.status, 200);
        assert_eq!(his.post(&root(), "/institutions/i1", r#"{"name":"H"}"#).await.status, 200);
        // Refused or repeated: nothing is written.
        assert_eq!(his.post(&root(), "/institutions/i1", r#"{"name":"H"}"#).await.status, 200);
        assert_eq!(his.post(&root(), "/institutions/i1", r#"{"name":"other"}"#).await.status, 422);
        assert_eq!(his.post(&own("BOB"), "/pols/BOB/p9", r#"{"id":"p9"}"#).await.status, 404);
        assert_eq!(his.delete(&root(), "/pols/ANA/p1").await.status, 409);
        assert_eq!(his.delete(&root(), "/personal_docs/ANA/p1/d1").await.status, 200);
        assert_eq!(his.delete(&root(), "/pols/ANA/p1").await.status, 200);
        let all = awaited(&his, &root(), 0, 8).await;
        let found: Vec<Value> = all.iter().map(short).collect();
        let document = found[4][4].clone();
        let expected = vec![
            json!(["person", "ANA", "ANA", "POST", {"id": "ANA", "name": "Ana", "roles": ["end_user"]}]),
            json!(["person", "ANA", "ANA", "PATCH", {"name": "Ana María"}]),
            json!(["page", "ANA", "p1", "POST", {"id": "p1", "book": "ANA", "author": "Dr. B", "summary": "s", "n": 1.5}]),
            json!(["page", "ANA", "p1", "PATCH", {"summary": null}]),
            json!(["document", "ANA", "d1", "POST", document]),
            json!(["institution", null, "i1", "POST", {"id": "i1", "name": "H"}]),
            json!(["document", "ANA", "d1", "DELETE", null]),
            json!(["page", "ANA", "p1", "DELETE", null]),
        ];
        assert_eq!(found, expected);
        assert_eq!((&document["pol"], &document["bytes"]), (&json!("p1"), &json!(5)));
        let positions: Vec<u64> = all.iter().map(|message| message["position"].as_u64().unwrap()).collect();
        assert_eq!(positions, (1..=8).collect::<Vec<u64>>());
        let nodes: Vec<&Value> = all.iter().map(|message| &message["node"]).collect();
        let [adm, doc, ana] = [json!("ARGBUE111FAV"), json!("ITAPYT999HON"), json!("ANA")];
        assert_eq!(nodes, [&adm, &ana, &adm, &doc, &adm, &adm, &adm, &adm]);
        assert_eq!((&all[2]["author"], &all[0]["author"]), (&json!("Dr. B"), &Value::Null));
        assert!(!all.iter().any(|message| message.to_string().contains("argon2")), "no hash in a message");
    }

    async fn writes_past_the_service_leave_messages_too_and_its_failures_none(his) {
        his.sql("INSERT INTO people (id, data) VALUES ('EVE', '{\"name\":\"Eve\",\"password\":\"$2b$12$x\"}')").await;
        his.sql("UPDATE people SET data = '{\"name\":\"Eve\",\"age\":7}' WHERE id = 'EVE'").await;
        his.sql("INSERT INTO pols (id, book, data) VALUES ('e1', 'EVE', '{\"a\\\"b\":1}')").await;
        his.sql("UPDATE pols SET data = '{\"c\":2}' WHERE id = 'e1'").await;
        let rolled_back = match &his.database {
            Database::Postgres(pool) => {
                pool.get().await.unwrap().batch_execute("BEGIN; DELETE FROM pols; ROLLBACK").await.is_ok()
            }
            Database::Sqlite(sqlite) => {
                sqlite.write(|tx| { tx.execute_batch("DELETE FROM pols")?; Err::<(), _>(rusqlite::Error::InvalidQuery) }).await.is_err()
            }
        };
        assert!(rolled_back);
        his.sql("DELETE FROM pols").await;
        let found: Vec<Value> = awaited(&his, &root(), 0, 5).await.iter().map(short).collect();
        assert_eq!(found, [
            json!(["person", "EVE", "EVE", "POST", {"name": "Eve"}]),
            json!(["person", "EVE", "EVE", "PATCH", {"age": 7}]),
            json!(["page", "EVE", "e1", "POST", {"a\"b": 1}]),
            // A member is gone, which no patch can say.
            json!(["page", "EVE", "e1", "PUT", {"c": 2}]),
            json!(["page", "EVE", "e1", "DELETE", null]),
        ]);
    }

    async fn a_caller_with_the_scope_own_reads_the_messages_of_the_own_record_alone(his) {
        for person in ["ANA", "BOB"] {
            his.person(person, "{}").await;
            his.page(person, &format!("{person}1"), &format!(r#"{{"id":"{person}1"}}"#)).await;
        }
        his.post(&root(), "/institutions/i1", "{}").await;
        awaited(&his, &root(), 0, 5).await;
        let ids = |all: &[Value]| all.iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(ids(&messages(&his, &own("ANA"), "", 0, 1).await), ["ANA", "ANA1"]);
        assert_eq!(ids(&messages(&his, &own("BOB"), "&person=ANA", 0, 10).await), Vec::<String>::new());
        assert_eq!(ids(&messages(&his, &own("BOB"), "&resource=page", 0, 10).await), ["BOB1"]);
        assert_eq!(ids(&messages(&his, &root(), "&person=BOB", 0, 2).await), ["BOB", "BOB1"]);
        assert_eq!(ids(&messages(&his, &root(), "&resource=institution&node=ARGBUE111FAV&method=POST", 0, 2).await), ["i1"]);
        assert_eq!(ids(&messages(&his, &root(), "&node=NOBODY", 0, 2).await), Vec::<String>::new());
    }

    async fn a_reader_beyond_the_last_message_is_refused(his) {
        for query in ["after=x", "after=-1", "after=+1", "limit=0", "limit=1001", "wait=61", "resource=x", "method=GET", "persn=ANA", "after=0&after=1"] {
            let error = his.get(&root(), &format!("/messages?{query}")).await.error();
            assert_eq!((error.0, error.2), (400, "bad_query".to_owned()), "{query}");
        }
        let error = his.get(&root(), "/messages?after=7").await.error();
        assert_eq!((error.0, error.2), (409, "position_unknown".to_owned()));
        assert!(error.1.ends_with("the last one is 0"), "{}", error.1);
        let empty = his.get(&root(), "/messages").await;
        assert_eq!((empty.text(), next_of(empty.header("link").unwrap())), ("[]", 0));
    }

    async fn a_reader_that_comes_too_late_learns_where_the_messages_begin(his) {
        for unit in ["i1", "i2", "i3"] {
            his.post(&root(), &format!("/institutions/{unit}"), "{}").await;
        }
        awaited(&his, &root(), 0, 3).await;
        let drop = match &his.database {
            Database::Postgres(_) => "UPDATE fedgate_relay SET first = 3; DELETE FROM fedgate_positions WHERE position < 3",
            Database::Sqlite(_) => "DELETE FROM fedgate_messages WHERE position < 3",
        };
        his.sql(drop).await;
        for after in [0, 1] {
            let error = his.get(&root(), &format!("/messages?after={after}")).await.error();
            assert_eq!((error.0, error.2), (410, "messages_gone".to_owned()), "{after}");
            assert!(error.1.ends_with("the first one that is left is 3"), "{}", error.1);
        }
        assert_eq!(messages(&his, &root(), "", 2, 10).await.len(), 1);
        let first = his.get(&root(), "/messages?after=first").await;
        assert_eq!((first.json()[0]["position"].as_u64(), next_of(first.header("link").unwrap())), (Some(3), 3));
    }

    async fn a_long_poll_is_answered_when_a_message_comes_and_empty_when_none_does(his) {
        his.person("ANA", "{}").await;
        awaited(&his, &root(), 0, 1).await;
        let reader = root();
        let (answer, ()) = tokio::join!(his.get(&reader, "/messages?after=1&wait=30"), async {
            // Whether the question or the write comes first, the answer is the same.
            his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
        });
        let page: Vec<Value> = serde_json::from_str(answer.text()).unwrap();
        assert_eq!((page.len(), &page[0]["id"]), (1, &json!("p1")));
        assert_eq!(his.get(&reader, "/messages?after=2&wait=1").await.text(), "[]");
    }

    async fn messages_are_written_as_lines_and_as_cloud_events_too(his) {
        his.person("ANA", "{}").await;
        his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
        awaited(&his, &root(), 0, 2).await;
        let accepting = async |kind: &str| {
            let reply = his.request(&root(), "GET", "/messages").header("accept", kind).send().await;
            (reply.header("content-type").unwrap().to_owned(), reply.text().to_owned())
        };
        let (kind, lines) = accepting("application/x-ndjson").await;
        let ids: Vec<Value> = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone()).collect();
        assert_eq!((kind.as_str(), ids), ("application/x-ndjson", vec![json!("ANA"), json!("p1")]));
        let (kind, batch) = accepting("text/html, application/cloudevents-batch+json;q=0.9").await;
        let batch: Vec<Value> = serde_json::from_str(&batch).unwrap();
        assert_eq!(kind, "application/cloudevents-batch+json");
        for (event, position) in batch.iter().zip(1..) {
            assert_eq!((&event["specversion"], &event["id"]), (&json!("1.0"), &json!(format!("{position}.1"))));
            assert_eq!(event["data"]["position"], json!(position));
            assert!(["source", "type", "datacontenttype"].iter().all(|name| event[*name].is_string()));
        }
    }

    async fn a_reset_reaches_every_reader_whatever_the_scope_and_the_filter(his) {
        his.person("ANA", "{}").await;
        his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
        let (all, of_units) = match &his.database {
            Database::Postgres(_) => (
                "SELECT fedgate_append('all', NULL, NULL, 'RESET', NULL, NULL)",
                "SELECT fedgate_append('institution', NULL, NULL, 'RESET', NULL, NULL)",
            ),
            Database::Sqlite(_) => (
                "INSERT INTO fedgate_messages (resource, method, addressee) VALUES ('all', 'RESET', 'all')",
                "INSERT INTO fedgate_messages (resource, method, addressee) VALUES ('institution', 'RESET', 'all')",
            ),
        };
        his.sql(all).await;
        his.sql(of_units).await;
        awaited(&his, &root(), 0, 4).await;
        for (reader, filter, expected) in [
            (root(), "", "1 2 3 4"),
            (own("BOB"), "", "3 4"),
            (own("ANA"), "&resource=page", "2 3"),
            (root(), "&resource=institution", "3 4"),
            (root(), "&person=BOB", "3 4"),
            (root(), "&person=ANA&method=POST", "1 2 3 4"),
            (root(), "&node=LAB&resource=message", "3"),
        ] {
            let found = messages(&his, &reader, filter, 0, 1).await;
            let positions: Vec<String> = found.iter().map(|message| message["position"].to_string()).collect();
            assert_eq!(positions.join(" "), expected, "{filter}");
            assert!(found.iter().all(|message| message.get("to").is_none()), "{found:?}");
        }
    }

    async fn long_messages_are_read_whole_and_in_order(his) {
        his.person("ANA", "{}").await;
        for n in 0..4 {
            let text = "x".repeat(if n == 2 { 900_000 } else { 150_000 });
            his.page("ANA", &format!("p{n}"), &format!(r#"{{"id":"p{n}","text":"{text}"}}"#)).await;
        }
        let all = awaited(&his, &root(), 1, 4).await;
        let lengths: Vec<usize> = all.iter().map(|message| message["data"]["text"].as_str().unwrap().len()).collect();
        assert_eq!(lengths, [150_000, 150_000, 900_000, 150_000]);
    }
}

/// A transaction that was the newest of all when positions were given, and goes on for longer than others. Its number
/// must not count as decided.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_transaction_gets_its_positions_however_many_were_given_meanwhile() {
    let his = His::on_postgres().await;
    his.person("ANA", "{}").await;
    awaited(&his, &root(), 0, 1).await;
    let Database::Postgres(pool) = &his.database else { panic!() };
    let insert = |id: &str| format!("INSERT INTO pols (id, book, data) VALUES ('{id}', 'ANA', '{{}}')");
    let long = pool.get().await.unwrap();
    long.batch_execute(&format!("BEGIN; {}", insert("long"))).await.unwrap();
    for n in 0..5 {
        his.sql(&insert(&format!("p{n}"))).await;
        // Its position is given before the next one is written.
        awaited(&his, &root(), 1 + n, 1).await;
    }
    long.batch_execute("COMMIT").await.unwrap();
    let all = awaited(&his, &root(), 0, 7).await;
    assert_eq!((all.len(), &all[6]["id"]), (7, &json!("long")));
    let decided = "SELECT (decided > 0)::text FROM fedgate_relay";
    for n in 5..9 {
        his.sql(&insert(&format!("p{n}"))).await;
        awaited(&his, &root(), 2 + n, 1).await;
    }
    assert_eq!(his.sql_text(decided).await.as_deref(), Some("true"), "the search does not begin at the first number");
}

/// What a dropped million has left elsewhere may be much, and is deleted apart: a drop locks out all writers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_messages_are_dropped_however_long_their_traces_take_to_delete() {
    let his = His::on_postgres().await;
    his.post(&root(), "/messages", r#"{"id":"m","to":"all"}"#).await;
    his.person("ANA", "{}").await;
    awaited(&his, &root(), 0, 2).await;
    // As if a million more had come.
    his.sql("UPDATE fedgate_relay SET position = 1000005, decided = 1000000").await;
    let Database::Postgres(pool) = &his.database else { panic!() };
    let blocker = pool.get().await.unwrap();
    blocker.batch_execute("BEGIN; UPDATE fedgate_sent SET id = id").await.unwrap();
    assert!(his.store.drop_messages(None, Some(5)).await.unwrap());
    assert_eq!(his.sql_text("SELECT first::text FROM fedgate_relay").await.as_deref(), Some("1000000"));
    let traces = tokio::spawn({
        let store = his.store.clone();
        async move { store.drop_messages(None, Some(5)).await }
    });
    his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
    assert_eq!(his.sql_text("SELECT count(*)::text FROM fedgate_sent").await.as_deref(), Some("1"));
    blocker.batch_execute("COMMIT").await.unwrap();
    let _ = traces.await.unwrap();
    while his.store.drop_messages(None, Some(5)).await.unwrap() {}
    assert_eq!(his.sql_text("SELECT count(*)::text FROM fedgate_sent").await.as_deref(), Some("0"));
}

/// A session plans its statements while few messages wait, and an import then leaves very many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_cost_no_more_each_than_few_however_the_call_was_planned() {
    let his = His::on_postgres().await;
    let Database::Postgres(pool) = &his.database else { panic!() };
    let session = pool.get().await.unwrap();
    let insert = async |from: usize, upto: usize| {
        let insert = "INSERT INTO dus (id, data) SELECT 'U' || n, '{}' FROM generate_series";
        session.batch_execute(&format!("{insert}({from}, {upto}) n")).await.unwrap();
    };
    // In a transaction no other session sees the messages, and this one counts the rows that it has read.
    session.batch_execute("BEGIN").await.unwrap();
    let give = session.prepare_cached("SELECT given FROM fedgate_give_positions(1000)").await.unwrap();
    for n in 0..10 {
        insert(n, n).await;
        assert_eq!(session.query_one(&give, &[]).await.unwrap().get::<_, i64>(0), 1);
    }
    let read = "SELECT coalesce(sum(pg_stat_get_xact_tuples_returned(indexrelid)), 0)::bigint FROM pg_stat_user_indexes \
                WHERE relname = 'fedgate_waiting'";
    let before: i64 = session.query_one(read, &[]).await.unwrap().get(0);
    insert(10, 9_009).await;
    for _ in 0..9 {
        assert_eq!(session.query_one(&give, &[]).await.unwrap().get::<_, i64>(0), 1000);
    }
    let after: i64 = session.query_one(read, &[]).await.unwrap().get(0);
    assert!(after - before < 20 * 9_000, "{} rows of the index were read", after - before);
    session.batch_execute("COMMIT").await.unwrap();
    assert_eq!(messages(&his, &root(), "", 0, 1000).await.len(), 9_010);
}

/// Writers of many kinds at once, each with its own rows, some of which are rolled back. Readers follow from the
/// beginning meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_lose_double_and_reorder_nothing() {
    let his = std::sync::Arc::new(His::on_postgres().await);
    for person in 0..4 {
        his.person(&format!("P{person}"), r#"{"n":0}"#).await;
    }
    awaited(&his, &root(), 0, 4).await;
    let Database::Postgres(pool) = his.database.clone() else { panic!() };
    let writers = (0..4).map(|writer| {
        let pool = pool.clone();
        tokio::spawn(async move {
            for n in 1..=40 {
                let session = pool.get().await.unwrap();
                // The same row is written by all writers. A transaction holds it for a while after it has its number.
                let (pause, end) = (n % 7, if n % 5 == 0 { "ROLLBACK" } else { "COMMIT" });
                let id = format!("{writer}-{n}");
                session
                    .batch_execute(&format!(
                        "BEGIN; INSERT INTO pols (id, book, data) VALUES ('{id}', 'P{}', '{{}}'); \
                         UPDATE people SET data = jsonb_build_object('n', (data ->> 'n')::int + 1) WHERE id = 'P{}'; \
                         SELECT pg_sleep({pause} * 0.001); {end}",
                        n % 4,
                        (n + writer) % 4
                    ))
                    .await
                    .unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut following = vec![];
    let mut after = 4;
    let began = Instant::now();
    while following.len() < 4 * 32 * 2 {
        assert!(began.elapsed() < PATIENCE, "{} of {}", following.len(), 4 * 32 * 2);
        let reply = his.get(&root(), &format!("/messages?after={after}&limit=7&wait=1")).await;
        let page: Vec<Value> = serde_json::from_str(reply.text()).unwrap();
        let next = next_of(reply.header("link").unwrap());
        assert_eq!(next, page.last().map_or(after, |message| message["position"].as_u64().unwrap()));
        after = next;
        following.extend(page);
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(messages(&his, &root(), "", 4, 1000).await, following, "who follows and who comes later read the same");
    // Dense, once each, and the counter of each person only grows.
    let mut counters: HashMap<String, i64> = HashMap::new();
    let mut pages: Vec<String> = vec![];
    for (message, position) in following.iter().zip(5u64..) {
        assert_eq!(message["position"], json!(position));
        match message["resource"].as_str() {
            Some("person") => {
                let before = counters.entry(message["person"].as_str().unwrap().to_owned()).or_default();
                let now = message["data"]["n"].as_i64().unwrap();
                assert_eq!(now, *before + 1, "{message}");
                *before = now;
            }
            _ => pages.push(message["id"].as_str().unwrap().to_owned()),
        }
    }
    pages.sort();
    pages.dedup();
    assert_eq!((pages.len(), counters.values().sum::<i64>()), (4 * 32, 4 * 32));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_that_anybody_may_send_is_no_position() {
    let his = His::on_postgres().await;
    his.person("ANA", "{}").await;
    awaited(&his, &root(), 0, 1).await;
    let commits = "SELECT (xact_commit + xact_rollback)::text FROM pg_stat_database WHERE datname = current_database()";
    let count = async || {
        // A session tells the server what it has done when it has been idle for a moment.
        tokio::time::sleep(Duration::from_secs(2)).await;
        his.sql_text(commits).await.unwrap().parse::<i64>().unwrap()
    };
    let before = count().await;
    his.sql("NOTIFY fedgate_messages, '9223372036854775806'").await;
    assert_eq!(his.get(&root(), "/messages?after=1&wait=2").await.text(), "[]");
    let commits = count().await - before;
    assert!(commits < 2000, "{commits} transactions: the reader asks again and again");
}
