//! The hashers: dedicated threads that verify and make password hashes, behind a bounded queue.
//!
//! One verification takes tens of milliseconds of a whole core and 46 MiB, so this queue is the lever for denial of
//! service. The one rule: it is bounded, a full queue is told at once ([`Busy`]), and a caller who went away costs
//! nothing. Each thread keeps an arena of its own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use thiserror::Error;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::password::{self, Arena, Cost};

/// The queue is full, or the hashers have stopped; the same request may succeed in a moment.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
#[error("password verification is busy")]
pub struct Busy;

/// A handle to the hasher threads; they end when the last handle is gone.
#[derive(Clone)]
pub struct Hasher {
    queue: SyncSender<Job>,
    cost: Cost,
}

enum Job {
    Verify { stored: String, password: Zeroizing<Vec<u8>>, answer: oneshot::Sender<bool> },
    Hash { password: Zeroizing<Vec<u8>>, answer: oneshot::Sender<Option<String>> },
}

impl Hasher {
    /// Starts `threads` threads with room for `queue` waiting jobs.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(threads: usize, queue: usize, cost: Cost) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(queue);
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..threads {
            let receiver = Arc::clone(&receiver);
            thread::Builder::new().name(format!("hasher-{number}")).spawn(move || work(&receiver, cost))?;
        }
        Ok(Self { queue: sender, cost })
    }

    /// The cost of the hashes made here.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// Whether `password` is the one `stored` was made from. Dropping the future cancels a job that still waits.
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn verify(&self, stored: String, password: Zeroizing<Vec<u8>>) -> Result<bool, Busy> {
        let (answer, receive) = oneshot::channel();
        self.submit(Job::Verify { stored, password, answer })?;
        receive.await.map_err(|_| Busy)
    }

    /// Makes a new hash; none when the password is too long for one.
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn hash(&self, password: Zeroizing<Vec<u8>>) -> Result<Option<String>, Busy> {
        let (answer, receive) = oneshot::channel();
        self.submit(Job::Hash { password, answer })?;
        receive.await.map_err(|_| Busy)
    }

    fn submit(&self, job: Job) -> Result<(), Busy> {
        match self.queue.try_send(job) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Busy),
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>, cost: Cost) {
    let mut arena = Arena::default();
    loop {
        // One thread waits in `recv`, the others for the lock; a job in progress holds neither.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(Job::Verify { stored, password, answer }) if !answer.is_closed() => {
                let _ = answer.send(password::verify_with(&stored, &password, &mut arena));
            }
            Ok(Job::Hash { password, answer }) if !answer.is_closed() => {
                let _ = answer.send(password::hash_with(&password, cost, &mut arena).ok());
            }
            Ok(Job::Verify { .. } | Job::Hash { .. }) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 64, passes: 1 };

    fn secret(text: &str) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(text.as_bytes().to_vec())
    }

    #[tokio::test]
    async fn hashes_and_verifies_off_the_callers_thread() {
        let hasher = Hasher::start(2, 8, CHEAP).unwrap();
        let stored = hasher.hash(secret("freedom")).await.unwrap().unwrap();
        assert_eq!(hasher.verify(stored.clone(), secret("freedom")).await, Ok(true));
        assert_eq!(hasher.verify(stored, secret("Freedom")).await, Ok(false));
    }

    #[tokio::test]
    async fn a_full_queue_is_told_at_once() {
        // No thread takes from it, so that the second job finds it full.
        let hasher = Hasher::start(0, 1, CHEAP).unwrap();
        // With no thread the receiver is gone at once: even the first is refused rather than left waiting for ever.
        assert_eq!(hasher.hash(secret("a")).await, Err(Busy));

        let hasher = Hasher::start(1, 1, Cost { memory_kib: 65_536, passes: 3 }).unwrap();
        let jobs: Vec<_> = (0..10)
            .map(|_| {
                let hasher = hasher.clone();
                tokio::spawn(async move { hasher.hash(secret("a")).await })
            })
            .collect();
        let mut busy = 0;
        for job in jobs {
            busy += usize::from(job.await.unwrap() == Err(Busy));
        }
        assert!((7..=9).contains(&busy), "one runs, one waits, the rest are refused: {busy}");
    }
}
