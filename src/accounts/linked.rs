//! What is linked with an account: the ids of its person in other systems, and related persons with theirs.
//!
//! The one rule: what cannot be read grants nothing. It is part of the read of the account, of the same snapshot, and
//! says how long it holds, because relations begin and end by the calendar, which raises no epoch. The database server
//! compares the dates with its clock, and the moment here is on this machine's clock of leases.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use fedgate_base::moment::BootMoment;

/// What is linked with an account that has links or relations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedIds {
    /// The ids of each system, ordered by its name.
    pub systems: Box<[SystemIds]>,
    /// The ids of related persons, in order.
    pub related: Box<[String]>,
}

/// The ids of one system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemIds {
    /// The name of the system.
    pub system: Box<str>,
    /// The ids that are linked with the account, or with another id of the same person.
    pub own: Box<[String]>,
    /// The ids that are linked with related persons.
    pub related: Box<[String]>,
}

impl LinkedIds {
    /// The ids of a system, own and related.
    pub fn of(&self, system: &str) -> (&[String], &[String]) {
        let known = self.systems.iter().find(|known| &*known.system == system);
        known.map_or((&[], &[]), |known| (&known.own, &known.related))
    }
}

/// The answer of both databases.
#[derive(Deserialize)]
struct LinkedRow {
    /// System, id, and whether it is a related person's (1) or the account's own (0).
    links: Vec<(String, String, u8)>,
    related: Vec<String>,
    /// The microseconds until the calendar changes the answer.
    left_us: Option<u64>,
}

/// Reads an answer to a question that was asked at `asked`. With it is the moment from which on it is not used.
pub(super) fn read(answer: Option<&str>, asked: BootMoment) -> (Option<LinkedIds>, Option<BootMoment>) {
    let Some(row) = answer.and_then(|answer| serde_json::from_str::<LinkedRow>(answer).ok()) else {
        return (None, None);
    };
    let mut systems: BTreeMap<String, [Vec<String>; 2]> = BTreeMap::new();
    for (system, id, is_related) in row.links {
        let [own, related] = systems.entry(system).or_default();
        match is_related {
            0 => own.push(id),
            _ => related.push(id),
        }
    }
    let system = |(system, [own, related]): (String, [Vec<String>; 2])| SystemIds {
        system: system.into(),
        own: own.into(),
        related: related.into(),
    };
    let systems: Box<[SystemIds]> = systems.into_iter().map(system).collect();
    // Counted from the question: the server's clock was read after it.
    let until = row.left_us.map(|left| asked + Duration::from_micros(left));
    let is_empty = systems.is_empty() && row.related.is_empty();
    ((!is_empty).then(|| LinkedIds { systems, related: row.related.into() }), until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_kept_by_system_and_an_answer_that_cannot_be_read_grants_nothing() {
        let asked = BootMoment::from_nanos(1_000_000);
        let answer = r#"{"links": [["fhir", "Patient/1", 0], ["lab", "7", 0], ["fhir", "Patient/2", 1]],
                         "related": ["BOB"], "left_us": 5}"#;
        let (linked, until) = read(Some(answer), asked);
        let linked = linked.unwrap();
        assert_eq!(linked.of("fhir"), (&["Patient/1".to_owned()][..], &["Patient/2".to_owned()][..]));
        assert_eq!(linked.of("lab"), (&["7".to_owned()][..], &[][..]));
        assert_eq!(linked.of("openmrs"), (&[][..], &[][..]));
        assert_eq!((&*linked.related, until), (&["BOB".to_owned()][..], Some(asked + Duration::from_micros(5))));
        // Nothing holds yet, and something will.
        let (linked, until) = read(Some(r#"{"links": [], "related": [], "left_us": 5}"#), asked);
        assert!(linked.is_none() && until.is_some());
        for answer in [None, Some(""), Some("null"), Some(r#"{"links": [["fhir", 1, 0]], "related": []}"#)] {
            assert_eq!(read(answer, asked), (None, None), "{answer:?}");
        }
    }
}
