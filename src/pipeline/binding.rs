//! Requests whose subject the head does not tell: the body or the answer names the person.
//!
//! The one rule: the same policy that admitted the head decides about every person that is named later, and a request
//! that names nobody clearly is refused. A caller whose reach is global is not asked.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Permit, Pipeline, Refusal};
use fedgate_core::policy::{DenyReason, Method, PolicyDecision};
use fedgate_core::subject::{PlaceReading, SubjectRule};

/// What is still to be read before a request of a caller with a limited reach is wholly decided.
pub(super) struct SubjectBinding {
    pub(super) rule: Arc<SubjectRule>,
    /// Whether the body is still to be read.
    pub(super) body: bool,
    /// Whether the answer, or the record that is to be changed, is still to be read.
    pub(super) answer: bool,
}

/// The persons that an answer names, as the caller may see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerReach {
    /// All of them are within reach, in the answer as it is or as it is edited.
    Within(Option<String>),
    /// One of them is not.
    Beyond,
    /// It does not say clearly whom it concerns.
    Unclear,
}

impl Permit {
    /// Whether the body names the subject, and is still to be read.
    pub fn awaits_body(&self) -> bool {
        self.binding.as_ref().is_some_and(|binding| binding.body)
    }

    /// Whether the answer, or the record that is to be changed, names the subject, and is still to be read.
    pub fn awaits_answer(&self) -> bool {
        self.binding.as_ref().is_some_and(|binding| binding.answer)
    }

    /// Whether a change is to be forwarded on the condition that the stored record is still the one that was read.
    pub fn adds_if_match(&self) -> bool {
        self.binding.as_ref().is_some_and(|binding| binding.rule.adds_if_match)
    }

    /// Whether the caller may reach only some persons' records, on a route that finds the person elsewhere than in the
    /// path.
    pub fn is_bound(&self) -> bool {
        self.binding.is_some()
    }
}

impl Pipeline {
    /// Decides by the body of an admitted request, if that names the subject.
    ///
    /// # Errors
    /// It names a person beyond the caller's reach, several, or nobody clearly.
    pub fn bind_body(&self, mut permit: Permit, body: &[u8]) -> Result<Permit, Box<Refusal>> {
        let Some(binding) = permit.binding.as_mut().filter(|binding| binding.body) else { return Ok(permit) };
        let Some(id) = binding.rule.with_body(permit.method, permit.subject.as_deref(), body) else {
            return Err(self.refuse_unbound(&permit));
        };
        binding.body = false;
        let decision = self.decide_for(&permit, &id);
        permit.subject = Some(id.into());
        match decision {
            PolicyDecision::Allow(_) => Ok(permit),
            PolicyDecision::Deny(reason) => Err(self.refuse_subject(&permit, reason)),
        }
    }

    /// Decides by the answer to an admitted request, or by the record that it would change.
    pub fn bind_answer(&self, permit: &mut Permit, answer: &[u8]) -> AnswerReach {
        let Some(binding) = permit.binding.as_ref().filter(|binding| binding.answer) else {
            return AnswerReach::Within(None);
        };
        let rule = Arc::clone(&binding.rule);
        if rule.filters(permit.method) {
            if !rule.is_about_somebody(answer) {
                return AnswerReach::Unclear;
            }
        } else {
            let named = match permit.method {
                Method::Get => rule.of_answer(answer),
                Method::Post | Method::Put | Method::Patch | Method::Delete => rule.of_record(answer),
            };
            let Some(named) = named else { return AnswerReach::Unclear };
            let ids = named.ids().unwrap_or_default();
            if !ids.iter().all(|id| self.may_see(permit, id)) {
                return AnswerReach::Beyond;
            }
            if let (None, [id]) = (&permit.subject, ids) {
                permit.subject = Some(id.as_str().into());
            }
        }
        let edited = match permit.method {
            Method::Get => rule.limited_answer(answer, |id| self.may_see(permit, id)),
            Method::Post | Method::Put | Method::Patch | Method::Delete => Ok(None),
        };
        let Ok(edited) = edited else { return AnswerReach::Unclear };
        if let Some(binding) = &mut permit.binding {
            binding.answer = false;
        }
        AnswerReach::Within(edited)
    }

    /// Refuses an admitted request that does not say clearly whom it concerns.
    pub fn refuse_unbound(&self, permit: &Permit) -> Box<Refusal> {
        self.refuse_subject(permit, DenyReason::NotBound)
    }

    fn refuse_subject(&self, permit: &Permit, reason: DenyReason) -> Box<Refusal> {
        let Some(principal) = permit.principal.clone() else {
            // Only callers with a limited reach have a binding, and they are authenticated.
            return Box::new(Refusal::SeveralAuthorizations);
        };
        let subject = permit.subject.as_deref().map(Into::into);
        Box::new(Refusal::Denied { principal, endpoint: self.endpoint_name(permit).to_owned(), subject, reason })
    }

    pub(super) fn may_see(&self, permit: &Permit, id: &str) -> bool {
        matches!(self.decide_for(permit, id), PolicyDecision::Allow(_))
    }

    /// The decision of the policy that admitted the request, for this person.
    fn decide_for(&self, permit: &Permit, id: &str) -> PolicyDecision {
        let (Some(principal), Some(endpoint)) = (&permit.principal, permit.endpoint) else {
            return PolicyDecision::Deny(DenyReason::NotBound);
        };
        let own = self.routes.own(endpoint, principal.own());
        principal.rights().decide(own, permit.method, endpoint, Some(id))
    }
}

/// The query with which a request asks for the caller's own record, if its route says that the gateway adds the
/// parameter.
pub(super) fn filled_query(rule: &SubjectRule, query: Option<&str>, id: &str) -> Option<String> {
    let value = rule.forms.write(id)?;
    let name = rule.query.as_ref()?.first();
    let before = query.filter(|query| !query.is_empty()).map(|query| format!("{query}&")).unwrap_or_default();
    let query = format!("{before}{name}={}", utf8_percent_encode(&value, UNRESERVED));
    // It says what it is meant to say.
    let read = rule.query.as_ref()?.read(Some(&query), &rule.forms);
    (read == PlaceReading::One(id.into())).then_some(query)
}

/// All but the unreserved characters of RFC 3986, and `/`, which a query may have as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
