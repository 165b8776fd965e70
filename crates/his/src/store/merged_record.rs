//! What a record is with and without a merge.
//!
//! The one rule: the members of the account stay those of their own row, because each id signs in by itself. A merge
//! neither gives a right nor takes one. All else is computed from records alone, whichever database holds them.

use std::collections::{BTreeMap, BTreeSet};

use fedgate_core::json::{self, JsonObject, JsonValue};

/// The members of an account, and the id.
const ACCOUNT_MEMBERS: [&str; 4] = ["id", "password", "roles", "active"];

/// Which record a member of the merged one comes from, where the caller says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberSource {
    /// That of the id that becomes old.
    Old,
    /// That of the survivor.
    Survivor,
}

/// A stored record; none if it is no object.
pub(super) fn object(text: &str) -> Option<JsonObject> {
    match json::parse_stored(text) {
        Ok(JsonValue::Object(object)) => Some(object),
        Ok(_) | Err(_) => None,
    }
}

/// A record without the members of the account.
pub(super) fn without_account(mut record: JsonObject) -> JsonObject {
    for member in ACCOUNT_MEMBERS {
        record.remove(member);
    }
    record
}

/// What a merge keeps of the survivor's record: the members of the account have their places, and no values.
pub(super) fn kept(mut record: JsonObject) -> JsonObject {
    for member in ACCOUNT_MEMBERS {
        if record.member(member).is_some() {
            record.set(member, JsonValue::Null);
        }
    }
    record
}

/// The survivor's record after a merge: its members win, and those that it lacks come from the old record.
pub(super) fn merged(survivor: &JsonObject, old: &JsonObject, chosen: &BTreeMap<String, MemberSource>) -> JsonObject {
    let known: BTreeSet<&str> = survivor.names().collect();
    let mut taken = without_account(old.clone());
    for name in old.names() {
        let is_survivors = match chosen.get(name) {
            Some(MemberSource::Old) => false,
            Some(MemberSource::Survivor) => true,
            None => known.contains(name),
        };
        if is_survivors {
            taken.remove(name);
        }
    }
    let mut merged = survivor.clone();
    // The old record may lack a member that was chosen from it: then the person has none.
    let dropped = chosen.iter().filter(|(name, source)| {
        **source == MemberSource::Old && old.member(name).is_none() && !ACCOUNT_MEMBERS.contains(&name.as_str())
    });
    for (name, _) in dropped {
        merged.remove(name);
    }
    merged.merge(taken);
    merged
}

/// The survivor's record after the end of a merge: what was kept, with the account as it is now.
pub(super) fn restored(present: &JsonObject, mut kept: JsonObject) -> JsonObject {
    for member in ACCOUNT_MEMBERS {
        match present.member(member) {
            Some(value) => kept.set(member, value.clone()),
            None => _ = kept.remove(member),
        }
    }
    kept
}

/// A live merge, as far as it decides who is whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LiveMerge {
    pub(super) number: i64,
    pub(super) old: String,
    pub(super) survivor: String,
}

/// The ids from one to its survivor, each with the merge by which a write to the first one comes there.
pub(super) fn path<'a>(from: &'a str, live: &'a [LiveMerge]) -> Vec<(&'a str, Option<i64>)> {
    let mut path = vec![(from, None)];
    // No id is merged twice, so there is no circle; rows that somebody wrote by hand may have one.
    while let Some(next) = path.last().and_then(|(at, _)| live.iter().find(|merge| merge.old == *at))
        && path.len() <= live.len()
    {
        path.push((&next.survivor, Some(next.number)));
    }
    path
}

/// An id with all that were merged into it, directly or through others.
pub(super) fn half(top: &str, live: &[LiveMerge]) -> BTreeSet<String> {
    let mut half = BTreeSet::from([top.to_owned()]);
    loop {
        let more: Vec<String> = live
            .iter()
            .filter(|merge| half.contains(&merge.survivor) && !half.contains(&merge.old))
            .map(|merge| merge.old.clone())
            .collect();
        if more.is_empty() {
            return half;
        }
        half.extend(more);
    }
}

