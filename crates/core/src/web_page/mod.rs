//! Pages for people: their frame, their look, and the language that they are in.
//!
//! The one rule: plain HTML that works without script, in which no text from outside stands unescaped; it looks the same,
//! whichever of the programs answers.
//!
//! Pure. Called by `his` for its pages, and by `gateway` for what it says itself where people are.

/// The sheet of styles.
pub const STYLESHEET: &str = include_str!("fedhis.css");
/// What a page may load and do, which has a link to the sheet: nothing but our own sheet and sign is loaded, no form leaves,
/// nobody frames the page.
pub const POLICY: &str =
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// The same of a page that carries the sheet: the one of this very hash (Content Security Policy, 3, 8.4.2).
pub const POLICY_OF_STYLED: &str = "default-src 'none'; style-src 'sha256-U0pZVGo9huE0cnSS0IfoQS6g/6RUnLjO7OqKnJUNYfw='; img-src 'self'; form-action 'self'; \
     frame-ancestors 'none'; base-uri 'none'";

/// Where a page has its look from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageStyle {
    /// The sheet, which is served beside it.
    Linked,
    /// Itself: whoever makes it cannot rely on the service that serves the sheet.
    Carried,
}

/// Whether an `Accept` header names a media type itself, and does not decline it (RFC 9110, 12.5.1).
pub fn asks_for(accept: &[u8], wanted: &str) -> bool {
    accept.split(|byte| *byte == b',').any(|range| {
        let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let is_wanted = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(wanted.as_bytes()));
        let declined = |part: &[u8]| matches!(part, b"q=0" | b"q=0.0" | b"q=0.00" | b"q=0.000");
        is_wanted && !parts.any(declined)
    })
}

/// A language that pages speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageLanguage {
    /// English.
    English,
    /// Spanish.
    Spanish,
}

impl PageLanguage {
    /// Its tag (BCP 47).
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Spanish => "es",
        }
    }

    /// The one that a browser likes best, by its `Accept-Language` (RFC 9110, 12.5.4); English where it likes none.
    pub fn preferred<'a>(accepted: impl Iterator<Item = &'a str>) -> Self {
        let (mut best, mut best_quality) = (Self::English, 0.0);
        for range in accepted.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let tag = parts.next().unwrap_or_default().split('-').next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(Ok(1.0), str::parse::<f32>);
            let language = [Self::English, Self::Spanish].into_iter().find(|language| language.tag() == tag);
            // The first of equals; a quality that is none counts for nothing.
            if let (Some(language), Ok(quality)) = (language, quality)
                && quality > best_quality
            {
                (best, best_quality) = (language, quality);
            }
        }
        best
    }
}

/// A whole page: `title` and `main` are HTML.
pub fn page(language: PageLanguage, title: &str, main: &str, style: PageStyle) -> String {
    let style = match style {
        PageStyle::Linked => "<link rel=\"stylesheet\" href=\"/static/fedhis.css\">".to_owned(),
        PageStyle::Carried => format!("<style>{STYLESHEET}</style>"),
    };
    format!(
        "<!doctype html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         {style}\n<link rel=\"icon\" href=\"/static/favicon.svg\" type=\"image/svg+xml\">\n</head>\n<body>\n<main>\n\
         {main}</main>\n</body>\n</html>\n",
        language.tag()
    )
}

/// A text as HTML.
pub fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_the_one_that_the_browser_likes_best_and_english_where_it_likes_none() {
        for (accept, language) in [
            ("", "en"),
            ("es", "es"),
            ("es-MX,es;q=0.9,en;q=0.8", "es"),
            ("en-GB, es;q=0.9", "en"),
            ("de, es;q=0.5, en;q=0.3", "es"),
            ("fr", "en"),
            ("ES-419", "es"),
            ("es;q=0", "en"),
            ("es;q=x", "en"),
            ("*", "en"),
            ("en;q=0.1, es;q=0.2", "es"),
        ] {
            assert_eq!(PageLanguage::preferred(std::iter::once(accept)).tag(), language, "{accept}");
        }
    }

    #[test]
    fn a_page_that_carries_its_sheet_is_allowed_that_sheet_and_no_other() {
        use base64::Engine;
        let html = page(PageLanguage::Spanish, "T", "M", PageStyle::Carried);
        let (_, rest) = html.split_once("<style>").unwrap();
        let (sheet, _) = rest.split_once("</style>").unwrap();
        let hash = ring::digest::digest(&ring::digest::SHA256, sheet.as_bytes());
        let hash = base64::engine::general_purpose::STANDARD.encode(hash);
        assert!(POLICY_OF_STYLED.contains(&format!("style-src 'sha256-{hash}';")), "{hash}");
        assert!(html.contains("<html lang=\"es\">") && !html.contains("fedhis.css"));
        assert_eq!(escape("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
    }
}
