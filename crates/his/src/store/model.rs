//! The words of the store: which record, whose, and how it ended.

use super::ChangedSince;
use super::sql::RecordTable;
use super::visible::seen;
use crate::etag::IfMatch;

/// Whose records a statement may touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordReach {
    /// This person's alone.
    Own(String),
    /// Anybody's.
    Global,
}

impl RecordReach {
    pub(super) fn own(&self) -> Option<&str> {
        match self {
            Self::Own(person) => Some(person),
            Self::Global => None,
        }
    }
}

/// The kinds of records that are nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitKind {
    /// Domiciliary units: where people live.
    Domiciliary,
    /// Health institutions.
    Institutions,
}

/// Which record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordKey {
    /// A person.
    Person(String),
    /// A page of a person's book of life.
    Page {
        /// Whose book.
        person: String,
        /// The page's id.
        page: String,
    },
    /// A domiciliary unit or an institution.
    Unit(UnitKind, String),
}

/// A list of records, and which of them are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListQuery {
    /// Persons whose members are exactly as given.
    People {
        /// Pairs of member and value: `name`, `lastname`, `dob`, `gender`.
        members: Vec<(&'static str, String)>,
    },
    /// The pages of one book.
    Pages {
        /// Whose book.
        person: String,
        /// Without those whose `page_date` is known to be earlier.
        since: Option<ChangedSince>,
        /// The `page_type`.
        page_type: Option<String>,
    },
    /// All units of a kind.
    Units(UnitKind),
    /// Personal documents.
    Documents {
        /// Whose documents.
        person: String,
        /// Those of this page alone.
        page: Option<String>,
        /// How their bytes are told.
        form: DocumentForm,
    },
}

/// How a list tells the bytes of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentForm {
    /// In base64.
    Embedded,
    /// As the path to fetch them from.
    Link,
}

/// Which stretch of a list, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListWindow {
    /// Ids greater than this.
    pub after: Option<String>,
    /// Ids up to this.
    pub upto: Option<String>,
}

/// The text of a record, if it is no longer than whoever asked has room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordText {
    /// All of it.
    Fits(String),
    /// It has so many bytes, at most, and was not read.
    Exceeds(usize),
}

impl RecordText {
    /// The text of a row, if it was read, of so many bytes.
    pub(super) fn of(table: RecordTable, text: Option<&str>, bytes: i64) -> Self {
        match text {
            Some(text) => Self::Fits(seen(table, text).into_owned()),
            None => Self::Exceeds(usize::try_from(bytes).unwrap_or(usize::MAX)),
        }
    }
}

/// How the creation of a record ended.
#[derive(Debug)]
pub enum CreateResult {
    /// It is stored.
    Done,
    /// The id is taken by this record; nothing was written.
    Taken(ExistingKey),
    /// There is a person whose id differs from it in case alone; nothing was written.
    Twin,
    /// There is no person within reach for it to belong to.
    NoPerson,
}

/// A record that is there already.
#[derive(Debug)]
pub struct ExistingKey {
    /// The book it is in, for pages.
    pub book: Option<String>,
    /// All of it, a person's password hash included: for comparison, never for an answer.
    pub text: String,
}

/// What must hold for a change.
#[derive(Debug, Clone)]
pub struct PatchCondition {
    /// The state that the record is in now.
    pub tag: IfMatch,
    /// Most bytes of the record afterwards, unless it only shrinks.
    pub most: Option<usize>,
}

/// The kinds of records that a person has any number of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnedKey {
    /// Pages of the book of life.
    Pages,
    /// Personal documents.
    Documents,
}

/// How a change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeResult {
    /// It is stored.
    Done,
    /// There is no such record within reach.
    Missing,
    /// The record is not in the state that the caller named.
    Stale,
    /// It would be larger than the bound, and than it is now.
    TooLarge,
    /// What is stored is a list or a scalar, which no change can be merged into.
    NotAnObject,
}

/// How a deletion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteResult {
    /// It is gone.
    Done,
    /// There is no such record within reach.
    Missing,
    /// The record is not in the state that the caller named.
    Stale,
    /// The person may still log in.
    Active,
    /// Other records belong to it.
    InUse,
}
