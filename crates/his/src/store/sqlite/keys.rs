//! Keys of persons on SQLite, as the functions of PostgreSQL write them.
//!
//! The one rule: one transaction writes at a time, so nothing here can be overtaken.

use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::{OptionalExtension, Transaction, params};

use super::super::person_keys::{KeyMaker, MadeKeys, MadeWord, joined};
use super::super::rows::{SqlStatement, of_sqlite};
use super::SqliteStore;
use fedgate_base::db::DbError;

impl SqliteStore {
    pub(in super::super) async fn put_keys(
        &self,
        turn: SqlStatement,
        queue: Vec<SqlStatement>,
        persons: Vec<(String, Option<MadeKeys>)>,
    ) -> Result<bool, DbError> {
        let work = move |transaction: &Transaction<'_>| {
            if of_sqlite(transaction, &turn)?.is_empty() {
                return Ok(false);
            }
            for statement in &queue {
                of_sqlite(transaction, statement)?;
            }
            for (id, made) in &persons {
                put_exactly(transaction, id, made.as_ref())?;
            }
            for (_, made) in &persons {
                put_words(transaction, made.as_ref().map_or(&[][..], |made| &made.words))?;
            }
            Ok(true)
        };
        self.write_alone(work).await
    }
}

/// Writes the keys of a new person, and takes the person from the queue again. A person stays queued if all keys are being
/// made anew, are made in another way, or the id had another holder a moment ago.
pub(super) fn key_new(
    transaction: &Transaction<'_>,
    keys: &dyn KeyMaker,
    id: &str,
    text: &str,
) -> Result<(), rusqlite::Error> {
    const IS_READY: &str = "SELECT EXISTS (SELECT 1 FROM fedgate_person_index WHERE made_of = ?1 AND upto IS NULL) \
         AND NOT EXISTS (SELECT 1 FROM fedgate_compared_persons WHERE person = ?2)";
    let is_ready: bool =
        transaction.prepare_cached(IS_READY)?.query_row(params![keys.made_of(), id], |row| row.get(0))?;
    if !is_ready {
        return Ok(());
    }
    let made = keys.made(id, text);
    forget_queued(transaction, id)?;
    put_entries(transaction, id, &made.keys)?;
    put_line(transaction, id, made.compared.as_deref(), &made.keys)?;
    put_words(transaction, &made.words)?;
    transaction.prepare_cached("INSERT INTO fedgate_person_pairs_due (person) VALUES (?1)")?.execute([id])?;
    Ok(())
}

/// Adds the keys that persons have after a change. Their former ones go with their turn in the queue.
pub(in super::super) fn add_keys(
    transaction: &Transaction<'_>,
    keys: Option<&Arc<dyn KeyMaker>>,
    persons: &[(String, String)],
) -> Result<(), rusqlite::Error> {
    const IS_KNOWN: &str = "SELECT EXISTS (SELECT 1 FROM fedgate_person_index WHERE made_of = ?1)";
    let Some(keys) = keys else { return Ok(()) };
    if !transaction.prepare_cached(IS_KNOWN)?.query_row([keys.made_of()], |row| row.get(0))? {
        return Ok(());
    }
    for (id, text) in persons {
        let made = keys.made(id, text);
        let known = known_keys(transaction, id)?;
        let mut all = known.clone();
        all.extend(made.keys.iter().filter(|key| !known.contains(key)));
        put_entries(transaction, id, &all)?;
        put_line(transaction, id, made.compared.as_deref(), &all)?;
        put_words(transaction, &made.words)?;
    }
    Ok(())
}

/// Takes the entry from the queue that this transaction has just put there.
pub(super) fn forget_queued(transaction: &Transaction<'_>, id: &str) -> Result<(), rusqlite::Error> {
    const LAST: &str = "DELETE FROM fedgate_person_keys_due WHERE person = ?1 \
         AND number = (SELECT seq FROM sqlite_sequence WHERE name = 'fedgate_person_keys_due')";
    transaction.prepare_cached(LAST)?.execute([id]).map(drop)
}

