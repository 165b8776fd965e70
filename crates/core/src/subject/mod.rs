//! The person whose record a request concerns, by what the request and its answer say.
//!
//! A route names the places: a parameter of the path, parameters of the query, members of the body, members of the
//! answer. The one rule: where places disagree, or one of them has two readings, the request is bound to nobody, and a
//! caller who may reach only own records is refused.
//!
//! Pure. The routes compile a [`SubjectRule`], the pipeline decides by it.

mod edit;
mod forms;
mod place;
mod pointers;
mod query;

use std::borrow::Cow;

pub use edit::{AnswerEdits, FilteredList};
pub use forms::{IdForms, MAX_FORMS};
pub use place::{JsonPlace, UnclearPlace};
pub use pointers::{MAX_POINTERS, NamedSubjects, SubjectPointers};
pub use query::{PAGE_PARAMETER, QueryPlaces};

use crate::methods::{Method, may_have_body};

/// The person whose record a request concerns, as far as its head tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestSubject<'p> {
    /// The route says that its requests concern nobody in particular.
    Unnamed,
    /// This person.
    One(Cow<'p, str>),
    /// Everybody, or it is not clear who.
    Unbound,
    /// The caller: the gateway adds the parameter that says so, if the caller may reach only own records.
    Callers,
    /// The person whom the body or the answer names.
    Later,
}

impl RequestSubject<'_> {
    /// The id, if the head names one.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::One(id) => Some(id),
            Self::Unnamed | Self::Unbound | Self::Callers | Self::Later => None,
        }
    }
}

/// The content of one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlaceReading<'p> {
    /// The place is empty.
    Absent,
    /// One id.
    One(Cow<'p, str>),
    /// It has no single reading.
    Unclear,
}

impl PlaceReading<'_> {
    /// The reading of two places together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Absent, reading) | (reading, Self::Absent) => reading,
            (Self::One(one), Self::One(other)) if one == other => Self::One(one),
            (Self::One(_) | Self::Unclear, Self::One(_) | Self::Unclear) => Self::Unclear,
        }
    }
}

/// Where the subject of a route's requests stands, apart from the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectRule {
    /// The spellings of ids in the query, the body and the answer.
    pub forms: IdForms,
    /// The system whose ids they are; none for account ids.
    pub system: Option<Box<str>>,
    /// The parameters of the query.
    pub query: Option<QueryPlaces>,
    /// Whether the gateway adds the caller's id where the query names nobody.
    pub fills_query: bool,
    /// The members of a request's body.
    pub body: Option<SubjectPointers>,
    /// The members of an answer to GET, or of the record that a write would change.
    pub answer: Option<SubjectPointers>,
    /// The members by which an answer that names nobody is known to show nothing of anybody, with their texts: pointers
    /// (RFC 6901). Empty: no such answer is shown.
    pub empty: Vec<(String, String)>,
    /// Whether a change is forwarded on the condition that the record is still the one that was read.
    pub adds_if_match: bool,
    /// What is left out of an answer to GET, and replaced in it.
    pub edits: AnswerEdits,
}

impl SubjectRule {
    /// Whether the body of a request with this method names the subject.
    pub fn reads_body(&self, method: Method) -> bool {
        self.body.is_some() && may_have_body(method.as_str())
    }

    /// Whether the answer, or the record that is to be changed, names the subject. A POST makes a new record.
    pub fn reads_answer(&self, method: Method) -> bool {
        self.answer.is_some() && method != Method::Post
    }

    /// Whether links of an answer are led back to the gateway.
    pub fn leads_links(&self, method: Method) -> bool {
        method == Method::Get && !self.edits.links.is_empty()
    }

