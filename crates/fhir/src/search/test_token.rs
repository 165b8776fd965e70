//! The tests of tokens: identifiers and telephone numbers (R4, 3.1.1.4.11; IHE ITI TF-2, appendix Z.2.2).

use crate::values::SystemIdentifier;

/// One test of the identifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentifierTest {
    /// `value`: of any system.
    Value(String),
    /// `system|value`
    Both(String, String),
    /// `system|`: any of the system. It also says which identifiers the answer shows.
    System(String),
    /// `|value`: without a system. No identifier of a Patient is.
    NoSystem,
}

impl IdentifierTest {
    /// Reads a token, whose parts are not yet unescaped. `None` if it is none.
    pub(super) fn parse(token: &str) -> Option<Self> {
        let parts: Vec<String> = split(token, '|').iter().map(|part| unescaped(part)).collect();
        match parts.as_slice() {
            [value] if !value.is_empty() => Some(Self::Value(value.clone())),
            [system, value] => match (system.is_empty(), value.is_empty()) {
                (true, true) => None,
                (true, false) => Some(Self::NoSystem),
                (false, true) => Some(Self::System(system.clone())),
                (false, false) => Some(Self::Both(system.clone(), value.clone())),
            },
            _ => None,
        }
    }

    /// The system, if the test asks for nothing else.
    pub(super) fn domain(&self) -> Option<&str> {
        match self {
            Self::System(system) => Some(system),
            Self::Value(_) | Self::Both(..) | Self::NoSystem => None,
        }
    }

    /// Whether one of the identifiers fulfils it.
    #[must_use]
    pub fn accepts(&self, identifiers: &[SystemIdentifier]) -> bool {
        identifiers.iter().any(|SystemIdentifier { system, value }| match self {
            Self::Value(wanted) => value == wanted,
            Self::Both(wanted, number) => system.as_str() == wanted && value == number,
            Self::System(wanted) => system.as_str() == wanted,
            Self::NoSystem => false,
        })
    }
}

/// The digits of a telephone number of a token: `value`, `phone|value`, `|value`. `Some(None)` if it is of another kind.
pub(super) fn phone_test(token: &str) -> Option<Option<String>> {
    let parts: Vec<String> = split(token, '|').iter().map(|part| unescaped(part)).collect();
    let (is_phone, value) = match parts.as_slice() {
        [value] => (true, value),
        [system, value] => (matches!(system.as_str(), "phone" | "sms" | ""), value),
        _ => return None,
    };
    (!value.is_empty()).then(|| Some(phone_digits(value)).filter(|digits| is_phone && !digits.is_empty()))
}

/// The digits of a number. A plus sign before them does not count.
pub(super) fn phone_digits(number: &str) -> String {
    number.chars().filter(char::is_ascii_digit).collect()
}

/// The parts between separators that are not escaped (R4, 3.1.1.4.6). Escapes stay.
pub(super) fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut begin, mut is_escaped) = (Vec::new(), 0, false);
    for (at, sign) in text.char_indices() {
        if sign == separator && !is_escaped {
            parts.push(text.get(begin..at).unwrap_or_default());
            begin = at + sign.len_utf8();
        }
        is_escaped = sign == '\\' && !is_escaped;
    }
    parts.push(text.get(begin..).unwrap_or_default());
    parts
}

/// A value without its escapes: `\,`, `\|`, `\$` and `\\`.
pub(super) fn unescaped(text: &str) -> String {
    let (mut plain, mut signs) = (String::new(), text.chars().peekable());
    while let Some(sign) = signs.next() {
        let next = if sign == '\\' { signs.next_if(|next| matches!(next, ',' | '|' | '$' | '\\')) } else { None };
        plain.push(next.unwrap_or(sign));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::SystemUri;

    #[test]
    fn a_token_has_a_system_a_value_or_both() {
        let known = [SystemIdentifier { system: SystemUri::parse("urn:oid:1.2").unwrap(), value: "A|1,2".into() }];
        for (token, accepted) in [
            (r"A\|1\,2", true),
            (r"urn:oid:1.2|A\|1\,2", true),
            ("urn:oid:1.2|", true),
            ("urn:oid:1.3|", false),
            (r"urn:oid:1.3|A\|1\,2", false),
            (r"|A\|1\,2", false),
            ("a|1", false),
        ] {
            assert_eq!(IdentifierTest::parse(token).unwrap().accepts(&known), accepted, "{token}");
        }
        for token in ["", "|", "a|b|c"] {
            assert_eq!(IdentifierTest::parse(token), None, "{token}");
        }
    }

    #[test]
    fn separators_that_are_escaped_separate_nothing() {
        assert_eq!(split(r"a\,b,c\\,d", ','), [r"a\,b", r"c\\", "d"]);
        assert_eq!(unescaped(r"a\,b\\c\xd\"), r"a,b\c\xd\");
        assert_eq!(phone_test("phone|+34 928-1"), Some(Some("349281".into())));
        assert_eq!(phone_test("email|a@b.c"), Some(None));
        assert_eq!((phone_test("phone|"), phone_test("a|b|c")), (None, None));
    }
}
