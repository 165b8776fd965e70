//! The HIS: people, books of life, personal documents and institutions over HTTP, as Thalamus serves them.
//!
//! The one rule: no request is served without an assertion of the gateway, and the scope that the assertion grants is
//! bound into the SQL. A request passes `verify_assertion`, then one handler module, then [`store`]. axum lives here
//! and nowhere else. This crate does not know the gateway; code that both share lives in `core` and `base`.

#![forbid(unsafe_code)]

mod error;
mod complete;
mod verify_assertion;
mod assertion_alarm;

mod html;
mod site;
mod people;
mod pols;
mod documents;
mod units;
mod password;

mod accept;
mod answer;
mod base64;
mod incoming;
mod body;
mod budget;
mod content;
mod date;
mod hashing;
mod connections;
mod head_timeout;
mod http2;
mod list;
mod list_form;
mod paging;
mod changes;
mod listen;
mod query;
mod quota;
mod reading;
mod upload;
mod relay;
mod person_index;
mod fhir_form;
mod fhir;
mod metrics;
mod admin;

pub mod demo;
pub mod etag;
pub mod import;
pub mod store;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{get, post};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use self::assertion_alarm::AssertionAlarm;
use self::budget::ByteBudget;
use self::error::HisError;
use self::fhir::FhirDesk;
use self::hashing::HashingThreads;
use self::metrics::HisMetrics;
use self::password::OwnPasswordGuesses;
use self::person_index::{PersonIndex, merge_requests};
use self::quota::RecordQuota;
use self::relay::desk::WebhookDesk;
use self::relay::{LastPosition, ReaderInterests, RelayWork};
use self::store::{RecordStore, SharedStore, UnitKind};
use self::verify_assertion::{Caller, PUBLIC, endpoint};
use fedgate_base::config::HisConfig;
use fedgate_base::db::hashes::HashRule;
use fedgate_base::db::replicas::ReplicaFigures;
use fedgate_core::assertion::AssertionVerifier;
use fedgate_core::json::JsonObject;

pub use self::admin::admin_router;
pub use self::fhir::FhirError;
pub use self::listen::{HisListener, ListenError};
pub use self::person_index::merge_requests::shown as shown_merge;
pub use self::person_index::{IndexError, register, shown_pair};
pub use self::relay::{check_webhooks, desk};

/// The state that all handlers share.
pub struct HisService {
    store: SharedStore,
    verifier: AssertionVerifier,
    limits: HisLimits,
    quotas: PersonQuotas,
    budget: ByteBudget,
    /// The budget of parsed bodies, separate from the budget of bytes in flight.
    trees: ByteBudget,
    hashing: HashingThreads,
    /// Wrong current passwords on the page of passwords, by account.
    guesses: OwnPasswordGuesses,
    is_stopping: watch::Sender<bool>,
    /// The last position of a message, which readers wait for.
    last_position: LastPosition,
    interests: Arc<ReaderInterests>,
    webhooks: WebhookDesk,
    /// Notified when an account has changed a webhook.
    webhooks_changed: Arc<Notify>,
    metrics: Arc<HisMetrics>,
    person_index: Arc<PersonIndex>,
    /// None if FHIR is not served.
    fhir: Option<FhirDesk>,
    clock_alarm: AssertionAlarm,
    key_alarm: AssertionAlarm,
    /// Watches over the database; ends with the service.
    _watch: JoinSet<()>,
}

