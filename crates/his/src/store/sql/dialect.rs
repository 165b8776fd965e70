//! The differences between the two databases' SQL, and the tables of records.
//!
//! The one rule: an expression has the same meaning in both databases. A statement asks a [`SqlDialect`] for each
//! expression that the two spell differently.

use fedgate_base::db::members;

/// The most rows that a statement of a list returns.
pub(super) const MOST_ROWS: usize = 1024;

/// The differences between the two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::store) enum SqlDialect {
    /// `$1`, jsonb.
    Postgres,
    /// `?1`, JSON in text.
    Sqlite,
}

impl SqlDialect {
    /// Turns `$1` into the database's form of a parameter.
    pub(in crate::store) fn placeholders(self, sql: &str) -> String {
        match self {
            Self::Postgres => sql.to_owned(),
            Self::Sqlite => sql.replace('$', "?"),
        }
    }

    /// A condition that a column equals a parameter byte for byte, for use beside a comparison that can use the
    /// index. The column's own type or collation may treat two ids as equal (`schema::loose_columns`), and it also
    /// decides the type of a bare parameter. `concat` keeps the parameter as it was sent.
    pub(in crate::store) fn exact(self, column: &str, parameter: &str) -> String {
        match self {
            Self::Postgres => format!("CAST({column} AS varchar) COLLATE \"C\" = concat({parameter})"),
            Self::Sqlite => format!("CAST({column} AS text) = {parameter} COLLATE BINARY"),
        }
    }

    /// A condition that a column names exactly this person.
    pub(in crate::store) fn names(self, column: &str, parameter: &str) -> String {
        // The first comparison uses the index, and the second makes it exact.
        format!("{column} = {parameter} AND {}", self.exact(column, parameter))
    }

    /// A condition that a column names exactly one of the persons within reach: a list in a parameter, or null if all
    /// are. It finds no row by an index, and is for rows that another condition finds.
    pub(in crate::store) fn reaches(self, column: &str, reach: &str) -> String {
        match self {
            Self::Postgres => format!(
                "(CAST({reach} AS text[]) IS NULL OR CAST({column} AS varchar) COLLATE \"C\" = ANY (CAST({reach} AS text[])))"
            ),
            // The usual list has one person, and is compared as a text, which costs less than to read it.
            Self::Sqlite => format!(
                "({reach} IS NULL OR json_array(CAST({column} AS text)) = {reach} COLLATE BINARY OR {})",
                self.within(column, reach)
            ),
        }
    }

    /// The same condition for a JSON list, also on PostgreSQL.
    pub(in crate::store) fn within(self, column: &str, list: &str) -> String {
        match self {
            Self::Postgres => format!("CAST({column} AS varchar) COLLATE \"C\" = ANY ({})", list_of_texts(list)),
            Self::Sqlite => format!("CAST({column} AS text) COLLATE BINARY IN (SELECT value FROM json_each({list}))"),
        }
    }

    /// As [`SqlDialect::within`], for a statement that finds its rows by the index of the column.
    pub(in crate::store) fn names_within(self, column: &str, list: &str) -> String {
        let found = match self {
            Self::Postgres => format!("{column} = ANY ({})", list_of_texts(list)),
            Self::Sqlite => format!("{column} IN (SELECT value FROM json_each({list}))"),
        };
        format!("{found} AND {}", self.within(column, list))
    }

    /// A condition that a column names this person, by any id of the person. It is for a row that its key finds, since no
    /// index helps.
    pub(in crate::store) fn names_same(self, column: &str, parameter: &str) -> String {
        let (names, column) = (self.names(column, parameter), self.as_id(column));
        format!(
            "({names} OR {column} IN (SELECT other.id FROM fedgate_same_persons AS same \
             JOIN fedgate_same_persons AS other ON other.person = same.person WHERE same.id = {parameter}))"
        )
    }

    /// The same condition for a row that is found by its id, a parameter. On PostgreSQL it leads to one partition: that of
    /// the person, or the one that a function (`holder`) finds for a person with several ids.
    pub(in crate::store) fn names_holder(self, column: &str, parameter: &str, holder: (&str, &str)) -> String {
        match self {
            Self::Postgres => {
                let (function, id) = holder;
                let has_ids =
                    format!("EXISTS (SELECT 1 FROM fedgate_same_persons AS same WHERE same.id = {parameter})");
                let function = format!("{function}(CAST({id} AS varchar), CAST({parameter} AS varchar))");
                format!(
                    "{column} = (SELECT CASE WHEN {has_ids} THEN {function} ELSE {parameter} END) AND ({} OR {function} IS NOT NULL)",
                    self.exact(column, parameter)
                )
            }
            Self::Sqlite => self.names_same(column, parameter),
        }
    }

