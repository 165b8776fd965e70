//! Webhooks: messages are sent to nodes in order for each person, signed, within the rights of an account, and to no
//! address of the hub's own networks.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fedgate_base::config::WebhooksConfig;
use fedgate_core::secret::Secret;
use serde_json::{Value, json};

use super::pressure::{Blocker, impatient};
use crate::support::receiver::{Received, Receiver, status};
use crate::support::{Actor, His, own, root};

pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// A node with the scope `global`.
pub(super) const NODE: &str = "NODE";
pub(super) const POLICY: &str = r#"[
    {"role": "node", "permissions": {"GET": ["messages"], "global": "True"}},
    {"role": "end_user", "permissions": {"GET": ["messages"], "global": "False"}}]"#;

pub(super) fn node() -> Actor {
    Actor { account: NODE, ..root() }
}

/// The settings of a service that may send to a receiver.
pub(super) fn settings(his: &His, receiver: &Receiver) -> WebhooksConfig {
    let roles = his.scratch.0.join("roles.cfg");
    std::fs::write(&roles, POLICY).unwrap();
    WebhooksConfig {
        secrets: vec![Secret::new(b"a secret of webhooks, thirty-two bytes".to_vec())],
        roles,
        ca_file: Some(receiver.ca_file()),
        allowed: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
        refused: vec![],
        behind: None,
        waiting: 5000,
    }
}

/// A service that sends to a receiver, on the store of another one.
pub(super) async fn sender(his: &His, receiver: &Receiver) -> His {
    let settings = settings(his, receiver);
    his.with(|config| config.webhooks = settings).await
}

