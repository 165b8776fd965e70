//! The data that a login needs is beside the document, and always agrees with it.

use fedgate::accounts::{AccountDeletion, AccountStore, ChangedAccounts, StoredAccount};
use fedgate_base::config::{PostgresConfig, StoreConfig};
use fedgate_base::db::{Database, schema};
use rand::Rng;

use crate::support::postgres::Cluster;
use crate::support::{His, root};

/// The persons for whom the table of logins and the document differ, in either direction.
pub(crate) async fn differences(his: &His) -> String {
    let question = match &his.database {
        Database::Postgres(_) => {
            "SELECT string_agg(coalesce(p.id::varchar COLLATE \"C\", l.id), ' ') FROM people p CROSS JOIN LATERAL fedgate_login(p.data) d
             FULL JOIN fedgate_logins l ON l.id = p.id::varchar COLLATE \"C\"
             WHERE l.id IS NULL OR p.id IS NULL OR (row_writer, row_place) IS DISTINCT FROM (p.xmin, p.ctid)
                OR (l.password, l.roles, l.active) IS DISTINCT FROM (d.password, d.roles, d.active)"
        }
        Database::Sqlite(_) => {
            "SELECT group_concat(id, ' ') FROM (
                SELECT id FROM (SELECT * FROM fedgate_logins EXCEPT SELECT id, password, roles, active FROM fedgate_logins_due)
                UNION SELECT id FROM (SELECT id, password, roles, active FROM fedgate_logins_due EXCEPT SELECT * FROM fedgate_logins))"
        }
    };
    his.sql_text(question).await.unwrap_or_default()
}

/// An account, if it exists, without its epoch.
async fn read(his: &His, id: &str) -> Option<StoredAccount> {
    let accounts = AccountStore::open(&his.config).await.unwrap();
    accounts.read(id).await.unwrap().map(|account| StoredAccount { epoch: 0, ..account })
}

/// Documents as any program may have written them.
fn document(random: &mut impl Rng) -> String {
    let member =
        |random: &mut dyn rand::RngCore, values: &[&str]| values[random.next_u32() as usize % values.len()].to_owned();
    let hash = format!("\"{}\"", "h".repeat(513));
    let password = member(random, &["\"$2b$12$a\"", "\"\"", "null", "17", "[\"x\"]", &hash, "\"'quoted\""]);
    let many = format!("[\"{}\"]", "r".repeat(17_000));
    let roles = member(random, &["[\"end_user\"]", "[\"root\", \"end_user\"]", "[]", "\"root\"", "null", "{}", &many]);
    let active = member(random, &["true", "false", "null", "\"False\"", "0", "\"a very long word for no\""]);
    match random.random_range(0..8) {
        0 => "[1, {\"roles\": [\"root\"]}]".to_owned(),
        1 => "\"text\"".to_owned(),
        2 => format!("{{\"roles\": {roles}}}"),
        _ => format!("{{\"password\": {password}, \"roles\": {roles}, \"active\": {active}, \"name\": \"x\"}}"),
    }
}

