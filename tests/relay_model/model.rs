//! The sequencer as a transition system, which `stateright` walks in every order.
//!
//! Writers are transactions that write rows and end by a commit or a rollback. Calls give positions, statement by
//! statement as `fedgate_give_positions` does; a call is at most one session of an instance at work. Any step may come
//! next, so a pause is a session that takes no step, and a lost instance is a call that never begins. A crash ends all
//! that is open; with a synchronous standby, a failover is the same.
//!
//! The laws are judged when a call commits: what it placed must follow all that its writers could have seen, each
//! committed entry must have a position or be found by a later call, and positions are dense.

use stateright::{Model, Property};

/// The number of an entry, and a set of them as bits.
type Entry = u8;
type EntrySet = u16;

pub(crate) const ORDER: &str = "no message precedes one that its writer could have seen";
pub(crate) const NOTHING_LOST: &str = "each committed message has a position or will be found";
pub(crate) const DENSE: &str = "positions are dense, and each is given once";
pub(crate) const LAWS: [&str; 3] = [ORDER, NOTHING_LOST, DENSE];
pub(crate) const ALL_PLACED: &str = "several messages were written and all have positions";
pub(crate) const FLOOR_ROSE: &str = "the floor of the search has risen above a message";

/// A change of the sequencer, or of what it relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SequencerFlaw {
    /// A reader by sequence: what lies below the last number that was read counts as read.
    BySequence,
    /// A watermark by the oldest running transaction, with transactions in the order of their beginning.
    ByTransaction,
    /// Within a batch the order is another one.
    OrderDropped,
    /// The floor rises without waiting for transactions that were running.
    FloorAtOnce,
    /// The floor rises by the ids that a snapshot has not seen, rather than by the oldest that runs.
    FloorByNewest,
    /// The last number is read after the call has an id of its own.
    NumberReadLate,
    /// The floor rises although the batch was full.
    FloorAfterFullBatch,
    /// No row is locked.
    NoRowLock,
    /// A writer takes its number before it has the lock of its row.
    NumberBeforeLock,
    /// After a crash numbers come again that a call had read.
    NumbersComeAgain,
}

#[derive(Debug, Clone)]
pub(crate) struct Sequencer {
    pub(crate) writers: usize,
    pub(crate) calls: usize,
    pub(crate) transactions: u8,
    /// The most writes of a transaction.
    pub(crate) writes: usize,
    pub(crate) crashes: u8,
    /// The most entries of a call.
    pub(crate) most: usize,
    pub(crate) flaw: Option<SequencerFlaw>,
}

/// The last number, of a call that has not read it yet.
const UNREAD: Entry = u8::MAX;
/// A row is one person's, or one of two records.
const ROWS: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct WrittenRow {
    row: u8,
    entry: Entry,
    /// What its writer could have seen.
    after: EntrySet,
}

/// A transaction, from its first write.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct OpenTransaction {
    id: u8,
    written: Vec<WrittenRow>,
    /// The row whose lock it waits for, what it could see then, and its number if it took that too early.
    waits: Option<(u8, EntrySet, Option<Entry>)>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum PositionCall {
    None,
    /// It has read the last number.
    Read {
        upto: Entry,
    },
    /// It has locked the row, and has an id.
    Locked {
        upto: Entry,
        id: u8,
        relay: RelayRow,
    },
    /// It has read the oldest transaction that runs.
    Looked {
        upto: Entry,
        id: u8,
        relay: RelayRow,
        oldest: u8,
    },
    /// It has chosen what it places.
    Taken {
        upto: Entry,
        id: u8,
        relay: RelayRow,
        oldest: u8,
        taken: Vec<WrittenRow>,
    },
}

