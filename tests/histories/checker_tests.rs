//! The checker finds each kind of a bad history, and finds a good one good.

use super::checker::{BrokenLaw, check};
use super::log::{EndRecord, HistoryLog, ReadMessage, ReaderLog, RecordStep, Write, WriteOutcome, WrittenChange};

/// A law, and a change of the good history that breaks it.
type BadHistory = (BrokenLaw, fn(&mut HistoryLog));

fn write(keys: &[&str], begun: u64, ended: u64, outcome: WriteOutcome) -> Write {
    let change = |(key, at): (&&str, u64)| WrittenChange {
        key: (*key).to_owned(),
        resource: "page",
        person: Some(key[..1].to_owned()),
        begun: begun + at,
    };
    Write { changes: keys.iter().zip(0..).map(change).collect(), ended, outcome }
}

fn message(position: u64, key: &str) -> ReadMessage {
    let person = Some(key[..1].to_owned());
    ReadMessage { position, key: key.to_owned(), resource: "page".into(), person, count: None, step: None }
}

fn reader(own: Option<&str>, from: u64, seen: &[(u64, &str, u64)], reached: u64) -> ReaderLog {
    let seen = seen.iter().map(|(position, key, at)| (message(*position, key), *at)).collect();
    let own = own.map(str::to_owned);
    ReaderLog { name: "r".into(), own, from, seen, reached, turned_away: 0 }
}

/// Writes about A and B: `a1` before `b1` and `a2`, which overlap; `b2` failed, `a3` is unknown and appears.
fn good() -> HistoryLog {
    use WriteOutcome::{Acknowledged, Failed, Unknown};
    HistoryLog {
        writes: vec![
            write(&["a1"], 10, 20, Acknowledged),
            write(&["b1", "a4"], 30, 60, Acknowledged),
            write(&["a2"], 40, 50, Acknowledged),
            write(&["b2"], 45, 46, Failed),
            write(&["a3"], 70, 80, Unknown),
            write(&["b3"], 71, 81, Unknown),
        ],
        readers: vec![
            reader(None, 0, &[(1, "a1", 25), (2, "a2", 55), (3, "b1", 65), (4, "a4", 65), (5, "a3", 90)], 5),
            reader(Some("a"), 1, &[(2, "a2", 55), (4, "a4", 66), (5, "a3", 91)], 5),
        ],
        order: vec![message(1, "a1"), message(2, "a2"), message(3, "b1"), message(4, "a4"), message(5, "a3")],
        ..HistoryLog::default()
    }
}

#[test]
fn a_good_history_breaks_no_law() {
    assert_eq!(check(&good()), []);
}

