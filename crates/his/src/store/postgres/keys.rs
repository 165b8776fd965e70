//! Keys of persons on PostgreSQL: what a writer hands to the triggers of people, and what is taken from the queue.
//!
//! The one rule: the functions of the database write keys (`db/schema/postgres_persons.sql`), so that locks are taken in one
//! order by all who do.

use super::super::RecordKey;
use super::super::person_keys::{MadeKeys, MadeWord, joined, word_lists};
use super::super::rows::SqlStatement;
use super::super::sql::SqlDialect;
use super::PostgresStore;
use fedgate_base::db::{DbError, SessionTransaction};
use fedgate_core::json::JsonObject;

/// A longer record, in bytes, is left to the queue.
const MOST_BYTES: i32 = 128 * 1024;
/// What a change is called that concerns no key.
const SAME: &str = "same";

impl PostgresStore {
    /// What the triggers of people are told of a new record.
    pub(super) fn handed(&self, key: &RecordKey, text: &str) -> Option<String> {
        let (RecordKey::Person(id), Some(keys)) = (key, &self.keys) else { return None };
        keys.made(id, text).handed(id, keys.made_of())
    }

    /// What they are told of a change: whether it concerns keys.
    pub(super) fn said(&self, key: &RecordKey, patch: &JsonObject) -> Option<&'static str> {
        let (RecordKey::Person(_), Some(keys)) = (key, &self.keys) else { return None };
        (!keys.concerns(patch)).then_some(SAME)
    }

    /// Adds the keys that persons have after a change. Their former ones go with their turn in the queue.
    pub(in super::super) async fn add_keys(
        &self,
        transaction: &SessionTransaction<'_>,
        persons: &[(String, String)],
    ) -> Result<(), DbError> {
        const ADD: &str = "SELECT CAST(fedgate_add_person_keys($1) AS text)";
        let Some(keys) = &self.keys else { return Ok(()) };
        let mut handed: Vec<String> = persons
            .iter()
            .filter(|(_, text)| text.len() <= MOST_BYTES as usize)
            .filter_map(|(id, text)| keys.made(id, text).handed(id, keys.made_of()))
            .collect();
        // In one order, as all writers lock persons.
        handed.sort_unstable();
        for handed in &handed {
            let add = transaction.prepare_cached(ADD).await?;
            transaction.execute(&add, &[handed]).await?;
        }
        Ok(())
    }

    /// The same for a person whose row this transaction has changed.
    pub(super) async fn add_keys_of(
        &self,
        transaction: &SessionTransaction<'_>,
        key: &RecordKey,
    ) -> Result<(), DbError> {
        const RECORD: &str = "SELECT data::text FROM people WHERE people.id = $1 AND octet_length(data::text) <= $2";
        let statement = transaction.prepare_cached(RECORD).await?;
        let Some(row) = transaction.query_opt(&statement, &[&key.id(), &MOST_BYTES]).await? else { return Ok(()) };
        self.add_keys(transaction, &[(key.id().to_owned(), row.try_get(0)?)]).await
    }

    pub(in super::super) async fn put_keys(
        &self,
        turn: SqlStatement,
        queue: Vec<SqlStatement>,
        persons: Vec<(String, Option<MadeKeys>)>,
        begins_anew: bool,
    ) -> Result<bool, DbError> {
        const NO_WRITER: &str = "SELECT pg_try_advisory_xact_lock(7377282541)";
        const PUT: &str = "SELECT count(fedgate_put_person_keys(given.who, CAST(string_to_array(given.keys, ',') AS bigint[]), given.line, true, given.is_there)) \
             FROM (SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[]) AS given (who, keys, line, is_there) \
             ORDER BY given.who COLLATE \"C\") AS given";
        const WORDS: &str = "SELECT CAST(fedgate_put_words(string_to_array($1, ','), CAST(string_to_array($2, ',') AS bigint[]), \
             string_to_array($3, ',')) AS text)";
        let mut session = self.writer().await?;
        let transaction = session.transaction().await?;
        // Whoever has made keys in the earlier way is done before all are made anew, or the walk would miss that person.
        if begins_anew && !transaction.query_one(NO_WRITER, &[]).await?.try_get::<_, bool>(0)? {
            return Ok(false);
        }
        for (at, statement) in [turn].iter().chain(&queue).enumerate() {
            let prepared = transaction.prepare_cached(&statement.text(SqlDialect::Postgres)).await?;
            let rows = transaction.query(&prepared, &statement.parameters()).await?;
            if at == 0 && rows.is_empty() {
                return Ok(false);
            }
        }
        if !persons.is_empty() {
            let none = MadeKeys::default();
            let of = |(who, made): &(String, Option<MadeKeys>)| {
                let keys = made.as_ref().unwrap_or(&none);
                (who.clone(), (joined(&keys.keys, ","), (keys.compared.clone(), made.is_some())))
            };
            let (ids, (keys, (lines, are_there))): (Vec<_>, (Vec<_>, (Vec<_>, Vec<_>))) =
                persons.iter().map(of).unzip();
            let put = transaction.prepare_cached(PUT).await?;
            transaction.execute(&put, &[&ids, &keys, &lines, &are_there]).await?;
            let words = persons.into_iter().filter_map(|(_, made)| made).flat_map(|made| made.words);
            let mut words: Vec<MadeWord> = words.collect();
            words.sort_unstable();
            words.dedup();
            let [words, numbers, deletions] = word_lists(&words);
            let put = transaction.prepare_cached(WORDS).await?;
            transaction.execute(&put, &[&words, &numbers, &deletions]).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }
}
