//! Faults of this program itself, should it have any: one costs the request that met it.
//!
//! The one rule: a panic never ends the process, nor anything that other requests rely on, and is never silent.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use pingora_core::{Error, ErrorType, Result};

/// What serves a request, with a panic made an error: the client is told 500, and the request is recorded.
pub(crate) async fn contained<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    // What a request has half done is dropped with it; what requests share is behind locks that bear it.
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| broke_off())
}

/// The same of what is done at once.
pub(crate) fn contained_now<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| broke_off())
}

fn broke_off<T>() -> Result<T> {
    tracing::error!("a request broke off by a fault of this program");
    Error::e_explain(ErrorType::InternalError, "a fault of this program")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_that_panics_fails_alone() {
        assert!(contained(async { Ok(1) }).await.is_ok_and(|one| one == 1));
        let failed: Result<()> = contained(async { panic!("a fault, on purpose") }).await;
        let at_once: Result<()> = contained_now(|| panic!("a fault, on purpose"));
        for error in [failed.unwrap_err(), at_once.unwrap_err()] {
            assert_eq!(crate::gateway::exchange::context::failure(&error).0, 500);
        }
    }
}
