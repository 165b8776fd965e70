//! The answers that need no decision, for every caller.
//!
//! The one rule: no such answer depends on the caller, and none reveals more than the documentation of the API.

use super::head::{ParsedHead, check_head};
use super::host::check_served_host;
use crate::codes::AnswerCode;
use crate::host::HostList;
use crate::methods::{ALL_METHODS, RequestMethod};
use crate::path::{CanonicalPath, PathError, parse_target};
use crate::reasons::RecordReason;

/// An answer that needs no decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlyAnswer<'r> {
    /// Its content.
    pub outcome: EarlyOutcome<'r>,
    /// Whether some path may have the method.
    is_method_known: bool,
}

/// The content of such an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlyOutcome<'r> {
    /// The head has no single reading.
    Malformed(AnswerCode),
    /// The host is none of those that are served.
    HostNotServed,
    /// OPTIONS: the methods of this path.
    Options {
        /// The value of `Allow`.
        allow: &'r str,
    },
    /// The method is served nowhere; the path has others.
    MethodUnknown {
        /// The value of `Allow`.
        allow: &'r str,
    },
    /// `OPTIONS *`: the methods of the server as a whole (RFC 9110, 9.3.7).
    WholeServer,
    /// The method is served nowhere, and the target is no path.
    NoPath(PathError),
    /// No route has this path.
    NotFound,
}

impl<'r> EarlyAnswer<'r> {
    /// The refusal; none where OPTIONS is answered.
    pub fn refusal(&self) -> Option<AnswerCode> {
        match self.outcome {
            EarlyOutcome::Malformed(answer) => Some(answer),
            EarlyOutcome::HostNotServed => Some(AnswerCode::HostNotServed),
            EarlyOutcome::Options { .. } | EarlyOutcome::WholeServer => None,
            EarlyOutcome::MethodUnknown { .. } | EarlyOutcome::NoPath(_) => Some(AnswerCode::MethodNotAllowed),
            EarlyOutcome::NotFound => Some(AnswerCode::NotFound),
        }
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.refusal().map_or(200, AnswerCode::status)
    }

    /// The reason in the record.
    pub fn reason(&self) -> RecordReason {
        self.refusal().map_or(RecordReason::Options, RecordReason::Answer)
    }

    /// The value of `Allow`, where the answer has it.
    pub fn allow(&self) -> Option<&'r str> {
        match self.outcome {
            EarlyOutcome::Options { allow } | EarlyOutcome::MethodUnknown { allow } => Some(allow),
            EarlyOutcome::WholeServer | EarlyOutcome::NoPath(_) => Some(ALL_METHODS),
            EarlyOutcome::Malformed(_) | EarlyOutcome::HostNotServed | EarlyOutcome::NotFound => None,
        }
    }

    /// Whether the connection ends with it: what follows on it may not be what it seems.
    pub fn closes(&self) -> bool {
        match self.outcome {
            EarlyOutcome::Malformed(_) => true,
            EarlyOutcome::HostNotServed => false,
            EarlyOutcome::Options { .. }
            | EarlyOutcome::WholeServer
            | EarlyOutcome::MethodUnknown { .. }
            | EarlyOutcome::NoPath(_)
            | EarlyOutcome::NotFound => !self.is_method_known,
        }
    }
}

/// The answer to a request that needs no decision; none where one is to be made. `allowed` tells the value of `Allow`
/// of a path, if some route has it.
pub fn answer_early<'r>(
    head: &ParsedHead<'_>,
    target: &[u8],
    hosts: &HostList,
    allowed: impl FnOnce(&CanonicalPath<'_>) -> Option<&'r str>,
) -> Option<EarlyAnswer<'r>> {
    let is_method_known = RequestMethod::find(head.method).is_some();
    let answer = |outcome| Some(EarlyAnswer { outcome, is_method_known });
    if let Err(malformed) = check_head(head) {
        return answer(EarlyOutcome::Malformed(malformed));
    }
    if check_served_host(hosts, head.authority).is_err() {
        return answer(EarlyOutcome::HostNotServed);
    }
    if is_method_known && head.method != "OPTIONS" {
        return None;
    }
    // Without authentication, as preflights are: the answer reveals no more than the documentation of the API.
    match parse_target(target).map(|(path, _)| allowed(&path)) {
        Ok(Some(allow)) if is_method_known => answer(EarlyOutcome::Options { allow }),
        Ok(Some(allow)) => answer(EarlyOutcome::MethodUnknown { allow }),
        Ok(None) => answer(EarlyOutcome::NotFound),
        Err(_) if is_method_known && target == b"*" => answer(EarlyOutcome::WholeServer),
        Err(fault) if !is_method_known => answer(EarlyOutcome::NoPath(fault)),
        Err(_) => None,
    }
}
