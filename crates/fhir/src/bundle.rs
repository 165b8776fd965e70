//! A Bundle of the type `searchset` (R4, Bundle; IHE ITI TF-2, appendix Z.1).
//!
//! The one rule: each entry has an address of its own and says why it is there. Called by both answers.

use crate::outcome::{OutcomeIssue, outcome_with_id};
use crate::resource::{Group, Node, Resource};

/// Why an entry is in a Bundle (R4, value set `search-entry-mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryMode {
    /// It is one of the answer.
    Match,
    /// It belongs to one of the answer: the survivor of a merge.
    Include,
}

/// The id of the OperationOutcome in a Bundle.
const OUTCOME_ID: &str = "outcome";

pub(crate) struct BundleEntry {
    pub(crate) address: String,
    pub(crate) resource: Resource,
    pub(crate) search: Group,
}

/// A Bundle of entries, with what is to be said about them.
pub(crate) fn bundle(
    base: &str,
    total: usize,
    links: &[(&'static str, String)],
    entries: Vec<BundleEntry>,
    issues: &[OutcomeIssue],
) -> Resource {
    let link = |(relation, url): &(&'static str, String)| {
        Node::Group(Group::default().text("relation", *relation).text("url", url.as_str()))
    };
    let outcome = (!issues.is_empty()).then(|| BundleEntry {
        address: format!("{base}/OperationOutcome/{OUTCOME_ID}"),
        resource: outcome_with_id(Some(OUTCOME_ID), issues),
        search: Group::default().text("mode", "outcome"),
    });
    let entry = |entry: BundleEntry| {
        let members = Group::default()
            .text("fullUrl", entry.address)
            .with("resource", Node::Resource(entry.resource))
            .with("search", Node::Group(entry.search));
        Node::Group(members)
    };
    let members = Group::default()
        .text("type", "searchset")
        .with("total", Node::Number(total.to_string()))
        .list("link", links.iter().map(link))
        .list("entry", entries.into_iter().chain(outcome).map(entry));
    Resource::new("Bundle", members)
}

impl EntryMode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Include => "include",
        }
    }
}