/// Why the service cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The index of persons cannot be used as configured.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// FHIR cannot be served as configured.
    #[error(transparent)]
    Fhir(#[from] FhirError),
    /// Never in practice: the metrics can be registered, as a test shows.
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Bounds on bodies and records, and the rules of the page of passwords.
#[derive(Debug, Clone, Copy)]
struct HisLimits {
    max_body_bytes: usize,
    max_document_bytes: usize,
    /// `None`: no bound.
    max_record_bytes: Option<usize>,
    /// Whether the page of passwords asks for the caller's own current password.
    ask_current_password: bool,
    /// Whether that page refuses the commonest passwords.
    refuse_common_passwords: bool,
}

/// Bounds on the number of records of each person.
struct PersonQuotas {
    pages: RecordQuota,
    documents: RecordQuota,
    /// Messages that an account sent.
    messages: RecordQuota,
}

impl HisService {
    /// Builds the service. Must run within a tokio runtime, because it starts the watch over the database.
    ///
    /// # Errors
    /// See [`ServiceError`].
    pub fn new(config: &HisConfig, verifier: AssertionVerifier, store: RecordStore) -> Result<Arc<Self>, ServiceError> {
        let metrics = Arc::new(HisMetrics::new(store.replica_figures().unwrap_or(&ReplicaFigures::default()))?);
        let person_index = Arc::new(PersonIndex::new(&config.index)?);
        let store = store.keyed_by(Arc::<PersonIndex>::clone(&person_index));
        let fhir = FhirDesk::new(&config.fhir)?;
        let limits = HisLimits {
            max_body_bytes: config.max_body_bytes,
            max_document_bytes: config.max_document_bytes,
            // 0 means no bound.
            max_record_bytes: Some(config.max_record_bytes).filter(|most| *most > 0),
            ask_current_password: config.ask_current_password,
            refuse_common_passwords: config.refuse_common_passwords,
        };
        let quotas = PersonQuotas {
            pages: RecordQuota::new(config.max_pages_per_person),
            documents: RecordQuota::new(config.max_documents_per_person),
            messages: RecordQuota::new(config.max_messages_per_account),
        };
        let rule = HashRule::new(store.database(), config.hashes);
        let mut watchers = JoinSet::new();
        // Follows the primary also while no request arrives.
        watchers.spawn(store.clone().watch_over());
        let last_position = LastPosition::new();
        let interests = Arc::new(ReaderInterests::default());
        let (documents, store) = (store.clone(), store.shared(&config.shares));
        let (budget, trees) =
            (ByteBudget::new(config.max_bytes_in_flight), ByteBudget::of_trees(config.max_bytes_in_flight));
        let (hashing, is_stopping) = (HashingThreads::new(rule), watch::Sender::new(false));
        let webhooks_changed = Arc::new(Notify::new());
        let work = RelayWork {
            store: documents.clone(),
            shares: store.clone(),
            last: last_position.clone(),
            interests: Arc::clone(&interests),
            config: config.clone(),
            metrics: Arc::clone(&metrics),
            changed: Arc::clone(&webhooks_changed),
            stopping: is_stopping.subscribe(),
        };
        watchers.spawn(work.run());
        let (indexed, index) = (documents, Arc::clone(&person_index));
        watchers.spawn(async move { person_index::run(&indexed, &index).await });
        Ok(Arc::new(Self {
            store,
            verifier,
            limits,
            quotas,
            budget,
            trees,
            hashing,
            guesses: OwnPasswordGuesses::default(),
            is_stopping,
            last_position,
            interests,
            webhooks: WebhookDesk::new(&config.webhooks),
            webhooks_changed,
            metrics,
            person_index,
            fhir,
            clock_alarm: AssertionAlarm::of_clocks(),
            key_alarm: AssertionAlarm::of_keys(),
            _watch: watchers,
        }))
    }

    /// Refuses a new record that is larger than `his.max_record_bytes`.
    fn check_size(&self, record: &JsonObject) -> Result<(), HisError> {
        match self.limits.max_record_bytes {
            Some(most) if record.size() > most => Err(HisError::RecordTooLarge),
            Some(_) | None => Ok(()),
        }
    }

    /// Begins the stop: from now on probes receive 503, and every answer closes its connection. Gateways so
    /// turn to other servers while this one still serves.
    pub fn stop(&self) {
        self.is_stopping.send_replace(true);
    }

    /// Whether the stop has begun.
    fn is_stopping(&self) -> bool {
        *self.is_stopping.borrow()
    }

    /// Waits until the stop begins.
    async fn stopped(&self) {
        // The sender lives as long as this, so waiting cannot fail.
        let _ = self.is_stopping.subscribe().wait_for(|is_stopping| *is_stopping).await;
    }
}

/// The API as one list: path, the endpoint that the gateway must have decided on, methods.
#[rustfmt::skip]
fn api() -> Router<Arc<HisService>> {
    Router::new()
        .route("/", endpoint(PUBLIC, get(site::welcome)))
        .route("/static/{file}", endpoint(PUBLIC, get(site::file)))
        .route("/openapi.json", endpoint(PUBLIC, get(site::openapi)))
        .route("/login", endpoint("login", get(login)))
        .route("/people", endpoint("people", get(people::list)))
        .route("/people/{person}", endpoint("person",
            get(people::read).post(people::create).patch(people::patch).delete(people::delete)))
        .route("/pols/{person}", endpoint("book", get(pols::list)))
        .route("/pols/{person}/{page}", endpoint("page",
            get(pols::read).post(pols::create).patch(pols::patch).delete(pols::delete)))
        .route("/personal_docs/{person}", endpoint("personaldocs", get(documents::list_of_person)))
        .route("/personal_docs/{person}/{page}", endpoint("poldocs", get(documents::list_of_page)))
        .route("/personal_docs/{person}/{page}/{document}", endpoint("poldocs",
            get(documents::read).post(documents::create).delete(documents::delete)))
        .route("/domiciliary-units", endpoint("domiciliaryunits", units::list(UnitKind::Domiciliary)))
        .route("/domiciliary-units/{unit}", endpoint("domiciliaryunits", units::one(UnitKind::Domiciliary)))
        .route("/institutions", endpoint("institutions", units::list(UnitKind::Institutions)))
        .route("/institutions/{unit}", endpoint("institutions", units::one(UnitKind::Institutions)))
        .route("/messages", endpoint("messages", get(relay::list).post(relay::send::send)))
        .route("/messages/{position}", endpoint("messages", get(relay::read)))
        .route("/messages/cursors", endpoint("messages", get(relay::cursors::list)))
        .route("/messages/cursors/{cursor}", endpoint("messages",
            get(relay::cursors::read).put(relay::cursors::put).delete(relay::cursors::delete)))
        .route("/messages/webhooks", endpoint("messages", get(relay::webhooks::list).post(relay::webhooks::create)))
        .route("/messages/webhooks/{webhook}", endpoint("messages",
            get(relay::webhooks::read).patch(relay::webhooks::change).delete(relay::webhooks::remove)))
        .route("/messages/webhooks/{webhook}/keys", endpoint("messages", post(relay::webhooks::rotate)))
        .route("/index/match", endpoint("match", post(person_index::find)))
        .route("/index/duplicates", endpoint("match", get(person_index::duplicates::list)))
        .route("/index/duplicates/{pair}", endpoint("match",
            get(person_index::duplicates::read).patch(person_index::duplicates::decide)))
        .route("/index/merges", endpoint("merge", get(merge_requests::all).post(merge_requests::merge)))
        .route("/index/merges/{merge}", endpoint("merge", get(merge_requests::read).delete(merge_requests::undo)))
        .route("/password/{person}", endpoint("password", get(password::form).post(password::change)))
}

/// The API of FHIR, as the list above.
#[rustfmt::skip]
fn fhir_api() -> Router<Arc<HisService>> {
    Router::new()
        .route("/fhir/metadata", endpoint(PUBLIC, get(fhir::metadata)))
        .route("/fhir/Patient", endpoint("people", get(fhir::search)))
        .route("/fhir/Patient/_search", endpoint("people", post(fhir::search_by_form)))
        .route("/fhir/Patient/$match", endpoint("match", post(fhir::find)))
        .route("/fhir/Patient/{patient}", endpoint("person", get(fhir::read)))
}

/// The service as a router. Every request passes the check of its assertion first, whatever its path.
pub fn router(service: Arc<HisService>) -> Router {
    let api = if service.fhir.is_some() { api().merge(fhir_api()) } else { api() };
    api.method_not_allowed_fallback(async || HisError::MethodNotAllowed)
        .fallback(async || HisError::NoRoute)
        // The layer also covers both fallbacks: an unknown path without an assertion is 401, not 404.
        .layer(from_fn_with_state(Arc::clone(&service), verify_assertion::admit))
        .with_state(service)
}

/// `GET /login`: always `true`, because the gateway has authenticated the caller.
async fn login(_: Caller) -> Response {
    answer::json("true")
}
