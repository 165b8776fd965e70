//! The messages that wait for one webhook, in lanes: one for each person.
//!
//! The one rule: of one lane, one message is sent at a time, and the next only after it. A message that fails holds up its
//! lane and no other. Knows neither the clock nor the store.

use std::collections::{BTreeSet, HashMap, VecDeque};

use tokio::time::Instant;

use crate::store::webhooks::WaitingMessage;

/// The most messages that wait behind one that fails. One more, and that one is given up.
pub(super) const MOST_HELD: usize = 500;

/// The lanes of one webhook.
pub(super) struct WebhookLanes {
    lanes: HashMap<String, VecDeque<WaitingMessage>>,
    /// The first message of each lane that is not being sent: when it is due, and its position.
    ready: BTreeSet<(Instant, u64, String)>,
    count: usize,
    most_waiting: usize,
}

impl WebhookLanes {
    /// Lanes without messages, which have room while fewer than `most_waiting` wait.
    pub(super) fn new(most_waiting: usize) -> Self {
        Self { lanes: HashMap::new(), ready: BTreeSet::new(), count: 0, most_waiting }
    }

    /// With so many messages there is no room for further ones.
    pub(super) fn most_waiting(&self) -> usize {
        self.most_waiting
    }

    /// Takes a message that comes after all others of its lane.
    pub(super) fn push(&mut self, message: WaitingMessage, now: Instant) {
        // Most lanes have one message, and there may be thousands.
        let lane = self.lanes.entry(message.lane.clone()).or_insert_with(|| VecDeque::with_capacity(1));
        if lane.is_empty() {
            self.ready.insert((now + message.due, message.position, message.lane.clone()));
        }
        lane.push_back(message);
        self.count += 1;
    }

    /// How many messages wait, or are being sent.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// When the next message is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.ready.first().map(|(due, ..)| *due)
    }

    /// The next message that is due. Its lane waits until [`WebhookLanes::settled`] or [`WebhookLanes::failed`].
    pub(super) fn take_due(&mut self, now: Instant) -> Option<WaitingMessage> {
        self.ready.first().filter(|(due, ..)| *due <= now)?;
        let (.., lane) = self.ready.pop_first()?;
        self.lanes.get(&lane)?.front().cloned()
    }

    /// The first message of a lane was sent, or need not be.
    pub(super) fn settled(&mut self, lane: &str, now: Instant) {
        let Some(messages) = self.lanes.get_mut(lane) else { return };
        if messages.pop_front().is_some() {
            self.count -= 1;
        }
        match messages.front() {
            Some(next) => {
                self.ready.insert((now + next.due, next.position, lane.to_owned()));
            }
            None => {
                self.lanes.remove(lane);
            }
        }
    }

    /// The first message of a lane is sent again later.
    pub(super) fn again(&mut self, lane: &str, attempts: u32, due: Instant) {
        let Some(first) = self.lanes.get_mut(lane).and_then(VecDeque::front_mut) else { return };
        first.attempts = attempts;
        self.ready.insert((due, first.position, lane.to_owned()));
    }

    /// A first message that failed before and waits, and behind which too many wait.
    pub(super) fn overfull(&self) -> Option<WaitingMessage> {
        self.failed().find(|first| self.lanes.get(&first.lane).is_some_and(|lane| lane.len() > MOST_HELD)).cloned()
    }

    /// Whether there is room for further messages.
    pub(super) fn has_room(&self) -> bool {
        self.count < self.most_waiting
    }

    /// Of the first messages that failed before and wait, the one with the most attempts.
    pub(super) fn most_failed(&self) -> Option<WaitingMessage> {
        self.failed().max_by_key(|first| first.attempts).cloned()
    }

    fn failed(&self) -> impl Iterator<Item = &WaitingMessage> {
        let firsts = self.ready.iter().filter_map(|(.., lane)| self.lanes.get(lane)?.front());
        firsts.filter(|first| first.attempts > 0)
    }

    /// Takes the first message of a lane, although it is not due.
    pub(super) fn give_up(&mut self, message: &WaitingMessage, now: Instant) {
        self.ready.retain(|(_, position, _)| *position != message.position);
        self.settled(&message.lane, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn message(position: u64, lane: &str) -> WaitingMessage {
        WaitingMessage { position, lane: lane.to_owned(), attempts: 0, due: Duration::ZERO }
    }

    #[test]
    fn a_message_that_fails_holds_up_its_person_alone() {
        let (now, mut lanes) = (Instant::now(), WebhookLanes::new(1000));
        [(1, "a"), (2, "b"), (3, "a"), (4, "b")].iter().for_each(|(at, lane)| lanes.push(message(*at, lane), now));
        let taken = |lanes: &mut WebhookLanes, at| lanes.take_due(at).map(|message| message.position);
        assert_eq!((taken(&mut lanes, now), taken(&mut lanes, now), taken(&mut lanes, now)), (Some(1), Some(2), None));
        let later = now + Duration::from_secs(5);
        lanes.again("a", 1, later);
        lanes.settled("b", now);
        assert_eq!((taken(&mut lanes, now), taken(&mut lanes, now)), (Some(4), None));
        lanes.settled("b", now);
        assert_eq!((lanes.len(), lanes.next_due()), (2, Some(later)));
        assert_eq!((taken(&mut lanes, later), taken(&mut lanes, later)), (Some(1), None));
        lanes.settled("a", later);
        assert_eq!(taken(&mut lanes, later), Some(3));
        lanes.settled("a", later);
        assert_eq!((lanes.len(), lanes.next_due()), (0, None));
    }

    #[test]
    fn a_full_lane_gives_up_its_first_message_and_goes_on_in_order() {
        let (now, mut lanes) = (Instant::now(), WebhookLanes::new(1000));
        (0..=MOST_HELD as u64).for_each(|at| lanes.push(message(at, "a"), now));
        lanes.push(message(9999, "b"), now);
        assert!(lanes.overfull().is_none(), "none has failed");
        assert_eq!(lanes.take_due(now).unwrap().lane, "a");
        assert_eq!(lanes.take_due(now).unwrap().lane, "b");
        lanes.again("a", 3, now + Duration::from_secs(60));
        lanes.again("b", 4, now + Duration::from_secs(60));
        assert_eq!(lanes.most_failed().unwrap().position, 9999);
        let failed = lanes.overfull().unwrap();
        assert_eq!((failed.position, failed.attempts), (0, 3));
        lanes.give_up(&failed, now);
        assert!(lanes.overfull().is_none());
        assert_eq!(lanes.take_due(now).unwrap().position, 1);
        assert_eq!(lanes.len(), MOST_HELD + 1);
    }
}