/// Two accounts, a node and a person, and a service that sends.
pub(super) async fn start(his: &His) -> (Receiver, His) {
    let receiver = Receiver::start().await;
    let sending = sender(his, &receiver).await;
    his.person(NODE, r#"{"roles":["node"]}"#).await;
    his.person("ANA", r#"{"roles":["end_user"]}"#).await;
    // A webhook gets what has a position after it was added.
    let began = Instant::now();
    while his.store.last_position().await.unwrap() < 2 {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (receiver, sending)
}

/// Adds a webhook and returns its id and its keys.
pub(super) async fn add(his: &His, actor: &Actor, body: Value) -> (String, Vec<String>) {
    let reply = his.post(actor, "/messages/webhooks", body.to_string()).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let told = reply.json();
    let id = told["id"].as_str().unwrap().to_owned();
    assert_eq!(reply.header("location"), Some(format!("/messages/webhooks/{id}").as_str()));
    (id, told["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect())
}

pub(super) async fn webhook(his: &His, actor: &Actor, id: &str) -> Value {
    his.get(actor, &format!("/messages/webhooks/{id}")).await.json()
}

/// Waits until something holds of what was received.
pub(super) async fn until(receiver: &Receiver, is_so: impl Fn(&[Received]) -> bool) -> Vec<Received> {
    let began = Instant::now();
    loop {
        let received = receiver.received();
        if is_so(&received) {
            return received;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "{:?}",
            received.iter().map(|one| (&one.target, one.id())).collect::<Vec<_>>()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until something holds of a webhook.
pub(super) async fn until_told(his: &His, actor: &Actor, id: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let told = webhook(his, actor, id).await;
        if is_so(&told) {
            return told;
        }
        assert!(began.elapsed() < PATIENCE, "{told}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(super) fn ids(received: &[Received]) -> Vec<String> {
    received.iter().map(Received::id).collect()
}

/// Lets every message that waits be sent at once.
pub(super) async fn hurry(his: &His) {
    his.sql("UPDATE fedgate_deliveries SET due = 0; UPDATE fedgate_webhooks SET slow_until = 0, version = version + 1")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_for_a_moment_makes_nothing_be_sent_twice() {
    for his in impatient().await {
        a_store_that_fails_for_a_moment_makes_nothing_be_sent_twice_on(his).await;
    }
}

async fn a_store_that_fails_for_a_moment_makes_nothing_be_sent_twice_on(his: His) {
    let (receiver, sending) = start(&his).await;
    let (id, _) = add(&sending, &node(), json!({ "url": receiver.url("/") })).await;
    let (fails, outage) = std::sync::mpsc::channel::<()>();
    let outage = std::sync::Mutex::new(outage);
    receiver.answer(move |_| {
        // The store fails when the outcome is to be stored, and only then. Later messages are answered at once.
        let _ = outage.lock().unwrap().recv_timeout(PATIENCE);
        status("200 OK")
    });
    for person in ["ANA", NODE] {
        his.page(person, &format!("{person}1"), &format!(r#"{{"id":"{person}1"}}"#)).await;
    }
    until(&receiver, |received| received.len() >= 2).await;
    let blocker = Blocker::on(&his, "UPDATE fedgate_deliveries SET due = due").await;
    drop(fails);
    // So long the store fails: some times the wait for a lock.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    blocker.leaves().await;
    until_told(&sending, &node(), &id, |told| told["waiting"] == 0).await;
    his.page("ANA", "ANA2", r#"{"id":"ANA2"}"#).await;
    until_told(&sending, &node(), &id, |told| told["waiting"] == 0 && receiver.received().len() >= 3).await;
    let mut received = ids(&receiver.received());
    received.sort_unstable();
    assert_eq!(received, ["ANA1", "ANA2", "NODE1"]);
}

crate::on_both_stores! {
    async fn a_webhook_gets_each_message_that_its_account_may_read_once_and_signed(his) {
        let (receiver, sending) = start(&his).await;
        let url = |path: &str| json!({ "url": receiver.url(path) });
        add(&sending, &node(), url("/all")).await;
        add(&sending, &own("ANA"), url("/ana")).await;
        add(&sending, &node(), json!({ "url": receiver.url("/old?a=b"), "resource": "page", "person": "BOB", "form": "cloudevents", "after": 0 })).await;
        for person in ["BOB", "EVA"] {
            his.person(person, "{}").await;
        }
        for (person, page) in [("ANA", "a1"), ("BOB", "b1"), ("ANA", "a2"), ("BOB", "b2")] {
            his.page(person, page, &format!(r#"{{"id":"{page}"}}"#)).await;
        }
        let received = until(&receiver, |received| received.len() >= 10).await;
        let of = |path: &str| received.iter().filter(|one| one.target == path).cloned().collect::<Vec<_>>();
        let all = of("/all");
        assert_eq!(ids(&all).into_iter().collect::<BTreeSet<_>>(), ["BOB", "EVA", "a1", "a2", "b1", "b2"].map(str::to_owned).into());
        assert_eq!((all.len(), ids(&of("/ana"))), (6, vec!["a1".to_owned(), "a2".to_owned()]));
        let of_bob = all.iter().filter(|one| one.message()["person"] == "BOB").cloned().collect::<Vec<_>>();
        assert_eq!(ids(&of_bob), ["BOB", "b1", "b2"], "in order");
        let events = of("/old?a=b");
        assert_eq!(events.iter().map(|one| one.message()["data"]["id"].clone()).collect::<Vec<_>>(), [json!("b1"), json!("b2")]);
        assert_eq!((events[0].header("content-type"), &events[0].message()["specversion"]), ("application/cloudevents+json", &json!("1.0")));
        let listed = his.get(&node(), "/messages?after=2").await.json();
        for one in &all {
            assert!(listed.as_array().unwrap().contains(&one.message()), "as in a list");
            assert_eq!((one.header("content-type"), one.header("host")), ("application/json", format!("localhost:{}", receiver.address.port()).as_str()));
            let age = now() - one.header("webhook-timestamp").parse::<i64>().unwrap();
            assert!((0..60).contains(&age) && one.header("webhook-signature").starts_with("v1,"));
        }
        let distinct: BTreeSet<&str> = received.iter().map(|one| one.header("webhook-id")).collect();
        assert_eq!((distinct.len(), received.len()), (10, 10));
        assert!(receiver.connections() < 10, "connections are used again");
    }

    async fn webhooks_are_those_of_the_caller_alone_and_what_cannot_be_is_refused(his) {
        let (receiver, sending) = start(&his).await;
        let (id, keys) = add(&sending, &node(), json!({ "url": receiver.url("/"), "signatures": ["v1", "v1a"] })).await;
        assert!(keys[0].starts_with("whsec_") && keys[1].starts_with("whpk_") && keys.len() == 2, "{keys:?}");
        let (place, of_keys) = (format!("/messages/webhooks/{id}"), format!("/messages/webhooks/{id}/keys"));
        let other = Actor { account: "ARGBUE111FAV", ..root() };
        for reply in [
            sending.get(&other, &place).await,
            sending.patch(&other, &place, r#"{"form":"json"}"#).await,
            sending.delete(&other, &place).await,
            sending.post(&other, &of_keys, "{}").await,
            sending.get(&node(), "/messages/webhooks/wh_none").await,
        ] {
            assert_eq!((reply.error().0, reply.error().2), (404, "webhook_not_found".to_owned()));
        }
        assert_eq!(sending.get(&other, "/messages/webhooks").await.json(), json!([]));
        let listed = sending.get(&node(), "/messages/webhooks").await.json();
        assert_eq!((&listed[0]["id"], &listed[0]["public_keys"]), (&json!(id), &json!([keys[1]])));
        assert!(!listed.to_string().contains("whsec_") && !listed.to_string().contains("whsk_"), "{listed}");
        let url = receiver.url("/");
        for body in [
            json!({}), json!({ "url": 1 }), json!({ "url": "http://a.example/" }), json!({ "url": "https://u:p@a.example/" }),
            json!({ "url": url, "resource": "x" }), json!({ "url": url, "method": "GET" }), json!({ "url": url, "persn": "A" }),
            json!({ "url": url, "form": "xml" }), json!({ "url": url, "signatures": [] }), json!({ "url": url, "signatures": ["v2"] }),
            json!({ "url": url, "after": -1 }), json!({ "url": url, "after": "first" }), json!({ "url": url, "state": "active" }),
        ] {
            let error = sending.post(&node(), "/messages/webhooks", body.to_string()).await.error();
            assert_eq!((error.0, error.2), (422, "bad_webhook".to_owned()), "{body}");
        }
        let beyond = sending.post(&node(), "/messages/webhooks", json!({ "url": url, "after": 99 }).to_string()).await.error();
        assert_eq!((beyond.0, beyond.2), (409, "position_unknown".to_owned()));
        for _ in 1..20 {
            add(&sending, &node(), json!({ "url": url })).await;
        }
        let more = sending.post(&node(), "/messages/webhooks", json!({ "url": url }).to_string()).await.error();
        assert_eq!((more.0, more.2), (422, "too_many_webhooks".to_owned()));
        assert_eq!(sending.delete(&node(), &place).await.status, 200);
        add(&sending, &node(), json!({ "url": url })).await;
        // Without a secret there are no keys, so no webhooks.
        let off = his.post(&node(), "/messages/webhooks", json!({ "url": url }).to_string()).await.error();
        assert_eq!((off.0, off.2), (501, "webhooks_off".to_owned()));
        let stored = his.sql_text("SELECT min(secret) FROM fedgate_webhook_keys").await.unwrap();
        assert_eq!(stored.len(), 12, "the name of a secret is all that is stored: {stored}");
    }

    async fn a_message_that_fails_holds_back_its_person_alone_and_is_sent_again_in_order(his) {
        let (receiver, sending) = start(&his).await;
        let failures = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&failures);
        receiver.answer(move |one| {
            let is_bob = one.message()["person"] == "BOB";
            if is_bob && counted.fetch_add(1, Ordering::SeqCst) < 1 { status("500 No") } else { status("200 OK") }
        });
        let (id, _) = add(&sending, &node(), json!({ "url": receiver.url("/") })).await;
        his.person("BOB", "{}").await;
        let pages = async |person: &str, count: usize| {
            for n in 0..count {
                his.page(person, &format!("{person}{n}"), &format!(r#"{{"id":"{person}{n}"}}"#)).await;
            }
        };
        until(&receiver, |received| !received.is_empty()).await;
        pages("BOB", 3).await;
        pages("ANA", 3).await;
        let received = until(&receiver, |received| received.len() >= 4).await;
        assert_eq!(ids(&received), ["BOB", "ANA0", "ANA1", "ANA2"]);
        let told = until_told(&sending, &node(), &id, |told| told["waiting"] == 4 && told["problem"].is_string()).await;
        assert_eq!((&told["state"], &told["problem"]), (&json!("active"), &json!("the receiver answered 500")));
        hurry(&his).await;
        let received = until(&receiver, |received| received.len() >= 8).await;
        assert_eq!(ids(&received)[4..], ["BOB", "BOB0", "BOB1", "BOB2"]);
        assert_eq!(received[0].header("webhook-id"), received[4].header("webhook-id"), "the same in each attempt");
        assert_ne!(received[0].header("webhook-id"), received[5].header("webhook-id"));
        until_told(&sending, &node(), &id, |told| told["waiting"] == 0 && told["problem"].is_null()).await;
    }

    async fn a_message_that_nobody_takes_becomes_a_dead_letter_and_is_sent_again_when_asked_for(his) {
        let (receiver, sending) = start(&his).await;
        receiver.answer(|one| if one.id() == "a1" { status("400 Bad") } else { status("200 OK") });
        let (id, _) = add(&sending, &node(), json!({ "url": receiver.url("/") })).await;
        his.page("ANA", "a1", r#"{"id":"a1"}"#).await;
        his.page("ANA", "a2", r#"{"id":"a2"}"#).await;
        until_told(&sending, &node(), &id, |told| told["problem"].is_string() && told["waiting"] == 2).await;
        // As after nine attempts.
        his.sql("UPDATE fedgate_deliveries SET attempts = 9 WHERE attempts > 0").await;
        hurry(&his).await;
        until_told(&sending, &node(), &id, |told| told["dead"] == 1 && told["waiting"] == 0).await;
        assert_eq!(ids(&receiver.received()), ["a1", "a1", "a2"]);
        let letters = his.store.dead_letters(Some(&id), 10).await.unwrap();
        assert_eq!((letters.len(), letters[0].lane.as_str(), letters[0].attempts), (1, "person ANA", 10));
        receiver.answer(|_| status("200 OK"));
        assert_eq!(his.store.replay_dead_letters(&id, Some(&[99])).await.unwrap(), 0);
        assert_eq!(his.store.replay_dead_letters(&id, Some(&[letters[0].position])).await.unwrap(), 1);
        let received = until(&receiver, |received| received.len() >= 4).await;
        assert_eq!((received[3].id(), received[3].header("webhook-id")), ("a1".to_owned(), received[0].header("webhook-id")));
        until_told(&sending, &node(), &id, |told| told["dead"] == 0 && told["waiting"] == 0).await;
    }

    async fn a_webhook_ends_with_its_account_and_with_410_and_continues_only_on_request(his) {
        let (receiver, sending) = start(&his).await;
        let (id, _) = add(&sending, &node(), json!({ "url": receiver.url("/") })).await;
        let (of_ana, _) = add(&sending, &own("ANA"), json!({ "url": receiver.url("/ana") })).await;
        let state = |reason: &'static str| move |told: &Value| told["reason"] == reason && told["state"] == "ended";
        his.patch(&root(), &format!("/people/{NODE}"), r#"{"active":false}"#).await;
        his.page("ANA", "a1", r#"{"id":"a1"}"#).await;
        until_told(&sending, &node(), &id, state("the account is inactive")).await;
        his.patch(&root(), &format!("/people/{NODE}"), r#"{"active":true}"#).await;
        until(&receiver, |received| received.iter().any(|one| one.target == "/ana")).await;
        assert!(!receiver.received().iter().any(|one| one.target == "/"), "nothing was sent to an inactive account");
        assert_eq!(webhook(&sending, &node(), &id).await["state"], "ended", "it does not go on by itself");
        assert_eq!(sending.patch(&node(), &format!("/messages/webhooks/{id}"), r#"{"state":"active"}"#).await.status, 200);
        let received = until(&receiver, |received| received.iter().any(|one| one.target == "/" && one.id() == "a1")).await;
        assert!(received.len() >= 2);
        // A role that is taken away.
        his.patch(&root(), &format!("/people/{NODE}"), r#"{"roles":["clerk"]}"#).await;
        his.page("ANA", "a2", r#"{"id":"a2"}"#).await;
        until_told(&sending, &node(), &id, state("the account may not read messages")).await;
        until(&receiver, |received| received.iter().any(|one| one.target == "/ana" && one.id() == "a2")).await;
        until_told(&sending, &own("ANA"), &of_ana, |told| told["waiting"] == 0).await;
        // The receiver says that it is gone.
        receiver.answer(|_| status("410 Gone"));
        his.page("ANA", "a3", r#"{"id":"a3"}"#).await;
        until_told(&sending, &own("ANA"), &of_ana, state("the receiver answered 410")).await;
        // The policy takes the right away.
        receiver.answer(|_| status("200 OK"));
        sending.patch(&own("ANA"), &format!("/messages/webhooks/{of_ana}"), r#"{"state":"active"}"#).await;
        until(&receiver, |received| received.iter().filter(|one| one.id() == "a3").count() >= 2).await;
        std::fs::write(his.scratch.0.join("roles.cfg"), POLICY.replace("end_user", "somebody")).unwrap();
        until_told(&sending, &own("ANA"), &of_ana, state("the account may not read messages")).await;
    }

    async fn redirects_are_not_followed_and_an_overloaded_receiver_is_left_alone(his) {
        let (receiver, sending) = start(&his).await;
        let elsewhere = receiver.url("/elsewhere");
        receiver.answer(move |_| format!("HTTP/1.1 307 Elsewhere\r\nlocation: {elsewhere}\r\ncontent-length: 0\r\n\r\n"));
        let (id, _) = add(&sending, &node(), json!({ "url": receiver.url("/") })).await;
        his.page("ANA", "a1", r#"{"id":"a1"}"#).await;
        let told = until_told(&sending, &node(), &id, |told| told["problem"].is_string()).await;
        assert_eq!(told["problem"], "the receiver answered 307, and redirects are not followed");
        receiver.answer(|_| "HTTP/1.1 429 Slow\r\nretry-after: 3600\r\ncontent-length: 0\r\n\r\n".to_owned());
        hurry(&his).await;
        until_told(&sending, &node(), &id, |told| told["problem"] == "the receiver answered 429").await;
        // Other persons wait, too: the receiver as a whole is overloaded.
        his.person("BOB", "{}").await;
        until_told(&sending, &node(), &id, |told| told["waiting"] == 2).await;
        let due = "SELECT CASE WHEN min(due - slow_until) > -5000 AND max(attempts) = 2 AND min(attempts) = 0 THEN 'held' ELSE 'sent' END \
                   FROM fedgate_webhooks, (SELECT due, attempts FROM fedgate_deliveries WHERE attempts > 0 UNION ALL SELECT 9999999999999, attempts FROM fedgate_deliveries) AS d";
        assert_eq!(his.sql_text(due).await.as_deref(), Some("held"));
        receiver.answer(|_| status("200 OK"));
        hurry(&his).await;
        until_told(&sending, &node(), &id, |told| told["waiting"] == 0).await;
        assert!(receiver.received().iter().all(|one| one.target == "/"));
    }

    async fn no_address_of_the_hubs_own_networks_is_connected_to_unless_it_is_allowed(his) {
        let receiver = Receiver::start().await;
        let mut settings = settings(&his, &receiver);
        settings.allowed = vec!["10.0.0.0/8".parse().unwrap()];
        let sending = his.with(|config| config.webhooks = settings).await;
        his.person(NODE, r#"{"roles":["node"]}"#).await;
        let port = receiver.address.port();
        let hosts = ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f.0.0.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]"];
        let mut added = vec![];
        for host in hosts {
            added.push(add(&sending, &node(), json!({ "url": format!("https://{host}:{port}/"), "after": 0 })).await.0);
        }
        for (id, host) in added.iter().zip(hosts) {
            let told = until_told(&sending, &node(), id, |told| told["problem"].is_string()).await;
            let problem = told["problem"].as_str().unwrap();
            assert!(problem.starts_with("the host has no address that is allowed") || problem.starts_with("TLS fails"), "{host}: {problem}");
        }
        assert_eq!(receiver.connections(), 0);
    }

    async fn a_webhook_with_new_keys_signs_with_the_former_ones_beside_them_for_a_time(his) {
        let (receiver, sending) = start(&his).await;
        let (id, before) = add(&sending, &node(), json!({ "url": receiver.url("/"), "signatures": ["v1", "v1a"] })).await;
        let rotate = async |body: &str| {
            let reply = sending.post(&node(), &format!("/messages/webhooks/{id}/keys"), body).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            reply.json()["keys"].as_array().unwrap().len()
        };
        let signatures = async |page: &str| {
            his.page("ANA", page, &format!(r#"{{"id":"{page}"}}"#)).await;
            let received = until(&receiver, |received| received.iter().any(|one| one.id() == page)).await;
            let one = received.into_iter().rfind(|one| one.id() == page).unwrap();
            one.header("webhook-signature").split(' ').map(|one| one.split(',').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!((before.len(), signatures("p1").await), (2, vec!["v1a".to_owned(), "v1".to_owned()]));
        assert_eq!(rotate("{}").await, 2);
        assert_eq!(signatures("p2").await, ["v1a", "v1", "v1a", "v1"]);
        assert_eq!(rotate(r#"{"signatures":["v1"],"kept_seconds":0}"#).await, 1);
        assert_eq!(signatures("p3").await, ["v1"]);
    }
}

/// Two services on one database, one of which loses the webhook again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_at_a_time_serves_a_webhook_and_another_goes_on_in_order() {
    let his = His::on_postgres().await;
    let (receiver, first) = start(&his).await;
    let second = sender(&his, &receiver).await;
    let (id, _) = add(&first, &node(), json!({ "url": receiver.url("/") })).await;
    let owner = async || webhook_owner(&his).await;
    let mut owners = BTreeSet::new();
    for n in 0..40 {
        his.page("ANA", &format!("p{n:02}"), &format!(r#"{{"id":"p{n:02}"}}"#)).await;
        if n % 10 == 9 {
            owners.extend(owner().await);
            // As if the owner had been silent for longer than its lease.
            his.sql("UPDATE fedgate_webhooks SET owned_until = 0, owner = NULL").await;
        }
    }
    let received = until_told(&second, &node(), &id, |told| told["waiting"] == 0 && told["position"] == 42).await;
    assert_eq!(received["state"], "active");
    let mut last_of: HashMap<String, usize> = HashMap::new();
    let all = ids(&receiver.received());
    for (at, id) in all.iter().enumerate() {
        last_of.insert(id.clone(), at);
    }
    // Each at least once; and the first time that each is seen, all earlier ones have been.
    assert_eq!(last_of.len(), 40, "{all:?}");
    let mut seen = BTreeSet::new();
    for id in &all {
        if seen.insert(id.clone()) {
            assert_eq!(seen.last(), Some(id), "{all:?}");
        }
    }
    assert!(!owners.is_empty());
}

async fn webhook_owner(his: &His) -> Option<String> {
    his.sql_text("SELECT owner FROM fedgate_webhooks").await
}

/// Seconds since 1970.
fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}
