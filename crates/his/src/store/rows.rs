//! Statements that are the same on both databases, and their rows of texts and numbers.
//!
//! The one rule: several statements are one transaction, and nothing is written if the first of them finds nothing. So
//! the first one states what must be true.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use futures_util::future::try_join_all;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, params_from_iter};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::RecordStore;
use super::each::within_bound;
use super::postgres::PostgresStore;
use super::sql::{RecordTable, SqlDialect};
use super::sqlite::SqliteStore;
use fedgate_base::db::DbError;

/// A text or a number, or null.
#[derive(Debug, Clone)]
pub(super) enum SqlValue {
    Text(Option<String>),
    Number(Option<i64>),
}

impl From<&str> for SqlValue {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<&Option<String>> for SqlValue {
    fn from(text: &Option<String>) -> Self {
        Self::Text(text.clone())
    }
}

impl From<i64> for SqlValue {
    fn from(number: i64) -> Self {
        Self::Number(Some(number))
    }
}

impl From<u64> for SqlValue {
    fn from(number: u64) -> Self {
        Self::Number(Some(i64::try_from(number).unwrap_or(i64::MAX)))
    }
}

impl rusqlite::ToSql for SqlValue {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>, rusqlite::Error> {
        match self {
            Self::Text(text) => rusqlite::ToSql::to_sql(text),
            Self::Number(number) => rusqlite::ToSql::to_sql(number),
        }
    }
}

/// Statements as they are sent.
type WrittenStatements = HashMap<(SqlDialect, &'static str), Arc<str>>;

/// A statement in both dialects, as [`SqlStatement::of`] reads it, and its parameters.
#[derive(Debug, Clone)]
pub(super) struct SqlStatement {
    sql: &'static str,
    values: Vec<SqlValue>,
}

impl SqlStatement {
    /// In `sql`, `{now}` is the present time in milliseconds, `{last}` the last position, and `{place}` the table of
    /// messages with their positions. `{message_at}` is the time of a message there, `{listed $1}` a list of
    /// numbers, `{texts $1}` one of texts (JSON), and `{document}` the text of a person's
    /// record; `{each $2}` ends the columns of a select for each number of a list. `{among $1}` tests for one of
    /// a list of numbers, and `{pairs $1}` is a table of a JSON list of pairs (`number`, `text`).
    /// `{visible}` is a person's record as it is shown, and `{kept}` that of a merge. `{json $2}` is a record to write,
    /// `{moment}` the present time to write, and `{stamp at}` a time that was written. `{people.id is $1}` names one
    /// person exactly, and `{for update of people}` locks rows.
    /// `{plain queued.person}` is an id without the collation of its column, so that an index on another one is used.
    /// `{any of $1}` tests for one of a list of texts, by an index.
    /// `{seen changes}` is what readers see of the writes so far, and `{same.changed}` when a row was last written.
    /// `{turn fedgate_webhooks}` waits until no other transaction adds webhooks, and lasts to the end of this one.
    pub(super) fn of(sql: &'static str, values: Vec<SqlValue>) -> Self {
        Self { sql, values }
    }

    /// The statement in a dialect. It is written once, however often it is executed.
    pub(super) fn text(&self, dialect: SqlDialect) -> Arc<str> {
        static WRITTEN: LazyLock<RwLock<WrittenStatements>> = LazyLock::new(RwLock::default);
        let key = (dialect, self.sql);
        let known = WRITTEN.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        known.unwrap_or_else(|| {
            let text: Arc<str> = self.written(dialect).into();
            WRITTEN.write().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&text));
            text
        })
    }

