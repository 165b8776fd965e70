//! Accounts, the policy information point: which accounts exist, with which password hash and roles, and what changed
//! since.
//!
//! The one rule: every answer carries the account epoch of the same snapshot, so a caller can tell whether the answer
//! is still true. The epoch is a number in the database. A trigger raises it whenever a password, the roles or the
//! `active` mark of any person changes, and whenever its links or relations do.
//!
//! `store.rs` has every question, and passes it to the database in use: `postgres/` and `sqlite/` hold the statements
//! and read their rows. The other files hold what is the same on both.
//!
//! `authn` and the operator's commands call it. It knows nothing of HTTP, policy or passwords in clear.

mod store;
mod account;
mod linked;
mod links;
mod changes;
mod answers;
mod watch;
mod instances;
mod events;
mod desk;
mod limits;
mod error;
mod postgres;
mod sqlite;

pub use account::StoredAccount;
pub use answers::EpochWatch;
pub use changes::{AccountChanges, ChangedAccounts};
pub use desk::{AccountChange, AccountDeletion, NewAccount};
pub use error::AccountsError;
pub use events::{AccountEvent, MemberChange};
pub use fedgate_base::db::outage::OutageLog;
pub use instances::{InstanceRow, LIVE_FOR, REPORT_EVERY, listed_for};
pub use linked::{LinkedIds, SystemIds};
pub use links::{AccountLink, AccountLinks, AccountRelation, LinkOutcome, RelationOutcome};
pub use store::AccountStore;
pub use watch::watch;
