//! Keys of persons whom the HIS itself writes: they are there when the write is answered.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::merges::merge;
use crate::support::{His, own, professional, root};

const PATIENCE: Duration = Duration::from_secs(60);

const ANA: &str = r#"{"name":"Ana María","lastname":"García Zubizarreta","dob":"1985-10-04","gender":"f",
    "address":{"suburb":"Las Palmas","postcode":"35001"},"phone":"+34 928 123 456"}"#;
const EVA: &str = r#"{"name":"Ludmila","lastname":"Okonkwo","dob":"1960-02-29","gender":"f"}"#;

/// The ids that a match finds.
async fn matched(his: &His, asked: &str) -> Vec<String> {
    let reply = his.post(&professional(), "/index/match?grade=probable", asked).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let found = reply.json().as_array().unwrap().clone();
    found.iter().map(|one| one["person"].as_str().unwrap().to_owned()).collect()
}

/// The ids that a search finds, and whether it looked at everybody.
async fn searched(his: &His, query: &str) -> (Vec<String>, bool) {
    let reply = his.get(&professional(), &format!("/people?q={query}")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let rows = reply.json().as_array().unwrap().clone();
    let ids = rows.iter().map(|row| row[0]["id"].as_str().unwrap_or_default().to_owned()).collect();
    (ids, reply.header("fedgate-search") == Some("whole"))
}

/// How many transactions took persons from the queue, once it is empty.
async fn turns(his: &His) -> String {
    let state = "SELECT CAST(turn AS text) FROM fedgate_person_index WHERE upto IS NULL AND made_of <> '' \
                 AND NOT EXISTS (SELECT 1 FROM fedgate_person_keys_due)";
    let began = Instant::now();
    loop {
        if let Some(turn) = his.sql_text(state).await {
            return turn;
        }
        assert!(began.elapsed() < PATIENCE, "persons are still queued");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn count(his: &His, of: &str) -> String {
    let sql = format!("SELECT CAST(count(*) AS text) FROM {of}");
    his.sql_text(Box::leak(sql.into_boxed_str())).await.unwrap()
}

crate::on_both_stores! {
    async fn a_person_is_found_as_soon_as_the_write_is_answered(his) {
        let before = turns(&his).await;
        his.person("ANA", ANA).await;
        assert_eq!(matched(&his, ANA).await, ["ANA"]);
        assert_eq!(searched(&his, "zubizareta+1985").await, (vec!["ANA".to_owned()], true));
        let refused = his.post(&root(), "/people/ANA2?on_match=refuse", ANA).await;
        assert_eq!(refused.status, 409, "{}", refused.text());
        // Neither the person nor a change that concerns no key has been queued.
        for change in [r#"{"note":"seen"}"#, r#"{"roles":["end_user"]}"#] {
            assert_eq!(his.patch(&root(), "/people/ANA", change).await.status, 200, "{change}");
        }
        assert_eq!(turns(&his).await, before);
        // A change is found at once, too, and the former name is forgotten.
        let renamed = his.patch(&own("ANA"), "/people/ANA", r#"{"lastname":"Okonkwo","dob":"1960-02-29"}"#).await;
        assert_eq!(renamed.status, 200);
        assert_eq!(searched(&his, "okonkwo").await.0, ["ANA"]);
        assert_eq!(matched(&his, &EVA.replace("Ludmila", "Ana María")).await, ["ANA"]);
        turns(&his).await;
        assert_eq!(searched(&his, "zubizarreta").await.0, Vec::<String>::new());
        assert_eq!(count(&his, "fedgate_search_words WHERE word = 'zubizarreta'").await, "0");
        assert_eq!(his.patch(&root(), "/people/ANA", r#"{"active":false}"#).await.status, 200);
        assert_eq!(his.delete(&root(), "/people/ANA").await.status, 200);
        assert_eq!(matched(&his, &EVA.replace("Ludmila", "Ana María")).await, Vec::<String>::new());
        turns(&his).await;
        for table in ["fedgate_person_keys", "fedgate_compared_persons", "fedgate_search_words", "fedgate_search_deletions"] {
            assert_eq!(count(&his, table).await, "0", "{table}");
        }
    }

    async fn whoever_gets_an_id_again_is_found_and_the_former_holder_is_not(his) {
        turns(&his).await;
        for round in 0..20 {
            let (one, other) = if round % 2 == 0 { (ANA, EVA) } else { (EVA, ANA) };
            his.person("ID", one).await;
            his.sql("DELETE FROM people WHERE id = 'ID'").await;
            his.person("ID", other).await;
            turns(&his).await;
            assert_eq!(matched(&his, other).await, ["ID"], "{round}");
            assert_eq!(matched(&his, one).await, Vec::<String>::new(), "{round}");
            his.sql("DELETE FROM people WHERE id = 'ID'").await;
        }
        turns(&his).await;
        assert_eq!(count(&his, "fedgate_person_keys").await, "0");
    }

    async fn what_is_written_to_an_old_id_finds_the_survivor_at_once(his) {
        turns(&his).await;
        his.person("OLD", ANA).await;
        his.person("NEW", EVA).await;
        merge(&his, "OLD", "NEW").await;
        assert_eq!(searched(&his, "928123456").await.0, ["NEW"], "the merge gave it the number");
        assert_eq!(his.patch(&root(), "/people/OLD", r#"{"phone":"600111222"}"#).await.status, 200);
        assert_eq!(searched(&his, "600111222").await.0, ["NEW"]);
    }

    async fn while_all_keys_are_made_anew_nobody_is_lost_and_a_search_says_that_it_is_partial(his) {
        turns(&his).await;
        his.person("ANA", ANA).await;
        // What a migration leaves behind that changes the form of keys.
        his.sql("UPDATE fedgate_person_index SET upto = '', turn = turn + 1").await;
        his.person("EVA", EVA).await;
        turns(&his).await;
        for (asked, id) in [(ANA, "ANA"), (EVA, "EVA")] {
            assert_eq!(matched(&his, asked).await, [id]);
        }
        assert!(searched(&his, "okonkwo").await.1);
        assert_eq!(count(&his, "fedgate_compared_persons").await, "2");
        let twice = "(SELECT key, person FROM fedgate_person_keys GROUP BY key, person HAVING count(*) > 1) AS twice";
        assert_eq!(count(&his, twice).await, "0");
    }

    async fn many_who_bring_the_same_new_words_are_all_found(his) {
        turns(&his).await;
        let posts = (0..24).map(|n| {
            let his = &his;
            async move {
                let words = if n % 2 == 0 { "Zubizarreta Okonkwo Petrova" } else { "Petrova Okonkwo Zubizarreta" };
                let text = format!(r#"{{"name":"Ana{n}","lastname":"{words}","dob":"1985-10-{:02}"}}"#, n + 1);
                his.person(&format!("P{n}"), &text).await;
            }
        });
        futures_util::future::join_all(posts).await;
        let (found, is_whole) = searched(&his, "petrova").await;
        assert_eq!((found.len(), is_whole), (24, true), "{found:?}");
        // Half of them lose the words again, all at once.
        let patches = (0..12).map(|n| {
            let his = &his;
            async move {
                let reply = his.patch(&root(), &format!("/people/P{n}"), r#"{"lastname":"Ruiz"}"#).await;
                assert_eq!(reply.status, 200, "{}", reply.text());
            }
        });
        futures_util::future::join_all(patches).await;
        turns(&his).await;
        assert_eq!(searched(&his, "petrova").await.0.len(), 12);
        assert_eq!(searched(&his, "ruiz").await.0.len(), 12);
    }

    async fn a_large_record_and_one_without_names_are_keyed_as_well(his) {
        turns(&his).await;
        let large = ANA.replacen('{', &format!("{{\"portrait\":\"{}\",", "x".repeat(300_000)), 1);
        his.person("LARGE", &large).await;
        assert_eq!(matched(&his, ANA).await, ["LARGE"]);
        his.person("BARE", "{}").await;
        assert_eq!(searched(&his, "bare").await.0, ["BARE"]);
        let odd: Value = serde_json::json!({"name": "\u{1f}Ana", "lastname": "a\tb,c d", "identifiers": [{"system": "a\u{1f}\n", "value": "X-123456"}]});
        his.person("ODD", &odd.to_string()).await;
        assert_eq!(searched(&his, "x123456").await.0, ["ODD"]);
        assert_eq!(his.patch(&root(), "/people/LARGE", r#"{"lastname":"Okonkwo"}"#).await.status, 200);
        turns(&his).await;
        assert_eq!(searched(&his, "okonkwo").await.0, ["LARGE"]);
    }
}
