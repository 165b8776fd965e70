//! Which messages a reader sees.
//!
//! The one rule: a message about a record is seen by callers who reach the record. A node's own message is seen by its
//! sender and by the nodes that it is addressed to, and by nobody else, whatever the scope. A role counts while the gateway
//! asserts it and the store has it: one that was taken away ends the sight of its messages, also in a stream that runs.
//! A RESET is for all readers, and no filter hides it. An account that has the id of a former one sees nothing by that id
//! which is older than itself.

use super::sql::SqlDialect;
use super::{MessageFilter, RecordReach};
use fedgate_core::json::{JsonValue, write_string};

/// Whom a node's own message is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageAddressee {
    /// One account.
    Node(String),
    /// All accounts that have this role.
    Role(String),
    /// Every account that may read messages.
    All,
}

impl MessageAddressee {
    /// The form in which the store keeps it.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Node(account) => format!("node {account}"),
            Self::Role(role) => format!("role {role}"),
            Self::All => MESSAGE_TO_ALL.to_owned(),
        }
    }

    /// Appends the JSON of a stored key.
    pub(super) fn write(key: &str, text: &mut String) {
        match key.split_once(' ') {
            Some((kind, name)) => {
                text.push('{');
                write_string(kind, text);
                text.push(':');
                write_string(name, text);
                text.push('}');
            }
            None => write_string(key, text),
        }
    }
}

/// What a message concerns: `person` and an id, or `sender`, `node` or `role` and a name, or all readers.
pub type MessageConcern = String;
/// The concern of a message to all readers.
pub const MESSAGE_TO_ALL: &str = "all";

/// The messages that a reader sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageReach {
    records: RecordReach,
    account: String,
    roles: Vec<String>,
}

impl MessageReach {
    /// The messages about records within reach, and those of nodes that the account sent or that are for it: for
    /// itself, for one of these roles, or for all.
    pub fn new(records: RecordReach, account: &str, roles: &[String]) -> Self {
        Self { records, account: account.to_owned(), roles: roles.to_vec() }
    }

    /// What a message concerns that this reader sees through a filter; `None` if messages about every person are among
    /// them. A message to all readers concerns every one.
    pub fn concerns(&self, filter: &MessageFilter) -> Option<Vec<MessageConcern>> {
        let persons = match &filter.person {
            Some(person) => std::slice::from_ref(person),
            None => self.records.ids()?,
        };
        let roles = self.roles.iter().map(|role| MessageAddressee::Role(role.clone()).key());
        let of_nodes = [format!("sender {}", self.account), MessageAddressee::Node(self.account.clone()).key()];
        let of_persons = persons.iter().map(|person| format!("person {person}"));
        Some(of_persons.chain(of_nodes).chain(roles).collect())
    }

    /// Whether only messages about the records of certain persons are seen.
    pub(super) fn is_limited(&self) -> bool {
        self.records.listed().is_some()
    }
}

/// The conditions of a reach, over parameters of a statement.
pub(super) struct ReachSql {
    dialect: SqlDialect,
    /// The condition of a message about a record.
    records: String,
    account: usize,
    node: usize,
    roles: usize,
}

impl ReachSql {
    /// The condition of a message about a record; its parameters are appended, and `before` others come before them.
    /// PostgreSQL takes no parameter that a statement does not use, so each part appends its own.
    pub(super) fn of_records(
        dialect: SqlDialect,
        reach: &MessageReach,
        parameters: &mut Vec<String>,
        before: usize,
    ) -> RecordsSql {
        let mut add = |text: &str| {
            parameters.push(text.to_owned());
            parameters.len() + before
        };
        let of = match (reach.records.ids(), reach.records.listed()) {
            // No message is about the empty id.
            (Some([]), _) => RecordsOf::One(add("")),
            (Some([person]), _) => RecordsOf::One(add(person)),
            (_, Some(list)) => RecordsOf::Some(add(list)),
            (_, None) => RecordsOf::All,
        };
        RecordsSql { dialect, of }
    }

    /// The conditions of messages of nodes beside that of records, with their parameters.
    pub(super) fn add(
        records: String,
        dialect: SqlDialect,
        reach: &MessageReach,
        parameters: &mut Vec<String>,
        before: usize,
    ) -> Self {
        let mut add = |text: String| {
            parameters.push(text);
            parameters.len() + before
        };
        let account = add(reach.account.clone());
        let node = add(MessageAddressee::Node(reach.account.clone()).key());
        let roles = JsonValue::Array(reach.roles.iter().cloned().map(JsonValue::String).collect());
        Self { dialect, records, account, node, roles: add(roles.to_text()) }
    }

    /// The condition of a message that the reader sees.
    pub(super) fn of_all(&self) -> String {
        let [_, sender, addressee] = columns(self.dialect);
        let (records, roles, account) = (&self.records, self.role_keys(), self.account);
        format!(
            "(({records}) OR ({addressee} IS NOT NULL AND ((({sender} = ${account} OR {addressee} = ${}) AND {}) \
             OR (({addressee} = 'all' OR {addressee} IN ({roles})) AND {sender} IS DISTINCT FROM ${account}))))",
            self.node,
            is_since(self.dialect, &format!("${account}"))
        )
    }

