//! A document that arrives: its bytes go to the store a piece at a time, and never stand in memory whole.
//!
//! The one rule: whatever is wrong is said when the body has been read, and then nothing of it stays: pieces that became no
//! document are taken away again, also when the client goes away. One that fits a piece needs no other statement than the
//! one that stores it.

use axum::body::Body;
use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::base64::Base64Decoder;
use super::body;
use super::budget::{self, HeldBytes};
use super::error::HisError;
use super::guard::Caller;
use super::incoming::IncomingBody;
use super::store::{DocumentContent, DocumentKey, DocumentStaging, NewDocument, PIECE_BYTES, RecordStore};
use super::{HisService, content};
use fedgate_core::fields::{JsonError, MemberExtract, MemberExtractor};
use fedgate_core::json::{JsonObject, JsonValue};

/// What an upload holds of the budget: the piece that fills, and what came last; of JSON, what stands beside the document, too.
const HELD_BYTES: usize = 2 * PIECE_BYTES;
/// Bytes that are looked at together, so that what they decode to is bounded.
const STEP_BYTES: usize = 64 * 1024;

/// A document that has arrived, and waits to be stored.
pub(super) struct ArrivedUpload {
    pub(super) document: NewDocument,
    /// Takes away what was staged, once this is dropped.
    _pieces: DocumentPieces,
    _held: HeldBytes,
    _tree: Option<HeldBytes>,
}

/// Receives a document in the form that its content type tells.
pub(super) async fn receive(
    service: &HisService,
    caller: &Caller,
    key: &DocumentKey,
    headers: &HeaderMap,
    body: Body,
) -> Result<ArrivedUpload, HisError> {
    let limit = service.limits.max_document_bytes;
    let is_json = matches!(body::media_type(headers).as_deref(), None | Some("application/json"));
    // In base64 it takes as much more as every body is read beyond its limit.
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
    if arrived.is_err() {
        incoming.forget().await;
    }
    body::check_encoding(headers)?;
    arrived
}

/// Most bytes of a body that holds a document and what is known about it, without what base64 adds.
fn json_limit(service: &HisService) -> usize {
    service.limits.max_document_bytes.saturating_add(service.limits.max_body_bytes)
}

/// The bytes themselves; their type is all that is known about them.
async fn from_bytes(
    headers: &HeaderMap,
    incoming: &mut IncomingBody,
    mut pieces: DocumentPieces,
    held: HeldBytes,
) -> Result<ArrivedUpload, HisError> {
    while let Some(chunk) = incoming.next().await? {
        for step in chunk.chunks(STEP_BYTES) {
            pieces.pending.extend_from_slice(step);
            pieces.flush().await?;
        }
    }
    let is_form = body::media_type(headers).is_some_and(|kind| body::is_form(&kind));
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.filter(|kind| content::is_media_type(kind) && !is_form).ok_or(HisError::UnsupportedMediaType)?;
    let mut data = JsonObject::default();
    data.set("content_type", JsonValue::String(kind.to_owned()));
    let document = NewDocument { data: data.to_text(), content: pieces.content().await? };
    Ok(ArrivedUpload { document, _pieces: pieces, _held: held, _tree: None })
}

/// A JSON object: `document` in base64, the other members are what is known about it.
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
            // What may come to be kept is paid for before. It is little beside most documents, so that few wait for it.
            let most = HELD_BYTES + member.extractor.held() + STEP_BYTES;
            let room = service.budget.top_up(&caller.account, &mut held, most, budget::PATIENCE).await;
            room.ok_or(HisError::NoRoom)?;
            member.step(step, &mut pieces)?;
            pieces.flush().await?;
        }
    }
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
    let content = if has_content { pieces.content().await? } else { DocumentContent::Absent };
    Ok(ArrivedUpload {
        document: NewDocument { data: data.to_text(), content },
        _pieces: pieces,
        _held: held,
        _tree: tree,
    })
}

/// What is known about a document does not contradict the path, and names a type if any.
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

/// The member `document` of an object that arrives.
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

/// The bytes of a document, on their way to the store.
struct DocumentPieces {
    store: RecordStore,
    upload: String,
    /// Bytes that make no whole piece yet.
    pending: Vec<u8>,
    /// The place of the next piece, and of the first one that counts.
    place: i64,
    from: i64,
    /// All bytes that count, those that are pending left aside.
    staged: usize,
    limit: usize,
    is_over: bool,
}

impl DocumentPieces {
    fn new(store: RecordStore, limit: usize) -> Self {
        let upload = format!("{:032x}", rand::random::<u128>());
        Self { store, upload, pending: Vec::new(), place: 0, from: 0, staged: 0, limit, is_over: false }
    }

    /// What came before does not count.
    fn begin(&mut self) {
        self.pending.clear();
        (self.from, self.staged, self.is_over) = (self.place, 0, false);
    }

    /// Stages whole pieces; what is beyond the limit is forgotten.
    async fn flush(&mut self) -> Result<(), HisError> {
        self.is_over |= self.staged + self.pending.len() > self.limit;
        if self.is_over {
            self.pending.clear();
        }
        // The last piece waits: it may be the only one.
        while self.pending.len() > PIECE_BYTES {
            let rest = self.pending.split_off(PIECE_BYTES);
            let piece = std::mem::replace(&mut self.pending, rest);
            self.stage(&piece).await?;
        }
        Ok(())
    }

    async fn stage(&mut self, piece: &[u8]) -> Result<(), HisError> {
        // Counted before: a statement whose answer is lost may have been done.
        self.place += 1;
        self.store.stage(&self.upload, self.place - 1, piece).await?;
        self.staged += piece.len();
        Ok(())
    }

    /// The document's content, now that all of it has come.
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
    /// Takes away what was staged. Where this fails, or the process ends, a later upload sweeps it up.
    fn drop(&mut self) {
        if self.place == 0 {
            return;
        }
        let (store, upload) = (self.store.clone(), std::mem::take(&mut self.upload));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = store.unstage(&upload).await {
                    tracing::warn!(
                        "pieces of a document that was not stored are left for a later upload to sweep: {error}"
                    );
                }
            });
        }
    }
}
