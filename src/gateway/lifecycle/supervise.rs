//! Tasks that run as long as the process does, such as the watches: one that panics is restarted after a second.
//!
//! The one rule: a panic stops such a task only for that second, and is always logged. Panics of requests, which are
//! not repeated, are in `exchange/panics.rs`.

use std::time::Duration;

use tokio::runtime::Runtime;

/// How long after a panic a task is restarted.
const ANEW: Duration = Duration::from_secs(1);

/// Runs a task as long as the process does; a panic is logged, and the task restarted.
pub(crate) fn supervise<T>(control: &Runtime, what: &'static str, task: impl Fn() -> T + Send + 'static)
where
    T: Future<Output = ()> + Send + 'static,
{
    control.spawn(async move {
        while tokio::spawn(task()).await.is_err_and(|error| error.is_panic()) {
            tracing::error!("{what} panicked; restarting in {} s", ANEW.as_secs());
            // A task that panics at once must not fill the log or take a whole core.
            tokio::time::sleep(ANEW).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_watch_that_panics_begins_anew() {
        let control = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (begun, told) = channel();
        supervise(&control, "a task that breaks", move || {
            let begun = begun.clone();
            async move {
                begun.send(()).unwrap();
                panic!("a fault, on purpose");
            }
        });
        for _ in 0..3 {
            told.recv_timeout(Duration::from_secs(20)).expect("it begins");
        }
    }
}
