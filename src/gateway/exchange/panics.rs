//! Panics while a request is handled: the request is answered 500, and no other is affected.
//!
//! The one rule: a callback of pingora that decides, or that reads what a client or an upstream has sent, runs within
//! [`contained`] or [`contained_now`]. Tasks that outlive requests are in `lifecycle/supervise.rs`.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use pingora_core::{Error, ErrorType, Result};

/// Runs the work of a request and turns a panic into an error: the client receives 500, and the request is
/// recorded.
pub(crate) fn contained<T>(work: impl Future<Output = Result<T>>) -> impl Future<Output = Result<T>> {
    // Unwind safety: the request's own state is dropped with it, and locks on shared state recover from poisoning.
    // No async function: its future would have room for the work twice, as an argument and while it runs.
    AssertUnwindSafe(work).catch_unwind().map(|done| done.unwrap_or_else(|_| broke_off()))
}

/// The same for synchronous work.
pub(crate) fn contained_now<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| broke_off())
}

fn broke_off<T>() -> Result<T> {
    tracing::error!("the handling of a request panicked; it is answered 500 if no head was sent");
    Error::e_explain(ErrorType::InternalError, "a panic of this program")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_has_room_once() {
        async fn long(room: [u8; 4096]) -> Result<u8> {
            tokio::task::yield_now().await;
            Ok(room[0])
        }
        let work = long([1; 4096]);
        let alone = std::mem::size_of_val(&work);
        assert!(std::mem::size_of_val(&contained(work)) < alone + 100);
    }

    #[tokio::test]
    async fn a_request_that_panics_fails_alone() {
        assert!(contained(async { Ok(1) }).await.is_ok_and(|one| one == 1));
        let failed: Result<()> = contained(async { panic!("a fault, on purpose") }).await;
        let at_once: Result<()> = contained_now(|| panic!("a fault, on purpose"));
        for error in [failed.unwrap_err(), at_once.unwrap_err()] {
            assert_eq!(
                crate::gateway::exchange::context::failure(&error),
                Some(fedgate_core::codes::AnswerCode::InternalError)
            );
        }
    }
}
