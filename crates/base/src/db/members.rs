//! Members of persons by which lists find them: how they are compared, and the indexes for that.
//!
//! The one rule: a statement and an index use one expression, or the index helps nobody. So both are made here. An index
//! has the beginning of a member, because a whole member may be too long for one. Ids follow it, so that a list in the
//! order of ids is read from the index as it is.
//!
//! The schema makes the indexes, and the statements of lists use them.

/// The members, each with the index by which it finds persons. They are in the order of how few persons
/// one value has.
pub const MEMBERS: [(&str, &str); 4] = [
    ("dob", "fedgate_people_dob"),
    ("lastname", "fedgate_people_lastname"),
    ("name", "fedgate_people_name"),
    ("gender", "fedgate_people_gender"),
];
/// How many characters of a member are in the index. An index entry of PostgreSQL has at most 2,704 bytes.
const BEGINNING: usize = 48;

/// A member of a document to compare, on PostgreSQL: a string, or a number or truth value as it is written; otherwise null.
pub fn postgres_comparable(member: &str) -> String {
    format!(
        "CASE WHEN jsonb_typeof(data -> '{member}') IN ('string', 'number', 'boolean') THEN data ->> '{member}' END"
    )
}

/// The same on SQLite. A row that is no JSON has no members.
pub fn sqlite_comparable(member: &str) -> String {
    // `->>` would return numbers and truth values as SQL numbers, which equal no text.
    format!(
        "CASE WHEN json_valid(data) THEN CASE json_type(data -> '{member}') WHEN 'text' THEN data ->> '{member}' \
         WHEN 'object' THEN NULL WHEN 'array' THEN NULL WHEN 'null' THEN NULL ELSE data -> '{member}' END END"
    )
}

fn postgres_beginning(member: &str) -> String {
    format!("left({}, {BEGINNING}) COLLATE \"C\"", postgres_comparable(member))
}

fn sqlite_beginning(member: &str) -> String {
    format!("substr({}, 1, {BEGINNING})", sqlite_comparable(member))
}

/// A condition that a member equals a parameter, for PostgreSQL and its view of people, which has the members. A short value
/// equals the beginning only if it equals the whole member.
pub fn postgres_view_equals(member: &str, parameter: &str) -> String {
    let found = format!("found_{member}");
    format!(
        "left({found}, {BEGINNING}) COLLATE \"C\" = left({parameter}, {BEGINNING}) \
         AND (length({parameter}) < {BEGINNING} OR {found} = {parameter})"
    )
}

/// The same for SQLite.
pub fn sqlite_equals(member: &str, parameter: &str) -> String {
    format!("{} = {parameter}", sqlite_comparable(member))
}

/// The same for SQLite, with the index of the member. `substr` ends at a NUL, so the whole member decides.
pub fn sqlite_finds(member: &str, parameter: &str) -> String {
    let beginning = sqlite_beginning(member);
    format!("{beginning} = substr({parameter}, 1, {BEGINNING}) AND {}", sqlite_equals(member, parameter))
}

/// The member of these that finds the rows on SQLite, which has no statistics, and would take any index.
pub fn finding<'a>(mut members: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    MEMBERS.iter().find_map(|(member, _)| members.clone().find(|name| name == member)).or_else(|| members.next())
}

/// The columns of a member's index on PostgreSQL. A list by several members is filtered within the index, so that the rows
/// of other persons are not read.
pub(super) fn postgres_columns(member: &str) -> String {
    let others = MEMBERS.iter().filter(|(other, _)| *other != member && member != "gender");
    let others: String = others.map(|(other, _)| format!(", ({})", postgres_beginning(other))).collect();
    format!("({}), id{others}", postgres_beginning(member))
}

/// The statements that make the indexes on SQLite.
pub(super) fn sqlite_indexes() -> String {
    let one = |(member, name): &(&str, &str)| {
        format!("CREATE INDEX IF NOT EXISTS {name} ON people ({}, id);", sqlite_beginning(member))
    };
    MEMBERS.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_view_of_people_has_each_member_as_its_index_has_it() {
        let view = include_str!("schema/postgres_people.sql");
        for (member, _) in MEMBERS {
            let column = format!("    {} AS found_{member}", postgres_comparable(member));
            assert!(view.contains(&column), "{column}");
        }
    }
}