#[test]
fn each_kind_of_a_bad_history_is_found() {
    use BrokenLaw::*;
    let key = |key: &str| key.to_owned();
    let r = || "r".to_owned();
    #[rustfmt::skip]
    let cases: Vec<BadHistory> = vec![
        (Lost { key: key("x1") }, |log| log.writes.push(write(&["x1"], 100, 101, WriteOutcome::Acknowledged))),
        (Doubled { key: key("a3") }, |log| log.order.push(message(6, "a3"))),
        (FailedAppears { key: key("b2") }, |log| log.order.push(message(6, "b2"))),
        (Invented { key: key("x1") }, |log| log.order.push(message(6, "x1"))),
        (Invented { key: key("a2") }, |log| log.order[1].person = Some("b".into())),
        (Torn { key: key("x1") }, |log| {
            log.writes.push(write(&["x1", "x2"], 100, 101, WriteOutcome::Unknown));
            log.order.push(message(6, "x2"));
        }),
        (NotDense { position: 5 }, |log| log.order[4].position = 6),
        // Acknowledged before the other was sent.
        (Reordered { first: key("a1"), second: key("a2") }, |log| {
            (log.order[0], log.order[1]) = (message(1, "a2"), message(2, "a1"));
        }),
        // Of another person, too.
        (Reordered { first: key("a1"), second: key("b1") }, |log| {
            (log.order[0], log.order[2]) = (message(1, "b1"), message(3, "a1"));
        }),
        // Within a transaction.
        (Reordered { first: key("b1"), second: key("a4") }, |log| {
            (log.order[2], log.order[3]) = (message(3, "a4"), message(4, "b1"));
        }),
        // Nothing acknowledged `a3`, but a reader had seen it.
        (BeforeWhatWasSeen { position: 5, key: key("a4") }, |log| log.writes[1].changes[1].begun = 95),
        (CounterBroken { person: key("a"), position: 4 }, |log| {
            (log.order[0].count, log.order[1].count, log.order[3].count) = (Some(1), Some(2), Some(2));
        }),
        (CounterBroken { person: key("a"), position: 5 }, |log| {
            (log.order[1].count, log.order[4].count) = (Some(2), Some(4));
        }),
        (Unequal { reader: r(), position: 2 }, |log| log.readers[0].seen[1].0.key = "a9".into()),
        (Gap { reader: r(), position: 3 }, |log| _ = log.readers[0].seen.remove(2)),
        (Gap { reader: r(), position: 5 }, |log| _ = log.readers[1].seen.pop()),
        (Gap { reader: r(), position: 2 }, |log| _ = log.readers[1].seen.remove(0)),
        (Again { reader: r(), position: 2 }, |log| {
            let again = log.readers[0].seen[1].clone();
            log.readers[0].seen.insert(3, again);
        }),
        (WithoutRight { reader: r(), position: 3 }, |log| log.readers[1].seen.insert(1, (message(3, "b1"), 60))),
        (Stuck { reader: r(), reached: 4 }, |log| {
            log.readers[0].seen.pop();
            log.readers[0].reached = 4;
        }),
        (TurnedAway { reader: r() }, |log| log.readers[0].turned_away = 1),
    ];
    for (law, spoil) in cases {
        let mut log = good();
        spoil(&mut log);
        let broken = check(&log);
        assert!(broken.contains(&law), "{law:?} is not among {broken:?}");
    }
}

/// What the laws say of the records at the end, after messages about A and B.
fn records(steps: &[(&str, RecordStep)], records: &[(&str, EndRecord)]) -> Vec<BrokenLaw> {
    let message = |((person, step), position): (&(&str, RecordStep), u64)| ReadMessage {
        step: Some(step.clone()),
        ..message(position, person)
    };
    let log = HistoryLog {
        order: steps.iter().zip(1..).map(message).collect(),
        records: records.iter().map(|(id, record)| ((*id).to_owned(), record.clone())).collect(),
        ..HistoryLog::default()
    };
    check(&log).into_iter().filter(|law| matches!(law, BrokenLaw::OtherRecord { .. })).collect()
}

#[test]
fn records_are_what_the_messages_say() {
    use BrokenLaw::OtherRecord;
    let marked = |mark: &str| RecordStep::Marked(mark.into());
    let (merged, parted) = (RecordStep::Merged { old: "a".into() }, RecordStep::Parted { old: "a".into() });
    let has = |mark: &str| EndRecord::Marked(mark.into());
    let (to_b, a, b) = (EndRecord::LeadsTo("b".into()), || "a".to_owned(), || "b".to_owned());
    let mut steps = vec![("a", marked("1")), ("b", marked("2"))];
    assert_eq!(records(&steps, &[("a", has("1")), ("b", has("2"))]), []);
    assert_eq!(records(&steps, &[("a", has("1")), ("b", has("1"))]), [OtherRecord { id: b() }]);
    assert_eq!(records(&steps, &[("b", has("2"))]), [OtherRecord { id: a() }]);
    steps.push(("b", merged));
    assert_eq!(records(&steps, &[("a", to_b.clone()), ("b", has("2"))]), []);
    assert_eq!(records(&steps, &[("a", has("1")), ("b", has("2"))]), [OtherRecord { id: a() }]);
    // The old record's write is seen by the id that stays, while they are one.
    steps.extend([("a", marked("3")), ("b", marked("3"))]);
    assert_eq!(records(&steps, &[("a", to_b.clone()), ("b", has("3"))]), []);
    assert_eq!(records(&steps, &[("a", to_b.clone()), ("b", has("2"))]), [OtherRecord { id: b() }]);
    steps.push(("b", parted));
    assert_eq!(records(&steps, &[("a", has("3")), ("b", has("2"))]), []);
    assert_eq!(records(&steps, &[("a", to_b), ("b", has("3"))]), [OtherRecord { id: a() }, OtherRecord { id: b() }]);
}
