//! The field guard: members that a write may not carry, and members that no answer shows.
//!
//! It is for upstreams without such a guard. The one rule: the guard judges what the upstream will read. So it reads a
//! body as strictly as RFC 8259 allows, compares names decoded and without regard to case, counts every occurrence,
//! and refuses whatever might be read in another way (a form, another charset, a compressed body, bytes after the
//! document).
//!
//! Pure: bytes come in pieces of any size. Memory is bounded by the depth and by the longest guarded name, never by
//! the length of a document. The pipeline calls it with the caller's permissions; `gateway` brings the bytes.

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
pub(crate) use names::equal_folded;
pub use names::{FoldedNames, MAX_NAMES};
pub use number::{DigitCount, MAX_DIGITS};
pub use owner::RecordOwnership;
pub use remove::MemberRemover;

/// The deepest accepted nesting.
pub const MAX_DEPTH: usize = 64;
/// The longest accepted number of a request, in characters as written.
pub const MAX_NUMBER_LENGTH: usize = 128;

#[cfg(test)]
mod tests;
