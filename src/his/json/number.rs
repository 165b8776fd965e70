//! Numbers by their digits: the grammar, the bounds, and equality without floating point.

use crate::fields::MAX_NUMBER_LENGTH;

/// Largest exponent that is accepted. jsonb could hold 131,071, but writes such a number out in full: nine characters
/// would come back as 131,072.
const MAX_EXPONENT: i64 = 1000;

/// Whether jsonb holds this number, and at a reasonable length. The grammar was checked by the parser.
pub(super) fn is_within_bounds(number: &str) -> bool {
    let exponent = number.split_once(['e', 'E']).map_or(Some(0), |(_, exponent)| parse_exponent(exponent));
    number.len() <= MAX_NUMBER_LENGTH && exponent.is_some_and(|exponent| exponent.abs() <= MAX_EXPONENT)
}

fn parse_exponent(digits: &str) -> Option<i64> {
    digits.strip_prefix('+').unwrap_or(digits).parse().ok()
}

/// A decimal number in its only canonical form: no zeros at either end of the digits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
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
