//! How far two dates of birth agree.

use super::distance;
use super::level::Level;
use crate::fold::BirthDate;

/// How many years an estimate may be wrong.
const YEARS: u16 = 2;

pub(super) fn level(one: BirthDate, other: BirthDate) -> Level {
    let year = one.year() == other.year();
    if one.is_estimated() || other.is_estimated() {
        // Two of the first of January agree in the year, and hardly in the day.
        return match one.year().abs_diff(other.year()) {
            0 => Level::Year,
            1..=YEARS => Level::NearYear,

            _ => Level::Different,
        };
    }
    if !one.is_whole() || !other.is_whole() {
        return match (year, one.month() == other.month()) {
            (true, true) => Level::Month,
            (true, false) => Level::Far,
            (false, _) => Level::Different,
        };
    }
    if one == other {
        Level::Same
    } else if year && one.month() == other.day() && one.day() == other.month() {
        Level::Swapped
    } else {
        of_digits(one, other)
    }
}

/// Dates that were typed wrong.
fn of_digits(one: BirthDate, other: BirthDate) -> Level {
    let year = one.year() == other.year();
    let same = [year, one.month() == other.month(), one.day() == other.day()];
    if is_one_error(one, other) {
        Level::Close
    } else if same.iter().filter(|same| **same).count() == 2 {
        Level::Near
    } else if year {
        Level::Far
    } else {
        Level::Different
    }
}

fn is_one_error(one: BirthDate, other: BirthDate) -> bool {
    let (digits, others) = (one.digits(), other.digits());
    let texts = (std::str::from_utf8(&digits), std::str::from_utf8(&others));
    matches!(texts, (Ok(one), Ok(other)) if distance(one, other, 1).is_some())
}
