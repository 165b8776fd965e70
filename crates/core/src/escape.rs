//! Shows text from outside: characters that control a terminal, or hide part of a text, appear as escapes.
//!
//! Operators read names of a policy, ids and paths, and act on them. A direction override makes `nimda` look like
//! `admin`, and a zero-width character makes two names look like one (Unicode TR 36; "Trojan Source", CVE-2021-42574).
//! So the one rule: shown text is one line, and each of its characters is visible.
//!
//! The operator's commands call it for everything they print, and so do messages that quote a file. It knows neither
//! of them.

use std::borrow::Cow;

/// The longest part of a name that a message quotes, in characters, where the name has no bound of its own.
pub const NAME_CHARACTERS: usize = 64;

/// The text on one line, every character visible.
///
/// ```
/// use fedgate_core::escape::shown;
///
/// assert_eq!(shown("\u{202e}nimda\n"), "\\u{202e}nimda\\n");
/// assert_eq!(shown("Γεωργία"), "Γεωργία");
/// ```
pub fn shown(text: &str) -> Cow<'_, str> {
    escaped(text, |shown, c| shown.extend(c.escape_default()))
}

/// As [`shown`], for a name: at most [`NAME_CHARACTERS`], then `…`.
pub fn name(text: &str) -> Cow<'_, str> {
    start(text, NAME_CHARACTERS)
}

/// As [`shown`], for any text: at most `characters` of it, then `…`.
pub fn start(text: &str, characters: usize) -> Cow<'_, str> {
    match text.char_indices().nth(characters) {
        None => shown(text),
        Some((end, _)) => Cow::Owned(format!("{}…", shown(text.get(..end).unwrap_or_default()))),
    }
}

/// The same JSON document with every character visible. Only strings can hold invisible characters, and a string may
/// escape any character (RFC 8259, 7).
pub fn json(text: &str) -> Cow<'_, str> {
    escaped(text, |json, c| {
        c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| json.push_str(&format!("\\u{unit:04x}")));
    })
}

/// Replaces each invisible character by what `escape` writes for it.
fn escaped(text: &str, escape: impl Fn(&mut String, char)) -> Cow<'_, str> {
    if !text.contains(is_unseen) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match is_unseen(c) {
            true => escape(&mut escaped, c),
            false => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Whether a character controls the terminal, changes the direction of text, begins a line, or has no width. These are
/// the controls (C0, DEL, C1), the characters that Unicode lets a program ignore (UAX 44,
/// `Default_Ignorable_Code_Point`), the line and paragraph separators, the annotation marks, and the blank Braille
/// pattern.
pub fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_character_of_what_is_shown_is_seen() {
        #[rustfmt::skip]
        let cases = [
            ("",                          ""),
            ("Müller Ñ 氏名 \\ \" `",      "Müller Ñ 氏名 \\ \" `"),
            ("a\nb\r\tc",                 "a\\nb\\r\\tc"),
            ("\u{1b}[31m\u{7f}\u{9b}2J",  "\\u{1b}[31m\\u{7f}\\u{9b}2J"),
            ("\u{202e}nimda\u{202c}",     "\\u{202e}nimda\\u{202c}"),
            ("\u{2066}a\u{2069}\u{61c}",  "\\u{2066}a\\u{2069}\\u{61c}"),
            ("\u{200e}\u{200f}",          "\\u{200e}\\u{200f}"),
            ("ro\u{200b}ot\u{200d}\u{feff}\u{ad}", "ro\\u{200b}ot\\u{200d}\\u{feff}\\u{ad}"),
            ("a\u{2028}b\u{2029}c",       "a\\u{2028}b\\u{2029}c"),
            ("\u{e0041}",                 "\\u{e0041}"),
            ("a\u{2800}b",                "a\\u{2800}b"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected);
            assert_eq!(shown(expected), expected, "what is shown is shown as it is");
        }
    }

    #[test]
    fn a_name_is_cut_where_it_is_longer_than_a_message_should_be() {
        let whole = "é".repeat(NAME_CHARACTERS);
        assert_eq!(name(&whole), whole);
        assert_eq!(name(&format!("{whole}x")), format!("{whole}…"));
        assert_eq!(start("\u{202e}abc", 2), "\\u{202e}a…");
    }

    #[test]
    fn json_holds_the_same_and_shows_all_of_it() {
        let value = serde_json::json!({ "role\u{202e}": ["a\nb\u{7f}", "\u{e0041}\u{200b}é"] });
        let text = value.to_string();
        let shown = json(&text);
        assert!(!shown.contains(is_unseen) && shown.contains("\\u202e") && shown.contains('é'), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
