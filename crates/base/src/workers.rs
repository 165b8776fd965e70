//! The threads that serve requests, in both programs. Each has a runtime of its own, and its own connections to servers.
//!
//! The one rule: a connection stays on the thread that it was given to, with its requests and the connections to
//! servers that they use. So no thread wakes another for a request, and none waits for a lock of another.
//!
//! A new connection goes to the thread that has the fewest. Whatever takes long (hashes, disks) has threads elsewhere.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The threads that serve requests.
#[derive(Clone)]
pub struct RequestWorkers(Arc<ServingThreads>);

struct ServingThreads {
    workers: Box<[Worker]>,
    /// The thread that the next lone request is for.
    next: AtomicUsize,
}

struct Worker {
    runtime: Handle,
    /// How many connections it has.
    connections: AtomicUsize,
}

/// The pause between two ticks: less than nearly every limit that a request sets.
const TICK: Duration = Duration::from_secs(1);

/// Lets a runtime wake soon anyway. A limit that would be the first to end wakes the thread that sets it, by a system call,
/// and a request sets several.
async fn tick() {
    loop {
        tokio::time::sleep(TICK).await;
    }
}

/// Ends the threads.
pub struct WorkerThreads(Vec<(oneshot::Sender<Duration>, JoinHandle<()>)>);

/// The place of one connection; given back when dropped.
pub struct WorkerPlace {
    workers: RequestWorkers,
    number: usize,
}

impl RequestWorkers {
    /// Starts so many threads, at least one.
    ///
    /// # Errors
    /// The operating system gives no threads, or no descriptors.
    pub fn start(count: usize) -> io::Result<(Self, WorkerThreads)> {
        let (mut workers, mut threads) = (vec![], vec![]);
        for _ in 0..count.max(1) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtime.spawn(tick());
            workers.push(Worker { runtime: runtime.handle().clone(), connections: AtomicUsize::new(0) });
            let (end, ended) = oneshot::channel();
            let serve = move || {
                if let Ok(patience) = runtime.block_on(ended) {
                    runtime.shutdown_timeout(patience);
                }
            };
            threads.push((end, thread::Builder::new().name("requests".into()).spawn(serve)?));
        }
        Ok((Self::of(workers), WorkerThreads(threads)))
    }

    /// The runtime of the caller in place of threads, for connections that are few.
    pub fn here() -> Self {
        Self::of(vec![Worker { runtime: Handle::current(), connections: AtomicUsize::new(0) }])
    }

    fn of(workers: Vec<Worker>) -> Self {
        Self(Arc::new(ServingThreads { workers: workers.into(), next: AtomicUsize::new(0) }))
    }

    /// Runs a task on the next thread, in turns.
    pub fn spawn<T>(&self, task: T)
    where
        T: Future<Output: Send> + Send + 'static,
    {
        let workers = &self.0.workers;
        let next = self.0.next.fetch_add(1, Ordering::Relaxed).checked_rem(workers.len());
        if let Some(worker) = next.and_then(|next| workers.get(next)) {
            worker.runtime.spawn(task);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.workers.len()
    }

    /// A place on the thread that has the fewest connections.
    pub fn place(&self) -> WorkerPlace {
        let connections = |worker: &Worker| worker.connections.load(Ordering::Relaxed);
        let least = self.0.workers.iter().enumerate().min_by_key(|(_, worker)| connections(worker));
        let number = least.map_or(0, |(number, _)| number);
        let place = WorkerPlace { workers: self.clone(), number };
        if let Some(worker) = place.worker() {
            worker.connections.fetch_add(1, Ordering::Relaxed);
        }
        place
    }
}

impl WorkerPlace {
    /// The number of the thread, from 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The runtime of the thread.
    pub fn runtime(&self) -> Option<&Handle> {
        self.worker().map(|worker| &worker.runtime)
    }

    /// Runs the task of the connection there. The task keeps the place while it runs.
    pub fn run<T: Future<Output = ()> + Send + 'static>(self, task: impl FnOnce(Self) -> T) {
        let runtime = self.worker().map(|worker| worker.runtime.clone());
        if let Some(runtime) = runtime {
            runtime.spawn(task(self));
        }
    }

    fn worker(&self) -> Option<&Worker> {
        self.workers.0.workers.get(self.number)
    }
}

impl Drop for WorkerPlace {
    fn drop(&mut self) {
        if let Some(worker) = self.worker() {
            worker.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl WorkerThreads {
    /// Ends the threads, which may take so long for what still runs on them.
    pub fn end(self, patience: Duration) {
        let (ends, threads): (Vec<_>, Vec<_>) = self.0.into_iter().unzip();
        for end in ends {
            // A thread that is gone has nothing left to end.
            let _ = end.send(patience);
        }
        for thread in threads {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn connections_are_spread_and_each_stays_where_it_is() {
        let (workers, threads) = RequestWorkers::start(3).unwrap();
        let mut places: Vec<WorkerPlace> = (0..6).map(|_| workers.place()).collect();
        let numbers: Vec<usize> = places.iter().map(WorkerPlace::number).collect();
        assert_eq!(numbers, [0, 1, 2, 0, 1, 2]);
        drop(places.remove(1));
        assert_eq!(workers.place().number(), 1, "it has the fewest");
        let (told, ran) = channel();
        for place in places {
            let told = told.clone();
            place.run(|place| async move {
                let before = thread::current().id();
                tokio::task::yield_now().await;
                assert_eq!(thread::current().id(), before);
                drop(place);
                told.send(before).unwrap();
            });
        }
        drop(told);
        let used: std::collections::HashSet<_> = ran.iter().collect();
        assert_eq!(used.len(), 3);
        threads.end(Duration::from_secs(10));
        assert!(workers.0.workers.iter().all(|worker| worker.connections.load(Ordering::Relaxed) == 0), "given back");
    }
}
