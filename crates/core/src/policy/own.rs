//! The ids whose records are a caller's own: that of its account, and those of the same person.
//!
//! The one rule: ids are compared byte for byte, and only ids that the store names as the same person's are added. What
//! belongs to an account and not to a person (its password, roles and `active` mark) is asked for with the account's id
//! alone.

/// The ids whose records are a caller's own.
///
/// ```
/// use fedgate_core::policy::OwnIds;
///
/// let of_the_same_person = ["BOB-OLD".to_owned()];
/// let own = OwnIds::new("BOB", &of_the_same_person);
/// assert!(own.holds("BOB") && own.holds("BOB-OLD") && !own.holds("bob"));
/// assert!(!own.of_account().holds("BOB-OLD"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnIds<'a> {
    account: &'a str,
    others: &'a [String],
}

impl<'a> OwnIds<'a> {
    /// The account's id, and the other ids of the same person.
    pub const fn new(account: &'a str, others: &'a [String]) -> Self {
        Self { account, others }
    }

    /// The account's id.
    pub const fn account(self) -> &'a str {
        self.account
    }

    /// The other ids.
    pub const fn others(self) -> &'a [String] {
        self.others
    }

    /// The account's id alone.
    pub const fn of_account(self) -> Self {
        Self { account: self.account, others: &[] }
    }

    /// Whether a record with this subject is the caller's own.
    pub fn holds(self, subject: &str) -> bool {
        subject == self.account || self.others.iter().any(|other| other == subject)
    }
}

impl<'a> From<&'a str> for OwnIds<'a> {
    fn from(account: &'a str) -> Self {
        Self::new(account, &[])
    }
}

impl<'a> From<&'a String> for OwnIds<'a> {
    fn from(account: &'a String) -> Self {
        Self::new(account, &[])
    }
}
