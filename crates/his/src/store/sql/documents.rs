//! Statements about one personal document, and about the pieces of an upload.
//!
//! The one rule: a row of `personal_docs` is found by [`document`] alone, which holds the key and the caller's reach.

use super::dialect::SqlDialect;

/// A row of `personal_docs`: `$1` person, `$2` page or null, `$3` document, `$4` the list of persons within reach or null.
fn document(dialect: SqlDialect) -> String {
    let person = dialect.names_holder("fedacct", "$1", ("fedgate_document_person", "$3"));
    let reach = dialect.reaches("fedacct", "$4");
    dialect.placeholders(&format!(
        "{person} AND (pol = $2 OR (CAST($2 AS text) IS NULL AND pol IS NULL)) AND id = $3 \
         AND {reach}"
    ))
}

/// Columns of the document. Parameters are as in [`document`].
pub(in crate::store) fn select_document(dialect: SqlDialect, columns: &str) -> String {
    format!("SELECT {} FROM personal_docs WHERE {}", dialect.placeholders(columns), document(dialect))
}

/// Whether the id of a document (`$1`) is taken, by any person's document.
pub(in crate::store) const DOCUMENT_ID_TAKEN: &str = "SELECT EXISTS (SELECT 1 FROM personal_docs WHERE id = $1)";

/// Stores a piece of an upload. Pieces are not a person's record yet, so no reach applies.
pub(in crate::store) const STAGE: &str = "INSERT INTO fedgate_pieces (upload, place, piece) VALUES ($1, $2, $3)";
/// Deletes the pieces of an upload.
pub(in crate::store) const UNSTAGE: &str = "DELETE FROM fedgate_pieces WHERE upload = $1";
/// Deletes the pieces that a killed process left. No upload takes an hour.
pub(in crate::store) const SWEEP_POSTGRES: &str = "DELETE FROM fedgate_pieces WHERE staged < now() - interval '1 hour'";
pub(in crate::store) const SWEEP_SQLITE: &str = "DELETE FROM fedgate_pieces WHERE staged < unixepoch() - 3600";

/// Deletes the document. Parameters are as in [`document`].
pub(in crate::store) fn delete_document(dialect: SqlDialect) -> String {
    format!("DELETE FROM personal_docs WHERE {}", document(dialect))
}
