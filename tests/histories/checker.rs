//! The laws of the message server, and which of them a history breaks.
//!
//! The one rule: the checker knows the log alone, and nothing of how positions are given.

use std::collections::{BTreeMap, HashMap};

use super::log::{EndRecord, HistoryLog, ReadMessage, ReaderLog, RecordStep, Write, WriteOutcome};

/// A law that a history breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BrokenLaw {
    /// An acknowledged change left no message.
    Lost { key: String },
    /// A change left several messages.
    Doubled { key: String },
    /// A message of a change that failed for certain.
    FailedAppears { key: String },
    /// A message that no write explains, or about another record than the one that was written.
    Invented { key: String },
    /// Some changes of a transaction left messages, and others none.
    Torn { key: String },
    /// Positions are not 1, 2, 3 and so on.
    NotDense { position: u64 },
    /// The second was sent after the first was acknowledged, or in one transaction after it, and has the lower position.
    Reordered { first: String, second: String },
    /// A change was sent after a reader had seen this position, and has a lower one.
    BeforeWhatWasSeen { position: u64, key: String },
    /// The counter of a person does not go up by one from message to message.
    CounterBroken { person: String, position: u64 },
    /// The record of an id is not what the messages say of it.
    OtherRecord { id: String },
    /// A reader saw another message at a position than the others.
    Unequal { reader: String, position: u64 },
    /// A reader was not given a message that it may see.
    Gap { reader: String, position: u64 },
    /// A reader was given a position again, or out of order.
    Again { reader: String, position: u64 },
    /// A reader saw a message that it may not see.
    WithoutRight { reader: String, position: u64 },
    /// A reader did not get to the end.
    Stuck { reader: String, reached: u64 },
    /// A reader was told that its position is unknown or gone.
    TurnedAway { reader: String },
}

/// All laws that a history breaks.
pub(crate) fn check(log: &HistoryLog) -> Vec<BrokenLaw> {
    let mut broken = vec![];
    let places = places(log);
    check_density(&log.order, &mut broken);
    check_writes(log, &places, &mut broken);
    check_real_time(log, &places, &mut broken);
    check_counters(&log.order, &mut broken);
    check_records(log, &mut broken);
    let last = log.order.last().map_or(0, |message| message.position);
    log.readers.iter().for_each(|reader| check_reader(reader, &log.order, last, &mut broken));
    broken
}

/// The positions at which a key was read.
fn places(log: &HistoryLog) -> HashMap<&str, Vec<&ReadMessage>> {
    let mut places: HashMap<&str, Vec<&ReadMessage>> = HashMap::new();
    log.order.iter().for_each(|message| places.entry(&message.key).or_default().push(message));
    places
}

fn check_density(order: &[ReadMessage], broken: &mut Vec<BrokenLaw>) {
    for (message, position) in order.iter().zip(1..) {
        if message.position != position {
            broken.push(BrokenLaw::NotDense { position });
            return;
        }
    }
}

fn check_writes(log: &HistoryLog, places: &HashMap<&str, Vec<&ReadMessage>>, broken: &mut Vec<BrokenLaw>) {
    let mut known: HashMap<&str, &str> = HashMap::new();
    for write in &log.writes {
        let mut counts = vec![];
        for change in &write.changes {
            known.insert(&change.key, change.resource);
            let (key, found) = (change.key.clone(), places.get(change.key.as_str()).map_or(&[][..], Vec::as_slice));
            counts.push(found.len().min(1));
            if found.iter().any(|message| message.resource != change.resource || message.person != change.person) {
                broken.push(BrokenLaw::Invented { key: key.clone() });
            }
            match (write.outcome, found.len()) {
                (_, 2..) => broken.push(BrokenLaw::Doubled { key }),
                (WriteOutcome::Acknowledged, 0) => broken.push(BrokenLaw::Lost { key }),
                (WriteOutcome::Failed, 1) => broken.push(BrokenLaw::FailedAppears { key }),
                (WriteOutcome::Acknowledged | WriteOutcome::Unknown, 1)
                | (WriteOutcome::Failed | WriteOutcome::Unknown, 0) => {}
            }
        }
        if counts.iter().any(|count| Some(count) != counts.first()) {
            broken.push(BrokenLaw::Torn { key: write.changes[0].key.clone() });
        }
    }
    let invented = log.order.iter().filter(|message| !known.contains_key(message.key.as_str()));
    broken.extend(invented.map(|message| BrokenLaw::Invented { key: message.key.clone() }));
}

