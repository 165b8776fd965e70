//! The ids whose records are a caller's own: that of its account, those of the same person, and, for a role that says
//! so, those of related persons. In another system these are the ids that are linked with them.
//!
//! The one rule: ids are compared byte for byte, and only ids that the store names are added. What belongs to an account
//! and not to a person (its password, roles and `active` mark) is asked for with the account's id alone.

use super::PolicyReach;

/// The ids whose records are a caller's own.
///
/// ```
/// use fedgate_core::policy::OwnIds;
///
/// let of_the_same_person = ["BOB-OLD".to_owned()];
/// let own = OwnIds::new("BOB", &of_the_same_person);
/// assert!(own.holds("BOB") && own.holds("BOB-OLD") && !own.holds("bob"));
/// assert!(!own.of_account().holds("BOB-OLD"));
///
/// // In another system, the id of the account is nobody's.
/// let linked = ["Patient/7".to_owned()];
/// let own = OwnIds::in_system("BOB", &linked, &[]);
/// assert!(own.holds("Patient/7") && !own.holds("BOB"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnIds<'a> {
    account: &'a str,
    /// Whether the account's id is one of its ids in this system.
    is_known_by_account: bool,
    others: &'a [String],
    related: &'a [String],
}

impl<'a> OwnIds<'a> {
    /// The account's id, and the other ids of the same person.
    pub const fn new(account: &'a str, others: &'a [String]) -> Self {
        Self { account, is_known_by_account: true, others, related: &[] }
    }

    /// The ids in another system that are linked with an account, and those that are linked with related persons.
    pub const fn in_system(account: &'a str, linked: &'a [String], related: &'a [String]) -> Self {
        Self { account, is_known_by_account: false, others: linked, related }
    }

    /// The same, with the ids of related persons.
    pub const fn with_related(self, related: &'a [String]) -> Self {
        Self { related, ..self }
    }

    /// The account's id. It is the caller's name, and one of the ids unless they are those of another system.
    pub const fn account(self) -> &'a str {
        self.account
    }

    /// The ids beside the account's.
    pub const fn others(self) -> &'a [String] {
        self.others
    }

    /// The ids of related persons.
    pub const fn related(self) -> &'a [String] {
        self.related
    }

    /// The account's id alone; none in another system.
    pub const fn of_account(self) -> Self {
        Self { others: &[], related: &[], ..self }
    }

    /// Whether a record with this subject is the caller's own.
    pub fn holds(self, subject: &str) -> bool {
        (self.is_known_by_account && subject == self.account) || self.others.iter().any(|other| other == subject)
    }

    /// Whether a record with this subject is that of a related person.
    pub fn is_related(self, subject: &str) -> bool {
        self.related.iter().any(|related| related == subject)
    }

    /// The one id of a related person that is this subject; none if no related person has it.
    pub fn related_as(self, subject: &str) -> &'a [String] {
        let at = self.related.iter().position(|related| related == subject);
        at.and_then(|at| self.related.get(at..=at)).unwrap_or_default()
    }

    /// Whether a right of this reach extends to a record with this subject.
    pub fn reaches(self, subject: &str, reach: PolicyReach) -> bool {
        match reach {
            PolicyReach::Own => self.holds(subject),
            PolicyReach::Related => self.holds(subject) || self.is_related(subject),
            PolicyReach::Global => true,
        }
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