    /// The rows of a table whose column names one of several persons, listed in a parameter as JSON. `rest` is a further
    /// condition with order and limit. It holds for each person alone, so that a part of a long list costs no more than
    /// its rows.
    pub(super) fn of_each_person(
        self,
        table: &str,
        column: &str,
        persons: usize,
        rest: &str,
        order: RowOrder,
    ) -> String {
        match self {
            Self::Postgres => format!(
                "(SELECT CAST(json_array_elements_text(CAST(CAST(${persons} AS text) AS json)) AS varchar) AS member) AS same \
                 CROSS JOIN LATERAL (SELECT {} FROM {table} WHERE {} AND {rest}) AS {table}",
                self.columns(order),
                self.names(column, "same.member")
            ),
            // The index alone answers this, and the rows are read afterwards.
            Self::Sqlite => format!(
                "{table} WHERE id IN (SELECT id FROM {table} WHERE {} AND {rest})",
                self.names_within(column, &format!("${persons}"))
            ),
        }
    }

    /// The survivor of a person (a parameter) whose id has become old; null otherwise.
    pub(super) fn survivor(self, parameter: &str) -> String {
        self.placeholders(&format!(
            "(SELECT same.person FROM fedgate_same_persons AS same WHERE same.id = {parameter} AND same.person <> same.id)"
        ))
    }

    /// A condition that no merge has made a person old; `people` is the table of the row. It is no join, so that the
    /// order of the rows stays that of the index.
    pub(super) fn is_present(self) -> String {
        let id = self.as_id("people.id");
        format!("(SELECT same.person <> same.id FROM fedgate_same_persons AS same WHERE same.id = {id}) IS NOT TRUE")
    }

    /// A column compared by bytes, whatever its own type and collation are.
    fn as_id(self, column: &str) -> String {
        match self {
            Self::Postgres => format!("CAST({column} AS varchar) COLLATE \"C\""),
            Self::Sqlite => format!("CAST({column} AS text) COLLATE BINARY"),
        }
    }

    /// A document's member to compare: a string, or a number or truth value as it is written; otherwise null.
    pub(super) fn comparable(self, member: &str) -> String {
        match self {
            Self::Postgres => members::postgres_comparable(member),
            Self::Sqlite => members::sqlite_comparable(member),
        }
    }

    /// A condition that a person's member equals a parameter. `finding` is the one of all members that finds the rows.
    pub(super) fn member_equals(self, member: &str, parameter: &str, finding: Option<&str>) -> String {
        match self {
            // The planner knows how many persons a value has, and chooses.
            Self::Postgres => members::postgres_view_equals(member, parameter),
            Self::Sqlite if finding == Some(member) => members::sqlite_finds(member, parameter),
            Self::Sqlite => members::sqlite_equals(member, parameter),
        }
    }