    /// The conditions of messages of nodes, each with an index; no message meets two of them.
    pub(super) fn of_nodes(&self) -> [String; 3] {
        let [_, sender, addressee] = columns(self.dialect);
        let (account, node) = (self.account, self.node);
        let is_since = is_since(self.dialect, &format!("${account}"));
        [
            format!("{addressee} IS NOT NULL AND {sender} = ${account} AND {is_since}"),
            format!("{addressee} = ${node} AND {sender} <> ${account} AND {is_since}"),
            // A RESET has no sender.
            format!("{addressee} = 'all' AND {sender} IS DISTINCT FROM ${account}"),
        ]
    }

    /// The messages for the reader's roles, as a select of positions: `of_key` selects those of the condition that it is
    /// given, in order and bounded.
    pub(super) fn of_roles(&self, of_key: impl FnOnce(&str) -> String) -> String {
        let [_, sender, addressee] = columns(self.dialect);
        let (account, roles) = (self.account, self.role_keys());
        match self.dialect {
            SqlDialect::Postgres => {
                let found = of_key(&format!("{addressee} = audience.key AND {sender} <> ${account}"));
                format!("SELECT found.position FROM ({roles}) AS audience CROSS JOIN LATERAL ({found}) AS found")
            }
            SqlDialect::Sqlite => of_key(&format!("{addressee} IN ({roles}) AND {sender} <> ${account}")),
        }
    }

    /// The keys of the roles that the reader claims and the store has. The account is read as a login reads it.
    fn role_keys(&self) -> String {
        let (account, roles) = (self.account, self.roles);
        match self.dialect {
            SqlDialect::Postgres => format!(
                "SELECT 'role ' || claimed.role AS key FROM jsonb_array_elements_text(CAST(${roles} AS text)::jsonb) AS claimed (role) \
                 WHERE (SELECT CASE jsonb_typeof(held.roles) WHEN 'array' THEN held.roles END \
                 FROM (SELECT CAST(rights.roles AS jsonb) AS roles \
                 FROM fedgate_account_rights(CAST(${account} AS text)) AS rights) AS held) ? claimed.role"
            ),
            SqlDialect::Sqlite => format!(
                "SELECT 'role ' || claimed.value FROM json_each(${roles}) AS claimed WHERE claimed.value IN ( \
                 SELECT held.value FROM fedgate_logins AS login, json_each(CASE WHEN json_valid(login.roles) THEN \
                 CASE json_type(login.roles) WHEN 'array' THEN login.roles ELSE '[]' END ELSE '[]' END) AS held \
                 WHERE login.id = ${account})"
            ),
        }
    }
}

/// The condition of a message about a record within reach.
pub(super) struct RecordsSql {
    dialect: SqlDialect,
    of: RecordsOf,
}

/// The persons that such messages are about, with the number of the parameter.
enum RecordsOf {
    One(usize),
    /// Those of a JSON list.
    Some(usize),
    All,
}

impl RecordsSql {
    /// For a message that another condition finds.
    pub(super) fn condition(&self) -> String {
        let [person, _, addressee] = columns(self.dialect);
        match self.of {
            RecordsOf::One(own) => format!("{person} = ${own} AND {}", is_since(self.dialect, &format!("${own}"))),
            RecordsOf::Some(list) => {
                format!("{} AND {}", self.dialect.within(person, &format!("${list}")), is_since(self.dialect, person))
            }
            RecordsOf::All => format!("{addressee} IS NULL"),
        }
    }

    /// For messages that are found by the index of their persons: a select of positions. `of_key` is as in
    /// [`ReachSql::of_roles`].
    pub(super) fn each(&self, of_key: impl FnOnce(&str) -> String) -> String {
        let [person, ..] = columns(self.dialect);
        let since = || is_since(self.dialect, person);
        match (&self.of, self.dialect) {
            (RecordsOf::Some(list), SqlDialect::Postgres) => {
                let found = of_key(&format!("{person} = own.person AND {}", since()));
                format!(
                    "SELECT found.position FROM (SELECT json_array_elements_text(CAST(CAST(${list} AS text) AS json)) AS person) AS own \
                     CROSS JOIN LATERAL ({found}) AS found"
                )
            }
            (RecordsOf::Some(list), SqlDialect::Sqlite) => {
                of_key(&format!("{person} IN (SELECT value FROM json_each(${list})) AND {}", since()))
            }
            (RecordsOf::One(_) | RecordsOf::All, _) => of_key(&self.condition()),
        }
    }
}

/// Whether a message is younger than the account, if another one had its id before. In PostgreSQL an empty id ends all
/// accounts: the rows of a table that is emptied tell nothing.
fn is_since(dialect: SqlDialect, account: &str) -> String {
    match dialect {
        SqlDialect::Postgres => format!(
            "place.entry > coalesce((SELECT max(entry) FROM fedgate_former_accounts WHERE account IN ('', {account})), 0)"
        ),
        SqlDialect::Sqlite => format!(
            "message.position > coalesce((SELECT position FROM fedgate_former_accounts WHERE account = {account}), 0)"
        ),
    }
}

/// The columns of a row: person, sender, addressee.
fn columns(dialect: SqlDialect) -> [&'static str; 3] {
    match dialect {
        SqlDialect::Postgres => ["place.person", "place.sender", "place.addressee"],
        SqlDialect::Sqlite => ["message.person", "message.node", "message.addressee"],
    }
}
