//! The history of account changes: every change leaves one event, however it was made, and nothing else leaves one.

use fedgate::accounts::{AccountChange, AccountEvent, AccountStore, NewAccount};
use fedgate_base::config::StoreConfig;
use fedgate_base::db::actor::ChangeActor;
use fedgate_base::db::{Database, schema};
use fedgate_his::store::WriteBatch;
use serde_json::{Value, json};

use crate::support::postgres::as_role;
use crate::support::{His, own, root};

const HASH: &str = "$2b$12$cjrzjdZJGA6ARGr5Z1HVpOIyvhVrHAO3TN6t39r4X5rLrhRDlNUmi";
const OTHER: &str = "$2b$12$KIXIDzQmW8pZ3bC0v7Lw1uF2c8JmO2v1lq3i0dK1m0yQm8b7y1E2a";

/// All events, the oldest first. No event holds a hash.
async fn events(accounts: &AccountStore) -> Vec<AccountEvent> {
    let mut events = accounts.history(None, None, 1000).await.unwrap();
    events.reverse();
    for event in &events {
        assert!(!format!("{event:?}").contains('$'), "{event:?}");
        chrono::DateTime::parse_from_rfc3339(&event.at).unwrap();
    }
    events
}

/// An event in short.
fn short(event: &AccountEvent) -> Value {
    let AccountEvent { what, account, roles, active, password, via, actor, request_id, .. } = event;
    json!([what, account, [roles.before, roles.after], [active.before, active.after], password, via, actor, request_id])
}

/// The events since the last look.
struct Look<'a> {
    accounts: &'a AccountStore,
    seen: usize,
}

impl Look<'_> {
    async fn since(&mut self) -> Vec<Value> {
        let all = events(self.accounts).await;
        let new = all.iter().skip(self.seen).map(short).collect();
        self.seen = all.len();
        new
    }
}

const ROOT: &str = "ARGBUE111FAV";

