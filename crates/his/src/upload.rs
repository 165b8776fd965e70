//! Receives a document: its bytes go to the store one piece at a time, and are never in memory as a whole.
//!
//! The one rule: a fault is reported only after the body has been read, and leaves nothing behind. Pieces that
//! did not become a document are deleted, also when the client goes away. A document that fits one piece needs
//! a single statement.

use axum::body::Body;
use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::base64::Base64Decoder;
use super::body;
use super::budget::{self, HeldBytes};
use super::error::HisError;
use super::incoming::IncomingBody;
use super::store::{DocumentContent, DocumentKey, DocumentStaging, NewDocument, PIECE_BYTES, RecordStore};
use super::verify_assertion::Caller;
use super::{HisService, content};
use fedgate_core::fields::{JsonError, MemberExtract, MemberExtractor};
use fedgate_core::json::{JsonObject, JsonValue};

/// The room that an upload holds: the piece that fills, and the newest bytes. In JSON, members beside the
/// document add to it.
const HELD_BYTES: usize = 2 * PIECE_BYTES;
/// Bytes are processed in steps of this size, which bounds what they decode to.
const STEP_BYTES: usize = 64 * 1024;

/// A document that has arrived and is ready to be stored.
pub(super) struct ArrivedUpload {
    pub(super) document: NewDocument,
    /// Deletes the staged pieces when it is dropped.
    _pieces: DocumentPieces,
    _held: HeldBytes,
    _tree: Option<HeldBytes>,
}

/// Receives a document in the form that its content type names.
pub(super) async fn receive(
    service: &HisService,
    caller: &Caller,
    key: &DocumentKey,
    headers: &HeaderMap,
    body: Body,
) -> Result<ArrivedUpload, HisError> {
    let limit = service.limits.max_document_bytes;
    let is_json = matches!(body::media_type(headers).as_deref(), None | Some("application/json"));
    // `IncomingBody` allows a third more than its limit, which is what base64 adds.
    let mut incoming = IncomingBody::new(headers, body, if is_json { json_limit(service) } else { limit })?;
    let arrived = match service.budget.hold(&caller.account, HELD_BYTES, budget::PATIENCE).await {
        None => Err(HisError::NoRoom),
        Some(held) => {
            let pieces = DocumentPieces::new(caller.store(service), limit);
            match is_json {
                true => from_json(service, caller, key, &mut incoming, pieces, held).await,
                false => from_bytes(headers, &mut incoming, pieces, held).await,
            }
        }
    };
    // The rest is read before the error is sent: an answer that overtakes its request is lost.
    if arrived.is_err() {
        incoming.forget().await;
    }
    body::check_encoding(headers).map_err(|_| HisError::NotADocument)?;
    arrived
}

/// The largest JSON body: document and members, without what base64 adds.
fn json_limit(service: &HisService) -> usize {
    service.limits.max_document_bytes.saturating_add(service.limits.max_body_bytes)
}

/// The body is the document. Its content type is all that is known about it.
async fn from_bytes(
    headers: &HeaderMap,
    incoming: &mut IncomingBody,
    mut pieces: DocumentPieces,
    held: HeldBytes,
) -> Result<ArrivedUpload, HisError> {
    let mut is_empty = true;
    while let Some(chunk) = incoming.next().await? {
        is_empty &= chunk.is_empty();
        for step in chunk.chunks(STEP_BYTES) {
            pieces.pending.extend_from_slice(step);
            pieces.flush().await?;
        }
    }
    let is_form = body::media_type(headers).is_some_and(|kind| body::is_form(&kind));
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.filter(|kind| content::is_media_type(kind) && !is_form).ok_or(HisError::NotADocument)?;
    // A cut-off upload or a misspelt file name would otherwise take the id for ever.
    if is_empty {
        return Err(HisError::NoBytes);
    }
    let mut data = JsonObject::default();
    data.set("content_type", JsonValue::String(kind.to_owned()));
    let document = NewDocument { data: data.to_text(), content: pieces.content().await? };
    Ok(ArrivedUpload { document, _pieces: pieces, _held: held, _tree: None })
}

/// The body is a JSON object: `document` in base64, and members that describe it.
async fn from_json(
    service: &HisService,
    caller: &Caller,
    key: &DocumentKey,
    incoming: &mut IncomingBody,
    mut pieces: DocumentPieces,
    mut held: HeldBytes,
) -> Result<ArrivedUpload, HisError> {
    let mut member = DocumentMember::new(service.limits.max_body_bytes);
    while let Some(chunk) = incoming.next().await? {
        for step in chunk.chunks(STEP_BYTES) {
            // Paid before the step is kept. Members are small beside most documents, so few uploads wait here.
            let most = HELD_BYTES + member.extractor.held() + STEP_BYTES;
            let room = service.budget.top_up(&caller.account, &mut held, most, budget::PATIENCE).await;
            room.ok_or(HisError::NoRoom)?;
            member.step(step, &mut pieces)?;
            pieces.flush().await?;
        }
    }
    // Until here the members were text. Parsing them multiplies their size, which has a budget of its own.
    let rest = member.extractor.finish()?.ok_or(HisError::TooLarge)?;
    let tree = Some(body::hold_tree(service, &caller.account, rest.len()).await?);
    let data = body::object(&rest, service.limits.max_body_bytes)?;
    drop(rest);
    check(&data, key)?;
    let has_content = match member.state {
        MemberState::Absent => false,
        MemberState::NotBase64 => return Err(HisError::NotBase64),
        MemberState::Value(decoder) => decoder.finish().map_err(|_| HisError::NotBase64)?,
    };
    // A misspelt member would silently lose the bytes.
    if !has_content {
        return Err(HisError::NoBytes);
    }
    Ok(ArrivedUpload {
        document: NewDocument { data: data.to_text(), content: pieces.content().await? },
        _pieces: pieces,
        _held: held,
        _tree: tree,
    })
}

