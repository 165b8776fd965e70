//! One word of a name: its letters as ASCII, a standard spelling where there are several, and its sound.

use deunicode::deunicode_char;

use super::MAX_WORDS;
use super::sound::Sound;
use super::variants::standard_spelling;

/// The most letters of a word that count.
pub const MAX_WORD_BYTES: usize = 32;

/// A word of a name, or of what is searched: `a` to `z` and digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameWord {
    text: Box<str>,
    standard: Option<&'static str>,
    sound: Sound,
}

impl NameWord {
    /// Makes a word of folded letters.
    #[must_use]
    pub(crate) fn of_letters(letters: &str) -> Self {
        let standard = standard_spelling(letters);
        Self { text: letters.into(), standard, sound: Sound::of(standard.unwrap_or(letters)) }
    }

    /// The word as it is spelled.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The word in the standard spelling of its name: `muhammad` for `mohammed`.
    #[must_use]
    pub fn standard(&self) -> &str {
        self.standard.unwrap_or(&self.text)
    }

    /// How the word sounds.
    #[must_use]
    pub fn sound(&self) -> Sound {
        self.sound
    }
}

/// The words of a text in their order, at most [`MAX_WORDS`] of at most [`MAX_WORD_BYTES`] letters.
///
/// Letters of other scripts are transliterated. An apostrophe joins (`O'Brien`), every other sign separates.
#[must_use]
pub fn folded_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut is_arabic_article = false;
    for sign in text.chars() {
        if sign.is_ascii_alphanumeric() {
            push(&mut word, sign.to_ascii_lowercase());
        } else if is_joining(sign) {
            continue;
        } else if sign.is_ascii() {
            end(&mut word, &mut words);
        } else if let ('\u{644}', true) = (sign, is_arabic_article) {
            // The article is written as one with its word. It is set apart, as `al-` is in Latin script.
            word.push_str("al");
            end(&mut word, &mut words);
        } else if sign.is_alphanumeric() {
            transliterate(sign, &mut word);
        } else {
            end(&mut word, &mut words);
        }
        is_arabic_article = sign == '\u{627}' && word.is_empty();
        if words.len() >= MAX_WORDS {
            break;
        }
    }
    end(&mut word, &mut words);
    words.truncate(MAX_WORDS);
    words
}

fn push(word: &mut String, sign: char) {
    if word.len() < MAX_WORD_BYTES {
        word.push(sign);
    }
}

fn end(word: &mut String, words: &mut Vec<String>) {
    if !word.is_empty() {
        words.push(std::mem::take(word));
    }
}

/// Apostrophes of all kinds, marks that stand on a letter, and signs without a width.
fn is_joining(sign: char) -> bool {
    matches!(sign, '\'' | '`' | '\u{b4}' | '\u{2b0}'..='\u{36f}' | '\u{2018}'..='\u{201b}' | '\u{2032}')
        || matches!(sign, '\u{64b}'..='\u{65f}' | '\u{670}' | '\u{640}' | '\u{200b}'..='\u{200f}' | '\u{ad}')
}

/// Letters of other scripts. Soft and hard signs, and the breathings of Semitic scripts, have no letter.
fn transliterate(sign: char, word: &mut String) {
    match sign {
        // What the table of the crate spells otherwise than names are spelled.
        'ü' | 'Ü' => push(word, 'u'),
        'ç' | 'Ç' => push(word, 's'),
        'й' | 'Й' => push(word, 'i'),
        'ю' | 'Ю' => "yu".chars().for_each(|letter| push(word, letter)),
        'я' | 'Я' => "ya".chars().for_each(|letter| push(word, letter)),
        'ё' | 'Ё' => "yo".chars().for_each(|letter| push(word, letter)),
        '\u{629}' | '\u{649}' => push(word, 'a'),
        _ => {
            let letters = deunicode_char(sign).unwrap_or_default().bytes().filter(u8::is_ascii_alphanumeric);
            letters.for_each(|letter| push(word, char::from(letter.to_ascii_lowercase())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lose_accents_case_script_and_punctuation() {
        for (text, words) in [
            ("José María", &["jose", "maria"][..]),
            ("Jose\u{301}", &["jose"]),
            ("O'Brien", &["obrien"]),
            ("D’Angelo", &["dangelo"]),
            ("García-López", &["garcia", "lopez"]),
            ("Ñandú", &["nandu"]),
            ("Gonçalves", &["gonsalves"]),
            ("Łukasz Strauß", &["lukasz", "strauss"]),
            ("de la Cruz", &["de", "la", "cruz"]),
            ("Иванов", &["ivanov"]),
            ("Наталья Щербакова", &["natalya", "shcherbakova"]),
            ("محمد", &["mhmd"]),
            ("مُحَمَّد", &["mhmd"]),
            ("الحسن", &["al", "hsn"]),
            ("ʿAlī al-Ḥasan", &["ali", "al", "hasan"]),
            ("北京", &["beijing"]),
            ("J. R. 2nd", &["j", "r", "2nd"]),
            (" ,.; ", &[]),
        ] {
            assert_eq!(folded_words(text), words, "{text}");
        }
    }

    #[test]
    fn long_words_and_many_words_are_cut() {
        let text = "a".repeat(100) + &" b".repeat(100);
        let words = folded_words(&text);
        assert_eq!(words.len(), MAX_WORDS);
        assert_eq!(words[0].len(), MAX_WORD_BYTES);
    }
}
