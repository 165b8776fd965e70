//! Lists: streamed from the store to the socket, a chunk at a time, paged only when asked for.
//!
//! The one rule: an error in the middle breaks the answer off; a list that ends cleanly is complete. Nothing is read before
//! there is room for it.

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
use super::error::HisError;
use super::guard::Caller;
use super::query::{self, QueryPairs};
use super::reading::{BrokenOff, StoreReading};
use super::store::{
    CHUNK_BYTES, DocumentForm, DocumentKey, ListElement, ListQuery, ListWindow, RecordReach, RecordStore,
    document_start,
};
use super::{HisService, answer};
use fedgate_core::path::{MAX_ID_BYTES, MAX_TARGET_BYTES};

/// Most records of a page.
const MAX_LIMIT: usize = 1000;
/// Rows of a first chunk, whose size is not known yet.
const FIRST_RECORDS: usize = 64;
const FIRST_DOCUMENTS: usize = 2;
/// Most bytes of a place in a link: `&after=` and an id, percent-encoded.
const PLACE_BYTES: usize = 7 + 3 * MAX_ID_BYTES;

/// Which page of a list is asked for.
#[derive(Debug, Default)]
pub(super) struct PageQuery {
    limit: Option<usize>,
    after: Option<String>,
}

/// Reads a query string.
pub(super) fn pairs(uri: &Uri) -> Result<QueryPairs, HisError> {
    QueryPairs::parse(uri.query().unwrap_or_default().as_bytes()).ok_or_else(|| HisError::BadQuery("%".into()))
}

impl PageQuery {
    /// `limit` (1 to 1000) and `after` (an id).
    pub(super) fn of(pairs: &QueryPairs) -> Result<Self, HisError> {
        let limit = pairs.value("limit").map(|text| text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)));
        match limit {
            Some(None) => Err(HisError::BadQuery("limit".into())),
            limit => Ok(Self { limit: limit.flatten(), after: pairs.value("after").map(str::to_owned) }),
        }
    }
}

/// Answers with a list, or a page of it with a link to the next (RFC 8288).
pub(super) async fn answer(
    service: &Arc<HisService>,
    list: ListQuery,
    caller: Caller,
    uri: &Uri,
) -> Result<Response, HisError> {
    let pairs = pairs(uri)?;
    let PageQuery { limit, after } = PageQuery::of(&pairs)?;
    let store = caller.store(service);
    let mut window = ListWindow { after, upto: None };
    let (mut next, mut page) = (None, None);
    if let Some(limit) = limit {
        let rest = link_without_place(uri).ok_or_else(|| HisError::BadQuery("limit".into()))?;
        let mut ids = store.ids(&list, &window, limit + 1, &caller.reach).await?;
        let goes_on = ids.len() > limit;
        ids.truncate(limit);
        let Some(last) = ids.last().cloned() else {
            return Ok(answer::json("[]"));
        };
        next = goes_on.then(|| link(rest, &last));
        window.upto = Some(last);
        page = Some(ids.into_iter().collect());
    }
    let walk = ListWalk::new(Arc::clone(service), store, list, caller, window, page);
    let body = answer::json(stream(walk).await?);
    Ok(match next {
        Some(link) => ([(LINK, link)], body).into_response(),
        None => body,
    })
}

/// The target of a list as the client wrote it, but for the place where its page begins; none where a link of it with
/// another place could be longer than the gateway takes.
fn link_without_place(uri: &Uri) -> Option<String> {
    let query = uri.query().unwrap_or_default();
    let pairs = query.split('&').filter(|pair| !pair.is_empty() && !query::is_named(pair, "after"));
    let rest = format!("{}?{}", uri.path(), pairs.collect::<Vec<_>>().join("&"));
    (rest.len() + PLACE_BYTES <= MAX_TARGET_BYTES).then_some(rest)
}

fn link(mut rest: String, last: &str) -> String {
    query::append(&mut rest, "after", last);
    format!("<{rest}>; rel=\"next\"")
}

/// A walk through a list, chunk by chunk.
struct ListWalk {
    service: Arc<HisService>,
    store: RecordStore,
    list: ListQuery,
    account: String,
    reach: RecordReach,
    window: ListWindow,
    /// The rows that are shown, where a page was asked for: no more, whatever was stored since they were counted.
    page: Option<HashSet<String>>,
    limit: usize,
    is_begun: bool,
    /// The last chunk was read.
    is_last: bool,
    /// How many bytes the next row has, if it is a long one.
    exceeding: Option<usize>,
    /// What was read and is not sent yet: little and paid for, so that nothing of the budget is held while more is waited for.
    parts: VecDeque<ListPart>,
    /// The document whose bytes are being sent.
    open: Option<StoreReading>,
}