/// The order of time: what was acknowledged or seen before a change was sent comes before that change.
fn check_real_time(log: &HistoryLog, places: &HashMap<&str, Vec<&ReadMessage>>, broken: &mut Vec<BrokenLaw>) {
    let position = |key: &str| places.get(key).and_then(|found| found.first()).map(|message| message.position);
    // Times with the positions that had to be taken by then, and who says so.
    let mut taken: Vec<(u64, u64, Option<&str>)> = vec![];
    let mut sent: Vec<(u64, u64, &str)> = vec![];
    for write in &log.writes {
        let placed: Vec<_> = write.changes.iter().filter_map(|change| Some((change, position(&change.key)?))).collect();
        for (change, place) in &placed {
            sent.push((change.begun, *place, &change.key));
            if write.outcome == WriteOutcome::Acknowledged {
                taken.push((write.ended, *place, Some(&change.key)));
            }
        }
        for pair in placed.windows(2).filter(|pair| pair[0].1 > pair[1].1) {
            broken.push(BrokenLaw::Reordered { first: pair[0].0.key.clone(), second: pair[1].0.key.clone() });
        }
    }
    taken.extend(log.readers.iter().flat_map(|reader| &reader.seen).map(|(message, at)| (*at, message.position, None)));
    taken.sort_unstable();
    sent.sort_unstable();
    let (mut taken, mut highest) = (taken.into_iter().peekable(), (0, None));
    for (begun, place, key) in sent {
        while let Some((_, position, by)) = taken.next_if(|(at, ..)| *at < begun) {
            if position > highest.0 {
                highest = (position, by);
            }
        }
        match highest {
            (before, _) if before <= place => {}
            (_, Some(first)) => broken.push(BrokenLaw::Reordered { first: first.into(), second: key.into() }),
            (position, None) => broken.push(BrokenLaw::BeforeWhatWasSeen { position, key: key.into() }),
        }
    }
}

fn check_counters(order: &[ReadMessage], broken: &mut Vec<BrokenLaw>) {
    let mut counters: BTreeMap<&str, i64> = BTreeMap::new();
    for message in order {
        let (Some(person), Some(count)) = (&message.person, message.count) else { continue };
        let before = counters.insert(person, count);
        if before.is_some_and(|before| before + 1 != count) {
            broken.push(BrokenLaw::CounterBroken { person: person.clone(), position: message.position });
        }
    }
}

/// Whoever applies the messages in their order has the records of the hub.
fn check_records(log: &HistoryLog, broken: &mut Vec<BrokenLaw>) {
    // A write to an old id is one to the id that stays as well.
    let marked = |id: &str, mark: &str| {
        let step = RecordStep::Marked(mark.to_owned());
        log.order.iter().any(|message| message.person.as_deref() == Some(id) && message.step.as_ref() == Some(&step))
    };
    // The mark of each id by itself, that of a survivor with the old id, and where old ids lead to.
    let (mut own, mut merged, mut leads) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for message in &log.order {
        let (Some(id), Some(step)) = (&message.person, &message.step) else { continue };
        match step {
            RecordStep::Marked(mark) => {
                let old = leads.iter().find_map(|(old, survivor)| (*survivor == id).then_some(*old));
                if !old.is_some_and(|old: &String| marked(old, mark)) {
                    own.insert(id, mark);
                }
                if let Some(mark_of_both) = merged.get_mut(id) {
                    *mark_of_both = mark;
                }
            }
            RecordStep::Merged { old } => {
                leads.insert(old, id);
                merged.extend(own.get(id).map(|mark| (id, *mark)));
            }
            RecordStep::Parted { old } => {
                leads.remove(old);
                merged.remove(id);
            }
        }
    }
    for (id, mark) in &own {
        let expected = match leads.get(id) {
            Some(survivor) => EndRecord::LeadsTo((*survivor).clone()),
            None => EndRecord::Marked((**merged.get(id).unwrap_or(mark)).clone()),
        };
        if log.records.get(*id) != Some(&expected) {
            broken.push(BrokenLaw::OtherRecord { id: (*id).clone() });
        }
    }
}

fn check_reader(reader: &ReaderLog, order: &[ReadMessage], last: u64, broken: &mut Vec<BrokenLaw>) {
    let name = || reader.name.clone();
    let may_see = |message: &ReadMessage| reader.own.is_none() || message.person == reader.own;
    let mut before = reader.from;
    for (message, _) in &reader.seen {
        let position = message.position;
        if position <= before {
            broken.push(BrokenLaw::Again { reader: name(), position });
        }
        if !may_see(message) {
            broken.push(BrokenLaw::WithoutRight { reader: name(), position });
        }
        if order.iter().find(|known| known.position == position) != Some(message) {
            broken.push(BrokenLaw::Unequal { reader: name(), position });
        }
        let missed =
            order.iter().filter(|known| before < known.position && known.position < position && may_see(known));
        broken.extend(missed.map(|known| BrokenLaw::Gap { reader: name(), position: known.position }));
        before = before.max(position);
    }
    let missed =
        order.iter().filter(|known| before < known.position && known.position <= reader.reached && may_see(known));
    broken.extend(missed.map(|known| BrokenLaw::Gap { reader: name(), position: known.position }));
    if reader.reached < last {
        broken.push(BrokenLaw::Stuck { reader: name(), reached: reader.reached });
    }
    if reader.turned_away > 0 {
        broken.push(BrokenLaw::TurnedAway { reader: name() });
    }
}

/// Whether a write is among those that a history must have, so that it says something.
pub(crate) fn count(log: &HistoryLog, outcome: WriteOutcome) -> usize {
    log.writes.iter().filter(|write: &&Write| write.outcome == outcome).count()
}
