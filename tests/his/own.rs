//! The scope `own` of a caller whose person has several ids: the records of all of them, and of nobody else.

use std::time::{Duration, Instant};

use fedgate_his::store::{MessageFilter, MessageReach, OwnPersons, RecordReach};
use serde_json::{Value, json};

use crate::support::{Actor, His, own};

/// A caller whose person has two ids.
const BOTH: Actor = Actor {
    account: "ANA",
    same: &["OLD"],
    scope: fedgate_core::assertion::RecordScope::Own,
    grants: &[],
    roles: &["end_user"],
};

/// The persons and records that the messages which a caller sees are about, in order, once there are so many.
async fn seen(his: &His, actor: &Actor, query: &str, count: usize) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let reply = his.get(actor, &format!("/messages?after=0&limit=1000{query}")).await;
        let messages: Vec<Value> = serde_json::from_str(reply.text()).unwrap();
        if messages.len() >= count {
            return messages
                .iter()
                .map(|one| format!("{} {}", one["person"].as_str().unwrap(), one["id"].as_str().unwrap()))
                .collect();
        }
        assert!(Instant::now() < deadline, "{messages:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn three_persons(his: &His) {
    for id in ["ANA", "OLD", "EVA"] {
        his.person(
            id,
            &format!(r#"{{"name":"Ana","lastname":"Betz","dob":"1985-10-04","of":"{id}","roles":["end_user"]}}"#),
        )
        .await;
        his.page(id, &format!("{id}1"), &format!(r#"{{"id":"{id}1"}}"#)).await;
    }
}

crate::on_both_stores! {
    async fn the_records_of_every_id_of_a_person_are_its_own_and_no_others_are(his) {
        three_persons(&his).await;
        for id in ["ANA", "OLD"] {
            let path = |rest: &str| rest.replace("{}", id);
            assert_eq!(his.get(&BOTH, &path("/people/{}")).await.json()["of"], id);
            assert_eq!(his.patch(&BOTH, &path("/people/{}"), r#"{"phone":"1"}"#).await.status, 200);
            assert_eq!(his.get(&BOTH, &path("/pols/{}/{}1")).await.status, 200);
            let page = path(r#"{"id":"{}2"}"#);
            assert_eq!(his.post(&BOTH, &path("/pols/{}/{}2"), &page).await.status, 200);
            assert_eq!(his.patch(&BOTH, &path("/pols/{}/{}2"), r#"{"summary":"s"}"#).await.status, 200);
            assert_eq!(his.get(&BOTH, &path("/pols/{}")).await.json().as_array().unwrap().len(), 2);
            let document = r#"{"document":"aGVsbG8=","data":{}}"#;
            assert_eq!(his.post(&BOTH, &path("/personal_docs/{}/{}2/{}d"), document).await.status, 200);
            assert_eq!(his.get(&BOTH, &path("/personal_docs/{}/{}2/{}d")).await.status, 200);
            assert_eq!(his.get(&BOTH, &path("/personal_docs/{}")).await.json().as_array().unwrap().len(), 1);
            assert_eq!(his.delete(&BOTH, &path("/personal_docs/{}/{}2/{}d")).await.status, 200);
            assert_eq!(his.delete(&BOTH, &path("/pols/{}/{}2")).await.status, 200);
        }
        // With the gateway's decision on that person, the assertion is for no such request. Without a subject, nothing is found.
        for (method, path, body) in [
            ("GET", "/people/EVA", ""), ("PATCH", "/people/EVA", "{}"), ("DELETE", "/people/EVA", ""), ("GET", "/pols/EVA/EVA1", ""),
            ("PATCH", "/pols/EVA/EVA1", "{}"), ("DELETE", "/pols/EVA/EVA1", ""), ("POST", "/pols/EVA/EVA2", r#"{"id":"EVA2"}"#),
            // The page of one person under the path of another, also of the same person.
            ("GET", "/pols/ANA/EVA1", ""), ("PATCH", "/pols/OLD/EVA1", "{}"),
            ("GET", "/password/EVA", ""),
        ] {
            let mut claims = his.claims(&BOTH, method, path);
            if path.contains("/EVA") && !path.contains("ANA") && !path.contains("OLD") {
                assert_eq!(his.request(&BOTH, method, path).body(body).send().await.status, 401, "{method} {path}");
            }
            claims.subject = None;
            let token = Some(his.signer.sign(&claims));
            assert_eq!(his.request(&BOTH, method, path).body(body).token(token).send().await.status, 404, "{method} {path}");
        }
        let people = his.get(&BOTH, "/people").await.json();
        let ids: Vec<&str> = people.as_array().unwrap().iter().map(|person| person[0]["of"].as_str().unwrap()).collect();
        assert_eq!(ids, ["ANA", "OLD"]);
        let one = his.get(&BOTH, "/people?limit=1").await;
        assert!(one.json().as_array().unwrap().len() == 1 && one.header("link").is_some(), "page by page");
        // Each account alone has its own.
        assert_eq!(his.get(&own("OLD"), "/people").await.json().as_array().unwrap().len(), 1);
        assert_eq!(his.get(&own("ANA"), "/people/OLD").await.status, 401);
    }

    async fn the_messages_about_every_id_of_a_person_are_seen_in_order_and_no_others(his) {
        three_persons(&his).await;
        let all = ["ANA ANA", "ANA ANA1", "OLD OLD", "OLD OLD1"];
        assert_eq!(seen(&his, &BOTH, "", 4).await, all);
        assert_eq!(seen(&his, &BOTH, "&person=OLD", 2).await, all[2..]);
        assert_eq!(seen(&his, &BOTH, "&resource=page", 2).await, [all[1], all[3]]);
        assert_eq!(seen(&his, &BOTH, "&person=EVA", 0).await, [""; 0]);
        assert_eq!(seen(&his, &own("OLD"), "", 2).await, all[2..]);
        // One by one, by the position of the last: none is missed, none comes twice.
        let (mut after, mut found) = ("0".to_owned(), vec![]);
        while found.len() < 4 {
            let reply = his.get(&BOTH, &format!("/messages?after={after}&limit=1")).await;
            found.extend(reply.json().as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()));
            let link = reply.header("link").unwrap();
            let next = link.split_once("after=").unwrap().1.split(['&', '>']).next().unwrap();
            after = next.to_owned();
        }
        assert_eq!(found, ["ANA", "ANA1", "OLD", "OLD1"]);
        // A single message by its position.
        for (position, status) in [(1, 200), (3, 200), (5, 404)] {
            assert_eq!(his.get(&BOTH, &format!("/messages/{position}")).await.status, status, "{position}");
        }
        // A reader who waits is woken by a message about each, without looking by itself meanwhile.
        let reach = RecordReach::Own(OwnPersons::new("ANA", ["OLD".to_owned()]));
        let reach = MessageReach::new(reach, "ANA", &[]);
        let concerns = reach.concerns(&MessageFilter::default()).unwrap();
        assert!(["person ANA", "person OLD"].iter().all(|concern| concerns.iter().any(|one| one == concern)), "{concerns:?}");
        // A reader who waits is woken by a message about each.
        for id in ["OLD", "ANA"] {
            let waits = async { his.get(&BOTH, "/messages?after=last&wait=20").await.json() };
            let writes = async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                his.patch(&crate::support::root(), "/people/EVA", r#"{"phone":"2"}"#).await;
                his.patch(&crate::support::root(), &format!("/people/{id}"), r#"{"phone":"2"}"#).await
            };
            let (heard, _) = tokio::join!(waits, writes);
            assert_eq!(heard[0]["person"], json!(id), "{heard}");
        }
    }

    async fn an_id_that_a_former_account_had_shows_nothing_older_than_itself(his) {
        three_persons(&his).await;
        assert_eq!(seen(&his, &BOTH, "", 4).await.len(), 4);
        his.sql("DELETE FROM pols WHERE book = 'OLD'").await;
        his.sql("DELETE FROM people WHERE id = 'OLD'").await;
        his.person("OLD", r#"{"of":"OLD"}"#).await;
        assert_eq!(seen(&his, &BOTH, "", 3).await, ["ANA ANA", "ANA ANA1", "OLD OLD"]);
    }

    async fn what_is_of_an_account_stays_with_it(his) {
        three_persons(&his).await;
        let old = Actor { account: "OLD", same: &["ANA"], ..BOTH };
        assert_eq!(seen(&his, &BOTH, "", 4).await.len(), 4);
        let put = his.request(&BOTH, "PUT", "/messages/cursors/c").body(r#"{"position":1}"#).send().await;
        assert_eq!(put.status, 201, "{}", put.text());
        assert_eq!(his.get(&old, "/messages/cursors/c").await.status, 404);
        // The gateway asserts no other id for a password. If it did, the page would still change none but the account's.
        assert_eq!(his.get(&own("ANA"), "/password/OLD").await.status, 401);
    }

    async fn candidates_for_the_same_person_are_within_reach(his) {
        three_persons(&his).await;
        let asked = r#"{"name":"Ana","lastname":"Betz","dob":"1985-10-04"}"#;
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let found = his.post(&BOTH, "/index/match", asked).await.json();
            let mut ids: Vec<&str> = found.as_array().unwrap().iter().map(|one| one["person"].as_str().unwrap()).collect();
            ids.sort_unstable();
            if ids == ["ANA", "OLD"] {
                break;
            }
            assert!(!ids.contains(&"EVA"), "{found}");
            assert!(Instant::now() < deadline, "{found}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
