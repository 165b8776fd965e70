//! Which form a body has, and which form an answer gets: JSON or XML.
//!
//! The one rule: `_format` counts before `Accept` (R4, 3.1.0.1.11; IHE ITI TF-2, Z.6), and a form that this package
//! does not write is 406. Called by the endpoints before all else, because errors have a form, too.

use crate::outcome::RequestFault;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerFormat {
    /// `application/fhir+json`
    Json,
    /// `application/fhir+xml`
    Xml,
}

/// The form of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// `application/fhir+json`
    Json,
    /// `application/fhir+xml`
    Xml,
}

/// The versions of FHIR that `fhirVersion` may name (R4, 3.1.0.1.12).
const VERSIONS: [&str; 2] = ["4.0", "4.0.1"];
/// The most ranges of `Accept` that count.
const MAX_RANGES: usize = 64;

impl AnswerFormat {
    /// Chooses the form of an answer, from the parameter `_format` and the header `Accept`.
    ///
    /// Without either, and where both forms are as welcome, it is JSON.
    ///
    /// # Errors
    /// [`RequestFault::NotAcceptable`] if neither form is welcome. The error itself is then written as JSON.
    pub fn choose(format: Option<&str>, accept: Option<&str>) -> Result<Self, RequestFault> {
        if let Some(format) = format.filter(|format| !format.trim().is_empty()) {
            // A plus sign that the client did not encode arrives as a blank.
            let (name, version) = media_type(format);
            let form = form_of(&name.replace(' ', "+")).ok_or(RequestFault::NotAcceptable)?;
            return if is_served(version) { Ok(form) } else { Err(RequestFault::NotAcceptable) };
        }
        let Some(accept) = accept.filter(|accept| !accept.trim().is_empty()) else { return Ok(Self::Json) };
        let (json, xml) = (quality(accept, Self::Json), quality(accept, Self::Xml));
        match (json, xml) {
            (0, 0) => Err(RequestFault::NotAcceptable),
            _ if json >= xml => Ok(Self::Json),
            _ => Ok(Self::Xml),
        }
    }

    /// The `Content-Type` of an answer.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/fhir+json; charset=utf-8",
            Self::Xml => "application/fhir+xml; charset=utf-8",
        }
    }

    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Json => &["application/fhir+json", "application/json", "text/json", "json"],
            Self::Xml => &["application/fhir+xml", "application/xml", "text/xml", "xml"],
        }
    }
}

impl BodyFormat {
    /// The form that `Content-Type` names.
    ///
    /// # Errors
    /// [`RequestFault::UnsupportedMediaType`] if there is none, or another one.
    pub fn of(content_type: Option<&str>) -> Result<Self, RequestFault> {
        let content_type = content_type.unwrap_or_default();
        let (name, version) = media_type(content_type);
        // FHIR is UTF-8 (R4, 3.1.0.1.11).
        let charset = content_type.split(';').skip(1).find_map(|part| parameter(part, "charset"));
        let is_utf8 = charset.is_none_or(|charset| charset.eq_ignore_ascii_case("utf-8"));
        match form_of(&name).filter(|_| name.contains('/') && is_served(version) && is_utf8) {
            Some(AnswerFormat::Json) => Ok(Self::Json),
            Some(AnswerFormat::Xml) => Ok(Self::Xml),
            None => Err(RequestFault::UnsupportedMediaType),
        }
    }
}

/// The name of a media type in lower case, and the version of FHIR that it states.
fn media_type(text: &str) -> (String, Option<&str>) {
    let mut parts = text.split(';');
    let name = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    (name, parts.find_map(|part| parameter(part, "fhirversion")))
}

fn parameter<'a>(part: &'a str, wanted: &str) -> Option<&'a str> {
    let (name, value) = part.split_once('=')?;
    name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('"'))
}

fn is_served(version: Option<&str>) -> bool {
    version.is_none_or(|version| VERSIONS.contains(&version))
}

fn form_of(name: &str) -> Option<AnswerFormat> {
    [AnswerFormat::Json, AnswerFormat::Xml].into_iter().find(|form| form.names().contains(&name))
}

