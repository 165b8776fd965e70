//! Prints accounts: one in detail, or many in lines.

use std::time::Duration;

use fedgate::accounts::StoredAccount;
use fedgate::authn::{WaitingAccount, WaitingAddress};
use fedgate::instances::{GatewayInstance, SettledInstance};
use fedgate_core::password::HashKind;
use fedgate_core::{escape, password};
use serde_json::{Value, json};

use super::{has_usable_password, roles};
use crate::print::CommandReport;
use crate::quote;
use fedgate_base::command::CommandFailure;

/// Shows one account of a store whose new hashes are of this kind.
pub(super) fn show(
    account: &StoredAccount,
    kind: HashKind,
    (instances, page_wait): (&[SettledInstance], Option<u64>),
    report: &mut CommandReport,
) -> Result<(), CommandFailure> {
    let word = password_kind(account);
    let words = password_in_words(word, kind);
    report.note("id", account.id.as_str());
    report.note("active", account.active);
    report.note("roles", account.roles.clone());
    report.note("password", word);
    report.line(&format!("id        {}", account.id))?;
    report.line(&format!("active    {}", if account.active { "yes" } else { "no" }))?;
    report.line(&format!("roles     {}", roles::named(&account.roles)))?;
    report.line(&format!("password  {words}"))?;
    report.note("same_person", account.same.clone());
    if !account.same.is_empty() {
        // Whose records the account reaches with roles that are not global.
        let ids: Vec<_> = account.same.iter().map(|id| escape::name(id)).collect();
        report.line(&format!("person    has other ids, too: {}", ids.join(", ")))?;
    }
    let mut waits: Vec<Value> = Vec::new();
    for (SettledInstance { instance: GatewayInstance { report: of, seen }, is_behind }, wait) in
        waits_of(&account.id, instances)
    {
        let left = Duration::from_millis(wait.wait_ms).saturating_sub(*seen);
        let end = match is_behind {
            true => "it ends as soon as that gateway applies the last change of the account".to_owned(),
            false => format!("`fedgate account unlock {}` ends it", account.id),
        };
        report.line(&format!(
            "waits     {} s at {} ({}), after wrong passwords; {end}",
            left.as_secs_f64().ceil(),
            escape::name(&of.id),
            escape::name(&of.place),
        ))?;
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        waits.push(json!({ "id": of.id, "place": of.place, "wait_ms": left, "before_change": is_behind }));
    }
    report.note("waits", waits);
    report.note("page_wait_ms", page_wait);
    if let Some(left) = page_wait {
        report.line(&format!(
            "waits     {} s at the page of passwords, after wrong current ones; `fedgate account unlock {}` ends it",
            left.div_ceil(1_000),
            account.id
        ))?;
    }
    addresses(&account.id, instances, report)?;
    for of in live(instances).map(|one| &one.instance.report) {
        if of.waiting.left_off > 0 {
            let (id, place, more) = (escape::name(&of.id), escape::name(&of.place), of.waiting.left_off);
            let wait = if more == 1 { "account waits" } else { "accounts wait" };
            report.warn(format!("at {id} ({place}) {more} more {wait} than it names; this may be one of them"));
        }
    }
    Ok(())
}

/// Shows the client addresses that wait at every account that does not know them, and so perhaps at this one.
fn addresses(account: &str, instances: &[SettledInstance], report: &mut CommandReport) -> Result<(), CommandFailure> {
    let mut members: Vec<Value> = Vec::new();
    for SettledInstance { instance: GatewayInstance { report: of, seen }, is_behind } in live(instances) {
        let lets_past = *is_behind || of.waiting.let_past.iter().any(|past| past == account);
        let (id, place) = (escape::name(&of.id), escape::name(&of.place));
        for WaitingAddress { address, wait_ms } in &of.waiting.addresses {
            let left = Duration::from_millis(*wait_ms).saturating_sub(*seen);
            if left.is_zero() {
                continue;
            }
            let this = match lets_past {
                true => "this one was, or has changed, and does not wait".to_owned(),
                false => format!("`fedgate account unlock {account}` lets this one past"),
            };
            report.line(&format!(
                "address   {} waits {} s at {id} ({place}) for accounts that have not signed in there, nor \
                 been unlocked in the last 10 minutes, after wrong passwords of many; {this}",
                escape::name(address),
                left.as_secs_f64().ceil(),
            ))?;
            let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            members.push(json!({
                "id": of.id, "place": of.place, "address": address, "wait_ms": left, "lets_past": lets_past,
            }));
        }
        if of.waiting.addresses_left_off > 0 {
            let more = of.waiting.addresses_left_off;
            let wait = if more == 1 { "address waits" } else { "addresses wait" };
            report.line(&format!("address   {more} more {wait} so at {id} ({place})"))?;
        }
    }
    report.note("waiting_addresses", members);
    Ok(())
}

/// The gateways where an account has to wait, as far as running gateways report it.
fn waits_of<'a>(
    account: &'a str,
    instances: &'a [SettledInstance],
) -> impl Iterator<Item = (&'a SettledInstance, &'a WaitingAccount)> + 'a {
    live(instances).filter_map(move |one| {
        let named = &one.instance.report.waiting.named;
        let wait = named.iter().find(|waiting| waiting.account == account)?;
        (Duration::from_millis(wait.wait_ms) > one.instance.seen).then_some((one, wait))
    })
}

/// The gateways that run.
fn live(instances: &[SettledInstance]) -> impl Iterator<Item = &SettledInstance> {
    instances.iter().filter(|one| one.instance.is_live())
}

/// Lists accounts. There is one more than `limit` if there are further ones.
pub(super) fn list(
    mut accounts: Vec<StoredAccount>,
    limit: u32,
    report: &mut CommandReport,
) -> Result<(), CommandFailure> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = accounts.len() > limit;
    accounts.truncate(limit);
    let object = |account: &StoredAccount| {
        let StoredAccount { id, roles, active, .. } = account;
        json!({ "id": id, "active": active, "roles": roles, "password": password_kind(account) })
    };
    report.note("accounts", accounts.iter().map(object).collect::<Vec<_>>());
    for account in &accounts {
        let active = if account.active { "active" } else { "disabled" };
        let (kind, roles) = (password_kind(account), roles::named(&account.roles));
        report.line(&format!("{:<24}  {active:<8}  {kind:<8}  {roles}", account.id))?;
    }
    let last = accounts.last().filter(|_| has_more).map(|account| account.id.as_str());
    report.note("next", last);
    match last {
        Some(last) => Ok(report.line(&format!("there are more; go on with `--after={}`", quote::quoted(last)))?),
        None if accounts.is_empty() => Ok(report.line("there are no accounts here")?),
        None => Ok(()),
    }
}

/// The kind of an account's password, in a word for programs.
fn password_kind(account: &StoredAccount) -> &'static str {
    match account.password_hash.as_deref() {
        None => "none",
        Some(_) if !has_usable_password(account) => "unusable",
        Some(hash) if password::is_bcrypt(hash) => "bcrypt",
        Some(_) => "argon2id",
    }
}

/// The same for people, with its effect.
fn password_in_words(word: &str, kind: HashKind) -> &str {
    match (word, kind) {
        ("none", _) => "none; cannot log in",
        ("unusable", _) => "unusable; cannot log in until a new password is set",
        ("bcrypt", HashKind::Argon2id(_)) => "bcrypt; replaced by argon2id at the next login",
        ("argon2id", HashKind::Bcrypt) => "argon2id; cannot log in to a Thalamus until a new password is set",
        _ => word,
    }
}
