//! Statements of lists: people, pages, units and documents.
//!
//! The one rule: a value of the request is a parameter of its statement, and never a part of the text. Conditions are
//! added by [`SqlConditions`] alone.

use super::super::{ChangePlace, ChangedSince, DocumentForm, ListQuery, ListWindow, PIECE_BYTES, RecordReach};
use super::dialect::{MOST_ROWS, RecordTable, RowOrder, SqlDialect};
use fedgate_base::db::members;

/// A statement with its parameters: texts first, then the limit and, for rows, the most bytes of a row.
///
/// INVARIANT: the text of a statement depends only on which conditions there are, never on their values.
/// Connections keep every statement that they have prepared, so the number of texts must be small.
pub(in crate::store) struct SqlQuery {
    pub(in crate::store) sql: String,
    pub(in crate::store) parameters: Vec<String>,
    pub(in crate::store) limit: i64,
    pub(in crate::store) most: Option<i64>,
}

/// Rows of a list in its order. The text is null if it has more than `most` bytes. Columns: text, its
/// bytes, place, and date; for documents text, its bytes, id, person, page, small content, and whether there is any.
pub(in crate::store) fn select_list(
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
    query.sql = dialect.fitting(text, &place, further, &query.sql, window.order());
    query.most = Some(most);
    query
}

/// The places of a list, which are ids if that is its order. Columns: place, date.
pub(in crate::store) fn select_ids(
    dialect: SqlDialect,
    list: &ListQuery,
    window: &ListWindow,
    limit: usize,
    reach: &RecordReach,
) -> SqlQuery {
    let query = select(list, window, limit, reach, dialect);
    let place = dialect.row_place(window.order());
    let sql = dialect.placeholders(&format!("SELECT {place}, {} {}", list.date(), query.sql));
    SqlQuery { sql, ..query }
}

