//! The test of a date: a prefix and a date, each of which is a span of days (R4, 3.1.1.4.7 and 3.1.1.4.10).

use crate::values::PartialDate;

/// How the span of the person is compared with that of the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DatePrefix {
    Eq,
    Ne,
    Gt,
    Lt,
    Ge,
    Le,
    Sa,
    Eb,
    Ap,
}

/// One test of a date of birth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateTest {
    prefix: DatePrefix,
    date: PartialDate,
}

const PREFIXES: [(&str, DatePrefix); 9] = [
    ("eq", DatePrefix::Eq),
    ("ne", DatePrefix::Ne),
    ("gt", DatePrefix::Gt),
    ("lt", DatePrefix::Lt),
    ("ge", DatePrefix::Ge),
    ("le", DatePrefix::Le),
    ("sa", DatePrefix::Sa),
    ("eb", DatePrefix::Eb),
    ("ap", DatePrefix::Ap),
];

impl DateTest {
    /// Reads a value such as `ge1985-10`. `None` if it is no date with a prefix.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let named = PREFIXES.into_iter().find_map(|(name, prefix)| Some((prefix, value.strip_prefix(name)?)));
        let (prefix, date) = named.unwrap_or((DatePrefix::Eq, value));
        Some(Self { prefix, date: PartialDate::parse(date)? })
    }

    /// The date, if the test asks for the dates within it and no others.
    #[must_use]
    pub fn equals(self) -> Option<PartialDate> {
        (self.prefix == DatePrefix::Eq).then_some(self.date)
    }

    /// Whether a date fulfils it.
    #[must_use]
    pub fn accepts(self, date: PartialDate) -> bool {
        let (first, last) = (self.date.first(), self.date.last());
        let contains = first <= date.first() && date.last() <= last;
        match self.prefix {
            DatePrefix::Eq => contains,
            DatePrefix::Ne => !contains,
            DatePrefix::Gt => date.last() > last,
            DatePrefix::Lt => date.first() < first,
            DatePrefix::Ge => date.last() > last || contains,
            DatePrefix::Le => date.first() < first || contains,
            DatePrefix::Sa => date.first() > last,
            DatePrefix::Eb => date.last() < first,
            // R4 leaves it to the server. There is no clock here, so the span is not a part of the person's age.
            DatePrefix::Ap => first.earlier(1) <= date.last() && date.first() <= last.later(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R4, 3.1.1.4.7: the table of prefixes, over spans.
    #[test]
    fn prefixes_compare_spans_of_days() {
        #[rustfmt::skip]
        let cases = [
            // search       date of birth  accepted
            ("1985-10-04",  "1985-10-04",  true),
            ("1985-10-04",  "1985-10",     false),
            ("1985",        "1985-10-04",  true),
            ("eq1985-10",   "1985-11-01",  false),
            ("ne1985-10",   "1985-11-01",  true),
            ("ne1985",      "1985-10-04",  false),
            ("gt1985-10-04","1985-10-04",  false),
            ("gt1985-10-04","1985-10-05",  true),
            ("gt1985-10-04","1985",        true),
            ("lt1985-10-04","1985",        true),
            ("lt1985-10-04","1985-10-04",  false),
            ("ge1985-10-04","1985-10-04",  true),
            ("ge1985-10-04","1985-10-03",  false),
            ("le1985",      "1985-12-31",  true),
            ("le1985",      "1986-01-01",  false),
            ("sa1985",      "1985-12-31",  false),
            ("sa1985",      "1986",        true),
            ("eb1985-02",   "1985-01-31",  true),
            ("eb1985-02",   "1985",        false),
            ("ap1985-10-04","1986-10-04",  true),
            ("ap1985-10-04","1986-10-05",  false),
            ("ap1985",      "1984-01-01",  true),
            ("ap1985",      "1983-12-31",  false),
        ];
        for (search, date, accepted) in cases {
            let test = DateTest::parse(search).unwrap();
            assert_eq!(test.accepts(PartialDate::parse(date).unwrap()), accepted, "{search} {date}");
        }
        for value in ["", "ge", "xx1985", "1985-13", "GE1985", "1985-10-04T10:00:00Z", "ge ge1985"] {
            assert_eq!(DateTest::parse(value), None, "{value}");
        }
    }
}