/// The row of `fedgate_relay`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct RelayRow {
    position: u8,
    decided: Entry,
    next_decided: Entry,
    next_id: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RelayState {
    relay: RelayRow,
    /// How many positions exist, less those before `relay.position` of the oldest call.
    placed: u8,
    /// Committed entries without a position, with the ids of their transactions.
    waiting: Vec<(WrittenRow, u8)>,
    last_number: Entry,
    next_id: u8,
    open: Vec<Option<OpenTransaction>>,
    calls: Vec<PositionCall>,
    transactions: u8,
    crashes: u8,
    broken: Option<&'static str>,
    rose: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelayStep {
    /// A statement that writes a row is sent.
    Send {
        writer: usize,
        row: u8,
    },
    /// It has the lock of its row, and its trigger takes a number.
    Write {
        writer: usize,
    },
    Commit {
        writer: usize,
    },
    RollBack {
        writer: usize,
    },
    /// The next statement of a call.
    Call {
        call: usize,
    },
    /// Everything open ends. The next numbers may skip some.
    Crash {
        back: u8,
    },
}

impl Model for Sequencer {
    type State = RelayState;
    type Action = RelayStep;

    fn init_states(&self) -> Vec<RelayState> {
        vec![RelayState {
            relay: RelayRow { next_id: 1, ..RelayRow::default() },
            placed: 0,
            waiting: vec![],
            last_number: 0,
            next_id: 1,
            open: vec![None; self.writers],
            calls: vec![PositionCall::None; self.calls],
            transactions: 0,
            crashes: 0,
            broken: None,
            rose: false,
        }]
    }

    fn actions(&self, state: &RelayState, steps: &mut Vec<RelayStep>) {
        for (writer, open) in state.open.iter().enumerate() {
            match open {
                None if state.transactions == self.transactions => {}
                None => steps.extend((0..ROWS).map(|row| RelayStep::Send { writer, row })),
                Some(OpenTransaction { waits: Some((row, ..)), .. }) => {
                    steps.push(RelayStep::RollBack { writer });
                    if state.is_free(writer, *row) {
                        steps.push(RelayStep::Write { writer });
                    }
                }
                Some(open) => {
                    steps.extend([RelayStep::Commit { writer }, RelayStep::RollBack { writer }]);
                    if open.written.len() < self.writes {
                        steps.extend((0..ROWS).map(|row| RelayStep::Send { writer, row }));
                    }
                }
            }
        }
        steps.extend((0..self.calls).map(|call| RelayStep::Call { call }));
        if state.crashes < self.crashes {
            // A commit writes the log of the sequence to disk, so numbers that it has used or read do not come again.
            let committed = state.waiting.iter().map(|(row, _)| row.entry).fold(state.relay.decided, Entry::max);
            let come_again = self.flaw == Some(SequencerFlaw::NumbersComeAgain);
            let kept = if come_again { committed } else { committed.max(state.relay.next_decided) };
            steps.extend((0..=state.last_number.saturating_sub(kept)).map(|back| RelayStep::Crash { back }));
        }
    }

    fn next_state(&self, last: &RelayState, step: RelayStep) -> Option<RelayState> {
        let mut next = last.clone();
        match step {
            RelayStep::Send { writer, row } => next.send(writer, row, self.flaw),
            RelayStep::Write { writer } => next.write(writer),
            RelayStep::Commit { writer } => {
                let open = next.open[writer].take()?;
                next.waiting.extend(open.written.into_iter().map(|row| (row, open.id)));
                next.waiting.sort_unstable();
            }
            RelayStep::RollBack { writer } => next.open[writer] = None,
            RelayStep::Call { call } => self.call(&mut next, call),
            RelayStep::Crash { back } => next.crash(back),
        }
        next.forget_names();
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ORDER, |_, state: &RelayState| state.broken != Some(ORDER)),
            Property::always(NOTHING_LOST, |_, state: &RelayState| {
                state.waiting.iter().all(|(row, _)| row.entry > state.relay.decided)
            }),
            Property::always(DENSE, |_, state: &RelayState| {
                state.broken != Some(DENSE) && state.relay.position == state.placed
            }),
            Property::sometimes(ALL_PLACED, |_, state: &RelayState| {
                state.relay.decided > 0 && state.waiting.is_empty() && state.open.iter().all(Option::is_none)
            }),
            Property::sometimes(FLOOR_ROSE, |_, state: &RelayState| state.rose),
        ]
    }
}