fn write(random: &mut impl Rng, is_postgres: bool) -> String {
    let mut id = || format!("P{}", random.random_range(0..6));
    let (one, other) = (id(), id());
    let data = document(random).replace('\'', "''");
    let merged = match is_postgres {
        true => "coalesce(people.data, '{}') || '{\"name\": \"y\"}'",
        false => {
            "CASE WHEN json_valid(data) AND substr(data, 1, 1) = '{' THEN json_set(data, '$.name', 'y') ELSE data END"
        }
    };
    let upsert = format!("INSERT INTO people (id, data) VALUES ('{one}', '{data}') ON CONFLICT (id) DO UPDATE");
    let common = [
        format!("INSERT INTO people (id, data) VALUES ('{one}', '{data}') ON CONFLICT DO NOTHING"),
        format!("{upsert} SET data = excluded.data"),
        format!("{upsert} SET data = {merged}"),
        format!("UPDATE people SET data = '{data}' WHERE id IN ('{one}', '{other}')"),
        format!("UPDATE people SET data = {merged}"),
        format!("UPDATE people SET data = NULL WHERE id = '{one}'"),
        format!("DELETE FROM people WHERE id = '{one}'"),
        format!(
            "UPDATE people SET id = '{other}' WHERE id = '{one}' AND NOT EXISTS (SELECT 1 FROM people WHERE id = '{other}')"
        ),
        "DELETE FROM people WHERE id > 'P4'".to_owned(),
    ];
    let postgres = [
        format!("MERGE INTO people USING (VALUES ('{one}')) v (id) ON v.id = people.id WHEN MATCHED THEN DELETE \
                 WHEN NOT MATCHED THEN INSERT VALUES (v.id, '{data}')"),
        format!("SET LOCAL session_replication_role = replica; {upsert} SET data = excluded.data; \
                 UPDATE people SET data = {merged}; DELETE FROM people WHERE id = '{other}'"),
        format!("SAVEPOINT a; {upsert} SET data = excluded.data; ROLLBACK TO a; UPDATE people SET data = '{data}' WHERE id = '{other}'; \
                 UPDATE people SET data = {merged}"),
        format!("COPY people (id, data) FROM PROGRAM 'echo \"C{}\t{{}}\"'", random.random::<u64>()),
        "TRUNCATE people CASCADE".to_owned(),
        "WITH gone AS (DELETE FROM people WHERE id < 'P3' RETURNING id, data) INSERT INTO people (id, data) SELECT id || 'x', data FROM gone \
         ON CONFLICT DO NOTHING"
            .to_owned(),
    ];
    let sqlite = [
        format!("REPLACE INTO people (id, data) VALUES ('{one}', '{data}')"),
        format!("INSERT OR IGNORE INTO people (id, data) VALUES ('{one}', '{data}')"),
        format!("UPDATE OR REPLACE people SET id = '{other}' WHERE id = '{one}'"),
        format!("INSERT OR IGNORE INTO people (id, data) VALUES ('M{}', 'no JSON')", random.random::<u32>()),
    ];
    let of_store: &[String] = if is_postgres { &postgres } else { &sqlite };
    let kind = random.random_range(0..common.len() + of_store.len());
    let statement = common.get(kind).or_else(|| of_store.get(kind - common.len())).unwrap();
    if is_postgres { format!("BEGIN; {statement}; COMMIT") } else { statement.clone() }
}

