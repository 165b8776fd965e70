//! Faults of this program itself, should it have any: one costs the request that met it, or a second of a watch.
//!
//! The one rule: a panic never ends the process, nor anything that other requests rely on, and is never silent.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use pingora_core::{Error, ErrorType, Result};
use tokio::runtime::Runtime;

/// How long after a fault a task begins anew.
const ANEW: Duration = Duration::from_secs(1);

/// Runs what is to run as long as the process does: should it panic, that is told, and it begins anew.
pub(super) fn supervise<T>(control: &Runtime, what: &'static str, task: impl Fn() -> T + Send + 'static)
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

/// What serves a request, with a panic made an error: the client is told 500, and the request is recorded.
pub(super) async fn contained<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    // What a request has half done is dropped with it; what requests share is behind locks that bear it.
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| broke_off())
}

/// The same of what is done at once.
pub(super) fn contained_now<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| broke_off())
}

fn broke_off<T>() -> Result<T> {
    tracing::error!("a request broke off by a fault of this program");
    Error::e_explain(ErrorType::InternalError, "a fault of this program")
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

    #[tokio::test]
    async fn a_request_that_panics_fails_alone() {
        assert!(contained(async { Ok(1) }).await.is_ok_and(|one| one == 1));
        let failed: Result<()> = contained(async { panic!("a fault, on purpose") }).await;
        let at_once: Result<()> = contained_now(|| panic!("a fault, on purpose"));
        for error in [failed.unwrap_err(), at_once.unwrap_err()] {
            assert_eq!(super::super::context::failure(&error).0, 500);
        }
    }
}