    fn written(&self, dialect: SqlDialect) -> String {
        let words = match dialect {
            SqlDialect::Postgres => [
                ("{now}", "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"),
                ("{last}", "(SELECT position FROM fedgate_relay)"),
                ("{first}", "(SELECT first FROM fedgate_relay)"),
                (
                    "{place}",
                    "(SELECT position, resource, message.person, id, node, at FROM fedgate_positions JOIN fedgate_messages AS message USING (entry)) AS place",
                ),
                ("{message_at}", "CAST(extract(epoch FROM place.at) * 1000 AS bigint)"),
                ("{listed $1}", "(SELECT CAST(unnest(string_to_array($1, ',')) AS bigint))"),
                ("{listed $2}", "(SELECT CAST(unnest(string_to_array($2, ',')) AS bigint))"),
                ("{each $2}", "CAST(unnest(string_to_array($2, ',')) AS bigint)"),
                ("{texts $1}", "(SELECT json_array_elements_text(CAST(CAST($1 AS text) AS json)))"),
                ("{texts $2}", "(SELECT json_array_elements_text(CAST(CAST($2 AS text) AS json)))"),
                ("{texts $3}", "(SELECT json_array_elements_text(CAST(CAST($3 AS text) AS json)))"),
                (
                    "{pairs $1}",
                    "(SELECT CAST(pair ->> 0 AS bigint) AS number, pair ->> 1 AS text FROM json_array_elements(CAST(CAST($1 AS text) AS json)) AS pair) AS pairs",
                ),
                (
                    "{pairs $2}",
                    "(SELECT CAST(pair ->> 0 AS bigint) AS number, pair ->> 1 AS text FROM json_array_elements(CAST(CAST($2 AS text) AS json)) AS pair) AS pairs",
                ),
                ("{among $1}", "= ANY (CAST(string_to_array($1, ',') AS bigint[]))"),
                ("{among $2}", "= ANY (CAST(string_to_array($2, ',') AS bigint[]))"),
                ("{among $3}", "= ANY (CAST(string_to_array($3, ',') AS bigint[]))"),
                ("{among $4}", "= ANY (CAST(string_to_array($4, ',') AS bigint[]))"),
                ("{among $5}", "= ANY (CAST(string_to_array($5, ',') AS bigint[]))"),
                ("{among $6}", "= ANY (CAST(string_to_array($6, ',') AS bigint[]))"),
                ("{plain queued.person}", "(to_json(queued.person) #>> '{}')"),
                ("{any of $1}", "= ANY (ARRAY(SELECT json_array_elements_text(CAST(CAST($1 AS text) AS json))))"),
                ("{document}", "people.data::text"),
                ("{for update of people}", " FOR NO KEY UPDATE OF people"),
                ("{people}", "fedgate_people AS people"),
                // It keeps the hash that is stored.
                ("{put person $1 $2}", "SELECT CAST(fedgate_put_person($1, CAST($2 AS text)) AS text)"),
                ("{json $2}", "CAST(CAST($2 AS text) AS jsonb)"),
                ("{json $5}", "CAST(CAST($5 AS text) AS jsonb)"),
                ("{kept}", "kept::text"),
                ("{seen changes}", "fedgate_changes_until()"),
                ("{same.changed}", "CAST(extract(epoch FROM same.fedgate_changed) * 1000000 AS bigint)"),
                ("{moment}", "clock_timestamp()"),
                ("{stamp at}", "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"),
                ("{stamp undone_at}", "to_char(undone_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"),
                (
                    "{turn fedgate_webhooks}",
                    "CAST(pg_advisory_xact_lock(hashtextextended('fedgate_webhooks', 0)) AS text)",
                ),
            ],
            SqlDialect::Sqlite => [
                ("{now}", "CAST(unixepoch('subsec') * 1000 AS INTEGER)"),
                ("{last}", "coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'fedgate_messages'), 0)"),
                (
                    "{first}",
                    "coalesce((SELECT min(position) FROM fedgate_messages), (SELECT seq + 1 FROM sqlite_sequence WHERE name = 'fedgate_messages'), 1)",
                ),
                ("{place}", "fedgate_messages AS place"),
                ("{message_at}", "CAST(unixepoch(place.at, 'subsec') * 1000 AS INTEGER)"),
                ("{listed $1}", "(SELECT value FROM json_each('[' || $1 || ']'))"),
                ("{listed $2}", "(SELECT value FROM json_each('[' || $2 || ']'))"),
                ("{each $2}", "value FROM json_each('[' || $2 || ']')"),
                ("{texts $1}", "(SELECT value FROM json_each($1))"),
                ("{texts $2}", "(SELECT value FROM json_each($2))"),
                ("{texts $3}", "(SELECT value FROM json_each($3))"),
                ("{pairs $1}", "(SELECT value ->> 0 AS number, value ->> 1 AS text FROM json_each($1)) AS pairs"),
                ("{pairs $2}", "(SELECT value ->> 0 AS number, value ->> 1 AS text FROM json_each($2)) AS pairs"),
                ("{among $1}", "IN (SELECT value FROM json_each('[' || $1 || ']'))"),
                ("{among $2}", "IN (SELECT value FROM json_each('[' || $2 || ']'))"),
                ("{among $3}", "IN (SELECT value FROM json_each('[' || $3 || ']'))"),
                ("{among $4}", "IN (SELECT value FROM json_each('[' || $4 || ']'))"),
                ("{among $5}", "IN (SELECT value FROM json_each('[' || $5 || ']'))"),
                ("{among $6}", "IN (SELECT value FROM json_each('[' || $6 || ']'))"),
                ("{plain queued.person}", "queued.person"),
                ("{any of $1}", "IN (SELECT value FROM json_each($1))"),
                ("{document}", "people.data"),
                // One transaction writes at a time.
                ("{for update of people}", ""),
                ("{people}", "people"),
                (
                    "{put person $1 $2}",
                    "UPDATE people SET data = $2 WHERE people.id = $1 AND people.id = $1 COLLATE BINARY",
                ),
                ("{json $2}", "$2"),
                ("{json $5}", "$5"),
                ("{kept}", "kept"),
                ("{seen changes}", "(SELECT last + 1 AS until, last AS moment FROM fedgate_change_clock) AS seen"),
                ("{same.changed}", "same.fedgate_changed"),
                ("{moment}", "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"),
                ("{stamp at}", "at"),
                ("{stamp undone_at}", "undone_at"),
                ("{turn fedgate_webhooks}", "1"),
            ],
        };
        let written = words.iter().fold(self.sql.to_owned(), |sql, (word, meaning)| sql.replace(word, meaning));
        // A JSON path begins with `$`, too, so the visible text comes last.
        dialect.placeholders(&written).replace("{visible}", dialect.visible(RecordTable::People))
    }

