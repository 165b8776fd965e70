//! Lists: streamed from the store to the socket, one chunk at a time. They are paged only on request.
//!
//! The one rule: an error in the middle cuts the answer off, so a list that ends cleanly is complete. No
//! chunk is read before there is room for it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::try_unfold;
use http::Uri;
use http::header::LINK;

use super::budget::{AnswerStage, HeldBytes};
use super::changes::WantedChanges;
use super::error::HisError;
use super::list_form::{ListForm, one_line};
use super::paging::{PageQuery, pairs};
use super::query::{self, QueryPairs};
use super::reading::{BrokenOff, StoreReading};
use super::store::{
    CHUNK_BYTES, DocumentForm, DocumentKey, ListChunk, ListElement, ListQuery, ListWindow, RecordReach, RecordStore,
    document_start,
};
use super::verify_assertion::Caller;
use super::{HisService, answer};
use fedgate_core::path::MAX_ID_BYTES;

/// Rows in the first chunk, before the size of a row is known.
const FIRST_RECORDS: usize = 16;
const FIRST_DOCUMENTS: usize = 2;
/// The most bytes of a place in a link: a moment of 16 digits with a dot, and an id, percent-encoded.
const PLACE_BYTES: usize = 17 + 3 * MAX_ID_BYTES;

/// Answers with a list, or with a page of it and a link to the next page (RFC 8288); of changes alone, if those are
/// wanted.
pub(super) async fn answer(
    service: &Arc<HisService>,
    list: ListQuery,
    changes: Option<WantedChanges>,
    caller: Caller,
    form: ListForm,
    uri: &Uri,
) -> Result<Response, HisError> {
    let pairs = pairs(uri)?;
    let PageQuery { limit, after } = PageQuery::of(&pairs)?;
    let changed = match &changes {
        Some(changes) => Some(changes.range(&caller.store(service), &list, after.as_deref()).await?),
        None => None,
    };
    // Later pages belong to the moment of the first.
    let until = changes.filter(|_| after.is_none()).map(|changes| changes.until());
    let rest = match limit {
        Some(_) => query::target_without(uri, &["after"], PLACE_BYTES).ok_or_else(|| HisError::bad_query("limit"))?,
        None => String::new(),
    };
    // The moment to ask from next time belongs to the primary, and so do the rows before it.
    let store = if changed.is_some() { caller.store(service) } else { caller.reading(service) };
    let window = ListWindow { after, upto: None, changed };
    let mut walk = ListWalk::new(Arc::clone(service), store, list, caller, form, window);
    let next = match limit {
        Some(limit) => walk.begin_page(limit).await.map_err(unavailable)?,
        None => None,
    };
    let mut body = form.named(answer::json(stream(walk).await?));
    body.headers_mut().extend(until);
    Ok(match next {
        Some(last) => ([(LINK, query::next_link(rest, "after", &last))], body).into_response(),
        None => body,
    })
}

/// The answer to a list that fails before it begins.
fn unavailable(reason: BrokenOff) -> HisError {
    match reason {
        BrokenOff::Database(error) => error.into(),
        BrokenOff::NoRoom | BrokenOff::Replaced => HisError::NoRoom,
    }
}

/// Answers with the whole book of a person who has no other id, by one question; none if no page was found so, or if a page
/// of the list was asked for. Then the ids of the person decide.
pub(super) async fn answer_alone(
    service: &Arc<HisService>,
    list: ListQuery,
    caller: Caller,
    form: ListForm,
    pairs: &QueryPairs,
) -> Result<Option<Response>, HisError> {
    let PageQuery { limit, after } = PageQuery::of(pairs)?;
    if limit.is_some() {
        return Ok(None);
    }
    let window = ListWindow { after, ..ListWindow::default() };
    let mut walk = ListWalk::new(Arc::clone(service), caller.reading(service), list, caller, form, window);
    walk.read(AnswerStage::Before).await.map_err(unavailable)?;
    match walk.parts.front() {
        Some(ListPart::Text(..)) => Ok(Some(form.named(answer::json(stream(walk).await?)))),
        Some(ListPart::Large(..) | ListPart::End) | None => Ok(None),
    }
}

