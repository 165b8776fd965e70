//! The statement that finds the positions of the messages that a reader asks for and sees.
//!
//! The one rule: the statement also returns the bounds of what exists, read at the same moment, so that an empty answer
//! says up to where there is nothing.

use std::fmt::Write;

use super::message_reach::{MessageReach, ReachSql, RecordsSql};
use super::sql::SqlDialect;
use super::{MessageFilter, MessagePlaces};

/// How many positions one question examines. Filters other than the person have no index, so a question that finds
/// nothing ends after so many.
const EXAMINED: u64 = 10_000;

/// The end of the positions that one question examines.
pub(super) fn examined_upto(after: u64, filter: &MessageFilter, reach: &MessageReach) -> u64 {
    // There is an index for the messages of certain persons, and for those of nodes.
    match filter.person.is_some() || reach.is_limited() || filter.is_of_nodes() {
        true => i64::MAX.unsigned_abs(),
        false => after.saturating_add(EXAMINED),
    }
}

/// Positions after `$1` and up to `$2`, at most `$3`, with the first and the last position that exist and the history;
/// at least one row. Further parameters are texts.
pub(super) fn select_positions(
    dialect: SqlDialect,
    filter: &MessageFilter,
    reach: &MessageReach,
) -> (String, Vec<String>) {
    let mut select = PositionSelect::new(dialect, filter, reach);
    let seen = select.seen();
    let found = select.with_resets(seen);
    let (bounds, end) = match dialect {
        SqlDialect::Postgres => ("SELECT first, position AS last, history FROM fedgate_relay", "LEFT JOIN LATERAL"),
        SqlDialect::Sqlite => (
            "SELECT coalesce((SELECT min(position) FROM fedgate_messages), seq + 1) AS first, seq AS last, \
             (SELECT history FROM fedgate_relay) AS history FROM (SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'fedgate_messages'), 0) AS seq)",
            "LEFT JOIN",
        ),
    };
    let sql = format!(
        "SELECT bounds.first, bounds.last, bounds.history, found.position FROM ({bounds}) AS bounds \
         {end} ({found}) AS found ON true ORDER BY found.position"
    );
    (dialect.placeholders(&sql), select.parameters)
}

/// The parts of [`select_positions`], with the texts that are its parameters from `$4` on.
struct PositionSelect<'a> {
    dialect: SqlDialect,
    filter: &'a MessageFilter,
    reach: &'a MessageReach,
    /// The conditions of the filter, each after `AND`.
    filters: String,
    parameters: Vec<String>,
}

/// The parameters before the texts.
const BEFORE: usize = 3;

impl<'a> PositionSelect<'a> {
    fn new(dialect: SqlDialect, filter: &'a MessageFilter, reach: &'a MessageReach) -> Self {
        let (mut filters, mut parameters) = (String::new(), vec![]);
        let mut add = |column: &str, value: Option<&str>| {
            if let Some(value) = value {
                parameters.push(value.to_owned());
                let _ = write!(filters, " AND {column} = ${}", parameters.len() + BEFORE);
            }
        };
        add(&format!("{}.person", dialect.place()), filter.person.as_deref());
        add("message.resource", filter.resource.as_deref());
        add("message.node", filter.node.as_deref());
        add("message.method", filter.method.as_deref());
        add("coalesce(message.kind, message.resource || '.' || lower(message.method))", filter.kind.as_deref());
        Self { dialect, filter, reach, filters, parameters }
    }

    /// The messages that the filter admits and the reader sees.
    fn seen(&mut self) -> String {
        let records = (!self.filter.is_of_nodes())
            .then(|| ReachSql::of_records(self.dialect, self.reach, &mut self.parameters, BEFORE));
        match (records, &self.filter.person, self.reach.is_limited()) {
            // The person asked for and the persons within reach: both hold. A node's own message has no person.
            (Some(records), Some(_), _) => self.admitted(&records.condition()),
            (Some(records), None, false) => {
                let sees = self.with_nodes(records.condition());
                self.admitted(&sees.of_all())
            }
            (records, _, _) => self.by_index(records),
        }
    }

    /// The same as the union of parts. Each has an index, and the first of all are among the first of each.
    fn by_index(&mut self, records: Option<RecordsSql>) -> String {
        let sees = self.with_nodes(String::new());
        let records = records.map(|records| records.each(|condition| self.admitted(condition)));
        let nodes = sees.of_nodes().map(|condition| self.admitted(&condition));
        let roles = sees.of_roles(|condition| self.admitted(condition));
        let parts: Vec<String> = records.into_iter().chain(nodes).chain([roles]).collect();
        let each = parts.iter().enumerate().map(|(n, part)| format!("SELECT position FROM ({part}) AS part_{n}"));
        let all = each.collect::<Vec<_>>().join(" UNION ALL ");
        format!("SELECT position FROM ({all}) AS parts ORDER BY position LIMIT CAST($3 AS bigint)")
    }

