//! What an operator changes of accounts, against either store.
//!
//! The one rule: each change is one statement, so that it is there whole or not at all, and the trigger that raises the
//! account epoch sees it as any other.

use super::{Accounts, AccountsError, WRITE_TIMEOUT, within};
use crate::db::Database;

/// A person to be added with an account.
#[derive(Debug)]
pub struct NewAccount {
    /// The id, as it will be stored.
    pub id: String,
    /// The roles.
    pub roles: Vec<String>,
    /// The password hash.
    pub password_hash: String,
    /// Given name and family name, where known.
    pub name: Option<String>,
    /// Family name.
    pub lastname: Option<String>,
}

/// One change of an existing account.
#[derive(Debug)]
pub enum AccountChange {
    /// Replaces the roles.
    Roles(Vec<String>),
    /// Switches the account on or off.
    Active(bool),
    /// Replaces the password hash.
    PasswordHash(String),
}

impl AccountChange {
    fn member(&self) -> &'static str {
        match self {
            Self::Roles(_) => "roles",
            Self::Active(_) => "active",
            Self::PasswordHash(_) => "password",
        }
    }

    fn value(&self) -> serde_json::Value {
        match self {
            Self::Roles(roles) => roles.clone().into(),
            Self::Active(active) => (*active).into(),
            Self::PasswordHash(hash) => hash.clone().into(),
        }
    }
}

impl Accounts {
    /// Adds a person with an account; false when the id is taken.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn add(&self, account: &NewAccount) -> Result<bool, AccountsError> {
        let mut data = serde_json::json!({
            "id": account.id, "roles": account.roles, "password": account.password_hash, "active": true,
        });
        for (member, value) in [("name", &account.name), ("lastname", &account.lastname)] {
            if let (Some(value), Some(data)) = (value, data.as_object_mut()) {
                data.insert(member.to_owned(), value.clone().into());
            }
        }
        within(WRITE_TIMEOUT, self.write(POSTGRES_ADD, SQLITE_ADD, &account.id, None, data)).await
    }

    /// Changes one account; false when there is no such person.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn change(&self, id: &str, change: &AccountChange) -> Result<bool, AccountsError> {
        within(WRITE_TIMEOUT, self.write(POSTGRES_CHANGE, SQLITE_CHANGE, id, Some(change.member()), change.value()))
            .await
    }

    async fn write(
        &self,
        postgres: &str,
        sqlite: &'static str,
        id: &str,
        member: Option<&'static str>,
        value: serde_json::Value,
    ) -> Result<bool, AccountsError> {
        let value = value.to_string();
        let written = match &self.database {
            Database::Postgres(pool) => match member {
                Some(member) => self.run_named(pool, postgres, &[&id, &value, &member, &id]).await?,
                None => self.run_named(pool, postgres, &[&id, &value]).await?,
            },
            Database::Sqlite(database) => {
                let mut parameters = vec![id.to_owned(), value];
                parameters.extend(member.map(|member| format!("$.{member}")));
                let change = database.write(move |tx| tx.execute(sqlite, rusqlite::params_from_iter(parameters)));
                self.run_named_embedded(change).await? as u64
            }
        };
        Ok(written == 1)
    }
}

const POSTGRES_ADD: &str = "INSERT INTO people (id, data) VALUES ($1, $2::text::jsonb) ON CONFLICT (id) DO NOTHING";
const SQLITE_ADD: &str = "INSERT INTO people (id, data) VALUES (?1, json(?2)) ON CONFLICT (id) DO NOTHING";
// By bytes, whatever the column takes an id for: no command acts on another account than it names.
const POSTGRES_CHANGE: &str = "
    UPDATE people SET data = jsonb_set(coalesce(data, '{}'), ARRAY[$3::text], $2::text::jsonb)
    WHERE id = $1 AND id::varchar COLLATE \"C\" = $4::text";
const SQLITE_CHANGE: &str = "
    UPDATE people SET data = json_set(coalesce(data, '{}'), ?3, json(?2))
    WHERE id = ?1 AND CAST(id AS TEXT) = ?1 COLLATE BINARY";
