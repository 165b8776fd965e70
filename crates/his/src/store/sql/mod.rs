//! The statements that both databases share, written once in their common SQL.
//!
//! The one rule: every statement about a person's records ends in a condition on the caller's reach. Only the
//! functions here build such statements, and each of them takes the reach, or keeps a parameter for it.

mod dialect;
mod documents;
mod lists;
mod records;

pub(super) use dialect::{RecordTable, SqlDialect};
pub(super) use documents::{
    DOCUMENT_ID_TAKEN, STAGE, SWEEP_POSTGRES, SWEEP_SQLITE, UNSTAGE, delete_document, select_document,
};
pub(super) use lists::{SqlQuery, select_ids, select_list};
pub(super) use records::{
    PERSON_IN_USE, PERSON_IS_MERGED, count, delete, page_exists, select_fitting, select_visible, select_whole, update,
};

/// The id of this store.
pub(super) const STORE_ID: &str = "SELECT id FROM fedgate_store";
