//! The answers that clients received, the changes that were committed, and the law between the two.
//!
//! The law: every answer shows a state that its account had at some time between `bound` before the request began
//! and the end of the answer. So a revoked right admits no request that begins later than the bound, a granted
//! right is refused to none, and no caller with an account and its password receives 401. An unavailable database
//! (503) shows no state.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The right of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It has the role that the request needs.
    Entitled,
    /// It can log in, and lacks the role.
    Unentitled,
    /// It is disabled.
    Disabled,
}

/// The answer that a client received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The answer that belongs to a state.
    Tells(State),
    /// 503.
    Unavailable,
    /// Anything else: no answer, or one that no state explains.
    Failed(u16),
}

impl Outcome {
    pub(crate) fn of_status(status: u16) -> Self {
        match status {
            // Forwarded, whatever the result: a gateway that was suspended finds that the upstream took too long.
            200 | 504 => Self::Tells(State::Entitled),
            403 => Self::Tells(State::Unentitled),
            401 => Self::Tells(State::Disabled),
            503 => Self::Unavailable,
            other => Self::Failed(other),
        }
    }
}

/// A request and its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) account: usize,
    pub(crate) instance: usize,
    pub(crate) start: Instant,
    pub(crate) end: Instant,
    pub(crate) outcome: Outcome,
}

/// A change of an account, committed at some time between `begin` and `end`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flip {
    pub(crate) account: usize,
    pub(crate) state: State,
    pub(crate) begin: Instant,
    pub(crate) end: Instant,
}

/// The whole history. The flips of each account are in their order.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) answers: Vec<Answer>,
    pub(crate) flips: Vec<Flip>,
}

/// The result of checking a history.
#[derive(Debug)]
pub(crate) struct Findings {
    /// The answers that break the law.
    pub(crate) violations: Vec<Answer>,
    /// The longest time from the commit of a revocation to the start of a request that was still allowed.
    pub(crate) latest_allow: Duration,
    pub(crate) allowed: usize,
    pub(crate) refused: usize,
    pub(crate) unavailable: usize,
}

impl History {
    pub(crate) fn check(&self, bound: Duration) -> Findings {
        let flips = self.flips_by_account();
        let mut findings =
            Findings { violations: vec![], latest_allow: Duration::ZERO, allowed: 0, refused: 0, unavailable: 0 };
        for answer in &self.answers {
            let told = match answer.outcome {
                Outcome::Tells(state) => state,
                Outcome::Unavailable => {
                    findings.unavailable += 1;
                    continue;
                }
                Outcome::Failed(_) => {
                    findings.violations.push(*answer);
                    continue;
                }
            };
            let flips = flips.get(&answer.account).map_or(&[][..], Vec::as_slice);
            let staleness = staleness(flips, answer, told);
            if told == State::Entitled {
                findings.allowed += 1;
                findings.latest_allow = findings.latest_allow.max(staleness.unwrap_or_default());
            } else {
                findings.refused += 1;
            }
            if staleness.is_none_or(|staleness| staleness > bound) {
                findings.violations.push(*answer);
            }
        }
        findings
    }

    /// For each revocation of an entitled account: the time from its commit to the first refusal of each instance,
    /// with no allow after that. An instance that was not asked before the next flip is left out.
    pub(crate) fn visibility(&self) -> Vec<Vec<Duration>> {
        let mut answers: HashMap<(usize, usize), Vec<&Answer>> = HashMap::new();
        for answer in &self.answers {
            answers.entry((answer.account, answer.instance)).or_default().push(answer);
        }
        answers.values_mut().for_each(|answers| answers.sort_by_key(|answer| answer.start));
        let instances = self.answers.iter().map(|answer| answer.instance + 1).max().unwrap_or_default();
        let mut seen = Vec::new();
        for (account, flips) in self.flips_by_account() {
            for (index, flip) in flips.iter().enumerate().skip(1) {
                if flip.state == State::Entitled || flips[index - 1].state != State::Entitled {
                    continue;
                }
                let until = flips.get(index + 1).map(|next| next.begin);
                let within = |answer: &&&Answer| answer.start >= flip.begin && until.is_none_or(|end| answer.end < end);
                let of_instance = |instance| {
                    let answers: Vec<_> = answers.get(&(account, instance))?.iter().filter(within).collect();
                    let is_allow = |answer: &&Answer| answer.outcome == Outcome::Tells(State::Entitled);
                    let first = answers.iter().rposition(|answer| is_allow(answer)).map_or(0, |last| last + 1);
                    Some(answers.get(first)?.end.saturating_duration_since(flip.end))
                };
                seen.push((0..instances).filter_map(of_instance).collect());
            }
        }
        seen
    }