    /// The first two values, if this is that statement and they are texts.
    pub(super) fn texts_of(&self, sql: &'static str) -> Option<(String, String)> {
        match self.values.as_slice() {
            [SqlValue::Text(Some(one)), SqlValue::Text(Some(other)), ..] if self.sql == sql => {
                Some((one.clone(), other.clone()))
            }
            _ => None,
        }
    }

    pub(super) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.values
            .iter()
            .map(|value| match value {
                SqlValue::Text(text) => text as &(dyn ToSql + Sync),
                SqlValue::Number(number) => number as &(dyn ToSql + Sync),
            })
            .collect()
    }
}

/// A row of texts and numbers.
#[derive(Debug, Clone)]
pub(super) struct SqlRow(Vec<SqlValue>);

impl SqlRow {
    fn of_postgres(row: &Row) -> Result<Self, DbError> {
        let value = |(at, column): (usize, &tokio_postgres::Column)| match *column.type_() {
            Type::INT8 => Ok(SqlValue::Number(row.try_get(at)?)),
            _ => Ok(SqlValue::Text(row.try_get(at)?)),
        };
        row.columns().iter().enumerate().map(value).collect::<Result<_, DbError>>().map(Self)
    }

    fn of_sqlite(row: &rusqlite::Row<'_>, columns: usize) -> Result<Self, rusqlite::Error> {
        let value = |at| match row.get_ref(at)? {
            ValueRef::Integer(number) => Ok(SqlValue::Number(Some(number))),
            ValueRef::Null => Ok(SqlValue::Text(None)),
            // Other programs write bytes, and text that is none. One odd row must not keep others from being read.
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                Ok(SqlValue::Text(Some(String::from_utf8_lossy(bytes).into_owned())))
            }
            ValueRef::Real(number) => Ok(SqlValue::Text(Some(number.to_string()))),
        };
        (0..columns).map(value).collect::<Result<_, rusqlite::Error>>().map(Self)
    }

    /// The text in a column, if there is one.
    pub(super) fn some_text(&self, at: usize) -> Option<String> {
        match self.0.get(at)? {
            SqlValue::Text(text) => text.clone(),
            SqlValue::Number(number) => number.map(|number| number.to_string()),
        }
    }

    /// The text in a column that has one.
    pub(super) fn text(&self, at: usize) -> String {
        self.some_text(at).unwrap_or_default()
    }

    /// The number in a column, if there is one.
    pub(super) fn some_number(&self, at: usize) -> Option<i64> {
        match self.0.get(at)? {
            SqlValue::Number(number) => *number,
            SqlValue::Text(_) => None,
        }
    }

    /// The number in a column; 0 for one below.
    pub(super) fn count(&self, at: usize) -> u64 {
        u64::try_from(self.some_number(at).unwrap_or(0)).unwrap_or(0)
    }
}

impl RecordStore {
    pub(super) async fn read_rows(&self, statement: SqlStatement) -> Result<Vec<SqlRow>, DbError> {
        match self {
            Self::Postgres(store) => store.heeded(within_bound(store.read_rows(&statement)).await),
            Self::Sqlite(store) => store.heeded(store.read_rows(statement).await),
        }
    }

    /// The rows of the last statement; none if the first of several found nothing.
    pub(super) async fn write_rows(&self, statements: Vec<SqlStatement>) -> Result<Option<Vec<SqlRow>>, DbError> {
        match self {
            Self::Postgres(store) => store.heeded(within_bound(store.write_rows(&statements)).await),
            Self::Sqlite(store) => store.heeded(store.write_rows(statements).await),
        }
    }
}

