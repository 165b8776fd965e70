//! Messages that nodes send: seen by sender and addressee alone, in the order of all others, each id once.

use std::time::{Duration, Instant};

use fedgate_base::db::Database;
use serde_json::{Value, json};

use crate::support::{Actor, His, Reply, own, professional, root};

const PATIENCE: Duration = Duration::from_secs(30);

/// A person with the own record and a role of nodes.
fn lab(account: &'static str) -> Actor {
    Actor { roles: &["end_user", "lab"], ..own(account) }
}

async fn send(his: &His, sender: &Actor, id: &str, to: Value, data: Value) -> Reply {
    his.post(sender, "/messages", json!({ "id": id, "to": to, "data": data }).to_string()).await
}

async fn sent(his: &His, sender: &Actor, id: &str, to: Value) {
    let reply = send(his, sender, id, to, json!({ "of": id })).await;
    assert_eq!((reply.status, reply.text()), (200, "null"), "{id}");
}

fn refused(reply: &Reply) -> (u16, String) {
    let (status, _, code) = reply.error();
    (status, code)
}

/// Waits until so many messages have positions.
async fn reached(his: &His, count: usize) {
    let (began, target) = (Instant::now(), format!("/messages?after={count}"));
    while his.get(&root(), &target).await.status != 200 {
        assert!(began.elapsed() < PATIENCE, "{count}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The ids of the messages that a caller sees, read page by page.
async fn seen(his: &His, actor: &Actor, query: &str) -> Vec<String> {
    let (mut target, mut ids) = (format!("/messages?limit=2&after=0{query}"), vec![]);
    loop {
        let reply = his.get(actor, &target).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let page = reply.json();
        ids.extend(page.as_array().unwrap().iter().map(|message| message["id"].as_str().unwrap_or("RESET").to_owned()));
        let link = reply.header("link").unwrap();
        let next = link.strip_prefix('<').unwrap().split_once('>').unwrap().0.to_owned();
        if next.rsplit('&').find(|pair| pair.starts_with("after="))
            == target.rsplit('&').find(|pair| pair.starts_with("after="))
        {
            return ids;
        }
        target = next;
    }
}

/// What an account sees by its id alone: in the list, among messages of nodes, about itself, and one by one.
async fn seen_in_each_way(his: &His, account: &'static str, last: usize) -> [Vec<String>; 4] {
    let actor = own(account);
    let mut one_by_one = vec![];
    for position in 1..=last {
        let reply = his.get(&actor, &format!("/messages/{position}")).await;
        if reply.status == 200 {
            one_by_one.push(reply.json()["id"].as_str().unwrap().to_owned());
        }
    }
    [
        seen(his, &actor, "").await,
        seen(his, &actor, "&resource=message").await,
        seen(his, &actor, &format!("&person={account}")).await,
        one_by_one,
    ]
}

crate::on_both_stores! {
    async fn an_account_with_the_id_of_a_former_one_sees_nothing_of_it_by_that_id(his) {
        his.person("LAB", r#"{"roles":["lab"]}"#).await;
        his.person("ANA", r#"{"roles":["end_user"],"active":false}"#).await;
        sent(&his, &professional(), "to-ana", json!({ "node": "ANA" })).await;
        sent(&his, &own("ANA"), "of-ana", json!({ "node": "LAB" })).await;
        his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
        assert_eq!(his.delete(&root(), "/pols/ANA/p1").await.status, 200);
        assert_eq!(his.delete(&root(), "/people/ANA").await.status, 200);
        // A page and a message that come when no account has the id.
        sent(&his, &professional(), "late", json!({ "node": "ANA" })).await;
        his.person("ANA", r#"{"roles":["end_user"]}"#).await;
        sent(&his, &professional(), "new", json!({ "node": "ANA" })).await;
        reached(&his, 10).await;
        let [list, of_nodes, about, one_by_one] = seen_in_each_way(&his, "ANA", 10).await;
        assert_eq!((list, of_nodes, about, one_by_one), (
            vec!["ANA".to_owned(), "new".into()], vec!["new".to_owned()], vec!["ANA".to_owned()],
            vec!["ANA".to_owned(), "new".into()],
        ));
        // The ids that the former one used are free, and its messages do not count.
        let again = send(&his, &own("ANA"), "of-ana", json!({ "node": "LAB" }), json!(1)).await;
        assert_eq!((again.status, again.text()), (200, "null"));
        reached(&his, 11).await;
        // Others see what they saw.
        assert_eq!(seen(&his, &lab("LAB"), "&resource=message").await, ["of-ana", "of-ana"]);
        assert_eq!(seen(&his, &root(), "&person=ANA").await, ["ANA", "p1", "p1", "ANA", "ANA"]);

        // Another id is another account, in both directions.
        his.sql("UPDATE people SET id = 'EVA' WHERE id = 'ANA'").await;
        his.person("ANA", r#"{"roles":["end_user"]}"#).await;
        reached(&his, 14).await;
        for account in ["EVA", "ANA"] {
            let [list, of_nodes, about, one_by_one] = seen_in_each_way(&his, account, 14).await;
            assert_eq!((list, of_nodes.len(), about, one_by_one), (
                vec![account.to_owned()], 0, vec![account.to_owned()], vec![account.to_owned()],
            ));
        }
        // A row that no account can have ends none.
        his.sql("INSERT INTO people (id, data) VALUES ('', '{}')").await;
        his.sql("DELETE FROM people WHERE id = ''").await;
        assert_eq!(seen(&his, &own("EVA"), "").await, ["EVA"]);
    }

    async fn a_message_of_a_node_is_seen_by_its_sender_and_its_addressees_and_by_nobody_else(his) {
        his.person("LAB", r#"{"roles":["lab"]}"#).await;
        his.person("ANA", r#"{"roles":["end_user"]}"#).await;
        sent(&his, &professional(), "to-ana", json!({ "node": "ANA" })).await;
        his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
        sent(&his, &professional(), "to-labs", json!({ "role": "lab" })).await;
        sent(&his, &lab("LAB"), "to-all", json!("all")).await;
        sent(&his, &lab("LAB"), "to-self", json!({ "node": "LAB" })).await;
        sent(&his, &lab("LAB"), "to-labs-too", json!({ "role": "lab" })).await;
        reached(&his, 8).await;
        assert_eq!(seen(&his, &own("ANA"), "").await, ["ANA", "to-ana", "p1", "to-all"]);
        assert_eq!(seen(&his, &lab("LAB"), "").await, ["LAB", "to-labs", "to-all", "to-self", "to-labs-too"]);
        assert_eq!(seen(&his, &professional(), "").await, ["LAB", "ANA", "to-ana", "p1", "to-labs", "to-all"]);
        // The scope `global` reaches every record, and no message between others.
        assert_eq!(seen(&his, &root(), "").await, ["LAB", "ANA", "p1", "to-all"]);
        for (actor, own_messages) in [
            (own("ANA"), vec!["to-ana", "to-all"]), (root(), vec!["to-all"]),
            (lab("LAB"), vec!["to-labs", "to-all", "to-self", "to-labs-too"]),
        ] {
            assert_eq!(seen(&his, &actor, "&resource=message").await, own_messages);
        }
        assert_eq!(seen(&his, &own("ANA"), "&resource=message&node=LAB").await, ["to-all"]);
        assert_eq!(seen(&his, &own("ANA"), "&person=ANA").await, ["ANA", "p1"]);
        assert_eq!(seen(&his, &root(), "&person=LAB").await, ["LAB"]);
        // One by one the same holds.
        for (actor, positions) in [(root(), vec![1, 2, 4, 6]), (own("ANA"), vec![2, 3, 4, 6]), (lab("LAB"), vec![1, 5, 6, 7, 8])] {
            for position in 0..=9 {
                let reply = his.get(&actor, &format!("/messages/{position}")).await;
                match positions.contains(&position) {
                    true => assert_eq!((reply.status, &reply.json()["position"]), (200, &json!(position))),
                    false => assert_eq!(refused(&reply), (404, "message_not_found".to_owned()), "{} {position}", actor.account),
                }
            }
        }
        for position in ["x", "-1", "+1", "99999999999999999999", "1.0"] {
            assert_eq!(refused(&his.get(&root(), &format!("/messages/{position}")).await).0, 404, "{position}");
        }
        let message = his.get(&own("ANA"), "/messages/3").await.json();
        assert_eq!((&message["node"], &message["type"], &message["to"]), (&json!("ITAPYT999HON"), &json!("message.post"), &json!({ "node": "ANA" })));
        assert_eq!((&message["data"], &message["person"], &message["author"]), (&json!({ "of": "to-ana" }), &Value::Null, &Value::Null));
    }

    async fn a_reader_that_waits_is_woken_by_each_message_that_concerns_it(his) {
        his.person("LAB", r#"{"roles":["lab"]}"#).await;
        his.person("ANA", r#"{"roles":["end_user", "lab"]}"#).await;
        his.person("BOB", "{}").await;
        reached(&his, 3).await;
        let reset = match &his.database {
            Database::Postgres(_) => "SELECT fedgate_append('all', NULL, NULL, 'RESET', NULL, NULL)",
            Database::Sqlite(_) => "INSERT INTO fedgate_messages (resource, method, addressee) VALUES ('all', 'RESET', 'all')",
        };
        let (reader, mut last) = (lab("ANA"), 3);
        for kind in ["own record", "to the account", "to a role", "to all", "sent by itself", "reset"] {
            let target = format!("/messages?after={last}&wait=60");
            let answered = tokio::time::timeout(PATIENCE, his.get(&reader, &target));
            let (answer, ()) = tokio::join!(answered, async {
                // A head start, so that the reader usually waits by then. What it gets is the same.
                tokio::time::sleep(Duration::from_millis(50)).await;
                let (other, id) = (lab("LAB"), kind.replace(' ', "-"));
                his.page("BOB", &format!("of-bob-{id}"), &json!({ "id": format!("of-bob-{id}") }).to_string()).await;
                match kind {
                    "own record" => his.page("ANA", "p1", r#"{"id":"p1"}"#).await,
                    "to the account" => sent(&his, &other, &id, json!({ "node": "ANA" })).await,
                    "to a role" => sent(&his, &other, &id, json!({ "role": "lab" })).await,
                    "to all" => sent(&his, &other, &id, json!("all")).await,
                    "sent by itself" => sent(&his, &reader, &id, json!({ "node": "LAB" })).await,
                    _ => his.sql(reset).await,
                }
            });
            let answer = answer.unwrap_or_else(|_| panic!("{kind}: the reader was not woken")).json();
            assert_eq!(answer.as_array().unwrap().len(), 1, "{kind}: {answer}");
            last = answer[0]["position"].as_u64().unwrap();
        }
    }

    async fn a_role_counts_while_the_gateway_and_the_store_both_say_so(his) {
        his.person("LAB", r#"{"roles":["lab", "x"]}"#).await;
        his.person("BOB", r#"{"roles":["end_user"]}"#).await;
        sent(&his, &professional(), "m", json!({ "role": "lab" })).await;
        reached(&his, 3).await;
        let of = async |actor: Actor| seen(&his, &actor, "&resource=message").await;
        assert_eq!(of(lab("LAB")).await, ["m"]);
        assert!(of(own("LAB")).await.is_empty(), "the gateway did not assert the role");
        assert!(of(lab("BOB")).await.is_empty(), "the store does not have it");
        assert!(of(lab("EVE")).await.is_empty(), "nor such an account");
        let global = |account| Actor { roles: &["lab"], ..Actor { account, ..professional() } };
        assert_eq!(of(global("LAB")).await, ["m"]);
        his.patch(&root(), "/people/LAB", r#"{"roles":["end_user"]}"#).await;
        // The assertion still has the role, as that of a stream that runs on.
        for actor in [lab("LAB"), global("LAB")] {
            assert_eq!(refused(&his.get(&actor, "/messages/3").await).0, 404);
            assert!(of(actor).await.is_empty());
        }
        his.sql("UPDATE people SET data = '{\"roles\":\"lab\"}' WHERE id = 'LAB'").await;
        assert!(of(lab("LAB")).await.is_empty(), "a text is no list of roles");
    }

    async fn an_id_names_one_message_of_its_sender(his) {
        let to = json!({ "node": "ANA" });
        let body = r#"{"id":"m1","to":{"node":"ANA"},"type":"lab.result","data":{"b":1.0,"a":[null]}}"#;
        // As a node that lost its answers sends it: at once, and again later with the members in another order.
        let again = r#"{"data":{"a":[null],"b":1},"type":"lab.result","to":{"node":"ANA"},"id":"m1"}"#;
        let sender = professional();
        let many = (0..6).map(|n| his.post(&sender, "/messages", if n % 2 == 0 { body } else { again }));
        for reply in futures_util::future::join_all(many).await {
            assert_eq!((reply.status, reply.text()), (200, "null"));
        }
        for other in [
            r#"{"id":"m1","to":{"node":"BOB"},"type":"lab.result","data":{"b":1,"a":[null]}}"#,
            r#"{"id":"m1","to":{"node":"ANA"},"data":{"b":1,"a":[null]}}"#,
            r#"{"id":"m1","to":{"node":"ANA"},"type":"lab.result","data":{"b":2,"a":[null]}}"#,
        ] {
            assert_eq!(refused(&his.post(&sender, "/messages", other).await), (422, "message_exists".to_owned()));
        }
        assert_eq!(send(&his, &own("BOB"), "m1", to, json!(1)).await.status, 200, "another sender has ids of its own");
        reached(&his, 2).await;
        assert_eq!(seen(&his, &own("ANA"), "&resource=message").await, ["m1", "m1"]);
        assert_eq!(refused(&his.get(&root(), "/messages?after=3").await).0, 409, "positions are dense");
        // The sender is the account of the assertion.
        let forged = r#"{"id":"m2","to":"all","node":"EVE","author":"EVE","person":"ANA","resource":"page","method":"DELETE","position":1}"#;
        assert_eq!(his.post(&own("BOB"), "/messages", forged).await.status, 200);
        reached(&his, 3).await;
        let message = his.get(&root(), "/messages/3").await.json();
        let member = |name: &str| message[name].clone();
        assert_eq!(
            ["node", "author", "person", "resource", "method", "data", "to"].map(member),
            [json!("BOB"), json!(null), json!(null), json!("message"), json!("POST"), json!(null), json!("all")]
        );
    }

    async fn what_a_node_sends_is_bounded(his) {
        #[rustfmt::skip]
        let bodies = [
            (r#"{"to":"all"}"#, "bad_member"), (r#"{"id":"","to":"all"}"#, "bad_member"), (r#"{"id":7,"to":"all"}"#, "bad_member"),
            (r#"{"id":"m"}"#, "bad_member"), (r#"{"id":"m","to":"ANA"}"#, "bad_member"), (r#"{"id":"m","to":{}}"#, "bad_member"),
            (r#"{"id":"m","to":{"node":"A","role":"b"}}"#, "bad_member"), (r#"{"id":"m","to":{"node":null}}"#, "bad_member"),
            (r#"{"id":"m","to":["all"]}"#, "bad_member"), (r#"{"id":"m","to":"all","type":"page.post"}"#, "bad_member"),
            (r#"{"id":"m","to":"all","type":7}"#, "bad_member"), (r#"[]"#, "not_an_object"),
        ];
        for (body, code) in bodies {
            assert_eq!(refused(&his.post(&root(), "/messages", body).await), (422, code.to_owned()), "{body}");
        }
        let long = json!({ "id": "long", "to": "all", "data": "x".repeat(1_000_000) }).to_string();
        assert_eq!(his.post(&root(), "/messages", &long).await.status, 200);
        assert_eq!(refused(&his.post(&root(), "/messages", "x".repeat((1 << 20) + 1)).await), (413, "body_too_large".to_owned()));
        reached(&his, 1).await;
        assert_eq!(his.get(&root(), "/messages/1").await.json()["data"].as_str().unwrap().len(), 1_000_000);
        let few = his.with(|config| config.max_messages_per_account = 2).await;
        sent(&few, &professional(), "m1", json!("all")).await;
        sent(&few, &professional(), "m2", json!("all")).await;
        let more = send(&few, &professional(), "m3", json!("all"), json!(1)).await;
        assert_eq!(refused(&more), (429, "too_many_messages".to_owned()));
        sent(&few, &professional(), "m2", json!("all")).await;
        assert_eq!(refused(&send(&few, &professional(), "m2", json!("all"), json!(1)).await), (422, "message_exists".to_owned()));
        sent(&few, &root(), "m1", json!("all")).await;
    }

    async fn an_id_is_free_again_when_its_message_is_kept_no_longer(his) {
        sent(&his, &professional(), "m", json!("all")).await;
        his.person("ANA", "{}").await;
        reached(&his, 2).await;
        let most = match &his.database {
            // As if a million more had come.
            Database::Postgres(_) => {
                his.sql("UPDATE fedgate_relay SET position = 1000005, decided = 1000000").await;
                5
            }
            Database::Sqlite(_) => 1,
        };
        while his.store.drop_messages(None, Some(most)).await.unwrap() {}
        assert_eq!(refused(&his.get(&root(), "/messages/1").await).0, 404);
        let again = send(&his, &professional(), "m", json!("all"), json!("another")).await;
        assert_eq!((again.status, again.text()), (200, "null"));
    }

    async fn a_message_has_a_type_that_a_reader_can_ask_for(his) {
        his.person("ANA", "{}").await;
        his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
        his.patch(&professional(), "/pols/ANA/p1", r#"{"a":1}"#).await;
        his.post(&own("ANA"), "/messages", r#"{"id":"m1","to":{"node":"ANA"},"type":"org.example:result","data":7}"#).await;
        reached(&his, 4).await;
        let of = async |actor: &Actor, kind: &str| seen(&his, actor, &format!("&type={kind}")).await;
        assert_eq!(of(&root(), "page.patch").await, ["p1"]);
        assert_eq!(of(&own("ANA"), "person.post").await, ["ANA"]);
        assert_eq!(of(&own("ANA"), "org.example:result").await, ["m1"]);
        assert!(of(&root(), "org.example:result").await.is_empty() && of(&root(), "page").await.is_empty());
        let accepting = async |target: &str, kind: &str| his.request(&own("ANA"), "GET", target).header("accept", kind).send().await;
        let batch = accepting("/messages", "application/cloudevents-batch+json").await.json();
        let described: Vec<[Value; 4]> = batch.as_array().unwrap().iter()
            .map(|event| ["id", "type", "subject", "node"].map(|name| event[name].clone())).collect();
        let (ana, adm, doc) = ("ANA", "ARGBUE111FAV", "ITAPYT999HON");
        assert_eq!(described, [
            ["1.1", "person.post", "ANA", adm], ["2.1", "page.post", "ANA/p1", adm],
            ["3.1", "page.patch", "ANA/p1", doc], ["4.1", "org.example:result", "m1", ana],
        ].map(|event| event.map(Value::from)));
        let one = accepting("/messages/4", "application/cloudevents+json").await;
        assert_eq!((one.header("content-type"), one.json()), (Some("application/cloudevents+json"), batch[3].clone()));
        // CloudEvents 1.0.2: each attribute is a text that is not empty, and its name has lower-case letters and digits alone.
        for (name, value) in batch[3].as_object().unwrap() {
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()), "{name}");
            assert!(name == "data" || !value.as_str().unwrap().is_empty(), "{name}");
        }
        assert_eq!(one.json()["data"], accepting("/messages/4", "application/json").await.json());
        let time = batch[3]["time"].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_emptied_leaves_the_next_accounts_of_its_ids_nothing() {
    let his = His::on_postgres().await;
    his.person("ANA", r#"{"roles":["end_user"]}"#).await;
    sent(&his, &professional(), "to-ana", json!({ "node": "ANA" })).await;
    his.sql("TRUNCATE people, pols, personal_docs").await;
    sent(&his, &professional(), "late", json!({ "node": "ANA" })).await;
    his.person("ANA", r#"{"roles":["end_user"]}"#).await;
    sent(&his, &professional(), "new", json!({ "node": "ANA" })).await;
    reached(&his, 8).await;
    assert_eq!(seen(&his, &own("ANA"), "&resource=message").await, ["new"]);
    assert_eq!(seen(&his, &own("ANA"), "&person=ANA").await, ["RESET", "RESET", "RESET", "ANA"]);
}
