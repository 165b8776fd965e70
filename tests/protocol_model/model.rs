//! The cache and revocation protocol as a transition system, which `stateright` walks in every order.
//!
//! Any possible step may come next. So a pause is a process that takes no step while time passes. A partition is a
//! set of unanswered questions. A loss is an answer that does not arrive before the session is closed. A delay is
//! everything else that happens first. None of them needs a state of its own, and none is bounded. Time, crashes,
//! reconnects, polls, reads and requests are unbounded too. Commits, failovers and restores are bounded, by
//! [`Bounds`].
//!
//! The protocol is modelled without notices: they only hasten a poll, and here a poll may begin at any moment.

pub(crate) mod bounds;
pub(crate) mod instance;
pub(crate) mod laws;
pub(crate) mod primary;

use stateright::{Model, Property};

use bounds::{Bounds, Flaw, Restore};
use instance::{Instance, Poll, Question, Read, Row, Session};
use primary::{ACCOUNTS, Changed, Changes, Primary};

/// The protocol within bounds.
#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    pub(crate) bounds: Bounds,
    pub(crate) flaw: Option<Flaw>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct State {
    pub(crate) primary: Primary,
    /// In no order: states that differ only by a permutation of instances are the same.
    pub(crate) instances: Vec<Instance>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Tick,
    Commit {
        account: u8,
    },
    /// A replica that has the first `length` changes becomes the primary; all sessions break.
    Failover {
        length: u8,
    },
    /// The same, and the old primary still answers the sessions that read.
    Switchover {
        length: u8,
    },
    /// A backup with the first `length` changes is restored; no session breaks.
    Restore {
        length: u8,
    },
    Of(usize, Move),
}

/// A step of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    Restart,
    Connect,
    Listen,
    Disconnect,
    AskChanges,
    /// By a server that has the first `length` changes.
    AnswerChanges {
        length: u8,
    },
    Confirm,
    BeginRead {
        account: u8,
    },
    /// By a server that has the first `length` changes.
    AnswerRead {
        length: u8,
    },
    /// By a server that was left behind.
    AnswerReadByLeft,
    FailRead,
    Insert,
    StartRequest {
        account: u8,
    },
    EndRequest,
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let instances = vec![Instance::new(self.bounds.bound); self.bounds.instances];
        vec![State { primary: Primary::new(), instances }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        steps.push(Step::Tick);
        let State { primary, instances } = state;
        let committed = primary.history.len() as u8;
        if primary.commits < self.bounds.commits && !self.would_overtake(state) {
            steps.extend((0..ACCOUNTS as u8).map(|account| Step::Commit { account }));
        }
        if primary.failovers < self.bounds.failovers {
            steps.extend((0..=committed).map(|length| Step::Failover { length }));
        }
        if primary.switchovers < self.bounds.switchovers {
            steps.extend((0..=committed).map(|length| Step::Switchover { length }));
        }
        if self.may_restore(state) {
            steps.extend((0..committed).map(|length| Step::Restore { length }));
        }
        for (index, instance) in instances.iter().enumerate() {
            let mut moves = Vec::new();
            self.session_moves(instance, committed, &mut moves);
            self.read_moves(instance, primary, &mut moves);
            steps.extend(moves.into_iter().map(|step| Step::Of(index, step)));
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut next = last.clone();
        match step {
            Step::Tick => {
                next.primary.tick(self.bounds.bound);
                next.instances.iter_mut().for_each(|instance| instance.tick(self.bounds.bound));
            }
            Step::Commit { account } => {
                next.primary.commit(account);
                self.notify(&mut next, account);
            }
            Step::Failover { length } => {
                next.primary.go_back(length as usize);
                next.primary.failovers += 1;
                next.instances.iter_mut().for_each(Instance::lose_server);
            }
            Step::Switchover { length } => {
                next.primary.leave_behind(length as usize);
                let behind = |instance: &mut Instance| match self.flaw {
                    Some(Flaw::LeftConfirms) => instance.behind = true,
                    _ => instance.is_left_behind(),
                };
                next.instances.iter_mut().for_each(behind);
            }
            Step::Restore { length } => {
                let lost = next.primary.history.len() as u8 - length;
                next.primary.go_back(length as usize);
                next.primary.restores += 1;
                if self.bounds.restore == Restore::Raised {
                    next.primary.raised = lost + self.bounds.remembered;
                }
            }
            Step::Of(index, step) => self.move_instance(&next.primary, &mut next.instances[index], step),
        }
        next.accept_current();
        let readers_stay = self.flaw.is_some_and(Flaw::leaves_readers_behind);
        if !readers_stay && !next.instances.iter().any(|instance| instance.behind) {
            next.primary.left = None;
        }
        if self.flaw != Some(Flaw::ReadStandby) {
            next.forget_the_unreachable(self.bounds.bound);
        }
        next.instances.sort();
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        laws::properties(&self.bounds)
    }
}

