//! The subject in the query of a request.
//!
//! The one rule: a query names a person only if every reader finds the same person in it, and nothing else in it could
//! widen or move what it asks for. So a name has one spelling, occurs once, and every other parameter is on a list.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::{IdForms, PlaceReading};

/// The only parameter of a link to a further page that the gateway has signed.
pub const PAGE_PARAMETER: &str = "fedgate_page";

/// The signed part of such a link; none if the query is of another kind.
pub(super) fn page_token(query: Option<&str>) -> Option<&str> {
    let token = query?.strip_prefix(PAGE_PARAMETER)?.strip_prefix('=')?;
    token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')).then_some(token)
}

/// Stands for any other parameter in the list of those that may accompany a subject.
const ANY: &str = "*";

/// The parameters in which a route names its subject, and those that may stand beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryPlaces {
    names: Box<[Box<str>]>,
    beside: Box<[Box<str>]>,
}

impl QueryPlaces {
    /// The names that name the subject, and the others that are allowed.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>, beside: impl IntoIterator<Item = &'n str>) -> Self {
        let boxed = |name: &str| Box::from(name);
        Self { names: names.into_iter().map(boxed).collect(), beside: beside.into_iter().map(boxed).collect() }
    }

    /// The parameter that is added where none names the subject.
    pub fn first(&self) -> &str {
        self.names.first().map(|name| &**name).unwrap_or_default()
    }

    /// Reads a query. Cost: one pass over it.
    pub fn read<'q>(&self, query: Option<&'q str>, forms: &IdForms) -> PlaceReading<'q> {
        let mut found: PlaceReading<'q> = PlaceReading::Absent;
        let mut seen = 0_u64;
        for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            // Some services read `;` as `&`.
            if part.contains(';') {
                return PlaceReading::Unclear;
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let Some(at) = self.names.iter().position(|known| **known == *name) else {
                if self.may_accompany(name) {
                    continue;
                }
                return PlaceReading::Unclear;
            };
            // Of a repeated parameter, some services take the first value, some the last, and FHIR's want both.
            let bit = 1 << at.min(63);
            if seen & bit != 0 {
                return PlaceReading::Unclear;
            }
            seen |= bit;
            let id = match decoded(value) {
                Some(Cow::Borrowed(value)) => forms.read(value).map(Cow::Borrowed),
                Some(Cow::Owned(value)) => forms.read(&value).map(|id| Cow::Owned(id.to_owned())),
                None => None,
            };
            found = found.and(id.map_or(PlaceReading::Unclear, PlaceReading::One));
            if found == PlaceReading::Unclear {
                return found;
            }
        }
        found
    }

    /// Whether a parameter of this name, as written, may stand beside the subject's.
    fn may_accompany(&self, name: &str) -> bool {
        // A name in another spelling may be the subject's to the service, or one that is not listed.
        if name.contains(['%', '+']) {
            return false;
        }
        if self.beside.iter().any(|listed| **listed == *name) {
            return true;
        }
        !self.is_variant(name) && self.beside.iter().any(|listed| **listed == *ANY)
    }

    /// Whether a name may be another spelling of a subject's: `patient:not`, `patient.name`, `patient[]`, `?patient` and
    /// `Patient` concern the same parameter, and PHP reads `patient.id` as `patient_id`.
    pub fn is_variant(&self, name: &str) -> bool {
        let letters = |text: &str| -> String {
            text.chars()
                .filter(|character| character.is_alphanumeric())
                .map(|letter| letter.to_ascii_lowercase())
                .collect()
        };
        let is_same = |text: &str| self.names.iter().any(|known| letters(known) == letters(text));
        is_same(name) || name.split([':', '.', '[', ']', '?', '/']).any(is_same)
    }
}

/// A value, decoded as a form's (WHATWG URL, 5.1); none if it has no single reading.
fn decoded(value: &str) -> Option<Cow<'_, str>> {
    if value.contains('+') {
        return None;
    }
    let is_hex = |at: usize| value.as_bytes().get(at).is_some_and(u8::is_ascii_hexdigit);
    let is_whole = value.match_indices('%').all(|(at, _)| is_hex(at + 1) && is_hex(at + 2));
    is_whole.then(|| percent_decode_str(value).decode_utf8().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(places: &QueryPlaces, query: &str) -> String {
        let forms = IdForms::parse(["Patient/{id}", "{id}"]).unwrap();
        match places.read(Some(query), &forms) {
            PlaceReading::Absent => "absent".to_owned(),
            PlaceReading::One(id) => id.into_owned(),
            PlaceReading::Unclear => "unclear".to_owned(),
        }
    }

    #[test]
    fn a_query_names_one_person_or_nobody() {
        let places = QueryPlaces::new(["patient", "subject"], ["code", "_count", "date"]);
        for (query, expected) in [
            ("", "absent"),
            ("code=x&_count=5", "absent"),
            ("patient=7", "7"),
            ("patient=Patient/7&code=x", "7"),
            ("patient=Patient%2F7", "7"),
            ("patient=Patient%2f7", "7"),
            ("&&patient=7&", "7"),
            ("patient=7&subject=Patient/7", "7"),
            ("patient=7&subject=8", "unclear"),
            ("patient=7&patient=7", "unclear"),
            ("patient=7&patient=8", "unclear"),
            ("patient=7,8", "unclear"),
            ("patient=", "unclear"),
            ("patient", "unclear"),
            ("patient=7%2C8", "unclear"),
            ("patient=7%252C8", "unclear"),
            ("patient=%zz", "unclear"),
            ("patient=%", "unclear"),
            ("patient=%FF", "unclear"),
            ("patient=7+8", "unclear"),
            ("patient=7%00", "unclear"),
            ("p%61tient=7", "unclear"),
            ("patient=7&p%61tient=8", "unclear"),
            ("Patient=7", "unclear"),
            ("patient=7&PATIENT=8", "unclear"),
            ("patient=7&patient:Patient=8", "unclear"),
            ("patient=7&patient.name=x", "unclear"),
            ("patient=7&patient[]=8", "unclear"),
            ("patient=7;patient=8", "unclear"),
            ("code=x;patient=8", "unclear"),
            ("patient=7&_has:Group:member:_id=1", "unclear"),
            ("patient=7&_include=Observation:subject", "unclear"),
            ("patient=7&_summary=count", "unclear"),
            ("patient=7&code:in=x", "unclear"),
            ("patient=7&c%6fde=x", "unclear"),
            ("patient=7?subject=8", "unclear"),
            ("patient=7&?subject=8", "unclear"),
            ("patient=7=8", "unclear"),
        ] {
            assert_eq!(read(&places, query), expected, "{query}");
        }
        let lax = QueryPlaces::new(["patient"], ["*"]);
        for (query, expected) in [
            ("patient=7&_has=x", "7"),
            ("patient=7&patient:not=8", "unclear"),
            ("patient=7&Patient=8", "unclear"),
            ("patient=7&patient%3Anot=8", "unclear"),
            ("patient=7&?patient=8", "unclear"),
            ("patient=7&[patient]=8", "unclear"),
            ("patient=7&.patient=8", "unclear"),
            ("patient=7&patient]=8", "unclear"),
            ("patient=7&_patient=8", "unclear"),
            ("other=1", "absent"),
        ] {
            assert_eq!(read(&lax, query), expected, "{query}");
        }
    }
}
