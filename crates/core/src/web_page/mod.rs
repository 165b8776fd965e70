//! Pages for people: their frame, style and language.
//!
//! The one rule: plain HTML that works without scripts, in which no text from outside is unescaped. It looks the same
//! from both programs.
//!
//! Pure. `his` calls it for its pages, and `gateway` for its own answers where a person reads them.

/// The stylesheet.
pub const STYLESHEET: &str = include_str!("fedhis.css");
/// The content policy of a page that links to the stylesheet: only our own stylesheet and icon are loaded, forms go
/// only to this origin, and no page may frame it.
pub const POLICY: &str =
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// The same for a page that carries the stylesheet: it allows the one with this hash (Content Security Policy, 3,
/// 8.4.2).
pub const POLICY_OF_STYLED: &str = "default-src 'none'; style-src 'sha256-U0pZVGo9huE0cnSS0IfoQS6g/6RUnLjO7OqKnJUNYfw='; img-src 'self'; form-action 'self'; \
     frame-ancestors 'none'; base-uri 'none'";

/// The source of a page's style.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageStyle {
    /// A link to the stylesheet, which is served beside it.
    Linked,
    /// The page itself, because the program that serves the stylesheet may be unavailable.
    Carried,
}

/// Whether an `Accept` header names a media type explicitly and does not decline it (RFC 9110, 12.5.1).
pub fn asks_for(accept: &[u8], wanted: &str) -> bool {
    accept.split(|byte| *byte == b',').any(|range| {
        let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let is_wanted = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(wanted.as_bytes()));
        let declined = |part: &[u8]| matches!(part, b"q=0" | b"q=0.0" | b"q=0.00" | b"q=0.000");
        is_wanted && !parts.any(declined)
    })
}

/// A language of the pages.
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

    /// The language that a browser prefers, by its `Accept-Language` (RFC 9110, 12.5.4); English if it prefers none of
    /// ours.
    pub fn preferred<'a>(accepted: impl Iterator<Item = &'a str>) -> Self {
        let (mut best, mut best_quality) = (Self::English, 0.0);
        for range in accepted.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let tag = parts.next().unwrap_or_default().split('-').next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(Ok(1.0), str::parse::<f32>);
            let language = [Self::English, Self::Spanish].into_iter().find(|language| language.tag() == tag);
            // The first of equals wins; an invalid quality does not count.
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

/// A text as HTML, in which it can neither end an attribute nor begin an element.
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
