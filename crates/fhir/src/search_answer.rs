//! The answer of a search: a page of Patients, and the way to the next (PDQm, 2:3.78.4.2; R4, 3.1.1.5 and 3.1.0.10).
//!
//! The one rule: the `self` link has the parameters that were applied and no others, so that a client sees what its
//! search meant. Called by the endpoint with the people that it found.

use crate::bundle::{BundleEntry, bundle};
use crate::outcome::{IssueCode, IssueSeverity, OutcomeIssue};
use crate::patient::{FhirMapping, PatientFacts};
use crate::resource::{Group, Resource};
use crate::search::{SearchRequest, encoded};

pub use crate::bundle::EntryMode;

/// A page of the people who were found.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchPage {
    /// The people of the page. Those that are included only do not count.
    pub patients: Vec<(PatientFacts, EntryMode)>,
    /// How many people the search finds, on all pages.
    pub total: usize,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

impl SearchPage {
    /// The Bundle.
    #[must_use]
    pub fn resource(&self, request: &SearchRequest, mapping: &FhirMapping<'_>) -> Resource {
        self.resource_with(request, mapping, &[])
    }

    /// The Bundle, with what else is to be said about it.
    #[must_use]
    pub fn resource_with(
        &self,
        request: &SearchRequest,
        mapping: &FhirMapping<'_>,
        further: &[OutcomeIssue],
    ) -> Resource {
        let systems = request.systems();
        let mut links = vec![("self", self_link(request, request.cursor.as_deref(), mapping))];
        links.extend(self.next.as_deref().map(|next| ("next", self_link(request, Some(next), mapping))));
        let entries = self.patients.iter().map(|(patient, mode)| BundleEntry {
            address: mapping.address(&patient.id),
            // The survivor of a merge need not have an identifier of the wanted systems, and needs one at all.
            resource: patient.resource(mapping, systems.as_ref().filter(|_| *mode == EntryMode::Match)),
            search: Group::default().text("mode", mode.name()),
        });
        let mut issues = self.issues(request, mapping);
        issues.extend_from_slice(further);
        bundle(mapping.base, self.total, &links, entries.collect(), &issues)
    }

    /// What is to be said about the answer: parameters that were ignored, and systems that nobody here knows.
    fn issues(&self, request: &SearchRequest, mapping: &FhirMapping<'_>) -> Vec<OutcomeIssue> {
        let mut issues = Vec::new();
        for name in &request.ignored {
            let text = "a search parameter is not supported, and was ignored";
            let mut issue = OutcomeIssue::new(IssueSeverity::Warning, IssueCode::NotSupported, text);
            issue.diagnostics = Some(name.clone());
            issues.push(issue);
        }
        // Case 4 of PDQm, 2:3.78.4.1.3, which states the words.
        let is_shown = |system: &str| {
            let mut shown = self.patients.iter().flat_map(|(patient, _)| &patient.identifiers);
            shown.any(|identifier| identifier.system.as_str() == system)
        };
        for system in request.systems().unwrap_or_default() {
            if !mapping.is_known_system(&system) && !is_shown(&system) {
                let text = "no such system of identifiers is known";
                let mut issue = OutcomeIssue::new(IssueSeverity::Warning, IssueCode::NotFound, text);
                issue.diagnostics = Some("targetSystem not found".to_owned());
                issues.push(issue);
            }
        }
        issues
    }
}

fn self_link(request: &SearchRequest, cursor: Option<&str>, mapping: &FhirMapping<'_>) -> String {
    let count = request.count.to_string();
    let applied = request.applied.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let format = request.format.as_deref().map(|format| ("_format", format));
    let cursor = cursor.map(|cursor| ("_cursor", cursor));
    let pairs = applied.chain(format).chain([("_count", count.as_str())]).chain(cursor);
    format!("{}/Patient?{}", mapping.base, encoded(pairs))
}

#[cfg(test)]
mod tests;
