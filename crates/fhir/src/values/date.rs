//! Dates that may be known in part: `YYYY`, `YYYY-MM`, `YYYY-MM-DD` (R4, 2.24.0.1, `date`).

use std::fmt;

/// A day of the calendar. Days are compared in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CalendarDay {
    year: u16,
    month: u8,
    day: u8,
}

/// A date, known to the year, the month or the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialDate {
    year: u16,
    month: Option<u8>,
    day: Option<u8>,
}

impl PartialDate {
    /// Reads a date. It must be one of the Gregorian calendar, from the year 1 on.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let year = digits(parts.next()?, 4).filter(|year| *year > 0)?;
        let small = |part: Option<&str>| match part {
            Some(part) => digits(part, 2).and_then(|number| u8::try_from(number).ok()).map(Some),
            None => Some(None),
        };
        let (month, day) = (small(parts.next())?, small(parts.next())?);
        let is_month = month.is_none_or(|month| (1..=12).contains(&month));
        let is_day = day.is_none_or(|day| day > 0 && day <= days_in(year, month.unwrap_or(1)));
        (is_month && is_day && parts.next().is_none()).then_some(Self { year, month, day })
    }

    /// The first day that it may be.
    #[must_use]
    pub fn first(self) -> CalendarDay {
        CalendarDay { year: self.year, month: self.month.unwrap_or(1), day: self.day.unwrap_or(1) }
    }

    /// The last day that it may be.
    #[must_use]
    pub fn last(self) -> CalendarDay {
        let month = self.month.unwrap_or(12);
        CalendarDay { year: self.year, month, day: self.day.unwrap_or(days_in(self.year, month)) }
    }
}

impl CalendarDay {
    /// The same day some years later. It need not be one of the calendar: days are only compared.
    #[must_use]
    pub fn later(self, years: u16) -> Self {
        Self { year: self.year.saturating_add(years), ..self }
    }

    /// The same day some years earlier.
    #[must_use]
    pub fn earlier(self, years: u16) -> Self {
        Self { year: self.year.saturating_sub(years), ..self }
    }
}

fn digits(text: &str, count: usize) -> Option<u16> {
    let are_digits = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    are_digits.then(|| text.parse().ok()).flatten()
}

fn days_in(year: u16, month: u8) -> u8 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl fmt::Display for PartialDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}", self.year)?;
        for part in [self.month, self.day].into_iter().flatten() {
            write!(f, "-{part:02}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_one_of_the_calendar_in_whole_or_in_part() {
        for text in ["1985-10-04", "1985-10", "1985", "2000-02-29", "2024-02-29", "0001-01-01", "1985-12-31"] {
            assert_eq!(PartialDate::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "85",
            "0000",
            "1985-",
            "1985-13",
            "1985-00",
            "1985-02-29",
            "1900-02-29",
            "1985-04-31",
            "1985-10-00",
            "1985-1-1",
            "1985-10-04T00:00:00Z",
            "1985-10-04-01",
            "04-10-1985",
            "1985/10/04",
            " 1985",
            "+985",
            "１９８５",
        ] {
            assert_eq!(PartialDate::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_part_of_a_date_is_a_span_of_days() {
        let date = |text| PartialDate::parse(text).unwrap();
        assert_eq!(date("2024-02").last(), date("2024-02-29").first());
        assert_eq!(
            (date("1985").first(), date("1985").last()),
            (date("1985-01-01").first(), date("1985-12-31").last())
        );
        assert!(date("1985").last() < date("1986").first());
    }
}