crate::on_both_stores! {
    async fn a_change_over_http_names_the_caller_and_the_request(his) {
        let accounts = AccountStore::open(&his.config).await.unwrap();
        let mut look = Look { accounts: &accounts, seen: 0 };
        his.person("ANA", r#"{"name":"x","password":"secret-1"}"#).await;
        let none = [Value::Null, Value::Null];
        let by = |what: &str, roles: Value, active: Value, password: Value| {
            json!([what, "ANA", roles, active, password, "http", ROOT, "req-1"])
        };
        assert_eq!(look.since().await, [by("created", json!([null, ["end_user"]]), json!(none), json!("set"))]);
        // Neither a refused change nor one that leaves an account as it is.
        his.patch(&root(), "/people/ANA", r#"{"name":"y","roles":["end_user"]}"#).await;
        his.patch(&own("ANA"), "/people/ANA", r#"{"roles":["root"]}"#).await;
        his.post(&root(), "/people/ANA", r#"{"roles":["root"]}"#).await;
        his.delete(&root(), "/people/ANA").await;
        his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
        assert_eq!(look.since().await, Vec::<Value>::new());
        his.patch(&root(), "/people/ANA", r#"{"roles":["root"]}"#).await;
        let tag = his.get(&root(), "/people/ANA").await.header("etag").unwrap().to_owned();
        let patch = his.request(&root(), "PATCH", "/people/ANA").header("if-match", &tag);
        assert_eq!(patch.body(r#"{"active":false}"#).send().await.status, 200);
        let form = his.get(&root(), "/password/ANA").await;
        let token = form.text().split("name=\"csrf_token\" value=\"").nth(1).unwrap().split('"').next().unwrap();
        let change = his.request(&root(), "POST", "/password/ANA")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("cookie", &format!("__Host-csrf={token}"))
            .body(format!("csrf_token={token}&password=another-1&pconfirm=another-1"));
        assert_eq!(change.send().await.status, 302);
        his.sql("DELETE FROM pols WHERE true").await;
        assert_eq!(his.delete(&root(), "/people/ANA").await.status, 200);
        assert_eq!(look.since().await, [
            by("changed", json!([["end_user"], ["root"]]), json!(none), Value::Null),
            by("changed", json!(none), json!([null, false]), Value::Null),
            by("changed", json!(none), json!(none), json!("changed")),
            by("deleted", json!([["root"], null]), json!([false, null]), Value::Null),
        ]);
        // The history of one account, in pages, also of a deleted one.
        his.person("BOB", "{}").await;
        let of_ana = accounts.history(Some("ANA"), None, 3).await.unwrap();
        assert_eq!((of_ana.len(), of_ana[0].what.as_str()), (3, "deleted"));
        let earlier = accounts.history(Some("ANA"), Some(of_ana[2].id), 9).await.unwrap();
        assert_eq!(earlier.iter().map(|event| event.what.as_str()).collect::<Vec<_>>(), ["changed", "created"]);
    }

    async fn a_command_and_an_import_name_the_user_of_the_machine(his) {
        let accounts = AccountStore::open(&his.config).await.unwrap().acting_as(ChangeActor::operator());
        let mut look = Look { accounts: &accounts, seen: 0 };
        let new = NewAccount {
            id: "ANA".into(), roles: vec!["root".into()], password_hash: HASH.into(), name: None, lastname: None,
        };
        assert!(accounts.add(&new).await.unwrap());
        for change in [
            AccountChange::Roles(vec![]), AccountChange::Active(false), AccountChange::PasswordHash(OTHER.into()),
        ] {
            assert!(accounts.change("ANA", &change).await.unwrap());
        }
        accounts.unlock("ANA").await.unwrap();
        accounts.delete("ANA").await.unwrap();
        let ours = std::process::Command::new("id").arg("-un").output().unwrap().stdout;
        let ours = String::from_utf8(ours).unwrap().trim().to_owned();
        let seen = look.since().await;
        let in_short: Vec<_> = seen.iter().map(|event| (event[0].as_str().unwrap(), &event[2], &event[3], &event[4])).collect();
        let none = json!([null, null]);
        assert_eq!(in_short, [
            ("created", &json!([null, ["root"]]), &json!([null, true]), &json!("set")),
            ("changed", &json!([["root"], []]), &none, &Value::Null),
            ("changed", &none, &json!([true, false]), &Value::Null),
            ("changed", &none, &none, &json!("changed")),
            ("deleted", &json!([[], null]), &json!([false, null]), &Value::Null),
        ]);
        assert!(seen.iter().all(|event| event[5] == "command" && event[6].as_str().unwrap().starts_with(&ours)), "{seen:?}");
        let object = |text: &str| match fedgate_core::json::parse_stored(text) {
            Ok(fedgate_core::json::JsonValue::Object(object)) => object,
            _ => unreachable!(),
        };
        let people = vec![("BOB".to_owned(), object("{}")), ("EVE".to_owned(), object(r#"{"roles":["root"]}"#))];
        his.store.clone().acting_as(ChangeActor::importer()).import(WriteBatch::People(people.clone())).await.unwrap();
        his.store.clone().acting_as(ChangeActor::importer()).import(WriteBatch::People(people)).await.unwrap();
        let seen = look.since().await;
        assert_eq!(seen.iter().map(|event| json!([event[0], event[1], event[5]])).collect::<Vec<_>>(), [
            json!(["created", "BOB", "import"]), json!(["created", "EVE", "import"]),
        ]);
    }

    async fn a_write_past_the_programs_is_recorded_as_such_and_a_rolled_back_one_not_at_all(his) {
        let accounts = AccountStore::open(&his.config).await.unwrap();
        his.person("ANA", r#"{"password":"secret-1"}"#).await;
        let mut look = Look { accounts: &accounts, seen: 0 };
        look.since().await;
        let set = |member: &str, value: &str| match &his.database {
            Database::Postgres(_) => format!("UPDATE people SET data = jsonb_set(data, '{{{member}}}', '{value}')"),
            Database::Sqlite(_) => format!("UPDATE people SET data = json_set(data, '$.{member}', json('{value}'))"),
        };
        his.sql(&set("roles", r#"["root"]"#)).await;
        his.sql(&set("password", "null")).await;
        his.sql(&set("password", &format!("\"{HASH}\""))).await;
        his.sql(&set("name", "\"x\"")).await;
        his.sql("UPDATE people SET id = 'EVE' WHERE true").await;
        his.sql("INSERT INTO people (id, data) VALUES ('BOB', '{}')").await;
        his.sql("DELETE FROM people WHERE true").await;
        let rolled_back = format!("{}; this is no SQL", "INSERT INTO people (id, data) VALUES ('MAL', '{}')");
        match &his.database {
            Database::Postgres(pool) => {
                pool.get().await.unwrap().batch_execute(&rolled_back).await.unwrap_err();
            }
            Database::Sqlite(sqlite) => {
                sqlite.write(move |tx| tx.execute_batch(&rolled_back)).await.unwrap_err();
            }
        }
        let seen = look.since().await;
        let in_short: Vec<_> = seen.iter().map(|event| json!([event[0], event[1], event[2], event[4]])).collect();
        let none = json!([null, null]);
        assert_eq!(in_short[..4], [
            json!(["changed", "ANA", [["end_user"], ["root"]], null]),
            json!(["changed", "ANA", none, "removed"]),
            json!(["changed", "ANA", none, "set"]),
            json!(["deleted", "ANA", [["root"], null], null]),
        ]);
        assert_eq!(in_short[4..6], [
            json!(["created", "EVE", [null, ["root"]], "set"]),
            json!(["created", "BOB", none, null]),
        ]);
        let mut gone: Vec<_> = in_short[6..].iter().map(|event| format!("{} {}", event[0], event[1])).collect();
        gone.sort();
        assert_eq!(gone, [r#""deleted" "BOB""#, r#""deleted" "EVE""#]);
        assert!(seen.iter().all(|event| event[5] == "outside" && event[6].is_null() && event[7].is_null()), "{seen:?}");
        // No actor's name is left in the session for the next writer.
        his.person("ANA", "{}").await;
        his.sql("DELETE FROM people WHERE true").await;
        let seen = look.since().await;
        assert_eq!((&seen[0][5], &seen[1][5]), (&json!("http"), &json!("outside")));
    }

    async fn a_hash_that_a_login_replaces_is_a_change_of_nobodys_rights(his) {
        // Only the gateway's role is believed.
        let config = match &his.config {
            StoreConfig::Postgres(owner) => StoreConfig::Postgres(as_role(owner, "fedgate").await),
            StoreConfig::Sqlite(_) => his.config.clone(),
        };
        let accounts = AccountStore::open(&config).await.unwrap();
        let document = format!(r#"{{"password":"{HASH}"}}"#);
        his.person("ANA", &document).await;
        let made = accounts.take_events(10).await.unwrap();
        accounts.events_are_recorded(made.iter().map(|event| event.id).collect()).await.unwrap();
        assert!(accounts.replace_hash("ANA", HASH, OTHER).await.unwrap());
        assert_eq!(accounts.take_events(10).await.unwrap(), [], "no record tells of it");
        // But no session changes a password without a trace by using that name.
        let event = events(&accounts).await.pop().unwrap();
        assert_eq!(short(&event), json!(["changed", "ANA", [null, null], [null, null], "rehashed", "login", "ANA", null]));
    }

    async fn an_event_is_taken_by_one_gateway_and_left_to_another_if_that_one_ends(his) {
        let accounts = AccountStore::open(&his.config).await.unwrap();
        for id in ["ANA", "BOB", "EVE"] {
            his.person(id, "{}").await;
        }
        let of = |events: &[AccountEvent]| events.iter().filter_map(|event| event.account.clone()).collect::<Vec<_>>().join(" ");
        let first = accounts.take_events(2).await.unwrap();
        assert_eq!(of(&first), "ANA BOB");
        assert_eq!(of(&accounts.take_events(10).await.unwrap()), "EVE");
        accounts.events_are_recorded(vec![first[0].id]).await.unwrap();
        assert_eq!(accounts.take_events(10).await.unwrap(), []);
        // Half a minute later.
        let long_ago = match &his.database {
            Database::Postgres(_) => "now() - interval '1 second'",
            Database::Sqlite(_) => "unixepoch() - 1",
        };
        his.sql(&format!("UPDATE fedgate_account_events SET taken_until = {long_ago}")).await;
        assert_eq!(of(&accounts.take_events(10).await.unwrap()), "BOB EVE");
    }

    async fn a_migration_says_from_when_on_changes_are_known(his) {
        let accounts = AccountStore::open(&his.config).await.unwrap();
        let mut look = Look { accounts: &accounts, seen: 0 };
        his.person("ANA", "{}").await;
        schema::migrate(&his.database).await.unwrap();
        assert_eq!(look.since().await.len(), 1, "that it was made, and no more");
        match &his.database {
            Database::Postgres(_) => his.sql("ALTER TABLE people DISABLE TRIGGER fedgate_login_kept").await,
            Database::Sqlite(_) => his.sql("DROP TRIGGER fedgate_login_changed").await,
        }
        assert!(accounts.check().await.is_err(), "nobody is admitted meanwhile");
        schema::migrate(&his.database).await.unwrap();
        accounts.check().await.unwrap();
        assert_eq!(look.since().await, [json!(["unwatched", null, [null, null], [null, null], null, "migration", null, null])]);
        // A database from before this table: whatever it holds, its past is unknown.
        his.sql("DELETE FROM fedgate_account_events").await;
        schema::migrate(&his.database).await.unwrap();
        assert_eq!(events(&accounts).await.len(), 1);
    }
}

#[tokio::test]
async fn sqlite_a_replaced_row_is_a_change_and_one_that_is_not_inserted_is_none() {
    let his = His::on_sqlite().await;
    let accounts = AccountStore::open(&his.config).await.unwrap();
    his.person("ANA", "{}").await;
    let mut look = Look { accounts: &accounts, seen: 1 };
    his.sql("INSERT OR IGNORE INTO people (id, data) VALUES ('ANA', '{\"roles\":[\"root\"]}')").await;
    his.sql("REPLACE INTO people (id, data) VALUES ('ANA', '{\"roles\":[\"end_user\"],\"name\":\"x\"}')").await;
    assert_eq!(look.since().await, Vec::<Value>::new());
    his.sql("REPLACE INTO people (id, data) VALUES ('ANA', '{\"roles\":[\"root\"]}')").await;
    let seen = look.since().await;
    assert_eq!(
        seen.iter().map(|event| json!([event[0], event[2], event[5]])).collect::<Vec<_>>(),
        [json!(["changed", [["end_user"], ["root"]], "outside"])]
    );
}

#[tokio::test]
async fn postgres_another_program_needs_no_further_right_and_its_database_user_is_recorded() {
    let his = His::on_postgres().await;
    let accounts = AccountStore::open(&his.config).await.unwrap();
    his.person("ANA", "{}").await;
    let name = format!("beside_{}", std::process::id());
    his.sql(&format!("CREATE ROLE {name} LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON people TO {name}")).await;
    let fedgate_base::config::StoreConfig::Postgres(config) = his.config.clone() else { unreachable!() };
    let mut beside: tokio_postgres::Config = config.uri.parse().unwrap();
    beside.user(&name).application_name("psql");
    let (client, connection) = beside.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let long = "x".repeat(2000);
    for write in [
        "INSERT INTO people (id, data) VALUES ('BOB', '{\"roles\": [\"root\"]}')".to_owned(),
        "UPDATE people SET data = data || '{\"active\": false}' WHERE id = 'ANA'".to_owned(),
        // The trigger never makes a write fail: no name of a session does, and no odd row.
        "SET fedgate.actor = 'http'; UPDATE people SET data = '[]' WHERE id = 'BOB'".to_owned(),
        format!("SET fedgate.actor = 'command {long} {long}'; INSERT INTO people (id, data) VALUES ('{long}', NULL)"),
        "DELETE FROM people WHERE id <> 'ANA'".to_owned(),
    ] {
        client.batch_execute(&write).await.unwrap();
    }
    let seen = events(&accounts).await;
    assert!(seen[1..].iter().all(|event| event.database_user.as_deref() == Some(&name)), "{seen:?}");
    assert!(seen[1..].iter().all(|event| event.application.as_deref() == Some("psql")), "{seen:?}");
    let ways: Vec<_> = seen.iter().map(|event| event.via.as_str()).collect();
    assert_eq!(ways, ["http", "outside", "outside", "outside", "command", "command", "command"]);
    assert!(client.batch_execute("SELECT fedgate_take_events(1)").await.is_err(), "events are no program's to take");
    assert!(client.batch_execute("DELETE FROM fedgate_account_events").await.is_err());
    // In every kind of session, and for all accounts at once.
    his.sql("BEGIN; SET LOCAL session_replication_role = replica; UPDATE people SET data = '{}'; COMMIT").await;
    his.sql("TRUNCATE people CASCADE").await;
    let seen = events(&accounts).await;
    let last: Vec<_> = seen[7..].iter().map(|event| (event.what.as_str(), event.via.as_str())).collect();
    assert_eq!(last, [("changed", "replication"), ("all_deleted", "outside")]);
}
