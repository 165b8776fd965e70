//! `fedgate account link`, `relate` and their opposites: whose ids an account has in other systems, and to whom it is
//! related.
//!
//! The one rule: a word that is not spelled as the store keeps it is refused before the store is asked.

use std::time::SystemTime;

use anyhow::anyhow;
use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use fedgate::accounts::{AccountLinks, AccountRelation, LinkOutcome, RelationOutcome};
use fedgate_core::escape;
use fedgate_core::links::{LinkWordError, MOST_LINKS, MOST_RELATIONS, parse_kind, parse_linked_id, parse_system};
use serde_json::{Value, json};

use super::desk::AccountDesk;
use super::{SpreadWait, missing};
use crate::print::CommandReport;
use fedgate_base::command::CommandFailure;

/// The persons and dates of `fedgate account relate`.
#[derive(clap::Args)]
pub(crate) struct NewRelation {
    /// The account that shall reach the records.
    id: String,
    /// The person whose records they are.
    subject: String,
    /// Why, in a word such as `guardian` or `team`.
    #[arg(long)]
    kind: String,
    /// From this moment on: a date (its first moment in UTC), or a time such as 2026-12-01T08:00:00Z; now without it.
    #[arg(long, value_name = "DATE", value_parser = moment)]
    from: Option<i64>,
    /// Before this moment; without it, the end is open.
    #[arg(long, value_name = "DATE", value_parser = moment)]
    until: Option<i64>,
}

/// A date or a time, in seconds since 1970.
fn moment(text: &str) -> Result<i64, String> {
    let of_date = || text.parse::<NaiveDate>().ok().and_then(|date| date.and_hms_opt(0, 0, 0));
    let time = DateTime::parse_from_rfc3339(text).map(|time| time.timestamp()).ok();
    let seconds = time.or_else(|| of_date().map(|date| date.and_utc().timestamp()));
    // Years that both stores can hold and show.
    let (first, last) = (0, 253_402_300_799);
    seconds.filter(|seconds| (first..=last).contains(seconds)).ok_or_else(|| {
        "write a date such as 2026-12-31 or a time such as 2026-12-31T18:00:00Z, from 1970 to 9999".to_owned()
    })
}

/// Now, in seconds since 1970.
fn now() -> i64 {
    DateTime::<Utc>::from(SystemTime::now()).timestamp()
}