/// Checks that the members do not contradict the path, and that a content type is a media type.
fn check(data: &JsonObject, key: &DocumentKey) -> Result<(), HisError> {
    let expected =
        [("id", Some(key.document.as_str())), ("fedacct", Some(key.person.as_str())), ("pol", key.page.as_deref())];
    for (name, expected) in expected {
        if data.member(name).is_some_and(|given| given.as_str() != expected) {
            return Err(HisError::DocumentMismatch(name));
        }
    }
    match data.member("content_type") {
        None => Ok(()),
        Some(JsonValue::String(kind)) if content::is_media_type(kind) => Ok(()),
        Some(_) => Err(HisError::BadMember("content_type")),
    }
}

/// The member `document` of an object that is arriving.
struct DocumentMember {
    extractor: MemberExtractor,
    state: MemberState,
}

enum MemberState {
    Absent,
    Value(Base64Decoder),
    NotBase64,
}

impl DocumentMember {
    fn new(most: usize) -> Self {
        Self { extractor: MemberExtractor::new("document", most), state: MemberState::Absent }
    }

    fn step(&mut self, step: &[u8], pieces: &mut DocumentPieces) -> Result<(), JsonError> {
        let state = &mut self.state;
        self.extractor.feed(step, |brought| match (brought, &mut *state) {
            (MemberExtract::Begin, _) => {
                // A repeated member begins again: the last one counts, as everywhere in JSON here.
                pieces.begin();
                *state = MemberState::Value(Base64Decoder::default());
            }
            (MemberExtract::Part(part), MemberState::Value(decoder)) => {
                if decoder.feed(part, &mut pieces.pending).is_err() {
                    *state = MemberState::NotBase64;
                }
            }
            (MemberExtract::NoString, _) => *state = MemberState::NotBase64,
            (MemberExtract::Part(_), MemberState::Absent | MemberState::NotBase64) => {}
        })
    }
}

/// The bytes of a document on their way to the store.
struct DocumentPieces {
    store: RecordStore,
    upload: String,
    /// Bytes that do not fill a piece yet.
    pending: Vec<u8>,
    /// The place of the next piece, and the place of the first piece that counts.
    place: i64,
    from: i64,
    /// The number of staged bytes that count, without the pending ones.
    staged: usize,
    limit: usize,
    is_over: bool,
}

impl DocumentPieces {
    fn new(store: RecordStore, limit: usize) -> Self {
        // Random, because uploads of all instances share one table.
        let upload = format!("{:032x}", rand::random::<u128>());
        Self { store, upload, pending: Vec::new(), place: 0, from: 0, staged: 0, limit, is_over: false }
    }

    /// Discards everything before: the member occurs again.
    fn begin(&mut self) {
        self.pending.clear();
        (self.from, self.staged, self.is_over) = (self.place, 0, false);
    }

    /// Stages whole pieces. Bytes beyond the limit are dropped, so that an oversized body fills neither memory
    /// nor store.
    async fn flush(&mut self) -> Result<(), HisError> {
        self.is_over |= self.staged + self.pending.len() > self.limit;
        if self.is_over {
            self.pending.clear();
        }
        // The last piece is not staged yet: if it is the only one, one statement stores the document.
        while self.pending.len() > PIECE_BYTES {
            let rest = self.pending.split_off(PIECE_BYTES);
            let piece = std::mem::replace(&mut self.pending, rest);
            self.stage(&piece).await?;
        }
        Ok(())
    }

    async fn stage(&mut self, piece: &[u8]) -> Result<(), HisError> {
        // Counted first: if the answer of a statement is lost, the piece may be in the store and must be
        // deleted.
        self.place += 1;
        self.store.stage(&self.upload, self.place - 1, piece).await?;
        self.staged += piece.len();
        Ok(())
    }

    /// The content of the document, once all of it has arrived.
    async fn content(&mut self) -> Result<DocumentContent, HisError> {
        if self.is_over {
            return Err(HisError::TooLarge);
        }
        let last = std::mem::take(&mut self.pending);
        if self.staged == 0 {
            return Ok(DocumentContent::Whole(last));
        }
        self.stage(&last).await?;
        let length = i64::try_from(self.staged).unwrap_or(i64::MAX);
        Ok(DocumentContent::Staged(DocumentStaging { upload: self.upload.clone(), from: self.from, length }))
    }
}

impl Drop for DocumentPieces {
    /// Deletes the staged pieces. If this fails or the process ends, a later upload sweeps them up.
    fn drop(&mut self) {
        if self.place == 0 {
            return;
        }
        let (store, upload) = (self.store.clone(), std::mem::take(&mut self.upload));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = store.unstage(&upload).await {
                    tracing::warn!(
                        "pieces of a document that was not stored remain until a later upload deletes them: {error}"
                    );
                }
            });
        }
    }
}