/// How welcome a form is, in thousandths. The most specific range counts (RFC 9110, 12.5.1).
fn quality(accept: &str, form: AnswerFormat) -> u16 {
    let mut best = (0, 0);
    for range in accept.split(',').take(MAX_RANGES) {
        let (name, version) = media_type(range);
        let specific = match name.as_str() {
            "*/*" => 1,
            "application/*" => 2,
            name if form.names().contains(&name) && name.contains('/') && is_served(version) => 3,
            _ => continue,
        };
        let weight = range.split(';').skip(1).find_map(|part| parameter(part, "q")).map_or(1000, thousandths);
        // Of several names of one form, the most welcome counts.
        if specific > best.0 || (specific == best.0 && weight > best.1) {
            best = (specific, weight);
        }
    }
    best.1
}

/// A weight of RFC 9110, 12.4.2: `0` or `1`, with at most three decimals. One that cannot be read is no welcome.
fn thousandths(text: &str) -> u16 {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let are_digits = decimals.len() <= 3 && decimals.bytes().all(|byte| byte.is_ascii_digit());
    match (whole, format!("{decimals:0<3}").parse()) {
        ("0", Ok(weight)) if are_digits => weight,
        ("1", Ok(0)) if are_digits => 1000,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PDQm, 2:3.78.4.1.2.4, and case 5 of 2:3.78.4.1.3.
    #[test]
    fn iti_78_format_counts_before_accept_and_an_unknown_one_is_406() {
        use AnswerFormat::{Json, Xml};
        #[rustfmt::skip]
        let cases = [
            // _format                      Accept                                                form
            (None,                          None,                                                 Some(Json)),
            (None,                          Some("*/*"),                                          Some(Json)),
            (None,                          Some("application/fhir+xml"),                         Some(Xml)),
            (None,                          Some("application/fhir+json; fhirVersion=4.0"),       Some(Json)),
            (None,                          Some("application/fhir+json; fhirVersion=5.0"),       None),
            (None,                          Some("text/html,application/xml;q=0.9,*/*;q=0.8"),    Some(Xml)),
            (None,                          Some("application/xml;q=0.5, application/json;q=0.6"),Some(Json)),
            (None,                          Some("application/xml;q=0.5, application/json;q=0.25"),Some(Xml)),
            (None,                          Some("application/json;q=0, application/*"),          Some(Xml)),
            (None,                          Some("application/json;q=2"),                         None),
            (None,                          Some("text/html"),                                    None),
            (None,                          Some("json"),                                         None),
            (Some("xml"),                   Some("application/fhir+json"),                        Some(Xml)),
            (Some("json"),                  Some("text/html"),                                    Some(Json)),
            (Some("application/fhir+xml"),  None,                                                 Some(Xml)),
            (Some("application/fhir json"), None,                                                 Some(Json)),
            (Some("text/turtle"),           Some("application/json"),                             None),
            (Some("html"),                  None,                                                 None),
            (Some(""),                      None,                                                 Some(Json)),
        ];
        for (format, accept, form) in cases {
            assert_eq!(AnswerFormat::choose(format, accept).ok(), form, "{format:?} {accept:?}");
        }
        assert_eq!(AnswerFormat::choose(Some("ttl"), None).unwrap_err().status(), 406);
    }

    #[test]
    fn a_body_names_its_form_or_is_415() {
        for (name, form) in [
            (Some("application/fhir+json;charset=UTF-8"), Some(BodyFormat::Json)),
            (Some("application/json"), Some(BodyFormat::Json)),
            (Some("Application/FHIR+XML; fhirVersion=4.0"), Some(BodyFormat::Xml)),
            (Some("application/fhir+json; fhirVersion=3.0"), None),
            (Some("application/fhir+json; charset=latin1"), None),
            (Some("text/plain"), None),
            (Some("json"), None),
            (None, None),
        ] {
            assert_eq!(BodyFormat::of(name).ok(), form, "{name:?}");
        }
        assert_eq!(BodyFormat::of(None).unwrap_err().status(), 415);
    }
}
