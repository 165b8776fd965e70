//! Lists: streamed from the store to the socket, a chunk at a time, paged only when asked for.
//!
//! The one rule: an error in the middle breaks the answer off; a list that ends cleanly is complete.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::try_unfold;
use http::Uri;
use http::header::LINK;

use super::error::Problem;
use super::guard::Caller;
use super::query::{self, Pairs};
use super::reading::{BrokenOff, Reading};
use super::store::{Chunk, DocumentForm, DocumentKey, List, Reach, Store, Window, document_start};
use super::{Service, answer, budget};
use crate::db::DbError;
use crate::path::{MAX_ID_BYTES, MAX_TARGET_BYTES};

/// Most records of a page.
const MAX_LIMIT: usize = 1000;
/// Rows of a first chunk, whose size is not known yet.
const FIRST_RECORDS: usize = 64;
const FIRST_DOCUMENTS: usize = 2;
/// Most bytes of a place in a link: `&after=` and an id, percent-encoded.
const PLACE_BYTES: usize = 7 + 3 * MAX_ID_BYTES;

/// Which page of a list is asked for.
#[derive(Debug, Default)]
pub(super) struct Page {
    limit: Option<usize>,
    after: Option<String>,
}

/// Reads a query string.
pub(super) fn pairs(uri: &Uri) -> Result<Pairs, Problem> {
    Pairs::parse(uri.query().unwrap_or_default().as_bytes()).ok_or_else(|| Problem::BadQuery("%".into()))
}

impl Page {
    /// `limit` (1 to 1000) and `after` (an id).
    pub(super) fn of(pairs: &Pairs) -> Result<Self, Problem> {
        let limit = pairs.value("limit").map(|text| text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)));
        match limit {
            Some(None) => Err(Problem::BadQuery("limit".into())),
            limit => Ok(Self { limit: limit.flatten(), after: pairs.value("after").map(str::to_owned) }),
        }
    }
}

