//! The index of persons: it finds the records that may be of one person, whoever wrote them, and shows nobody beyond reach.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use fedgate_his::store::MadeKeys;

use super::pieces::configuration;
use super::program::fedhis;
use crate::support::{Actor, His, own, professional, root};
use fedgate_core::assertion::RecordScope;
use fedgate_his::register::{self, RegisterProgress};
use fedgate_his::store::RecordStore;

const PATIENCE: Duration = Duration::from_secs(30);

const ANA: &str = r#"{"name":"Ana María","lastname":"García Zubizarreta","dob":"1985-10-04","gender":"f",
    "address":{"suburb":"Las Palmas","postcode":"35001"},"phone":"+34 928 123 456"}"#;

/// The candidates for some demographics.
async fn matched(his: &His, actor: &Actor, target: &str, asked: &str) -> Vec<Value> {
    let reply = his.post(actor, target, asked).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json().as_array().unwrap().clone()
}

/// The persons and grades of the candidates, once they are these.
async fn awaited(his: &His, asked: &str, expected: &[(&str, &str)]) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let found = matched(his, &professional(), "/index/match", asked).await;
        let grades: Vec<_> =
            found.iter().map(|one| (one["person"].as_str().unwrap(), one["grade"].as_str().unwrap())).collect();
        if grades == expected {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{expected:?}: {found:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

crate::on_both_stores! {
    async fn a_person_is_found_whatever_one_error_the_demographics_have(his) {
        his.person("ANA", ANA).await;
        his.person("BOB", r#"{"name":"Pedro","lastname":"Okonkwo","dob":"1951-03-17","gender":"m"}"#).await;
        let found = awaited(&his, ANA, &[("ANA", "certain")]).await;
        assert!(found[0]["score"].as_f64().unwrap() > 0.99, "{found:?}");
        let fields: Vec<_> = found[0]["reasons"].as_array().unwrap().iter().map(|reason| &reason["field"]).collect();
        assert!(fields.contains(&&json!("family")) && fields.contains(&&json!("birth_date")), "{found:?}");
        // Nothing of the record but its id.
        assert!(!serde_json::to_string(&found).unwrap().contains("Zubizarreta"));
        for (error, asked) in [
            ("one surname", r#"{"name":"Ana María","lastname":"Zubizarreta","dob":"1985-10-04","gender":"f"}"#),
            ("a typing error", r#"{"name":"Ana María","lastname":"Garcia Zubisarreta","dob":"1985-10-04","gender":"f"}"#),
            ("names swapped", r#"{"name":"García Zubizarreta","lastname":"Ana María","dob":"1985-10-04","gender":"f"}"#),
            ("another day", r#"{"name":"Ana María","lastname":"García Zubizarreta","dob":"1985-10-14","gender":"f","address":{"postcode":"35001"}}"#),
        ] {
            let found = matched(&his, &professional(), "/index/match", asked).await;
            assert_eq!(found.len(), 1, "{error}: {found:?}");
            assert_eq!(found[0]["person"], "ANA", "{error}");
        }
        let other = r#"{"name":"Ludmila","lastname":"Petrova","dob":"2001-01-31"}"#;
        assert_eq!(matched(&his, &professional(), "/index/match", other).await, Vec::<Value>::new());
        for nothing in ["{}", r#"{"name":7,"lastname":["x",null],"dob":"soon"}"#] {
            assert_eq!(matched(&his, &professional(), "/index/match", nothing).await, Vec::<Value>::new());
        }
    }

    async fn the_index_follows_every_change_whichever_program_makes_it(his) {
        let born = |name: &str, day: &str| format!(r#"{{"name":"{name}","lastname":"Zubizarreta","dob":"{day}","gender":"f","address":{{"suburb":"Las Palmas","postcode":"35001"}}}}"#);
        let (maria, carmen) = (born("María", "1985-10-04"), born("Carmen", "1960-02-29"));
        his.sql(&format!("INSERT INTO people (id, data) VALUES ('ANA', '{maria}'), ('BEA', '[]'), ('CAT', NULL)")).await;
        awaited(&his, &maria, &[("ANA", "certain")]).await;
        let renamed = his.patch(&own("ANA"), "/people/ANA", r#"{"name":"Carmen","dob":"1960-02-29"}"#).await;
        assert_eq!(renamed.status, 200);
        awaited(&his, &carmen, &[("ANA", "certain")]).await;
        awaited(&his, &maria, &[]).await;
        his.sql("UPDATE people SET id = 'EVA' WHERE id = 'ANA'").await;
        awaited(&his, &carmen, &[("EVA", "certain")]).await;
        his.sql("DELETE FROM people WHERE id = 'EVA'").await;
        awaited(&his, &carmen, &[]).await;
        his.indexed().await;
        assert_eq!(his.sql_text("SELECT CAST(count(*) AS text) FROM fedgate_person_keys").await.unwrap(), "0");
    }

    async fn keys_that_were_made_in_another_way_are_made_anew_while_others_are_written(his) {
        his.store.queued_keys().await.unwrap();
        let due = his.store.keys_after("").await.unwrap();
        his.store.put_keys(&due, vec![], &due.made_of, due.upto.as_deref()).await.unwrap();
        for n in 0..250 {
            his.sql(&format!(
                "INSERT INTO people (id, data) VALUES ('P{n:03}', '{{\"name\":\"Ana\",\"lastname\":\"Zubizarreta\",\"dob\":\"1985-01-{:02}\"}}')",
                n % 28 + 1
            )).await;
        }
        let asked = r#"{"name":"Ana","lastname":"Zubizarreta","dob":"1985-01-28"}"#;
        let all = async |his: &His| his.sql_text("SELECT CAST(count(DISTINCT person) AS text) FROM fedgate_person_keys").await.unwrap();
        let began = Instant::now();
        while all(&his).await != "250" {
            assert!(began.elapsed() < PATIENCE, "indexed: {}", all(&his).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        his.sql("DELETE FROM fedgate_person_keys").await;
        his.sql("UPDATE fedgate_person_index SET made_of = 'another way', turn = turn + 1").await;
        his.person("NEW", asked).await;
        // Whoever begins makes them anew.
        let his = his.with(|_| {}).await;
        let state = "SELECT coalesce(upto, 'complete') FROM fedgate_person_index WHERE made_of <> 'another way'";
        while his.sql_text(state).await.as_deref() != Some("complete") || all(&his).await != "251" {
            assert!(began.elapsed() < PATIENCE, "indexed again: {}", all(&his).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let found = matched(&his, &professional(), "/index/match?count=100&grade=certain", asked).await;
        assert!(found.iter().any(|one| one["person"] == "NEW") && found.iter().any(|one| one["person"] == "P027"), "{found:?}");
    }

    async fn services_of_other_fields_do_not_take_the_index_from_each_other(his) {
        let made_of = async || his.sql_text("SELECT made_of FROM fedgate_person_index WHERE upto IS NULL").await;
        his.person("ANA", ANA).await;
        his.indexed().await;
        let first = made_of().await.unwrap();
        let other = his.with(|config| config.index.fields.given = "/given".into()).await;
        let began = Instant::now();
        while made_of().await.is_none_or(|now| now == first) {
            assert!(began.elapsed() < PATIENCE, "the one that begins makes the keys in its way");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let second = made_of().await.unwrap();
        for (number, id) in ["BOB", "EVE", "EVA"].into_iter().enumerate() {
            [&his, &other][number % 2].person(id, ANA).await;
            his.indexed().await;
            tokio::time::sleep(Duration::from_millis(600)).await;
            assert_eq!(made_of().await.as_deref(), Some(second.as_str()));
        }
    }

    async fn nobody_beyond_reach_is_found(his) {
        his.person("ANA", ANA).await;
        his.person("TWIN", ANA).await;
        awaited(&his, ANA, &[("ANA", "certain"), ("TWIN", "certain")]).await;
        let found = matched(&his, &own("ANA"), "/index/match", ANA).await;
        assert_eq!(found.iter().map(|one| &one["person"]).collect::<Vec<_>>(), ["ANA"]);
        assert_eq!(matched(&his, &own("EVE"), "/index/match", ANA).await, Vec::<Value>::new());
    }

    async fn an_answer_is_bounded_and_odd_questions_are_refused(his) {
        for n in 0..30 {
            his.person(Box::leak(format!("P{n:02}").into_boxed_str()), ANA).await;
        }
        let long = ANA.replacen('{', &format!("{{\"portrait\":\"{}\",", "x".repeat(200_000)), 1);
        his.person("LONG", &long).await;
        let began = Instant::now();
        while matched(&his, &professional(), "/index/match?count=100", ANA).await.len() < 31 {
            assert!(began.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(matched(&his, &professional(), "/index/match", ANA).await.len(), 10);
        assert_eq!(matched(&his, &root(), "/index/match?count=1&grade=certain", ANA).await.len(), 1);
        for target in ["/index/match?count=0", "/index/match?count=101", "/index/match?count=x", "/index/match?grade=sure", "/index/match?grades=certain", "/index/match?count=1&count=2"] {
            assert_eq!(his.post(&professional(), target, ANA).await.status, 400, "{target}");
        }
        for body in ["[]", "1", "{", "null"] {
            assert!(matches!(his.post(&professional(), "/index/match", body).await.status, 400 | 415 | 422), "{body}");
        }
        // A misspelt filter shows nobody more than was asked for.
        for target in ["/index/duplicates?persons=ANA", "/index/duplicates?state=all&state=open", "/index/merges?id=ANA"] {
            let reply = his.get(&root(), target).await;
            assert_eq!((reply.status, reply.json()["code"].as_str()), (400, Some("bad_query")), "{target}");
        }
    }

    async fn of_two_that_made_keys_at_once_one_writes_nothing(his) {
        his.person("ANA", ANA).await;
        his.indexed().await;
        let (first, second) = (his.store.queued_keys().await.unwrap(), his.store.queued_keys().await.unwrap());
        let of_ana = |keys: Vec<i64>| vec![("ANA".to_owned(), Some(MadeKeys { keys, ..MadeKeys::default() }))];
        assert!(his.store.put_keys(&first, of_ana(vec![1, -1, i64::MIN]), &first.made_of, first.upto.as_deref()).await.unwrap());
        assert!(!his.store.put_keys(&second, of_ana(vec![2]), &second.made_of, second.upto.as_deref()).await.unwrap());
        let kept = "SELECT CAST(count(*) AS text) FROM fedgate_person_keys WHERE person = 'ANA'";
        assert_eq!(his.sql_text(kept).await.unwrap(), "3");
    }
}

/// A caller who registers persons and may match.
const REGISTRAR: Actor =
    Actor { account: "ITAPYT999HON", scope: RecordScope::Global, grants: &["match"], roles: &[], same: &[] };

/// The pairs of the list, once there are so many.
async fn pairs(his: &His, target: &str, count: usize) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let reply = his.get(&professional(), target).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let found = reply.json().as_array().unwrap().clone();
        if found.len() == count {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{target}, {count}: {found:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

crate::on_both_stores! {
    async fn a_new_person_who_is_like_another_comes_on_the_list_and_a_decision_lasts_until_the_data_change(his) {
        his.person("ANA", ANA).await;
        his.person("BOB", r#"{"name":"Pedro","lastname":"Okonkwo","dob":"1951-03-17","gender":"m"}"#).await;
        his.person("ANA2", &ANA.replace("García", "Garcia").replace("María", "Maria")).await;
        let open = pairs(&his, "/index/duplicates", 1).await;
        assert_eq!((&open[0]["persons"], &open[0]["grade"]), (&json!(["ANA", "ANA2"]), &json!("certain")), "{open:?}");
        let place = format!("/index/duplicates/{}", open[0]["pair"]);
        assert_eq!(his.get(&professional(), &place).await.json(), open[0]);
        let decided = his.patch(&professional(), &place, r#"{"state":"different"}"#).await.json();
        assert_eq!((&decided["state"], &decided["by"]), (&json!("different"), &json!("ITAPYT999HON")), "{decided}");
        pairs(&his, "/index/duplicates", 0).await;
        // What is not compared changes nothing.
        assert_eq!(his.patch(&professional(), "/people/ANA2", r#"{"note":"seen"}"#).await.status, 200);
        his.indexed().await;
        assert_eq!(pairs(&his, "/index/duplicates?state=different&person=ANA", 1).await[0], decided);
        // What is compared opens the pair again, whoever writes it.
        let data = ANA.replace("928 123 456", "928 123 457").replace('\'', "");
        his.sql(&format!("UPDATE people SET data = '{data}' WHERE id = 'ANA'")).await;
        let again = pairs(&his, "/index/duplicates?grade=certain", 1).await;
        assert_eq!((&again[0]["pair"], &again[0]["state"]), (&open[0]["pair"], &json!("open")), "{again:?}");
        // An open pair goes when the two are alike no longer, and every pair with a person who is gone.
        let other = r#"{"name":"Wen","lastname":"Xu","dob":"2001-01-30","phone":"600111222","address":{}}"#;
        assert_eq!(his.patch(&professional(), "/people/ANA2", other).await.status, 200);
        pairs(&his, "/index/duplicates?state=all", 0).await;
        his.person("ANA3", ANA).await;
        let third = pairs(&his, "/index/duplicates", 1).await;
        let place = format!("/index/duplicates/{}", third[0]["pair"]);
        assert_eq!(his.patch(&professional(), &place, r#"{"state":"same"}"#).await.status, 200);
        his.sql("DELETE FROM people WHERE id = 'ANA3'").await;
        pairs(&his, "/index/duplicates?state=all", 0).await;
        assert_eq!(his.get(&professional(), &place).await.error().2, "pair_not_found");
    }

    async fn the_list_is_for_callers_who_reach_everybody(his) {
        his.person("ANA", ANA).await;
        his.person("ANA2", ANA).await;
        let pair = pairs(&his, "/index/duplicates", 1).await.remove(0);
        let place = format!("/index/duplicates/{}", pair["pair"]);
        assert_eq!(his.get(&own("ANA"), "/index/duplicates").await.json(), json!([]));
        assert_eq!(his.get(&own("ANA"), "/index/duplicates?person=ANA").await.json(), json!([]));
        assert_eq!(his.get(&own("ANA"), &place).await.error().2, "pair_not_found");
        assert_eq!(his.patch(&own("ANA"), &place, r#"{"state":"same"}"#).await.error().2, "pair_not_found");
        for number in ["0", "-1", "x", "99999999999999999999", "%31%30%30"] {
            let reply = his.get(&professional(), &format!("/index/duplicates/{number}")).await;
            assert_eq!(reply.error().2, "pair_not_found", "{number}");
        }
        for body in ["{}", r#"{"state":1}"#, r#"{"state":"merged"}"#] {
            assert_eq!(his.patch(&professional(), &place, body).await.error().2, "bad_member", "{body}");
        }
        for query in ["state=none", "grade=possible", "limit=0", "limit=1001", "after=1", "after=a,1", "after=1,"] {
            let reply = his.get(&professional(), &format!("/index/duplicates?{query}")).await;
            assert_eq!(reply.error().2, "bad_query", "{query}");
        }
    }

    async fn pages_of_the_list_have_each_pair_once(his) {
        for number in 0..6 {
            his.person(&format!("ANA{number}"), ANA).await;
        }
        pairs(&his, "/index/duplicates", 15).await;
        let (mut target, mut found) = ("/index/duplicates?limit=4&state=open".to_owned(), vec![]);
        loop {
            let reply = his.get(&professional(), &target).await;
            found.extend(reply.json().as_array().unwrap().iter().map(|pair| pair["pair"].as_i64().unwrap()));
            let Some(link) = reply.header("link") else { break };
            let next = link.strip_prefix('<').unwrap().split_once('>').unwrap().0;
            assert!(link.ends_with("rel=\"next\"") && next.contains("limit=4"), "{link}");
            next.clone_into(&mut target);
        }
        let count = found.len();
        found.sort_unstable();
        found.dedup();
        assert_eq!((count, found.len()), (15, 15));
    }

    async fn a_person_who_is_registered_is_refused_on_request_alone(his) {
        his.person("ANA", ANA).await;
        his.indexed().await;
        let refused = his.post(&REGISTRAR, "/people/ANA2?on_match=refuse", ANA).await;
        assert_eq!((refused.status, refused.error().2.as_str()), (409, "matches_person"), "{}", refused.text());
        let candidates = &refused.json()["candidates"];
        assert_eq!((&candidates[0]["person"], &candidates[0]["grade"]), (&json!("ANA"), &json!("certain")), "{candidates}");
        // Who may not match learns no id.
        let refused = his.post(&professional(), "/people/ANA2?on_match=refuse", ANA).await;
        assert_eq!((refused.status, refused.error().2.as_str()), (409, "matches_person"));
        assert!(!refused.text().contains("\"ANA\"") && refused.json().get("candidates").is_none(), "{}", refused.text());
        assert_eq!(his.get(&professional(), "/people/ANA2").await.status, 404, "nothing was written");
        // The same person sent again is no duplicate of itself.
        assert_eq!(his.post(&root(), "/people/ANA?on_match=refuse", ANA).await.text(), "null");
        // Another person, and one without anything to compare, are stored.
        let bob = r#"{"name":"Pedro","lastname":"Okonkwo","dob":"1951-03-17","gender":"m"}"#;
        assert_eq!(his.post(&REGISTRAR, "/people/BOB?on_match=refuse", bob).await.text(), "null");
        assert_eq!(his.post(&REGISTRAR, "/people/EVE?on_match=refuse", "{}").await.text(), "null");
        assert_eq!(his.post(&REGISTRAR, "/people/X?on_match=merge", "{}").await.error().2, "bad_query");
        // Usually it is stored as ever.
        assert_eq!(his.post(&professional(), "/people/ANA2", ANA).await.text(), "null");
        pairs(&his, "/index/duplicates", 1).await;
    }
}

crate::on_both_stores! {
    async fn all_persons_are_compared_by_a_command_that_goes_on_where_it_was(his) {
        // Rows from a time without triggers: nobody was compared.
        let insert = async |id: &str, data: &str| {
            his.sql(&format!("INSERT INTO people (id, data) VALUES ('{id}', '{data}')")).await;
        };
        for (id, data) in [("ANA", ANA.to_owned()), ("ANA2", ANA.replace("García", "Garcia")), ("ana3", ANA.to_owned())] {
            insert(id, &data.replace('\n', " ")).await;
        }
        let families = ["Quist", "Okafor", "Brandt", "Yamada", "Dupuis", "Lindqvist", "Petrov", "Achebe"];
        for number in 0..40 {
            let (family, given) = (families[number % 8], ["Zoltan", "Brigid", "Hugo", "Wen", "Tove"][number / 8]);
            let day = format!("19{}-{:02}-{:02}", 40 + number, number % 12 + 1, number % 27 + 2);
            insert(&format!("P{number}"), &format!(r#"{{"name":"{given}","lastname":"{family}","dob":"{day}"}}"#)).await;
        }
        his.indexed().await;
        his.sql("DELETE FROM fedgate_person_pairs").await;
        let config = configuration(&his);
        let dedupe = || {
            let done = fedhis(&["index", "--json", "dedupe"], &config);
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            serde_json::from_slice::<Value>(&done.stdout).unwrap()
        };
        let told = dedupe();
        assert_eq!((&told["persons"], &told["found"], &told["compared_earlier"]), (&json!(43), &json!(3), &json!(0)), "{told}");
        pairs(&his, "/index/duplicates", 3).await;
        // A decision outlasts a second run.
        let pair = pairs(&his, "/index/duplicates?person=ANA2", 2).await.remove(0);
        let place = format!("/index/duplicates/{}", pair["pair"]);
        his.patch(&professional(), &place, r#"{"state":"different"}"#).await;
        dedupe();
        pairs(&his, "/index/duplicates", 2).await;
        // A run that ends early, as a kill ends it.
        let store = RecordStore::new(his.database.clone());
        let ended = tokio::spawn(async move {
            let index = fedgate_base::config::IndexConfig::default();
            register::dedupe(&store, &index, |progress| assert!(matches!(progress, RegisterProgress::Read(_)))).await
        });
        assert!(ended.await.is_err());
        // The next one goes on behind the last person whose pairs were written, and one with other rules begins anew.
        his.sql("UPDATE fedgate_person_dedupe SET upto = 'P0'").await;
        let earlier = dedupe()["compared_earlier"].as_u64().unwrap();
        assert!((1..43).contains(&earlier), "{earlier}");
        his.sql("INSERT INTO fedgate_person_dedupe (\"only\", made_of, due, upto) VALUES (CAST(1 AS boolean), 'other rules', 0, 'P0')").await;
        assert_eq!(dedupe()["compared_earlier"], 0);
        let left = "SELECT CAST(count(*) AS text) FROM fedgate_person_dedupe";
        assert_eq!(his.sql_text(left).await.as_deref(), Some("0"), "a run that is done leaves nothing");
    }

    async fn a_model_is_learned_into_a_new_file_and_can_be_used(his) {
        for number in 0..60 {
            let data = format!(r#"{{"name":"Ana{number}","lastname":"Garcia{number}","dob":"1985-10-{:02}"}}"#, number % 28 + 1);
            his.sql(&format!("INSERT INTO people (id, data) VALUES ('A{number}', '{data}'), ('B{number}', '{data}')")).await;
        }
        let (config, file) = (configuration(&his), his.scratch.0.join("model.toml"));
        let learn = || fedhis(&["index", "train", file.to_str().unwrap()], &config);
        let done = learn();
        let told = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success() && told.starts_with("120 persons: about "), "{told} {}", String::from_utf8_lossy(&done.stderr));
        let again = learn();
        let told = String::from_utf8_lossy(&again.stderr).into_owned();
        assert!(again.status.code() == Some(1) && told.contains("exists; name another file"), "{told}");
        let text = std::fs::read_to_string(&config).unwrap() + "[index]\nmodel = \"model.toml\"\n";
        std::fs::write(&config, text).unwrap();
        let used = fedhis(&["index", "dedupe"], &config);
        let told = String::from_utf8_lossy(&used.stdout).into_owned();
        assert!(used.status.success() && told.starts_with("120 persons are compared: "), "{told}");
        let none = fedhis(&["index", "decide", "1000000", "same"], &config);
        let told = String::from_utf8_lossy(&none.stderr).into_owned();
        assert!(none.status.code() == Some(1) && told.contains("there is no pair 1000000"), "{told}");
        assert!(fedhis(&["index", "review"], &config).status.success());
    }
}

/// A row that another program wrote as bytes, or whose text is none, keeps nobody else from being found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_odd_row_of_sqlite_stops_the_index_for_nobody() {
    let his = His::on_sqlite().await;
    his.sql(&format!("INSERT INTO people (id, data) VALUES ('BYTES', CAST('{ANA}' AS BLOB)), ('NONE', CAST(x'7b22fffe227d' AS TEXT)), ('REAL', 1.5)")).await;
    his.person("ANA", ANA).await;
    his.indexed().await;
    let found = matched(&his, &professional(), "/index/match", ANA).await;
    assert!(found.iter().any(|one| one["person"] == "ANA"), "{found:?}");
    assert_eq!(his.get(&professional(), "/people?q=maria").await.status, 200);
}
