//! An operator's changes of accounts, on either store.
//!
//! The one rule: each change is one statement. So it is applied completely or not at all, and the trigger that raises
//! the account epoch sees it like any other change.

use rusqlite::Transaction;

use super::{AccountStore, AccountsError, WRITE_TIMEOUT, within};
use fedgate_base::db::{Database, spelling};

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

impl AccountStore {
    /// Adds a person with an account. False if the id is taken, also if a known id differs only by case.
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
        within(WRITE_TIMEOUT, self.insert(&account.id, data.to_string())).await
    }

    async fn insert(&self, id: &str, data: String) -> Result<bool, AccountsError> {
        let written = match &self.database {
            Database::Postgres(pool) => {
                // The look for a twin is part of the statement: two commands at once must not add two spellings of one
                // id.
                let (sql, lower_case) = (postgres_add(), spelling::lower_case(id));
                self.run_named(pool, &sql, &[&id, &data, &lower_case]).await?
            }
            Database::Sqlite(database) => {
                let id = id.to_owned();
                let add = move |transaction: &Transaction<'_>| match spelling::has_twin(transaction, &id)? {
                    true => Ok(0),
                    false => transaction.execute(SQLITE_ADD, [id, data]),
                };
                self.run_named_embedded(database, add).await? as u64
            }
        };
        Ok(written == 1)
    }

    /// Changes one account. False if there is no such person, or the person's document is a list or a scalar.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn change(&self, id: &str, change: &AccountChange) -> Result<bool, AccountsError> {
        within(WRITE_TIMEOUT, self.set(id, change.member(), change.value().to_string())).await
    }

    async fn set(&self, id: &str, member: &'static str, value: String) -> Result<bool, AccountsError> {
        let written = match &self.database {
            Database::Postgres(pool) => self.run_named(pool, POSTGRES_CHANGE, &[&id, &value, &member, &id]).await?,
            Database::Sqlite(database) => {
                let parameters = [id.to_owned(), value, format!("$.{member}")];
                let change = move |transaction: &Transaction<'_>| transaction.execute(SQLITE_CHANGE, parameters);
                self.run_named_embedded(database, change).await? as u64
            }
        };
        Ok(written == 1)
    }
}

fn postgres_add() -> String {
    format!(
        "INSERT INTO people (id, data) SELECT $1::varchar, $2::text::jsonb \
         WHERE NOT EXISTS (SELECT 1 FROM people WHERE {}) ON CONFLICT (id) DO NOTHING",
        spelling::POSTGRES_IS_TWIN.replace("$5", "$3")
    )
}

const SQLITE_ADD: &str = "INSERT INTO people (id, data) VALUES (?1, json(?2)) ON CONFLICT (id) DO NOTHING";
// Compared by bytes, whatever the column's collation equates: no command may change an account other than the one it
// names. A document that is null is replaced by an object, as PATCH does; a list or a scalar has no members to set.
const POSTGRES_CHANGE: &str = "
    UPDATE people SET data = jsonb_set(coalesce(nullif(data, 'null'), '{}'), ARRAY[$3::text], $2::text::jsonb)
    WHERE id = $1 AND id::varchar COLLATE \"C\" = $4::text
        AND coalesce(jsonb_typeof(data), 'null') IN ('object', 'null')";
const SQLITE_CHANGE: &str = "
    UPDATE people SET data =
        json_set(CASE coalesce(json_type(data), 'null') WHEN 'null' THEN '{}' ELSE data END, ?3, json(?2))
    WHERE id = ?1 AND CAST(id AS TEXT) = ?1 COLLATE BINARY
        AND coalesce(json_type(data), 'null') IN ('object', 'null')";
