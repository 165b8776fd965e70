//! Links and relations of accounts: the tasks of an operator. A gateway reads them with the account (`linked.rs`).
//!
//! The one rule: as for other changes of accounts, each task is one transaction, the triggers of the account epoch see
//! it, and it leaves an event. An id of another system belongs to one account at most.

use super::AccountsError;
use super::limits::{READ_TIMEOUT, WRITE_TIMEOUT, within};
use super::store::{AccountDatabase, AccountStore, each};

/// An id of an account in another system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountLink {
    /// The name of the system.
    pub system: String,
    /// The id there.
    pub id: String,
    /// The account.
    pub account: String,
    /// Since when, in seconds since 1970.
    pub since: i64,
}

/// One relation of an account to a person whose records it reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRelation {
    /// The account that reaches the records.
    pub account: String,
    /// The person whose records they are.
    pub subject: String,
    /// Why, in a word.
    pub kind: String,
    /// The first second in which it holds, since 1970.
    pub from: i64,
    /// The first second in which it holds no longer; none if its end is open.
    pub until: Option<i64>,
}

/// What is linked with an account, in both directions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountLinks {
    /// Its ids in other systems.
    pub links: Vec<AccountLink>,
    /// Its relations, and those of others to it; also those that have not begun, or have run out.
    pub relations: Vec<AccountRelation>,
}

/// What came of linking an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkOutcome {
    /// It is linked.
    Done,
    /// It was before.
    Known,
    /// The id belongs to this account.
    Taken(String),
    /// There is no such person.
    Missing,
    /// The account has as many links as it may have.
    Full,
}

/// What came of relating an account to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelationOutcome {
    /// It is related.
    Done,
    /// There is no person with this id.
    Missing(String),
    /// The account has as many relations as it may have.
    Full,
}

impl AccountStore {
    /// Links an id of another system with an account.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn link(&self, account: &str, system: &str, id: &str) -> Result<LinkOutcome, AccountsError> {
        let linked = each!(self, accounts => accounts.link(account, system, id));
        if within(WRITE_TIMEOUT, linked).await? == 1 {
            return Ok(LinkOutcome::Done);
        }
        // The reason is read afterwards, and may have changed meanwhile: it informs the operator and decides nothing.
        let holder = within(READ_TIMEOUT, each!(self, accounts => accounts.linked_with(system, id))).await?;
        match holder {
            Some(holder) if holder == account => Ok(LinkOutcome::Known),
            Some(holder) => Ok(LinkOutcome::Taken(holder)),
            None if self.read(account).await?.is_none() => Ok(LinkOutcome::Missing),
            None => Ok(LinkOutcome::Full),
        }
    }

    /// Takes a link of an account away. False if it has none like this.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn unlink(&self, account: &str, system: &str, id: &str) -> Result<bool, AccountsError> {
        let ended = each!(self, accounts => accounts.unlink(account, system, id));
        Ok(within(WRITE_TIMEOUT, ended).await? == 1)
    }

    /// Relates an account to a person, or replaces the dates of such a relation of this kind.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn relate(&self, relation: &AccountRelation) -> Result<RelationOutcome, AccountsError> {
        let related = each!(self, accounts => accounts.relate(relation));
        if within(WRITE_TIMEOUT, related).await? == 1 {
            return Ok(RelationOutcome::Done);
        }
        for id in [&relation.account, &relation.subject] {
            if self.read(id).await?.is_none() {
                return Ok(RelationOutcome::Missing(id.clone()));
            }
        }
        Ok(RelationOutcome::Full)
    }

    /// Ends the relations of an account to a person: those of this kind, or all. Returns how many there were.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn unrelate(&self, account: &str, subject: &str, kind: Option<&str>) -> Result<u64, AccountsError> {
        within(WRITE_TIMEOUT, each!(self, accounts => accounts.unrelate(account, subject, kind))).await
    }

    /// The links of an account, and its relations in both directions.
    ///
    /// # Errors
    /// The database did not answer within two seconds.
    pub async fn links(&self, account: &str) -> Result<AccountLinks, AccountsError> {
        within(READ_TIMEOUT, each!(self, accounts => accounts.links(account))).await
    }
}
