//! Which password hashes are written: argon2id, or a kind that a Thalamus on the same database can read.
//!
//! The one rule: the operator's setting decides (`authentication.upgrade_hashes`). Without a setting, the store's
//! origin decides: in a database that a Thalamus made, hashes stay readable for Thalamus. An origin that cannot be
//! determined counts as Thalamus. A hash that Thalamus reads can be replaced later; one that it cannot read locks its
//! holder out there.
//!
//! Everything that makes hashes calls it: the gateway after a login, the HIS, the import and the commands.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::schema::{StoreOrigin, UnreadableAccounts, origin, program_beside, unreadable_accounts};
use super::{Database, DbError};
use crate::config::HashesConfig;
use fedgate_core::password::{HashCost, HashKind};

/// Decides the kind of new hashes. Clones share what was found out.
#[derive(Clone)]
pub struct HashRule {
    config: HashesConfig,
    database: Database,
    /// The kind that the store's origin implies; asked for once.
    of_store: Arc<OnceCell<HashKind>>,
}

impl HashRule {
    /// The rule for a store, without asking the store yet.
    pub fn new(database: Database, config: HashesConfig) -> Self {
        Self { config, database, of_store: Arc::default() }
    }

    /// The configured cost of argon2id.
    pub fn cost(&self) -> HashCost {
        self.config.cost
    }

    /// The kind of new hashes.
    ///
    /// # Errors
    /// The database is away, or cannot tell.
    pub async fn kind(&self) -> Result<HashKind, DbError> {
        let argon2id = HashKind::Argon2id(self.config.cost);
        match self.config.upgraded {
            Some(true) => Ok(argon2id),
            Some(false) => Ok(HashKind::Bcrypt),
            None => {
                let asked = async {
                    Ok::<_, DbError>(match origin(&self.database).await? {
                        StoreOrigin::Own | StoreOrigin::Upgraded => argon2id,
                        StoreOrigin::Thalamus => HashKind::Bcrypt,
                    })
                };
                // A failure is not remembered: the next call asks again.
                self.of_store.get_or_try_init(|| asked).await.copied()
            }
        }
    }

    /// Whether a login replaces a hash; false if that cannot be determined now.
    pub async fn upgrades(&self) -> bool {
        self.kind().await.is_ok_and(|kind| matches!(kind, HashKind::Argon2id(_)))
    }
}

/// A report on the hashes in a store, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashesTold {
    /// Which kind is written, and why.
    pub written: &'static str,
    /// How many accounts a Thalamus on the same database cannot sign in, where there may be a Thalamus.
    pub unreadable: Option<String>,
    /// That a Thalamus seems to be in use, and what to do.
    pub beside: Option<String>,
}

/// The report for the operator; counting the accounts takes at most `patience`.
///
/// # Errors
/// The database is away, or refuses.
pub async fn tell(database: &Database, config: HashesConfig, patience: Duration) -> Result<HashesTold, DbError> {
    let origin = origin(database).await?;
    let written = match (config.upgraded, origin) {
        (Some(true), _) => "argon2id, as `authentication.upgrade_hashes` says; bcrypt is replaced with the next login",
        (Some(false), _) => "bcrypt as Thalamus reads it, as `authentication.upgrade_hashes` says",
        (None, StoreOrigin::Own) => "argon2id; bcrypt is replaced with the next login",
        (None, StoreOrigin::Upgraded) => {
            "argon2id, because an earlier fedgate has written such hashes; `authentication.upgrade_hashes = false` \
             if a Thalamus uses this database"
        }
        (None, StoreOrigin::Thalamus) => {
            "bcrypt as Thalamus reads it, because a Thalamus made this database; once no Thalamus uses it, set \
             `authentication.upgrade_hashes = true`"
        }
    };
    let is_own = origin == StoreOrigin::Own && config.upgraded != Some(false);
    let unreadable = if is_own { None } else { in_words(unreadable_accounts(database, patience).await?) };
    let beside = if is_own { None } else { program_beside(database, patience).await? };
    let remedy = match (config.upgraded, origin) {
        (Some(true), _) | (None, StoreOrigin::Upgraded) => {
            "it cannot read the argon2id that is written here; set `authentication.upgrade_hashes = false` as long \
             as it is"
        }
        (Some(false), _) | (None, StoreOrigin::Own | StoreOrigin::Thalamus) => {
            "as long as it is, leave `authentication.upgrade_hashes` as it is"
        }
    };
    Ok(HashesTold { written, unreadable, beside: beside.map(|found| format!("{found}; {remedy}")) })
}

fn in_words(unreadable: UnreadableAccounts) -> Option<String> {
    let counted = |accounts: String| {
        format!(
            "a Thalamus on this database could not log in {accounts}, whose password is kept as argon2id; it can \
             read a password that is set under `authentication.upgrade_hashes = false`"
        )
    };
    match unreadable {
        UnreadableAccounts::Counted(0) => None,
        UnreadableAccounts::Counted(1) => Some(counted("1 account".to_owned())),
        UnreadableAccounts::Counted(several) => Some(counted(format!("{several} accounts"))),
        UnreadableAccounts::Uncounted => Some(
            "accounts that a Thalamus on this database cannot log in (argon2id) were not counted in time".to_owned(),
        ),
    }
}
