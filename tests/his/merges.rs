//! Two records of one person: one record for readers, both again when the merge ends.

use fedgate_his::store::RecordReach;
use serde_json::{Value, json};

use crate::support::{Actor, His, Reply, own, professional, root};

const ANA: &str = r#"{"name":"Ana","lastname":"Betz","height":1.500,"phone":"1","roles":["end_user"]}"#;
const OLD: &str = r#"{"name":"Anna","lastname":"Betz","dob":"1985-10-04","weight":12345678901234567890.10,"note":null,"roles":["end_user"]}"#;

/// Merges two persons, and returns the number of the merge.
pub(crate) async fn merge(his: &His, old: &str, survivor: &str) -> u64 {
    let reply = his.post(&root(), "/index/merges", json!({ "old": old, "survivor": survivor }).to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let told = reply.json();
    assert_eq!((&told["old"], &told["survivor"]), (&json!(old), &json!(survivor)));
    told["merge"].as_u64().unwrap()
}

pub(crate) async fn unmerge(his: &His, merge: u64) -> Reply {
    his.delete(&root(), &format!("/index/merges/{merge}")).await
}

/// A person's record as text: every digit counts.
pub(crate) async fn record(his: &His, id: &str) -> Value {
    let reply = his.get(&professional(), &format!("/people/{id}")).await;
    assert_eq!(reply.status, 200, "{id}: {}", reply.text());
    exact(reply.text())
}

/// A document whose numbers are compared as they are written.
pub(crate) fn exact(text: &str) -> Value {
    // Numbers become texts, because a number of serde_json is a double.
    let (mut quoted, mut in_text, mut in_number, mut escaped) = (String::new(), false, false, false);
    for character in text.chars() {
        let is_part = character.is_ascii_digit()
            || (matches!(character, '-' | '+' | '.' | 'e' | 'E') && (in_number || character == '-'));
        if !in_text && is_part != in_number {
            quoted.push('"');
            in_number = is_part;
        }
        quoted.push(character);
        match character {
            '"' if !escaped => in_text = !in_text,
            _ => {}
        }
        escaped = character == '\\' && !escaped;
    }
    serde_json::from_str(&quoted).unwrap_or_else(|error| panic!("{error}: {quoted}"))
}

async fn listed(his: &His, actor: &Actor, target: &str) -> Vec<String> {
    let reply = his.get(actor, target).await;
    assert_eq!(reply.status, 200, "{target}: {}", reply.text());
    reply.json().as_array().unwrap().iter().map(|one| one[0]["id"].as_str().unwrap().to_owned()).collect()
}

/// The methods and data of the messages about a resource of a person.
async fn messages(his: &His, person: &str, resource: &str) -> Vec<(String, Value)> {
    let target = format!("/messages?after=0&limit=1000&person={person}&resource={resource}&wait=1");
    let reply = his.get(&professional(), &target).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let found = reply.json();
    found
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["method"].as_str().unwrap().to_owned(), one["data"].clone()))
        .collect()
}

