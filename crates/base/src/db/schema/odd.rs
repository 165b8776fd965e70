//! Existing rows that are served with limits, because no path names their id, or their document is not an object.
//!
//! Thalamus accepts both: it takes any id, and appends a list that is sent to change a record. Nothing here changes
//! them; the operator learns which rows they are.

use std::fmt;
use std::time::Duration;

use rusqlite::Connection;

use super::super::{Database, DbError, SessionPool, WaitReason};
use fedgate_core::escape;
use fedgate_core::path::is_nameable;

/// The tables, with whether a document must be an object.
const TABLES: [(&str, bool); 5] =
    [("people", true), ("pols", true), ("dus", true), ("institutions", true), ("personal_docs", false)];
/// The most rows of a table that are named; the others are counted.
const NAMED: usize = 20;
/// The rows of one statement.
const BATCH: usize = 1000;
/// The most ids of a table that are examined. With more, the operator knows already.
const MOST: usize = 100_000;

/// The oddity of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowOddity {
    Unnameable,
    /// Its document is null or missing.
    Empty,
    NoObject,
}

/// The odd rows of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OddRows {
    table: &'static str,
    named: Vec<(String, RowOddity)>,
    count: usize,
    /// Why not all rows were examined.
    unread: Option<UnreadRows>,
}

/// Why rows of a table were not examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnreadRows {
    /// The time was over.
    Late,
    /// The role may not read the table.
    Forbidden,
}

impl fmt::Display for OddRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, named, count, unread } = self;
        let separate = |f: &mut fmt::Formatter<'_>, at| if at > 0 { f.write_str(", ") } else { Ok(()) };
        let of = |oddity| named.iter().filter(move |(_, known)| *known == oddity).map(|(id, _)| escape::name(id));
        let told = [
            (RowOddity::Unnameable, "whose id no path can name: lists show them, and no request can change them"),
            (
                RowOddity::Empty,
                "whose document is null: nobody can log in with them, and a PATCH starts them from empty",
            ),
            (
                RowOddity::NoObject,
                "whose document is not an object: they are shown without passwords, and take no login and no PATCH",
            ),
        ];
        let mut is_begun = false;
        for (oddity, what) in told {
            if of(oddity).next().is_none() {
                continue;
            }
            write!(f, "{}`{table}` has rows {what}: ", if is_begun { "; " } else { "" })?;
            is_begun = true;
            for (at, id) in of(oddity).enumerate() {
                separate(f, at)?;
                write!(f, "`{id}`")?;
            }
        }
        if *count > named.len() {
            write!(f, ", and {} more", count - named.len())?;
        }
        match (unread, is_begun) {
            (Some(UnreadRows::Forbidden), _) => write!(
                f,
                "not checked: `{table}`, for rows that are served with limits, because this role may not read it; \
                 run this as the owner of the database"
            ),
            (Some(UnreadRows::Late), true) => write!(f, "; not every row was looked at in time"),
            (Some(UnreadRows::Late), false) => {
                write!(f, "`{table}` was not looked through in time for rows that are served with limits")
            }
            (None, _) => Ok(()),
        }
    }
}

impl OddRows {
    fn of(table: &'static str) -> Self {
        Self { table, named: Vec::new(), count: 0, unread: None }
    }

    fn take(&mut self, id: String, document: &str) {
        let oddity = match (is_nameable(&id), document) {
            (false, _) => RowOddity::Unnameable,
            (true, "object") => return,
            (true, "null") => RowOddity::Empty,
            (true, _) => RowOddity::NoObject,
        };
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push((id, oddity));
        }
    }
}

/// The rows that are served with limits, by table; `patience` is the longest time for one statement.
///
/// # Errors
/// The database is away, or cannot tell.
pub async fn odd_rows(database: &Database, patience: Duration) -> Result<Vec<OddRows>, DbError> {
    let mut found = Vec::new();
    for (table, needs_object) in TABLES {
        let rows = match database {
            Database::Postgres(pool) => postgres_rows(pool, table, needs_object, patience).await?,
            Database::Sqlite(sqlite) => {
                sqlite.read(move |connection| sqlite_rows(connection, table, needs_object)).await?
            }
        };
        if rows.count > 0 || rows.unread.is_some() {
            found.push(rows);
        }
    }
    Ok(found)
}

async fn postgres_rows(
    pool: &SessionPool,
    table: &'static str,
    needs_object: bool,
    patience: Duration,
) -> Result<OddRows, DbError> {
    let mut odd = OddRows::of(table);
    let mut session = pool.get().await?.without_limit();
    let transaction = session.transaction().await?;
    transaction.batch_execute(&format!("SET LOCAL statement_timeout = {}", patience.as_millis())).await?;
    if transaction.query_one("SELECT to_regclass($1) IS NULL", &[&table]).await?.try_get(0)? {
        return Ok(odd);
    }
    let document = if needs_object { "coalesce(jsonb_typeof(data), 'null')" } else { "'object'::text" };
    let id = "CAST(id AS text) COLLATE \"C\"";
    // Ids of letters, digits and the plainest signs are nameable. The others are examined here.
    let sql = format!(
        "SELECT {id}, {document} FROM {table} WHERE ({id} !~ '^[A-Za-z0-9 _~.-]{{3,255}}$' OR {document} <> 'object') \
         AND {id} > $1 ORDER BY 1 LIMIT {BATCH}"
    );
    let mut after = String::new();
    for _ in 0..MOST / BATCH {
        let rows = transaction.query(&sql, &[&after]).await;
        let rows = match rows {
            Err(error) if error.waited_for() == Some(WaitReason::Statement) => {
                odd.unread = Some(UnreadRows::Late);
                return Ok(odd);
            }
            // The gateway's role reads accounts alone.
            Err(error) if error.is_forbidden() => {
                odd.unread = Some(UnreadRows::Forbidden);
                return Ok(odd);
            }
            rows => rows?,
        };
        for row in &rows {
            after = row.try_get(0)?;
            odd.take(after.clone(), row.try_get(1)?);
        }
        if rows.len() < BATCH {
            return Ok(odd);
        }
    }
    odd.unread = Some(UnreadRows::Late);
    Ok(odd)
}

fn sqlite_rows(connection: &Connection, table: &'static str, needs_object: bool) -> Result<OddRows, rusqlite::Error> {
    let mut odd = OddRows::of(table);
    if !connection.table_exists(None, table)? {
        return Ok(odd);
    }
    let document = match needs_object {
        true => "CASE WHEN data IS NULL THEN 'null' WHEN json_valid(data) THEN json_type(data) ELSE 'broken' END",
        false => "'object'",
    };
    let sql = format!(
        "SELECT CAST(id AS text), {document} FROM {table} WHERE id GLOB '*[^A-Za-z0-9 _~.-]*' OR length(id) < 3 OR \
         length(id) > 255 OR {document} <> 'object' ORDER BY id"
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        odd.take(row.get(0)?, &row.get::<_, String>(1)?);
    }
    Ok(odd)
}
