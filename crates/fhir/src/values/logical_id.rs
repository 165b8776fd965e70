//! The logical id of a Patient, made of the hub's own id (R4, 2.24.0.1, `id`).

use std::fmt::{self, Write};

/// The most characters of a logical id.
const MAX_CHARACTERS: usize = 64;
/// The beginning of an id that stands for one with other characters.
const ENCODED: &str = "hex.";

/// A logical id: at most 64 letters, digits, `-` and `.`.
///
/// An id of the hub that is of this form is used as it is. Any other is `hex.` and its bytes in hexadecimal digits. So
/// no two ids of the hub have one logical id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogicalId(String);

impl LogicalId {
    /// The logical id of an id of the hub. `None` if that id is too long (30 bytes, if it has other characters).
    #[must_use]
    pub fn of(own: &str) -> Option<Self> {
        if is_plain(own) && !own.starts_with(ENCODED) {
            return Some(Self(own.to_owned()));
        }
        let mut encoded = ENCODED.to_owned();
        for byte in own.bytes() {
            // Writing to a `String` cannot fail.
            let _ = write!(encoded, "{byte:02x}");
        }
        // PostgreSQL has no text with NUL.
        is_plain(&encoded).then_some(Self(encoded)).filter(|_| !own.is_empty() && !own.contains('\0'))
    }

    /// The id of the hub that a logical id stands for. `None` if it stands for none.
    #[must_use]
    pub fn own(logical: &str) -> Option<String> {
        if !is_plain(logical) {
            return None;
        }
        let Some(digits) = logical.strip_prefix(ENCODED) else { return Some(logical.to_owned()) };
        let pairs = digits.as_bytes().chunks(2);
        let bytes: Option<Vec<u8>> =
            pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
        let own = String::from_utf8(bytes?).ok()?;
        // One spelling: what would be written otherwise is no logical id.
        Self::of(&own).is_some_and(|known| known.0 == logical).then_some(own)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_plain(text: &str) -> bool {
    let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    (1..=MAX_CHARACTERS).contains(&text.len()) && text.bytes().all(is_sign)
}

impl fmt::Display for LogicalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_of_the_hub_that_fits_has_one_logical_id_and_the_way_back() {
        let own =
            ["ESPGNU777ORG", "a.b-c", "ÑANDÚ 1", "x_y", "hex.41", "hex.", "a/b", &"A".repeat(64), &"_".repeat(30)];
        let logical: Vec<LogicalId> = own.iter().map(|own| LogicalId::of(own).unwrap()).collect();
        for (own, logical) in own.iter().zip(&logical) {
            assert!(is_plain(logical.as_str()), "{own}");
            assert_eq!(LogicalId::own(logical.as_str()).as_deref(), Some(*own));
        }
        assert_eq!(logical[0].as_str(), "ESPGNU777ORG");
        assert_eq!(logical[3].as_str(), "hex.785f79");
    }

    #[test]
    fn other_texts_are_no_logical_ids() {
        for own in ["", &"A".repeat(65), &"_".repeat(31)] {
            assert_eq!(LogicalId::of(own), None, "{own}");
        }
        // Upper case, half a byte, no UTF-8, and an id that needs no encoding.
        for logical in
            ["", "a b", "hex.785F79", "hex.785", "hex.ff", "hex.41", "hex.zz", "hex.00", "hex.6100", "hex.+1", "hex.é"]
        {
            assert_eq!(LogicalId::own(logical), None, "{logical}");
        }
    }
}
