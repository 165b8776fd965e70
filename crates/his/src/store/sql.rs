//! The statements that both databases share, written once in their common SQL.
//!
//! The one rule: every statement about a person's records ends in a condition on the caller's reach. Only the
//! functions here build such statements, and each of them takes the reach, or keeps a parameter for it.

use super::{
    ChangedSince, DocumentForm, ListQuery, ListWindow, OwnedKey, PIECE_BYTES, RecordKey, RecordReach, UnitKind,
};

/// The differences between the two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SqlDialect {
    /// `$1`, jsonb.
    Postgres,
    /// `?1`, JSON in text.
    Sqlite,
}

impl SqlDialect {
    /// Turns `$1` into the database's form of a parameter.
    pub(super) fn placeholders(self, sql: &str) -> String {
        match self {
            Self::Postgres => sql.to_owned(),
            Self::Sqlite => sql.replace('$', "?"),
        }
    }

    /// A condition that a column equals a parameter byte for byte, for use beside a comparison that can use the
    /// index. The column's own type or collation may treat two ids as equal (`schema::loose_columns`), and it also
    /// decides the type of a bare parameter. `concat` keeps the parameter as it was sent.
    pub(super) fn exact(self, column: &str, parameter: &str) -> String {
        match self {
            Self::Postgres => format!("CAST({column} AS varchar) COLLATE \"C\" = concat({parameter})"),
            Self::Sqlite => format!("CAST({column} AS text) = {parameter} COLLATE BINARY"),
        }
    }

    /// A condition that a column names exactly this person.
    pub(super) fn names(self, column: &str, parameter: &str) -> String {
        // The first comparison uses the index, and the second makes it exact.
        format!("{column} = {parameter} AND {}", self.exact(column, parameter))
    }

    /// A document's member to compare: a string, or a number or truth value as it is written; otherwise null.
    fn comparable(self, member: &str) -> String {
        match self {
            Self::Postgres => format!(
                "CASE WHEN jsonb_typeof(data -> '{member}') IN ('string', 'number', 'boolean') THEN data ->> \
                 '{member}' END"
            ),
            // `->>` would return numbers and truth values as SQL numbers, which equal no text.
            Self::Sqlite => format!(
                "CASE json_type(data -> '{member}') WHEN 'text' THEN data ->> '{member}' \
                 WHEN 'object' THEN NULL WHEN 'array' THEN NULL WHEN 'null' THEN NULL ELSE data -> '{member}' END"
            ),
        }
    }

