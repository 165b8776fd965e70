//! Numbers by their digits: equality without floating point, and the spelling that both databases store.

use std::borrow::Cow;

/// The stored spelling of a number: without an exponent and without a sign of zero, as jsonb writes it. So both
/// databases return the same text.
///
/// The parser's bounds limit its length.
pub(super) fn written_out(number: &str) -> Cow<'_, str> {
    let (negative, rest) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, ""));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let is_zero = digits.bytes().all(|digit| digit == b'0');
    if exponent.is_empty() && !(negative && is_zero) {
        return Cow::Borrowed(number);
    }
    let shift = if exponent.is_empty() { 0 } else { parse_exponent(exponent).unwrap_or(i64::MAX / 2) };
    let [length, all] = [whole.len(), digits.len()].map(|length| i64::try_from(length).unwrap_or(0));
    // The exponent of a zero may be of any size, and padding by it would take that many bytes.
    let point = if is_zero { (length + shift).min(all) } else { length + shift };
    let (before, after) = match usize::try_from(point) {
        Ok(point) => match digits.split_at_checked(point) {
            Some((before, after)) => (before.to_owned(), after.to_owned()),
            None => (format!("{digits:0<point$}"), String::new()),
        },
        Err(_) => (String::new(), format!("{}{digits}", "0".repeat(usize::try_from(-point).unwrap_or(0)))),
    };
    let sign = if negative && !is_zero { "-" } else { "" };
    let before = match before.trim_start_matches('0') {
        "" => "0",
        significant => significant,
    };
    let separator = if after.is_empty() { "" } else { "." };
    Cow::Owned(format!("{sign}{before}{separator}{after}"))
}

fn parse_exponent(digits: &str) -> Option<i64> {
    digits.strip_prefix('+').unwrap_or(digits).parse().ok()
}

/// A decimal number in canonical form: no zeros at either end of the digits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct JsonDecimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl JsonDecimal {
    pub(super) fn of(number: &str) -> Self {
        let (negative, rest) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
        let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        let significant = digits.trim_end_matches('0');
        let dropped = digits.len() - significant.len();
        let shift = i64::try_from(dropped).unwrap_or(0) - i64::try_from(fraction.len()).unwrap_or(0);
        match significant.trim_start_matches('0') {
            "" => Self { negative: false, digits: String::new(), exponent: 0 },
            digits => Self {
                negative,
                digits: digits.to_owned(),
                exponent: parse_exponent(exponent).unwrap_or(i64::MAX).saturating_add(shift),
            },
        }
    }
}
