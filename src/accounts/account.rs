//! One account, as the database stores it, and how its row is read.
//!
//! The one rule: what cannot be read grants nothing. Both databases give the same columns, so an account is the same
//! on each.

use std::sync::Arc;

use serde::Deserialize;

use super::changes::from_sql;
use super::linked::{self, LinkedIds};
use fedgate_base::moment::BootMoment;

/// The most ids of one person that are read beside the account's, and the most bytes of them that count. The assertion
/// carries them, so they must fit in a header. What is beyond is not reached.
pub(super) const MOST_SAME: i64 = 100;
const MOST_SAME_BYTES: usize = 2048;

/// One stored account, as of [`StoredAccount::epoch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAccount {
    /// The id of the person.
    pub id: String,
    /// The password hash; none if the person cannot sign in.
    pub password_hash: Option<String>,
    /// The roles, in their order.
    pub roles: Vec<String>,
    /// Whether the account is active.
    pub active: bool,
    /// The other ids of the same person, whose records are the account's own; none for most. A list of accounts leaves
    /// them out.
    pub same: Vec<String>,
    /// Its ids in other systems, and related persons; none for most, and in a list of accounts.
    pub linked: Option<Arc<LinkedIds>>,
    /// When the calendar changes that, because a relation begins or ends.
    pub linked_until: Option<BootMoment>,
    /// The account epoch at which this was true.
    pub epoch: u64,
}

/// The row of an account, or of the absence of one.
pub(super) struct AccountRow {
    pub(super) epoch: i64,
    pub(super) found: bool,
    pub(super) password: Option<String>,
    pub(super) roles: Option<String>,
    pub(super) active: Option<String>,
    /// The other ids of the same person, in order, at most [`MOST_SAME`].
    pub(super) same: Vec<String>,
    /// What is linked with it, as JSON ([`linked`]); none for most.
    pub(super) links: Option<String>,
}

impl AccountRow {
    /// The account, as an answer to a question that was asked at `asked`.
    pub(super) fn into_account(self, id: &str, asked: BootMoment) -> Option<StoredAccount> {
        let (linked, linked_until) = linked::read(self.links.as_deref(), asked);
        self.found.then(|| StoredAccount {
            id: id.to_owned(),
            password_hash: self.password.filter(|hash| !hash.is_empty()),
            // Roles that are not a list of strings count as none: silence denies.
            roles: self
                .roles
                .and_then(|roles| Vec::<String>::deserialize(&mut serde_json::Deserializer::from_str(&roles)).ok())
                .unwrap_or_default(),
            // Thalamus ignores the mark, and few rows have it: an account without one is active.
            active: matches!(self.active.as_deref(), None | Some("null" | "true" | "\"True\"" | "\"true\"")),
            same: bounded(self.same),
            linked: linked.map(Arc::new),
            linked_until,
            epoch: from_sql(self.epoch),
        })
    }
}

/// The first ids that fit.
fn bounded(mut same: Vec<String>) -> Vec<String> {
    let mut bytes = 0;
    let fits = same.iter().take_while(|id| {
        bytes += id.len();
        bytes <= MOST_SAME_BYTES
    });
    same.truncate(fits.count());
    same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_that_are_no_list_of_words_are_none_and_the_mark_is_read_strictly() {
        let account = |roles: Option<&str>, active: Option<&str>| {
            let (roles, active) = (roles.map(str::to_owned), active.map(str::to_owned));
            AccountRow {
                epoch: 1,
                found: true,
                password: Some(String::new()),
                roles,
                active,
                same: vec![],
                links: None,
            }
            .into_account("ANA", BootMoment::now())
            .unwrap()
        };
        assert_eq!(account(Some(r#"["a","b"]"#), None).roles, ["a", "b"]);
        for roles in [None, Some("null"), Some("\"root\""), Some("[1]"), Some("{}"), Some("[\"root\", 1]")] {
            assert!(account(roles, None).roles.is_empty(), "{roles:?}");
        }
        for (active, expected) in [
            (None, true),
            (Some("true"), true),
            (Some("null"), true),
            (Some("false"), false),
            (Some("\"False\""), false),
            (Some("0"), false),
        ] {
            assert_eq!(account(None, active).active, expected, "{active:?}");
        }
        assert_eq!(account(None, None).password_hash, None, "an empty hash is none");
    }

    #[test]
    fn ids_of_one_person_are_bounded_by_their_bytes() {
        let ids = |length: usize, count: usize| vec!["x".repeat(length); count];
        assert_eq!(bounded(ids(20, 100)).len(), 100);
        assert_eq!(bounded(ids(256, 100)).len(), 8);
        assert_eq!(bounded(ids(4096, 3)).len(), 0);
        assert!(bounded(vec![]).is_empty());
    }
}
