//! Quotes words of a command line that is shown to be copied into a shell.
//!
//! The one rule: the pasted text is one word of the shell and means the original text, whatever characters that
//! has.

use std::borrow::Cow;

use fedgate_core::escape;

/// A text as one word of a shell. Invisible characters are in the quotes that bash, zsh and ksh read (POSIX.1-2024,
/// 2.2.4).
pub(crate) fn quoted(text: &str) -> Cow<'_, str> {
    let is_plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ',' | ':' | '/' | '@' | '+' | '%');
    if !text.is_empty() && text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    if !text.chars().any(escape::is_unseen) {
        return Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")));
    }
    let mut word = String::from("$'");
    for c in text.chars() {
        match c {
            '\\' | '\'' => word.extend(['\\', c]),
            // As bytes, which every locale reads alike.
            c if escape::is_unseen(c) => {
                c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| word.push_str(&format!("\\{byte:03o}")));
            }
            c => word.push(c),
        }
    }
    word.push('\'');
    Cow::Owned(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_a_quoted_text_as_the_text_itself() {
        for text in [
            "ANA",
            "-x",
            "",
            "two words",
            "it's",
            "$HOME `id` \\ \"",
            "nl\nx",
            "tab\t'\\",
            "\u{202e}nimda",
            "Pi\u{f1}a",
            "\u{1b}[31m7",
        ] {
            let word = quoted(text);
            assert!(!word.chars().any(escape::is_unseen), "{word}");
            let shell = std::process::Command::new("bash").args(["-c", &format!("printf %s {word}")]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&shell.stdout), text, "{word}");
        }
        assert_eq!((quoted("-x").as_ref(), quoted("").as_ref(), quoted("a b").as_ref()), ("-x", "''", "'a b'"));
    }
}
