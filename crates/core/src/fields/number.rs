//! Numbers that every reader takes for the same value.
//!
//! The one rule: a number from a client has at most [`MAX_DIGITS`] digits when written out without an exponent. So it
//! stays within the range of an IEEE double, in which most readers keep numbers (RFC 8259, section 6). And a database
//! that writes numbers out, as jsonb does, cannot turn six characters into a thousand.

use super::MAX_NUMBER_LENGTH;

/// The most digits of a number when written out.
pub const MAX_DIGITS: u64 = 64;

/// Which part of a number the next digit belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum NumberPart {
    #[default]
    Whole,
    Fraction,
    Exponent,
}

/// Counts the digits of one number as its characters come. The grammar is checked elsewhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct DigitCount {
    part: NumberPart,
    length: usize,
    whole: i64,
    fraction: i64,
    /// Zeros before the first other digit, on both sides of the point.
    leading: i64,
    is_zero_so_far: bool,
    exponent: i64,
    is_exponent_negative: bool,
}

impl DigitCount {
    /// Starts without any character.
    pub fn new() -> Self {
        Self { is_zero_so_far: true, ..Self::default() }
    }

    /// Counts the digits of a whole number.
    pub fn of(number: &str) -> Self {
        let mut count = Self::new();
        number.bytes().for_each(|byte| count.push(byte));
        count
    }

    /// Takes the next character.
    pub fn push(&mut self, byte: u8) {
        // Far above every bound, and far below an overflow.
        const ENOUGH: i64 = 1_000_000_000;
        self.length = self.length.saturating_add(1);
        match (self.part, byte) {
            (NumberPart::Whole, b'.') => self.part = NumberPart::Fraction,
            (NumberPart::Whole | NumberPart::Fraction, b'e' | b'E') => self.part = NumberPart::Exponent,
            (NumberPart::Exponent, b'-') => self.is_exponent_negative = true,
            (NumberPart::Exponent, b'0'..=b'9') => {
                self.exponent = (self.exponent * 10 + i64::from(byte - b'0')).min(ENOUGH);
            }
            (NumberPart::Whole | NumberPart::Fraction, b'0'..=b'9') => {
                self.is_zero_so_far &= byte == b'0';
                self.leading += i64::from(self.is_zero_so_far);
                let digits = if self.part == NumberPart::Whole { &mut self.whole } else { &mut self.fraction };
                *digits = (*digits + 1).min(ENOUGH);
            }
            _ => {}
        }
    }

    /// The digits of the number when PostgreSQL's `numeric` writes it out. Zeros at the end of a fraction count.
    fn written_out(&self) -> u64 {
        let exponent = if self.is_exponent_negative { -self.exponent } else { self.exponent };
        let whole = if self.is_zero_so_far { 1 } else { (self.whole + exponent - self.leading).max(1) };
        let fraction = (self.fraction - exponent).max(0);
        u64::try_from(whole + fraction).unwrap_or(u64::MAX)
    }

    /// Whether every reader takes the number for the same value.
    pub fn is_read_alike(&self) -> bool {
        self.length <= MAX_NUMBER_LENGTH && self.written_out() <= MAX_DIGITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_counted_as_they_are_written_out() {
        #[rustfmt::skip]
        let cases = [
            ("0", 1), ("-0", 1), ("0.00", 3), ("0e1000", 1), ("0e-5", 6), ("1", 1), ("-12.50", 4), ("1e63", 64), ("1e64", 65),
            ("1E+2", 3), ("1e308", 309), ("1e-63", 64), ("1e-64", 65), ("1e-1000", 1001), ("0.00001e10", 6), ("12.5e-1", 3),
            ("100e-2", 3), ("0.001", 4), ("123456789012345678901234567890.000000000000000000001", 51),
        ];
        for (number, digits) in cases {
            assert_eq!(DigitCount::of(number).written_out(), digits, "{number}");
        }
        for huge in ["1e99999999999999999999", "-1e-99999999999999999999", &"9".repeat(100_000)] {
            assert!(!DigitCount::of(huge).is_read_alike());
        }
        assert!(
            !DigitCount::of(&format!("1e{}1", "0".repeat(MAX_NUMBER_LENGTH))).is_read_alike(),
            "nor too long as it stands"
        );
    }

    #[test]
    fn a_number_that_is_read_alike_is_a_double_and_none_by_underflow() {
        for exponent in -400..400 {
            let number = format!("1e{exponent}");
            if DigitCount::of(&number).is_read_alike() {
                let double: f64 = number.parse().unwrap();
                assert!(double.is_normal(), "{number}");
            }
        }
    }
}
