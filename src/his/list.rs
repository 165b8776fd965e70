//! Lists: streamed from the store to the socket, a chunk at a time, paged only when asked for.
//!
//! The one rule: an error in the middle breaks the answer off; a list that ends cleanly is complete.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::try_unfold;
use http::Uri;
use http::header::LINK;

use super::answer;
use super::error::Problem;
use super::query::{Pairs, append};
use super::store::{Chunk, DocumentForm, List, Reach, Store, Window};
use crate::db::DbError;

/// Most records of a page.
const MAX_LIMIT: usize = 1000;
/// Rows of a first chunk, whose size is not known yet.
const FIRST_RECORDS: usize = 64;
const FIRST_DOCUMENTS: usize = 2;

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
pub(super) async fn answer(store: &Store, list: List, reach: Reach, uri: &Uri) -> Result<Response, Problem> {
    let pairs = pairs(uri)?;
    let Page { limit, after } = Page::of(&pairs)?;
    let mut window = Window { after, upto: None };
    let mut next = None;
    if let Some(limit) = limit {
        let mut ids = store.ids(&list, &window, limit + 1, &reach).await?;
        let goes_on = ids.len() > limit;
        ids.truncate(limit);
        let Some(last) = ids.pop() else {
            return Ok(answer::json("[]"));
        };
        next = goes_on.then(|| link(uri, &pairs, &last));
        window.upto = Some(last);
    }
    let body = answer::json(stream(store.clone(), list, reach, window).await?);
    Ok(match next {
        Some(link) => ([(LINK, link)], body).into_response(),
        None => body,
    })
}

fn link(uri: &Uri, pairs: &Pairs, last: &str) -> String {
    let mut query = pairs.without("after");
    append(&mut query, "after", last);
    format!("<{}?{query}>; rel=\"next\"", uri.path())
}

/// A walk through a list, chunk by chunk.
struct Walk {
    store: Store,
    list: List,
    reach: Reach,
    window: Window,
    limit: usize,
    is_begun: bool,
}

impl Walk {
    async fn next(&mut self) -> Result<Chunk, DbError> {
        loop {
            let chunk = self.store.chunk(&self.list, &self.window, self.limit, &self.reach).await?;
            self.limit = chunk.rows_that_fit();
            if let Some(last) = chunk.last_id() {
                self.window.after = Some(last.to_owned());
            }
            if chunk.is_last || !chunk.rows.is_empty() {
                return Ok(chunk);
            }
        }
    }

    /// The JSON of a chunk: brackets at both ends of the list, commas between the elements.
    fn text(&mut self, chunk: &Chunk) -> Bytes {
        let mut text = String::with_capacity(chunk.rows.iter().map(|row| row.text.len() + 1).sum::<usize>() + 2);
        let mut separator = if self.is_begun { "," } else { "[" };
        for row in &chunk.rows {
            text.push_str(separator);
            text.push_str(&row.text);
            separator = ",";
        }
        self.is_begun |= !chunk.rows.is_empty();
        if chunk.is_last {
            text.push_str(if self.is_begun { "]" } else { "[]" });
        }
        text.into()
    }
}

/// The body of a list. Its first chunk is read before the answer begins, so that a database that is away is a 503.
async fn stream(store: Store, list: List, reach: Reach, window: Window) -> Result<Body, DbError> {
    let limit = match &list {
        List::Documents { form: DocumentForm::Embedded, .. } => FIRST_DOCUMENTS,
        List::Documents { .. } | List::People { .. } | List::Pages { .. } | List::Units(_) => FIRST_RECORDS,
    };
    let mut walk = Walk { store, list, reach, window, limit, is_begun: false };
    let first = walk.next().await?;
    if first.is_last {
        return Ok(Body::from(walk.text(&first)));
    }
    let chunks = try_unfold(Some((walk, Some(first))), async |state| {
        let Some((mut walk, read)) = state else {
            return Ok::<_, DbError>(None);
        };
        let chunk = match read {
            Some(chunk) => chunk,
            None => walk.next().await.inspect_err(|error| tracing::warn!("a list breaks off: {error}"))?,
        };
        let text = walk.text(&chunk);
        Ok(Some((text, (!chunk.is_last).then_some((walk, None)))))
    });
    Ok(Body::from_stream(chunks))
}