    /// What the gateway has signed in the link that a request follows; none if it follows no such link.
    pub fn page_token<'p>(&self, method: Method, query: Option<&'p str>) -> Option<&'p str> {
        query::page_token(query).filter(|_| self.leads_links(method))
    }

    /// The subject by the head of a request: the parameter of its path, if the route has one, and its query.
    pub fn of_head<'p>(
        &self,
        method: Method,
        path: Option<Cow<'p, str>>,
        query: Option<&'p str>,
    ) -> RequestSubject<'p> {
        // The signature says whom the page concerns, and nothing is forwarded before it was verified.
        if self.page_token(method, query).is_some() {
            return RequestSubject::Later;
        }
        let path = path.map_or(PlaceReading::Absent, PlaceReading::One);
        // Without places in the query, it has to be empty: a service may take a parameter for the subject.
        let query = match &self.query {
            Some(places) => places.read(query, &self.forms),
            None if query.is_none_or(str::is_empty) => PlaceReading::Absent,
            None => PlaceReading::Unclear,
        };
        match path.and(query) {
            PlaceReading::One(id) => RequestSubject::One(id),
            PlaceReading::Unclear => RequestSubject::Unbound,
            PlaceReading::Absent if self.fills_query => RequestSubject::Callers,
            PlaceReading::Absent if self.reads_body(method) || self.reads_answer(method) => RequestSubject::Later,
            PlaceReading::Absent => RequestSubject::Unbound,
        }
    }

    /// The subject by the head and the body: all documents of the body name one person, the same as the head.
    pub fn with_body(&self, method: Method, head: Option<&str>, body: &[u8]) -> Option<String> {
        // A list may be a JSON Patch (RFC 6902), whose members are no members of the document.
        if method == Method::Patch && body.trim_ascii_start().starts_with(b"[") {
            return None;
        }
        let named = self.body.as_ref()?.read(body, &self.forms).ok()?;
        let [id] = named.ids()? else { return None };
        head.is_none_or(|head| head == id).then(|| id.clone())
    }

    /// Whether elements of an answer are left out, instead of the whole answer.
    pub fn filters(&self, method: Method) -> bool {
        method == Method::Get && self.edits.list.is_some()
    }

    /// An answer to GET without what a caller with a limited reach may not see; `may_see` tells it of an id. None if all
    /// of it stays.
    ///
    /// # Errors
    /// It is not JSON with one reading.
    pub fn limited_answer(
        &self,
        answer: &[u8],
        may_see: impl FnMut(&str) -> bool,
    ) -> Result<Option<String>, UnclearPlace> {
        if self.edits.leaves_out_nothing() {
            return Ok(None);
        }
        let text = std::str::from_utf8(answer).map_err(|_| UnclearPlace)?;
        self.edits.limited(text, &self.forms, may_see)
    }

    /// The persons whom an answer to a read names; none if it is unclear, or names nobody and may show something.
    pub fn of_answer(&self, answer: &[u8]) -> Option<NamedSubjects> {
        let named = self.answer.as_ref()?.read(answer, &self.forms).ok()?;
        let names_somebody = named.ids().is_some_and(|ids| !ids.is_empty());
        let is_shown = names_somebody || (named.ids().is_some() && (named.is_empty_list() || self.is_empty(answer)));
        is_shown.then_some(named)
    }

    /// Whether an answer has a place of the subject or elements of its list, or is known to show nothing of anybody.
    pub fn is_about_somebody(&self, answer: &[u8]) -> bool {
        let named = self.answer.as_ref().and_then(|places| places.read(answer, &self.forms).ok());
        named.is_some_and(|named| named.has_places() || named.is_empty_list() || self.is_empty(answer))
    }

    /// The persons whom a stored record names; none if it is unclear, or names nobody.
    pub fn of_record(&self, record: &[u8]) -> Option<NamedSubjects> {
        let named = self.answer.as_ref()?.read(record, &self.forms).ok()?;
        named.ids().is_some_and(|ids| !ids.is_empty()).then_some(named)
    }

    /// Whether an answer is one of those that show nothing of anybody.
    fn is_empty(&self, answer: &[u8]) -> bool {
        let answer = || serde_json::from_slice::<serde_json::Value>(answer).ok();
        !self.empty.is_empty()
            && answer().is_some_and(|answer| {
                let has = |(pointer, text): &(String, String)| {
                    answer.pointer(pointer).and_then(|value| value.as_str()) == Some(text)
                };
                self.empty.iter().all(has)
            })
    }
}
