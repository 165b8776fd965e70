//! Merges of what is merged already, several at once, and rows that other programs write.

use std::time::{Duration, Instant};

use serde_json::json;

use super::merges::{exact, merge, record, unmerge};
use crate::support::{His, own, professional, root};

async fn people(his: &His, ids: &[&str]) {
    for id in ids {
        his.person(id, &format!(r#"{{"name":"{id}","of_{id}":1.0}}"#)).await;
    }
}

/// The answer to a merge: its status and code, and its text.
async fn refused(his: &His, body: serde_json::Value) -> (u16, String, String) {
    let reply = his.post(&root(), "/index/merges", body.to_string()).await;
    let told = reply.json();
    let text = |member: &str| told[member].as_str().unwrap_or_default().to_owned();
    (reply.status, text("code"), text("error"))
}

crate::on_both_stores! {
    async fn what_cannot_be_merged_is_refused_and_nothing_is_written(his) {
        people(&his, &["A", "B", "C"]).await;
        merge(&his, "A", "B").await;
        let order = |old: &str, survivor: &str| json!({ "old": old, "survivor": survivor });
        #[rustfmt::skip]
        let cases = [
            (order("A", "C"), 409, "person_merged"), (order("C", "A"), 409, "person_merged"),
            (order("B", "A"), 409, "person_merged"),
            (order("B", "B"), 422, "merge_with_itself"),
            (order("X", "B"), 404, "user_not_found"), (order("B", "X"), 404, "user_not_found"),
            (json!({ "old": 1, "survivor": "B" }), 422, "bad_member"), (json!({ "old": "C" }), 422, "bad_member"),
            (json!({ "old": "C", "survivor": "B", "why": 7 }), 422, "bad_member"),
            (json!({ "old": "C", "survivor": "B", "why": "x".repeat(2001) }), 422, "bad_member"),
            (json!({ "old": "C", "survivor": "B", "fields": [] }), 422, "bad_member"),
            (json!({ "old": "C", "survivor": "B", "fields": { "name": "both" } }), 422, "bad_member"),
            (json!({ "old": "", "survivor": "B" }), 422, "bad_member"),
        ];
        for (body, status, code) in cases {
            let (was, is, text) = refused(&his, body.clone()).await;
            assert_eq!((was, is.as_str()), (status, code), "{body}: {text}");
        }
        // The caller is told which id stays.
        assert!(refused(&his, order("A", "C")).await.2.contains("`B`"));
        for target in ["/index/merges/99", "/index/merges/x", "/index/merges/-1"] {
            assert_eq!(his.get(&root(), target).await.json()["code"], "merge_not_found", "{target}");
            assert_eq!(his.delete(&root(), target).await.json()["code"], "merge_not_found", "{target}");
        }
        // Whatever the gateway asserts, nobody with the scope `own` merges.
        let order = json!({ "old": "C", "survivor": "B" }).to_string();
        assert_eq!(his.post(&own("B"), "/index/merges", order).await.status, 403);
        assert_eq!(his.get(&own("B"), "/index/merges").await.status, 403);
        assert_eq!(his.get(&own("B"), "/index/merges/1").await.status, 403);
        assert_eq!(his.delete(&own("B"), "/index/merges/1").await.status, 403);
        assert_eq!(his.sql_text("SELECT CAST(count(*) AS text) FROM fedgate_merges").await.unwrap(), "1");
    }

    async fn a_merged_person_is_not_deleted_until_the_merge_ends(his) {
        people(&his, &["A", "B"]).await;
        let number = merge(&his, "A", "B").await;
        for id in ["A", "B"] {
            assert_eq!(his.patch(&root(), &format!("/people/{id}"), r#"{"active":false}"#).await.status, 200);
            let reply = his.delete(&root(), &format!("/people/{id}")).await;
            assert_eq!((reply.status, reply.json()["code"].clone()), (409, json!("person_merged")), "{id}");
        }
        assert_eq!(unmerge(&his, number).await.status, 200);
        for id in ["A", "B"] {
            assert_eq!(his.delete(&root(), &format!("/people/{id}")).await.status, 200, "{id}");
        }
    }

    async fn a_chain_of_merges_ends_from_its_last_and_each_record_is_exact(his) {
        people(&his, &["A", "B", "C", "D"]).await;
        let (first, second, third) = (merge(&his, "A", "B").await, merge(&his, "B", "C").await, merge(&his, "D", "C").await);
        assert_eq!(his.get(&professional(), "/people/A").await.header("location").unwrap(), "/people/C");
        assert_eq!(record(&his, "C").await, exact(r#"{"id":"C","name":"C","of_A":1.0,"of_B":1.0,"of_C":1.0,"of_D":1.0,"roles":["end_user"]}"#));
        // A write to each, seen by all that follow it.
        for (id, member) in [("A", "a"), ("B", "b"), ("C", "c"), ("D", "d")] {
            assert_eq!(his.patch(&professional(), &format!("/people/{id}"), format!(r#"{{"{member}":2.50,"name":"{member}"}}"#)).await.status, 200);
        }
        for (merge, first) in [(first, second), (second, third)] {
            let reply = unmerge(&his, merge).await;
            assert_eq!((reply.status, reply.json()["code"].clone()), (409, json!("merge_not_newest")));
            assert!(reply.json()["error"].as_str().unwrap().contains(&first.to_string()), "{}", reply.text());
        }
        assert_eq!(unmerge(&his, third).await.status, 200);
        assert_eq!(record(&his, "D").await, exact(r#"{"id":"D","name":"d","of_D":1.0,"d":2.50,"roles":["end_user"]}"#));
        assert_eq!(record(&his, "C").await, exact(r#"{"id":"C","name":"c","of_A":1.0,"of_B":1.0,"of_C":1.0,"a":2.50,"b":2.50,"c":2.50,"roles":["end_user"]}"#));
        assert_eq!(unmerge(&his, second).await.status, 200);
        assert_eq!(record(&his, "C").await, exact(r#"{"id":"C","name":"c","of_C":1.0,"c":2.50,"roles":["end_user"]}"#));
        assert_eq!(record(&his, "B").await, exact(r#"{"id":"B","name":"b","of_A":1.0,"of_B":1.0,"a":2.50,"b":2.50,"roles":["end_user"]}"#));
        assert_eq!(his.get(&professional(), "/people/A").await.header("location").unwrap(), "/people/B");
        assert_eq!(unmerge(&his, first).await.status, 200);
        assert_eq!(record(&his, "A").await, exact(r#"{"id":"A","name":"a","of_A":1.0,"a":2.50,"roles":["end_user"]}"#));
        assert_eq!(record(&his, "B").await, exact(r#"{"id":"B","name":"b","of_B":1.0,"b":2.50,"roles":["end_user"]}"#));
        assert_eq!(his.sql_text("SELECT CAST(count(*) AS text) FROM fedgate_same_persons").await.unwrap(), "0");
        assert_eq!(his.sql_text("SELECT CAST(count(kept) AS text) FROM fedgate_merges").await.unwrap(), "0");
    }

    async fn a_person_has_a_bounded_number_of_ids(his) {
        for n in 0..17 {
            his.person(Box::leak(format!("P{n:02}").into_boxed_str()), "{}").await;
        }
        for n in 1..16 {
            merge(&his, &format!("P{n:02}"), "P00").await;
        }
        let (status, code, _) = refused(&his, json!({ "old": "P16", "survivor": "P00" })).await;
        assert_eq!((status, code.as_str()), (422, "too_many_ids"));
    }

    async fn of_merges_in_both_directions_at_once_one_comes_first(his) {
        for round in 0..8 {
            let (a, b) = (format!("A{round}"), format!("B{round}"));
            people(&his, &[&a, &b]).await;
            let order = |old: &str, survivor: &str| json!({ "old": old, "survivor": survivor }).to_string();
            let (one, other, actor) = (order(&a, &b), order(&b, &a), root());
            let (one, other) = tokio::join!(his.post(&actor, "/index/merges", one), his.post(&actor, "/index/merges", other));
            let mut statuses = [one.status, other.status];
            statuses.sort();
            assert_eq!(statuses, [200, 409], "{} {}", one.text(), other.text());
        }
    }

    async fn nothing_is_lost_that_is_written_while_persons_are_merged_and_parted(his) {
        people(&his, &["A", "B"]).await;
        let began = Instant::now();
        let writes = async |id: &'static str| {
            let mut count = 0;
            while began.elapsed() < Duration::from_secs(4) {
                count += 1;
                let change = format!(r#"{{"n_{id}":{count},"k_{id}_{}":{count}.50}}"#, count % 7);
                let reply = his.patch(&professional(), &format!("/people/{id}"), change).await;
                assert!(matches!(reply.status, 200 | 503), "{}", reply.text());
                if reply.status != 200 {
                    count -= 1;
                    continue;
                }
                let page = format!("{id}-{count}");
                let reply = his.post(&professional(), &format!("/pols/{id}/{page}"), format!(r#"{{"id":"{page}"}}"#)).await;
                assert_eq!(reply.status, 200, "{}", reply.text());
            }
            count
        };
        let merging = async {
            let mut count = 0;
            while began.elapsed() < Duration::from_secs(4) {
                let number = merge(&his, "A", "B").await;
                let reply = unmerge(&his, number).await;
                assert_eq!(reply.status, 200, "{}", reply.text());
                count += 1;
            }
            count
        };
        let (of_a, of_b, merges) = tokio::join!(writes("A"), writes("B"), merging);
        assert!(of_a > 3 && of_b > 3 && merges > 1, "{of_a} {of_b} {merges}");
        for (id, other, count) in [("A", "B", of_a), ("B", "A", of_b)] {
            let record = record(&his, id).await;
            let members = record.as_object().unwrap();
            assert_eq!(members[&format!("n_{id}")], count.to_string(), "{id}: {record}");
            assert!(!members.keys().any(|name| name.starts_with(&format!("n_{other}")) || name.starts_with(&format!("k_{other}"))), "{id}: {record}");
            let pages = his.get(&professional(), &format!("/pols/{id}")).await.json();
            assert_eq!(pages.as_array().unwrap().len(), count, "{id}");
        }
    }

    async fn what_another_program_writes_to_the_survivor_stays_with_it(his) {
        people(&his, &["A", "B"]).await;
        let number = merge(&his, "A", "B").await;
        match &his.database {
            fedgate_base::db::Database::Postgres(_) => his.sql(r#"UPDATE people SET data = (data - 'of_B') || '{"name":"x","new":1.20,"of_A":3}' WHERE id = 'B'"#).await,
            fedgate_base::db::Database::Sqlite(_) => his.sql(r#"UPDATE people SET data = json_set(json_remove(data, '$.of_B'), '$.name', 'x', '$.new', json('1.20'), '$.of_A', 3) WHERE id = 'B'"#).await,
        }
        assert_eq!(unmerge(&his, number).await.status, 200);
        assert_eq!(record(&his, "B").await, exact(r#"{"id":"B","name":"x","new":1.20,"of_A":3,"roles":["end_user"]}"#));
        assert_eq!(record(&his, "A").await, exact(r#"{"id":"A","name":"A","of_A":1.0,"roles":["end_user"]}"#));
    }

    async fn a_person_whom_another_program_removes_is_nobody_elses_record(his) {
        people(&his, &["A", "B", "C", "D", "E"]).await;
        merge(&his, "A", "B").await;
        merge(&his, "C", "B").await;
        merge(&his, "D", "E").await;
        his.sql("DELETE FROM people WHERE id = 'A'").await;
        his.sql("UPDATE people SET id = 'F' WHERE id = 'E'").await;
        assert_eq!(his.sql_text("SELECT CAST(count(*) AS text) FROM fedgate_same_persons").await.unwrap(), "0");
        // Another person gets the id.
        his.person("A", r#"{"name":"another"}"#).await;
        assert_eq!(record(&his, "A").await, exact(r#"{"id":"A","name":"another","roles":["end_user"]}"#));
        assert_eq!(his.get(&professional(), "/people/D").await.status, 200);
        assert_eq!(his.sql_text("SELECT CAST(count(*) AS text) FROM fedgate_merges WHERE undone_at IS NULL").await.unwrap(), "0");
    }

    async fn a_stored_record_that_is_no_object_is_not_merged(his) {
        people(&his, &["B"]).await;
        his.sql("INSERT INTO people (id, data) VALUES ('L', '[1]'), ('N', NULL)").await;
        for id in ["L", "N"] {
            for (old, survivor) in [(id, "B"), ("B", id)] {
                let (status, code, _) = refused(&his, json!({ "old": old, "survivor": survivor })).await;
                assert_eq!((status, code.as_str()), (409, "record_not_an_object"), "{old} {survivor}");
            }
        }
    }

    async fn a_merged_record_has_the_bound_of_any_other(his) {
        let his = his.with(|config| config.max_record_bytes = 300).await;
        his.person("A", &format!(r#"{{"a":"{}"}}"#, "x".repeat(200))).await;
        his.person("B", &format!(r#"{{"b":"{}"}}"#, "x".repeat(200))).await;
        let (status, code, _) = refused(&his, json!({ "old": "A", "survivor": "B" })).await;
        assert_eq!((status, code.as_str()), (413, "record_too_large"));
        his.person("C", "{}").await;
        merge(&his, "C", "B").await;
        let reply = his.patch(&professional(), "/people/C", format!(r#"{{"c":"{}"}}"#, "x".repeat(200))).await;
        assert_eq!(reply.status, 413, "the survivor's record would be too long");
        assert_eq!(record(&his, "B").await.get("c"), None);
    }
}

/// The operator's commands on a store, in both forms.
fn commands(config: &std::path::Path) {
    let run = |arguments: &[&str]| {
        let out = super::program::fedhis(arguments, config);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    };
    assert_eq!(
        run(&["index", "merge", "A", "B", "--why", "one woman"]),
        (Some(0), "merge 1: A is now B\n".into(), String::new())
    );
    let (code, told, _) = run(&["index", "merge", "A", "B", "--json"]);
    assert_eq!(
        (code, serde_json::from_str::<serde_json::Value>(&told).unwrap()),
        (Some(0), json!({ "merge": 1, "old": "A", "survivor": "B" }))
    );
    assert_eq!(run(&["index", "merge", "B", "C"]).0, Some(0));
    for (arguments, code, words) in [
        (vec!["index", "merge", "A", "C"], 1, "the id that stays is C"),
        (vec!["index", "merge", "X", "C"], 1, "there is no person X"),
        (vec!["index", "merge", "C", "C"], 2, "with itself"),
        (vec!["index", "merge", "C"], 2, "SURVIVOR"),
        (vec!["index", "unmerge", "1"], 1, "`fedhis index unmerge 2`"),
        (vec!["index", "unmerge", "9"], 1, "`fedhis index merges` shows all"),
    ] {
        let (was, told, complaint) = run(&arguments);
        assert!(was == Some(code) && complaint.contains(words), "{arguments:?}: {was:?} {told} {complaint}");
    }
    assert_eq!(run(&["index", "unmerge", "2"]), (Some(0), "merge 2 has ended\n".into(), String::new()));
    let (code, told, _) = run(&["index", "merges", "A"]);
    assert!(
        code == Some(0) && told.starts_with("1: A into B, 20") && told.ends_with(", because \"one woman\"\n"),
        "{told}"
    );
    let (_, told, _) = run(&["index", "merges", "--json"]);
    let all: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 2, "{told}");
    assert!(all[0]["undone_at"].is_null() && all[1]["undone_by"].is_string(), "{told}");
}

#[test]
fn an_operator_merges_by_command_on_the_embedded_store() {
    let scratch = crate::support::Scratch::new();
    let config = super::program::configuration(&scratch.0);
    let people = scratch.0.join("people.jsonl");
    std::fs::write(&people, "{\"id\":\"A\"}\n{\"id\":\"B\"}\n{\"id\":\"C\"}\n").unwrap();
    for arguments in [vec!["migrate"], vec!["import", "people", people.to_str().unwrap()]] {
        assert!(super::program::fedhis(&arguments, &config).status.success(), "{arguments:?}");
    }
    commands(&config);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_merges_by_command_on_postgresql() {
    let database = crate::support::postgres::Cluster::shared().database().await;
    let his = His::on(database.clone()).await;
    people(&his, &["A", "B", "C"]).await;
    let config = super::program::configuration_on(&his.scratch.0, &database.uri);
    commands(&config);
}
