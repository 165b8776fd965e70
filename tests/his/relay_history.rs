//! The history of messages: after a failover that lost messages, or a restore, no reader goes on as if nothing had happened.

use std::time::{Duration, Instant};

use fedgate_base::config::{SqliteConfig, StoreConfig};

use crate::support::{Actor, His, Scratch, root};

const PATIENCE: Duration = Duration::from_secs(30);

/// The place that an answer names as the next, and the number of its messages; or status and code.
async fn read(his: &His, actor: &Actor, after: &str) -> Result<(String, usize), (u16, String)> {
    let reply = his.get(actor, &format!("/messages?after={after}")).await;
    match reply.status {
        200 => {
            let (target, _) = reply.header("link").unwrap().split_once(">; rel=\"next\"").unwrap();
            let place = target.rsplit_once("after=").unwrap().1.to_owned();
            Ok((place, reply.json().as_array().unwrap().len()))
        }
        status => Err((status, reply.error().2)),
    }
}

async fn read_all(his: &His, last: &str) {
    let began = Instant::now();
    while read(his, &root(), "0").await.is_ok_and(|(place, _)| place != last) {
        assert!(began.elapsed() < PATIENCE, "{:?}", read(his, &root(), "0").await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The standby that is promoted has another timeline, and lacks the last two messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_saw_what_a_failover_has_lost_begins_anew_and_others_go_on() {
    let his = His::on_postgres().await;
    his.person("ANA", "{}").await;
    for page in ["p1", "p2"] {
        his.page("ANA", page, &format!(r#"{{"id":"{page}"}}"#)).await;
    }
    read_all(&his, "3.1").await;
    let put = async |position: serde_json::Value| {
        let reply = his.request(&root(), "PUT", "/messages/cursors/c");
        let reply = reply.body(serde_json::json!({ "position": position }).to_string()).send().await;
        if reply.status < 300 { (reply.status, String::new()) } else { (reply.status, reply.error().2) }
    };
    assert_eq!(put("3.1".into()).await.0, 201);
    his.sql(
        "UPDATE fedgate_relay SET position = 1, server = 'the former primary'; DELETE FROM fedgate_positions WHERE position > 1; \
         DELETE FROM fedgate_messages WHERE entry > 1",
    )
    .await;
    for page in ["p3", "p4", "p5"] {
        his.page("ANA", page, &format!(r#"{{"id":"{page}"}}"#)).await;
    }
    read_all(&his, "4.2").await;
    let lost = Err((409, "position_unknown".to_owned()));
    assert_eq!(read(&his, &root(), "3.1").await, lost, "its messages 2 and 3 are others now");
    assert_eq!(read(&his, &root(), "2.1").await, lost);
    assert_eq!(read(&his, &root(), "1.1").await, Ok(("4.2".to_owned(), 3)));
    assert_eq!(read(&his, &root(), "3.2").await, Ok(("4.2".to_owned(), 1)));
    assert_eq!(read(&his, &root(), "4.3").await, lost, "a history that has not begun");
    assert_eq!(read(&his, &root(), "3").await, Ok(("4.2".to_owned(), 1)), "a position alone is not checked");
    // A cursor has the history in which it was moved, and goes back only if the hub has lost what it saw.
    assert_eq!(his.get(&root(), "/messages?cursor=c").await.error().2, "position_unknown");
    assert_eq!(put("3.1".into()).await, (409, "position_unknown".to_owned()));
    assert_eq!((put(2.into()).await.0, put("1.1".into()).await), (200, (409, "cursor_ahead".to_owned())));
    assert_eq!(his.get(&root(), "/messages?cursor=c").await.json().as_array().unwrap().len(), 2);
    // An event is called after the history in which its position was given.
    let events =
        his.request(&root(), "GET", "/messages?after=0").header("accept", "application/cloudevents-batch+json");
    let events = events.send().await.json();
    assert_eq!((&events[0]["id"], &events[1]["id"], &events[3]["id"]), (&"1.1".into(), &"2.2".into(), &"4.2".into()));
    // A synchronous standby lacks nothing: every reader goes on.
    his.sql("UPDATE fedgate_relay SET server = 'another one'").await;
    his.page("ANA", "p6", r#"{"id":"p6"}"#).await;
    read_all(&his, "5.3").await;
    assert_eq!(read(&his, &root(), "4.2").await, Ok(("5.3".to_owned(), 1)));
    assert_eq!(read(&his, &root(), "3.1").await, lost, "what was lost once stays lost");
    his.sql("SELECT fedgate_begin_history()").await;
    assert_eq!(read(&his, &root(), "5.3").await, Ok(("5.4".to_owned(), 0)));
}

/// A dump carries the id of a transaction, which another cluster reaches in years or never.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restore_on_another_server_old_messages_can_be_deleted() {
    let his = His::on_postgres().await;
    his.person("ANA", "{}").await;
    read_all(&his, "1.1").await;
    his.sql("UPDATE fedgate_relay SET server = 'the dumped one', next_id = '2000000000', decided = 0").await;
    let (began, mut page) = (Instant::now(), 0);
    while his.sql_text("SELECT (decided > 0)::text FROM fedgate_relay").await.as_deref() != Some("true") {
        assert!(began.elapsed() < PATIENCE, "no message counts as decided");
        page += 1;
        his.page("ANA", &format!("p{page}"), &format!(r#"{{"id":"p{page}"}}"#)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_start_on_an_embedded_store_begins_a_history_and_a_reader_notices_only_what_is_lost() {
    let his = His::on_sqlite().await;
    his.store.take_history().await.unwrap();
    his.person("ANA", "{}").await;
    read_all(&his, "1.1").await;
    let StoreConfig::Sqlite(config) = &his.config else { panic!() };
    let copy = his.scratch.0.join("copy.db");
    let plain = rusqlite::Connection::open(&config.path).unwrap();
    plain.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    his.person("BOB", "{}").await;
    read_all(&his, "2.1").await;
    // A restart takes nothing from anybody.
    his.store.take_history().await.unwrap();
    assert_eq!(read(&his, &root(), "2.1").await, Ok(("2.2".to_owned(), 0)));
    his.person("EVA", "{}").await;
    read_all(&his, "3.2").await;
    // The copy lacks BOB and EVA, and its service gives their positions to others.
    let config = SqliteConfig { path: copy, lock_timeout: config.lock_timeout };
    let restored = His::start(StoreConfig::Sqlite(config), Scratch::new()).await;
    restored.store.take_history().await.unwrap();
    for person in ["ZOE", "IDA"] {
        restored.person(person, "{}").await;
    }
    read_all(&restored, "3.2").await;
    for lost in ["2.1", "3.1"] {
        assert_eq!(read(&restored, &root(), lost).await, Err((409, "position_unknown".to_owned())), "{lost}");
    }
    assert_eq!(read(&restored, &root(), "1.1").await, Ok(("3.2".to_owned(), 2)));
}
