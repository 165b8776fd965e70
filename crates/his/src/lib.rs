//! The HIS: people, books of life, personal documents and institutions over HTTP, as Thalamus serves them.
//!
//! The one rule: no request is served without an assertion of the gateway, and the scope that the assertion grants is
//! bound into the SQL. A request passes `verify_assertion`, then one handler module, then [`store`]. axum lives here
//! and nowhere else. This crate does not know the gateway; code that both share lives in `core` and `base`.

#![forbid(unsafe_code)]

mod error;
mod complete;
mod verify_assertion;
mod clock_skew;

mod html;
mod site;
mod people;
mod pols;
mod documents;
mod units;
mod password;

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
mod list;
mod listen;
mod query;
mod quota;
mod reading;
mod upload;

pub mod demo;
pub mod etag;
pub mod import;
pub mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::get;
use tokio::task::JoinSet;

use self::budget::ByteBudget;
use self::clock_skew::ClockAlarm;
use self::error::HisError;
use self::hashing::HashingThreads;
use self::password::OwnPasswordGuesses;
use self::quota::RecordQuota;
use self::store::{RecordStore, SharedStore, UnitKind};
use self::verify_assertion::{Caller, PUBLIC, endpoint};
use fedgate_base::config::HisConfig;
use fedgate_base::db::hashes::HashRule;
use fedgate_core::assertion::AssertionVerifier;
use fedgate_core::json::JsonObject;

pub use self::listen::{HisListener, ListenError};

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
    is_stopping: AtomicBool,
    clock: ClockAlarm,
    /// Watches over the database; ends with the service.
    _watch: JoinSet<()>,
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
}

impl HisService {
    /// Builds the service. Must run within a tokio runtime, because it starts the watch over the database.
    pub fn new(config: &HisConfig, verifier: AssertionVerifier, store: RecordStore) -> Arc<Self> {
        let limits = HisLimits {
            max_body_bytes: config.max_body_bytes,
            max_document_bytes: config.max_document_bytes,
            // 0 means no bound.
            max_record_bytes: Some(config.max_record_bytes).filter(|most| *most > 0),
            ask_current_password: config.ask_current_password,
            refuse_common_passwords: config.refuse_common_passwords,
        };
        let pages = RecordQuota::new(config.max_pages_per_person);
        let quotas = PersonQuotas { pages, documents: RecordQuota::new(config.max_documents_per_person) };
        let rule = HashRule::new(store.database(), config.hashes);
        let mut watch = JoinSet::new();
        // Follows the primary also while no request arrives.
        watch.spawn(store.clone().watch_over());
        let store = store.shared(&config.shares);
        let (budget, trees) =
            (ByteBudget::new(config.max_bytes_in_flight), ByteBudget::of_trees(config.max_bytes_in_flight));
        let (hashing, is_stopping) = (HashingThreads::new(rule), AtomicBool::new(false));
        Arc::new(Self {
            store,
            verifier,
            limits,
            quotas,
            budget,
            trees,
            hashing,
            guesses: OwnPasswordGuesses::default(),
            is_stopping,
            clock: ClockAlarm::default(),
            _watch: watch,
        })
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
        self.is_stopping.store(true, Ordering::Release);
    }
}

/// The API as one list: path, the endpoint that the gateway must have decided on, methods.
#[rustfmt::skip]
fn api() -> Router<Arc<HisService>> {
    Router::new()
        .route("/", endpoint(PUBLIC, get(site::welcome)))
        .route("/static/{file}", endpoint(PUBLIC, get(site::file)))
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
        .route("/password/{person}", endpoint("password", get(password::form).post(password::change)))
}

/// The service as a router. Every request passes the check of its assertion first, whatever its path.
pub fn router(service: Arc<HisService>) -> Router {
    api()
        .method_not_allowed_fallback(async || HisError::MethodNotAllowed)
        .fallback(async || HisError::NoRoute)
        // The layer also covers both fallbacks: an unknown path without an assertion is 401, not 404.
        .layer(from_fn_with_state(Arc::clone(&service), verify_assertion::admit))
        .with_state(service)
}

/// `GET /login`: always `true`, because the gateway has authenticated the caller.
async fn login(_: Caller) -> Response {
    answer::json("true")
}
