//! The kind of password hashes that are written: on a database that Thalamus made, the kind that it reads.

use std::fs;
use std::time::Duration;

use fedgate_base::config::{HashesConfig, PostgresConfig, StoreConfig};
use fedgate_base::db::hashes::{self, HashRule};
use fedgate_base::db::schema::{StoreOrigin, origin};
use fedgate_base::db::{Database, schema};
use fedgate_core::password::{self, HashCost};
use fedgate_his::import::{ClearPasswords, ImportKind, ImportRun};

use crate::his::program::{configuration_on, fedhis};
use crate::his::thalamus::{self, THALAMUS};
use crate::support::postgres::Cluster;
use crate::support::{HASHES, His, Scratch, own, postgres_text, root};

const ARGON2ID: &str = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE";
const EVE: &str = "SELECT data ->> 'password' FROM people WHERE id = 'EVE'";

/// Sets a password on the page, and returns the answer.
async fn set(his: &His, id: &'static str, new: &str) -> (u16, String) {
    let his = his.with(|config| config.ask_current_password = false).await;
    let form = his.get(&own(id), &format!("/password/{id}")).await;
    let token = form.text().split("name=\"csrf_token\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let fields = format!("csrf_token={token}&password={new}&pconfirm={new}");
    let target = format!("/password/{id}");
    let request = his.request(&own(id), "POST", &target).body(fields);
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let reply = request.header("cookie", &format!("__Host-csrf={token}")).send().await;
    (reply.status, reply.text().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_database_of_thalamus_every_new_hash_is_one_that_it_reads_until_the_operator_says_otherwise() {
    let his = thalamus::his().await;
    let (fits, long) = ("x".repeat(72), "x".repeat(73));
    his.person("EVE", r#"{"password":"gnusolidario"}"#).await;
    let stored = his.sql_text(EVE).await.unwrap();
    assert!(stored.starts_with("$2b$12$") && password::verify(&stored, b"gnusolidario"), "{stored}");
    assert_eq!(set(&his, "EVE", &fits).await.0, 302);
    let stored = his.sql_text(EVE).await.unwrap();
    assert!(stored.starts_with("$2b$12$") && password::verify(&stored, fits.as_bytes()), "{stored}");
    let (status, text) = set(&his, "EVE", &long).await;
    assert!(status == 200 && text.contains("72 bytes are used here"), "{status} {text}");
    // 37 letters in 74 bytes: a person's document allows 64 characters.
    let wide = format!(r#"{{"password":"{}"}}"#, "ж".repeat(37));
    let refused = his.post(&root(), "/people/WIDE", wide.as_bytes()).await;
    assert_eq!((refused.status, &refused.json()["code"]), (422, &"password_too_long".into()));
    assert!(refused.text().contains("at most 72 bytes"), "{}", refused.text());
    let short = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$MDEyMzQ1Njc4OTAxMjM0NQ";
    for hash in [short, ARGON2ID] {
        let refused = his.post(&root(), "/people/HASH", format!(r#"{{"password":"{hash}"}}"#)).await;
        assert_eq!((refused.status, &refused.json()["code"]), (422, &"password_unreadable".into()), "{hash}");
    }
    assert_eq!(his.sql_text(EVE).await.unwrap(), stored, "nothing was written");
    // Whoever has seen such a hash could sign in with it, if it were taken for a password.
    for hash in [
        "$2b$16$abcdefghijklmnopqrstuuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$2x$12$abcdefghijklmnopqrstuuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$6$rounds=5000$saltsaltsalt$hash",
        "{SSHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
        "pbkdf2:sha256:260000$salt$0123456789abcdef",
        "pbkdf2_sha256$260000$salt$0123456789abcdef",
    ] {
        let refused = his.post(&root(), "/people/HASH", format!(r#"{{"password":"{hash}"}}"#)).await;
        assert_eq!((refused.status, &refused.json()["code"]), (422, &"password_unknown_hash".into()), "{hash}");
    }
    for (id, password) in [("MONEY", "$100 and a bird in the hand"), ("BRACES", "{these}-are-mine")] {
        let stored = his.post(&root(), &format!("/people/{id}"), format!(r#"{{"password":"{password}"}}"#)).await;
        assert_eq!(stored.status, 200, "{password}");
    }

    let cut_over = his.with(|config| config.hashes.upgraded = Some(true)).await;
    assert_eq!(set(&cut_over, "EVE", &long).await.0, 302);
    assert!(his.sql_text(EVE).await.unwrap().starts_with("$argon2id$v=19$m=47104"));
    assert_eq!(cut_over.post(&root(), "/people/WIDE", wide.as_bytes()).await.status, 200);
}

crate::on_both_stores! {
    async fn the_operator_may_want_hashes_that_thalamus_reads_of_any_store_and_the_cost_of_others(his) {
        let beside = his.with(|config| config.hashes.upgraded = Some(false)).await;
        beside.person("EVE", r#"{"password":"gnusolidario"}"#).await;
        assert!(his.sql_text(EVE).await.unwrap().starts_with("$2b$12$"));
        let cheap = HashCost { memory_kib: 19_456, passes: 2 };
        let cheap = his.with(|config| config.hashes.cost = cheap).await;
        assert_eq!(set(&cheap, "EVE", "gnusolidario-1").await.0, 302);
        assert!(his.sql_text(EVE).await.unwrap().starts_with("$argon2id$v=19$m=19456,t=2"), "its own store");
    }

    async fn an_import_takes_no_hash_that_thalamus_cannot_read_where_one_may_read_it(his) {
        let file = his.scratch.0.join("people.jsonl");
        let clear = "ж".repeat(37);
        let lines = format!("{{\"id\":\"ONE\",\"password\":\"{ARGON2ID}\"}}\n{{\"id\":\"TWO\",\"password\":\"{clear}\"}}\n{{\"id\":\"TRE\",\"password\":\"gnusolidario\"}}\n{{\"id\":\"BLANK\",\"password\":\"       \"}}\n");
        fs::write(&file, lines).unwrap();
        let import = async |hashes| {
            let (kind, clear_passwords, path) = (ImportKind::People, ClearPasswords::Hash, Some(file.clone()));
            let import = ImportRun { store: &his.store, kind, clear_passwords, hashes, path, progress: &|_| {} };
            let summary = import.run(|| fs::File::open(&file).map(std::io::BufReader::new)).await.unwrap();
            (summary.created, summary.refused)
        };
        assert_eq!(import(HashesConfig { upgraded: Some(false), ..HASHES }).await, (1, 3));
        let refused = fs::read_to_string(his.scratch.0.join("people.jsonl.refused.jsonl")).unwrap();
        assert!(refused.contains("a Thalamus on this database cannot read (argon2id)"), "{refused}");
        assert!(refused.contains("too long: at most 72 bytes") && refused.contains("blanks alone"), "{refused}");
        assert_eq!(import(HASHES).await, (2, 1), "the third is there already");
        assert_eq!(his.sql_text("SELECT data ->> 'password' FROM people WHERE id = 'ONE'").await.unwrap(), ARGON2ID);
    }
}

/// A database on which these statements have been run.
async fn database_of(statements: &str) -> (PostgresConfig, Database) {
    let config = Cluster::shared().database().await;
    postgres_text(&config, statements).await;
    let database = Database::open(&StoreConfig::Postgres(config.clone())).await.unwrap();
    (config, database)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_creator_of_a_database_is_marked_by_the_first_migration_or_known_by_its_hashes() {
    let upgraded = format!("INSERT INTO people (id, data) VALUES ('OLD', '{{\"password\":\"{ARGON2ID}\"}}')");
    for (before, migrated, found, upgrades) in [
        ("", "", StoreOrigin::Own, true),
        (THALAMUS, "", StoreOrigin::Thalamus, false),
        // As an older program left them.
        (THALAMUS, "ALTER TABLE fedgate_store DROP COLUMN origin", StoreOrigin::Thalamus, false),
        (THALAMUS, &format!("ALTER TABLE fedgate_store DROP COLUMN origin; {upgraded}"), StoreOrigin::Upgraded, true),
        // A mark is changed neither by later writes nor by another migration.
        (THALAMUS, &upgraded, StoreOrigin::Thalamus, false),
    ] {
        let (config, database) = database_of(before).await;
        assert_eq!(origin(&database).await.unwrap(), StoreOrigin::Thalamus, "what nothing tells is taken for that");
        schema::migrate(&database).await.unwrap();
        let id = postgres_text(&config, "SELECT id FROM fedgate_store").await;
        postgres_text(&config, migrated).await;
        schema::migrate(&database).await.unwrap();
        assert_eq!(origin(&database).await.unwrap(), found, "{migrated}");
        assert_eq!(HashRule::new(database, HASHES).upgrades().await, upgrades, "{migrated}");
        assert_eq!(postgres_text(&config, "SELECT id FROM fedgate_store").await, id, "the store is the same");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fedgate_adds_goes_as_its_page_says_and_leaves_a_database_that_thalamus_writes_on() {
    let (config, database) = database_of(THALAMUS).await;
    schema::migrate(&database).await.unwrap();
    let page = fs::read_to_string("docs/THALAMUS.md").unwrap();
    let removal = page.split("```sql\n").last().unwrap().split("```").next().unwrap();
    postgres_text(&config, removal).await;
    let left = "SELECT (SELECT count(*) FROM pg_class WHERE relname LIKE 'fedgate%') + (SELECT count(*) FROM pg_proc WHERE proname \
                LIKE 'fedgate%') + (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'fedgate%') \
                + (SELECT count(*) FROM pg_attribute WHERE attname LIKE 'fedgate%' AND NOT attisdropped)";
    assert_eq!(postgres_text(&config, left).await, "0");
    let write =
        "UPDATE people SET data = data || '{\"name\":\"C\"}' WHERE id = 'ITAPYT999HON' RETURNING data ->> 'name'";
    assert_eq!(postgres_text(&config, write).await, "C");
    schema::migrate(&database).await.unwrap();
    assert_eq!(origin(&database).await.unwrap(), StoreOrigin::Thalamus);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_says_which_hashes_are_written_and_how_many_accounts_a_thalamus_could_not_log_in() {
    let (database, _) = database_of(THALAMUS).await;
    let scratch = Scratch::new();
    let file = configuration_on(&scratch.0, &database.uri);
    let migrate = || {
        let done = fedhis(&["migrate"], &file);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(done.status.success(), "{done:?}");
        (text(&done.stdout), text(&done.stderr))
    };
    let (said, warned) = migrate();
    assert!(said.contains("passwords: bcrypt as Thalamus reads it, because a Thalamus made this database"), "{said}");
    assert!(!warned.contains("could not log in"), "{warned}");
    postgres_text(
        &database,
        &format!("INSERT INTO people (id, data) VALUES ('OLD', '{{\"password\":\"{ARGON2ID}\"}}')"),
    )
    .await;
    let (_, warned) = migrate();
    assert!(warned.contains("warning: a Thalamus on this database could not log in 1 account, whose"), "{warned}");
    fs::write(&file, fs::read_to_string(&file).unwrap() + "[authentication]\nupgrade_hashes = true\n").unwrap();
    let (said, warned) = migrate();
    assert!(said.contains("passwords: argon2id, as `authentication.upgrade_hashes` says"), "{said}");
    assert!(warned.contains("could not log in 1 account"), "{warned}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thalamus_that_is_still_in_use_is_recognized_by_its_traces() {
    let (config, database) = database_of(THALAMUS).await;
    schema::migrate(&database).await.unwrap();
    let told = async |upgraded| {
        let told = hashes::tell(&database, HashesConfig { upgraded, ..HASHES }, Duration::from_secs(30)).await.unwrap();
        told.beside.unwrap_or_default()
    };
    assert_eq!(told(None).await, "");
    // As Thalamus does it: a session without a name, and a merged document.
    let pool = fedgate_base::db::postgres::pool(&PostgresConfig { application: "", ..config.clone() }).unwrap();
    let thalamus = pool.get().await.unwrap();
    let set = "SET fedgate.actor = ''; UPDATE people SET data = data || '{\"password\":\"$2b$12$x\"}' WHERE id = 'ITAPYT999HON'";
    thalamus
        .batch_execute("UPDATE people SET data = data || '{\"name\":\"C\"}' WHERE id = 'ITAPYT999HON'")
        .await
        .unwrap();
    assert!(told(None).await.starts_with("1 session without a name is open on this database: a Thalamus"));
    thalamus.batch_execute(set).await.unwrap();
    let seen = told(None).await;
    let day =
        postgres_text(&config, "SELECT to_char(max(at) AT TIME ZONE 'UTC', 'YYYY-MM-DD') FROM fedgate_account_events")
            .await;
    let expected = format!(
        "1 password was set past fedgate, and not by psql, since the migration, the last on {day} by database user `postgres`, and 1 session without a \
         name is open on this database: a Thalamus that is still in use does that"
    );
    assert!(seen.starts_with(&expected) && seen.contains("leave `authentication.upgrade_hashes` as it is"), "{seen}");
    let seen = told(Some(true)).await;
    assert!(seen.contains("set `authentication.upgrade_hashes = false` as long as it is"), "{seen}");
    // Passwords set by these programs leave no trace, nor do old ones, nor those that an operator sets by hand.
    drop(thalamus);
    drop(pool);
    for event in
        ["via = 'http'", "via = 'outside', application = 'psql'", "application = '', at = now() - interval '31 days'"]
    {
        postgres_text(&config, &format!("UPDATE fedgate_account_events SET {event} WHERE password = 'changed'")).await;
        assert!(!told(None).await.contains("past fedgate"), "{event}");
    }
    let own = fedgate_base::config::HashesConfig { upgraded: None, ..HASHES };
    let (_, made_here) = database_of("").await;
    schema::migrate(&made_here).await.unwrap();
    assert_eq!(hashes::tell(&made_here, own, Duration::from_secs(30)).await.unwrap().beside, None);
}
