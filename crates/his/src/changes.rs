//! `changed_since`: the rows of a list that were written since a moment, however old the dates in them are.
//!
//! The one rule: the moment to ask from next time is found before anything else is read. Transactions commit in another
//! order than they write, so that moment is no later than the first write of any transaction that is still open. Whoever
//! always goes on from there misses no row, and gets some of them twice.

use chrono::{DateTime, SecondsFormat};
use http::{HeaderName, HeaderValue};

use super::error::HisError;
use super::query::QueryPairs;
use super::store::{ChangePlace, ChangeRange, ListQuery, RecordStore, SeenChanges};
use super::verify_assertion::Caller;
use super::{HisService, date};

/// The parameter.
pub(super) const PARAMETER: &str = "changed_since";
const UNTIL: HeaderName = HeaderName::from_static("fedgate-changes-until");
/// A list ends with what was written so long after its beginning, in microseconds. So writers never keep a reader at it
/// without end.
const LATEST: i64 = 60_000_000;

/// The changes that a caller wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct WantedChanges {
    since: i64,
    seen: SeenChanges,
}

impl WantedChanges {
    /// Reads the parameter, and finds the moment to ask from next time. Everything else about the list is asked for
    /// later, also which ids are one person.
    pub(super) async fn begin(
        service: &HisService,
        caller: &Caller,
        pairs: &QueryPairs,
    ) -> Result<Option<Self>, HisError> {
        let Some(text) = pairs.value(PARAMETER) else { return Ok(None) };
        let since = date::instant(text).ok_or_else(|| HisError::bad_query(PARAMETER))?.timestamp_micros();
        let seen = caller.store(service).seen_changes().await?;
        Ok(Some(Self { since, seen }))
    }

    /// The rows of a list that are wanted, from a place on if one is given.
    pub(super) async fn range(
        &self,
        store: &RecordStore,
        list: &ListQuery,
        after: Option<&str>,
    ) -> Result<ChangeRange, HisError> {
        let from = match after.map(ChangePlace::parse) {
            // Where the first page began is decided.
            Some(Some(_)) => 0,
            Some(None) => return Err(HisError::bad_query("after")),
            None if store.knows_changes(list, self.since).await? => self.since.max(0),
            None => 0,
        };
        Ok(ChangeRange { from, upto: self.seen.moment.saturating_add(LATEST) })
    }

    /// The header with the moment to ask from next time.
    pub(super) fn until(&self) -> (HeaderName, HeaderValue) {
        let until = DateTime::from_timestamp_micros(self.seen.until).unwrap_or(DateTime::UNIX_EPOCH);
        let text = until.to_rfc3339_opts(SecondsFormat::Micros, true);
        (UNTIL, HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("1970-01-01T00:00:00Z")))
    }
}