    /// The visible text of a row.
    pub(super) fn visible(self, table: RecordTable) -> &'static str {
        match (self, table) {
            // An older row of Thalamus may not be an object. `visible.rs` handles hashes inside those.
            (Self::Postgres, RecordTable::People) => {
                "coalesce((CASE WHEN jsonb_typeof(data) = 'object' THEN data - 'password' ELSE data END)::text, 'null')"
            }
            (Self::Sqlite, RecordTable::People) => "coalesce(json_remove(data, '$.password'), 'null')",
            (_, _) => self.whole(),
        }
    }

    /// The whole text of a row.
    pub(super) fn whole(self) -> &'static str {
        match self {
            Self::Postgres => "coalesce(data::text, 'null')",
            Self::Sqlite => "coalesce(data, 'null')",
        }
    }

    /// Columns of rows: their text (or null, if it exceeds the bytes in a parameter), their greatest possible
    /// length, their id, and further named expressions. PostgreSQL builds the text to measure it, once per row by the
    /// subquery. SQLite knows the stored length without reading the text, and the visible text is never longer.
    fn fitting(self, text: &str, most: &str, further: &[(&str, &str)], rows: &str) -> String {
        // Replaced here and not in the columns, because a JSON path begins with `$` too.
        let (most, rows) = (self.placeholders(most), self.placeholders(rows));
        match self {
            Self::Postgres => {
                let names: String = further.iter().map(|(_, name)| format!(", {name}")).collect();
                let columns: String = further.iter().map(|(column, name)| format!(", {column} AS {name}")).collect();
                format!(
                    "SELECT CASE WHEN octet_length(text) <= CAST({most} AS bigint) THEN text END, \
                     CAST(octet_length(text) AS bigint), id{names} \
                     FROM (SELECT {text} AS text, id{columns} {rows}) AS listed ORDER BY id"
                )
            }
            Self::Sqlite => {
                let columns: String = further.iter().map(|(column, _)| format!(", {column}")).collect();
                let length = "coalesce(octet_length(data), 4)";
                format!("SELECT CASE WHEN {length} <= {most} THEN {text} END, {length}, id{columns} {rows}")
            }
        }
    }

    /// The day with which a page's date begins, compared by code points. A date without one sorts after every day.
    fn day_of_page(self) -> &'static str {
        match self {
            Self::Postgres => {
                "coalesce(substring(data ->> 'page_date' from '^[0-9]{4}-[0-9]{2}-[0-9]{2}'), '~') COLLATE \"C\""
            }
            Self::Sqlite => {
                "CASE WHEN data ->> 'page_date' GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' \
                 THEN substr(data ->> 'page_date', 1, 10) ELSE '~' END"
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordTable {
    People,
    Pols,
    Dus,
    Institutions,
    PersonalDocs,
}

impl RecordTable {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::People => "people",
            Self::Pols => "pols",
            Self::Dus => "dus",
            Self::Institutions => "institutions",
            Self::PersonalDocs => "personal_docs",
        }
    }
}

impl RecordKey {
    pub(super) fn table(&self) -> RecordTable {
        match self {
            Self::Person(_) => RecordTable::People,
            Self::Page { .. } => RecordTable::Pols,
            Self::Unit(units, _) => units.table(),
        }
    }

    /// The primary key.
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Person(id) | Self::Page { page: id, .. } | Self::Unit(_, id) => id,
        }
    }

    /// The book that a page must be in.
    pub(super) fn book(&self) -> Option<&str> {
        match self {
            Self::Page { person, .. } => Some(person),
            Self::Person(_) | Self::Unit(..) => None,
        }
    }

    /// The row: `$1` is the id, `$2` the book (or null), `$3` the only person within reach (or null).
    pub(super) fn condition(&self, dialect: SqlDialect) -> String {
        match self {
            Self::Person(_) => format!(
                "{} AND CAST($2 AS text) IS NULL AND (CAST($3 AS text) IS NULL OR {})",
                dialect.names("id", "$1"),
                dialect.exact("id", "$3")
            ),
            Self::Page { .. } => format!(
                "id = $1 AND {} AND (CAST($3 AS text) IS NULL OR {})",
                dialect.names("book", "$2"),
                dialect.exact("book", "$3")
            ),
            // A unit belongs to no person, so only the decision limits who may touch it.
            Self::Unit(..) => "id = $1 AND CAST($2 AS text) IS NULL AND (CAST($3 AS text) IS NULL OR true)".to_owned(),
        }
    }
}

impl UnitKind {
    pub(super) fn table(self) -> RecordTable {
        match self {
            Self::Domiciliary => RecordTable::Dus,
            Self::Institutions => RecordTable::Institutions,
        }
    }
}

/// The visible text of the row. Parameters are as in [`RecordKey::condition`].
pub(super) fn select_visible(dialect: SqlDialect, key: &RecordKey) -> String {
    let (table, condition) = (key.table(), dialect.placeholders(&key.condition(dialect)));
    format!("SELECT {} FROM {} WHERE {condition}", dialect.visible(table), table.name())
}

