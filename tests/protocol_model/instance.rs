//! One gateway: its watch session, its lease, its cache, and one read and one request in flight.
//!
//! Mirrors `accounts/postgres/watch.rs` (the session and its polls) and `authn/cache.rs` (gate, generation, lease).

use super::bounds::Flaw;
use super::primary::{ACCOUNTS, Changed, Changes};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Instance {
    pub(crate) session: Session,
    /// The epoch whose changes have been applied: the gate.
    pub(crate) applied: Option<u8>,
    /// Ticks since the lease began; the bound if there is no lease.
    pub(crate) lease: u8,
    /// Ticks since the last confirmed question was asked. This is a ghost, which differs from `lease` only in
    /// flawed protocols.
    pub(crate) confirmed: u8,
    /// The version cached for each account.
    pub(crate) entries: [Option<u8>; ACCOUNTS],
    pub(crate) read: Option<Read>,
    pub(crate) request: Option<Request>,
    /// A switchover happened since the session was opened: the sessions that read are still with the old server.
    pub(crate) behind: bool,
}

/// The session that LISTENs and polls.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Session {
    Closed,
    Open {
        known: Option<u8>,
        poll: Poll,
        /// Only protocols that rely on notices use it.
        listening: bool,
        /// Its server is gone, after it had answered.
        broken: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Poll {
    Idle,
    Asked(Question),
    Answered(Question, Changes),
}

/// When a poll was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Question {
    /// Ticks ago, at most the bound.
    pub(crate) age: u8,
    /// A lease that begins here is valid when the open request starts.
    pub(crate) covers_request: bool,
}

/// An account being read, by the open request or by another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Read {
    pub(crate) account: u8,
    /// The read began after the open request.
    pub(crate) after_request: bool,
    /// The generation has not changed since the read began.
    pub(crate) same_generation: bool,
    pub(crate) answer: Option<Row>,
}

/// The result of a read, from one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Row {
    pub(crate) version: u8,
    pub(crate) epoch: u8,
}

/// A request that has started and is not decided.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Request {
    pub(crate) account: u8,
    /// The lease was valid when the request started, so it may use the cache.
    pub(crate) leased: bool,
    /// Likewise for the ghost.
    pub(crate) confirmed: bool,
    /// The request started while the sessions were with a server that was left behind, unknown to the instance.
    /// Until the instance knows, such a server may answer.
    pub(crate) excused: bool,
    /// The versions that may decide it, a bit for each: current at some moment since the bound before its start.
    pub(crate) acceptable: u16,
}

impl Request {
    pub(crate) fn accepts(&self, version: u8) -> bool {
        self.acceptable & 1 << version != 0
    }
}

impl Instance {
    /// A process at its start, for the first time or after a crash: no session, no lease, an empty cache.
    pub(crate) fn new(bound: u8) -> Self {
        Self {
            session: Session::Closed,
            applied: None,
            lease: bound,
            confirmed: bound,
            entries: [None; ACCOUNTS],
            read: None,
            request: None,
            behind: false,
        }
    }

    pub(crate) fn tick(&mut self, bound: u8) {
        let older = |age: &mut u8| *age = bound.min(*age + 1);
        older(&mut self.lease);
        older(&mut self.confirmed);
        if let Session::Open { poll: Poll::Asked(question) | Poll::Answered(question, _), .. } = &mut self.session {
            older(&mut question.age);
        }
    }

    /// The server is gone: its session delivers only what was answered before.
    pub(crate) fn lose_server(&mut self) {
        match &mut self.session {
            Session::Open { poll: Poll::Answered(..), broken, .. } => *broken = true,
            session => *session = Session::Closed,
        }
    }

    /// Another server replaces the one that all sessions are with. The old one still answers the sessions that
    /// read. It no longer answers the watch, because it takes no writes.
    pub(crate) fn is_left_behind(&mut self) {
        self.behind = true;
        self.lose_server();
    }

    /// Mirrors `ServerRoute::follow`: when a session of the watch begins, the sessions that read end, whatever they
    /// do. Without a server that was left behind they could as well continue.
    pub(crate) fn follow(&mut self) {
        if std::mem::take(&mut self.behind) {
            self.read.take_if(|read| read.answer.is_none());
        }
    }