    /// Adds each RESET, which no filter hides, unless it concerns another resource.
    fn with_resets(&mut self, found: String) -> String {
        if self.filters.is_empty() {
            return found;
        }
        let is_concerned = self.filter.resource.as_ref().map_or(String::new(), |resource| {
            self.parameters.push(resource.clone());
            format!(" AND message.resource IN ('all', ${})", self.parameters.len() + BEFORE)
        });
        let place = self.dialect.place();
        let is_reset = format!("{place}.addressee = 'all' AND message.method = 'RESET'{is_concerned}");
        let resets = select_within(self.dialect, true, &is_reset);
        format!(
            "SELECT position FROM (SELECT position FROM ({found}) AS matching \
             UNION SELECT position FROM ({resets}) AS resets) AS parts ORDER BY position LIMIT CAST($3 AS bigint)"
        )
    }

    fn with_nodes(&mut self, records: String) -> ReachSql {
        ReachSql::add(records, self.dialect, self.reach, &mut self.parameters, BEFORE)
    }

    /// The positions that meet a condition and the filter.
    fn admitted(&self, condition: &str) -> String {
        let MessageFilter { person: _, resource, node, method, kind } = self.filter;
        let needs_content = [resource, node, method, kind].into_iter().any(Option::is_some);
        select_within(self.dialect, needs_content, &format!("{condition}{}", self.filters))
    }
}

/// The positions that meet a condition, within the bounds of [`select_positions`].
fn select_within(dialect: SqlDialect, needs_content: bool, condition: &str) -> String {
    let place = dialect.place();
    let source = match (dialect, needs_content) {
        (SqlDialect::Postgres, false) => "fedgate_positions AS place",
        (SqlDialect::Postgres, true) => "fedgate_positions AS place JOIN fedgate_messages AS message USING (entry)",
        (SqlDialect::Sqlite, _) => "fedgate_messages AS message",
    };
    format!(
        "SELECT {place}.position FROM {source} WHERE {place}.position > CAST($1 AS bigint) \
         AND {place}.position <= CAST($2 AS bigint) AND {condition} ORDER BY {place}.position LIMIT CAST($3 AS bigint)"
    )
}

/// A row of [`select_positions`]: first, last, history, and one position.
pub(super) type PlaceRow = (i64, i64, i64, Option<i64>);

/// Adds up the rows of [`select_positions`].
pub(super) fn places(rows: &[PlaceRow], limit: usize, upto: u64) -> MessagePlaces {
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    let (first, last, history) = rows.first().map_or((1, 0, 1), |row| (number(row.0), number(row.1), number(row.2)));
    let found: Vec<u64> = rows.iter().filter_map(|row| row.3.map(number)).collect();
    let upto = match found.last() {
        Some(position) if found.len() >= limit => *position,
        // INVARIANT: the statement saw every message up to `last`, because positions are given and become visible in
        // order.
        Some(_) | None => upto.min(last),
    };
    MessagePlaces { first, last, upto, found, history }
}

impl SqlDialect {
    /// The row that has the position of a message, and the persons it is about and for.
    pub(super) fn place(self) -> &'static str {
        match self {
            Self::Postgres => "place",
            Self::Sqlite => "message",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{OwnPersons, RecordReach};

    #[test]
    fn values_of_a_filter_are_parameters_and_each_parameter_is_used() {
        let filters = |value: &'static str| {
            let set = move |bit: u32, bits: u32| (bits >> bit & 1 == 1).then(|| value.to_owned());
            (0..32).map(move |bits| MessageFilter {
                person: set(0, bits),
                resource: set(1, bits),
                node: set(2, bits),
                method: set(3, bits),
                kind: set(4, bits),
            })
        };
        let of_nodes = MessageFilter { resource: Some("message".to_owned()), ..MessageFilter::default() };
        let select = |dialect, filter: &MessageFilter, value: &str| {
            let many = RecordReach::Own(OwnPersons::new(value, [value.to_owned()]));
            [RecordReach::Global, RecordReach::only(value), many, RecordReach::Nobody]
                .map(|reach| select_positions(dialect, filter, &MessageReach::new(reach, value, &[value.to_owned()])))
        };
        for dialect in [SqlDialect::Postgres, SqlDialect::Sqlite] {
            let pairs = filters("a").zip(filters("'b")).chain([(of_nodes.clone(), of_nodes.clone())]);
            for (plain, odd) in pairs {
                for ((sql, parameters), (same, _)) in
                    select(dialect, &plain, "a").into_iter().zip(select(dialect, &odd, "'b"))
                {
                    assert_eq!(sql, same, "{plain:?}");
                    let sign = if dialect == SqlDialect::Sqlite { '?' } else { '$' };
                    let is_used = |number: usize| {
                        let name = format!("{sign}{number}");
                        sql.match_indices(&name)
                            .any(|(at, _)| !sql[at + name.len()..].starts_with(|c: char| c.is_ascii_digit()))
                    };
                    // PostgreSQL cannot know the type of a parameter that a statement does not use.
                    let unused: Vec<_> = (1..=parameters.len() + BEFORE).filter(|number| !is_used(*number)).collect();
                    assert!(unused.is_empty() && !is_used(parameters.len() + BEFORE + 1), "{plain:?}: {unused:?}");
                }
            }
        }
    }
}
