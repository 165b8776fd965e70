//! Pages from a moment on.
//!
//! The one rule: a page is left out when its date is known to be earlier. One whose date is missing, or cannot be read, is
//! nobody's reason to miss it.
//!
//! Dates are kept as they were sent, with and without offset, so that text does not tell which is earlier. The database
//! leaves out what was dated more than a day before in any time zone; the rest is looked at here, for both databases alike.

use chrono::{DateTime, TimeDelta, Utc};

use super::ListQuery;
use crate::date;

/// The earliest moment that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedSince(DateTime<Utc>);

impl ChangedSince {
    /// Reads a date, or a date and a time.
    pub fn parse(text: &str) -> Option<Self> {
        date::instant(text).map(Self)
    }

    /// The first day, as text, that a page from then on can be dated: offsets are less than 24 hours.
    pub(super) fn first_day(&self) -> String {
        (self.0 - TimeDelta::days(1)).format("%Y-%m-%d").to_string()
    }
}

impl ListQuery {
    /// Whether a row with this `page_date` is wanted; only pages have one.
    pub(super) fn wants(&self, page_date: Option<&str>) -> bool {
        let Self::Pages { since: Some(since), .. } = self else { return true };
        page_date.and_then(date::instant).is_none_or(|date| date >= since.0)
    }
}
