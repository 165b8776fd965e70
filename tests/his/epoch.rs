//! The account epoch: it advances with every change of who may log in and with which roles, and with no other
//! change.

use fedgate::accounts::{AccountStore, AccountsError, ChangedAccounts};
use fedgate::instances::{self, GatewayInstance, InstanceReport};
use fedgate_base::config::LONGEST_BOUND_MS;
use fedgate_base::db::{Database, schema};

use crate::support::{His, root};

/// The changes since the last look, in epoch order; `*` means all accounts.
async fn changes(his: &His) -> String {
    let ordered = match &his.database {
        Database::Postgres(_) => {
            "SELECT string_agg(coalesce(account, '*'), ' ' ORDER BY epoch, account) FROM fedgate_account_changes"
        }
        Database::Sqlite(_) => {
            "SELECT group_concat(account, ' ') FROM (SELECT coalesce(account, '*') AS account \
             FROM fedgate_account_changes ORDER BY epoch, account)"
        }
    };
    let seen = his.sql_text(ordered).await.unwrap_or_default();
    his.sql("DELETE FROM fedgate_account_changes").await;
    seen
}

const EPOCH: &str = "SELECT CAST(epoch AS text) FROM fedgate_epoch";

async fn epoch(his: &His) -> i64 {
    his.sql_text(EPOCH).await.unwrap().parse().unwrap()
}

