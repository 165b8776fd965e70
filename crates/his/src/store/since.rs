//! The pages since a moment.
//!
//! The one rule: a page is left out only if its date is known to be earlier. A page whose date is missing or
//! unreadable is listed, so that it is not missed.
//!
//! Dates are stored as they were sent, with or without an offset, so comparing texts does not tell which is
//! earlier. The database leaves out pages that are more than a day earlier in every time zone. The others are
//! compared here, in the same way for both databases.

use chrono::{DateTime, TimeDelta, Utc};

use super::ListQuery;
use crate::date;

/// The earliest moment that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedSince(DateTime<Utc>);

impl ChangedSince {
    /// Parses a date, or a date and a time.
    pub fn parse(text: &str) -> Option<Self> {
        date::instant(text).map(Self)
    }

    /// The earliest day, as text, that a wanted page can have as its date: offsets are less than 24 hours.
    pub(super) fn first_day(&self) -> String {
        (self.0 - TimeDelta::days(1)).format("%Y-%m-%d").to_string()
    }
}

impl ListQuery {
    /// Whether a row with this `page_date` is wanted. Only pages have one.
    pub(super) fn wants(&self, page_date: Option<&str>) -> bool {
        let Self::Pages { since: Some(since), .. } = self else { return true };
        page_date.and_then(date::instant).is_none_or(|date| date >= since.0)
    }
}
