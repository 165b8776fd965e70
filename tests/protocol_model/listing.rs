//! The list of running gateways, on which an operator who waits for a change relies: one instance, one revocation,
//! one waiting operator.
//!
//! As in the larger model, any possible step may come next. Times are ages that count up to the bound with which
//! they are compared, so time is unbounded. One instance represents any number, because the waiting command looks
//! at each alone.

use stateright::{Model, Property};

/// Ticks for which a confirmation is valid. A report is valid for longer, as `listed_for` is.
const BOUND: u8 = 2;
const LISTED_FOR: u8 = 3;

pub(crate) const NOBODY_IS_MISSED: &str = "who has waited for a revocation sees nobody admitted by the old right";

/// A part of the protocol that is left out or reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Cached rights are used whether a report has arrived or not.
    UnlistedMayAdmit,
    /// A confirmation from before the listing counts once the instance is listed.
    EarlierConfirmationsCount,
    /// A report counts from its answer, not from when it was made.
    CountedFromAnswer,
    /// The waiting command does not wait for the leases of silent instances.
    SilentAreLeftOut,
}

#[derive(Debug, Clone)]
pub(crate) struct Listing(pub(crate) Option<Flaw>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct State {
    /// Since the revocation was committed.
    committed: Option<u8>,
    /// The instance's row in the list.
    row: Option<Report>,
    instance: Instance,
    returned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Instance {
    /// Whether it holds nothing from before the revocation: it applied it, or began later.
    knows: bool,
    /// Since the question whose answer counts.
    confirmed: Option<u8>,
    /// Since the report that counts was made.
    listed: Option<u8>,
    question: Option<Question>,
    report: Option<(Report, bool)>,
}

/// A question for changes, asked of the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Question {
    age: u8,
    /// Whether the answer, once it exists, contains the revocation.
    answer: Option<bool>,
    /// Whether it was asked while the instance was listed.
    counts: bool,
}

/// A report by its age: in flight since it was made, listed since it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Report {
    age: u8,
    knows: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Tick,
    Commit,
    Ask,
    Answer,
    Confirm,
    Report,
    Write,
    Acknowledge,
    Lose,
    Restart,
    Look,
}

impl Instance {
    fn is_listed(&self) -> bool {
        self.listed.is_some_and(|age| age < LISTED_FOR)
    }
}

impl Listing {
    /// Whether only questions asked since the instance was listed count.
    fn begins_with_the_list(&self) -> bool {
        !matches!(self.0, Some(Flaw::EarlierConfirmationsCount | Flaw::UnlistedMayAdmit))
    }

    fn admits_by_the_old_right(&self, state: &State) -> bool {
        let instance = &state.instance;
        let is_listed = instance.is_listed() || self.0 == Some(Flaw::UnlistedMayAdmit);
        !instance.knows && instance.confirmed.is_some_and(|age| age < BOUND) && is_listed
    }
}

impl Model for Listing {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        steps.extend([Step::Tick, Step::Restart]);
        let instance = &state.instance;
        steps.extend(state.committed.is_none().then_some(Step::Commit));
        steps.extend((state.committed.is_some() && !state.returned).then_some(Step::Look));
        steps.push(match instance.question {
            None => Step::Ask,
            Some(Question { answer: None, .. }) => Step::Answer,
            Some(_) => Step::Confirm,
        });
        match instance.report {
            None => steps.push(Step::Report),
            Some((_, is_written)) => {
                steps.extend([if is_written { Step::Acknowledge } else { Step::Write }, Step::Lose]);
            }
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut next = *last;
        let is_committed = next.committed.is_some();
        let State { committed, row, instance, returned } = &mut next;
        match step {
            Step::Tick => {
                let older = |age: &mut u8, most: u8| *age = most.min(*age + 1);
                committed.iter_mut().for_each(|age| older(age, BOUND));
                row.iter_mut().for_each(|row| older(&mut row.age, LISTED_FOR));
                instance.confirmed.iter_mut().for_each(|age| older(age, BOUND));
                instance.listed.iter_mut().for_each(|age| older(age, LISTED_FOR));
                instance.question.iter_mut().for_each(|question| older(&mut question.age, BOUND));
                instance.report.iter_mut().for_each(|(report, _)| older(&mut report.age, LISTED_FOR));
            }
            Step::Commit => *committed = Some(0),
            Step::Ask => {
                let counts = instance.is_listed() || !self.begins_with_the_list();
                instance.question = Some(Question { age: 0, answer: None, counts });
            }
            Step::Answer => instance.question.as_mut()?.answer = Some(is_committed),
            Step::Confirm => {
                let question = instance.question.take()?;
                instance.knows |= question.answer?;
                if question.counts {
                    instance.confirmed = Some(instance.confirmed.map_or(question.age, |age| age.min(question.age)));
                }
            }
            Step::Report => instance.report = Some((Report { age: 0, knows: instance.knows }, false)),
            Step::Write => {
                let (report, is_written) = instance.report.as_mut()?;
                *is_written = true;
                *row = Some(Report { age: 0, knows: report.knows });
            }
            Step::Acknowledge => {
                let (report, _) = instance.report.take()?;
                if !instance.is_listed() && self.begins_with_the_list() {
                    instance.confirmed = None;
                    instance.question.iter_mut().for_each(|question| question.counts = false);
                }
                let age = if self.0 == Some(Flaw::CountedFromAnswer) { 0 } else { report.age };
                instance.listed = Some(instance.listed.map_or(age, |listed| listed.min(age)));
            }
            Step::Lose => instance.report = None,
            Step::Restart => {
                *instance = Instance { knows: is_committed, ..Instance::default() };
                // Under another name: the old name's report only makes the command wait.
                *row = None;
            }
            Step::Look => {
                let silent =
                    |row: &Report| !row.knows && row.age < LISTED_FOR && self.0 != Some(Flaw::SilentAreLeftOut);
                let lease_has_ended = committed.is_some_and(|age| age >= BOUND);
                *returned = lease_has_ended || !row.as_ref().is_some_and(silent);
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOBODY_IS_MISSED, |listing: &Self, state: &State| {
                !(state.returned && listing.admits_by_the_old_right(state))
            }),
            Property::sometimes("the old right is used after the commit", |listing: &Self, state: &State| {
                state.committed.is_some() && listing.admits_by_the_old_right(state)
            }),
            Property::sometimes("it is waited for less than the bound", |_: &Self, state: &State| {
                state.returned && state.committed == Some(0) && state.row.is_some_and(|row| row.knows)
            }),
            Property::sometimes("nobody on the list is waited for", |_: &Self, state: &State| {
                state.returned && state.committed == Some(0) && state.row.is_none() && !state.instance.knows
            }),
            Property::sometimes("one that was not listed for long is listed again", |_: &Self, state: &State| {
                state.instance.listed == Some(0) && state.row.is_some_and(|row| row.age == 0) && state.returned
            }),
        ]
    }
}