/// The visible text of the row, or null if it has more than `$4` bytes, and its greatest possible length. Other
/// parameters are as in [`RecordKey::condition`].
pub(super) fn select_fitting(dialect: SqlDialect, key: &RecordKey) -> String {
    let rows = format!("FROM {} WHERE {} ORDER BY id LIMIT 1", key.table().name(), key.condition(dialect));
    dialect.fitting(dialect.visible(key.table()), "$4", &[], &rows)
}

/// The whole text of the row. Parameters are as in [`RecordKey::condition`].
pub(super) fn select_whole(dialect: SqlDialect, key: &RecordKey) -> String {
    let condition = dialect.placeholders(&key.condition(dialect));
    format!("SELECT {} FROM {} WHERE {condition}", dialect.whole(), key.table().name())
}

/// Sets the row's data to `value`, an expression with `$4`. Other parameters are as in [`RecordKey::condition`].
pub(super) fn update(dialect: SqlDialect, key: &RecordKey, value: &str) -> String {
    let sql = format!("UPDATE {} SET data = {value} WHERE {}", key.table().name(), key.condition(dialect));
    dialect.placeholders(&sql)
}

/// Counts the records of a person (`$1`) up to a bound (`$2`), from the index alone. `$3` is the person within reach.
pub(super) fn count(dialect: SqlDialect, owned: OwnedKey) -> String {
    let (table, person) = match owned {
        OwnedKey::Pages => (RecordTable::Pols, "book"),
        OwnedKey::Documents => (RecordTable::PersonalDocs, "fedacct"),
    };
    // The limit stops the scan, so a count never costs more than the bound.
    let (of_person, reach) = (dialect.names(person, "$1"), dialect.exact(person, "$3"));
    dialect.placeholders(&format!(
        "SELECT count(*) FROM (SELECT 1 FROM {} WHERE {of_person} AND (CAST($3 AS text) IS NULL OR {reach}) \
         LIMIT CAST($2 AS bigint)) AS counted",
        table.name()
    ))
}

/// Deletes the row. Parameters are as in [`RecordKey::condition`].
pub(super) fn delete(dialect: SqlDialect, key: &RecordKey) -> String {
    dialect.placeholders(&format!("DELETE FROM {} WHERE {}", key.table().name(), key.condition(dialect)))
}

/// Whether a person (`$1`) has pages or documents.
pub(super) const PERSON_IN_USE: &str =
    "SELECT EXISTS (SELECT 1 FROM pols WHERE book = $1) OR EXISTS (SELECT 1 FROM personal_docs WHERE fedacct = $1)";

/// Whether a page (`$1`) exists in the book of a person (`$2`) within reach (`$3`, or null).
pub(super) fn page_exists(dialect: SqlDialect) -> String {
    let (book, reach) = (dialect.names("book", "$2"), dialect.exact("book", "$3"));
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM pols WHERE id = $1 AND {book} AND (CAST($3 AS text) IS NULL OR {reach}))"
    );
    dialect.placeholders(&sql)
}

/// A row of `personal_docs`: `$1` person, `$2` page or null, `$3` document, `$4` the only person within reach or null.
fn document(dialect: SqlDialect) -> String {
    let (person, reach) = (dialect.names("fedacct", "$1"), dialect.exact("fedacct", "$4"));
    dialect.placeholders(&format!(
        "{person} AND (pol = $2 OR (CAST($2 AS text) IS NULL AND pol IS NULL)) AND id = $3 \
         AND (CAST($4 AS text) IS NULL OR {reach})"
    ))
}

/// Columns of the document. Parameters are as in [`document`].
pub(super) fn select_document(dialect: SqlDialect, columns: &str) -> String {
    format!("SELECT {} FROM personal_docs WHERE {}", dialect.placeholders(columns), document(dialect))
}

/// Whether the id of a document (`$1`) is taken, by any person's document.
pub(super) const DOCUMENT_ID_TAKEN: &str = "SELECT EXISTS (SELECT 1 FROM personal_docs WHERE id = $1)";

