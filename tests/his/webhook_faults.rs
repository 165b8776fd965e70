//! Webhooks while something is wrong: no policy, a store that refuses or has gone back, an account that is another one, more
//! rows than there is room for.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fedgate_base::db::Database;
use fedgate_his::desk::{self, DeskFault, WebhookDesk};
use fedgate_his::store::webhooks::WebhookKeyKind;
use serde_json::json;

use super::pressure::Blocker;
use super::webhooks::{NODE, PATIENCE, POLICY, add, hurry, ids, node, settings, start, until, until_told};
use crate::support::receiver::{Receiver, status};
use crate::support::{His, own, root};

/// How often the table of webhooks has been looked into, as far as the sessions have said so.
async fn looks(his: &His) -> u64 {
    let counted =
        "SELECT (seq_scan + coalesce(idx_scan, 0))::text FROM pg_stat_user_tables WHERE relname = 'fedgate_webhooks'";
    his.sql_text(counted).await.unwrap().parse().unwrap()
}

/// Looks into the table of webhooks while a second passes: at most a few.
async fn looks_seldom(his: &His) {
    let (began, before) = (Instant::now(), looks(his).await);
    // Sessions say what they did once a second.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let most = 20 * (1 + began.elapsed().as_secs());
    let more = looks(his).await - before;
    assert!(more <= most, "{more} looks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_without_a_policy_or_a_store_looks_seldom_although_messages_wait() {
    let his = His::on_postgres().await;
    let receiver = Receiver::start().await;
    let settings = settings(&his, &receiver);
    std::fs::remove_file(&settings.roles).unwrap();
    let sending = his.with(|config| config.webhooks = settings).await;
    his.person(NODE, r#"{"roles":["node"]}"#).await;
    add(&sending, &node(), json!({ "url": receiver.url("/"), "after": 0 })).await;
    let began = Instant::now();
    while his.store.last_position().await.unwrap() < 1 {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    looks_seldom(&his).await;
    // Now there is a policy, and the messages cannot be read.
    his.sql("ALTER TABLE fedgate_positions RENAME TO away").await;
    std::fs::write(his.scratch.0.join("roles.cfg"), POLICY).unwrap();
    looks_seldom(&his).await;
    assert!(receiver.received().is_empty());
    his.sql("ALTER TABLE away RENAME TO fedgate_positions").await;
    until(&receiver, |received| ids(received) == [NODE]).await;
}

/// SQLite has one writer at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_add_no_more_webhooks_than_there_may_be() {
    let his = His::on_postgres().await;
    let (receiver, sending) = start(&his).await;
    for _ in 0..19 {
        add(&sending, &node(), json!({ "url": receiver.url("/") })).await;
    }
    let (desk, url) = (WebhookDesk::new(&settings(&his, &receiver)), receiver.url("/"));
    let terms = WebhookDesk::terms(&[("url", Some(&url))]).unwrap();
    let add = || desk.add(&his.store, NODE, &terms, None, &[WebhookKeyKind::V1]);
    // Both are in the middle: their webhooks are counted or written, and their keys are not.
    let blocker = Blocker::on(&his, "LOCK TABLE fedgate_webhook_keys IN SHARE MODE").await;
    let released = async {
        let waiting = "SELECT count(*)::text FROM pg_locks WHERE NOT granted AND database = \
                       (SELECT oid FROM pg_database WHERE datname = current_database())";
        let began = Instant::now();
        while his.sql_text(waiting).await.as_deref() != Some("2") {
            assert!(began.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        blocker.leaves().await;
    };
    let (one, other, ()) = tokio::join!(add(), add(), released);
    assert_eq!([one.is_ok(), other.is_ok()].iter().filter(|is_added| **is_added).count(), 1);
    assert!([one, other].into_iter().any(|added| matches!(added, Err(DeskFault::TooMany))));
    assert_eq!(sending.get(&node(), "/messages/webhooks").await.json().as_array().unwrap().len(), 20);
}

crate::on_both_stores! {
    async fn replayed_letters_beyond_the_room_are_sent_before_later_messages_of_their_persons(his) {
        let (receiver, _) = start(&his).await;
        let mut few = settings(&his, &receiver);
        few.waiting = 3;
        let sending = his.with(|config| config.webhooks = few).await;
        let (id, _) = add(&sending, &node(), json!({ "url": receiver.url("/") })).await;
        for n in 10..22 {
            his.page("ANA", &format!("p{n}"), &format!(r#"{{"id":"p{n}"}}"#)).await;
        }
        let sent = until(&receiver, |received| received.len() == 12).await;
        until_told(&sending, &node(), &id, |told| told["waiting"] == 0 && told["position"] == 14).await;
        his.sql("INSERT INTO fedgate_deliveries (webhook, position, lane, attempts, state) \
                 WITH RECURSIVE places (n) AS (SELECT 3 UNION ALL SELECT n + 1 FROM places WHERE n < 14) \
                 SELECT id, n, 'person ANA', 10, 'dead' FROM fedgate_webhooks, places").await;
        let (answers, gate) = channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        receiver.answer(move |_| {
            // Nothing is taken until a later message is there.
            let _ = gate.lock().unwrap().recv_timeout(PATIENCE);
            status("200 OK")
        });
        assert_eq!(his.store.replay_dead_letters(&id, None).await.unwrap(), 12);
        until(&receiver, |received| received.len() == 13).await;
        his.page("ANA", "p22", r#"{"id":"p22"}"#).await;
        drop(answers);
        let received = until(&receiver, |received| received.len() >= 25).await;
        assert_eq!(ids(&received)[12..24], ids(&sent));
        assert_eq!(received[24].id(), "p22");
        until_told(&sending, &node(), &id, |told| told["waiting"] == 0 && told["position"] == 15).await;
    }

    async fn a_webhook_ends_with_its_account_however_that_ends_and_the_next_one_of_the_id_has_none(his) {
        let (receiver, sending) = start(&his).await;
        let is_postgres = matches!(his.database, Database::Postgres(_));
        let empty = if is_postgres { "TRUNCATE people CASCADE" } else { "DELETE FROM people" };
        let again = r#"INSERT INTO people (id, data) VALUES ('NODE', '{"roles":["node"],"active":true}')"#;
        let ways = [
            None,
            Some("DELETE FROM people WHERE id = 'NODE'"),
            Some("UPDATE people SET id = 'OTHER' WHERE id = 'NODE'"),
            Some(empty),
            // As a replication applies it: no foreign key acts then.
            is_postgres.then_some("BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM people WHERE id = 'NODE'; COMMIT"),
        ];
        for way in ways {
            receiver.answer(|_| status("500 No"));
            let (id, _) = add(&sending, &node(), json!({ "url": receiver.url("/"), "after": 0 })).await;
            until_told(&sending, &node(), &id, |told| told["problem"].is_string()).await;
            let (of_other, _) = add(&sending, &own("BOB"), json!({ "url": receiver.url("/") })).await;
            match way {
                None => {
                    his.patch(&root(), "/people/NODE", r#"{"active":false}"#).await;
                    assert_eq!(his.delete(&root(), "/people/NODE").await.status, 200);
                }
                Some(sql) => his.sql(sql).await,
            }
            let left = "SELECT CAST((SELECT count(*) FROM fedgate_webhooks WHERE account <> 'BOB') \
                        + (SELECT count(*) FROM fedgate_webhook_keys WHERE webhook NOT IN (SELECT id FROM fedgate_webhooks)) \
                        + (SELECT count(*) FROM fedgate_deliveries WHERE webhook NOT IN (SELECT id FROM fedgate_webhooks)) AS varchar)";
            assert_eq!(his.sql_text(left).await.as_deref(), Some("0"), "{way:?}");
            // A late request of the account that is gone.
            his.sql("INSERT INTO fedgate_webhooks (id, account, url, form, created, position) VALUES ('late', 'NODE', 'https://a.example/', 'json', 0, 0)").await;
            his.sql(again).await;
            assert_eq!(sending.get(&node(), "/messages/webhooks").await.json(), json!([]), "{way:?}");
            let is_of_all = is_postgres && way == Some(empty);
            let others = sending.get(&own("BOB"), "/messages/webhooks").await.json();
            assert_eq!(others.as_array().unwrap().iter().any(|told| told["id"] == json!(of_other)), !is_of_all, "{way:?}");
        }
    }

    async fn a_webhook_goes_back_to_what_is_stored_when_another_history_has_begun(his) {
        let (receiver, sending) = start(&his).await;
        let (id, _) = add(&sending, &node(), json!({ "url": receiver.url("/") })).await;
        his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
        until_told(&sending, &node(), &id, |told| told["position"] == 3 && told["waiting"] == 0).await;
        // The store lacks the last message, and the note that it was sent.
        match his.database {
            Database::Postgres(_) => {
                his.sql("UPDATE fedgate_relay SET position = 2, server = 'the former primary'; DELETE FROM fedgate_positions WHERE position > 2; \
                         DELETE FROM fedgate_messages WHERE entry > 2; UPDATE fedgate_webhooks SET position = 2").await;
            }
            Database::Sqlite(_) => {
                his.sql("DELETE FROM fedgate_messages WHERE position > 2; UPDATE sqlite_sequence SET seq = 2 WHERE name = 'fedgate_messages'; \
                         UPDATE fedgate_relay SET history = 2; INSERT INTO fedgate_ended_histories VALUES (1, 2); \
                         UPDATE fedgate_webhooks SET position = 2").await;
            }
        }
        his.page("ANA", "p2", r#"{"id":"p2"}"#).await;
        let received = until(&receiver, |received| received.len() >= 2).await;
        assert_eq!(ids(&received), ["p1", "p2"]);
        let places: Vec<_> = received.iter().map(|one| one.message()["position"].clone()).collect();
        assert_eq!(places, [json!(3), json!(3)]);
        assert_ne!(received[0].header("webhook-id"), received[1].header("webhook-id"), "another message");
        let told = until_told(&sending, &node(), &id, |told| told["position"] == 3 && told["waiting"] == 0).await;
        assert_eq!(told["state"], "active");
    }

    async fn a_message_that_is_kept_no_longer_before_it_was_taken_is_a_dead_letter(his) {
        let (receiver, sending) = start(&his).await;
        receiver.answer(|one| if one.id() == "a1" { status("500 No") } else { status("200 OK") });
        let (id, _) = add(&sending, &node(), json!({ "url": receiver.url("/") })).await;
        his.page("ANA", "a1", r#"{"id":"a1"}"#).await;
        his.page(NODE, "n1", r#"{"id":"n1"}"#).await;
        until_told(&sending, &node(), &id, |told| told["waiting"] == 1 && told["problem"].is_string()).await;
        his.sql(match his.database {
            Database::Postgres(_) => "UPDATE fedgate_relay SET first = 4; DELETE FROM fedgate_positions WHERE position < 4",
            Database::Sqlite(_) => "DELETE FROM fedgate_messages WHERE position < 4",
        }).await;
        hurry(&his).await;
        let told = until_told(&sending, &node(), &id, |told| told["waiting"] == 0).await;
        assert_eq!((&told["dead"], &told["state"]), (&json!(1), &json!("active")));
        let letters = his.store.dead_letters(Some(&id), 10).await.unwrap();
        assert_eq!(letters[0].problem, "its message is kept no longer");
        assert_eq!(his.store.replay_dead_letters(&id, None).await.unwrap(), 0);
        assert!(his.store.dead_letters(Some(&id), 10).await.unwrap().is_empty(), "there is nothing to send");
    }

    async fn operators_alone_see_an_inner_address(his) {
        let receiver = Receiver::start().await;
        let mut settings = settings(&his, &receiver);
        settings.allowed = vec![];
        let sending = his.with(|config| config.webhooks = settings).await;
        his.person(NODE, r#"{"roles":["node"]}"#).await;
        let (id, _) = add(&sending, &node(), json!({ "url": receiver.url("/"), "after": 0 })).await;
        let told = until_told(&sending, &node(), &id, |told| told["problem"].is_string()).await;
        assert_eq!(told["problem"], "the host has no address that is allowed");
        let listed = sending.get(&node(), "/messages/webhooks").await.text().to_owned();
        assert!(!listed.contains("127.0.0.1") && !listed.contains("::1"), "{listed}");
        let of_operators = desk::operators_view(&his.store.webhook(&id, None).await.unwrap().unwrap());
        let problem = of_operators["problem"].as_str().unwrap();
        assert!(problem.contains("(127.0.0.1)") || problem.contains("(::1)"), "{problem}");
        his.sql("UPDATE fedgate_deliveries SET state = 'dead'").await;
        let letters = his.store.dead_letters(Some(&id), 1).await.unwrap();
        assert_eq!(letters[0].problem, problem);
    }

    async fn a_lease_that_ends_later_than_one_of_now_keeps_nobody_from_a_webhook(his) {
        let (receiver, sending) = start(&his).await;
        // As after a clock that was set back by an hour.
        add(&sending, &node(), json!({ "url": receiver.url("/") })).await;
        his.sql("UPDATE fedgate_webhooks SET owner = 'gone', owned_until = 9999999999999").await;
        let began = Instant::now();
        while his.sql_text("SELECT owner FROM fedgate_webhooks").await.as_deref() == Some("gone") {
            assert!(began.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The owner itself prolongs it to a lease of now.
        his.sql("UPDATE fedgate_webhooks SET owned_until = 9999999999999").await;
        while his.sql_text("SELECT '' || max(owned_until) FROM fedgate_webhooks").await.as_deref() == Some("9999999999999") {
            assert!(began.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn a_message_has_one_id_in_all_attempts_also_in_another_form(his) {
        let (receiver, sending) = start(&his).await;
        receiver.answer(|_| status("500 No"));
        let (id, _) = add(&sending, &node(), json!({ "url": receiver.url("/") })).await;
        his.page("ANA", "a1", r#"{"id":"a1"}"#).await;
        until_told(&sending, &node(), &id, |told| told["problem"].is_string()).await;
        let reply = sending.patch(&node(), &format!("/messages/webhooks/{id}"), r#"{"form":"cloudevents"}"#).await;
        assert_eq!(reply.status, 200);
        hurry(&his).await;
        let received = until(&receiver, |received| received.len() >= 2).await;
        assert_ne!(received[0].header("content-type"), received[1].header("content-type"));
        assert_eq!(received[0].header("webhook-id"), received[1].header("webhook-id"));
    }
}
