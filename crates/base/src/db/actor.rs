//! The author of an account change. It is passed to the database within the transaction of the change, where triggers
//! record it.
//!
//! The one rule: it is valid for one transaction, so that no later transaction on the same connection is attributed to
//! it. A session without an author belongs to another program. An author is as credible as the session's database
//! user, which is recorded beside it.
//!
//! `accounts` and `his::store` call it.

use rusqlite::{Transaction, params};

/// The condition that sets the author in PostgreSQL, for a statement that changes accounts; `$0` is the parameter. It
/// is evaluated before any row passes, and row triggers fire after that. The setting ends with the transaction.
const POSTGRES_ACTS: &str = "(SELECT set_config('fedgate.actor', coalesce($0::text, ''), true)) IS NOT NULL";
/// The longest name; an account's has at most 256 bytes.
const MAX_NAME: usize = 512;

/// The way in which accounts are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ActorPath {
    /// A request to the HIS.
    Http,
    /// An operator's command.
    Command,
    /// An import.
    Import,
    /// A login of the account itself, which replaces its password hash.
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

/// The author of a change, with the way and the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeActor {
    path: ActorPath,
    name: String,
    request_id: String,
}

impl ChangeActor {
    /// The account that sent the request.
    pub fn caller(account: &str, request_id: &str) -> Self {
        Self::new(ActorPath::Http, account, request_id)
    }

    /// The user of this machine who runs a command.
    pub fn operator() -> Self {
        Self::new(ActorPath::Command, &operator(), "")
    }

    /// The user of this machine who runs an import.
    pub fn importer() -> Self {
        Self::new(ActorPath::Import, &operator(), "")
    }

    /// The account that signs in.
    pub fn login(account: &str) -> Self {
        Self::new(ActorPath::Login, account, "")
    }

    fn new(path: ActorPath, name: &str, request_id: &str) -> Self {
        // PostgreSQL's text has no NUL, and a blank separates the parts of the setting: neither may end the author's
        // name early.
        let is_text = |c: &char| *c != '\0';
        let request_id = request_id.chars().filter(|c| is_text(c) && *c != ' ').collect();
        Self { path, name: name.chars().filter(is_text).take(MAX_NAME).collect(), request_id }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The setting in PostgreSQL, which `fedgate_record_event` reads.
    pub fn setting(&self) -> String {
        format!("{} {} {}", self.path.word(), self.request_id, self.name)
    }

    /// A PostgreSQL statement that ends in a condition, extended by the condition that sets the author; `place` is its
    /// parameter.
    pub fn told_by(statement: &str, place: usize) -> String {
        format!("{statement} AND {}", Self::condition(place))
    }

    /// Only the condition.
    pub fn condition(place: usize) -> String {
        POSTGRES_ACTS.replace("$0", &format!("${place}"))
    }

    /// Writes to an embedded store as this author. Its triggers cannot see a session's setting, so the author is in a
    /// table. Its row is removed before any other session can read it.
    ///
    /// # Errors
    /// The error of `work`, or a fault of the store.
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

/// The user of this process, and the user who became it by sudo.
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
    fn an_actor_is_written_in_three_words_whatever_its_name() {
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
