//! Persons.

use fedgate_core::password::HashCost;
use serde_json::json;

use crate::support::{own, professional, root};

/// `freedom` at cost 4, to be quick.
const BCRYPT: &str = "$2b$04$K0l9JqR9mN4vPpCzBwz1VeJ6zJYcQh6l4m0mXhJtq8FvQmTzWJr3K";

crate::on_both_stores! {
    async fn a_new_person_gets_an_upper_case_id_and_the_default_role(his) {
        let reply = his.post(&professional(), "/people/stra%C3%9Fe1", r#"{"id":"other","name":"Ana"}"#).await;
        assert_eq!((reply.status, reply.text(), reply.header("content-type")), (200, "null", Some("application/json")));
        let person = his.get(&professional(), "/people/STRASSE1").await;
        assert_eq!(person.json(), json!({"id": "STRASSE1", "name": "Ana", "roles": ["end_user"]}));
        assert_eq!(his.get(&professional(), "/people/strasse1").await.error(), (404, "User not found".into(), "user_not_found".into()));
    }

    async fn the_same_person_again_is_200_and_another_422(his) {
        let document = r#"{"name":"Ana","n":1.50,"creation_info":{"user":"x","node":null}}"#;
        his.person("ana", document).await;
        his.person("ANA", r#"{"creation_info":{"node":null,"user":"x"},"n":15e-1,"name":"\u0041na"}"#).await;
        for other in [r#"{"name":"Bob"}"#, r#"{}"#, r#"{"name":"Ana","n":1.50,"creation_info":{"user":"x","node":1}}"#,
            r#"{"name":"Bob","n":1.50,"creation_info":{"user":"x","node":null}}"#] {
            let reply = his.post(&professional(), "/people/Ana", other).await;
            assert_eq!(reply.error(), (422, "User already exists".into(), "user_exists".into()));
        }
        assert_eq!(his.get(&root(), "/people/ANA").await.json()["name"], "Ana");
    }

    async fn a_password_is_hashed_and_never_read_out(his) {
        his.person("ANA", r#"{"name":"Ana","password":"canary-secret"}"#).await;
        let stored = his.sql_text("SELECT data ->> 'password' FROM people").await.unwrap();
        assert!(stored.starts_with("$argon2id$"), "{stored}");
        for target in ["/people", "/people/ANA", "/people?name=Ana"] {
            let text = his.get(&root(), target).await.text().to_owned();
            assert!(text.contains("Ana") && !text.contains("password") && !text.contains("argon2"), "{text}");
        }
        // The same again without the password. A password in clear text is not compared, right or wrong.
        his.person("ANA", r#"{"name":"Ana"}"#).await;
        for other in ["canary-secret", "another", BCRYPT] {
            let reply = his.post(&root(), "/people/ANA", json!({"name": "Ana", "password": other}).to_string()).await;
            assert_eq!(reply.error(), (422, "User already exists".into(), "user_exists".into()), "{other}");
        }
        assert_eq!(his.sql_text("SELECT data ->> 'password' FROM people").await, Some(stored));
    }

    async fn a_hash_is_kept_no_password_is_no_login_and_the_rest_is_refused(his) {
        his.person("HASH", &json!({"password": BCRYPT}).to_string()).await;
        assert_eq!(his.sql_text("SELECT data ->> 'password' FROM people WHERE id = 'HASH'").await.as_deref(), Some(BCRYPT));
        his.person("HASH", &json!({"password": BCRYPT}).to_string()).await;
        his.person("EMPTY", r#"{"password":""}"#).await;
        his.person("NULL", r#"{"password":null}"#).await;
        assert_eq!(his.sql_text("SELECT data ->> 'password' FROM people WHERE id = 'EMPTY'").await, None);
        assert_eq!(his.sql_text("SELECT data ->> 'password' FROM people WHERE id = 'NULL'").await, None);
        // Longer than a password may be.
        let argon2id = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE";
        his.person("ARGON", &json!({"password": argon2id}).to_string()).await;
        assert_eq!(his.sql_text("SELECT data ->> 'password' FROM people WHERE id = 'ARGON'").await.as_deref(), Some(argon2id));
        let long = json!({"password": "é".repeat(65)}).to_string();
        assert_eq!(his.post(&root(), "/people/LONG", long).await.error().1, "Password is too long");
        his.person("FITS", &json!({"password": "é".repeat(64)}).to_string()).await;
        assert_eq!(his.post(&root(), "/people/NUMBER", r#"{"password":5}"#).await.error().0, 422);
        let short = his.post(&root(), "/people/SHORT", json!({"password": "éé345"}).to_string()).await.error();
        assert_eq!(short, (422, "Password is too short".into(), "password_too_short".into()));
        for unusable in ["secret\n1", "secret-1\r", "\nsecret", " ", "      ", "\u{3000}\u{a0}\u{2003}\u{200b}\t  "] {
            let reply = his.post(&root(), "/people/LINES", json!({"password": unusable}).to_string()).await.error();
            assert_eq!((reply.0, reply.2.as_str()), (422, "password_unusable"), "{unusable:?}");
        }
        his.person("ENOUGH", &json!({"password": "éé3456"}).to_string()).await;
    }

    async fn a_hash_that_is_dearer_to_verify_than_those_of_today_needs_the_account_permission(his) {
        let bcrypt = |cost: u32| BCRYPT.replace("$04$", &format!("${cost:02}$"));
        let argon2id = |passes: u32| format!("$argon2id$v=19$m=9999,t={passes},p=1$c29tZXNhbHQ$MDEyMzQ1Njc4OTAxMjM0NQ");
        for (n, ordinary) in [bcrypt(4), bcrypt(12), argon2id(9)].iter().enumerate() {
            let reply = his.post(&professional(), &format!("/people/P{n}"), json!({"password": ordinary}).to_string()).await;
            assert_eq!(reply.status, 200, "{ordinary}");
        }
        let (count, dear) = ("SELECT count(*) || '' FROM people", [bcrypt(13), bcrypt(15), argon2id(10)]);
        for hash in &dear {
            let body = json!({"password": hash}).to_string().replace("password", r"pass\u0077ord");
            for id in ["P0", "DEAR"] {
                let (status, error, code) = his.post(&professional(), &format!("/people/{id}"), body.clone()).await.error();
                assert_eq!((status, code.as_str()), (403, "not_permitted"), "{hash}");
                assert!(error.contains("`password`"), "{error}");
            }
        }
        assert_eq!(his.sql_text(count).await.as_deref(), Some("3"));
        for (n, hash) in dear.iter().enumerate() {
            let reply = his.post(&root(), &format!("/people/R{n}"), json!({"password": hash}).to_string()).await;
            assert_eq!(reply.status, 200, "{hash}");
        }
    }

    async fn a_hash_is_as_dear_as_the_configured_cost_has_it(his) {
        let argon2id = |memory: u32| format!("$argon2id$v=19$m={memory},t=2,p=1$c29tZXNhbHQ$MDEyMzQ1Njc4OTAxMjM0NQ");
        for (memory_kib, id) in [(19_456, "LOW"), (65_536, "HIGH")] {
            let his = his.with(|config| config.hashes.cost = HashCost { memory_kib, passes: 2 }).await;
            let reply = his.post(&professional(), &format!("/people/{id}"), json!({"password": argon2id(memory_kib)}).to_string()).await;
            assert_eq!(reply.status, 200, "{id}");
            let dearer = json!({"password": argon2id(memory_kib + 1)}).to_string();
            let (status, error, _) = his.post(&professional(), "/people/DEAR", dearer).await.error();
            assert!(status == 403 && error.contains("`password`"), "{id}: {error}");
        }
    }

    async fn a_new_person_has_an_id_that_a_path_names_and_a_login_carries_and_old_ones_go_on(his) {
        for id in ["A%3AB", "A%3BB", "A%25B", "A%5CB", "U%CC%88"] {
            let reply = his.post(&root(), &format!("/people/{id}"), "{}").await;
            assert_eq!((reply.status, reply.error().2.as_str()), (400, "bad_id"), "{id}");
        }
        his.sql("INSERT INTO people (id, data) VALUES ('A:b', '{\"id\": \"A:b\"}')").await;
        assert_eq!(his.patch(&root(), "/people/A:b", r#"{"name":"Old"}"#).await.status, 200);
        assert_eq!(his.get(&root(), "/people/A:b").await.json()["name"], "Old");
    }

    async fn roles_and_activity_need_the_account_permission_in_any_spelling(his) {
        his.person("ANA", r#"{"name":"Ana"}"#).await;
        for body in [
            r#"{"roles":["root"]}"#, r#"{"ro\u006ces":["root"]}"#, r#"{"name":"x","roles":["end_user"],"roles":["root"]}"#,
            r#"{"roles":["end_user","root"]}"#, r#"{"roles":[]}"#, r#"{"active":false}"#, r#"{"\u0061ctive":false}"#,
            r#"{"active":true,"active":false}"#,
        ] {
            for (method, target) in [("POST", "/people/NEW"), ("POST", "/people/ANA"), ("PATCH", "/people/ANA"), ("PATCH", "/people/NONE")] {
                let reply = his.request(&professional(), method, target).body(body).send().await;
                let (status, _, code) = reply.error();
                assert_eq!((status, code.as_str()), (403, "not_permitted"), "{method} {target} {body}");
            }
        }
        // A change is no default, whatever it changes to.
        assert_eq!(his.patch(&professional(), "/people/ANA", r#"{"active":true}"#).await.error().0, 403);
        assert_eq!(his.get(&root(), "/people").await.json(), json!([[{"id": "ANA", "name": "Ana", "roles": ["end_user"]}]]));
        assert_eq!(his.post(&professional(), "/people/NEW", r#"{"roles":["end_user"]}"#).await.status, 200);
        assert_eq!(his.patch(&root(), "/people/ANA", r#"{"roles":["root"],"active":false}"#).await.status, 200);
        for body in [r#"{"roles":"root"}"#, r#"{"roles":[1]}"#, r#"{"active":"no"}"#, r#"{"roles":null}"#] {
            assert_eq!(his.patch(&root(), "/people/ANA", body).await.error().0, 422, "{body}");
            assert_eq!(his.post(&root(), "/people/OTHER", body).await.error().0, 422, "{body}");
        }
        assert_eq!(his.get(&root(), "/people/ANA").await.json()["roles"], json!(["root"]));
    }

    async fn the_form_of_the_federation_portal_makes_an_account(his) {
        let form = r#"{"gender":"f","name":"Ana","lastname":"Betz","password":"secret-1","roles":["end_user"],"dob":"","active":true,"deceased":false}"#;
        let made = his.post(&professional(), "/people/ESPGNU777ORG", form).await;
        assert_eq!((made.status, made.text()), (200, "null"));
        let mut expected: serde_json::Value = serde_json::from_str(form).unwrap();
        expected.as_object_mut().unwrap().remove("password");
        expected["id"] = json!("ESPGNU777ORG");
        assert_eq!(his.get(&professional(), "/people/ESPGNU777ORG").await.json(), expected);
        assert!(his.sql_text("SELECT data ->> 'password' FROM people").await.unwrap().starts_with("$argon2id$"));
        for (defaults, member) in [(r#"["end_user"]"#, "true"), (r#"["root"]"#, "true"), (r#"["end_user"]"#, "false")] {
            let form = form.replace(r#"["end_user"]"#, defaults).replace("\"active\":true", &format!("\"active\":{member}"));
            let expected = if (defaults, member) == (r#"["end_user"]"#, "true") { 200 } else { 403 };
            assert_eq!(his.post(&professional(), &format!("/people/N{}", defaults.len()), form).await.status, expected);
        }
    }

    async fn a_password_is_not_patched_by_anybody(his) {
        his.person("ANA", r#"{"password":"secret-1"}"#).await;
        for actor in [root(), professional(), own("ANA")] {
            for body in [r#"{"password":"x"}"#, r#"{"name":"y","pass\u0077ord":null}"#] {
                let (status, error, code) = his.patch(&actor, "/people/ANA", body).await.error();
                assert_eq!((status, code.as_str()), (403, "not_permitted"));
                assert!(error.contains("/password"), "{error}");
            }
        }
        assert_eq!(his.get(&root(), "/people/ANA").await.json().get("name"), None);
    }

    async fn a_patch_replaces_members_whole_and_keeps_nulls_and_the_hash(his) {
        his.person("ANA", r#"{"a":{"x":1},"b":1,"c":1,"password":"secret-1"}"#).await;
        let reply = his.patch(&own("ANA"), "/people/ANA", r#"{"id":"ANA","a":{"y":2},"b":null,"d":"né"}"#).await;
        assert_eq!((reply.status, reply.text()), (200, "null"));
        let expected = json!({"id": "ANA", "roles": ["end_user"], "a": {"y": 2}, "b": null, "c": 1, "d": "né"});
        assert_eq!(his.get(&own("ANA"), "/people/ANA").await.json(), expected);
        assert!(his.sql_text("SELECT data ->> 'password' FROM people").await.unwrap().starts_with("$argon2id$"));
        let refused = (422, "Not allowed to change the person ID".to_owned(), "person_id_change".to_owned());
        for body in [r#"{"id":"BOB"}"#, r#"{"id":null}"#, r#"{"id":"ana"}"#] {
            assert_eq!(his.patch(&root(), "/people/ANA", body).await.error(), refused);
        }
        assert_eq!(his.patch(&root(), "/people/NONE", "{}").await.error(), (404, "User not found".into(), "user_not_found".into()));
    }

    async fn only_inactive_persons_without_records_are_deleted(his) {
        assert_eq!(his.delete(&root(), "/people/NONE").await.error().1, "User does not exist");
        his.person("ANA", "{}").await;
        assert_eq!(his.delete(&root(), "/people/ANA").await.error(), (422, "The user is active.".into(), "user_active".into()));
        his.patch(&root(), "/people/ANA", r#"{"active":false}"#).await;
        his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
        assert_eq!(his.delete(&root(), "/people/ANA").await.error().0, 409);
        assert_eq!(his.delete(&root(), "/pols/ANA/p1").await.text(), "null");
        assert_eq!(his.delete(&root(), "/people/ANA").await.text(), "null");
        assert_eq!(his.get(&root(), "/people/ANA").await.status, 404);
    }

    async fn a_change_can_be_bound_to_the_state_it_was_made_for(his) {
        his.person("ANA", r#"{"n":1}"#).await;
        let first = his.get(&root(), "/people/ANA").await;
        let tag = first.header("etag").unwrap().to_owned();
        let known = his.request(&root(), "GET", "/people/ANA").header("if-none-match", &tag).send().await;
        assert_eq!((known.status, known.body.len(), known.header("etag")), (304, 0, Some(tag.as_str())));
        let change = |body| his.request(&root(), "PATCH", "/people/ANA").header("if-match", &tag).body(body);
        assert_eq!(change(r#"{"n":2}"#).send().await.status, 200);
        assert_eq!(change(r#"{"n":3}"#).send().await.error().0, 412, "the lost update");
        assert_eq!(his.get(&root(), "/people/ANA").await.json()["n"], 2);
        let delete = his.request(&root(), "DELETE", "/people/ANA").header("if-match", &tag).send().await;
        assert_eq!(delete.status, 412);
        let missing = his.request(&root(), "PATCH", "/people/NONE").header("if-match", "*").body("{}").send().await;
        assert_eq!(missing.status, 404);
    }

    async fn every_method_heeds_the_conditions_that_it_is_sent_with(his) {
        his.person("ANA", r#"{"n":1}"#).await;
        his.page("ANA", "p", r#"{"id":"p"}"#).await;
        his.post(&root(), "/institutions/i", r#"{"id":"i"}"#).await;
        let document = r#"{"document":"AAEC"}"#;
        assert_eq!(his.post(&root(), "/personal_docs/ANA/p/d", document).await.status, 200);
        for (known, new, body) in [
            ("/people/ANA", "/people/BOB", r#"{"n":1}"#), ("/pols/ANA/p", "/pols/ANA/q", r#"{"id":"p"}"#),
            ("/institutions/i", "/institutions/j", r#"{}"#), ("/personal_docs/ANA/p/d", "/personal_docs/ANA/p/e", document),
        ] {
            let tag = his.get(&root(), known).await.header("etag").unwrap().to_owned();
            let send = async |method: &'static str, target: &str, name: &str, value: &str| {
                let body = if target == "/pols/ANA/q" { r#"{"id":"q"}"# } else if method == "PATCH" { "{}" } else { body };
                let request = his.request(&root(), method, target).header(name, value);
                if method == "GET" { request.send().await.status } else { request.body(body).send().await.status }
            };
            for (method, target, name, value, status) in [
                ("GET", known, "if-match", tag.as_str(), 200), ("GET", known, "if-match", "*", 200), ("GET", known, "if-match", "\"x\"", 412),
                ("POST", known, "if-none-match", "*", 412), ("POST", known, "if-none-match", tag.as_str(), 412),
                ("POST", known, "if-match", "\"x\"", 412), ("POST", known, "if-match", tag.as_str(), 200),
                ("POST", new, "if-match", "*", 412), ("POST", new, "if-none-match", "*", 200),
            ] {
                assert_eq!(send(method, target, name, value).await, status, "{method} {target} {name}: {value}");
            }
            if known != "/personal_docs/ANA/p/d" {
                assert_eq!(send("PATCH", known, "if-none-match", "*").await, 412, "{known}");
                assert_eq!(send("PATCH", known, "if-none-match", "\"x\"").await, 200, "{known}");
            }
        }
    }

    async fn people_are_listed_whole_or_by_the_page(his) {
        for at in 0..25 {
            his.person(&format!("P{at:02}"), &json!({"name": if at % 2 == 0 { "Ana María" } else { "Bob" }}).to_string()).await;
        }
        let all = his.get(&professional(), "/people").await;
        assert_eq!((all.json().as_array().unwrap().len(), all.header("link")), (25, None));
        assert_eq!(all.json()[0][0]["id"], "P00");
        let mut target = "/people?name=Ana+Mar%C3%ADa&limit=5".to_owned();
        let mut seen = Vec::new();
        loop {
            let page = his.get(&professional(), &target).await;
            let ids = page.json().as_array().unwrap().iter().map(|one| one[0]["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
            assert!(ids.len() <= 5);
            seen.extend(ids);
            match page.header("link") {
                Some(link) => target = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned(),
                None => break,
            }
        }
        assert_eq!(seen, (0..25).step_by(2).map(|at| format!("P{at:02}")).collect::<Vec<_>>());
        for query in ["limit=0", "limit=1001", "limit=x", "limit=-1", "name=%ff", "after=%00"] {
            assert_eq!(his.get(&professional(), &format!("/people?{query}")).await.error().0, 400, "{query}");
        }
        his.person("DATED", r#"{"dob":"1985-10-04"}"#).await;
        assert_eq!(his.get(&professional(), "/people?dob=1985-10-04").await.json()[0][0]["id"], "DATED");
        for query in ["dob=bogus", "dob=", "dob=1985-02-30", "dob=1985-10-04T00:00:00Z", "dob=4.10.1985"] {
            let (status, _, code) = his.get(&professional(), &format!("/people?{query}")).await.error();
            assert_eq!((status, code.as_str()), (400, "bad_query"), "{query}");
        }
        assert_eq!(his.get(&professional(), "/people?after=P23&unknown=1").await.json().as_array().unwrap().len(), 1);
    }

    async fn a_long_list_is_streamed_and_complete(his) {
        let filler = "x".repeat(3000);
        for at in 0..400 {
            his.person(&format!("P{at:03}"), &json!({"filler": filler}).to_string()).await;
        }
        let all = his.get(&professional(), "/people").await;
        assert_eq!(all.header("transfer-encoding"), Some("chunked"));
        assert!(all.is_complete);
        let people = all.json();
        let ids: Vec<_> = people.as_array().unwrap().iter().map(|one| one[0]["id"].as_str().unwrap()).collect();
        assert_eq!(ids, (0..400).map(|at| format!("P{at:03}")).collect::<Vec<_>>());
    }
}
