//! Rows of a list as elements of the JSON list that is sent, and the bound on elements in memory.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{DocumentForm, DocumentKey};
use fedgate_core::json::write_string;

/// A chunk of this many bytes takes no further row.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// RFC 3986's unreserved characters are not encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One element of a list.
#[derive(Debug, PartialEq, Eq)]
pub struct ListElement {
    /// Its id. The next chunk continues after it.
    pub id: String,
    /// The JSON of the element; empty for a large document.
    pub text: String,
    /// The large document whose bytes are read piece by piece, and the length of the element's beginning.
    pub large: Option<(DocumentKey, usize)>,
}

/// Consecutive elements of a list.
#[derive(Debug, Default)]
pub struct ListChunk {
    /// The elements.
    pub rows: Vec<ListElement>,
    /// Whether the list ends here.
    pub is_last: bool,
    bytes: usize,
    /// Bytes of the largest row.
    largest: usize,
    /// The number of rows read, filtered ones included.
    read: usize,
    /// The id of the last row read, if the row was filtered out.
    unwanted: Option<String>,
    /// The length of the next row, if it was too long to be read.
    pub exceeding: Option<usize>,
}

impl ListChunk {
    /// Takes one more row, and returns whether there is room for another.
    pub(super) fn push(&mut self, row: ListElement) -> bool {
        // A large document ends the chunk, because no other row is held while its pieces are read, and the next row
        // may be large too.
        let bytes = if row.large.is_some() { CHUNK_BYTES } else { row.text.len() };
        self.bytes += bytes;
        self.largest = self.largest.max(bytes);
        self.rows.push(row);
        self.read += 1;
        self.unwanted = None;
        self.takes_more()
    }

    /// Ends the chunk: the next row is longer than the caller has room for.
    pub(super) fn exceed(&mut self, bytes: i64) {
        self.exceeding = Some(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// Skips a row that is filtered out.
    pub(super) fn pass_over(&mut self, id: String) {
        self.read += 1;
        self.unwanted = Some(id);
    }

    /// Whether there is room for another row.
    pub(super) fn takes_more(&self) -> bool {
        self.bytes < CHUNK_BYTES && self.exceeding.is_none()
    }

    /// How many of the `limit` rows to ask for next. It starts small, and assumes that rows are as large as the
    /// largest so far, so that few rows are fetched for nothing.
    pub(super) fn next_piece(&self, limit: usize) -> i32 {
        const FIRST: usize = 16;
        const MOST: usize = 64;
        let room = CHUNK_BYTES.saturating_sub(self.bytes);
        let fits = room.checked_div(self.largest).unwrap_or(MOST).max(1);
        let most = if self.read == 0 { FIRST } else { MOST.min(self.read * 3) };
        // At the end of the limit, one more row shows whether the list ends there.
        let left = limit.saturating_sub(self.read).max(1);
        i32::try_from(fits.min(most).min(left)).unwrap_or(1)
    }

    /// Keeps only the rows with these ids. A row that was inserted after the page was fixed is on no page yet.
    pub fn keep(&mut self, ids: &HashSet<String>) {
        if let Some(last) = self.rows.last() {
            self.unwanted.get_or_insert_with(|| last.id.clone());
        }
        self.rows.retain(|row| ids.contains(&row.id));
    }

    /// Marks the end of the rows.
    pub(super) fn end(&mut self, limit: usize) {
        self.is_last = self.read < limit;
    }

    /// The id after which the list continues.
    pub fn last_id(&self) -> Option<&str> {
        self.unwanted.as_deref().or_else(|| self.rows.last().map(|row| row.id.as_str()))
    }

    /// How many rows of the average size seen here fill a chunk.
    pub fn rows_that_fit(&self) -> usize {
        const MOST: usize = 512;
        let average = self.bytes.checked_div(self.rows.len()).unwrap_or(0).max(1);
        (CHUNK_BYTES / average).clamp(1, MOST)
    }
}

/// A record in the form of Thalamus' lists: as the only element of a list.
pub(super) fn record(id: String, data: &str) -> ListElement {
    // Two bytes more for a comma before it and the closing bracket of the list after it.
    let mut text = String::with_capacity(data.len() + 4);
    text.push('[');
    text.push_str(data);
    text.push(']');
    ListElement { id, text, large: None }
}

/// A row of `personal_docs`.
pub(super) struct DocumentRow<'a> {
    pub(super) id: String,
    pub(super) data: &'a str,
    pub(super) person: Option<&'a str>,
    pub(super) page: Option<&'a str>,
    /// Its bytes, if they are wanted and fit one piece.
    pub(super) bytes: Option<&'a [u8]>,
    /// Whether it has any bytes.
    pub(super) has_content: bool,
}

/// A document in the form of Thalamus' lists: person, page, data and content.
pub(super) fn document(row: DocumentRow<'_>, form: DocumentForm) -> ListElement {
    let mut text = document_start(row.person, row.page, row.data);
    match (row.bytes, form) {
        (None, DocumentForm::Embedded) if row.has_content => {
            let (person, page) = (row.person.unwrap_or_default().to_owned(), row.page.map(str::to_owned));
            let key = DocumentKey { person, page, document: row.id.clone() };
            return ListElement { id: row.id, large: Some((key, text.len())), text: String::new() };
        }
        (Some(bytes), DocumentForm::Embedded) => {
            text.push('"');
            STANDARD.encode_string(bytes, &mut text);
            text.push('"');
        }
        (_, DocumentForm::Link) if row.has_content => {
            let segment = |text| utf8_percent_encode(text, SEGMENT);
            let (person, page) = (row.person.unwrap_or_default(), row.page.unwrap_or_default());
            let path = format!("/personal_docs/{}/{}/{}", segment(person), segment(page), segment(&row.id));
            write_string(&path, &mut text);
        }
        (None, DocumentForm::Embedded) | (_, DocumentForm::Link) => text.push_str("null"),
    }
    text.push(']');
    ListElement { id: row.id, text, large: None }
}

/// Person, page and data of an element, up to its content.
pub fn document_start(person: Option<&str>, page: Option<&str>, data: &str) -> String {
    let mut text = String::with_capacity(data.len() + 64);
    text.push('[');
    write_optional(person, &mut text);
    text.push(',');
    write_optional(page, &mut text);
    text.push(',');
    text.push_str(data);
    text.push(',');
    text
}

fn write_optional(value: Option<&str>, text: &mut String) {
    match value {
        Some(value) => write_string(value, text),
        None => text.push_str("null"),
    }
}
