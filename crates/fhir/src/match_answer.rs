//! The answer of `Patient/$match`: candidates by their score, each with its grade (PDQm, 2:3.119.4.2).
//!
//! The one rule: the most likely comes first, and a candidate that is certainly another person is none. Called by the
//! endpoint with the candidates of the index.

pub use fedgate_index::assess::Grade;

use crate::bundle::{BundleEntry, EntryMode, bundle};
use crate::match_request::MatchRequest;
use crate::outcome::{IssueCode, IssueSeverity, OutcomeIssue};
use crate::patient::{FhirMapping, PatientFacts};
use crate::resource::{Group, Node, Resource};

/// The extension of an entry that has its grade (R4).
const MATCH_GRADE: &str = "http://hl7.org/fhir/StructureDefinition/match-grade";

/// A person who may be the one that is looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct MatchCandidate {
    /// The person.
    pub patient: PatientFacts,
    /// The probability that both are one person. A value below 0 counts as 0, one above 1 as 1, and NaN as 0.
    pub score: f64,
    /// The grade, whose names are those of R4's value set `match-grade`.
    pub grade: Grade,
}

/// The answer, before it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct MatchAnswer {
    candidates: Vec<MatchCandidate>,
    total: usize,
    issues: Vec<OutcomeIssue>,
}

impl MatchAnswer {
    /// Orders the candidates and leaves out those that the request does not ask for.
    #[must_use]
    pub fn of(request: &MatchRequest, candidates: Vec<MatchCandidate>) -> Self {
        let mut issues = Vec::new();
        let is_wanted = |candidate: &MatchCandidate| match candidate.grade {
            Grade::Certain => true,
            Grade::Probable | Grade::Possible => !request.only_certain,
            Grade::CertainlyNot => false,
        };
        let mut kept: Vec<MatchCandidate> = candidates.into_iter().filter(is_wanted).collect();
        // Case 5 of PDQm: several certain ones that are not known to be one person are none.
        if request.only_certain && people(&kept) > 1 {
            kept.clear();
            let text = "several records match with certainty, and they are not linked as one person";
            issues.push(OutcomeIssue::new(IssueSeverity::Information, IssueCode::MultipleMatches, text));
        }
        kept.sort_by(|a, b| {
            probability(b.score).total_cmp(&probability(a.score)).then_with(|| a.patient.own_id.cmp(&b.patient.own_id))
        });
        let total = kept.len();
        kept.truncate(request.count);
        Self { candidates: kept, total, issues }
    }

    /// Adds something to be said about the answer. An error belongs into an answer of its own.
    #[must_use]
    pub fn with_issue(mut self, issue: OutcomeIssue) -> Self {
        self.issues.push(issue);
        self
    }

    /// The people of the answer, in its order: those whose records were read.
    pub fn own_ids(&self) -> impl Iterator<Item = &str> {
        self.candidates.iter().map(|candidate| candidate.patient.own_id.as_str())
    }

    /// The Bundle.
    #[must_use]
    pub fn resource(&self, mapping: &FhirMapping<'_>) -> Resource {
        let entries = self.candidates.iter().map(|candidate| entry(candidate, mapping)).collect();
        let links = [("self", format!("{}/Patient/$match", mapping.base))];
        bundle(mapping.base, self.total, &links, entries, &self.issues)
    }
}

/// How many people the candidates are, as far as merges tell.
fn people(candidates: &[MatchCandidate]) -> usize {
    let survivor = |candidate: &MatchCandidate| {
        let PatientFacts { id, replaced_by, .. } = &candidate.patient;
        replaced_by.as_ref().unwrap_or(id).as_str().to_owned()
    };
    let survivors: std::collections::BTreeSet<String> = candidates.iter().map(survivor).collect();
    survivors.len()
}

fn probability(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score.clamp(0.0, 1.0) }
}

fn entry(candidate: &MatchCandidate, mapping: &FhirMapping<'_>) -> BundleEntry {
    let grade = Group::default().text("url", MATCH_GRADE).text("valueCode", candidate.grade.as_str());
    let search = Group::default()
        .list("extension", [Node::Group(grade)])
        .text("mode", EntryMode::Match.name())
        .with("score", Node::Number(score_text(candidate.score)));
    BundleEntry {
        address: mapping.address(&candidate.patient.id),
        resource: candidate.patient.resource(mapping, None),
        search,
    }
}

/// A score with four decimals. One below 1 is never written as 1.
fn score_text(score: f64) -> String {
    let score = probability(score);
    let shown = if score < 1.0 { score.min(0.9999) } else { score };
    format!("{shown:.4}")
}

#[cfg(test)]
mod tests;
