//! Rows of a list as elements of the JSON list that is sent, and how many of them are held at a time.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{DocumentForm, DocumentKey};
use fedgate_core::json::write_string;

/// From so many bytes on a chunk takes no further row.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// RFC 3986's unreserved characters are written as they are.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One element of a list.
#[derive(Debug, PartialEq, Eq)]
pub struct ListElement {
    /// Its id: where the next chunk goes on.
    pub id: String,
    /// The JSON of the element; empty for a large document.
    pub text: String,
    /// The document that the element is of, where its bytes are read by the piece, and how many bytes its element begins with.
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
    /// Rows that were read, with those that are not wanted.
    read: usize,
    /// The row that was read last, if it is not wanted.
    unwanted: Option<String>,
    /// How many bytes the next row has, if it was not read because there are too many.
    pub exceeding: Option<usize>,
}

impl ListChunk {
    /// Takes one more row; whether there is room for another.
    pub(super) fn push(&mut self, row: ListElement) -> bool {
        // A large document ends the chunk: while its bytes are read, by the piece, nothing else is held. The next one may be
        // large, too.
        let bytes = if row.large.is_some() { CHUNK_BYTES } else { row.text.len() };
        self.bytes += bytes;
        self.largest = self.largest.max(bytes);
        self.rows.push(row);
        self.read += 1;
        self.unwanted = None;
        self.takes_more()
    }

    /// The next row is longer than whoever asked has room for.
    pub(super) fn exceed(&mut self, bytes: i64) {
        self.exceeding = Some(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// Passes over a row that is not wanted.
    pub(super) fn pass_over(&mut self, id: String) {
        self.read += 1;
        self.unwanted = Some(id);
    }

    /// Whether there is room for another row.
    pub(super) fn takes_more(&self) -> bool {
        self.bytes < CHUNK_BYTES && self.exceeding.is_none()
    }

    /// How many rows of the `limit` to ask for next: few at first, and no more than there is room for if all are as large as the
    /// largest so far, so that few are fetched in vain.
    pub(super) fn next_piece(&self, limit: usize) -> i32 {
        const FIRST: usize = 16;
        const MOST: usize = 64;
        let room = CHUNK_BYTES.saturating_sub(self.bytes);
        let fits = room.checked_div(self.largest).unwrap_or(MOST).max(1);
        let most = if self.read == 0 { FIRST } else { MOST.min(self.read * 3) };
        // At the end of what was asked for, one more tells that there is none.
        let left = limit.saturating_sub(self.read).max(1);
        i32::try_from(fits.min(most).min(left)).unwrap_or(1)
    }

    /// Keeps the rows of these ids alone: a row that came since they were counted belongs to no page yet.
    pub fn keep(&mut self, ids: &HashSet<String>) {
        if let Some(last) = self.rows.last() {
            self.unwanted.get_or_insert_with(|| last.id.clone());
        }
        self.rows.retain(|row| ids.contains(&row.id));
    }

    /// There are no more rows of the `limit` that were asked for.
    pub(super) fn end(&mut self, limit: usize) {
        self.is_last = self.read < limit;
    }

    /// The id after which the list goes on.
    pub fn last_id(&self) -> Option<&str> {
        self.unwanted.as_deref().or_else(|| self.rows.last().map(|row| row.id.as_str()))
    }

    /// How many rows of the size seen here fill a chunk.
    pub fn rows_that_fit(&self) -> usize {
        const MOST: usize = 512;
        let average = self.bytes.checked_div(self.rows.len()).unwrap_or(0).max(1);
        (CHUNK_BYTES / average).clamp(1, MOST)
    }
}

/// A record as Thalamus lists it: alone in a list of its own.
pub(super) fn record(id: String, data: &str) -> ListElement {
    // With a comma before it and the list's bracket behind it, too.
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
    /// Its bytes, where they are few and wanted.
    pub(super) bytes: Option<&'a [u8]>,
    /// Whether it has any.
    pub(super) has_content: bool,
}

/// A document as Thalamus lists it: person, page, data and content.
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

/// Person, page and data of an element, up to where its content is told.
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