impl RecordStore {
    /// The rows of several statements, which are read one after the other, but sent at once.
    pub(super) async fn read_all(&self, statements: Vec<SqlStatement>) -> Result<Vec<Vec<SqlRow>>, DbError> {
        match self {
            Self::Postgres(store) => store.heeded(within_bound(store.read_all(&statements)).await),
            Self::Sqlite(store) => {
                let work =
                    move |connection: &Connection| statements.iter().map(|one| of_sqlite(connection, one)).collect();
                store.heeded(store.read(work).await)
            }
        }
    }

    /// Executes several statements in one transaction. They are sent at once.
    pub(super) async fn write_all(&self, statements: Vec<SqlStatement>) -> Result<(), DbError> {
        match self {
            Self::Postgres(store) => store.heeded(within_bound(store.write_all(&statements)).await),
            Self::Sqlite(store) => {
                let work = move |transaction: &rusqlite::Transaction<'_>| {
                    statements.iter().try_for_each(|one| of_sqlite(transaction, one).map(drop))
                };
                store.heeded(store.write_alone(work).await)
            }
        }
    }
}

pub(super) fn rows(rows: &[Row]) -> Result<Vec<SqlRow>, DbError> {
    rows.iter().map(SqlRow::of_postgres).collect()
}

impl PostgresStore {
    async fn read_rows(&self, statement: &SqlStatement) -> Result<Vec<SqlRow>, DbError> {
        let session = self.reader().await?;
        let prepared = session.prepare_cached(&statement.text(SqlDialect::Postgres)).await?;
        rows(&session.query(&prepared, &statement.parameters()).await?)
    }

    async fn write_rows(&self, statements: &[SqlStatement]) -> Result<Option<Vec<SqlRow>>, DbError> {
        let mut session = self.writer().await?;
        if let [statement] = statements {
            let prepared = session.prepare_cached(&statement.text(SqlDialect::Postgres)).await?;
            return rows(&session.query(&prepared, &statement.parameters()).await?).map(Some);
        }
        let transaction = session.transaction().await?;
        let mut found = Vec::new();
        for (at, statement) in statements.iter().enumerate() {
            let prepared = transaction.prepare_cached(&statement.text(SqlDialect::Postgres)).await?;
            found = transaction.query(&prepared, &statement.parameters()).await?;
            if at == 0 && found.is_empty() {
                transaction.commit().await?;
                return Ok(None);
            }
        }
        let found = rows(&found)?;
        transaction.commit().await?;
        Ok(Some(found))
    }
}

impl PostgresStore {
    async fn read_all(&self, statements: &[SqlStatement]) -> Result<Vec<Vec<SqlRow>>, DbError> {
        let session = self.reader().await?;
        let session = &session;
        let one = async |statement: &SqlStatement| {
            let prepared = session.prepare_cached(&statement.text(SqlDialect::Postgres)).await?;
            rows(&session.query(&prepared, &statement.parameters()).await?)
        };
        try_join_all(statements.iter().map(one)).await
    }

    async fn write_all(&self, statements: &[SqlStatement]) -> Result<(), DbError> {
        let mut session = self.writer().await?;
        let transaction = session.transaction().await?;
        let mut prepared = Vec::with_capacity(statements.len());
        for statement in statements {
            prepared.push((
                transaction.prepare_cached(&statement.text(SqlDialect::Postgres)).await?,
                statement.parameters(),
            ));
        }
        try_join_all(prepared.iter().map(|(prepared, values)| transaction.execute(prepared, values))).await?;
        transaction.commit().await
    }
}

impl SqliteStore {
    async fn read_rows(&self, statement: SqlStatement) -> Result<Vec<SqlRow>, DbError> {
        self.read(move |connection| of_sqlite(connection, &statement)).await
    }

    async fn write_rows(&self, statements: Vec<SqlStatement>) -> Result<Option<Vec<SqlRow>>, DbError> {
        let work = move |transaction: &rusqlite::Transaction<'_>| {
            let mut found = Vec::new();
            for (at, statement) in statements.iter().enumerate() {
                found = of_sqlite(transaction, statement)?;
                if at == 0 && found.is_empty() && statements.len() > 1 {
                    return Ok(None);
                }
            }
            Ok(Some(found))
        };
        self.write_alone(work).await
    }
}

pub(super) fn of_sqlite(connection: &Connection, statement: &SqlStatement) -> Result<Vec<SqlRow>, rusqlite::Error> {
    let mut prepared = connection.prepare_cached(&statement.text(SqlDialect::Sqlite))?;
    let columns = prepared.column_count();
    prepared.query_map(params_from_iter(&statement.values), |row| SqlRow::of_sqlite(row, columns))?.collect()
}
