//! A change of an account as a line among the records: which actor changed which account, and how.
//!
//! The one rule: the member `event` distinguishes it from a request's record, and it never holds a hash.

use serde_json::Value;

use super::line::RecordLine;

/// The content of a line about one change of an account.
#[derive(Debug, Clone, Copy)]
pub struct AccountChangeLine<'a> {
    /// The number of the event in the store. If an event is recorded twice, both lines have it.
    pub id: i64,
    /// The time in UTC (RFC 3339).
    pub at: &'a str,
    /// `created`, `changed`, `deleted`, `all_deleted`, `unwatched`.
    pub what: &'a str,
    /// The account; none if all are concerned.
    pub account: Option<&'a str>,
    /// The roles before and after, if they changed.
    pub roles: [Option<&'a Value>; 2],
    /// The `active` mark before and after, if it changed.
    pub active: [Option<&'a Value>; 2],
    /// The change to the password.
    pub password: Option<&'a str>,
    /// The way in which the change was made.
    pub via: &'a str,
    /// The author.
    pub actor: Option<&'a str>,
    /// The request that made the change.
    pub request_id: Option<&'a str>,
    /// The user of the database.
    pub database_user: Option<&'a str>,
    /// The application name of the program in the database.
    pub application: Option<&'a str>,
    /// The link or the relation.
    pub detail: Option<&'a Value>,
}

impl AccountChangeLine<'_> {
    pub(super) fn line(&self) -> Vec<u8> {
        let mut line = RecordLine::begin();
        line.text("time", self.at);
        line.text("event", &format!("account_{}", self.what));
        line.number("event.id", self.id.unsigned_abs());
        let mut text = |key, value: Option<&str>| {
            if let Some(value) = value {
                line.text(key, value);
            }
        };
        text("account", self.account);
        text("password", self.password);
        text("via", self.via.into());
        text("actor", self.actor);
        text("request.id", self.request_id);
        text("database.user", self.database_user);
        text("database.application", self.application);
        self.tell_detail(&mut line);
        member(&mut line, ["roles.before", "roles.after"], self.roles);
        member(&mut line, ["active.before", "active.after"], self.active);
        line.end()
    }

    /// The members of a link or a relation, which the triggers of the store have written.
    fn tell_detail(&self, line: &mut RecordLine) {
        let members = self.detail.and_then(Value::as_object);
        let names = ["link.system", "link.id", "relation.subject", "relation.kind", "relation.from", "relation.until"];
        for name in names {
            // The store has the last part.
            let key = name.rsplit('.').next().unwrap_or_default();
            if let Some(value) = members.and_then(|members| members.get(key)).and_then(Value::as_str) {
                line.text(name, value);
            }
        }
    }
}

/// Writes a changed member: a list of strings as a list, any other value as JSON.
fn member(line: &mut RecordLine, keys: [&'static str; 2], values: [Option<&Value>; 2]) {
    for (key, value) in keys.into_iter().zip(values) {
        let Some(value) = value else { continue };
        let texts =
            value.as_array().and_then(|list| list.iter().map(|text| text.as_str().map(str::to_owned)).collect());
        match (texts, value) {
            (Some(texts), _) => line.list(key, Vec::<String>::as_slice(&texts)),
            (None, Value::Bool(is)) => line.flag(key, *is),
            (None, value) => line.text(key, &value.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_one_bounded_line_whatever_its_texts_are() {
        let nasty = "\u{202e}\n\"".repeat(1000);
        let link = serde_json::json!({ "system": "fhir", "id": nasty, "until": null });
        let (many, yes) = (serde_json::json!(vec!["nurse"; 10_000]), Value::Bool(true));
        let change = AccountChangeLine {
            id: 7,
            at: "2026-11-29T11:00:00.000000Z",
            what: "changed",
            account: Some(&nasty),
            roles: [Some(&many), Some(&many)],
            active: [None, Some(&yes)],
            password: Some("changed"),
            via: "outside",
            actor: Some(&nasty),
            request_id: Some(&nasty),
            database_user: Some(&nasty),
            application: Some(&nasty),
            detail: Some(&link),
        };
        let line = String::from_utf8(change.line()).unwrap();
        assert!(line.len() <= 16 * 1024 && line.matches('\n').count() == 1, "{} bytes", line.len());
        let told: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&told["event"], &told["event.id"]), (&"account_changed".into(), &7.into()));
        assert_eq!((&told["active.after"], &told["active.before"]), (&yes, &Value::Null));
        assert!(told["roles.after"].as_array().unwrap().len() > 200 && told["cut"].as_array().unwrap().len() == 8);
        assert_eq!((&told["link.system"], &told["link.until"]), (&"fhir".into(), &Value::Null));
    }
}