/// Answers with a list, or a page of it with a link to the next (RFC 8288).
pub(super) async fn answer(service: &Arc<Service>, list: List, caller: Caller, uri: &Uri) -> Result<Response, Problem> {
    let pairs = pairs(uri)?;
    let Page { limit, after } = Page::of(&pairs)?;
    let store = caller.store(service);
    let mut window = Window { after, upto: None };
    let (mut next, mut page) = (None, None);
    if let Some(limit) = limit {
        let rest = link_without_place(uri).ok_or_else(|| Problem::BadQuery("limit".into()))?;
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
    let walk = Walk::new(Arc::clone(service), store, list, caller, window, page);
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
struct Walk {
    service: Arc<Service>,
    store: Store,
    list: List,
    account: String,
    reach: Reach,
    window: Window,
    /// The rows that are shown, where a page was asked for: no more, whatever was stored since they were counted.
    page: Option<HashSet<String>>,
    limit: usize,
    is_begun: bool,
    /// The last chunk was read.
    is_last: bool,
    /// What was read and is not sent yet.
    parts: VecDeque<Part>,
    /// The document whose bytes are being sent.
    open: Option<Reading>,
}

/// A part of a list.
enum Part {
    /// Elements, each behind a comma.
    Text(String),
    /// An element whose bytes are read by the piece.
    Large(DocumentKey),
    /// The bracket that ends the list.
    End,
}

impl Walk {
    fn new(
        service: Arc<Service>,
        store: Store,
        list: List,
        caller: Caller,
        window: Window,
        page: Option<HashSet<String>>,
    ) -> Self {
        let limit = match &list {
            List::Documents { form: DocumentForm::Embedded, .. } => FIRST_DOCUMENTS,
            List::Documents { .. } | List::People { .. } | List::Pages { .. } | List::Units(_) => FIRST_RECORDS,
        };
        let (account, reach) = (caller.account, caller.reach);
        let (is_begun, is_last, parts, open) = (false, false, VecDeque::new(), None);
        Self { service, store, list, account, reach, window, page, limit, is_begun, is_last, parts, open }
    }

    /// Reads the next chunk that has anything to send.
    async fn read(&mut self) -> Result<(), DbError> {
        loop {
            let mut chunk = self.store.chunk(&self.list, &self.window, self.limit, &self.reach).await?;
            self.limit = chunk.rows_that_fit();
            if let Some(page) = &self.page {
                chunk.keep(page);
            }
            if let Some(last) = chunk.last_id() {
                self.window.after = Some(last.to_owned());
            }
            self.is_last = chunk.is_last;
            let is_empty = chunk.rows.is_empty();
            self.take(chunk);
            if self.is_last || !is_empty {
                return Ok(());
            }
        }
    }

    fn take(&mut self, chunk: Chunk) {
        let mut text = String::new();
        for row in chunk.rows {
            match row.large {
                None => {
                    text.push(',');
                    text.push_str(&row.text);
                }
                Some(key) => {
                    if !text.is_empty() {
                        self.parts.push_back(Part::Text(std::mem::take(&mut text)));
                    }
                    self.parts.push_back(Part::Large(key));
                }
            }
        }
        match (text.is_empty(), self.is_last) {
            (true, false) => {}
            (true, true) => self.parts.push_back(Part::End),
            (false, false) => self.parts.push_back(Part::Text(text)),
            (false, true) => {
                text.push(']');
                self.parts.push_back(Part::Text(text));
            }
        }
    }

    /// What stands before the next element.
    fn separator(&mut self) -> &'static str {
        if std::mem::replace(&mut self.is_begun, true) { "," } else { "[" }
    }

    /// The next bytes of the list, paid for; none at its end.
    async fn next(&mut self, patience: Duration) -> Result<Option<Bytes>, BrokenOff> {
        loop {
            if let Some(open) = &mut self.open {
                // Pieces are whole groups of base64, but for the last.
                if let Some((piece, held)) = open.next().await? {
                    return Ok(Some(held.around(STANDARD.encode(piece))));
                }
                self.open = None;
                return Ok(Some(Bytes::from_static(b"\"]")));
            }
            let text = match self.parts.pop_front() {
                Some(Part::Text(mut text)) => {
                    // The first comma of all is the bracket that begins the list.
                    text.replace_range(..1, self.separator());
                    text
                }
                Some(Part::End) if self.is_begun => "]".to_owned(),
                Some(Part::End) => "[]".to_owned(),
                Some(Part::Large(key)) => match self.begin(key).await? {
                    Some(text) => text,
                    // It was deleted before its turn came.
                    None => continue,
                },
                None if self.is_last => return Ok(None),
                None => {
                    self.read().await?;
                    continue;
                }
            };
            let held = self.service.budget.hold(&self.account, text.len(), patience).await;
            return Ok(Some(held.ok_or(BrokenOff::NoRoom)?.around(text)));
        }
    }

    /// Opens a document: the element up to the first byte of its content.
    async fn begin(&mut self, key: DocumentKey) -> Result<Option<String>, DbError> {
        let Some(head) = self.store.document(&key, &self.reach).await? else { return Ok(None) };
        let start = document_start(Some(&key.person), key.page.as_deref(), &head.data);
        let separator = self.separator();
        let Some(to) = head.length else { return Ok(Some(format!("{separator}{start}null]"))) };
        let (service, store) = (Arc::clone(&self.service), self.store.clone());
        let (account, reach) = (self.account.clone(), self.reach.clone());
        self.open = Some(Reading { service, store, account, key, reach, version: head.version, from: 0, to });
        Ok(Some(format!("{separator}{start}\"")))
    }
}

/// The body of a list. Its first chunk is read before the answer begins, so that a database that is away is a 503.
async fn stream(mut walk: Walk) -> Result<Body, Problem> {
    walk.read().await?;
    let first = match walk.next(budget::PATIENCE).await {
        Ok(first) => first.unwrap_or_default(),
        Err(BrokenOff::Database(error)) => return Err(error.into()),
        Err(BrokenOff::NoRoom | BrokenOff::Replaced) => return Err(Problem::NoRoom),
    };
    // What is whole by now has a length.
    if walk.open.is_none() && walk.parts.is_empty() && walk.is_last {
        return Ok(Body::from(first));
    }
    let bytes = try_unfold((Some(first), walk), async |(first, mut walk)| {
        let next = match first {
            Some(first) => Some(first),
            None => {
                let next = walk.next(budget::PATIENCE_WITHIN).await;
                next.inspect_err(|error| tracing::warn!("a list breaks off: {error}"))?
            }
        };
        Ok::<_, BrokenOff>(next.map(|bytes| (bytes, (None, walk))))
    });
    Ok(Body::from_stream(bytes))
}
