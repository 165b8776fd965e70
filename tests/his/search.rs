//! `GET /people?q=…`: whoever is meant is found, best first, within reach and within bounds.

use serde_json::Value;

use crate::support::{Actor, His, Reply, own, professional};

async fn asked(his: &His, actor: &Actor, query: &str) -> Reply {
    let reply = his.get(actor, &format!("/people?{query}")).await;
    assert_eq!(reply.status, 200, "{query} {}", reply.text());
    reply
}

/// The ids of a list, whose rows have a person and what was found.
fn ids(reply: &Reply) -> Vec<String> {
    let rows = reply.json();
    let row = |row: &Value| {
        assert_eq!(row.as_array().unwrap().len(), 2, "{row}");
        assert!(row[0].get("password").is_none() && row[1]["score"].is_u64() && row[1]["found"].is_array(), "{row}");
        row[0]["id"].as_str().unwrap().to_owned()
    };
    rows.as_array().unwrap().iter().map(row).collect()
}

async fn found(his: &His, query: &str) -> Vec<String> {
    let reply = asked(his, &professional(), &format!("q={query}")).await;
    assert_eq!(reply.header("fedgate-search"), Some("whole"), "{query}");
    ids(&reply)
}

async fn people(his: &His) {
    for (id, document) in [
        (
            "ESPGNU777ORG",
            r#"{"name":"Ana María","lastname":"García Zubizarreta","dob":"1985-10-04","gender":"f","phone":"+34 928 123 456","identifiers":["12345678Z"],"password":"$2b$04$abcdefghijklmnopqrstuu5LfV7Yy8oB3y3J1mQk6Qe5b1YvZx6yW"}"#,
        ),
        ("ESPMGL001ORG", r#"{"name":"María","lastname":"García","dob":"1985-12-24","gender":"f"}"#),
        ("MARMOH002ORG", r#"{"name":"Mohamed","lastname":"El Khatib","dob":"1951-03-17","gender":"m"}"#),
        ("IRLPON003ORG", r#"{"name":"Patrick","lastname":"O'Neil","gender":"m"}"#),
    ] {
        his.sql(&format!(
            "INSERT INTO people (id, data) VALUES ('{id}', '{}')",
            document.replacen('{', &format!("{{\"id\":\"{id}\","), 1).replace('\'', "''")
        ))
        .await;
    }
    his.indexed().await;
}

crate::on_both_stores! {
    async fn a_person_is_found_by_words_dates_and_numbers_in_any_order(his) {
        people(&his).await;
        for (query, expected) in [
            ("zubizarreta", &["ESPGNU777ORG"][..]),
            ("ZUBIZARRETA%20ana", &["ESPGNU777ORG"]),
            ("zub", &["ESPGNU777ORG"]),
            ("zubizareta", &["ESPGNU777ORG"]),
            ("gracia", &["ESPMGL001ORG", "ESPGNU777ORG"]),
            ("maria+garcia", &["ESPMGL001ORG", "ESPGNU777ORG"]),
            ("garcia+1985-10", &["ESPGNU777ORG"]),
            ("1985", &["ESPMGL001ORG", "ESPGNU777ORG"]),
            ("1985-12-24", &["ESPMGL001ORG"]),
            ("garcia+m", &["ESPMGL001ORG", "ESPGNU777ORG"]),
            ("m", &["ESPMGL001ORG", "ESPGNU777ORG", "IRLPON003ORG", "MARMOH002ORG"]),
            ("muhammad", &["MARMOH002ORG"]),
            ("el+khatib", &["MARMOH002ORG"]),
            ("oneil", &["IRLPON003ORG"]),
            ("espgnu777org", &["ESPGNU777ORG"]),
            ("espm", &["ESPMGL001ORG"]),
            ("12345678-z", &["ESPGNU777ORG"]),
            ("928123456", &["ESPGNU777ORG"]),
            ("123456", &["ESPGNU777ORG"]),
            ("garcia+ruiz", &[]),
            ("nobody", &[]),
        ] {
            assert_eq!(found(&his, query).await, expected, "{query}");
        }
        let reply = asked(&his, &professional(), "q=gracia+1985-10-04").await;
        let expected = serde_json::json!([{"part":"gracia","field":"family","how":"error"},{"part":"19851004","field":"birth_date","how":"exact"}]);
        assert_eq!(reply.json()[0][1]["found"], expected, "{}", reply.text());
        assert!(!reply.text().contains("$2b$"));
    }

    async fn a_caller_of_its_own_record_learns_of_nobody_else(his) {
        people(&his).await;
        for query in ["q=maria", "q=garcia", "q=1985", "q=f"] {
            assert_eq!(ids(&asked(&his, &own("ESPMGL001ORG"), query).await), ["ESPMGL001ORG"], "{query}");
        }
        for query in ["q=zubizarreta", "q=ESPGNU777ORG", "q=928123456"] {
            let reply = asked(&his, &own("ESPMGL001ORG"), query).await;
            assert_eq!((ids(&reply).len(), reply.header("fedgate-search")), (0, Some("whole")), "{query}");
            assert_eq!(reply.header("link"), None);
        }
    }

    async fn a_common_word_is_bounded_and_its_pages_follow_each_other(his) {
        for from in (0..400).step_by(100) {
            let rows: Vec<String> = (from..from + 100).map(|n| format!("('P{n:03}', '{{\"id\":\"P{n:03}\",\"name\":\"Maria\",\"lastname\":\"X{n}\",\"gender\":\"f\"}}')")).collect();
            his.sql(&format!("INSERT INTO people (id, data) VALUES {}", rows.join(","))).await;
        }
        his.indexed().await;
        let (mut target, mut seen, mut pages) = ("q=maria&limit=40".to_owned(), vec![], 0);
        loop {
            let reply = asked(&his, &professional(), &target).await;
            assert_eq!(reply.header("fedgate-search"), Some("partial"));
            seen.extend(ids(&reply));
            pages += 1;
            let Some(link) = reply.header("link") else { break };
            target = link.trim_start_matches("</people?").split('>').next().unwrap().to_owned();
        }
        assert_eq!((seen.len(), pages), (300, 8));
        let mut once = seen.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), 300);
        assert_eq!(found(&his, "maria+x17").await[0], "P017");
        assert_eq!(found(&his, "x399").await[0], "P399");
        for query in ["q=", "q=-", "q=a+b+c+d+e+f+g+h+i", "q=maria&limit=0", "q=maria&limit=301", "q=maria&after=x", "q=maria&name=Maria"] {
            assert_eq!(his.get(&professional(), &format!("/people?{query}")).await.error().2, "bad_query", "{query}");
        }
    }

    async fn words_of_those_who_are_gone_are_forgotten(his) {
        people(&his).await;
        let words = "SELECT CAST(count(*) AS text) FROM fedgate_search_words WHERE word IN ('zubizarreta', 'garcia', 'ana')";
        let deletions = "SELECT CAST(count(*) AS text) FROM fedgate_search_deletions WHERE word IN ('zubizarreta', 'ana')";
        assert_eq!(his.sql_text(words).await.as_deref(), Some("3"));
        his.sql("DELETE FROM people WHERE id = 'ESPGNU777ORG'").await;
        his.indexed().await;
        assert_eq!(his.sql_text(words).await.as_deref(), Some("1"));
        assert_eq!(his.sql_text(deletions).await.as_deref(), Some("0"));
        assert_eq!(found(&his, "garcia").await, ["ESPMGL001ORG"]);
        his.patch(&own("ESPMGL001ORG"), "/people/ESPMGL001ORG", r#"{"lastname":"Zubizarreta"}"#).await;
        his.indexed().await;
        assert_eq!(found(&his, "zubizarreta").await, ["ESPMGL001ORG"]);
        assert_eq!(found(&his, "garcia").await, Vec::<String>::new());
    }

    async fn whoever_was_merged_away_is_found_by_the_survivor_alone(his) {
        people(&his).await;
        his.sql("INSERT INTO fedgate_same_persons (id, person) VALUES ('ESPGNU777ORG', 'ESPGNU777ORG'), ('ESPMGL001ORG', 'ESPGNU777ORG')").await;
        assert_eq!(found(&his, "garcia").await, ["ESPGNU777ORG"]);
    }

    async fn a_long_record_is_found_and_shown_whole(his) {
        people(&his).await;
        let long = format!(r#"{{"id":"LONG","name":"Ana","lastname":"Zubizarreta","portrait":"{}"}}"#, "x".repeat(100_000));
        his.sql(&format!("INSERT INTO people (id, data) VALUES ('LONG', '{long}')")).await;
        his.indexed().await;
        let reply = asked(&his, &professional(), "q=zubizarreta").await;
        assert!(reply.is_complete);
        assert_eq!(ids(&reply), ["LONG", "ESPGNU777ORG"]);
        assert_eq!(reply.json()[0][0]["portrait"].as_str().map(str::len), Some(100_000));
    }
}
