//! Rows that older programs wrote, and ids that would make two persons look like one.

use std::time::Duration;

use fedgate::accounts::{AccountChange, AccountStore, NewAccount};
use fedgate_base::db::schema;
use fedgate_his::import::{ClearPasswords, ImportKind, ImportRun};
use serde_json::json;

use crate::support::{HASHES, His, professional, root};

const HASH: &str = "$2b$12$cjrzjdZJGA6ARGr5Z1HVpOIyvhVrHAO3TN6t39r4X5rLrhRDlNUmi";

/// Imports people, and returns the refusals.
async fn import(his: &His, lines: &str) -> String {
    let file = his.scratch.0.join("people.jsonl");
    std::fs::write(&file, lines).unwrap();
    let (clear_passwords, path) = (ClearPasswords::Refuse, Some(file.clone()));
    let import = ImportRun {
        store: &his.store,
        kind: ImportKind::People,
        clear_passwords,
        hashes: HASHES,
        path,
        progress: &|_| {},
    };
    import.run(|| std::fs::File::open(&file).map(std::io::BufReader::new)).await.unwrap();
    std::fs::read_to_string(import.refused_path()).unwrap_or_default()
}

async fn count(his: &His) -> String {
    his.sql_text("SELECT CAST(count(*) AS text) FROM people").await.unwrap()
}