crate::on_both_stores! {
    async fn readers_of_the_old_id_are_sent_to_the_survivor_and_nothing_else_changes(his) {
        his.person("ANA", ANA).await;
        his.person("OLD", OLD).await;
        his.page("OLD", "p1", r#"{"id":"p1","summary":"by OLD"}"#).await;
        merge(&his, "OLD", "ANA").await;
        for (target, expected) in [
            ("/people/OLD", "/people/ANA"),
            ("/people/OLD?x=1&y=%20", "/people/ANA?x=1&y=%20"),
            ("/pols/OLD?limit=1", "/pols/ANA?limit=1"),
            ("/pols/OLD/p1", "/pols/ANA/p1"),
            ("/pols/OLD/none%2e", "/pols/ANA/none%2e"),
            ("/personal_docs/OLD", "/personal_docs/ANA"),
            ("/personal_docs/OLD/p1", "/personal_docs/ANA/p1"),
            ("/personal_docs/OLD/p1/d1", "/personal_docs/ANA/p1/d1"),
        ] {
            for method in ["GET", "HEAD"] {
                let reply = his.request(&professional(), method, target).send().await;
                let sent = (reply.status, reply.header("location").unwrap(), reply.header("cache-control").unwrap());
                assert_eq!(sent, (307, expected, "no-store"), "{method} {target}");
            }
        }
        // An account's own page is that of its own id.
        assert_eq!(his.get(&own("OLD"), "/password/OLD").await.status, 200);
        assert_eq!(his.get(&professional(), "/people/NOBODY").await.status, 404);
        assert_eq!(listed(&his, &professional(), "/people").await, ["ANA"]);
        assert_eq!(listed(&his, &professional(), "/people?lastname=Betz&limit=5").await, ["ANA"]);
    }

    async fn an_id_of_any_characters_is_led_to_exactly(his) {
        his.sql("INSERT INTO people (id, data) VALUES ('A ß?', '{}')").await;
        his.person("OLD", OLD).await;
        merge(&his, "OLD", "A ß?").await;
        let reply = his.get(&professional(), "/pols/OLD/p%2b1?a=b").await;
        assert_eq!(reply.header("location").unwrap(), "/pols/A%20%C3%9F%3F/p%2b1?a=b");
    }

    async fn the_merged_record_has_the_members_of_both_and_the_end_restores_each(his) {
        his.person("ANA", ANA).await;
        his.person("OLD", OLD).await;
        let (before, of_old) = (record(&his, "ANA").await, record(&his, "OLD").await);
        let shown = his.get(&professional(), "/people/ANA").await;
        let number = merge(&his, "OLD", "ANA").await;
        let merged = r#"{"id":"ANA","name":"Ana","lastname":"Betz","height":1.500,"phone":"1","roles":["end_user"],
            "dob":"1985-10-04","weight":12345678901234567890.10,"note":null}"#;
        assert_eq!(record(&his, "ANA").await, exact(merged));
        // The same merge again is the same merge.
        assert_eq!(merge(&his, "OLD", "ANA").await, number);
        assert_eq!(record(&his, "ANA").await, exact(merged));
        assert_eq!(unmerge(&his, number).await.status, 200);
        assert_eq!((record(&his, "ANA").await, record(&his, "OLD").await), (before, of_old));
        let again = his.get(&professional(), "/people/ANA").await;
        assert_eq!((again.header("etag"), again.text()), (shown.header("etag"), shown.text()), "byte by byte");
        assert_eq!(unmerge(&his, number).await.status, 200, "it has ended already");
        let mut all = listed(&his, &professional(), "/people").await;
        all.sort();
        assert_eq!(all, ["ANA", "OLD"]);
        assert!(merge(&his, "OLD", "ANA").await > number, "another merge");
    }

    async fn the_caller_chooses_members_but_never_the_account(his) {
        his.person("ANA", r#"{"name":"Ana","phone":"1","only":1,"roles":["end_user"],"password":"a secret of hers"}"#).await;
        his.person("OLD", r#"{"name":"Anna","city":"Lima","roles":["root"],"active":false,"password":"another secret"}"#).await;
        let body = json!({
            "old": "OLD", "survivor": "ANA", "why": "one woman",
            "fields": { "name": "old", "city": "survivor", "only": "old", "roles": "old", "id": "old", "password": "old", "active": "old" },
        });
        let reply = his.post(&root(), "/index/merges", body.to_string()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let number = reply.json()["merge"].as_u64().unwrap();
        assert_eq!(record(&his, "ANA").await, exact(r#"{"id":"ANA","name":"Anna","phone":"1","roles":["end_user"]}"#));
        let hashes = async |his: &His| his.sql_text("SELECT data ->> 'password' FROM people WHERE id = 'ANA'").await.unwrap();
        let hers = hashes(&his).await;
        // What becomes of the account meanwhile stays.
        assert_eq!(his.patch(&root(), "/people/ANA", r#"{"roles":["health_professional"],"active":true}"#).await.status, 200);
        assert_eq!(unmerge(&his, number).await.status, 200);
        let restored = r#"{"id":"ANA","name":"Ana","phone":"1","only":1,"roles":["health_professional"],"active":true}"#;
        assert_eq!(record(&his, "ANA").await, exact(restored));
        assert_eq!(hashes(&his).await, hers);
        assert_eq!(record(&his, "OLD").await, exact(r#"{"id":"OLD","name":"Anna","city":"Lima","roles":["root"],"active":false}"#));
        let shown = his.get(&root(), &format!("/index/merges/{number}")).await.json();
        assert_eq!((&shown["why"], &shown["by"], &shown["undone_by"]), (&json!("one woman"), &json!("ARGBUE111FAV"), &json!("ARGBUE111FAV")));
    }

    async fn the_books_are_one_whichever_id_was_written(his) {
        his.person("ANA", ANA).await;
        his.person("OLD", OLD).await;
        for (person, page) in [("OLD", "a1"), ("ANA", "b2"), ("OLD", "c3"), ("ANA", "d4")] {
            his.page(person, page, &format!(r#"{{"id":"{page}","page_date":"2024-01-01","author":"x"}}"#)).await;
        }
        let document = r#"{"id":"d-old","fedacct":"OLD","pol":"a1","document":"aGVsbG8=","content_type":"text/plain"}"#;
        let stored = his.request(&root(), "POST", "/personal_docs/OLD/a1/d-old").header("content-type", "application/json").body(document).send().await;
        assert_eq!(stored.status, 200, "{}", stored.text());
        let number = merge(&his, "OLD", "ANA").await;
        assert_eq!(listed(&his, &professional(), "/pols/ANA").await, ["a1", "b2", "c3", "d4"]);
        // Page by page, across both books.
        let mut target = "/pols/ANA?limit=1".to_owned();
        let mut seen = vec![];
        loop {
            let reply = his.get(&professional(), &target).await;
            seen.extend(reply.json().as_array().unwrap().iter().map(|one| one[0]["id"].as_str().unwrap().to_owned()));
            let Some(link) = reply.header("link") else { break };
            target = link.split(['<', '>']).nth(1).unwrap().to_owned();
        }
        assert_eq!(seen, ["a1", "b2", "c3", "d4"]);
        assert_eq!(listed(&his, &professional(), "/pols/ANA?since=2023-01-01&page_type=none").await, [""; 0]);
        for page in ["a1", "b2"] {
            assert_eq!(his.get(&professional(), &format!("/pols/ANA/{page}")).await.json()["id"], page);
        }
        let bytes = his.get(&professional(), "/personal_docs/ANA/a1/d-old").await;
        assert_eq!((bytes.status, bytes.text()), (200, "hello"));
        assert_eq!(his.get(&professional(), "/personal_docs/ANA").await.json().as_array().unwrap().len(), 1);
        assert_eq!(his.get(&professional(), "/personal_docs/ANA/a1").await.json().as_array().unwrap().len(), 1);
        // A page of either is changed and deleted under either id, and a node that repeats a page is told that it is there.
        assert_eq!(his.patch(&professional(), "/pols/ANA/a1", r#"{"summary":"s","book":"OLD"}"#).await.status, 200);
        assert_eq!(his.patch(&professional(), "/pols/OLD/b2", r#"{"summary":"s"}"#).await.status, 200);
        assert_eq!(his.patch(&professional(), "/pols/ANA/b2", r#"{"book":"NOBODY"}"#).await.status, 422);
        let again = r#"{"id":"c3","page_date":"2024-01-01","author":"x"}"#;
        for person in ["OLD", "ANA"] {
            assert_eq!(his.post(&professional(), &format!("/pols/{person}/c3"), again).await.status, 200, "{person}");
        }
        assert_eq!(his.post(&professional(), "/pols/ANA/c3", r#"{"id":"c3","author":"y"}"#).await.status, 422);
        // The phone goes on sending to the old id.
        his.page("OLD", "e5", r#"{"id":"e5","book":"OLD"}"#).await;
        assert_eq!(listed(&his, &professional(), "/pols/ANA").await.len(), 5);
        assert_eq!(his.delete(&root(), "/pols/ANA/e5").await.status, 200);
        his.page("OLD", "f6", r#"{"id":"f6","book":"OLD"}"#).await;
        assert_eq!(unmerge(&his, number).await.status, 200);
        assert_eq!(listed(&his, &professional(), "/pols/ANA").await, ["b2", "d4"]);
        assert_eq!(listed(&his, &professional(), "/pols/OLD").await, ["a1", "c3", "f6"]);
        assert_eq!(his.get(&professional(), "/pols/ANA/a1").await.status, 404);
        assert_eq!(his.get(&professional(), "/personal_docs/ANA/a1/d-old").await.status, 404);
    }

    async fn a_write_to_the_old_id_is_seen_and_stays_with_it(his) {
        his.person("ANA", ANA).await;
        his.person("OLD", OLD).await;
        let number = merge(&his, "OLD", "ANA").await;
        // The shapes of the HMIS, which knows nothing of the merge.
        let changes = r#"{"phone":"77","weight":1.10,"modification_info":{"user":"demo","node":"n"},"id":"OLD"}"#;
        assert_eq!(his.patch(&professional(), "/people/OLD", changes).await.status, 200);
        assert_eq!(his.patch(&professional(), "/people/ANA", r#"{"name":"Ana María","height":1.510}"#).await.status, 200);
        let merged = record(&his, "ANA").await;
        assert_eq!(merged["phone"], "77");
        assert_eq!((&merged["weight"], &merged["height"], &merged["id"]), (&json!("1.10"), &json!("1.510"), &json!("ANA")));
        // The account of the old id is its own.
        assert_eq!(his.patch(&root(), "/people/OLD", r#"{"active":false,"roles":["x"],"city":"Lima"}"#).await.status, 200);
        let merged = record(&his, "ANA").await;
        assert_eq!((&merged["city"], &merged["roles"], merged.get("active")), (&json!("Lima"), &json!(["end_user"]), None));
        assert_eq!(unmerge(&his, number).await.status, 200);
        let ana = r#"{"id":"ANA","name":"Ana María","lastname":"Betz","height":1.510,"phone":"1","roles":["end_user"]}"#;
        assert_eq!(record(&his, "ANA").await, exact(ana));
        let old = r#"{"id":"OLD","name":"Anna","lastname":"Betz","dob":"1985-10-04","weight":1.10,"note":null,"phone":"77","city":"Lima",
            "roles":["x"],"active":false,"modification_info":{"user":"demo","node":"n"}}"#;
        assert_eq!(record(&his, "OLD").await, exact(old));
    }

    async fn a_condition_on_the_old_id_is_one_on_what_its_reader_was_shown(his) {
        his.person("ANA", ANA).await;
        his.person("OLD", OLD).await;
        let stale = his.get(&professional(), "/people/OLD").await.header("etag").unwrap().to_owned();
        merge(&his, "OLD", "ANA").await;
        let shown = his.get(&professional(), "/people/ANA").await.header("etag").unwrap().to_owned();
        let change = async |id: &str, tag: &str| {
            let target = format!("/people/{id}");
            let request = his.request(&professional(), "PATCH", &target).header("if-match", tag).body(r#"{"city":"Lima"}"#);
            request.send().await.status
        };
        assert_eq!(change("OLD", &stale).await, 412);
        assert_eq!(change("OLD", &shown).await, 200);
        assert_eq!(change("ANA", &shown).await, 412);
    }

    async fn each_merge_and_each_end_is_one_message(his) {
        his.person("ANA", ANA).await;
        his.person("OLD", OLD).await;
        let number = merge(&his, "OLD", "ANA").await;
        merge(&his, "OLD", "ANA").await;
        assert_eq!(unmerge(&his, number).await.status, 200);
        assert_eq!(unmerge(&his, number).await.status, 200);
        let told = messages(&his, "ANA", "person").await;
        let data = json!({ "old": "OLD", "survivor": "ANA", "merge": number });
        assert_eq!(told[1..], [("MERGE".to_owned(), data.clone()), ("UNMERGE".to_owned(), data)]);
        assert_eq!(messages(&his, "OLD", "person").await.len(), 1, "nothing about the old id");
        let reply = his.get(&professional(), "/messages?after=0&method=MERGE&type=person.merge").await;
        assert_eq!(reply.json().as_array().unwrap().len(), 1, "{}", reply.text());
        assert_eq!(reply.json()[0]["node"], "ARGBUE111FAV");
    }

    async fn an_old_id_is_no_candidate_beside_its_survivor(his) {
        let ana = r#"{"name":"Ana María","lastname":"García Zubizarreta","dob":"1985-10-04","gender":"f"}"#;
        for id in ["ANA", "OLD"] {
            his.person(id, ana).await;
        }
        let began = std::time::Instant::now();
        let found = async || {
            let reply = his.post(&professional(), "/index/match", ana).await.json();
            let mut found: Vec<_> = reply.as_array().unwrap().iter().map(|one| one["person"].as_str().unwrap().to_owned()).collect();
            found.sort();
            found
        };
        while found().await != ["ANA", "OLD"] {
            assert!(began.elapsed() < std::time::Duration::from_secs(30));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let number = merge(&his, "OLD", "ANA").await;
        assert_eq!(found().await, ["ANA"]);
        assert_eq!(unmerge(&his, number).await.status, 200);
        assert_eq!(found().await, ["ANA", "OLD"]);
    }

    async fn whoever_knows_the_old_record_alone_finds_the_person(his) {
        let old = r#"{"name":"Brunhilda","lastname":"Maidenname","dob":"1961-02-03","gender":"f","identifiers":["DNI-778899X"]}"#;
        his.person("MERO", old).await;
        his.person("MERS", r#"{"name":"Bruna","lastname":"Marriedname","dob":"1971-03-12","gender":"f","identifiers":["CUIT-1"]}"#).await;
        let number = merge(&his, "MERO", "MERS").await;
        his.indexed().await;
        let names = async |target: &str, place: &str| {
            let reply = his.get(&professional(), target).await.json();
            let rows = reply["entry"].as_array().or(reply.as_array()).cloned().unwrap_or_default();
            rows.iter().map(|row| row.pointer(place).unwrap().as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        for query in ["MERO", "maidenname", "DNI-778899X", "brunhilda+1961", "MERS", "marriedname"] {
            assert_eq!(names(&format!("/people?q={query}"), "/0/id").await, ["MERS"], "{query}");
        }
        for query in ["family=maidenname", "family=marriedname", "birthdate=1961-02-03"] {
            assert_eq!(names(&format!("/fhir/Patient?{query}"), "/resource/id").await, ["MERS"], "{query}");
        }
        for target in ["/index/match", "/index/match?grade=certain"] {
            let found = his.post(&professional(), target, old).await.json();
            assert_eq!((found.as_array().map(Vec::len), &found[0]["person"]), (Some(1), &json!("MERS")), "{target}");
        }
        let patient = json!({"resourceType": "Patient", "name": [{"family": "Maidenname", "given": ["Brunhilda"]}], "birthDate": "1961-02-03", "gender": "female"});
        let asked = his.request(&professional(), "POST", "/fhir/Patient/$match").header("content-type", "application/fhir+json");
        let bundle = asked.body(patient.to_string()).send().await.json();
        assert_eq!(bundle["entry"][0]["resource"]["id"], "MERS", "{bundle}");
        let again = his.post(&professional(), "/people/MER3?on_match=refuse", old).await;
        assert_eq!((again.status, &again.json()["code"]), (409, &json!("matches_person")));
        assert_eq!(unmerge(&his, number).await.status, 200);
        assert_eq!(names("/people?q=maidenname", "/0/id").await, ["MERO"]);
    }

    async fn merges_are_listed_page_by_page_and_of_one_person(his) {
        for id in ["A", "B", "C", "D"] {
            his.person(id, &format!(r#"{{"name":"{id}"}}"#)).await;
        }
        let numbers = [merge(&his, "A", "B").await, merge(&his, "C", "D").await];
        let merges = async |target: &str| {
            let reply = his.get(&root(), target).await;
            let found: Vec<u64> = reply.json().as_array().unwrap().iter().map(|one| one["merge"].as_u64().unwrap()).collect();
            (found, reply.header("link").map(str::to_owned))
        };
        assert_eq!(merges("/index/merges").await, (numbers.to_vec(), None));
        let next = format!("</index/merges?limit=1&after={}>; rel=\"next\"", numbers[0]);
        assert_eq!(merges("/index/merges?limit=1").await, (vec![numbers[0]], Some(next)));
        assert_eq!(merges(&format!("/index/merges?limit=1&after={}", numbers[0])).await, (vec![numbers[1]], None));
        assert_eq!(merges("/index/merges?person=D").await.0, [numbers[1]]);
        for target in ["/index/merges?limit=0", "/index/merges?limit=1001", "/index/merges?after=x"] {
            assert_eq!(his.get(&root(), target).await.status, 400, "{target}");
        }
        let person = RecordReach::Global;
        assert_eq!(his.store.survivor_of("A", &person).await.unwrap().as_deref(), Some("B"));
        assert_eq!(his.store.survivor_of("B", &person).await.unwrap(), None);
        assert_eq!(his.store.replaced("B", &person).await.unwrap(), ["A"]);
        assert_eq!(his.store.replaced("A", &person).await.unwrap(), [""; 0]);
    }
}