/// A walk through a list, chunk by chunk.
struct ListWalk {
    service: Arc<HisService>,
    store: RecordStore,
    list: ListQuery,
    form: ListForm,
    account: String,
    reach: RecordReach,
    window: ListWindow,
    /// The rows of the requested page. Rows that were stored after the page was fixed are left out.
    page: Option<HashSet<String>>,
    limit: usize,
    is_begun: bool,
    /// Whether the last chunk was read.
    is_last: bool,
    /// The length of the next row, if it exceeds a chunk.
    exceeding: Option<usize>,
    /// Parts that were read and not sent yet. They are few and paid for, and no room is held while the walk
    /// waits for more.
    parts: VecDeque<ListPart>,
    /// The document whose bytes are being sent.
    open: Option<StoreReading>,
}

/// A part of a list.
enum ListPart {
    /// Elements, each after a comma, and the room that they take.
    Text(String, HeldBytes),
    /// An element whose bytes are read piece by piece, and the length of its beginning.
    Large(DocumentKey, usize),
    /// The bracket that ends the list.
    End,
}

impl ListWalk {
    fn new(
        service: Arc<HisService>,
        store: RecordStore,
        list: ListQuery,
        caller: Caller,
        form: ListForm,
        window: ListWindow,
    ) -> Self {
        let limit = match &list {
            ListQuery::Documents { form: DocumentForm::Embedded, .. } => FIRST_DOCUMENTS,
            ListQuery::Documents { .. } | ListQuery::People { .. } | ListQuery::Pages { .. } | ListQuery::Units(_) => {
                FIRST_RECORDS
            }
        };
        let (account, reach, parts) = (caller.account, caller.reach, VecDeque::new());
        let (is_begun, is_last, exceeding, open, page) = (false, false, None, None, None);
        Self {
            service,
            store,
            list,
            form,
            account,
            reach,
            window,
            page,
            limit,
            is_begun,
            is_last,
            exceeding,
            parts,
            open,
        }
    }

    /// Reads the beginning of a page of at most `limit` rows, and returns the last id of the page if there is a next one.
    ///
    /// A page that fits a chunk takes one statement: one row more than asked for shows whether there is a next page. Of
    /// a longer page the ids are read, so that its end is known before its beginning is sent.
    async fn begin_page(&mut self, limit: usize) -> Result<Option<String>, BrokenOff> {
        let stage = AnswerStage::Before;
        let rows = match &self.list {
            ListQuery::Documents { .. } => self.limit.min(limit + 1),
            ListQuery::People { .. } | ListQuery::Pages { .. } | ListQuery::Units(_) => limit + 1,
        };
        let held = self.hold(self.room(CHUNK_BYTES), stage).await?;
        let (store, list, reach) = (&self.store, &self.list, &self.reach);
        let mut chunk = stage.ask(|| store.chunk(list, &self.window, rows, CHUNK_BYTES, reach)).await?;
        let mut next = None;
        if chunk.rows.len() > limit {
            chunk.rows.truncate(limit);
            chunk.is_last = true;
            next = chunk.rows.last().map(|row| row.id.clone());
        } else if !chunk.is_last {
            let left = limit - chunk.rows.len();
            let after = chunk.last_id().map(str::to_owned).or_else(|| self.window.after.clone());
            let window = ListWindow { after, upto: None, changed: self.window.changed };
            let mut ids = stage.ask(|| store.ids(list, &window, left + 1, reach)).await?;
            let goes_on = ids.len() > left;
            ids.truncate(left);
            // The page is fixed now: a row that is inserted while it is read does not appear on it.
            let last = ids.last().or(chunk.rows.last().map(|row| &row.id)).cloned();
            chunk.is_last = ids.is_empty();
            next = last.clone().filter(|_| goes_on);
            self.window.upto = last;
            self.page = Some(ids.into_iter().collect());
        }
        self.take(chunk, held);
        Ok(next)
    }

