//! Dates of birth, whole or in part.

/// A date of birth as it was written: year, perhaps month, perhaps day. It need not be a day of the calendar, because
/// a mistyped date is still compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BirthDate {
    year: u16,
    month: u8,
    day: u8,
}

impl BirthDate {
    /// Reads `YYYY`, `YYYY-MM`, `YYYY-MM-DD` (also with `/` or `.`), `YYYYMMDD`, and a date with a time after it.
    ///
    /// A date that does not begin with its year has two readings, and none is taken.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let date = text.split(['T', ' ']).next()?;
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u16>().ok())?;
        let mut parts = date.split(['-', '/', '.']);
        let (year, month, day) = match (parts.next()?, parts.next(), parts.next(), parts.next()) {
            (whole, None, ..) if whole.len() == 8 => (whole.get(..4)?, whole.get(4..6), whole.get(6..)),
            (year, month, day, None) => (year, month, day),
            _ => return None,
        };
        let small = |part: Option<&str>| match part {
            None => Some(0),
            Some(part) if (1..=2).contains(&part.len()) => u8::try_from(digits(part)?).ok(),
            Some(_) => None,
        };
        let (year, month, day) =
            (Some(year).filter(|year| year.len() == 4).and_then(digits)?, small(month)?, small(day)?);
        // A day without a month tells nothing.
        (year > 0).then_some(Self { year, month, day: if month == 0 { 0 } else { day } })
    }

    /// The year.
    #[must_use]
    pub fn year(self) -> u16 {
        self.year
    }

    /// The month, if it is known.
    #[must_use]
    pub fn month(self) -> Option<u8> {
        (self.month > 0).then_some(self.month)
    }

    /// The day, if it is known.
    #[must_use]
    pub fn day(self) -> Option<u8> {
        (self.day > 0).then_some(self.day)
    }

    /// Whether year, month and day are known.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.month > 0 && self.day > 0
    }

    /// Whether the date may stand for a year only: it has no month, or is the first of January.
    #[must_use]
    pub fn is_estimated(self) -> bool {
        self.month == 0 || (self.month, self.day) == (1, 1)
    }

    /// The eight digits of the date; missing parts are `00`.
    #[must_use]
    pub fn digits(self) -> [u8; 8] {
        let year = self.year;
        let pairs = [(year / 100 % 100) as u8, (year % 100) as u8, self.month % 100, self.day % 100];
        let [a, b, c, d] = pairs.map(|pair| [b'0' + pair / 10, b'0' + pair % 10]);
        [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]]
    }

    /// The date as a number: the digits read as one. It is part of stored keys.
    #[must_use]
    pub fn number(self) -> u64 {
        (u64::from(self.year) * 100 + u64::from(self.month)) * 100 + u64::from(self.day)
    }

    /// The date of a [number](Self::number).
    pub(super) fn of_number(number: u64) -> Option<Self> {
        let pair = |number: u64| u8::try_from(number % 100).ok();
        let year = u16::try_from(number / 10_000).ok()?;
        (year > 0).then_some(Self { year, month: pair(number / 100)?, day: pair(number)? })
    }

    /// The date as far as it is known, and without its day, and without its month.
    pub(crate) fn with_parts(self) -> impl Iterator<Item = Self> {
        let month = (self.day > 0).then_some(Self { day: 0, ..self });
        let year = (self.month > 0).then_some(Self { day: 0, month: 0, ..self });
        [Some(self), month, year].into_iter().flatten()
    }

    /// Whether the known parts of `part` are those of this date.
    #[must_use]
    pub fn has(self, part: Self) -> bool {
        self.year == part.year
            && (part.month == 0 || part.month == self.month)
            && (part.day == 0 || part.day == self.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_whole_or_in_part_or_not_at_all() {
        for (text, number) in [
            ("1985-10-04", Some(19851004)),
            ("1985/10/4", Some(19851004)),
            ("19851004", Some(19851004)),
            ("1985-10-04T13:05:00Z", Some(19851004)),
            ("1985-10", Some(19851000)),
            ("1985", Some(19850000)),
            ("1985-00-00", Some(19850000)),
            ("1985-13-45", Some(19851345)),
            ("04-10-1985", None),
            ("4/10/1985", None),
            ("85-10-04", None),
            ("1985-10-04-01", None),
            ("1985-1x", None),
            ("0000", None),
            ("", None),
        ] {
            assert_eq!(BirthDate::parse(text).map(BirthDate::number), number, "{text}");
        }
    }

    #[test]
    fn a_year_and_the_first_of_january_may_be_estimates() {
        for (text, is_estimated) in [("1985", true), ("1985-01-01", true), ("1985-01", false), ("1985-10-04", false)] {
            assert_eq!(BirthDate::parse(text).unwrap().is_estimated(), is_estimated, "{text}");
        }
    }

    #[test]
    fn a_part_is_found_in_its_dates() {
        let date = BirthDate::parse("1985-10-04").unwrap();
        for (part, has) in
            [("1985", true), ("1985-10", true), ("1985-10-04", true), ("1985-11", false), ("1984", false)]
        {
            assert_eq!(date.has(BirthDate::parse(part).unwrap()), has, "{part}");
        }
        assert_eq!(&date.digits(), b"19851004");
    }
}
