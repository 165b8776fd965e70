//! Shows that the laws can fail: in each of these hubs one deciding line of the schema is another, and that is noticed.
//!
//! Such a history has one instance and no faults but those of sessions, so it is short.

use tokio::runtime::Runtime;

use super::checker::check;
use super::run;
use super::stage::{Servers, Stage};
use crate::support::postgres::Cluster;

/// The schema as `fedhis migrate` applies it.
const SCHEMA: &str = include_str!("../../crates/base/src/db/schema/postgres_messages.sql");
/// So many histories are tried before a change counts as unnoticed.
const TRIES: u64 = 12;

const GIVING: &str = "CREATE OR REPLACE FUNCTION fedgate_give_positions(";
const APPENDING: &str = "CREATE OR REPLACE FUNCTION fedgate_append(";
const PAGES: &str = "CREATE OR REPLACE FUNCTION fedgate_page_message()";

/// A function of the schema with one line changed, and the law that its histories break.
type Spoiled = (&'static str, &'static str, &'static str, &'static str);

/// The first ones are tried in every run, all of them where histories are asked for.
const USUAL: usize = 2;
#[rustfmt::skip]
const LINES: [Spoiled; 6] = [
    // The order of positions is not that of entries.
    (GIVING, "row_number() OVER (ORDER BY entry)", "row_number() OVER (ORDER BY md5(entry::text))", "Reordered"),
    // Entries count as decided while their transactions run.
    (GIVING, "pg_snapshot_xmin(", "pg_snapshot_xmax(", "Lost"),
    (GIVING, " AND relay.next_id <= oldest", "", "Lost"),
    (GIVING, "relay.decided := relay.next_decided", "relay.decided := taken_upto", "Lost"),
    // The message has no person, so the person does not see it.
    (APPENDING, "VALUES (entry, person, CASE", "VALUES (entry, NULL, CASE", "Gap"),
    // A deletion leaves no message.
    (PAGES, "PERFORM fedgate_append('page', OLD.book, OLD.id, 'DELETE', NULL, NULL)", "NULL", "Lost"),
];

/// Changes of the lock under which positions are given.
const LOCKS: [&str; 2] = ["FOR UPDATE", ""];

fn spoiled(object: &str, from: &str, to: &str) -> String {
    let begin = SCHEMA.find(object).unwrap_or_else(|| panic!("`{object}` is not in the schema"));
    let length = SCHEMA[begin..].find("\n$$;").unwrap() + "\n$$;".len();
    let text = &SCHEMA[begin..begin + length];
    assert!(text.contains(from), "`{from}` is not in `{object}`");
    text.replace(from, to)
}

#[test]
fn a_hub_in_which_one_line_is_another_breaks_a_law() {
    let runtime = Runtime::new().unwrap();
    let count = if std::env::var_os("FEDGATE_TEST_HISTORIES").is_some() { LINES.len() } else { USUAL };
    for &(object, from, to, law) in &LINES[..count] {
        let sql = spoiled(object, from, to);
        let noticed = (0..TRIES).find_map(|seed| {
            let (log, _) = runtime.block_on(run(seed, &Servers::Spoiled(Cluster::shared(), &sql)));
            let broken = check(&log).into_iter().map(|broken| format!("{broken:?}"));
            broken.into_iter().find(|broken| broken.starts_with(law)).map(|broken| (seed, broken))
        });
        let (seed, broken) = noticed.unwrap_or_else(|| panic!("`{to}` in the place of `{from}` is not noticed"));
        println!("`{from}` as `{to}`: {broken} in history {seed}");
    }
    let (log, _) = runtime.block_on(run(0, &Servers::Spoiled(Cluster::shared(), "SELECT 1")));
    assert_eq!(check(&log), [], "without a change");
}

#[test]
fn one_session_at_a_time_gives_positions_and_no_other_waits_for_it() {
    let runtime = Runtime::new().unwrap();
    assert!(runtime.block_on(is_one_at_a_time("SELECT 1")));
    for lock in LOCKS {
        let sql = spoiled(GIVING, "FOR UPDATE SKIP LOCKED", lock);
        assert!(!runtime.block_on(is_one_at_a_time(&sql)), "`{lock}` is not noticed");
    }
}

/// Whether a session that gives positions and does not end keeps others from it, and keeps none waiting.
async fn is_one_at_a_time(sql: &str) -> bool {
    let stage = Stage::set(&Servers::Spoiled(Cluster::shared(), sql)).await;
    let (first, second) = (stage.session().await.unwrap(), stage.session().await.unwrap());
    let give = "SELECT given FROM fedgate_give_positions(10)";
    // The instance of this process looks for messages, too, so the lock is held before there are any.
    first.batch_execute("BEGIN; SELECT FROM fedgate_relay FOR UPDATE").await.unwrap();
    second.batch_execute("INSERT INTO dus (id, data) VALUES ('unit', '{}')").await.unwrap();
    second.batch_execute("SET statement_timeout = '500ms'").await.unwrap();
    second.query_one(give, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == -1)
}