impl Protocol {
    fn session_moves(&self, instance: &Instance, committed: u8, moves: &mut Vec<Move>) {
        moves.push(Move::Restart);
        let Session::Open { known, poll, listening, broken } = &instance.session else {
            return moves.push(Move::Connect);
        };
        moves.push(Move::Disconnect);
        if !broken && !listening && known.is_some() {
            moves.push(Move::Listen);
        }
        match poll {
            Poll::Idle if !broken && (*listening || known.is_none()) => moves.push(Move::AskChanges),
            Poll::Asked(_) if !broken => {
                let least = if self.flaw == Some(Flaw::PollStandby) { 0 } else { committed };
                moves.extend((least..=committed).map(|length| Move::AnswerChanges { length }));
            }
            Poll::Answered(..) => moves.push(Move::Confirm),
            Poll::Idle | Poll::Asked(_) => {}
        }
    }

    fn read_moves(&self, instance: &Instance, primary: &Primary, moves: &mut Vec<Move>) {
        let committed = primary.history.len() as u8;
        match &instance.read {
            None => moves.extend((0..self.bounds.asked).map(|account| Move::BeginRead { account })),
            Some(Read { answer: None, .. }) => {
                moves.push(Move::FailRead);
                let least = if self.flaw == Some(Flaw::ReadStandby) { 0 } else { committed };
                moves.extend((least..=committed).map(|length| Move::AnswerRead { length }));
                if let Some(left) = &primary.left {
                    let epoch = left.len() as u8 + primary.raised;
                    let stays = match (self.flaw, &instance.session) {
                        (Some(Flaw::PoolStays), _) => true,
                        // Once the new primary has confirmed, its answer is compared.
                        (Some(Flaw::PoolStaysByEpoch), Session::Open { known: Some(known), .. }) => epoch >= *known,
                        _ => false,
                    };
                    moves.extend((instance.behind || stays).then_some(Move::AnswerReadByLeft));
                }
            }
            Some(Read { answer: Some(_), .. }) => moves.extend([Move::FailRead, Move::Insert]),
        }
        match &instance.request {
            None if !self.bounds.requests => {}
            None => moves.extend((0..self.bounds.asked).map(|account| Move::StartRequest { account })),
            Some(_) => moves.push(Move::EndRequest),
        }
    }

    fn move_instance(&self, primary: &Primary, instance: &mut Instance, step: Move) {
        let bound = self.bounds.bound;
        match step {
            Move::Restart => *instance = Instance::new(bound),
            Move::Connect => {
                let known = instance.applied.filter(|_| self.flaw == Some(Flaw::KeepOnReconnect));
                let listening = self.flaw != Some(Flaw::NoticesAloneLate);
                instance.session = Session::Open { known, poll: Poll::Idle, listening, broken: false };
                match self.flaw.is_some_and(Flaw::leaves_readers_behind) {
                    true => instance.behind = false,
                    false => instance.follow(),
                }
            }
            Move::Disconnect => instance.session = Session::Closed,
            Move::BeginRead { account } => {
                let after_request = instance.request.is_some();
                instance.read = Some(Read { account, after_request, same_generation: true, answer: None });
            }
            Move::AnswerRead { length } => {
                let Some(read) = &mut instance.read else { return };
                let version = primary.current_at(read.account, length as usize);
                read.answer = Some(Row { version, epoch: length + primary.raised });
            }
            Move::AnswerReadByLeft => {
                let (Some(read), Some(left)) = (&mut instance.read, &primary.left) else { return };
                let version = primary.last_of(read.account, left);
                read.answer = Some(Row { version, epoch: left.len() as u8 + primary.raised });
            }
            Move::FailRead => instance.read = None,
            Move::Insert => {
                if self.flaw == Some(Flaw::EpochAfterRow) {
                    instance
                        .read
                        .iter_mut()
                        .filter_map(|read| read.answer.as_mut())
                        .for_each(|row| row.epoch = primary.epoch());
                }
                instance.insert(self.flaw);
            }
            Move::StartRequest { account } => {
                instance.start(account, primary.recent(account, bound), bound, self.flaw);
            }
            Move::EndRequest => instance.end(),
            Move::Listen | Move::AskChanges | Move::AnswerChanges { .. } | Move::Confirm => {
                self.follow(primary, instance, step);
            }
        }
    }

