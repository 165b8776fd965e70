//! Who changes accounts: told to the database within the transaction of the change, whose triggers write it down.
//!
//! The one rule: it holds for one transaction, so that no later one on the same connection passes for its author. A session that
//! says nothing is one past these programs. What a session says counts as much as its user, whose name stands beside it.
//!
//! Called by `accounts` and by `his::store`.

use rusqlite::{Transaction, params};

/// The condition that tells PostgreSQL who acts, for a statement that changes accounts; `$0` is the parameter. No row passes
/// before it was evaluated, and the triggers of rows fire after that. The setting ends with the transaction.
const POSTGRES_ACTS: &str = "(SELECT set_config('fedgate.actor', coalesce($0::text, ''), true)) IS NOT NULL";
/// Longest name; that of an account has 256 bytes.
const MAX_NAME: usize = 512;

/// In which way accounts are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ActorPath {
    /// By a request to the HIS.
    Http,
    /// By a command of an operator.
    Command,
    /// By an import.
    Import,
    /// By the login of the account itself: its password is hashed anew.
    Login,
}

impl ActorPath {
    fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Command => "command",
            Self::Import => "import",
            Self::Login => "login",
        }
    }
}

/// Who changes accounts, in which way, and by which request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeActor {
    path: ActorPath,
    name: String,
    request_id: String,
}

impl ChangeActor {
    /// The account whose request it is.
    pub fn caller(account: &str, request_id: &str) -> Self {
        Self::new(ActorPath::Http, account, request_id)
    }

    /// The user of this machine who gives a command.
    pub fn operator() -> Self {
        Self::new(ActorPath::Command, &operator(), "")
    }

    /// The user of this machine who imports.
    pub fn importer() -> Self {
        Self::new(ActorPath::Import, &operator(), "")
    }

    /// The account that logs in.
    pub fn login(account: &str) -> Self {
        Self::new(ActorPath::Login, account, "")
    }

    fn new(path: ActorPath, name: &str, request_id: &str) -> Self {
        let is_text = |c: &char| *c != '\0';
        let request_id = request_id.chars().filter(|c| is_text(c) && *c != ' ').collect();
        Self { path, name: name.chars().filter(is_text).take(MAX_NAME).collect(), request_id }
    }

    /// As PostgreSQL is told: `fedgate_record_event` reads it.
    pub fn setting(&self) -> String {
        format!("{} {} {}", self.path.word(), self.request_id, self.name)
    }

    /// A statement of PostgreSQL that ends in a condition, with the one that tells who acts; `place` is its parameter.
    pub fn told_by(statement: &str, place: usize) -> String {
        format!("{statement} AND {}", Self::condition(place))
    }

    /// The condition alone.
    pub fn condition(place: usize) -> String {
        POSTGRES_ACTS.replace("$0", &format!("${place}"))
    }

    /// Writes to an embedded store as this actor. Its triggers see no setting of a session, so it stands in a table, which
    /// nobody else reads before the row is gone again.
    ///
    /// # Errors
    /// What `work` reports, or that the store fails.
    pub fn write<T>(
        actor: Option<&Self>,
        transaction: &Transaction<'_>,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<T, rusqlite::Error> {
        let Some(Self { path, name, request_id }) = actor else { return work(transaction) };
        let request_id = (!request_id.is_empty()).then_some(request_id);
        let put = "INSERT OR REPLACE INTO fedgate_actor (\"only\", via, actor, request_id) VALUES (1, ?1, ?2, ?3)";
        transaction.prepare_cached(put)?.execute(params![path.word(), name, request_id])?;
        let done = work(transaction)?;
        transaction.prepare_cached("DELETE FROM fedgate_actor")?.execute([])?;
        Ok(done)
    }
}

/// The user of this process, and who became that user by sudo.
fn operator() -> String {
    let uid = rustix::process::getuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = user_of(uid, &passwd).unwrap_or_else(|| format!("uid {uid}"));
    match std::env::var("SUDO_USER") {
        Ok(before) if uid == 0 && !before.is_empty() => format!("{user} (sudo by {before})"),
        Ok(_) | Err(_) => user,
    }
}

/// The name of a user in the lines of passwd(5).
fn user_of(uid: u32, passwd: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        (id.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_is_told_in_three_words_whatever_its_name() {
        assert_eq!(ChangeActor::caller("ANA LU\0", "r 1").setting(), "http r1 ANA LU");
        assert_eq!(ChangeActor::login("ANA").setting(), "login  ANA");
        let condition = ChangeActor::told_by("UPDATE t SET a = $1 WHERE b = $2", 3);
        assert!(
            condition.ends_with("AND (SELECT set_config('fedgate.actor', coalesce($3::text, ''), true)) IS NOT NULL"),
            "{condition}"
        );
    }

    #[test]
    fn a_user_is_found_by_its_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nana:x:1000:1000::/:/bin/sh\n";
        assert_eq!((user_of(1000, passwd).as_deref(), user_of(7, passwd)), (Some("ana"), None));
    }
}