    fn flips_by_account(&self) -> HashMap<usize, Vec<Flip>> {
        let mut flips: HashMap<usize, Vec<Flip>> = HashMap::new();
        self.flips.iter().for_each(|flip| flips.entry(flip.account).or_default().push(*flip));
        flips
    }
}

/// How long before the request its account last had the state of the answer; `None` if it never had.
fn staleness(flips: &[Flip], answer: &Answer, told: State) -> Option<Duration> {
    let ended = |index: usize| flips.get(index + 1).map_or(answer.end, |next| next.end);
    let had = flips.iter().enumerate().filter(|(_, flip)| flip.state == told && flip.begin <= answer.end);
    had.map(|(index, _)| answer.start.saturating_duration_since(ended(index))).min()
}

#[test]
fn the_law_is_broken_by_late_allows_and_false_refusals_and_by_nothing_else() {
    use State::{Disabled, Entitled, Unentitled};
    let zero = Instant::now();
    let at = |ms: u64| zero + Duration::from_millis(ms);
    let flip = |state, begin, end| Flip { account: 0, state, begin: at(begin), end: at(end) };
    // Granted long ago, the role taken at 100 to 110, given back at 5000 to 5010, disabled at 9000 to 9010.
    let flips =
        vec![flip(Entitled, 0, 0), flip(Unentitled, 100, 110), flip(Entitled, 5000, 5010), flip(Disabled, 9000, 9010)];
    #[rustfmt::skip]
    let cases = [
        // start, end, status, is lawful
        (50,    51,    200, true),
        (50,    51,    401, false),  // never switched off so far
        (50,    51,    403, false),  // not yet taken
        (105,   106,   403, true),   // being taken
        (105,   106,   200, true),
        (1110,  1111,  200, true),   // within the bound
        (1111,  1112,  200, false),  // one millisecond later
        (1111,  1112,  504, false),  // forwarded all the same
        (1111,  1112,  403, true),
        (2000,  2001,  503, true),
        (2000,  2001,  0,   false),  // no answer at all
        (4999,  5005,  200, true),   // given back meanwhile
        (4990,  4999,  200, false),
        (6010,  6011,  403, true),
        (6011,  6012,  403, false),  // a right that was given is refused after the bound
        (10_010, 10_011, 200, true),
        (10_011, 10_012, 200, false),
        (10_011, 10_012, 403, false),
        (10_011, 10_012, 401, true),
    ];
    for (start, end, status, is_lawful) in cases {
        let outcome = Outcome::of_status(status);
        let answers = vec![Answer { account: 0, instance: 0, start: at(start), end: at(end), outcome }];
        let findings = History { answers, flips: flips.clone() }.check(Duration::from_secs(1));
        assert_eq!(findings.violations.is_empty(), is_lawful, "{start} to {end}: {status}");
    }
}

#[test]
fn visibility_counts_from_the_commit_to_the_first_refusal_with_no_allow_after_it() {
    let zero = Instant::now();
    let at = |ms: u64| zero + Duration::from_millis(ms);
    let flip = |state, begin, end| Flip { account: 0, state, begin: at(begin), end: at(end) };
    let answer = |start, status| {
        let outcome = Outcome::of_status(status);
        Answer { account: 0, instance: 0, start: at(start), end: at(start + 1), outcome }
    };
    let flips = vec![flip(State::Entitled, 0, 0), flip(State::Disabled, 100, 102), flip(State::Entitled, 900, 901)];
    let answers = vec![answer(101, 401), answer(104, 200), answer(106, 401), answer(108, 401), answer(901, 200)];
    assert_eq!(History { answers, flips }.visibility(), [[Duration::from_millis(5)]]);
}