impl Sequencer {
    /// The next statement of a call; mirrors `fedgate_give_positions`.
    fn call(&self, state: &mut RelayState, call: usize) {
        let is = |flaw| self.flaw == Some(flaw);
        let next = match state.calls[call].clone() {
            PositionCall::None => {
                let is_there_any = state.waiting.iter().any(|(row, _)| row.entry > state.relay.decided);
                if !is_there_any {
                    return;
                }
                PositionCall::Read { upto: state.last_number }
            }
            PositionCall::Read { upto } => match state.calls.iter().any(PositionCall::has_lock) {
                true if !is(SequencerFlaw::NoRowLock) => PositionCall::None,
                _ => {
                    let upto = if is(SequencerFlaw::NumberReadLate) { UNREAD } else { upto };
                    PositionCall::Locked { upto, id: state.take_id(), relay: state.relay }
                }
            },
            PositionCall::Locked { upto, id, relay } => {
                let oldest = if is(SequencerFlaw::FloorByNewest) { state.next_id } else { state.oldest() };
                let upto = if upto == UNREAD { state.last_number } else { upto };
                PositionCall::Looked { upto, id, relay, oldest }
            }
            PositionCall::Looked { upto, id, relay, oldest } => {
                let taken = self.taken(state, relay, oldest);
                PositionCall::Taken { upto, id, relay, oldest, taken }
            }
            PositionCall::Taken { upto, id, mut relay, oldest, taken } => {
                let is_full = taken.len() >= self.most && !is(SequencerFlaw::FloorAfterFullBatch);
                let given = state.place(&relay, &taken);
                state.calls[call] = PositionCall::None;
                let Some(given) = given else { return };
                relay.position += given;
                let floor = relay.decided;
                if is(SequencerFlaw::BySequence) {
                    relay.decided = taken.iter().map(|row| row.entry).fold(relay.decided, Entry::max);
                } else if !is_full && (relay.next_id <= oldest || is(SequencerFlaw::FloorAtOnce)) {
                    relay.decided = relay.next_decided;
                    relay.next_decided = relay.decided.max(upto);
                    let is_written = given > 0 || relay.next_decided != relay.decided;
                    relay.next_id = if is_written { id } else { relay.next_id };
                }
                state.rose |= relay.decided > floor;
                state.relay = relay;
                return;
            }
        };
        state.calls[call] = next;
    }

    /// The committed entries that a call places, in their order.
    fn taken(&self, state: &RelayState, relay: RelayRow, oldest: u8) -> Vec<WrittenRow> {
        let mut found: Vec<_> = state.waiting.iter().filter(|(row, _)| row.entry > relay.decided).copied().collect();
        found.sort_unstable_by_key(|(row, _)| row.entry);
        if self.flaw == Some(SequencerFlaw::ByTransaction) {
            found.retain(|(_, id)| *id < oldest);
            found.sort_unstable_by_key(|(row, id)| (*id, row.entry));
        }
        found.truncate(self.most);
        if self.flaw == Some(SequencerFlaw::OrderDropped) {
            found.reverse();
        }
        found.into_iter().map(|(row, _)| row).collect()
    }
}

impl RelayState {
    /// Whether no other transaction has the lock of a row.
    fn is_free(&self, writer: usize, row: u8) -> bool {
        let others = self.open.iter().enumerate().filter(|(other, _)| *other != writer);
        !others.filter_map(|(_, open)| open.as_ref()).any(|open| open.written.iter().any(|written| written.row == row))
    }

    fn take_id(&mut self) -> u8 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn take_number(&mut self) -> Entry {
        self.last_number += 1;
        self.last_number
    }

