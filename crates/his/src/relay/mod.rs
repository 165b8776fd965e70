//! The relay: every node reads what was written here, in order, from the position that it has reached.
//!
//! The one rule: an answer holds every message between the position that was asked for and the one that it names as
//! next, except those that the caller may not see or did not ask for. A reader that cannot be served so is told (409,
//! 410), and never left with a gap.
//!
//! [`positions`] gives positions, [`retention`] deletes old messages, [`request`] reads what is asked for, [`walk`] reads messages for one answer, and
//! [`format`] writes them. [`place`] knows whether a reader may go on after a failover. [`interests`] wakes the readers that a message
//! concerns. [`cursors`] keeps the positions of nodes, and [`send`] takes their own messages. [`stall`] reports
//! messages without positions, and [`webhooks`] sends messages to nodes.

pub(super) mod cursors;
mod format;
mod interests;
mod place;
mod positions;
mod request;
mod retention;
pub(super) mod send;
mod stall;
mod walk;
pub(super) mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LINK, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use self::format::MessageFormat;
use self::interests::ReaderInterest;
pub(super) use self::interests::ReaderInterests;
use self::place::ReaderPlace;
pub(super) use self::positions::LastPosition;
use self::request::{MessageRequest, ReadingStart};
use self::walk::MessageWalk;
use super::HisService;
use super::error::{HandlerResult, HisError};
use super::metrics::{HisMetrics, MessageReaderCount};
use super::query;
use super::store::{MessagePlaces, MessageReach, RecordStore, SharedStore};
use super::verify_assertion::{Caller, RouteIds};
use fedgate_base::config::HisConfig;

pub use self::webhooks::{check as check_webhooks, desk};

/// How many questions without a result one answer may cost. After so many it names how far it came.
const MOST_QUESTIONS: usize = 20;
/// How often an answer is begun again whose messages went away in the meantime.
const MOST_TRIES: usize = 3;
/// The most digits of a position.
const PLACE_BYTES: usize = 20;
/// How often an event stream without events tells its place.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The background work of the relay: it gives positions and reports them to `last`, deletes messages that are kept no
/// longer, and sends messages to webhooks.
pub(super) struct RelayWork {
    pub(super) store: RecordStore,
    pub(super) shares: SharedStore,
    pub(super) last: LastPosition,
    pub(super) interests: Arc<ReaderInterests>,
    pub(super) config: HisConfig,
    pub(super) metrics: Arc<HisMetrics>,
    /// Notified when an account has changed a webhook.
    pub(super) changed: Arc<Notify>,
    /// Whether the service stops.
    pub(super) stopping: watch::Receiver<bool>,
}

impl RelayWork {
    /// Works for as long as it is polled.
    pub(super) async fn run(self) {
        let Self { store, shares, last, interests, config, metrics, changed, stopping } = self;
        let messages = config.messages;
        tokio::join!(
            positions::run(&store, &last),
            interests::run(&store, &last, &interests),
            retention::run(&store, messages),
            stall::run(&store, messages.stall, &metrics),
            webhooks::run(store.clone(), shares, last.clone(), config, Arc::clone(&metrics), changed, stopping),
        );
    }
}