crate::on_both_stores! {
    async fn an_id_that_differs_in_case_alone_is_the_same_person(his) {
        let exists = (422, "User already exists".to_owned(), "user_exists".to_owned());
        for (stored, sent) in [
            ("usrlower1", "usrlower1"), ("usrlower1", "USRLOWER1"), ("UsrMixed1", "usrmixed1"), ("müller", "M%C3%BCLLER"),
            ("straße", "strasse"), ("STRAßE2", "STRASSE2"), ("\u{390}1", "%CE%901"), ("\u{390}2", "%CE%AA%CC%812"),
        ] {
            his.sql(&format!("INSERT INTO people (id, data) VALUES ('{stored}', '{{\"id\": \"{stored}\"}}') ON CONFLICT DO NOTHING")).await;
            let before = count(&his).await;
            let reply = his.post(&professional(), &format!("/people/{sent}"), "{}").await;
            assert_eq!(reply.error(), exists, "{sent} beside {stored}");
            assert_eq!(count(&his).await, before);
        }
        his.person("USRUPPER1", "{}").await;
        assert_eq!(his.post(&professional(), "/people/usrupper1", r#"{"n":1}"#).await.error(), exists);
        assert_eq!(his.post(&professional(), "/people/usrlower10", "{}").await.status, 200, "another person");

        let refused = import(&his, "{\"id\":\"USRLOWER1\"}\n{\"id\":\"UsrLower1\"}\n{\"id\":\"made\"}\n{\"id\":\"x\u{200b}\"}").await;
        assert_eq!(refused.matches("differs only in case").count(), 2, "{refused}");
        assert_eq!(refused.matches("an invisible character").count(), 1, "{refused}");
        assert_eq!(his.get(&root(), "/people/MADE").await.json(), json!({"id": "MADE", "roles": ["end_user"]}));
        let accounts = AccountStore::open(&his.config).await.unwrap();
        let new = |id: &str| NewAccount { id: id.into(), roles: vec![], password_hash: HASH.into(), name: None, lastname: None };
        assert!(!accounts.add(&new("USRLOWER1")).await.unwrap() && !accounts.add(&new("MADE")).await.unwrap());
        assert!(accounts.add(&new("USRNEW")).await.unwrap());
    }

    async fn the_id_of_a_new_person_is_normal_and_seen(his) {
        assert_eq!(his.post(&root(), "/people/%CE%901", "{}").await.status, 200);
        assert_eq!(his.get(&root(), "/people/%CE%AA%CC%811").await.json()["id"], "\u{3aa}\u{301}1");
        assert_eq!(his.post(&root(), "/people/%CE%901", "{}").await.status, 200, "again");
        for id in ["%20A", "A%20", "A%C2%A0", "A%E2%80%8BB", "%E2%80%AEA", "A%EF%BB%BF", "A%C2%AD", "U%CC%88"] {
            let reply = his.post(&root(), &format!("/people/{id}"), "{}").await;
            assert_eq!((reply.status, reply.error().2.as_str()), (400, "bad_id"), "{id}");
        }
        assert_eq!(his.post(&root(), "/people/A%20B", "{}").await.status, 200);
    }

    async fn a_row_that_is_no_object_shows_no_hash_and_takes_no_patch(his) {
        his.person("ANA", r#"{"name":"Ana"}"#).await;
        his.sql(&format!(
            r#"INSERT INTO people (id, data) VALUES
               ('LIST', '[{{"id": "LIST", "password": "{HASH}"}}, 1]'), ('DEEP', '{{"id": "DEEP", "old": [{{"password": "{HASH}"}}]}}'),
               ('NULL', NULL), ('JSONNULL', 'null'), ('SEVEN', '7')"#
        ))
        .await;
        let list = his.get(&professional(), "/people/LIST").await;
        assert_eq!(list.json(), json!([{"id": "LIST"}, 1]));
        assert_eq!(his.get(&professional(), "/people/DEEP").await.json(), json!({"id": "DEEP", "old": [{}]}));
        for target in ["/people", "/people?limit=9", "/people/LIST", "/people/DEEP"] {
            let text = his.get(&professional(), target).await.text().to_owned();
            assert!(!text.contains("$2b$"), "{target}: {text}");
        }
        let refused = (409, "record_not_an_object".to_owned());
        for id in ["LIST", "SEVEN"] {
            let before = his.get(&root(), &format!("/people/{id}")).await.text().to_owned();
            for conditional in [false, true] {
                let target = format!("/people/{id}");
                let patch = his.request(&root(), "PATCH", &target).body(r#"{"name":"x"}"#);
                let patch = if conditional { patch.header("if-match", "*") } else { patch };
                let (status, _, code) = patch.send().await.error();
                assert_eq!((status, code), refused, "{id}");
            }
            assert_eq!(his.get(&root(), &format!("/people/{id}")).await.text(), before);
            assert_eq!(his.delete(&root(), &format!("/people/{id}")).await.error().2, "user_active");
        }
        // The tag is of the visible text.
        let tag = list.header("etag").unwrap().to_owned();
        let patch = his.request(&root(), "PATCH", "/people/LIST").header("if-match", &tag).body("{}").send().await;
        assert_eq!(patch.status, 409);
        for id in ["NULL", "JSONNULL"] {
            assert_eq!(his.patch(&root(), &format!("/people/{id}"), r#"{"name":"x"}"#).await.status, 200);
            assert_eq!(his.get(&root(), &format!("/people/{id}")).await.json(), json!({"name": "x"}), "{id}");
        }
    }

    async fn a_command_changes_no_account_of_a_row_that_is_no_object_and_begins_null_anew(his) {
        for (id, document) in [("ALIST", "[1]"), ("ASCALAR", "1"), ("ANULL", "null")] {
            his.sql(&format!("INSERT INTO people (id, data) VALUES ('{id}', '{document}')")).await;
        }
        let accounts = AccountStore::open(&his.config).await.unwrap();
        for change in [AccountChange::Roles(vec!["root".into()]), AccountChange::PasswordHash(HASH.into()), AccountChange::Active(false)] {
            for id in ["ALIST", "ASCALAR"] {
                assert!(!accounts.change(id, &change).await.unwrap(), "{id}");
            }
            assert!(accounts.change("ANULL", &change).await.unwrap());
        }
        assert_eq!(his.sql_text("SELECT CAST(data AS text) FROM people WHERE id = 'ALIST'").await.unwrap(), "[1]");
        assert_eq!(his.get(&root(), "/people/ANULL").await.json(), json!({"active": false, "roles": ["root"]}));
    }

    async fn rows_of_before_that_are_served_with_limits_are_listed(his) {
        his.person("ANA", "{}").await;
        his.person("M%C3%BCLLER", "{}").await;
        his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
        let told = async || {
            let rows = schema::odd_rows(&his.database, Duration::from_secs(30)).await.unwrap();
            rows.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(told().await, Vec::<String>::new());
        his.sql(&format!(
            r#"INSERT INTO people (id, data) VALUES ('A/B', '{{"password": "{HASH}"}}'), ('..', '{{}}'), ('x{}y', '[1]'), ('NONE', NULL);
               INSERT INTO pols (id, book, data) VALUES ('50%', 'ANA', '{{}}')"#,
            '\u{202e}'
        ))
        .await;
        let told = told().await;
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("`people` has rows whose id no path can name"), "{told:?}");
        for part in ["`A/B`", "`..`", "; `people` has rows whose document is not an object", "; `people` has rows whose document is null: nobody can log in with them, and a PATCH starts them from empty: `NONE`", "`x\\u{202e}y`"] {
            assert!(told[0].contains(part), "{part}: {told:?}");
        }
        assert!(told[1].contains("`pols`") && told[1].contains("`50%`"), "{told:?}");
        assert!(told.iter().all(|line| !line.contains("$2b$")));
    }
}