    fn send(&mut self, writer: usize, row: u8, flaw: Option<SequencerFlaw>) {
        let number = (flaw == Some(SequencerFlaw::NumberBeforeLock)).then(|| self.take_number());
        let seen = self.waiting.iter().fold(0, |set, (written, _)| set | 1 << written.entry);
        if self.open[writer].is_none() {
            self.transactions += 1;
            // Before it waits for the lock of the row.
            let id = self.take_id();
            self.open[writer] = Some(OpenTransaction { id, ..OpenTransaction::default() });
        }
        if let Some(open) = &mut self.open[writer] {
            let own = open.written.iter().fold(0, |set, written| set | 1 << written.entry);
            open.waits = Some((row, seen | own, number));
        }
    }

    fn write(&mut self, writer: usize) {
        // The row as the last transaction has left it.
        let row_seen = |row: u8| {
            let same = self.waiting.iter().filter(move |(written, _)| written.row == row);
            same.fold(0, |set: EntrySet, (written, _)| set | 1 << written.entry)
        };
        let Some((row, seen, number)) = self.open[writer].as_ref().and_then(|open| open.waits) else { return };
        let after = seen | row_seen(row);
        let entry = number.unwrap_or_else(|| self.take_number());
        if let Some(open) = &mut self.open[writer] {
            open.waits = None;
            open.written.push(WrittenRow { row, entry, after });
        }
    }

    /// The oldest id of a transaction that runs.
    fn oldest(&self) -> u8 {
        let open = self.open.iter().flatten().map(|open| open.id);
        let calls = self.calls.iter().filter_map(|call| match call {
            PositionCall::None | PositionCall::Read { .. } => None,
            PositionCall::Locked { id, .. } | PositionCall::Looked { id, .. } | PositionCall::Taken { id, .. } => {
                Some(*id)
            }
        });
        open.chain(calls).min().unwrap_or(self.next_id)
    }

    /// Gives positions and commits; `None` if the key of positions refuses it.
    fn place(&mut self, relay: &RelayRow, taken: &[WrittenRow]) -> Option<u8> {
        // What another call has placed is deleted, and the statement finds it no more.
        let left: Vec<_> =
            taken.iter().filter(|row| self.waiting.iter().any(|(waits, _)| waits.entry == row.entry)).collect();
        if !left.is_empty() && relay.position != self.placed {
            self.broken = self.broken.or((relay.position > self.placed).then_some(DENSE));
            return None;
        }
        for row in left.iter() {
            let is_early = self.waiting.iter().any(|(waits, _)| row.after & 1 << waits.entry != 0);
            let open = self.open.iter().flatten().flat_map(|open| &open.written);
            let is_early = is_early || open.into_iter().any(|other| row.after & 1 << other.entry != 0);
            self.broken = self.broken.or(is_early.then_some(ORDER));
            self.waiting.retain(|(waits, _)| waits.entry != row.entry);
            self.placed += 1;
            self.forget(row.entry);
        }
        Some(u8::try_from(left.len()).unwrap_or(u8::MAX))
    }

    /// What has a position precedes all that gets one later, so nobody has to remember it.
    fn forget(&mut self, entry: Entry) {
        let keep = !(1 << entry);
        self.waiting.iter_mut().for_each(|(row, _)| row.after &= keep);
        for open in self.open.iter_mut().flatten() {
            open.written.iter_mut().for_each(|row| row.after &= keep);
            open.waits.iter_mut().for_each(|(_, seen, _)| *seen &= keep);
        }
        for call in &mut self.calls {
            if let PositionCall::Taken { taken, .. } = call {
                taken.iter_mut().for_each(|row| row.after &= keep);
            }
        }
    }

    fn crash(&mut self, back: u8) {
        self.crashes += 1;
        self.open.iter_mut().for_each(|open| *open = None);
        self.calls.iter_mut().for_each(|call| *call = PositionCall::None);
        self.last_number -= back;
    }

