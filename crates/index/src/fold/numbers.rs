//! Gender, telephone numbers, postal codes and identifiers in one form each.

use crate::fields::Identifier;

use super::word::folded_words;

/// The digits of a telephone number that count: the last ones, as the country may be missing.
const PHONE_DIGITS: usize = 9;
/// A number with fewer digits is not one person's.
const MIN_PHONE_DIGITS: usize = 6;
/// The most signs of a postal code and of an identifier.
const MAX_CODE_BYTES: usize = 64;
/// An identifier with fewer signs identifies nobody.
const MIN_IDENTIFIER_BYTES: usize = 4;

/// A gender that two records can agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FoldedGender {
    /// Female.
    Female,
    /// Male.
    Male,
    /// Another one.
    Other,
}

impl FoldedGender {
    /// Reads the letters and words of FHIR, GNU Health, Spanish and Portuguese. `unknown` is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let words = folded_words(text);
        let [word] = words.as_slice() else { return None };
        match word.as_str() {
            "f" | "female" | "femenino" | "feminino" | "mujer" | "mulher" | "woman" | "w" => Some(Self::Female),
            "m" | "male" | "masculino" | "hombre" | "homem" | "varon" | "man" => Some(Self::Male),
            "other" | "otro" | "outro" | "o" | "x" | "nonbinary" => Some(Self::Other),
            _ => None,
        }
    }
}

/// An identifier in one form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FoldedIdentifier {
    /// The number: lower-case letters and digits.
    pub value: Box<str>,
    /// The system; empty if it is unknown.
    pub system: Box<str>,
}

impl FoldedIdentifier {
    /// Folds an identifier. One of zeros, or of fewer than four signs, is none.
    #[must_use]
    pub fn of(identifier: &Identifier) -> Option<Self> {
        let value = code(&identifier.value);
        let is_filler =
            value.len() < MIN_IDENTIFIER_BYTES || value.bytes().all(|sign| Some(&sign) == value.as_bytes().first());
        let system = identifier.system.as_deref().unwrap_or_default().trim().to_lowercase();
        let system = system.chars().filter(|sign| !sign.is_control()).collect();
        (!is_filler).then_some(Self { value, system })
    }
}

/// The letters and digits of a code. Other scripts are transliterated.
pub(crate) fn code(text: &str) -> Box<str> {
    let mut code = String::new();
    for sign in text.chars().filter(|sign| sign.is_alphanumeric()) {
        let folded = if sign.is_ascii() { None } else { deunicode::deunicode_char(sign) };
        match folded {
            None => code.push(sign.to_ascii_lowercase()),
            Some(letters) => {
                code.extend(letters.chars().filter(char::is_ascii_alphanumeric).map(|sign| sign.to_ascii_lowercase()))
            }
        }
    }
    code.truncate(code.floor_char_boundary(MAX_CODE_BYTES));
    code.into()
}

/// The last digits of a telephone number.
pub(super) fn phone(text: &str) -> Option<Box<str>> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_digit).collect();
    let is_filler = digits.len() < MIN_PHONE_DIGITS || digits.iter().all(|digit| Some(digit) == digits.first());
    let last = digits.get(digits.len().saturating_sub(PHONE_DIGITS)..)?;
    (!is_filler).then(|| last.iter().map(|digit| char::from(*digit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn genders_are_known_by_letter_and_word() {
        for (text, gender) in [
            ("f", Some(FoldedGender::Female)),
            ("Mujer", Some(FoldedGender::Female)),
            ("MALE", Some(FoldedGender::Male)),
            ("varón", Some(FoldedGender::Male)),
            ("other", Some(FoldedGender::Other)),
            ("unknown", None),
            ("", None),
            ("m f", None),
        ] {
            assert_eq!(FoldedGender::parse(text), gender, "{text}");
        }
    }

    #[test]
    fn a_number_is_the_same_with_and_without_its_country() {
        for text in ["+34 952 12 34 56", "0034952123456", "952123456", "(952) 123-456"] {
            assert_eq!(phone(text).as_deref(), Some("952123456"), "{text}");
        }
        for filler in ["", "12345", "000000000", "no phone"] {
            assert_eq!(phone(filler), None, "{filler}");
        }
    }

    #[test]
    fn an_identifier_is_its_letters_and_digits() {
        let folded = |value: &str| {
            FoldedIdentifier::of(&Identifier { system: Some(" DNI".into()), value: value.into() })
                .map(|known| known.value)
        };
        assert_eq!(folded("12.345.678-Z").as_deref(), Some("12345678z"));
        assert_eq!(folded("١٢٣٤٥٦").as_deref(), Some("123456"));
        for filler in ["0000000", "abc", "----", "xxxx"] {
            assert_eq!(folded(filler), None, "{filler}");
        }
    }
}