    /// Reads the next chunk that has an element to send. Room for all that it may bring is held before the
    /// question.
    async fn read(&mut self, stage: AnswerStage) -> Result<(), BrokenOff> {
        loop {
            // A row longer than a chunk comes alone, once there is room for its length.
            let (limit, most) = self.exceeding.map_or((self.limit, CHUNK_BYTES), |bytes| (1, bytes));
            let held = self.hold(self.room(most), stage).await?;
            let (store, list, window, reach) = (&self.store, &self.list, &self.window, &self.reach);
            let mut chunk = stage.ask(|| store.chunk(list, window, limit, most, reach)).await?;
            if let Some(page) = &self.page {
                chunk.keep(page);
            }
            let is_empty = chunk.rows.is_empty();
            self.take(chunk, held);
            if self.is_last || !is_empty {
                return Ok(());
            }
        }
    }

    /// Takes a chunk, and the room that was held for it.
    fn take(&mut self, chunk: ListChunk, mut held: HeldBytes) {
        self.exceeding = chunk.exceeding;
        // Later chunks are read, whatever is merged meanwhile: a list that ends cleanly is complete.
        if let ListQuery::Pages { only_alone, .. } = &mut self.list {
            *only_alone = false;
        }
        if !chunk.rows.is_empty() {
            self.limit = chunk.rows_that_fit();
        }
        // The next chunk starts after the last row that was read, shown or not.
        if let Some(last) = chunk.last_id() {
            self.window.after = Some(last.to_owned());
        }
        self.is_last = chunk.is_last;
        let (text, large) = self.joined(chunk.rows);
        held.shrink_to(text.len());
        if !text.is_empty() {
            self.parts.push_back(ListPart::Text(text, held));
        }
        self.parts.extend(large.map(|(key, bytes)| ListPart::Large(key, bytes)));
        if self.is_last {
            self.parts.push_back(ListPart::End);
        }
    }

    /// The most bytes that a chunk takes if each row has at most `most`. A chunk ends with the row that fills
    /// it, and an element of a document adds its content.
    fn room(&self, most: usize) -> usize {
        let elements = match &self.list {
            ListQuery::Documents { form: DocumentForm::Embedded, .. } => most + CHUNK_BYTES,
            ListQuery::Documents { .. } | ListQuery::People { .. } | ListQuery::Pages { .. } | ListQuery::Units(_) => {
                most
            }
        };
        if self.exceeding.is_some() { elements } else { CHUNK_BYTES + elements }
    }

    async fn hold(&self, bytes: usize, stage: AnswerStage) -> Result<HeldBytes, BrokenOff> {
        let held = self.service.budget.hold(&self.account, bytes, stage.patience()).await;
        held.ok_or(BrokenOff::NoRoom)
    }

    /// The elements of rows, and the large document that follows them. In a list each has a comma before it, in lines a
    /// line break after it.
    fn joined(&self, rows: Vec<ListElement>) -> (String, Option<(DocumentKey, usize)>) {
        let (mut text, mut large) = (String::new(), None);
        let is_record = !matches!(self.list, ListQuery::Documents { .. });
        for mut row in rows {
            if row.large.is_some() {
                large = row.large;
                continue;
            }
            match self.form {
                ListForm::Thalamus if text.is_empty() => row.text.insert(0, ','),
                ListForm::Thalamus => text.push(','),
                ListForm::Lines => {
                    if is_record {
                        // The list of its own.
                        row.text.pop();
                        row.text.remove(0);
                    }
                    one_line(&mut row.text);
                    row.text.push('\n');
                }
            }
            match text.is_empty() {
                // A long row comes alone, and is moved rather than copied.
                true => text = row.text,
                false => text.push_str(&row.text),
            }
        }
        (text, large)
    }