    /// Makes states equal that differ only in names: numbers, ids and positions are only compared, and sessions are alike.
    fn forget_names(&mut self) {
        let (mut ids, mut numbers) = (vec![0], vec![0]);
        self.visit(&mut |id| ids.push(*id), &mut |number| numbers.push(*number), &mut |_| {});
        for all in [&mut ids, &mut numbers] {
            all.sort_unstable();
            all.dedup();
        }
        let rank = |all: &[u8], name: u8| match name {
            UNREAD => name,
            _ => all.iter().position(|known| *known == name).map_or(name, |at| at as u8),
        };
        let renumber = |set: EntrySet| {
            let bits = (0..EntrySet::BITS as u8).filter(|entry| set & 1 << entry != 0);
            bits.fold(0, |renamed, entry| renamed | 1 << rank(&numbers, entry))
        };
        self.visit(&mut |id| *id = rank(&ids, *id), &mut |number| *number = rank(&numbers, *number), &mut |set| {
            *set = renumber(*set)
        });
        let calls = self.calls.iter().filter_map(|call| call.relay());
        let least = calls.map(|relay| relay.position).fold(self.relay.position.min(self.placed), u8::min);
        self.placed -= least;
        self.relay.position -= least;
        self.calls.iter_mut().filter_map(PositionCall::relay_mut).for_each(|relay| relay.position -= least);
        self.open.sort();
        self.calls.sort();
    }

    /// Shows all ids, all numbers, and all sets of numbers.
    fn visit(
        &mut self,
        id: &mut dyn FnMut(&mut u8),
        number: &mut dyn FnMut(&mut Entry),
        set: &mut dyn FnMut(&mut EntrySet),
    ) {
        id(&mut self.next_id);
        number(&mut self.last_number);
        let mut relays = vec![&mut self.relay];
        let mut rows: Vec<&mut WrittenRow> = vec![];
        for (row, of) in &mut self.waiting {
            id(of);
            rows.push(row);
        }
        for open in self.open.iter_mut().flatten() {
            id(&mut open.id);
            rows.extend(&mut open.written);
            if let Some((_, seen, early)) = &mut open.waits {
                set(seen);
                early.iter_mut().for_each(&mut *number);
            }
        }
        for call in &mut self.calls {
            match call {
                PositionCall::None => {}
                PositionCall::Read { upto } => number(upto),
                PositionCall::Locked { upto, id: own, relay } => {
                    number(upto);
                    id(own);
                    relays.push(relay);
                }
                PositionCall::Looked { upto, id: own, relay, oldest } => {
                    number(upto);
                    [own, oldest].into_iter().for_each(&mut *id);
                    relays.push(relay);
                }
                PositionCall::Taken { upto, id: own, relay, oldest, taken } => {
                    number(upto);
                    [own, oldest].into_iter().for_each(&mut *id);
                    relays.push(relay);
                    rows.extend(taken);
                }
            }
        }
        for relay in relays {
            id(&mut relay.next_id);
            [&mut relay.decided, &mut relay.next_decided].into_iter().for_each(&mut *number);
        }
        for row in rows {
            number(&mut row.entry);
            set(&mut row.after);
        }
    }
}

impl PositionCall {
    fn has_lock(&self) -> bool {
        self.relay().is_some()
    }

    /// The row of `fedgate_relay` as the call has read it.
    fn relay(&self) -> Option<&RelayRow> {
        match self {
            Self::None | Self::Read { .. } => None,
            Self::Locked { relay, .. } | Self::Looked { relay, .. } | Self::Taken { relay, .. } => Some(relay),
        }
    }

    fn relay_mut(&mut self) -> Option<&mut RelayRow> {
        match self {
            Self::None | Self::Read { .. } => None,
            Self::Locked { relay, .. } | Self::Looked { relay, .. } | Self::Taken { relay, .. } => Some(relay),
        }
    }
}