    /// When a row was last written; the beginning of time, if that was before times were kept.
    pub(super) fn changed(self) -> &'static str {
        match self {
            Self::Postgres => "coalesce(fedgate_changed, TIMESTAMPTZ 'epoch')",
            Self::Sqlite => "coalesce(fedgate_changed, 0)",
        }
    }

    /// A moment in a parameter, in microseconds since 1970, to compare.
    pub(super) fn moment(self, parameter: &str) -> String {
        match self {
            Self::Postgres => {
                format!("(TIMESTAMPTZ 'epoch' + CAST(CAST({parameter} AS text) AS bigint) * INTERVAL '1 microsecond')")
            }
            Self::Sqlite => format!("CAST({parameter} AS INTEGER)"),
        }
    }

    /// Rows of a table in an order, of which a statement takes at most `MOST_ROWS`. PostgreSQL plans for
    /// that number. For the limit in a parameter it would plan for a tenth of all rows, and sort the table.
    pub(super) fn few(self, table: RecordTable, condition: &str, order: RowOrder) -> String {
        match self {
            Self::Postgres => {
                let (columns, rows, place) = (self.columns(order), self.shown(table), self.order(order));
                format!(
                    "(SELECT {columns} FROM {rows} WHERE {condition} ORDER BY {place} LIMIT {MOST_ROWS}) AS {}",
                    table.name()
                )
            }
            Self::Sqlite => format!("{} WHERE {condition}", table.name()),
        }
    }

    /// The rows of a table as they may be shown, for a `FROM`: on PostgreSQL, people without their hashes.
    pub(in crate::store) fn shown(self, table: RecordTable) -> &'static str {
        match (self, table) {
            (Self::Postgres, RecordTable::People) => "fedgate_people AS people",
            (_, _) => table.name(),
        }
    }

    /// The row of an id (`$1`) with all that it has, for a `FROM`.
    pub(in crate::store) fn with_hash(self, table: RecordTable) -> &'static str {
        match (self, table) {
            (Self::Postgres, RecordTable::People) => "fedgate_whole_person($1) AS people",
            (_, _) => table.name(),
        }
    }

    /// The visible text of a row of [`SqlDialect::shown`].
    pub(in crate::store) fn visible(self, table: RecordTable) -> &'static str {
        match (self, table) {
            // An older row of Thalamus may not be an object. `visible.rs` handles hashes inside those. On PostgreSQL the
            // view has none.
            (Self::Sqlite, RecordTable::People) => "coalesce(json_remove(data, '$.password'), 'null')",
            (_, _) => self.whole(),
        }
    }

    /// The whole text of a row.
    pub(in crate::store) fn whole(self) -> &'static str {
        match self {
            Self::Postgres => "coalesce(data::text, 'null')",
            Self::Sqlite => "coalesce(data, 'null')",
        }
    }

    /// Columns of rows: their text (or null, if it exceeds the bytes in a parameter), their greatest possible
    /// length, their place, and further named expressions. PostgreSQL builds the text to measure it, once per row by the
    /// subquery. SQLite knows the stored length without reading the text, and the visible text is never longer.
    pub(super) fn fitting(
        self,
        text: &str,
        most: &str,
        further: &[(&str, &str)],
        rows: &str,
        order: RowOrder,
    ) -> String {
        // Replaced here and not in the columns, because a JSON path begins with `$` too.
        let (most, rows) = (self.placeholders(most), self.placeholders(rows));
        match self {
            Self::Postgres => {
                let names: String = further.iter().map(|(_, name)| format!(", {name}")).collect();
                let columns: String = further.iter().map(|(column, name)| format!(", {column} AS {name}")).collect();
                let (place, at, order) = match order {
                    RowOrder::Id => ("id", "", "id"),
                    RowOrder::Change => (
                        "concat(CAST(extract(epoch FROM changed) * 1000000 AS bigint), '.', id)",
                        ", changed",
                        "changed, id",
                    ),
                };
                format!(
                    "SELECT CASE WHEN octet_length(text) <= CAST({most} AS bigint) THEN text END, \
                     CAST(octet_length(text) AS bigint), {place}{names} \
                     FROM (SELECT {text} AS text, id{at}{columns} {rows}) AS listed ORDER BY {order}"
                )
            }
            Self::Sqlite => {
                let columns: String = further.iter().map(|(column, _)| format!(", {column}")).collect();
                let length = "coalesce(octet_length(data), 4)";
                let place = self.row_place(order);
                format!("SELECT CASE WHEN {length} <= {most} THEN {text} END, {length}, {place}{columns} {rows}")
            }
        }
    }

    /// The place of a row in a list of an order.
    pub(super) fn row_place(self, order: RowOrder) -> String {
        match (self, order) {
            (_, RowOrder::Id) => "id".to_owned(),
            (Self::Postgres, RowOrder::Change) => {
                "concat(CAST(extract(epoch FROM changed) * 1000000 AS bigint), '.', id)".to_owned()
            }
            (Self::Sqlite, RowOrder::Change) => format!("{} || '.' || id", self.changed()),
        }
    }

    /// The columns of rows of a table, to which PostgreSQL adds what they are ordered by: it then knows that they are.
    fn columns(self, order: RowOrder) -> String {
        match (self, order) {
            (Self::Postgres, RowOrder::Change) => format!("*, {} AS changed", self.changed()),
            (_, _) => "*".to_owned(),
        }
    }

    /// The order of rows with these columns.
    pub(super) fn order_of_columns(self, order: RowOrder) -> String {
        match (self, order) {
            (Self::Postgres, RowOrder::Change) => "changed, id".to_owned(),
            (_, _) => self.order(order),
        }
    }

    /// The order of rows of a table.
    pub(super) fn order(self, order: RowOrder) -> String {
        match order {
            RowOrder::Id => "id".to_owned(),
            RowOrder::Change => format!("{}, id", self.changed()),
        }
    }

    /// The day with which a page's date begins, compared by code points. A date without one sorts after every day.
    pub(super) fn day_of_page(self) -> &'static str {
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

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowOrder {
    Id,
    /// By the last write, and then by id.
    Change,
}

/// A JSON list of texts as an array of PostgreSQL. A subquery without a reference to the row is evaluated once.
fn list_of_texts(list: &str) -> String {
    format!("ARRAY(SELECT json_array_elements_text(CAST(CAST({list} AS text) AS json)))")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::store) enum RecordTable {
    People,
    Pols,
    Dus,
    Institutions,
    PersonalDocs,
}

impl RecordTable {
    pub(in crate::store) const ALL: [Self; 5] =
        [Self::People, Self::Pols, Self::Dus, Self::Institutions, Self::PersonalDocs];

    pub(in crate::store) fn name(self) -> &'static str {
        match self {
            Self::People => "people",
            Self::Pols => "pols",
            Self::Dus => "dus",
            Self::Institutions => "institutions",
            Self::PersonalDocs => "personal_docs",
        }
    }
}
