//! The field guard: members that a write may not carry, and members that no answer shows.
//!
//! For services behind that have no guard of their own. The one rule: what is judged is what the service will read. So a
//! body is read as strictly as RFC 8259 allows, names are compared decoded and without regard to case, every occurrence
//! counts, and whatever might be read in another way (a form, another charset, a compressed body, bytes after the
//! document) is refused.
//!
//! Pure: bytes come in pieces of any size, and what is kept is bounded by depth and by the longest guarded name, never by
//! the length of a document. Called by the pipeline, which knows who may, and by `gateway`, which brings the bytes.

mod media;
mod check;
mod free;
mod remove;
mod extract;
mod names;
mod owner;
mod number;
mod scan;
mod text;
mod fault;

pub use check::{BodyCheck, BodyFault, GuardedMember, GuardedMembers};
pub use extract::{MemberExtract, MemberExtractor};
pub use fault::JsonError;
pub use free::FreeValue;
pub use media::{AnswerKind, answer_kind, check_request};
pub use names::{FoldedNames, MAX_NAMES};
pub use number::{DigitCount, MAX_DIGITS};
pub use owner::RecordOwnership;
pub use remove::MemberRemover;

/// Deepest nesting that is accepted.
pub const MAX_DEPTH: usize = 64;
/// Longest number that is accepted in a request, in characters as it stands.
pub const MAX_NUMBER_LENGTH: usize = 128;

#[cfg(test)]
mod tests;