/// Gives a person these keys and no others; none to one who is not there. A word that nobody has any more is deleted: it
/// would tell of a person who may be gone.
fn put_exactly(transaction: &Transaction<'_>, id: &str, made: Option<&MadeKeys>) -> Result<(), rusqlite::Error> {
    const GONE: &str = "DELETE FROM fedgate_person_keys WHERE key = ?1 AND person = ?2";
    const DELETIONS: &str = "DELETE FROM fedgate_search_deletions WHERE word IN (SELECT word FROM fedgate_search_words WHERE key = ?1) \
         AND NOT EXISTS (SELECT 1 FROM fedgate_person_keys WHERE key = ?1)";
    const WORDS: &str = "DELETE FROM fedgate_search_words WHERE key = ?1 AND NOT EXISTS (SELECT 1 FROM fedgate_person_keys WHERE key = ?1)";
    const HAS_CHANGED: &str = "SELECT EXISTS (SELECT 1 FROM fedgate_person_keys_due WHERE person = ?1)";
    // The person has changed since the record was read. Its next turn comes.
    if transaction.prepare_cached(HAS_CHANGED)?.query_row([id], |row| row.get(0))? {
        return Ok(());
    }
    let none = MadeKeys::default();
    let MadeKeys { keys, compared, .. } = made.unwrap_or(&none);
    let wanted: HashSet<&i64> = keys.iter().collect();
    let former = known_keys(transaction, id)?;
    for key in former.iter().filter(|key| !wanted.contains(key)) {
        transaction.prepare_cached(GONE)?.execute(params![key, id])?;
        transaction.prepare_cached(DELETIONS)?.execute([key])?;
        transaction.prepare_cached(WORDS)?.execute([key])?;
    }
    put_entries(transaction, id, keys)?;
    match made {
        Some(_) => put_line(transaction, id, compared.as_deref(), keys),
        None => transaction
            .prepare_cached("DELETE FROM fedgate_compared_persons WHERE person = ?1")?
            .execute([id])
            .map(drop),
    }
}

fn known_keys(transaction: &Transaction<'_>, id: &str) -> Result<Vec<i64>, rusqlite::Error> {
    let mut known = transaction.prepare_cached("SELECT keys FROM fedgate_compared_persons WHERE person = ?1")?;
    let listed: Option<String> = known.query_row([id], |row| row.get(0)).optional()?;
    Ok(listed.unwrap_or_default().split(',').filter_map(|key| key.parse().ok()).collect())
}

fn put_entries(transaction: &Transaction<'_>, id: &str, keys: &[i64]) -> Result<(), rusqlite::Error> {
    let mut put = transaction
        .prepare_cached("INSERT INTO fedgate_person_keys (key, person) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
    keys.iter().try_for_each(|key| put.execute(params![key, id]).map(drop))
}

fn put_line(transaction: &Transaction<'_>, id: &str, line: Option<&str>, keys: &[i64]) -> Result<(), rusqlite::Error> {
    const PUT: &str = "INSERT INTO fedgate_compared_persons (person, compared, keys) VALUES (?1, ?2, ?3) \
         ON CONFLICT (person) DO UPDATE SET compared = excluded.compared, keys = excluded.keys";
    transaction.prepare_cached(PUT)?.execute(params![id, line, joined(keys, ",")]).map(drop)
}

fn put_words(transaction: &Transaction<'_>, words: &[MadeWord]) -> Result<(), rusqlite::Error> {
    const WORD: &str = "INSERT INTO fedgate_search_words (key, word) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    const DELETION: &str =
        "INSERT INTO fedgate_search_deletions (deletion, word) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    for MadeWord { word, key, deletions } in words {
        if transaction.prepare_cached(WORD)?.execute(params![key, word])? > 0 {
            let mut put = transaction.prepare_cached(DELETION)?;
            deletions.iter().try_for_each(|deletion| put.execute(params![deletion, word]).map(drop))?;
        }
    }
    Ok(())
}