    /// A step of an open session; mirrors `follow_postgres`.
    fn follow(&self, primary: &Primary, instance: &mut Instance, step: Move) {
        let covers_request = true;
        let Session::Open { known, poll, listening, broken } = &mut instance.session else { return };
        match (step, *poll) {
            (Move::Listen, _) => *listening = true,
            (Move::AskChanges, Poll::Idle) => *poll = Poll::Asked(Question { age: 0, covers_request }),
            (Move::AnswerChanges { length }, Poll::Asked(question)) => {
                let changes = match &primary.left {
                    // Reached only in one flawed protocol: every other has closed the session.
                    Some(left) if instance.behind => primary.changes_of(left, *known, self.bounds.remembered),
                    _ => self.changes(primary, *known, length as usize),
                };
                *poll = Poll::Answered(question, changes);
            }
            (Move::Confirm, Poll::Answered(question, changes)) => {
                (*known, *poll) = (Some(changes.epoch), Poll::Idle);
                // A broken session delivers nothing more.
                if *broken {
                    instance.session = Session::Closed;
                }
                instance.confirm(question, changes, self.flaw);
            }
            _ => {}
        }
    }

    fn changes(&self, primary: &Primary, known: Option<u8>, length: usize) -> Changes {
        let Some(since) = known else { return primary.changes(None, length, self.bounds.remembered) };
        let nothing = Changed::These(0);
        if self.flaw.is_some_and(Flaw::believes_notices) {
            return Changes { epoch: since, accounts: nothing };
        }
        let changes = primary.changes(known, length, self.bounds.remembered);
        let blind = match self.flaw {
            Some(Flaw::RegressionIsNothing) => since > changes.epoch,
            Some(Flaw::GapIsNothing) => since < changes.epoch && changes.accounts == Changed::Everything,
            _ => false,
        };
        if blind { Changes { accounts: nothing, ..changes } } else { changes }
    }

    /// In protocols that rely on notices: notifies every listener at once.
    fn notify(&self, state: &mut State, account: u8) {
        if !matches!(self.flaw, Some(Flaw::NoticesAlone | Flaw::NoticesAloneLate)) {
            return;
        }
        let changes = Changes { epoch: state.primary.epoch(), accounts: Changed::These(1 << account) };
        for instance in &mut state.instances {
            let Session::Open { known, poll, listening: true, broken: false } = &mut instance.session else { continue };
            // The notice arrives in order, after earlier answers.
            if let Poll::Answered(_, answered) = poll {
                answered.epoch = changes.epoch;
            }
            if known.is_some() {
                *known = Some(changes.epoch);
                instance.apply(changes);
            }
        }
    }

    fn may_restore(&self, state: &State) -> bool {
        let epoch = state.primary.epoch();
        let quiet = |instance: &Instance| {
            let idle = match &instance.session {
                Session::Closed => true,
                Session::Open { known, poll, .. } => *known == Some(epoch) && *poll == Poll::Idle,
            };
            idle && instance.read.as_ref().is_none_or(|read| read.answer.is_none())
        };
        let allowed = match self.bounds.restore {
            Restore::Never => false,
            Restore::Quiet => state.instances.iter().all(quiet),
            Restore::Raised | Restore::Careless => true,
        };
        allowed && state.primary.restores == 0
    }

    /// Whether, after a quiet restore, a session has not yet seen that the epoch went back.
    fn would_overtake(&self, state: &State) -> bool {
        let ahead = |instance: &Instance| match &instance.session {
            Session::Open { known, .. } => *known > Some(state.primary.epoch()),
            Session::Closed => false,
        };
        self.bounds.restore == Restore::Quiet && state.instances.iter().any(ahead)
    }
}

impl State {
    /// A version that is current while a request is open may decide it.
    fn accept_current(&mut self) {
        let Self { primary, instances } = self;
        for request in instances.iter_mut().filter_map(|instance| instance.request.as_mut()) {
            request.acceptable |= 1 << primary.current(request.account);
        }
    }

    /// Makes states equal that differ only in versions that can never matter again.
    ///
    /// A version that is neither current nor cached nor being read can be used only after it has become current
    /// again. Then it is as fresh as any. So its age means nothing, and neither does its name if no history
    /// contains it.
    fn forget_the_unreachable(&mut self, bound: u8) {
        let Self { primary, instances } = self;
        let mut held: u16 = (0..ACCOUNTS as u8).fold(0, |ids, account| {
            let left = primary.left.as_ref().map_or(0, |left| 1 << primary.last_of(account, left));
            ids | left | 1 << primary.current(account)
        });
        instances.iter().flat_map(Instance::versions).for_each(|id| held |= 1 << id);
        let renamed = primary.keep(held, bound);
        for instance in instances {
            instance.rename(held, &renamed);
        }
    }
}