    /// The text before the next element.
    fn separator(&mut self) -> &'static str {
        match (self.form, std::mem::replace(&mut self.is_begun, true)) {
            (ListForm::Lines, _) => "",
            (ListForm::Thalamus, true) => ",",
            (ListForm::Thalamus, false) => "[",
        }
    }

    /// The text after the content of a large document.
    fn closing(&self) -> &'static str {
        match self.form {
            ListForm::Thalamus => "\"]",
            ListForm::Lines => "\"]\n",
        }
    }

    /// The next bytes of the list, paid for; `None` at its end.
    async fn next(&mut self, stage: AnswerStage) -> Result<Option<Bytes>, BrokenOff> {
        loop {
            if let Some(open) = &mut self.open {
                // All pieces but the last are whole groups of base64, so their encodings can be joined.
                if let Some((piece, held)) = open.next(stage).await? {
                    return Ok(Some(held.around(STANDARD.encode(piece))));
                }
                self.open = None;
                return Ok(Some(Bytes::from_static(self.closing().as_bytes())));
            }
            match self.parts.pop_front() {
                Some(ListPart::Text(text, held)) if self.form == ListForm::Lines => return Ok(Some(held.around(text))),
                Some(ListPart::Text(mut text, held)) => {
                    // The comma before the first element becomes the opening bracket.
                    text.replace_range(..1, self.separator());
                    if let Some(ListPart::End) = self.parts.front() {
                        self.parts.pop_front();
                        text.push(']');
                    }
                    return Ok(Some(held.around(text)));
                }
                Some(ListPart::End) if self.form == ListForm::Lines => {}
                Some(ListPart::End) if self.is_begun => return Ok(Some(Bytes::from_static(b"]"))),
                Some(ListPart::End) => return Ok(Some(Bytes::from_static(b"[]"))),
                // The document may have been deleted in the meantime.
                Some(ListPart::Large(key, bytes)) => {
                    if let Some(begin) = self.begin(key, bytes, stage).await? {
                        return Ok(Some(begin));
                    }
                }
                None if self.is_last => return Ok(None),
                None => self.read(stage).await?,
            }
        }
    }

    /// Opens a document: sends its element up to the first byte of the content.
    async fn begin(&mut self, key: DocumentKey, bytes: usize, stage: AnswerStage) -> Result<Option<Bytes>, BrokenOff> {
        let mut held = self.hold(bytes, stage).await?;
        let (store, reach) = (&self.store, &self.reach);
        let Some(head) = stage.ask(|| store.document(&key, reach)).await? else { return Ok(None) };
        let mut start = document_start(Some(&key.person), key.page.as_deref(), &head.data);
        if self.form == ListForm::Lines {
            one_line(&mut start);
        }
        let separator = self.separator();
        let text = match head.length {
            None if self.form == ListForm::Lines => format!("{start}null]\n"),
            None => format!("{separator}{start}null]"),
            Some(to) => {
                let (service, store) = (Arc::clone(&self.service), self.store.clone());
                let (account, reach) = (self.account.clone(), self.reach.clone());
                self.open =
                    Some(StoreReading { service, store, account, key, reach, version: head.version, from: 0, to });
                format!("{separator}{start}\"")
            }
        };
        held.shrink_to(text.len());
        Ok(Some(held.around(text)))
    }
}

/// The body of a list. The first chunk is read before the answer begins, so that an unavailable database is a
/// 503.
async fn stream(mut walk: ListWalk) -> Result<Body, HisError> {
    let first = walk.next(AnswerStage::Before).await.map_err(unavailable)?.unwrap_or_default();
    // A list that is complete by now gets a `Content-Length`.
    if walk.open.is_none() && walk.parts.is_empty() && walk.is_last {
        return Ok(Body::from(first));
    }
    let bytes = try_unfold((Some(first), walk), async |(first, mut walk)| {
        let next = match first {
            Some(first) => Some(first),
            None => {
                let next = walk.next(AnswerStage::Within).await;
                next.inspect_err(|error| tracing::warn!("a list was broken off: {error}"))?
            }
        };
        Ok::<_, BrokenOff>(next.map(|bytes| (bytes, (None, walk))))
    });
    Ok(Body::from_stream(bytes))
}