impl ListQuery {
    pub(in crate::store) fn table(&self) -> RecordTable {
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

impl ListWindow {
    fn order(&self) -> RowOrder {
        if self.changed.is_some() { RowOrder::Change } else { RowOrder::Id }
    }
}

/// The part of the statement after the columns, with its parameters.
fn select(list: &ListQuery, window: &ListWindow, limit: usize, reach: &RecordReach, dialect: SqlDialect) -> SqlQuery {
    let mut conditions = SqlConditions { dialect, comparisons: vec![], parameters: vec![], of_persons: None };
    match list {
        ListQuery::People { members } => {
            conditions.add_found("id", reach);
            conditions.comparisons.push(dialect.is_present());
            conditions.add_members(members);
        }
        ListQuery::Pages { persons, since, page_type, only_alone } => {
            // The person in the path is within reach, unless code above is wrong.
            conditions.add_persons("book", persons);
            if *only_alone {
                conditions.add_alone();
            }
            conditions.add_reach("book", reach);
            let first_day = since.as_ref().map(ChangedSince::first_day);
            conditions.add_some(&format!("{} >=", dialect.day_of_page()), first_day.as_deref());
            conditions.add_some(&format!("{} =", dialect.comparable("page_type")), page_type.as_deref());
        }
        ListQuery::Units(_) => {}
        ListQuery::Documents { persons, page, form: _ } => {
            conditions.add_persons("fedacct", persons);
            conditions.add_reach("fedacct", reach);
            conditions.add_some("pol =", page.as_deref());
        }
    }
    conditions.add_window(window);
    let SqlConditions { comparisons, parameters, of_persons, .. } = conditions;
    let condition = match comparisons.as_slice() {
        [] => "true".to_owned(),
        some => some.join(" AND "),
    };
    let (table, order) = (list.table(), window.order());
    let ends = |place: String| format!("ORDER BY {place} LIMIT CAST(${} AS bigint)", parameters.len() + 1);
    let rows = match of_persons {
        None => dialect.few(table, &condition, order),
        Some((column, persons)) => {
            let rest = format!("{condition} {}", ends(dialect.order(order)));
            dialect.of_each_person(table.name(), column, persons, &rest, order)
        }
    };
    let sql = format!("FROM {rows} {}", ends(dialect.order_of_columns(order)));
    SqlQuery { sql, parameters, limit: i64::try_from(limit.min(MOST_ROWS)).unwrap_or(i64::MAX), most: None }
}

/// Conditions and their parameters, numbered in order.
struct SqlConditions {
    dialect: SqlDialect,
    comparisons: Vec<String>,
    parameters: Vec<String>,
    /// The column that names one of several persons, and the parameter with their ids.
    of_persons: Option<(&'static str, usize)>,
}

impl SqlConditions {
    fn add(&mut self, comparison: &str, value: &str) {
        // Values always travel as parameters. Only names of this crate become part of the text.
        self.parameters.push(value.to_owned());
        self.comparisons.push(format!("{comparison} ${}", self.parameters.len()));
    }

    /// Adds the conditions of a range.
    fn add_window(&mut self, window: &ListWindow) {
        let (after, upto) = (window.after.as_deref(), window.upto.as_deref());
        let Some(range) = window.changed else {
            self.add_some("id >", after);
            self.add_some("id <=", upto);
            return;
        };
        let changed = self.dialect.changed();
        for (sign, moment) in [(">=", range.from), ("<=", range.upto)] {
            let moment = self.moment(moment);
            self.comparisons.push(format!("{changed} {sign} {moment}"));
        }
        for (sign, place) in [(">", after), ("<=", upto)] {
            // INVARIANT: a place comes from a list, or was read as one before (`changes`). Any other finds nothing.
            match place.map(ChangePlace::parse) {
                Some(Some(ChangePlace { at, id })) => {
                    let moment = self.moment(at);
                    self.add_id(&format!("({changed}, id) {sign} ({moment},"), id);
                }
                Some(None) => self.comparisons.push("false".to_owned()),
                None => {}
            }
        }
    }

    /// A moment as a parameter.
    fn moment(&mut self, at: i64) -> String {
        self.parameters.push(at.to_string());
        self.dialect.moment(&format!("${}", self.parameters.len()))
    }

    /// Adds the end of a comparison of rows.
    fn add_id(&mut self, comparison: &str, id: &str) {
        self.add(comparison, id);
        if let Some(comparison) = self.comparisons.last_mut() {
            comparison.push(')');
        }
    }

    /// Adds the conditions that members of a person have these values.
    fn add_members(&mut self, members: &[(&'static str, String)]) {
        let finding = members::finding(members.iter().map(|(member, _)| *member));
        for (member, value) in members {
            self.parameters.push(value.clone());
            let parameter = format!("${}", self.parameters.len());
            self.comparisons.push(self.dialect.member_equals(member, &parameter, finding));
        }
    }

    /// Adds the condition that a column names this person.
    fn add_person(&mut self, column: &str, person: &str) {
        self.parameters.push(person.to_owned());
        self.comparisons.push(self.dialect.names(column, &format!("${}", self.parameters.len())));
    }

    /// Adds the condition that no merge concerns the person who was added last.
    fn add_alone(&mut self) {
        let person = self.parameters.len();
        self.comparisons
            .push(format!("NOT EXISTS (SELECT 1 FROM fedgate_same_persons AS same WHERE same.id = ${person})"));
    }

    /// Adds the condition that a column, by which the rows are found, names a person within reach.
    fn add_found(&mut self, column: &str, reach: &RecordReach) {
        self.add_within(column, reach, SqlDialect::names_within);
    }

    /// Adds the condition that a column names a person within reach.
    fn add_reach(&mut self, column: &str, reach: &RecordReach) {
        self.add_within(column, reach, SqlDialect::within);
    }

    fn add_within(&mut self, column: &str, reach: &RecordReach, of_list: impl Fn(SqlDialect, &str, &str) -> String) {
        match (reach.ids(), reach.listed()) {
            // The usual case finds its row as any other key does.
            (Some([person]), _) => self.add_person(column, person),
            (_, Some(list)) => {
                self.parameters.push(list.to_owned());
                self.comparisons.push(of_list(self.dialect, column, &format!("${}", self.parameters.len())));
            }
            (_, None) => {}
        }
    }

    /// Adds the condition that a column names one of these ids of a person.
    fn add_persons(&mut self, column: &'static str, persons: &[String]) {
        match persons {
            [] => self.comparisons.push("false".to_owned()),
            [person] => self.add_person(column, person),
            several => {
                // One parameter, whatever their number, so that the text of the statement stays the same.
                self.parameters.push(serde_json::Value::from(several).to_string());
                self.of_persons = Some((column, self.parameters.len()));
            }
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
    use super::super::super::ChangeRange;
    use super::*;

    #[test]
    fn what_a_client_asks_for_is_no_part_of_a_statement() {
        let list = |text: &str, since| ListQuery::Pages {
            persons: vec![text.to_owned()],
            since: ChangedSince::parse(since),
            page_type: Some(text.to_owned()),
            only_alone: true,
        };
        let window = |text: &str, changed| ListWindow {
            after: Some(format!("7.{text}")),
            upto: Some(format!("8.{text}")),
            changed,
        };
        let changes = [None, Some(9)].map(|from| from.map(|from| ChangeRange { from, upto: 99 }));
        for (dialect, changed) in [SqlDialect::Postgres, SqlDialect::Sqlite]
            .into_iter()
            .flat_map(|dialect| changes.map(|changed| (dialect, changed)))
        {
            let make = |text: &str, since, limit| {
                let changed = changed.map(|range| ChangeRange { from: limit as i64, ..range });
                let (list, window, reach) = (list(text, since), window(text, changed), RecordReach::only(text));
                let rows = select_list(dialect, &list, &window, limit, 9, &reach);
                let ids = select_ids(dialect, &list, &window, limit, &reach);
                assert_eq!((rows.limit, ids.limit), (limit as i64, limit as i64));
                (rows.sql, ids.sql)
            };
            assert_eq!(make("a", "2024-05-01", 1), make("'b", "1985-10-06T11:30:00+02:00", 1000));
        }
    }
}
