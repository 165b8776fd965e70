//! The primary database: accounts with their rights, the epoch, and the log of changes.
//!
//! A right is modelled by its *version*: every commit makes a new one and flips the right. Each version carries the
//! time since it was last current. That is a ghost: the protocol never sees it, and the laws are checked against
//! it.

/// The number of accounts. Both may change, so that a change can name one and not the other.
pub(crate) const ACCOUNTS: usize = 2;

/// One state of one account's right. The first [`ACCOUNTS`] versions are the rights at the beginning.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Version {
    pub(crate) account: u8,
    pub(crate) right: bool,
    /// Ticks since it was last the account's right, at most the bound; 0 while it is.
    pub(crate) superseded: u8,
}

/// The committed state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Primary {
    /// Every version there ever was, in the order of creation, including those that a failover lost.
    pub(crate) versions: Vec<Version>,
    /// The versions committed in the present history.
    pub(crate) history: Vec<u8>,
    pub(crate) commits: u8,
    /// By how much the epoch was raised without a logged change.
    pub(crate) raised: u8,
    pub(crate) failovers: u8,
    pub(crate) restores: u8,
    pub(crate) switchovers: u8,
    /// The versions committed on a server that was left behind and still answers, while any session can ask it.
    pub(crate) left: Option<Vec<u8>>,
}

/// The primary's answer to "what changed since".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Changes {
    pub(crate) epoch: u8,
    pub(crate) accounts: Changed,
}

/// Which accounts changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Changed {
    /// A bit for each account.
    These(u8),
    Everything,
}

impl Primary {
    pub(crate) fn new() -> Self {
        let versions = (0..ACCOUNTS as u8).map(|account| Version { account, right: true, superseded: 0 }).collect();
        Self {
            versions,
            history: Vec::new(),
            commits: 0,
            raised: 0,
            failovers: 0,
            restores: 0,
            switchovers: 0,
            left: None,
        }
    }

    pub(crate) fn version(&self, id: u8) -> &Version {
        &self.versions[id as usize]
    }

    pub(crate) fn epoch(&self) -> u8 {
        self.history.len() as u8 + self.raised
    }

    /// The version that is an account's right now.
    pub(crate) fn current(&self, account: u8) -> u8 {
        self.current_at(account, self.history.len())
    }

    /// The version that was current when only `length` changes were committed, as on a late standby.
    pub(crate) fn current_at(&self, account: u8, length: usize) -> u8 {
        self.last_of(account, &self.history[..length])
    }

    /// The version that a history ends with.
    pub(crate) fn last_of(&self, account: u8, history: &[u8]) -> u8 {
        let of_account = |id: &&u8| self.version(**id).account == account;
        history.iter().rev().find(of_account).copied().unwrap_or(account)
    }

    /// A replica with the first `length` changes replaces this server, which still answers.
    pub(crate) fn leave_behind(&mut self, length: usize) {
        self.left = Some(self.history.clone());
        self.go_back(length);
        self.switchovers += 1;
    }

    pub(crate) fn commit(&mut self, account: u8) {
        let right = !self.version(self.current(account)).right;
        self.commits += 1;
        self.history.push(self.versions.len() as u8);
        self.versions.push(Version { account, right, superseded: 0 });
    }

    /// Forgets all but the first `length` changes.
    pub(crate) fn go_back(&mut self, length: usize) {
        self.history.truncate(length);
        for account in 0..ACCOUNTS as u8 {
            let current = self.current(account);
            self.versions[current as usize].superseded = 0;
        }
    }

    pub(crate) fn tick(&mut self, bound: u8) {
        let current: Vec<u8> = (0..ACCOUNTS as u8).map(|account| self.current(account)).collect();
        for (id, version) in self.versions.iter_mut().enumerate() {
            if !current.contains(&(id as u8)) {
                version.superseded = bound.min(version.superseded + 1);
            }
        }
    }

    /// Mirrors `accounts::changes`, asked of the first `length` changes of the log, which goes `remembered` epochs back.
    pub(crate) fn changes(&self, since: Option<u8>, length: usize, remembered: u8) -> Changes {
        self.changes_of(&self.history[..length], since, remembered)
    }

    pub(crate) fn changes_of(&self, history: &[u8], since: Option<u8>, remembered: u8) -> Changes {
        let length = history.len();
        let epoch = length as u8 + self.raised;
        let accounts = match since {
            Some(since) if since <= epoch && epoch - since < remembered => Changed::These(
                history[length - (epoch - since) as usize..length]
                    .iter()
                    .fold(0, |accounts, id| accounts | 1 << self.version(*id).account),
            ),
            _ => Changed::Everything,
        };
        Changes { epoch, accounts }
    }

    /// The versions of an account that were current at some moment within the last `bound` ticks, a bit for each.
    pub(crate) fn recent(&self, account: u8, bound: u8) -> u16 {
        let recent = |version: &Version| version.account == account && version.superseded < bound;
        (0..).zip(&self.versions).fold(0, |ids, (id, version)| ids | u16::from(recent(version)) << id)
    }

    /// Forgets the ages of versions that are not `held`, and versions in no history; returns the new ids.
    pub(crate) fn keep(&mut self, held: u16, bound: u8) -> Vec<u8> {
        let mut renamed = Vec::with_capacity(self.versions.len());
        let mut kept = Vec::with_capacity(self.versions.len());
        for (id, mut version) in (0..).zip(self.versions.drain(..)) {
            renamed.push(kept.len() as u8);
            if held & 1 << id == 0 {
                version.superseded = bound;
            }
            let is_in_a_history =
                self.history.contains(&id) || self.left.as_ref().is_some_and(|left| left.contains(&id));
            if held & 1 << id != 0 || is_in_a_history || (id as usize) < ACCOUNTS {
                kept.push(version);
            }
        }
        self.versions = kept;
        self.history.iter_mut().chain(self.left.iter_mut().flatten()).for_each(|id| *id = renamed[*id as usize]);
        renamed
    }
}