    /// Mirrors `Principals::confirm`: applies what changed, then extends the lease.
    pub(crate) fn confirm(&mut self, question: Question, changes: Changes, flaw: Option<Flaw>) {
        self.apply(changes);
        let answered_now = Question { age: 0, covers_request: true };
        let counted_from = if flaw == Some(Flaw::LeaseFromAnswer) { answered_now } else { question };
        self.lease = self.lease.min(counted_from.age);
        self.confirmed = self.confirmed.min(question.age);
        if let Some(request) = &mut self.request {
            request.leased |= counted_from.covers_request;
            request.confirmed |= question.covers_request;
        }
    }

    pub(crate) fn apply(&mut self, changes: Changes) {
        match changes.accounts {
            Changed::Everything => {
                self.entries = [None; ACCOUNTS];
                if let Some(read) = &mut self.read {
                    read.same_generation = false;
                }
            }
            Changed::These(accounts) => {
                for (account, entry) in self.entries.iter_mut().enumerate() {
                    entry.take_if(|_| accounts & 1 << account != 0);
                }
            }
        }
        self.applied = Some(changes.epoch);
    }

    /// Mirrors `Principals::insert`: keeps what was read, unless a change was applied since.
    pub(crate) fn insert(&mut self, flaw: Option<Flaw>) {
        let Some(Read { account, same_generation, answer: Some(row), .. }) = self.read.take() else { return };
        let gate = flaw == Some(Flaw::NoGate) || Some(row.epoch) >= self.applied;
        let generation = flaw == Some(Flaw::NoGeneration) || same_generation;
        if gate && generation {
            self.entries[account as usize] = Some(row.version);
        }
    }

    /// Starts a request; `acceptable` are the versions that may decide it.
    pub(crate) fn start(&mut self, account: u8, acceptable: u16, bound: u8, flaw: Option<Flaw>) {
        let leased = self.lease < bound || flaw == Some(Flaw::NoLease);
        let confirmed = self.confirmed < bound;
        self.request = Some(Request { account, leased, confirmed, excused: self.behind, acceptable });
        self.relate(|question| question.age < bound);
    }

    /// Ends the open request, decided or given up.
    pub(crate) fn end(&mut self) {
        self.request = None;
        // Without a request nothing relates to one: states that differ only in this are the same.
        self.relate(|_| true);
    }

    fn relate(&mut self, covers: impl Fn(&Question) -> bool) {
        if let Some(read) = &mut self.read {
            read.after_request = false;
        }
        if let Session::Open { poll: Poll::Asked(question) | Poll::Answered(question, _), .. } = &mut self.session {
            question.covers_request = covers(question);
        }
    }

    /// The versions cached or read.
    pub(crate) fn versions(&self) -> impl Iterator<Item = u8> {
        let row = self.read.as_ref().and_then(|read| read.answer);
        self.entries.iter().flatten().copied().chain(row.map(|row| row.version))
    }

    /// Renames versions to their new ids. A version that is not `held` can decide no request.
    pub(crate) fn rename(&mut self, held: u16, renamed: &[u8]) {
        let new = |id: &mut u8| *id = renamed[*id as usize];
        self.entries.iter_mut().flatten().for_each(new);
        self.read.iter_mut().filter_map(|read| read.answer.as_mut()).for_each(|row| new(&mut row.version));
        if let Some(request) = &mut self.request {
            let accepted = (0..renamed.len() as u8).filter(|id| held & request.acceptable & 1 << id != 0);
            request.acceptable = accepted.fold(0, |ids, id| ids | 1 << renamed[id as usize]);
        }
    }

    /// The versions by which the open request can be decided now, from the cache and from a read.
    pub(crate) fn decisions(&self, flaw: Option<Flaw>) -> Decisions {
        let Some(request) = &self.request else { return Decisions::default() };
        let joins = |read: &&Read| read.after_request || flaw == Some(Flaw::JoinEarlierRead);
        Decisions {
            cached: self.entries[request.account as usize].filter(|_| request.leased),
            read: self
                .read
                .as_ref()
                .filter(|read| read.account == request.account)
                .filter(joins)
                .and_then(|read| read.answer)
                .map(|row| row.version),
        }
    }
}

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Decisions {
    pub(crate) cached: Option<u8>,
    pub(crate) read: Option<u8>,
}

impl Decisions {
    pub(crate) fn all(self) -> impl Iterator<Item = u8> {
        self.cached.into_iter().chain(self.read)
    }
}
