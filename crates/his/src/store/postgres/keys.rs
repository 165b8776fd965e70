//! Keys of persons on PostgreSQL: what a writer hands to the triggers of people, and what is taken from the queue.
//!
//! The one rule: the functions of the database write keys (`db/schema/postgres_persons.sql`), so that locks are taken in one
//! order by all who do.

use tokio_postgres::types::ToSql;

use super::super::RecordKey;
use super::super::person_keys::{DueKeys, MOST_BYTES, MadeKeys, MadeWord, joined, word_lists};
use super::PostgresStore;
use fedgate_base::db::{DbError, SessionTransaction};
use fedgate_core::json::JsonObject;

/// What a change is called that concerns no key.
const SAME: &str = "same";

impl PostgresStore {
    /// Whether this store writes keys with the records.
    pub(super) fn has_keys(&self) -> bool {
        self.keys.is_some()
    }

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
        const RECORD: &str = "SELECT data::text FROM fedgate_people AS people WHERE people.id = $1 AND octet_length(data::text) <= $2::bigint";
        let statement = transaction.prepare_cached(RECORD).await?;
        let Some(row) = transaction.query_opt(&statement, &[&key.id(), &MOST_BYTES]).await? else { return Ok(()) };
        self.add_keys(transaction, &[(key.id().to_owned(), row.try_get(0)?)]).await
    }

    /// See [`super::super::RecordStore::put_keys`].
    pub(in super::super) async fn put_keys(
        &self,
        due: &DueKeys,
        persons: Vec<(String, Option<MadeKeys>)>,
        made_of: &str,
        upto: Option<&str>,
    ) -> Result<bool, DbError> {
        const PUT: &str = "SELECT fedgate_put_keys($1, $2::text, $3::text, $4, $5::bigint[], $6::text[], $7::text[], $8::text[], $9::boolean[], \
             string_to_array($10::text, ','), CAST(string_to_array($11::text, ',') AS bigint[]), string_to_array($12::text, ','))";
        let none = MadeKeys::default();
        let of = |(who, made): &(String, Option<MadeKeys>)| {
            let keys = made.as_ref().unwrap_or(&none);
            (who.clone(), (joined(&keys.keys, ","), (keys.compared.clone(), made.is_some())))
        };
        let (ids, (keys, (lines, are_there))): (Vec<_>, (Vec<_>, (Vec<_>, Vec<_>))) = persons.iter().map(of).unzip();
        let mut words: Vec<MadeWord> =
            persons.into_iter().filter_map(|(_, made)| made).flat_map(|made| made.words).collect();
        words.sort_unstable();
        words.dedup();
        let [words, word_keys, deletions] = word_lists(&words);
        let begins_anew = due.made_of != made_of;
        let session = self.writer().await?;
        let put = session.prepare_cached(PUT).await?;
        let (turn, numbers) = (due.turn, &due.numbers);
        #[rustfmt::skip]
        let values: [&(dyn ToSql + Sync); 12] = [
            &turn, &made_of, &upto, &begins_anew, numbers, &ids, &keys, &lines, &are_there, &words, &word_keys, &deletions,
        ];
        Ok(session.query_one(&put, &values).await?.try_get(0)?)
    }
}
