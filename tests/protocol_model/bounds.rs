//! How far the model goes, and what can be done wrong in it on purpose.

/// How much of the world is walked through.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) instances: usize,
    /// How many of the accounts are asked for; all change.
    pub(crate) asked: u8,
    /// Whether requests are followed from their start to their decision. Without them, law 1 alone says something: what
    /// each cache may answer at each moment.
    pub(crate) requests: bool,
    /// The freshness bound, in ticks.
    pub(crate) bound: u8,
    pub(crate) commits: u8,
    /// How often the primary is replaced by a replica that has all or only the first of its changes.
    pub(crate) failovers: u8,
    /// How often that happens while the old primary goes on answering who is connected to it.
    pub(crate) switchovers: u8,
    /// How many epochs back the log of changes goes.
    pub(crate) remembered: u8,
    pub(crate) restore: Restore,
    /// How long a run may be; none where everything is to be visited.
    pub(crate) steps: Option<usize>,
}

/// Whether once a backup is restored in place, while sessions go on as if nothing had happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restore {
    Never,
    /// And in the same transaction the epoch is raised beyond all that was and all that is remembered.
    Raised,
    /// While every session knows the last epoch and nothing is being read; no commit overtakes the next poll.
    Quiet,
    /// At any moment.
    Careless,
}

/// What is left out of the protocol, or done otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The lease counts from the moment the answer arrived.
    LeaseFromAnswer,
    /// Cached entries are used whatever the lease.
    NoLease,
    /// What was read is kept whatever has been applied since.
    NoGate,
    /// What was read is kept whatever history it was read in.
    NoGeneration,
    /// A new session goes on from the epoch that was applied last.
    KeepOnReconnect,
    /// An epoch lower than the one known counts as no change.
    RegressionIsNothing,
    /// What the log does not reach back to counts as no change.
    GapIsNothing,
    /// The epoch is asked for after the row, in another snapshot.
    EpochAfterRow,
    /// A request is answered by a read that began before it did.
    JoinEarlierRead,
    /// Polls after the first ask only for a sign of life; changes are told by notices, which never fail to come.
    NoticesAlone,
    /// The same, and LISTEN comes after the first poll.
    NoticesAloneLate,
    /// The same as [`Flaw::NoticesAlone`], and notices are lost.
    NoticesAloneLost,
    /// Polls are answered by a standby, which may be behind.
    PollStandby,
    /// Accounts are read from a standby, which may be behind.
    ReadStandby,
    /// A new session of the watch leaves those that read where they are.
    PoolStays,
    /// The same, but what tells a lower epoch than the one that was applied last is refused.
    PoolStaysByEpoch,
    /// A server that was left behind goes on confirming.
    LeftConfirms,
}

impl Flaw {
    pub(crate) fn believes_notices(self) -> bool {
        matches!(self, Self::NoticesAlone | Self::NoticesAloneLate | Self::NoticesAloneLost)
    }

    pub(crate) fn leaves_readers_behind(self) -> bool {
        matches!(self, Self::PoolStays | Self::PoolStaysByEpoch)
    }
}
