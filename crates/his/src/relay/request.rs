//! The request of a reader of messages, parsed.

use std::time::Duration;

use http::{HeaderMap, Uri};

use super::format::MessageFormat;
use super::place::ReaderPlace;
use crate::error::HisError;
use crate::paging;
use crate::store::{MessageFilter, NODE_MESSAGE};

/// The most messages in an answer, and the usual number.
const LIMIT: (usize, usize) = (1000, 100);
/// The longest wait, in seconds.
const MOST_WAIT: u64 = 60;
/// The kinds of resources that messages are about; `all` is about every one, and `message` a node's own.
pub(super) const RESOURCES: [&str; 7] =
    ["person", "page", "document", "domiciliary_unit", "institution", "all", NODE_MESSAGE];
/// The methods of messages.
pub(super) const METHODS: [&str; 7] = ["POST", "PATCH", "PUT", "DELETE", "MERGE", "UNMERGE", "RESET"];

/// The parameters of a request for messages.
const PARAMETERS: [&str; 9] = ["after", "cursor", "limit", "wait", "person", "resource", "node", "method", "type"];

/// Where a reader begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ReadingStart {
    /// After this place.
    After(ReaderPlace),
    /// At the first message that is kept.
    First,
    /// After the last position.
    Last,
    /// After the position of the caller's cursor of this name.
    Cursor(String),
}

/// The parsed request.
#[derive(Debug)]
pub(super) struct MessageRequest {
    pub(super) start: ReadingStart,
    pub(super) limit: usize,
    pub(super) wait: Duration,
    pub(super) filter: MessageFilter,
    pub(super) format: MessageFormat,
}

impl MessageRequest {
    /// Parses query and headers. `Last-Event-ID`, which a browser sends when it reconnects, counts before `after` and
    /// `cursor`.
    ///
    /// # Errors
    /// [`HisError::BadQuery`] with the name of the parameter.
    pub(super) fn of(uri: &Uri, headers: &HeaderMap) -> Result<Self, HisError> {
        let pairs = paging::only(uri, &PARAMETERS)?;
        let number = |name: &str, most: u64, usual: u64| match pairs.value(name) {
            None => Ok(usual),
            Some(text) => {
                let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let value = text.parse().ok().filter(|value| is_plain && *value <= most);
                value.ok_or_else(|| HisError::BadQuery(name.to_owned()))
            }
        };
        let one_of = |name: &str, known: &[&str]| match pairs.value(name) {
            Some(value) if !known.contains(&value) => Err(HisError::BadQuery(name.to_owned())),
            value => Ok(value.map(str::to_owned)),
        };
        let mut start = match (pairs.value("after"), pairs.value("cursor")) {
            (Some(_), Some(_)) => return Err(HisError::BadQuery("cursor".into())),
            (None, Some(name)) => ReadingStart::Cursor(name.to_owned()),
            (Some("first"), None) => ReadingStart::First,
            (Some("last"), None) => ReadingStart::Last,
            (text, None) => {
                let place = ReaderPlace::parse(text.unwrap_or("0"));
                ReadingStart::After(place.ok_or_else(|| HisError::BadQuery("after".into()))?)
            }
        };
        if let Some(last) = headers.get("last-event-id") {
            let last = last.to_str().ok().and_then(ReaderPlace::parse);
            start = ReadingStart::After(last.ok_or_else(|| HisError::BadQuery("Last-Event-ID".into()))?);
        }
        let limit = usize::try_from(number("limit", LIMIT.0 as u64, LIMIT.1 as u64)?).unwrap_or(LIMIT.1);
        if limit == 0 {
            return Err(HisError::BadQuery("limit".into()));
        }
        Ok(Self {
            start,
            limit,
            wait: Duration::from_secs(number("wait", MOST_WAIT, 0)?),
            filter: MessageFilter {
                person: pairs.value("person").map(str::to_owned),
                resource: one_of("resource", &RESOURCES)?,
                node: pairs.value("node").map(str::to_owned),
                method: one_of("method", &METHODS)?,
                kind: pairs.value("type").map(str::to_owned),
            },
            format: MessageFormat::of(headers),
        })
    }
}
