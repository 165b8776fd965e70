//! Prints the changes of accounts, and who made them.

use fedgate::accounts::{AccountEvent, MemberChange};
use serde_json::{Value, json};

use crate::print::CommandReport;
use crate::quote;
use fedgate_base::command::CommandFailure;

/// Shows events, the latest first. There is one more than `limit` if there are further ones.
pub(super) fn show(
    account: Option<&str>,
    mut events: Vec<AccountEvent>,
    limit: u32,
    report: &mut CommandReport,
) -> Result<(), CommandFailure> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = events.len() > limit;
    events.truncate(limit);
    events.iter().try_for_each(|event| report.line(&in_words(event)))?;
    report.note("events", events.iter().map(object).collect::<Vec<_>>());
    let next = events.last().filter(|_| has_more).map(|event| event.id);
    report.note("next", next);
    match (next, account) {
        (Some(next), _) => Ok(report.line(&format!("there are earlier ones; go on with `--before={next}`"))?),
        (None, Some(account)) if events.is_empty() => {
            Ok(report.line(&format!("no change of {} is on record", quote::quoted(account)))?)
        }
        (None, _) if events.is_empty() => Ok(report.line("no change is on record")?),
        (None, _) => Ok(()),
    }
}

fn in_words(event: &AccountEvent) -> String {
    let AccountEvent { at, what, account, via, actor, request_id, database_user, application, .. } = event;
    let mut words = match (what.as_str(), account) {
        ("all_deleted", _) => format!("{at}  all accounts were deleted"),
        ("all_unlinked", _) => format!("{at}  all links were taken away"),
        ("all_unrelated", _) => format!("{at}  all relations were ended"),
        ("unwatched", _) => format!("{at}  changes before this are not known"),
        (what, account) => format!("{at}  {} {what}", account.as_deref().unwrap_or("?")),
    };
    let of = |name, change: &MemberChange| {
        change.is_change().then(|| format!("{name} {} -> {}", shown(&change.before), shown(&change.after)))
    };
    let password = event.password.as_ref().map(|word| format!("password {word}"));
    let detail = event.detail.as_ref().map(detail_in_words);
    let changes: Vec<_> =
        [of("roles", &event.roles), of("active", &event.active), password, detail].into_iter().flatten().collect();
    if !changes.is_empty() {
        words += &format!(": {}", changes.join(", "));
    }
    words += &match (actor, request_id) {
        (Some(actor), Some(request)) => format!("  by {actor} ({via}, request {request})"),
        (Some(actor), None) => format!("  by {actor} ({via})"),
        (None, _) => match via.as_str() {
            "outside" => "  by a program other than fedgate (outside)".to_owned(),
            "migration" => "  by `fedhis migrate`".to_owned(),
            via => format!("  by {via}"),
        },
    };
    if let Some(user) = database_user {
        words += &format!(", database user {user}");
    }
    match application.as_deref() {
        None | Some("") => words,
        Some(ours) if matches!(ours.split(' ').next(), Some("fedgate" | "fedhis")) => words,
        Some(application) => format!("{words}, application {application}"),
    }
}

/// A link or a relation in words.
fn detail_in_words(detail: &Value) -> String {
    let of = |key: &str| detail.get(key).and_then(Value::as_str);
    if let (Some(system), Some(id)) = (of("system"), of("id")) {
        return format!("{system} {id}");
    }
    let (Some(subject), Some(kind)) = (of("subject"), of("kind")) else { return detail.to_string() };
    let dates = [of("from").map(|from| format!(" from {from}")), of("until").map(|until| format!(" until {until}"))];
    format!("{kind} of {subject}{}", dates.into_iter().flatten().collect::<String>())
}

fn shown(value: &Option<Value>) -> String {
    value.as_ref().map_or("none".to_owned(), Value::to_string)
}

fn object(event: &AccountEvent) -> Value {
    let change = |change: &MemberChange| match change.is_change() {
        true => json!({ "before": change.before, "after": change.after }),
        false => Value::Null,
    };
    json!({
        "id": event.id, "at": event.at, "what": event.what, "account": event.account, "roles": change(&event.roles),
        "active": change(&event.active), "password": event.password, "via": event.via, "actor": event.actor,
        "request_id": event.request_id, "database_user": event.database_user, "application": event.application, "detail": event.detail,
    })
}