crate::on_both_stores! {
    async fn account_changes_and_no_others_grow_the_epoch(his) {
        his.person("ANA", r#"{"password":"secret-1"}"#).await;
        his.person("BOB", "{}").await;
        assert_eq!((changes(&his).await.as_str(), epoch(&his).await), ("", 1), "a new account was never cached");
        his.patch(&root(), "/people/ANA", r#"{"name":"x","lastname":"y"}"#).await;
        his.patch(&root(), "/people/ANA", r#"{"roles":["end_user"]}"#).await;
        assert_eq!((changes(&his).await.as_str(), epoch(&his).await), ("", 1));
        his.patch(&root(), "/people/ANA", r#"{"roles":["root"]}"#).await;
        his.patch(&root(), "/people/BOB", r#"{"active":false}"#).await;
        his.sql("UPDATE people SET data = data WHERE true").await;
        assert_eq!((changes(&his).await.as_str(), epoch(&his).await), ("ANA BOB", 3));
        his.delete(&root(), "/people/BOB").await;
        his.sql("UPDATE people SET id = 'EVE' WHERE id = 'ANA'").await;
        assert_eq!(changes(&his).await, "BOB ANA EVE");
    }

    async fn which_ids_are_one_person_is_a_change_of_each_that_shares_it_before_or_after(his) {
        let mut before = epoch(&his).await;
        for (sql, expected) in [
            ("INSERT INTO fedgate_same_persons (id, person) VALUES ('ANA', 'ANA')", "ANA"),
            ("INSERT INTO fedgate_same_persons (id, person) VALUES ('OLD', 'ANA')", "ANA OLD"),
            ("INSERT INTO fedgate_same_persons (id, person) VALUES ('BOB', 'BOB')", "BOB"),
            ("UPDATE fedgate_same_persons SET person = 'BOB' WHERE id = 'OLD'", "ANA BOB OLD"),
            ("UPDATE fedgate_same_persons SET id = 'OLDER' WHERE id = 'OLD'", "BOB OLD OLDER"),
            ("UPDATE fedgate_same_persons SET person = 'ANA' WHERE person = 'BOB'", "ANA BOB OLDER"),
            ("DELETE FROM fedgate_same_persons WHERE id = 'BOB'", "ANA BOB OLDER"),
            ("DELETE FROM fedgate_same_persons", "ANA OLDER"),
        ] {
            his.sql(sql).await;
            let named: std::collections::BTreeSet<String> =
                changes(&his).await.split(' ').map(str::to_owned).collect();
            assert_eq!(named.into_iter().collect::<Vec<_>>().join(" "), expected, "{sql}");
            let now = epoch(&his).await;
            assert!(now > before, "{sql}");
            before = now;
        }
    }

    async fn migrating_again_changes_nothing(his) {
        his.person("ANA", "{}").await;
        his.patch(&root(), "/people/ANA", r#"{"active":true}"#).await;
        let before = epoch(&his).await;
        schema::migrate(&his.database).await.unwrap();
        assert_eq!(schema::version(&his.database).await.unwrap(), schema::VERSION);
        assert_eq!(epoch(&his).await, before);
        his.patch(&root(), "/people/ANA", r#"{"active":false}"#).await;
        assert_eq!(epoch(&his).await, before + 1, "one trigger, not two");
    }

    async fn missing_triggers_are_reported_and_made_by_a_migration(his) {
        his.person("ANA", "{}").await;
        let accounts = AccountStore::open(&his.config).await.unwrap();
        let before = accounts.check().await.unwrap();
        let (off, write) = match &his.database {
            Database::Postgres(_) => ("ALTER TABLE people DISABLE TRIGGER USER", "UPDATE people SET data = '{}'"),
            Database::Sqlite(_) => ("DROP TRIGGER fedgate_people_updated", "UPDATE people SET data = '{\"roles\":[]}'"),
        };
        his.sql(off).await;
        his.sql(write).await;
        let waited = instances::wait_until_applied(&accounts, std::time::Instant::now(), |_| ()).await;
        assert!(matches!(waited, Err(AccountsError::Untold)), "{waited:?}");
        assert!(matches!(accounts.check().await, Err(AccountsError::Untold)));
        schema::migrate(&his.database).await.unwrap();
        let changes = accounts.changes_since(Some(before)).await.unwrap();
        assert_eq!((changes.epoch, changes.accounts), (before + 1, ChangedAccounts::Everything));
    }

    async fn missing_triggers_of_the_ids_of_one_person_are_reported_and_made_by_a_migration(his) {
        his.sql("INSERT INTO fedgate_same_persons (id, person) VALUES ('ANA', 'ANA'), ('OLD', 'ANA')").await;
        let accounts = AccountStore::open(&his.config).await.unwrap();
        let mut before = accounts.check().await.unwrap();
        let off: &[&str] = match &his.database {
            Database::Postgres(_) => &[
                "ALTER TABLE fedgate_same_persons DISABLE TRIGGER USER",
                "ALTER TABLE fedgate_same_persons ENABLE TRIGGER fedgate_same_persons_changed",
                "DROP TRIGGER fedgate_same_persons_emptied ON fedgate_same_persons",
            ],
            Database::Sqlite(_) => &[
                "DROP TRIGGER fedgate_same_person_inserted",
                "DROP TRIGGER fedgate_same_person_replaced",
                "DROP TRIGGER fedgate_same_person_updated",
                "DROP TRIGGER fedgate_same_person_deleted",
            ],
        };
        for off in off {
            his.sql(off).await;
            assert!(matches!(accounts.check().await, Err(AccountsError::Untold)), "{off}");
            schema::migrate(&his.database).await.unwrap();
            let changes = accounts.changes_since(Some(before)).await.unwrap();
            assert_eq!((changes.epoch, changes.accounts), (before + 1, ChangedAccounts::Everything), "{off}");
            before += 1;
        }
    }

    async fn a_schema_of_a_newer_program_is_left_alone(his) {
        let accounts = AccountStore::open(&his.config).await.unwrap();
        his.sql("UPDATE fedgate_schema SET version = 1000").await;
        let before = epoch(&his).await;
        match &his.database {
            Database::Postgres(_) => his.sql("ALTER TABLE people DISABLE TRIGGER USER").await,
            Database::Sqlite(_) => his.sql("DROP TRIGGER fedgate_people_updated").await,
        }
        assert_eq!(schema::migrate(&his.database).await.unwrap(), 1000);
        assert!(matches!(accounts.check().await, Err(AccountsError::Untold)));
        assert_eq!((epoch(&his).await, schema::version(&his.database).await.unwrap()), (before, 1000));
    }

    async fn every_instance_that_reported_is_listed_whatever_its_version_says_of_itself(his) {
        let accounts = AccountStore::open(&his.config).await.unwrap();
        let now = match &his.database {
            Database::Postgres(_) => "clock_timestamp()",
            Database::Sqlite(_) => "unixepoch('subsec') * 1000",
        };
        for (id, report) in [("a", r#"{"place": "hospital", "bound_ms": 1000, "new": []}"#), ("b", r#"{"place": 7}"#)] {
            let reported = format!("INSERT INTO fedgate_instances VALUES ('{id}', {now}, 5, '{report}')");
            his.sql(&reported).await;
        }
        let instances = instances::listed(&accounts).await.unwrap();
        let told = |instance: &GatewayInstance| {
            let InstanceReport { id, place, epoch, bound_ms, .. } = instance.report.clone();
            (id, place, epoch, bound_ms)
        };
        let [a, b] = instances.as_slice() else { panic!("{instances:?}") };
        assert_eq!(told(a), ("a".to_owned(), "hospital".to_owned(), 5, 1000));
        assert_eq!(told(b), ("b".to_owned(), "unknown".to_owned(), 5, LONGEST_BOUND_MS));
        assert!(a.may_admit() && b.may_admit());
    }

    async fn an_instance_that_has_been_silent_for_hours_is_forgotten_with_the_next_report(his) {
        let accounts = AccountStore::open(&his.config).await.unwrap();
        let report = |id: &str| InstanceReport { id: id.into(), ..InstanceReport::default() };
        for id in ["a", "b", "c"] {
            report(id).write(&accounts).await.unwrap();
        }
        let hours_ago = match &his.database {
            Database::Postgres(_) => "clock_timestamp() - interval '2 hours'",
            Database::Sqlite(_) => "unixepoch('subsec') * 1000 - 7200000",
        };
        his.sql(&format!("UPDATE fedgate_instances SET seen = {hours_ago} WHERE id IN ('a', 'b')")).await;
        report("b").write(&accounts).await.unwrap();
        let listed: Vec<_> = instances::listed(&accounts).await.unwrap().into_iter().map(|instance| instance.report.id).collect();
        assert_eq!(listed, ["b", "c"]);
        let rows = his.sql_text("SELECT CAST(count(*) AS text) FROM fedgate_instances").await;
        assert_eq!(rows.as_deref(), Some("2"), "b was heard again after an hour, and a is gone");
    }
}

#[tokio::test]
async fn postgres_reports_many_changes_and_a_truncation_as_all() {
    let his = His::on_postgres().await;
    his.sql("INSERT INTO people SELECT 'P' || n, '{}' FROM generate_series(1, 1001) n").await;
    his.sql("UPDATE people SET data = '{\"active\": false}' WHERE id < 'P2'").await;
    assert!(changes(&his).await.contains("P1000"), "a few are told one by one");
    his.sql("UPDATE people SET data = '{\"active\": true}'").await;
    assert_eq!(changes(&his).await, "*");
    his.sql("TRUNCATE people CASCADE").await;
    assert_eq!(changes(&his).await, "*");
}

#[tokio::test]
async fn postgres_sees_writes_of_a_replica_once_each_and_in_one_epoch() {
    let his = His::on_postgres().await;
    his.sql("INSERT INTO people SELECT 'P' || n, '{}' FROM generate_series(1, 3) n").await;
    let before = epoch(&his).await;
    let written = "UPDATE people SET data = '{\"active\": false}'; UPDATE people SET data = data || '{\"name\": \"x\"}'; \
                   UPDATE people SET id = 'P4' WHERE id = 'P3'; DELETE FROM people WHERE id = 'P1'";
    his.sql(&format!("BEGIN; SET LOCAL session_replication_role = replica; {written}; COMMIT")).await;
    assert_eq!((changes(&his).await.as_str(), epoch(&his).await), ("P1 P1 P2 P3 P3 P4", before + 1));
    // A rolled-back change raised nothing, and the next one is another transaction.
    his.sql(
        "BEGIN; SAVEPOINT a; UPDATE people SET data = '{}'; ROLLBACK TO a; DELETE FROM people WHERE id = 'P2'; COMMIT",
    )
    .await;
    his.sql("UPDATE people SET data = '{}'").await;
    assert_eq!((changes(&his).await.as_str(), epoch(&his).await), ("P2 P4", before + 3));
    his.sql("SET session_replication_role = replica; TRUNCATE people CASCADE; RESET ALL").await;
    assert_eq!(changes(&his).await, "*");
}

/// A store that follows another's people by logical replication within one cluster. Returns the publisher and the
/// subscriber.
async fn replicated(name: &str, two_phase: bool, people: &str) -> (His, His) {
    let config = crate::support::postgres::Cluster::shared().database().await;
    let (publisher, his) = (His::on(config.clone()).await, His::on_postgres().await);
    publisher.sql(people).await;
    publisher.sql(&format!("CREATE PUBLICATION {name} FOR TABLE people, pols, personal_docs")).await;
    // Within one cluster the slot must be created first.
    publisher
        .sql(&format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput', false, {two_phase})"))
        .await;
    his.sql(&format!(
        "CREATE SUBSCRIPTION {name} CONNECTION '{}' PUBLICATION {name} \
         WITH (create_slot = false, slot_name = {name}, two_phase = {two_phase})",
        config.uri
    ))
    .await;
    becomes(&his, "SELECT bool_and(srsubstate = 'r')::text FROM pg_subscription_rel", "true").await;
    (publisher, his)
}

pub(crate) async fn becomes(his: &His, question: &'static str, answer: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while his.sql_text(question).await.as_deref() != Some(answer) {
        assert!(std::time::Instant::now() < deadline, "never `{answer}`: {question}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn postgres_sees_what_logical_replication_brings() {
    let people = "INSERT INTO people SELECT 'P' || n, '{\"name\": \"x\"}' FROM generate_series(1, 4) n";
    let (publisher, his) = replicated("brings", false, people).await;
    assert_eq!(epoch(&his).await, 1, "who is new was never cached");
    for (number, (written, expected)) in [
        (
            "BEGIN; UPDATE people SET data = data || '{\"name\": \"y\"}'; DELETE FROM people WHERE id = 'P1'; COMMIT",
            "P1",
        ),
        ("UPDATE people SET data = data || '{\"roles\": [\"root\"]}' WHERE id < 'P4'", "P2 P3"),
        ("UPDATE people SET id = 'P5' WHERE id = 'P4'", "P4 P5"),
        ("TRUNCATE people CASCADE", "*"),
    ]
    .into_iter()
    .enumerate()
    {
        publisher.sql(written).await;
        becomes(&his, EPOCH, &(number + 2).to_string()).await;
        assert_eq!(changes(&his).await, expected, "{written}");
        assert_eq!(crate::his::logins::differences(&his).await, "", "{written}");
    }
    publisher.sql("INSERT INTO people (id, data) VALUES ('NEW', '{\"roles\": [\"root\"]}')").await;
    becomes(&his, "SELECT roles FROM fedgate_logins WHERE id = 'NEW'", "[\"root\"]").await;
    assert_eq!(crate::his::logins::differences(&his).await, "");
    his.sql("DROP SUBSCRIPTION brings").await;
}

#[tokio::test]
async fn postgres_takes_a_prepared_transaction_from_replication() {
    let (publisher, his) = replicated("prepared", true, "INSERT INTO people (id, data) VALUES ('ANA', '{}')").await;
    becomes(&his, "SELECT subtwophasestate::text FROM pg_subscription WHERE subname = 'prepared'", "e").await;
    // The publisher has no gateway: it sends no notice and may prepare transactions.
    publisher.sql("ALTER TABLE people DISABLE TRIGGER USER").await;
    publisher.sql("BEGIN; UPDATE people SET data = '{\"active\": false}'; PREPARE TRANSACTION 'fedgate'").await;
    becomes(&his, "SELECT count(*)::text FROM pg_prepared_xacts WHERE database = current_database()", "1").await;
    assert_eq!(changes(&his).await, "");
    publisher.sql("COMMIT PREPARED 'fedgate'").await;
    becomes(&his, EPOCH, "2").await;
    assert_eq!(changes(&his).await, "ANA");
    his.sql("DROP SUBSCRIPTION prepared").await;
}

#[tokio::test]
async fn postgres_is_migrated_when_nobody_is_in_the_way_and_nobody_waits_meanwhile() {
    let his = His::on_postgres().await;
    his.person("ANA", "{}").await;
    let accounts = AccountStore::open(&his.config).await.unwrap();
    his.sql("ALTER TABLE fedgate_epoch DROP COLUMN raised_by CASCADE; UPDATE fedgate_schema SET version = 4").await;
    let fedgate_base::config::StoreConfig::Postgres(config) = &his.config else { unreachable!() };
    let (session, connection) = fedgate_base::db::postgres::connect(config).await.unwrap();
    tokio::spawn(connection);
    for held in [
        "UPDATE people SET data = data || '{\"name\": \"x\"}'",
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT FROM fedgate_epoch",
    ] {
        session.batch_execute(&format!("BEGIN; {held}")).await.unwrap();
        let database = his.database.clone();
        let migration = tokio::spawn(async move { schema::migrate(&database).await });
        // Asked as a gateway asks: an answer that takes two seconds is none. The time is what is tested: the migration
        // tries and steps back several times meanwhile.
        for _ in 0..30 {
            accounts.changes_since(None).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert!(!migration.is_finished(), "{held}");
        session.batch_execute("COMMIT").await.unwrap();
        assert_eq!(migration.await.unwrap().unwrap(), schema::VERSION);
        his.sql("ALTER TABLE fedgate_epoch DROP COLUMN raised_by CASCADE").await;
    }
    schema::migrate(&his.database).await.unwrap();
    his.sql("UPDATE people SET data = '{\"active\": false}'").await;
    assert_eq!(changes(&his).await, "ANA");
}

/// Notifies when the accounts are confirmed for the first time.
struct FirstConfirmation(tokio::sync::Notify);

impl fedgate::accounts::EpochWatch for FirstConfirmation {
    fn confirmed(&self, _: fedgate_base::moment::BootMoment, _: &fedgate::accounts::AccountChanges) {
        self.0.notify_one();
    }

    fn lost(&self, error: &AccountsError) {
        panic!("{error}");
    }
}

#[tokio::test]
async fn postgres_a_read_of_a_lower_epoch_than_the_watch_knows_is_of_another_history() {
    let his = His::on_postgres().await;
    his.person("ANA", "{}").await;
    his.sql("UPDATE fedgate_epoch SET epoch = 10").await;
    let accounts = AccountStore::open(&his.config).await.unwrap();
    let confirmed = FirstConfirmation(tokio::sync::Notify::new());
    // The watch asks again after a quarter of the bound, which is later than this test.
    let watch = fedgate::accounts::watch(accounts.clone(), std::time::Duration::from_secs(600), &confirmed);
    let session = async || -> i32 {
        let Database::Postgres(pool) = accounts.database() else { unreachable!() };
        pool.get().await.unwrap().query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
    };
    let reads = async {
        confirmed.0.notified().await;
        let kept = session().await;
        assert_eq!(accounts.read("ANA").await.unwrap().unwrap().epoch, 10);
        assert_eq!(session().await, kept, "one session answers all of this");
        his.sql("UPDATE fedgate_epoch SET epoch = 9").await;
        for _ in 0..3 {
            let asked = session().await;
            let read = accounts.read("ANA").await;
            assert!(matches!(read, Err(AccountsError::WentBack { from: 10, to: 9 })), "{read:?}");
            assert_ne!(session().await, asked, "its session answers nobody else");
        }
        his.sql("UPDATE fedgate_epoch SET epoch = 11").await;
        assert_eq!(accounts.read("ANA").await.unwrap().unwrap().epoch, 11);
    };
    tokio::select! {
        () = watch => unreachable!(),
        () = reads => {}
    }
}

#[tokio::test]
async fn postgres_triggers_are_those_of_the_table_that_is_read() {
    let his = His::on_postgres().await;
    let accounts = AccountStore::open(&his.config).await.unwrap();
    accounts.check().await.unwrap();
    his.sql("CREATE SCHEMA postgres; CREATE TABLE postgres.people (LIKE public.people)").await;
    assert!(matches!(accounts.check().await, Err(AccountsError::Untold)), "`\"$user\"` comes first");
}

#[tokio::test]
async fn postgres_triggers_that_do_not_always_fire_are_reported() {
    let his = His::on_postgres().await;
    let accounts = AccountStore::open(&his.config).await.unwrap();
    for altered in [
        "ENABLE TRIGGER USER",
        "ENABLE TRIGGER fedgate_people_updated_by_replica",
        "DISABLE TRIGGER fedgate_people_deleted_by_replica",
        "ENABLE TRIGGER fedgate_people_truncated",
        "ENABLE TRIGGER fedgate_login_kept",
        "ENABLE REPLICA TRIGGER fedgate_people_deleted",
    ] {
        his.sql(&format!("ALTER TABLE people {altered}")).await;
        assert!(matches!(accounts.check().await, Err(AccountsError::Untold)), "{altered}");
        schema::migrate(&his.database).await.unwrap();
        accounts.check().await.unwrap();
    }
    // A database that an older program has left.
    his.sql("DROP FUNCTION fedgate_triggers").await;
    assert!(matches!(accounts.check().await, Err(AccountsError::NotMigrated)));
}

#[tokio::test]
async fn postgres_notifies_with_the_epoch_in_whatever_schema_and_whoever_writes() {
    use std::future::poll_fn;
    use tokio_postgres::AsyncMessage;

    let mut config = crate::support::postgres::Cluster::shared().database().await;
    let fedgate_base::config::StoreConfig::Postgres(plain) =
        fedgate_base::config::StoreConfig::Postgres(config.clone())
    else {
        unreachable!()
    };
    {
        let pool = fedgate_base::db::postgres::pool(&plain).unwrap();
        pool.get().await.unwrap().batch_execute("CREATE SCHEMA federation").await.unwrap();
    }
    config.uri.push_str(" options='-c search_path=federation'");
    let his = His::on(config).await;
    his.person("ANA", "{}").await;
    let (client, mut connection) = fedgate_base::db::postgres::connect(&plain).await.unwrap();
    let (sender, mut notices) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(notice) = message {
                let _ = sender.send(format!("{} {}", notice.channel(), notice.payload()));
            }
        }
    });
    client.batch_execute("LISTEN fedgate_accounts").await.unwrap();
    // A role with another search path that may write people and nothing else, like Thalamus beside these programs.
    let name = format!("thalamus_{}", std::process::id());
    client
        .batch_execute(&format!(
            "CREATE ROLE {name}; GRANT USAGE ON SCHEMA federation TO {name};
             GRANT SELECT, UPDATE ON federation.people TO {name}; SET ROLE {name};
             UPDATE federation.people SET data = data || '{{\"active\": false}}'"
        ))
        .await
        .unwrap();
    let notice = tokio::time::timeout(std::time::Duration::from_secs(5), notices.recv()).await.unwrap();
    assert_eq!(notice.as_deref(), Some("fedgate_accounts 2"));
}
