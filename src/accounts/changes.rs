//! Which accounts changed since an earlier answer of the database.
//!
//! The one rule: if the rows cannot name every change, any account may have changed. That is so after a gap, in another
//! history, and where triggers were absent. Both databases give the same columns, and this module knows neither.

use super::AccountsError;

/// How many epochs of changes the database remembers. A reader further behind drops everything that it holds.
const REMEMBERED_EPOCHS: u64 = 10_000;
/// The most changes in one answer. With one more, any account may have changed.
const TOLD_CHANGES: u32 = 10_000;
/// One row more than the most changes, so that the surplus is noticed.
pub(super) const MOST_ROWS: i64 = TOLD_CHANGES as i64 + 1;

/// The accounts that changed after some epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountChanges {
    /// The current epoch.
    pub epoch: u64,
    /// The changed accounts.
    pub accounts: ChangedAccounts,
}

impl AccountChanges {
    /// None, because nothing was written since an answer.
    pub(super) fn none_since(last: &LastAnswer) -> Self {
        Self { epoch: last.epoch, accounts: ChangedAccounts::These(vec![]) }
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        matches!(&self.accounts, ChangedAccounts::These(accounts) if accounts.is_empty())
    }
}

/// The changed accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangedAccounts {
    /// Only these, possibly none.
    These(Vec<String>),
    /// Any account may have changed.
    Everything,
}

/// The last answer, with which the next one is compared.
pub(super) struct LastAnswer {
    pub(super) epoch: u64,
    /// The version of the triggers; none for a caller that does not follow them.
    pub(super) triggers: Option<String>,
}

impl LastAnswer {
    /// The epoch after which changes are asked for; a caller without a known epoch asks for none.
    pub(super) fn after(known: Option<&Self>) -> i64 {
        known.map_or(i64::MAX, |known| to_sql(known.epoch))
    }
}

/// One row of the answer to what changed: the current epoch, whether the triggers fire, their version, and the epoch
/// and account of one change.
pub(super) struct ChangeRow {
    pub(super) now: i64,
    pub(super) fire: bool,
    pub(super) triggers: Option<String>,
    pub(super) change: Option<i64>,
    pub(super) account: Option<String>,
}

/// Turns rows into changes, and into the answer to compare the next one with.
pub(super) fn changes(
    known: Option<&LastAnswer>,
    rows: Vec<ChangeRow>,
) -> Result<(AccountChanges, LastAnswer), AccountsError> {
    let first = rows.first().ok_or(AccountsError::NotMigrated)?;
    // Without triggers the epoch does not move while rights change, so an unchanged epoch would confirm nothing.
    if !first.fire {
        return Err(AccountsError::Untold);
    }
    let now = LastAnswer { epoch: from_sql(first.now), triggers: first.triggers.clone() };
    let follows = known.is_some_and(|known| {
        // An epoch that went back means another history (a failover that lost writes): no cached entry is true of it.
        let is_same_history = known.epoch <= now.epoch && now.epoch - known.epoch < REMEMBERED_EPOCHS;
        // Triggers of another version were absent for a moment, and changes in that moment have no epoch.
        is_same_history && (known.triggers.is_none() || known.triggers == now.triggers)
    });
    let is_told =
        rows.len() <= TOLD_CHANGES as usize && rows.iter().all(|row| row.change.is_none() || row.account.is_some());
    let accounts = match !follows || !is_told {
        true => ChangedAccounts::Everything,
        false => ChangedAccounts::These(rows.into_iter().filter_map(|row| row.account).collect()),
    };
    Ok((AccountChanges { epoch: now.epoch, accounts }, now))
}

pub(super) fn to_sql(epoch: u64) -> i64 {
    i64::try_from(epoch).unwrap_or(i64::MAX)
}

pub(super) fn from_sql(epoch: i64) -> u64 {
    u64::try_from(epoch).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_or_an_epoch_that_went_back_or_triggers_that_were_away_mean_everything() {
        let row = |now, change: Option<i64>, account: Option<&str>| {
            let triggers = Some("7 8 9".to_owned());
            vec![ChangeRow { now, fire: true, triggers, change, account: account.map(str::to_owned) }]
        };
        let of = |since: Option<u64>, rows| {
            let known = since.map(|epoch| LastAnswer { epoch, triggers: Some("7 8 9".into()) });
            changes(known.as_ref(), rows).unwrap().0.accounts
        };
        assert_eq!(of(None, row(7, None, None)), ChangedAccounts::Everything, "the first reading");
        assert_eq!(of(Some(7), row(7, None, None)), ChangedAccounts::These(vec![]));
        assert_eq!(of(Some(6), row(7, Some(7), Some("ANA"))), ChangedAccounts::These(vec!["ANA".into()]));
        assert_eq!(of(Some(8), row(7, None, None)), ChangedAccounts::Everything, "the epoch went back");
        assert_eq!(of(Some(6), row(7, Some(7), None)), ChangedAccounts::Everything, "a change that names no account");
        assert_eq!(
            of(Some(0), row(20_000, Some(20_000), Some("ANA"))),
            ChangedAccounts::Everything,
            "older changes are forgotten"
        );
        let many = |count| (0..count).flat_map(|_| row(7, Some(7), Some("ANA"))).collect();
        assert!(matches!(of(Some(6), many(TOLD_CHANGES)), ChangedAccounts::These(_)));
        assert_eq!(of(Some(6), many(TOLD_CHANGES + 1)), ChangedAccounts::Everything, "there may be more of them");
        let others = LastAnswer { epoch: 7, triggers: Some("7 8 10".into()) };
        assert_eq!(changes(Some(&others), row(7, None, None)).unwrap().0.accounts, ChangedAccounts::Everything);
        let (one_off, known) =
            (vec![ChangeRow { fire: false, ..row(7, None, None).remove(0) }], LastAnswer { epoch: 7, triggers: None });
        assert!(matches!(changes(Some(&known), one_off), Err(AccountsError::Untold)));
        assert!(matches!(changes(Some(&known), vec![]), Err(AccountsError::NotMigrated)));
    }
}