/// Stores a piece of an upload. Pieces are not a person's record yet, so no reach applies.
pub(super) const STAGE: &str = "INSERT INTO fedgate_pieces (upload, place, piece) VALUES ($1, $2, $3)";
/// Deletes the pieces of an upload.
pub(super) const UNSTAGE: &str = "DELETE FROM fedgate_pieces WHERE upload = $1";
/// Deletes the pieces that a killed process left. No upload takes an hour.
pub(super) const SWEEP_POSTGRES: &str = "DELETE FROM fedgate_pieces WHERE staged < now() - interval '1 hour'";
pub(super) const SWEEP_SQLITE: &str = "DELETE FROM fedgate_pieces WHERE staged < unixepoch() - 3600";

/// Deletes the document. Parameters are as in [`document`].
pub(super) fn delete_document(dialect: SqlDialect) -> String {
    format!("DELETE FROM personal_docs WHERE {}", document(dialect))
}

/// The id of this store.
pub(super) const STORE_ID: &str = "SELECT id FROM fedgate_store";

/// A statement with its parameters: texts first, then the limit and, for rows, the most bytes of a row.
///
/// INVARIANT: the text of a statement depends only on which conditions there are, never on their values.
/// Connections keep every statement that they have prepared, so the number of texts must be small.
pub(super) struct SqlQuery {
    pub(super) sql: String,
    pub(super) parameters: Vec<String>,
    pub(super) limit: i64,
    pub(super) most: Option<i64>,
}

/// Rows of a list in the order of their ids. The text is null if it has more than `most` bytes. Columns: text, its
/// bytes, id, and date; for documents text, its bytes, id, person, page, small content, and whether there is any.
pub(super) fn select_list(
    dialect: SqlDialect,
    list: &ListQuery,
    window: &ListWindow,
    limit: usize,
    most: i64,
    reach: &RecordReach,
) -> SqlQuery {
    let small = format!("CASE WHEN length(document) <= {PIECE_BYTES} THEN document END");
    let content = match list {
        ListQuery::Documents { form: DocumentForm::Embedded, .. } => &small,
        // The bytes are not read here. A document larger than a piece is read when its turn comes.
        ListQuery::Documents { .. } | ListQuery::People { .. } | ListQuery::Pages { .. } | ListQuery::Units(_) => {
            "CAST(NULL AS bytea)"
        }
    };
    let further: &[_] = match list {
        ListQuery::People { .. } | ListQuery::Pages { .. } | ListQuery::Units(_) => &[(list.date(), "day")],
        ListQuery::Documents { .. } => &[
            ("fedacct", "person"),
            ("pol", "page"),
            (content, "content"),
            ("length(document) IS NOT NULL", "has_content"),
        ],
    };
    let mut query = select(list, window, limit, reach, dialect);
    let place = format!("${}", query.parameters.len() + 2);
    let text = dialect.visible(list.table());
    query.sql = dialect.fitting(text, &place, further, &query.sql);
    query.most = Some(most);
    query
}

/// The ids of a list. Columns: id, date.
pub(super) fn select_ids(
    dialect: SqlDialect,
    list: &ListQuery,
    window: &ListWindow,
    limit: usize,
    reach: &RecordReach,
) -> SqlQuery {
    let query = select(list, window, limit, reach, dialect);
    let sql = dialect.placeholders(&format!("SELECT id, {} {}", list.date(), query.sql));
    SqlQuery { sql, ..query }
}

impl ListQuery {
    pub(super) fn table(&self) -> RecordTable {
        match self {
            Self::People { .. } => RecordTable::People,
            Self::Pages { .. } => RecordTable::Pols,
            Self::Units(units) => units.table(),
            Self::Documents { .. } => RecordTable::PersonalDocs,
        }
    }

    /// The date that decides whether a row is wanted, if one does.
    fn date(&self) -> &'static str {
        match self {
            Self::Pages { since: Some(_), .. } => "CAST(data ->> 'page_date' AS text)",
            Self::Pages { since: None, .. } | Self::People { .. } | Self::Units(_) | Self::Documents { .. } => {
                "CAST(NULL AS text)"
            }
        }
    }
}

