//! `GET /fhir/Patient?…` and its form by POST: what a search asks for (PDQm, 2:3.78.4.1.2; R4, 3.1.1).
//!
//! The one rule: a criterion is applied as it was sent, or the answer says that it was not. Called by the endpoint,
//! which finds the people, asks [`SearchRequest::accepts`] of each, and pages them.

mod parameters;
mod query;
mod test_date;
mod test_text;
mod test_token;

use std::collections::BTreeSet;

use crate::outcome::RequestFault;
use crate::patient::{AdministrativeGender, PatientFacts};
pub(crate) use parameters::SearchParameter;
pub(crate) use query::encoded;
pub use query::{QueryError, QueryPairs};
pub use test_date::DateTest;
pub use test_text::TextTest;
pub use test_token::IdentifierTest;

/// The most people of a page, and how many there are without `_count`.
pub const MAX_PAGE: usize = 200;
/// See [`MAX_PAGE`].
pub const DEFAULT_PAGE: usize = 50;
/// The most values of a search, of all its criteria together: each is compared with every person who may be meant.
const MAX_VALUES: usize = 64;

/// How unknown parameters are handled (R4, 3.1.1.2: the header `Prefer`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ParameterHandling {
    /// They are ignored, and the answer says so.
    #[default]
    Lenient,
    /// They are refused.
    Strict,
}

impl ParameterHandling {
    /// Reads the header `Prefer` (RFC 7240).
    #[must_use]
    pub fn of(prefer: Option<&str>) -> Self {
        let is_strict = |preference: &str| {
            let (name, value) = preference.split(';').next().unwrap_or_default().split_once('=').unwrap_or_default();
            name.trim().eq_ignore_ascii_case("handling")
                && value.trim().trim_matches('"').eq_ignore_ascii_case("strict")
        };
        if prefer.unwrap_or_default().split(',').any(is_strict) { Self::Strict } else { Self::Lenient }
    }
}

/// One criterion. Its alternatives are joined by "or"; criteria are joined by "and" (R4, 3.1.1.4.6).
#[derive(Debug, Clone, PartialEq)]
pub enum SearchCriterion {
    /// The logical id is one of these; the hub's own ids.
    Id(Vec<String>),
    /// The record is in use. A record that does not say so is (R4, Patient.active: the default).
    Active(bool),
    /// A surname.
    Family(Vec<TextTest>),
    /// A given name.
    Given(Vec<TextTest>),
    /// Any part of the name.
    Name(Vec<TextTest>),
    /// An identifier.
    Identifier(Vec<IdentifierTest>),
    /// The date of birth.
    BirthDate(Vec<DateTest>),
    /// The gender.
    Gender(Vec<AdministrativeGender>),
    /// City or postal code.
    Address(Vec<TextTest>),
    /// The city.
    City(Vec<TextTest>),
    /// The postal code.
    PostalCode(Vec<TextTest>),
    /// A telephone number, by its digits.
    Telecom(Vec<String>),
}

/// A search.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchRequest {
    /// What a person must fulfil, all of it.
    pub criteria: Vec<SearchCriterion>,
    /// The most people of a page; 0 asks for their number only.
    pub count: usize,
    /// Where the page begins: the `cursor` that the `next` link of the page before had.
    pub cursor: Option<String>,
    /// The value of `_format`.
    pub format: Option<String>,
    /// The names of parameters that were ignored.
    pub ignored: Vec<String>,
    /// The parameters that were applied, as they were sent.
    pub(crate) applied: Vec<(String, String)>,
    /// How many values the criteria have.
    values: usize,
}

impl SearchRequest {
    /// Reads the parameters of a search, from the query and the form of a POST.
    ///
    /// # Errors
    /// A value that cannot be read, a modifier that is not supported, and with strict handling an unknown parameter.
    pub fn parse(pairs: &QueryPairs, handling: ParameterHandling) -> Result<Self, RequestFault> {
        let mut request = Self {
            criteria: Vec::new(),
            count: DEFAULT_PAGE,
            cursor: None,
            format: None,
            ignored: Vec::new(),
            applied: Vec::new(),
            values: 0,
        };
        for (name, value) in pairs.iter() {
            parameters::read(&mut request, name, value, handling)?;
        }
        Ok(request)
    }

    /// Whether a person fulfils all criteria.
    #[must_use]
    pub fn accepts(&self, patient: &PatientFacts) -> bool {
        self.criteria.iter().all(|criterion| criterion.accepts(patient))
    }

    /// The systems whose identifiers the answer shows; `None` means all (PDQm, 2:3.78.4.1.2.3).
    #[must_use]
    pub fn systems(&self) -> Option<BTreeSet<String>> {
        let domains = self.criteria.iter().filter_map(|criterion| match criterion {
            SearchCriterion::Identifier(tests) => tests.iter().map(IdentifierTest::domain).collect::<Option<Vec<_>>>(),
            _ => None,
        });
        let systems: BTreeSet<String> = domains.flatten().map(str::to_owned).collect();
        (!systems.is_empty()).then_some(systems)
    }
}

impl SearchCriterion {
    fn accepts(&self, patient: &PatientFacts) -> bool {
        let PatientFacts { family, given, city, postal_code, .. } = patient;
        let any = |tests: &[TextTest], texts: &[&Option<String>]| {
            texts.iter().filter_map(|text| text.as_deref()).any(|text| tests.iter().any(|test| test.accepts(text)))
        };
        let is_given = |tests: &[TextTest]| given.iter().any(|text| tests.iter().any(|test| test.accepts(text)));
        match self {
            Self::Id(ids) => ids.contains(&patient.own_id),
            Self::Active(wanted) => patient.active.unwrap_or(true) == *wanted,
            Self::Family(tests) => any(tests, &[family]),
            Self::Given(tests) => is_given(tests),
            Self::Name(tests) => any(tests, &[family]) || is_given(tests),
            Self::Identifier(tests) => tests.iter().any(|test| test.accepts(&patient.identifiers)),
            Self::BirthDate(tests) => {
                patient.birth_date.is_some_and(|date| tests.iter().any(|test| test.accepts(date)))
            }
            Self::Gender(genders) => patient.gender.is_some_and(|gender| genders.contains(&gender)),
            Self::Address(tests) => any(tests, &[city, postal_code]),
            Self::City(tests) => any(tests, &[city]),
            Self::PostalCode(tests) => any(tests, &[postal_code]),
            Self::Telecom(numbers) => {
                let known = patient.phones.iter().map(|phone| test_token::phone_digits(phone));
                known.into_iter().any(|known| numbers.contains(&known))
            }
        }
    }
}

#[cfg(test)]
mod tests;
