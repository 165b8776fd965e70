//! Tasks that run as long as the process does: a fault of this program, should it have any, costs a second of a watch.
//!
//! The one rule: a panic never ends the process, nor anything that other requests rely on, and is never silent.

use std::time::Duration;

use tokio::runtime::Runtime;

/// How long after a fault a task begins anew.
const ANEW: Duration = Duration::from_secs(1);

/// Runs what is to run as long as the process does: should it panic, that is told, and it begins anew.
pub(crate) fn supervise<T>(control: &Runtime, what: &'static str, task: impl Fn() -> T + Send + 'static)
where
    T: Future<Output = ()> + Send + 'static,
{
    control.spawn(async move {
        while tokio::spawn(task()).await.is_err_and(|error| error.is_panic()) {
            tracing::error!("{what} broke off by a fault of this program, and begins anew");
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