/// The part of the statement after the columns, with its parameters.
fn select(list: &ListQuery, window: &ListWindow, limit: usize, reach: &RecordReach, dialect: SqlDialect) -> SqlQuery {
    let mut conditions = SqlConditions { dialect, comparisons: Vec::new(), parameters: Vec::new() };
    match list {
        ListQuery::People { members } => {
            conditions.add_person("id", reach.own());
            for (member, value) in members {
                conditions.add(&format!("{} =", dialect.comparable(member)), value);
            }
        }
        ListQuery::Pages { person, since, page_type } => {
            // The person in the path and the person within reach: they differ only if code above is wrong.
            conditions.add_person("book", Some(person));
            conditions.add_person("book", reach.own());
            let first_day = since.as_ref().map(ChangedSince::first_day);
            conditions.add_some(&format!("{} >=", dialect.day_of_page()), first_day.as_deref());
            conditions.add_some(&format!("{} =", dialect.comparable("page_type")), page_type.as_deref());
        }
        ListQuery::Units(_) => {}
        ListQuery::Documents { person, page, form: _ } => {
            conditions.add_person("fedacct", Some(person));
            conditions.add_person("fedacct", reach.own());
            conditions.add_some("pol =", page.as_deref());
        }
    }
    conditions.add_some("id >", window.after.as_deref());
    conditions.add_some("id <=", window.upto.as_deref());
    let SqlConditions { comparisons, parameters, .. } = conditions;
    let condition = match comparisons.as_slice() {
        [] => "true".to_owned(),
        some => some.join(" AND "),
    };
    let table = list.table().name();
    let place = format!("CAST(${} AS bigint)", parameters.len() + 1);
    let sql = format!("FROM {table} WHERE {condition} ORDER BY id LIMIT {place}");
    SqlQuery { sql, parameters, limit: i64::try_from(limit).unwrap_or(i64::MAX), most: None }
}

/// Conditions and their parameters, numbered in order.
struct SqlConditions {
    dialect: SqlDialect,
    comparisons: Vec<String>,
    parameters: Vec<String>,
}

impl SqlConditions {
    fn add(&mut self, comparison: &str, value: &str) {
        // Values always travel as parameters. Only names of this crate become part of the text.
        self.parameters.push(value.to_owned());
        self.comparisons.push(format!("{comparison} ${}", self.parameters.len()));
    }

    /// Adds the condition that a column names this person, if there is one.
    fn add_person(&mut self, column: &str, person: Option<&str>) {
        if let Some(person) = person {
            self.parameters.push(person.to_owned());
            self.comparisons.push(self.dialect.names(column, &format!("${}", self.parameters.len())));
        }
    }

    fn add_some(&mut self, comparison: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(comparison, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_asks_for_is_no_part_of_a_statement() {
        let list = |text: &str, since| ListQuery::Pages {
            person: text.to_owned(),
            since: ChangedSince::parse(since),
            page_type: Some(text.to_owned()),
        };
        let window = |text: &str| ListWindow { after: Some(text.to_owned()), upto: Some(text.to_owned()) };
        for dialect in [SqlDialect::Postgres, SqlDialect::Sqlite] {
            let make = |text: &str, since, limit| {
                let (list, window, reach) = (list(text, since), window(text), RecordReach::Own(text.to_owned()));
                let rows = select_list(dialect, &list, &window, limit, 9, &reach);
                let ids = select_ids(dialect, &list, &window, limit, &reach);
                assert_eq!((rows.limit, ids.limit), (limit as i64, limit as i64));
                (rows.sql, ids.sql)
            };
            assert_eq!(make("a", "2024-05-01", 1), make("'b", "1985-10-06T11:30:00+02:00", 1000));
        }
    }
}