/// The live merges whose kept record a write to the first id of a path changes, too: into that id all of them, and into a
/// later one those that came after the merge by which the write comes there.
pub(super) fn kept_changed(path: &[(&str, Option<i64>)], live: &[LiveMerge]) -> Vec<i64> {
    let is_changed = |merge: &&LiveMerge| {
        path.iter().any(|(id, entered)| merge.survivor == *id && entered.is_none_or(|entered| merge.number > entered))
    };
    live.iter().filter(is_changed).map(|merge| merge.number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> JsonObject {
        object(text).unwrap()
    }

    #[test]
    fn the_survivor_wins_and_lacks_nothing_that_the_old_record_has() {
        let survivor = of(r#"{"id":"B","name":"Ana","height":1.50,"roles":["end_user"],"active":true}"#);
        let old = of(r#"{"id":"A","name":"Anna","phone":"1","note":null,"roles":["root"],"password":"x"}"#);
        let chosen = |members: &[(&str, MemberSource)]| {
            members.iter().map(|(name, source)| ((*name).to_owned(), *source)).collect::<BTreeMap<_, _>>()
        };
        #[rustfmt::skip]
        let cases = [
            (chosen(&[]), r#"{"id":"B","name":"Ana","height":1.50,"roles":["end_user"],"active":true,"phone":"1","note":null}"#),
            (chosen(&[("name", MemberSource::Old), ("phone", MemberSource::Survivor)]),
             r#"{"id":"B","name":"Anna","height":1.50,"roles":["end_user"],"active":true,"note":null}"#),
            (chosen(&[("height", MemberSource::Old), ("roles", MemberSource::Old), ("id", MemberSource::Old), ("active", MemberSource::Old)]),
             r#"{"id":"B","name":"Ana","roles":["end_user"],"active":true,"phone":"1","note":null}"#),
        ];
        for (chosen, expected) in &cases {
            assert_eq!(merged(&survivor, &old, chosen).to_text(), *expected, "{chosen:?}");
        }
    }

    #[test]
    fn the_account_is_never_restored_to_what_it_was() {
        let present = of(r#"{"id":"B","name":"x","roles":["root"],"password":"new"}"#);
        let before = of(r#"{"name":"Ana","active":false,"password":"old","height":1.50,"id":"B"}"#);
        let kept = kept(before);
        assert_eq!(kept.to_text(), r#"{"name":"Ana","active":null,"password":null,"height":1.50,"id":null}"#);
        // Each member is where it was.
        assert_eq!(
            restored(&present, kept).to_text(),
            r#"{"name":"Ana","password":"new","height":1.50,"id":"B","roles":["root"]}"#
        );
    }

    #[test]
    fn a_write_reaches_what_it_would_have_reached_without_each_merge() {
        let merge =
            |number, old: &str, survivor: &str| LiveMerge { number, old: old.into(), survivor: survivor.into() };
        // A and then B into C, and C into D; E into D before that.
        let live = [merge(1, "E", "D"), merge(2, "A", "C"), merge(3, "B", "C"), merge(4, "C", "D")];
        #[rustfmt::skip]
        let cases = [
            ("A", vec!["A", "C", "D"], vec![3]),
            ("B", vec!["B", "C", "D"], vec![]),
            ("C", vec!["C", "D"], vec![2, 3]),
            ("E", vec!["E", "D"], vec![4]),
            ("D", vec!["D"], vec![1, 4]),
            ("X", vec!["X"], vec![]),
        ];
        for (from, ids, kept) in cases {
            let path = path(from, &live);
            assert_eq!(path.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids, "{from}");
            assert_eq!(kept_changed(&path, &live), kept, "{from}");
        }
        assert_eq!(half("C", &live), ["A", "B", "C"].map(str::to_owned).into());
        let circle = [merge(1, "A", "B"), merge(2, "B", "A")];
        assert!(path("A", &circle).len() <= 3);
    }
}
