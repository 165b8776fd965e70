//! The types of the store: which record, and with what result.

use super::sql::RecordTable;
use super::visible::seen;
use super::{ChangeRange, ChangedSince};
use crate::etag::TagCondition;

/// The kinds of records that belong to no person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitKind {
    /// Domiciliary units: where people live.
    Domiciliary,
    /// Health institutions.
    Institutions,
}

/// Names one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordKey {
    /// A person.
    Person(String),
    /// A page of a person's book of life.
    Page {
        /// The person whose book it is.
        person: String,
        /// The page's id.
        page: String,
    },
    /// A domiciliary unit or an institution.
    Unit(UnitKind, String),
}

/// A list of records, with its filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListQuery {
    /// Persons whose members equal these values.
    People {
        /// Pairs of member and value: `name`, `lastname`, `dob`, `gender`.
        members: Vec<(&'static str, String)>,
    },
    /// The pages of one book.
    Pages {
        /// The ids of the person whose book it is, that of the path first. Their pages are one list.
        persons: Vec<String>,
        /// Leaves out pages whose `page_date` is known to be earlier.
        since: Option<ChangedSince>,
        /// The `page_type`.
        page_type: Option<String>,
        /// Finds no page if a merge concerns the person, who is the only one here.
        only_alone: bool,
    },
    /// All units of a kind.
    Units(UnitKind),
    /// Personal documents.
    Documents {
        /// The ids of the person they belong to.
        persons: Vec<String>,
        /// Only documents of this page.
        page: Option<String>,
        /// The form of their bytes.
        form: DocumentForm,
    },
}

/// The form of a document's bytes in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentForm {
    /// In base64.
    Embedded,
    /// As the path to fetch them from.
    Link,
}

/// A range of a list, by id, or by [place](super::ChangePlace) in a list of changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListWindow {
    /// Only what comes after this.
    pub after: Option<String>,
    /// Only what comes up to this.
    pub upto: Option<String>,
    /// Only what was written then, in the order of the writes. Documents have no such order.
    pub changed: Option<ChangeRange>,
}

/// The text of a record, if the caller has room for its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordText {
    /// The whole text.
    Fits(String),
    /// The text has at most this many bytes, and was not read.
    Exceeds(usize),
}

impl RecordText {
    /// The text of a row of `bytes` bytes, if it was read.
    pub(super) fn of(table: RecordTable, text: Option<&str>, bytes: i64) -> Self {
        match text {
            Some(text) => Self::Fits(seen(table, text).into_owned()),
            None => Self::Exceeds(usize::try_from(bytes).unwrap_or(usize::MAX)),
        }
    }
}

/// A record that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRecord {
    /// Its text.
    pub text: RecordText,
    /// The id that stands for the person now, if the one that was asked for has become old.
    pub survivor: Option<String>,
}

/// The result of creating a record.
#[derive(Debug)]
pub enum CreateResult {
    /// The record was stored.
    Done,
    /// The id belongs to this record. Nothing was written.
    Taken(ExistingKey),
    /// A person exists whose id differs only in case. Nothing was written.
    Twin,
    /// The person that it would belong to does not exist within reach.
    NoPerson,
}

/// A record that already exists.
#[derive(Debug)]
pub struct ExistingKey {
    /// The book of a page.
    pub book: Option<String>,
    /// Its whole text, with a person's password hash. It is for comparison, never for an answer.
    pub text: String,
}

/// The conditions of a change.
#[derive(Debug, Clone)]
pub struct PatchCondition {
    /// The present state of the record.
    pub tag: TagCondition,
    /// The most bytes that the record may have afterwards, unless the change makes it smaller.
    pub most: Option<usize>,
}

/// The kinds of records of which a person can have many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnedKey {
    /// Pages of the book of life.
    Pages,
    /// Personal documents.
    Documents,
}

/// The result of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeResult {
    /// The change was stored.
    Done,
    /// No such record within reach.
    Missing,
    /// The record is not in the state that the caller named.
    Stale,
    /// The record would exceed the bound, and be larger than it is.
    TooLarge,
    /// The stored document is a list or a scalar, into which no change can be merged.
    NotAnObject,
}

/// The result of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteResult {
    /// The record was deleted.
    Done,
    /// No such record within reach.
    Missing,
    /// The record is not in the state that the caller named.
    Stale,
    /// The person may still log in.
    Active,
    /// Other records belong to it.
    InUse,
    /// The person is part of a merge.
    Merged,
}
