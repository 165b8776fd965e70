//! The size of the model, and the flaws that can be put into it on purpose.

/// How much of the world is walked.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) instances: usize,
    /// How many of the accounts are requested. All of them change.
    pub(crate) asked: u8,
    /// Whether requests are followed from their start to their decision. Without them only law 1 applies: what each
    /// cache may answer at each moment.
    pub(crate) requests: bool,
    /// The freshness bound, in ticks.
    pub(crate) bound: u8,
    pub(crate) commits: u8,
    /// How often a replica with all or only the first of the changes replaces the primary.
    pub(crate) failovers: u8,
    /// How often that happens while the old primary still answers its open connections.
    pub(crate) switchovers: u8,
    /// How many epochs the log of changes goes back.
    pub(crate) remembered: u8,
    pub(crate) restore: Restore,
    /// The longest run; `None` to visit everything.
    pub(crate) steps: Option<usize>,
}

/// Whether a backup is restored in place once, while sessions continue as if nothing had happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restore {
    Never,
    /// In the same transaction the epoch is raised beyond every earlier and every remembered one.
    Raised,
    /// While every session knows the last epoch and nothing is being read. No commit overtakes the next poll.
    Quiet,
    /// At any moment.
    Careless,
}

/// A part of the protocol that is left out or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The lease counts from the moment the answer arrived.
    LeaseFromAnswer,
    /// Cached entries are used whatever the lease.
    NoLease,
    /// A read is kept whatever has been applied since.
    NoGate,
    /// A read is kept whatever history it belongs to.
    NoGeneration,
    /// A new session continues from the last applied epoch.
    KeepOnReconnect,
    /// An epoch lower than the known one counts as no change.
    RegressionIsNothing,
    /// Changes before the beginning of the log count as no change.
    GapIsNothing,
    /// The epoch is read after the row, in another snapshot.
    EpochAfterRow,
    /// A request is answered by a read that began before it did.
    JoinEarlierRead,
    /// Polls after the first ask only for a sign of life. Changes come as notices, which are never lost.
    NoticesAlone,
    /// The same, and LISTEN comes after the first poll.
    NoticesAloneLate,
    /// As [`Flaw::NoticesAlone`], and notices are lost.
    NoticesAloneLost,
    /// A standby, which may be late, answers polls.
    PollStandby,
    /// Accounts are read from a standby, which may be late.
    ReadStandby,
    /// A new session of the watch does not move the sessions that read.
    PoolStays,
    /// The same, but an answer with a lower epoch than the last applied one is refused.
    PoolStaysByEpoch,
    /// A server that was left behind continues to confirm.
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