/// A part of a list.
enum ListPart {
    /// Elements, each behind a comma, and the room that they take.
    Text(String, HeldBytes),
    /// An element whose bytes are read by the piece, and how many bytes it begins with.
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
        window: ListWindow,
        page: Option<HashSet<String>>,
    ) -> Self {
        let limit = match &list {
            ListQuery::Documents { form: DocumentForm::Embedded, .. } => FIRST_DOCUMENTS,
            ListQuery::Documents { .. } | ListQuery::People { .. } | ListQuery::Pages { .. } | ListQuery::Units(_) => {
                FIRST_RECORDS
            }
        };
        let (account, reach, parts) = (caller.account, caller.reach, VecDeque::new());
        let (is_begun, is_last, exceeding, open) = (false, false, None, None);
        Self { service, store, list, account, reach, window, page, limit, is_begun, is_last, exceeding, parts, open }
    }

    /// Reads the next chunk that has anything to send; room is held for all that it may bring before it is asked for.
    async fn read(&mut self, stage: AnswerStage) -> Result<(), BrokenOff> {
        loop {
            // A long row comes alone, when there is room for just that.
            let (limit, most) = self.exceeding.map_or((self.limit, CHUNK_BYTES), |bytes| (1, bytes));
            let mut held = self.hold(self.room(most), stage).await?;
            let (store, list, window, reach) = (&self.store, &self.list, &self.window, &self.reach);
            let mut chunk = stage.ask(|| store.chunk(list, window, limit, most, reach)).await?;
            self.exceeding = chunk.exceeding;
            if !chunk.rows.is_empty() {
                self.limit = chunk.rows_that_fit();
            }
            if let Some(page) = &self.page {
                chunk.keep(page);
            }
            if let Some(last) = chunk.last_id() {
                self.window.after = Some(last.to_owned());
            }
            self.is_last = chunk.is_last;
            let is_empty = chunk.rows.is_empty();
            let (text, large) = joined(chunk.rows);
            held.shrink_to(text.len());
            if !text.is_empty() {
                self.parts.push_back(ListPart::Text(text, held));
            }
            self.parts.extend(large.map(|(key, bytes)| ListPart::Large(key, bytes)));
            if self.is_last {
                self.parts.push_back(ListPart::End);
            }
            if self.is_last || !is_empty {
                return Ok(());
            }
        }
    }

    /// The most that a chunk takes of rows that have at most so many bytes: it ends with the row that fills it, and an element
    /// of a document brings its content along.
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

    /// What stands before the next element.
    fn separator(&mut self) -> &'static str {
        if std::mem::replace(&mut self.is_begun, true) { "," } else { "[" }
    }

    /// The next bytes of the list, paid for; none at its end.
    async fn next(&mut self, stage: AnswerStage) -> Result<Option<Bytes>, BrokenOff> {
        loop {
            if let Some(open) = &mut self.open {
                // Pieces are whole groups of base64, but for the last.
                if let Some((piece, held)) = open.next(stage).await? {
                    return Ok(Some(held.around(STANDARD.encode(piece))));
                }
                self.open = None;
                return Ok(Some(Bytes::from_static(b"\"]")));
            }
            match self.parts.pop_front() {
                Some(ListPart::Text(mut text, held)) => {
                    // The first comma of all is the bracket that begins the list.
                    text.replace_range(..1, self.separator());
                    if let Some(ListPart::End) = self.parts.front() {
                        self.parts.pop_front();
                        text.push(']');
                    }
                    return Ok(Some(held.around(text)));
                }
                Some(ListPart::End) if self.is_begun => return Ok(Some(Bytes::from_static(b"]"))),
                Some(ListPart::End) => return Ok(Some(Bytes::from_static(b"[]"))),
                // It may have been deleted before its turn came.
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

    /// Opens a document: the element up to the first byte of its content.
    async fn begin(&mut self, key: DocumentKey, bytes: usize, stage: AnswerStage) -> Result<Option<Bytes>, BrokenOff> {
        let mut held = self.hold(bytes, stage).await?;
        let (store, reach) = (&self.store, &self.reach);
        let Some(head) = stage.ask(|| store.document(&key, reach)).await? else { return Ok(None) };
        let start = document_start(Some(&key.person), key.page.as_deref(), &head.data);
        let separator = self.separator();
        let text = match head.length {
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

/// The elements of rows, each behind a comma, and the large document that comes after them.
fn joined(rows: Vec<ListElement>) -> (String, Option<(DocumentKey, usize)>) {
    let (mut text, mut large) = (String::new(), None);
    for row in rows {
        if row.large.is_some() {
            large = row.large;
        } else if text.is_empty() {
            // A long one comes alone, and is not copied.
            text = row.text;
            text.insert(0, ',');
        } else {
            text.push(',');
            text.push_str(&row.text);
        }
    }
    (text, large)
}

/// The body of a list. Its first chunk is read before the answer begins, so that a database that is away is a 503.
async fn stream(mut walk: ListWalk) -> Result<Body, HisError> {
    let first = match walk.next(AnswerStage::Before).await {
        Ok(first) => first.unwrap_or_default(),
        Err(BrokenOff::Database(error)) => return Err(error.into()),
        Err(BrokenOff::NoRoom | BrokenOff::Replaced) => return Err(HisError::NoRoom),
    };
    // What is whole by now has a length.
    if walk.open.is_none() && walk.parts.is_empty() && walk.is_last {
        return Ok(Body::from(first));
    }
    let bytes = try_unfold((Some(first), walk), async |(first, mut walk)| {
        let next = match first {
            Some(first) => Some(first),
            None => {
                let next = walk.next(AnswerStage::Within).await;
                next.inspect_err(|error| tracing::warn!("a list breaks off: {error}"))?
            }
        };
        Ok::<_, BrokenOff>(next.map(|bytes| (bytes, (None, walk))))
    });
    Ok(Body::from_stream(bytes))
}