fn shown_moment(seconds: i64) -> String {
    DateTime::<Utc>::from_timestamp(seconds, 0)
        .map_or_else(|| seconds.to_string(), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

fn usage(error: LinkWordError) -> CommandFailure {
    CommandFailure::Usage(error.into())
}

impl AccountDesk<'_> {
    pub(super) async fn link(
        &mut self,
        id: &str,
        system: &str,
        linked: &str,
        wait: &SpreadWait,
    ) -> Result<(), CommandFailure> {
        let (system, linked) = (parse_system(system).map_err(usage)?, parse_linked_id(linked).map_err(usage)?);
        self.report.note("link", json!({ "system": system, "id": linked }));
        let outcome = self.accounts.link(id, system, linked).await;
        let words = format!("is `{linked}` in `{system}`");
        match self.of_store(outcome)? {
            LinkOutcome::Done => self.committed(id, ("linked", &words), wait).await,
            // A script may run again.
            LinkOutcome::Known => self.done(id, "known", &format!("{words} already")).await,
            LinkOutcome::Taken(holder) => {
                let holder = escape::name(&holder);
                Err(anyhow!("`{linked}` in `{system}` is `{holder}`; take that away first: `fedgate account unlink`")
                    .into())
            }
            LinkOutcome::Missing => Err(missing(&self.accounts, id).await.into()),
            LinkOutcome::Full => {
                Err(anyhow!("`{id}` has {MOST_LINKS} links, and an account has no more; take one away first").into())
            }
        }
    }

    pub(super) async fn unlink(
        &mut self,
        id: &str,
        system: &str,
        linked: &str,
        wait: &SpreadWait,
    ) -> Result<(), CommandFailure> {
        self.report.note("link", json!({ "system": system, "id": linked }));
        let (shown_system, shown) = (escape::name(system), escape::shown(linked));
        match self.of_store(self.accounts.unlink(id, system, linked).await)? {
            true => {
                let words = format!("is `{shown}` in `{shown_system}` no longer");
                self.committed(id, ("unlinked", &words), wait).await
            }
            false => Err(anyhow!(
                "`{id}` is not `{shown}` in `{shown_system}`; `fedgate account links {id}` shows its links"
            )
            .into()),
        }
    }

    pub(super) async fn relate(&mut self, new: NewRelation, wait: &SpreadWait) -> Result<(), CommandFailure> {
        let NewRelation { id, subject, kind, from, until } = new;
        let kind = parse_kind(&kind).map_err(usage)?.to_owned();
        if id == subject {
            return Err(CommandFailure::Usage(anyhow!("nobody is related to himself or herself")));
        }
        let from = from.unwrap_or_else(now);
        if until.is_some_and(|until| until <= from) {
            return Err(CommandFailure::Usage(anyhow!(
                "it would end before it begins; it begins at {}",
                shown_moment(from)
            )));
        }
        let relation = AccountRelation { account: id.clone(), subject, kind, from, until };
        self.report.note("relation", object(&relation));
        match self.of_store(self.accounts.relate(&relation).await)? {
            RelationOutcome::Done => {
                let words = format!("is related to {}", in_words(&relation));
                self.committed(&id, ("related", &words), wait).await
            }
            RelationOutcome::Missing(nobody) => Err(missing(&self.accounts, &nobody).await.into()),
            RelationOutcome::Full => {
                Err(anyhow!("`{id}` has {MOST_RELATIONS} relations, and an account has no more; end one first").into())
            }
        }
    }

    pub(super) async fn unrelate(
        &mut self,
        id: &str,
        subject: &str,
        kind: Option<&str>,
        wait: &SpreadWait,
    ) -> Result<(), CommandFailure> {
        self.report.note("relation", json!({ "subject": subject, "kind": kind }));
        match self.of_store(self.accounts.unrelate(id, subject, kind).await)? {
            0 => Err(anyhow!(
                "`{id}` is not related to `{}` like that; `fedgate account links {id}` shows its relations",
                escape::name(subject)
            )
            .into()),
            _ => {
                let words = match kind {
                    Some(kind) => {
                        format!("is no longer related to {} as {}", escape::name(subject), escape::name(kind))
                    }
                    None => format!("is no longer related to {}", escape::name(subject)),
                };
                self.committed(id, ("unrelated", &words), wait).await
            }
        }
    }

    pub(super) async fn links(&mut self, id: &str) -> Result<(), CommandFailure> {
        self.stored(id).await?;
        let links = self.of_store(self.accounts.links(id).await)?;
        self.report.note("id", id);
        if !tell(id, &links, self.report)? {
            self.report.line(&format!("{id} has neither links nor relations"))?;
        }
        Ok(())
    }
}

/// Shows links and relations, each a line. False if there are none.
pub(super) fn tell(id: &str, links: &AccountLinks, report: &mut CommandReport) -> Result<bool, CommandFailure> {
    let AccountLinks { links, relations } = links;
    for link in links {
        report.line(&format!("link      {} {}", link.system, escape::shown(&link.id)))?;
    }
    let (to_others, to_this): (Vec<_>, Vec<_>) = relations.iter().partition(|relation| relation.account == id);
    for relation in &to_others {
        report.line(&format!("related   to {}", in_words(relation)))?;
    }
    for relation in &to_this {
        let dates = dates_in_words(relation);
        report.line(&format!("related   {} is its {}{dates}", escape::name(&relation.account), relation.kind))?;
    }
    let link = |link: &fedgate::accounts::AccountLink| json!({ "system": link.system, "id": link.id, "since": shown_moment(link.since) });
    report.note("links", links.iter().map(link).collect::<Vec<_>>());
    report.note("related_to", to_others.into_iter().map(object).collect::<Vec<_>>());
    report.note("related_from", to_this.into_iter().map(object).collect::<Vec<_>>());
    Ok(!links.is_empty() || !relations.is_empty())
}

fn object(relation: &AccountRelation) -> Value {
    let AccountRelation { account, subject, kind, from, until } = relation;
    json!({
        "account": account, "subject": subject, "kind": kind, "from": shown_moment(*from),
        "until": until.map(shown_moment), "holds": holds(relation),
    })
}

/// Whether it holds now, by the clock of this machine.
fn holds(relation: &AccountRelation) -> bool {
    let now = now();
    relation.from <= now && relation.until.is_none_or(|until| now < until)
}

fn in_words(relation: &AccountRelation) -> String {
    format!("{} as {}{}", escape::name(&relation.subject), relation.kind, dates_in_words(relation))
}

fn dates_in_words(relation: &AccountRelation) -> String {
    let until = relation.until.map(|until| format!(" until {}", shown_moment(until))).unwrap_or_default();
    let held = match (holds(relation), relation.from > now()) {
        (true, _) => "",
        (false, true) => " (not yet)",
        (false, false) => " (no longer)",
    };
    format!(", from {}{until}{held}", shown_moment(relation.from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_its_first_moment_in_utc() {
        assert_eq!(moment("2026-12-01"), Ok(1_796_083_200));
        assert_eq!(moment("2026-12-01T08:00:00+02:00"), Ok(1_796_083_200 + 6 * 3600));
        assert_eq!(shown_moment(1_796_083_200), "2026-12-01T00:00:00Z");
        for wrong in ["", "tomorrow", "2026-13-01", "2026-12-01T08:00:00", "1969-12-31", "+10000-01-01", "infinity"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
