//! An account is the one whose id is equal byte for byte, whatever the column's type treats as equal.

use fedgate::accounts::{AccountChange, AccountStore, ChangedAccounts};
use fedgate_base::config::{SqliteConfig, StoreConfig};
use fedgate_base::db::schema;

use crate::his::logins::differences;
use crate::support::postgres::Cluster;
use crate::support::{His, Scratch, own, root};

/// The law, for a store whose column treats `other` as equal to the stored `ANA`.
async fn nobody_is_taken_for_another(his: &His, other: &str) {
    his.sql("UPDATE people SET data = '{\"password\": \"old\", \"roles\": [\"root\"], \"name\": \"x\"}'").await;
    let accounts = AccountStore::open(&his.config).await.unwrap();
    let ana = accounts.read("ANA").await.unwrap().expect("who is spelled as the row is");
    assert_eq!((ana.id.as_str(), ana.roles.as_slice()), ("ANA", &["root".to_owned()][..]));
    assert_eq!(accounts.read(other).await.unwrap(), None, "`{other}`");
    assert!(!accounts.change(other, &AccountChange::Active(false)).await.unwrap());
    assert!(!accounts.replace_hash(other, "old", "new").await.unwrap());
    assert!(accounts.replace_hash("ANA", "old", "$2b$12$new").await.unwrap());
    assert_eq!(
        accounts.changes_since(Some(ana.epoch)).await.unwrap().accounts,
        ChangedAccounts::These(vec!["ANA".into()])
    );

    his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
    let path = other.replace(' ', "%20");
    for target in [format!("/people/{path}"), format!("/pols/{path}/p1")] {
        assert_eq!(his.get(&root(), &target).await.status, 404, "{target}");
        assert_eq!(his.patch(&root(), &target, r#"{"name":"y"}"#).await.status, 404, "{target}");
    }
    assert_eq!(his.get(&root(), &format!("/pols/{path}")).await.text(), "[]");
    assert_eq!(his.get(&root(), "/people/ANA").await.json()["name"], "x");
    assert_eq!(his.get(&own("ANA"), "/people/ANA").await.status, 200);
    assert_eq!(his.get(&own("ANA"), "/pols/ANA/p1").await.status, 200);
    assert_eq!(differences(his).await, "");

    let told = schema::loose_columns(&his.database).await.unwrap();
    let told: Vec<String> = told.iter().map(ToString::to_string).collect();
    assert!(told[0].starts_with("`people.id` is ") && told[0].contains("answered 401"), "{told:?}");
}

/// A store on PostgreSQL whose ids have this type, with one person.
async fn postgres(prepare: &str, kind: &str) -> His {
    let config = Cluster::shared().database().await;
    let pool = fedgate_base::db::postgres::pool(&config).unwrap();
    let tables = format!(
        "{prepare}; CREATE TABLE people (id {kind} PRIMARY KEY, data jsonb); \
         CREATE TABLE pols (id varchar PRIMARY KEY, book {kind} REFERENCES people (id), data jsonb); \
         CREATE TABLE personal_docs (id varchar PRIMARY KEY, fedacct {kind} REFERENCES people (id), \
             pol varchar REFERENCES pols (id), document bytea, data jsonb); \
         INSERT INTO people (id, data) VALUES ('ANA', '{{}}')"
    );
    pool.get().await.unwrap().batch_execute(&tables).await.unwrap();
    His::on(config).await
}

#[tokio::test]
async fn postgres_whose_ids_are_padded_takes_nobody_for_another() {
    let his = postgres("SELECT 1", "char(40)").await;
    nobody_is_taken_for_another(&his, "ANA ").await;
    // The remedy that the operator reads works, even though triggers exist.
    his.sql(
        "ALTER TABLE pols ALTER COLUMN book TYPE varchar COLLATE \"default\";
         ALTER TABLE personal_docs ALTER COLUMN fedacct TYPE varchar COLLATE \"default\";
         DROP VIEW IF EXISTS fedgate_people; ALTER TABLE people ALTER COLUMN id TYPE varchar COLLATE \"default\"",
    )
    .await;
    assert_eq!(schema::loose_columns(&his.database).await.unwrap(), []);
    schema::migrate(&his.database).await.unwrap();
    assert_eq!(differences(&his).await, "");
    let accounts = AccountStore::open(&his.config).await.unwrap();
    assert_eq!(accounts.read("ANA").await.unwrap().unwrap().roles, ["root"]);
}

#[tokio::test]
async fn postgres_whose_ids_have_no_case_takes_nobody_for_another() {
    let ci = "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";
    for (prepare, kind) in [
        (ci, "varchar COLLATE ci"),
        ("CREATE EXTENSION citext", "citext"),
        (&format!("{ci}; CREATE DOMAIN gnuid AS varchar(40) COLLATE ci"), "gnuid"),
    ] {
        let his = postgres(prepare, kind).await;
        nobody_is_taken_for_another(&his, "ana").await;
        let accounts = AccountStore::open(&his.config).await.unwrap();
        for role in ["origin", "replica"] {
            let before = accounts.changes_since(None).await.unwrap().epoch;
            his.sql("DELETE FROM pols").await;
            let (from, to) = if role == "origin" { ("ANA", "ana") } else { ("ana", "ANA") };
            his.sql(&format!(
                "BEGIN; SET LOCAL session_replication_role = {role}; UPDATE people SET id = '{to}'; COMMIT"
            ))
            .await;
            let ChangedAccounts::These(mut told) = accounts.changes_since(Some(before)).await.unwrap().accounts else {
                panic!()
            };
            told.sort_unstable();
            assert_eq!(told, ["ANA", "ana"], "{kind}: who was `{from}` is no more, and who is cached by it is told");
            assert_eq!(accounts.read(from).await.unwrap(), None);
            assert_eq!(accounts.read(to).await.unwrap().unwrap().id, to);
            assert_eq!(differences(&his).await, "", "{kind}");
            let last = accounts.history(None, None, 2).await.unwrap();
            let last = last.iter().map(|event| (event.what.as_str(), event.account.as_deref()));
            assert_eq!(last.collect::<Vec<_>>(), [("created", Some(to)), ("deleted", Some(from))], "{kind}");
        }
    }
}

#[tokio::test]
async fn sqlite_whose_ids_have_no_case_takes_nobody_for_another() {
    let scratch = Scratch::new();
    let path = scratch.0.join("his.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE people (id TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, data TEXT);
             CREATE TABLE pols (id TEXT PRIMARY KEY NOT NULL, book TEXT COLLATE NOCASE REFERENCES people (id), data TEXT);
             INSERT INTO people (id, data) VALUES ('ANA', '{}')",
        )
        .unwrap();
    drop(connection);
    let his = His::start(
        StoreConfig::Sqlite(SqliteConfig { path, lock_timeout: std::time::Duration::from_secs(5) }),
        scratch,
    )
    .await;
    nobody_is_taken_for_another(&his, "ana").await;
    let accounts = AccountStore::open(&his.config).await.unwrap();
    let before = accounts.changes_since(None).await.unwrap().epoch;
    his.sql("DELETE FROM pols; REPLACE INTO people (id, data) VALUES ('ana', '{}')").await;
    let changes = accounts.changes_since(Some(before)).await.unwrap().accounts;
    assert_eq!(changes, ChangedAccounts::These(vec!["ANA".into()]), "by the name it was cached under");
    assert_eq!(accounts.read("ANA").await.unwrap(), None);
    his.sql("UPDATE people SET id = 'ANA'").await;
    assert_eq!(accounts.read("ana").await.unwrap(), None);
    assert_eq!(differences(&his).await, "");
}
