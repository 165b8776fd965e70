//! The tasks of an operator or a helpdesk: adding and changing accounts, listing, unlocking and deleting them.
//!
//! The one rule: each task is one transaction, so it is applied completely or not at all, and the triggers of the account
//! epoch see it like any other change. A command may do no more than the HIS does for its callers: a person who is
//! active, has pages or documents, or has other ids by merges, is not deleted.

use serde_json::{Value, json};

/// A new person with an account.
#[derive(Debug)]
pub struct NewAccount {
    /// The id as it will be stored.
    pub id: String,
    /// The roles.
    pub roles: Vec<String>,
    /// The password hash.
    pub password_hash: String,
    /// The given name, where known.
    pub name: Option<String>,
    /// The family name, where known.
    pub lastname: Option<String>,
}

impl NewAccount {
    /// The person's document.
    pub(super) fn document(&self) -> String {
        let mut data = json!({ "id": self.id, "roles": self.roles, "password": self.password_hash, "active": true });
        for (member, value) in [("name", &self.name), ("lastname", &self.lastname)] {
            if let (Some(value), Some(data)) = (value, data.as_object_mut()) {
                data.insert(member.to_owned(), value.clone().into());
            }
        }
        data.to_string()
    }
}

/// One change of an existing account.
#[derive(Debug)]
pub enum AccountChange {
    /// Replaces the roles.
    Roles(Vec<String>),
    /// Activates or deactivates the account.
    Active(bool),
    /// Replaces the password hash.
    PasswordHash(String),
}

impl AccountChange {
    /// The member of the person's document that changes.
    pub(super) fn member(&self) -> &'static str {
        match self {
            Self::Roles(_) => "roles",
            Self::Active(_) => "active",
            Self::PasswordHash(_) => "password",
        }
    }

    pub(super) fn value(&self) -> Value {
        match self {
            Self::Roles(roles) => roles.clone().into(),
            Self::Active(active) => (*active).into(),
            Self::PasswordHash(hash) => hash.clone().into(),
        }
    }
}

/// The result of a deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountDeletion {
    /// The person was deleted.
    Done,
    /// There is no such person.
    Missing,
    /// The account is active.
    Active,
    /// The person has other ids, by merges, which the deletion would end.
    Merged(Vec<String>),
    /// The person has this many pages and documents.
    InUse {
        /// Pages of the book of life.
        pages: u64,
        /// Personal documents.
        documents: u64,
    },
}
