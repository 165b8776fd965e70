//! Password hashing for the HIS: on the blocking pool, with a bound on concurrent hashes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::error::HisError;
use fedgate_base::db::hashes::HashRule;
use fedgate_core::password::{self, HashKind, PasswordError};

/// How long a request waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);

/// The password of a new person.
#[derive(Clone)]
pub(super) enum NewPassword {
    /// The document has no such member.
    Absent,
    /// The document says that the person has no password.
    NoLogin,
    /// A hash that was made elsewhere.
    Hash(String),
    /// A password in clear text, to be hashed.
    Clear(Zeroizing<String>),
}

impl NewPassword {
    /// A text that is an acceptable hash is taken as one. Every other text is a password.
    pub(super) fn of(text: &str) -> Self {
        match password::is_acceptable_hash(text) {
            true => Self::Hash(text.to_owned()),
            false => Self::Clear(Zeroizing::new(text.to_owned())),
        }
    }
}

/// Limits how many hashes are computed at a time.
pub(super) struct HashingThreads {
    rule: HashRule,
    turns: Arc<Semaphore>,
}

impl HashingThreads {
    /// Allows one hash fewer at a time than there are cores, and at least one, so that a core is left for requests.
    pub(super) fn new(rule: HashRule) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { rule, turns: Arc::new(Semaphore::new(cores.saturating_sub(1).max(1))) }
    }

    /// The kind of new hashes.
    pub(super) async fn kind(&self) -> Result<HashKind, HisError> {
        Ok(self.rule.kind().await?)
    }

    /// Whether a caller without the `account` permission may store a password. A hash more expensive than today's
    /// own would occupy the gateway's hashers with each attempt to log in.
    pub(super) fn is_open_to_all(&self, given: &NewPassword) -> bool {
        match given {
            NewPassword::Hash(hash) => password::is_ordinary_hash(hash, self.rule.cost()),
            NewPassword::Absent | NewPassword::NoLogin | NewPassword::Clear(_) => true,
        }
    }

    /// The form in which a password is stored, if there is one.
    pub(super) async fn stored_form(&self, given: NewPassword) -> Result<Option<String>, HisError> {
        match given {
            NewPassword::Absent | NewPassword::NoLogin => Ok(None),
            NewPassword::Hash(hash) if self.kind().await?.admits(&hash) => Ok(Some(hash)),
            NewPassword::Hash(_) => Err(HisError::PasswordUnreadable),
            NewPassword::Clear(clear) => self.hash(clear).await.map(Some),
        }
    }

    /// Hashes a new password.
    pub(super) async fn hash(&self, clear: Zeroizing<String>) -> Result<String, HisError> {
        let kind = self.kind().await?;
        self.run(move || password::make(clear.as_bytes(), kind)).await?.map_err(|error| match error {
            PasswordError::TooLong | PasswordError::TooLongForBcrypt => HisError::PasswordTooLongFor(kind.longest()),
            PasswordError::Randomness(_) | PasswordError::Argon2(_) | PasswordError::Bcrypt(_) => {
                tracing::error!("{error}");
                HisError::Internal
            }
        })
    }

    /// Whether a stored hash was made from this password.
    pub(super) async fn verify(&self, hash: String, clear: Zeroizing<String>) -> Result<bool, HisError> {
        self.run(move || password::verify(&hash, clear.as_bytes())).await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, HisError> {
        // The wait has a bound: a hash occupies a core, and requests would pile up behind a flood of them.
        let turn = timeout(TURN_TIMEOUT, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(HisError::Busy);
        };
        // The turn moves into the work: if the client goes away, the hash still runs to its end and keeps its turn.
        let done = spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.map_err(|panicked| {
            tracing::error!("{panicked}");
            HisError::Internal
        })
    }
}
