//! A question that all who wait share: one is asked at a time, and each answers everybody who came before it began.
//!
//! The one rule: nobody gets the answer to a question that was asked before the request came.
//!
//! The requests wait on their own threads, and one task asks. A request that goes away leaves nothing behind.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// A question that is asked for several at once.
pub(super) struct SharedQuestion<T> {
    waiting: Mutex<Vec<oneshot::Sender<T>>>,
    wanted: Notify,
}

/// Those who get the next answer. Dropping this tells them that there is none.
pub(super) struct WaitingRequests<T>(Vec<oneshot::Sender<T>>);

impl<T> Default for SharedQuestion<T> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), wanted: Notify::new() }
    }
}

impl<T: Clone> SharedQuestion<T> {
    fn waiting(&self) -> MutexGuard<'_, Vec<oneshot::Sender<T>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to the next question that is asked; none if there is none in time.
    pub(super) async fn ask(&self, limit: Duration) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        let is_first = {
            let mut waiting = self.waiting();
            waiting.push(sender);
            waiting.len() == 1
        };
        if is_first {
            self.wanted.notify_one();
        }
        timeout(limit, answer).await.ok()?.ok()
    }

    /// Waits until somebody wants an answer, and returns all who do. The question must be asked after this.
    pub(super) async fn next(&self) -> WaitingRequests<T> {
        loop {
            let mut waiting = std::mem::take(&mut *self.waiting());
            waiting.retain(|sender| !sender.is_closed());
            if !waiting.is_empty() {
                return WaitingRequests(waiting);
            }
            self.wanted.notified().await;
        }
    }

    /// Tells everybody who waits that nobody answers.
    pub(super) fn refuse(&self) {
        self.waiting().clear();
    }
}

impl<T: Clone> WaitingRequests<T> {
    /// Nobody.
    pub(super) fn none() -> Self {
        Self(vec![])
    }

    /// How many they are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells them the answer.
    pub(super) fn answer(self, answer: &T) {
        for sender in self.0 {
            // Who has gone needs none.
            let _ = sender.send(answer.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn who_comes_while_a_question_is_asked_gets_the_answer_to_the_next_one() {
        let question = Arc::new(SharedQuestion::default());
        let ask = |question: &Arc<SharedQuestion<u32>>| {
            let question = Arc::clone(question);
            tokio::spawn(async move { question.ask(LONG).await })
        };
        let early = [ask(&question), ask(&question)];
        tokio::task::yield_now().await;
        let first = question.next().await;
        let late = ask(&question);
        tokio::task::yield_now().await;
        assert_eq!(first.len(), 2);
        first.answer(&1);
        for asked in early {
            assert_eq!(asked.await.unwrap(), Some(1));
        }
        let second = question.next().await;
        assert_eq!(second.len(), 1);
        second.answer(&2);
        assert_eq!(late.await.unwrap(), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_answer_nobody_waits_beyond_the_limit_and_who_has_gone_is_forgotten() {
        let question = Arc::new(SharedQuestion::<u32>::default());
        assert_eq!(question.ask(LONG).await, None);
        let gone = {
            let question = Arc::clone(&question);
            tokio::spawn(async move { question.ask(LONG).await })
        };
        tokio::task::yield_now().await;
        gone.abort();
        let _ = gone.await;
        let next = {
            let question = Arc::clone(&question);
            tokio::spawn(async move { question.next().await.len() })
        };
        tokio::task::yield_now().await;
        let (asked, refused) = (Arc::clone(&question), Arc::clone(&question));
        let asking = tokio::spawn(async move { asked.ask(LONG).await });
        assert_eq!(next.await.unwrap(), 1, "only who still waits");
        assert_eq!(asking.await.unwrap(), None, "the question was dropped");
        let asking = tokio::spawn(async move { question.ask(LONG).await });
        tokio::task::yield_now().await;
        refused.refuse();
        assert_eq!(asking.await.unwrap(), None);
    }
}