crate::on_both_stores! {
    async fn what_logins_read_is_what_the_documents_say_after_writes_of_every_kind(his) {
        let mut random = rand::rng();
        let is_postgres = matches!(his.database, Database::Postgres(_));
        for _ in 0..150 {
            let statement = write(&mut random, is_postgres);
            his.sql(&statement).await;
            assert_eq!(differences(&his).await, "", "{statement}");
        }
    }

    async fn what_was_written_while_no_trigger_kept_it_is_put_right_by_migrating(his) {
        his.person("ANA", r#"{"roles":["root"]}"#).await;
        his.person("BOB", r#"{"roles":["root"]}"#).await;
        let (off, takes_all) = match &his.database {
            Database::Postgres(_) => ("ALTER TABLE people DISABLE TRIGGER USER", "UPDATE people SET data = '{\"roles\": []}'"),
            Database::Sqlite(_) => (
                "DROP TRIGGER fedgate_people_updated; DROP TRIGGER fedgate_people_inserted; DROP TRIGGER fedgate_people_deleted",
                "UPDATE people SET data = '{\"roles\":[]}'",
            ),
        };
        his.sql(&format!("{off}; {takes_all}; DELETE FROM people WHERE id = 'BOB'; INSERT INTO people (id, data) VALUES ('EVE', '{{}}')")).await;
        assert_eq!(differences(&his).await.split(' ').count(), 3);
        schema::migrate(&his.database).await.unwrap();
        assert_eq!(differences(&his).await, "");
        assert_eq!(read(&his, "ANA").await.unwrap().roles, Vec::<String>::new());
        assert_eq!(read(&his, "BOB").await, None);
    }

    async fn the_people_of_before_are_there_when_the_schema_is_first_upgraded(his) {
        // As in a database that Thalamus or an older program has left.
        let remove = match &his.database {
            Database::Postgres(_) => "DROP TRIGGER fedgate_login_kept ON people; DROP TABLE fedgate_logins; \
                INSERT INTO people (id, data) SELECT 'P' || n, '{\"roles\": [\"end_user\"]}' FROM generate_series(1, 401) n; \
                UPDATE fedgate_schema SET version = 5",
            Database::Sqlite(_) => "DROP TRIGGER fedgate_people_updated; DROP TRIGGER fedgate_people_inserted; \
                DROP TRIGGER fedgate_people_deleted; DROP VIEW fedgate_logins_due; DROP TABLE fedgate_logins; \
                INSERT INTO people (id, data) SELECT 'P' || value, '{\"roles\":[\"end_user\"]}' FROM generate_series(1, 401); \
                UPDATE fedgate_schema SET version = 5",
        };
        his.sql(&remove.replace("SELECT 'P' || value, '{\"roles\":[\"end_user\"]}' FROM generate_series(1, 401)",
            "WITH RECURSIVE n (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < 401) SELECT 'P' || n, '{\"roles\":[\"end_user\"]}' FROM n")).await;
        assert_eq!(schema::migrate(&his.database).await.unwrap(), schema::VERSION);
        assert_eq!(differences(&his).await, "");
        let count = his.sql_text("SELECT CAST(count(*) AS text) FROM fedgate_logins").await;
        assert_eq!(count.as_deref(), Some("401"));
        assert_eq!(read(&his, "P401").await.unwrap().roles, ["end_user"]);
    }

    async fn accounts_are_listed_in_pages_that_follow_each_other_and_leave_nobody_out(his) {
        for id in ["C", "A", "E", "B", "D"] {
            his.person(id, r#"{"roles":["end_user"]}"#).await;
        }
        // The empty id, which a row of Thalamus may have, comes first.
        his.sql(r#"INSERT INTO people (id, data) VALUES ('', '{"roles":["end_user"]}')"#).await;
        // One of them in the state before the table was filled.
        his.sql("DELETE FROM fedgate_logins WHERE id = 'B'; UPDATE people SET data = NULL WHERE id = 'D'").await;
        let accounts = AccountStore::open(&his.config).await.unwrap();
        let (mut after, mut listed) = (None, Vec::new());
        loop {
            let page = accounts.list(after.as_deref(), 2).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.id.clone());
            listed.extend(page);
        }
        let ids: Vec<_> = listed.iter().map(|account| account.id.as_str()).collect();
        assert_eq!(ids, ["", "A", "B", "C", "D", "E"]);
        for account in listed {
            assert_eq!(accounts.read(&account.id).await.unwrap().as_ref(), Some(&account));
            assert_eq!(account.roles.len(), usize::from(account.id != "D"));
        }
    }

    async fn unlocking_names_the_account_and_changes_nothing(his) {
        his.person("ANA", r#"{"roles":["end_user"]}"#).await;
        let accounts = AccountStore::open(&his.config).await.unwrap();
        let before = accounts.read("ANA").await.unwrap().unwrap();
        accounts.unlock("ANA").await.unwrap();
        let changes = accounts.changes_since(Some(before.epoch)).await.unwrap();
        assert_eq!((changes.epoch, changes.accounts), (before.epoch + 1, ChangedAccounts::These(vec!["ANA".into()])));
        let epoch = changes.epoch;
        assert_eq!(accounts.read("ANA").await.unwrap(), Some(StoredAccount { epoch, ..before }));
    }

    async fn a_person_of_several_ids_is_not_deleted_by_a_command(his) {
        for id in ["BOB", "OLD"] {
            his.person(id, r#"{"active":false}"#).await;
        }
        let accounts = AccountStore::open(&his.config).await.unwrap();
        // It would end the merge, and leave the survivor what it has of the old record.
        let number = crate::his::merges::merge(&his, "OLD", "BOB").await;
        assert_eq!(accounts.delete("OLD").await.unwrap(), AccountDeletion::Merged(vec!["BOB".into()]));
        assert_eq!(accounts.delete("BOB").await.unwrap(), AccountDeletion::Merged(vec!["OLD".into()]));
        crate::his::merges::unmerge(&his, number).await;
        assert_eq!(accounts.delete("BOB").await.unwrap(), AccountDeletion::Done);
    }

    async fn only_inactive_persons_without_records_are_deleted_by_a_command_too(his) {
        his.person("ANA", r#"{"active":true}"#).await;
        his.person("BOB", r#"{"active":false}"#).await;
        his.page("BOB", "p1", r#"{"id":"p1"}"#).await;
        let accounts = AccountStore::open(&his.config).await.unwrap();
        let before = accounts.changes_since(None).await.unwrap().epoch;
        assert_eq!(accounts.delete("EVE").await.unwrap(), AccountDeletion::Missing);
        assert_eq!(accounts.delete("ana").await.unwrap(), AccountDeletion::Missing);
        assert_eq!(accounts.delete("ANA").await.unwrap(), AccountDeletion::Active);
        his.sql("UPDATE people SET data = '{}' WHERE id = 'ANA'").await;
        assert_eq!(accounts.delete("ANA").await.unwrap(), AccountDeletion::Active, "as it can log in");
        assert_eq!(accounts.delete("BOB").await.unwrap(), AccountDeletion::InUse { pages: 1, documents: 0 });
        his.delete(&root(), "/pols/BOB/p1").await;
        assert_eq!(accounts.delete("BOB").await.unwrap(), AccountDeletion::Done);
        assert_eq!(accounts.read("BOB").await.unwrap(), None);
        let ChangedAccounts::These(told) = accounts.changes_since(Some(before)).await.unwrap().accounts else { panic!() };
        assert_eq!(told, ["ANA", "BOB"]);
        assert_eq!(differences(&his).await, "");
    }

    async fn a_hash_or_roles_of_absurd_length_let_nobody_in(his) {
        let (hash, roles) = ("$2b$12$".to_owned() + &"x".repeat(600), "r".repeat(17_000));
        his.sql(&format!("INSERT INTO people (id, data) VALUES ('ANA', '{{\"password\": \"{hash}\", \"roles\": [\"root\", \"{roles}\"]}}')")).await;
        let account = read(&his, "ANA").await.unwrap();
        assert_eq!((account.password_hash.as_deref(), account.roles.len()), (Some("!"), 0));
        his.person("BOB", "{}").await;
        let many = format!(r#"{{"roles":["{}"]}}"#, "r".repeat(9_000));
        let reply = his.patch(&root(), "/people/BOB", &many).await;
        assert_eq!((reply.status, reply.json()["code"].as_str()), (422, Some("bad_member")), "{}", reply.text());
        assert_eq!(his.post(&root(), "/people/EVE", &many).await.status, 422);
    }
}

#[tokio::test]
async fn sqlite_reads_no_document_at_a_login() {
    let his = His::on_sqlite().await;
    his.person("ANA", r#"{"roles":["end_user"]}"#).await;
    // The document has other roles, and no trigger has told the table: whoever read the document would see them.
    his.sql("DROP TRIGGER fedgate_people_updated; UPDATE people SET data = '{\"roles\":[\"root\"]}'").await;
    assert_eq!(read(&his, "ANA").await.unwrap().roles, ["end_user"]);
    // An account without a row in the table is read all the same.
    his.sql("DELETE FROM fedgate_logins").await;
    assert_eq!(read(&his, "ANA").await.unwrap().roles, ["root"]);
}

/// How many blocks of long documents a session has read since the last call.
async fn blocks(accounts: &AccountStore) -> i64 {
    let Database::Postgres(pool) = accounts.database() else { unreachable!() };
    let client = pool.get().await.unwrap();
    client.batch_execute("SELECT pg_stat_force_next_flush()").await.unwrap();
    let question = "SELECT toast_blks_read + toast_blks_hit FROM pg_statio_all_tables WHERE relid = 'people'::regclass";
    client.query_one(question, &[]).await.unwrap().get(0)
}

/// Logins of ANA read no block of her document. Sessions that have ended, such as a migration's, tell what they read
/// a moment later, so one of several rounds has to be without a block; a login that reads has thousands in each.
async fn reads_no_block(accounts: &AccountStore, roles: &[&str]) {
    for _ in 0..100 {
        let before = blocks(accounts).await;
        for _ in 0..12 {
            assert_eq!(accounts.read("ANA").await.unwrap().unwrap().roles, roles);
        }
        if blocks(accounts).await == before {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("logins read the document");
}

#[tokio::test]
async fn postgres_reads_no_document_at_a_login_however_long_it_is_and_reads_it_where_the_table_is_not_of_it() {
    let his = His::on_postgres().await;
    let StoreConfig::Postgres(config) = &his.config else { unreachable!() };
    // An ANALYZE would read the document too.
    his.sql("ALTER TABLE people SET (autovacuum_enabled = false)").await;
    his.sql(
        "INSERT INTO people (id, data) SELECT 'ANA', jsonb_build_object('roles', '[\"end_user\"]'::jsonb, 'x', string_agg(md5(n::text), ''))
         FROM generate_series(1, 250000) n",
    )
    .await;
    // One connection, whose reads are counted.
    let alone = StoreConfig::Postgres(PostgresConfig { pool_size: 1, ..config.clone() });
    let accounts = AccountStore::open(&alone).await.unwrap();
    reads_no_block(&accounts, &["end_user"]).await;
    let before = blocks(&accounts).await;
    // A write that no trigger saw, in a transaction that leaves the triggers as they were.
    let on = "ALTER TABLE people ENABLE ALWAYS TRIGGER fedgate_login_kept";
    his.sql(&format!(
        "BEGIN; UPDATE people SET data = data || '{{\"name\": \"x\"}}'; ALTER TABLE people DISABLE TRIGGER fedgate_login_kept; \
         UPDATE people SET data = data || '{{\"roles\": []}}'; {on}; COMMIT"
    ))
    .await;
    assert_eq!(accounts.read("ANA").await.unwrap().unwrap().roles, Vec::<String>::new());
    assert!(blocks(&accounts).await > before + 1000, "the document, which is eight megabytes long");
    schema::migrate(&his.database).await.unwrap();
    reads_no_block(&accounts, &[]).await;
    // In a table that is rewritten, all rows have new places.
    assert_eq!(schema::unkept_logins(&his.database).await.unwrap(), None);
    his.sql("VACUUM FULL people").await;
    assert_eq!(accounts.read("ANA").await.unwrap().unwrap().roles, Vec::<String>::new());
    let unkept = schema::unkept_logins(&his.database).await.unwrap();
    assert_eq!(unkept, Some(schema::UnkeptLogins { looked_at: 1, unkept: 1 }));
    schema::migrate(&his.database).await.unwrap();
    assert_eq!(schema::unkept_logins(&his.database).await.unwrap(), None);
}

#[tokio::test]
async fn postgres_lets_only_roles_that_may_change_accounts_unlock() {
    let his = His::on_postgres().await;
    his.person("ANA", "{}").await;
    let StoreConfig::Postgres(config) = &his.config else { unreachable!() };
    let (client, connection) = fedgate_base::db::postgres::connect(config).await.unwrap();
    tokio::spawn(connection);
    let (reader, writer) = (format!("reader_{}", std::process::id()), format!("writer_{}", std::process::id()));
    let prepare = format!(
        "CREATE ROLE {reader}; CREATE ROLE {writer}; GRANT SELECT ON people TO {reader}; GRANT SELECT, UPDATE ON people TO {writer}"
    );
    client.batch_execute(&prepare).await.unwrap();
    for (role, is_allowed) in [(&reader, false), (&writer, true)] {
        client.batch_execute(&format!("SET SESSION AUTHORIZATION {role}")).await.unwrap();
        assert_eq!(client.execute("SELECT fedgate_unlock('ANA')", &[]).await.is_ok(), is_allowed, "{role}");
        client.batch_execute("RESET SESSION AUTHORIZATION").await.unwrap();
    }
    // After the migration, a role that may read people may read the logins too.
    schema::migrate(&his.database).await.unwrap();
    client.batch_execute(&format!("SET SESSION AUTHORIZATION {reader}; SELECT FROM fedgate_logins")).await.unwrap();
}

#[tokio::test]
async fn postgres_fills_what_logins_read_beside_a_locked_person_without_waits() {
    let his = His::on(Cluster::shared().database().await).await;
    his.sql(
        "INSERT INTO people (id, data) SELECT 'P' || n, '{}' FROM generate_series(1, 500) n; UPDATE fedgate_logins SET row_place = '(0,0)'",
    )
    .await;
    let StoreConfig::Postgres(config) = &his.config else { unreachable!() };
    let (session, connection) = fedgate_base::db::postgres::connect(config).await.unwrap();
    tokio::spawn(connection);
    session.batch_execute("BEGIN; UPDATE fedgate_logins SET active = NULL WHERE id = 'P499'").await.unwrap();
    let database = his.database.clone();
    let migration = tokio::spawn(async move { schema::migrate(&database).await });
    let filled = "SELECT count(*)::text FROM fedgate_logins WHERE id = 'P1' AND row_place <> '(0,0)'";
    crate::his::epoch::becomes(&his, filled, "1").await;
    for number in [1, 2, 251, 498] {
        let text = format!("UPDATE people SET data = '{{\"roles\": [\"r\"]}}' WHERE id = 'P{number}'");
        tokio::time::timeout(std::time::Duration::from_secs(5), his.sql(&text)).await.unwrap();
    }
    assert!(!migration.is_finished());
    session.batch_execute("COMMIT").await.unwrap();
    migration.await.unwrap().unwrap();
    assert_eq!(differences(&his).await, "");
}