/// `GET /messages`.
pub(super) async fn list(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> HandlerResult {
    let asked = MessageRequest::of(&uri, &headers)?;
    let mut reader = MessageReader::new(service, caller, asked);
    reader.after = match &reader.asked.start {
        ReadingStart::After(after) => *after,
        ReadingStart::First => {
            let bounds = reader.store.message_bounds().await?;
            ReaderPlace { position: bounds.first.saturating_sub(1), history: Some(bounds.history) }
        }
        ReadingStart::Last => ReaderPlace::at(reader.store.last_position().await?),
        ReadingStart::Cursor(name) => {
            let key = cursors::key(&reader.caller, name.clone())?;
            let cursor = reader.store.cursor(&key).await?.ok_or(HisError::CursorNotFound)?;
            ReaderPlace { position: cursor.position, history: cursor.history }
        }
    };
    match reader.asked.format {
        MessageFormat::EventStream => reader.event_stream().await,
        MessageFormat::List
        | MessageFormat::Lines
        | MessageFormat::CloudEvents
        | MessageFormat::One
        | MessageFormat::OneEvent => reader.list(&uri).await,
    }
}

/// `GET /messages/{position}`.
pub(super) async fn read(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([position]): RouteIds<1>,
    headers: HeaderMap,
) -> HandlerResult {
    let is_number = position.len() <= PLACE_BYTES && position.bytes().all(|byte| byte.is_ascii_digit());
    let position = position.parse().ok().filter(|_| is_number).ok_or(HisError::MessageNotFound)?;
    let format = MessageFormat::of_one(&headers);
    let store = caller.store(&service);
    let walk = MessageWalk::new(service, store, &caller, caller.messages(), vec![position], format);
    match walk::body(walk).await {
        Ok(body) => Ok((answer_headers(format), body).into_response()),
        // There is no such message, or not for this reader.
        Err(HisError::MessagesGone(_)) => Err(HisError::MessageNotFound),
        Err(error) => Err(error),
    }
}

/// A reader of messages, and how far it came.
struct MessageReader {
    service: Arc<HisService>,
    store: RecordStore,
    caller: Caller,
    reach: MessageReach,
    asked: MessageRequest,
    after: ReaderPlace,
    /// Of a reader that waits for messages about one person.
    interest: Option<ReaderInterest>,
    _counted: MessageReaderCount,
}

impl MessageReader {
    fn new(service: Arc<HisService>, caller: Caller, asked: MessageRequest) -> Self {
        let store = caller.store(&service);
        let (reach, counted) = (caller.messages(), service.metrics.reader());
        Self { service, store, caller, reach, asked, after: ReaderPlace::default(), interest: None, _counted: counted }
    }

    /// The positions of the next messages, and moves the reader behind them. None are found if there are none yet, or if
    /// so many were examined.
    async fn next_places(&mut self) -> Result<MessagePlaces, HisError> {
        for _ in 0..MOST_QUESTIONS {
            let after = self.after.position;
            let places = self.store.message_places(after, self.asked.limit, &self.asked.filter, &self.reach).await?;
            if after + 1 < places.first {
                return Err(HisError::MessagesGone(places.first));
            }
            if after > places.last {
                return Err(HisError::PositionUnknown(places.last));
            }
            self.after.follow(&places, &self.store).await?;
            self.after.position = places.upto.max(after);
            if !places.found.is_empty() || places.upto >= places.last {
                return Ok(places);
            }
        }
        // More may follow: the reader asks again from here, and does not wait.
        Ok(MessagePlaces { upto: self.after.position, last: u64::MAX, ..MessagePlaces::default() })
    }

    /// As [`MessageReader::next_places`], but waits for a message until the deadline.
    async fn awaited_places(&mut self, deadline: Instant) -> Result<MessagePlaces, HisError> {
        // Before the question: what comes after the answer wakes the reader.
        if self.interest.is_none() && Instant::now() < deadline {
            let concerns = self.reach.concerns(&self.asked.filter);
            self.interest = concerns.map(|concerns| self.service.interests.add(concerns));
        }
        loop {
            // Boxed: a reader that waits has no room for a question.
            let places = Box::pin(self.next_places()).await?;
            let is_over = places.upto < places.last || self.service.is_stopping() || Instant::now() >= deadline;
            if !places.found.is_empty() || is_over {
                return Ok(places);
            }
            let wait = async {
                tokio::select! {
                    () = self.next_message() => {}
                    () = self.service.stopped() => {}
                }
            };
            let _ = timeout_at(deadline, wait).await;
        }
    }

    /// Waits until this process hears of a message that may be for this reader.
    async fn next_message(&self) {
        match &self.interest {
            Some(interest) => interest.woken().await,
            None => self.service.last_position.after(self.after.position).await,
        }
    }

    async fn list(&mut self, uri: &Uri) -> HandlerResult {
        let rest = query::target_without(uri, &["after", "cursor"], ReaderPlace::BYTES)
            .ok_or_else(|| HisError::BadQuery("limit".into()))?;
        let (from, format) = (self.after, self.asked.format);
        let deadline = Instant::now() + self.asked.wait;
        let mut tries = 0;
        let body = loop {
            let places = self.awaited_places(deadline).await?;
            tries += 1;
            match walk::body(self.walk(places.found)).await {
                // A message that was found went away: dropped, or its addressee lost a role. The next answer says which.
                Err(HisError::MessagesGone(0)) if tries < MOST_TRIES => self.after = from,
                body => break body?,
            }
        };
        let next = query::next_link(rest, "after", &self.after.to_string());
        Ok((answer_headers(format), [(LINK, next)], body).into_response())
    }

    async fn event_stream(mut self) -> HandlerResult {
        // The first question comes before the answer, so that a position that is gone is a status and no broken stream.
        let places = self.next_places().await?;
        let headers = answer_headers(self.asked.format);
        Ok((headers, Body::from_stream(walk::events(self, places))).into_response())
    }

    fn walk(&self, positions: Vec<u64>) -> MessageWalk {
        let (service, store) = (Arc::clone(&self.service), self.store.clone());
        MessageWalk::new(service, store, &self.caller, self.reach.clone(), positions, self.asked.format)
            .within(self.after.history)
    }
}

fn answer_headers(format: MessageFormat) -> [(HeaderName, HeaderValue); 3] {
    [
        (CONTENT_TYPE, HeaderValue::from_static(format.media_type())),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (VARY, HeaderValue::from_static("Accept")),
    ]
}
