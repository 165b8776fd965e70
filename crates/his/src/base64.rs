//! Base64 (RFC 4648, section 4) in a JSON string, decoded as it arrives.
//!
//! The one rule: it is as strict as decoding the whole text at once. Only the alphabet, its padding, and nothing
//! after the padding are accepted.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The value is not base64.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotBase64;

/// A value that is arriving: a JSON string as it is written, or `null`.
#[derive(Debug, Default)]
pub(super) struct Base64Decoder {
    written: DecodedBytes,
    /// Characters that do not form a whole group yet.
    group: Vec<u8>,
    is_padded: bool,
}

/// The position in the JSON value.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum DecodedBytes {
    #[default]
    Begin,
    Plain,
    Escape,
    /// In `\uXXXX`: the code so far, and the number of digits that are missing.
    Hex(u32, u8),
    End,
    /// In `null`.
    Word,
}

impl Base64Decoder {
    /// Takes the next bytes as they are written, and appends what they decode to.
    pub(super) fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), NotBase64> {
        for byte in bytes {
            self.written = match (self.written, byte) {
                (DecodedBytes::Begin, b'"') => DecodedBytes::Plain,
                // The scanner has checked that this is a JSON word, and only `null` begins with `n`.
                (DecodedBytes::Begin, b'n') | (DecodedBytes::Word, _) => DecodedBytes::Word,
                (DecodedBytes::Plain, b'"') => DecodedBytes::End,
                (DecodedBytes::Plain, b'\\') => DecodedBytes::Escape,
                (DecodedBytes::Plain, character) => self.character(*character)?,
                (DecodedBytes::Escape, b'/') => self.character(b'/')?,
                (DecodedBytes::Escape, b'u') => DecodedBytes::Hex(0, 4),
                (DecodedBytes::Hex(code, left), digit) => {
                    let digit = char::from(*digit).to_digit(16).ok_or(NotBase64)?;
                    match (code << 4 | digit, left) {
                        (code, 1) => self.character(u8::try_from(code).map_err(|_| NotBase64)?)?,
                        (code, left) => DecodedBytes::Hex(code, left - 1),
                    }
                }
                (DecodedBytes::Begin | DecodedBytes::Escape | DecodedBytes::End, _) => return Err(NotBase64),
            };
        }
        self.decode(out)
    }

    /// Whether there is a value other than `null`.
    pub(super) fn finish(&self) -> Result<bool, NotBase64> {
        match self.written {
            DecodedBytes::End if self.group.is_empty() => Ok(true),
            DecodedBytes::Word => Ok(false),
            DecodedBytes::Begin
            | DecodedBytes::Plain
            | DecodedBytes::Escape
            | DecodedBytes::Hex(..)
            | DecodedBytes::End => Err(NotBase64),
        }
    }

    fn character(&mut self, character: u8) -> Result<DecodedBytes, NotBase64> {
        self.group.push(character);
        Ok(DecodedBytes::Plain)
    }

    /// Decodes the groups that are complete.
    fn decode(&mut self, out: &mut Vec<u8>) -> Result<(), NotBase64> {
        let whole = self.group.len() / 4 * 4;
        let Some((groups, rest)) = self.group.split_at_checked(whole) else { return Ok(()) };
        // Nothing may follow the padding, or one document would have several spellings.
        if self.is_padded && !self.group.is_empty() {
            return Err(NotBase64);
        }
        self.is_padded |= groups.last() == Some(&b'=');
        STANDARD.decode_vec(groups, out).map_err(|_| NotBase64)?;
        self.group = rest.to_vec();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(written: &str, size: usize) -> Result<Option<Vec<u8>>, NotBase64> {
        let (mut decoder, mut out) = (Base64Decoder::default(), Vec::new());
        for part in written.as_bytes().chunks(size) {
            decoder.feed(part, &mut out)?;
        }
        Ok(decoder.finish()?.then_some(out))
    }

    #[test]
    fn decoding_agrees_with_that_of_the_whole_however_the_bytes_are_cut() {
        let cases = [
            "",
            "AAEC",
            "AAE=",
            "AA==",
            "AAECAw==",
            "A",
            "AA",
            "AAE",
            "A===",
            "AA==AAEC",
            "AAE=A",
            "AA=A",
            "AAEC=",
            "AAEC====",
            "AB==",
            "/9j/4AAQ",
            "+/+/",
            "-_-_",
            "AA EC",
            "AAE\u{e9}",
        ];
        for text in cases {
            let expected = STANDARD.decode(text).map(Some).map_err(|_| NotBase64);
            for size in 1..=text.len() + 2 {
                assert_eq!(decode(&format!("\"{text}\""), size), expected, "{text} by {size}");
            }
        }
        assert_eq!(decode(r#""\/9j\u002f4\u0041AQ""#, 3), decode("\"/9j/4AAQ\"", 100));
        assert_eq!(decode("null", 1), Ok(None));
        for text in ["\"\\n\"", "\"\\u0141AAA\"", "7", "true", "\"AAEC\\n\""] {
            assert_eq!(decode(text, 2), Err(NotBase64), "{text}");
        }
    }
}
