//! FHIR R4 under `/fhir`: the people of this hub as Patients, for the transactions ITI-78 and ITI-119 of IHE PDQm.
//!
//! The one rule: [`fedgate_fhir`] says what a request means and what its answer shows. Here people are found, within the
//! caller's reach, and read.
//!
//! [`matching`] serves `$match`, [`search`] the search, and [`read`] one Patient. [`links`]
//! adds what merges say.

mod document;
mod links;
mod matching;
mod read;
mod search;
mod search_ways;

use std::time::SystemTime;

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, SecondsFormat, Utc};
use fedgate_fhir::capability::{ServedFhir, statement};
use fedgate_fhir::patient::{FhirMapping, FhirSettings, SystemUri};
use http::{HeaderMap, Uri, header};
use std::sync::Arc;
use thiserror::Error;

use super::HisService;
use super::fhir_form::{FhirForm, FhirResult};
use super::verify_assertion::Caller;
use fedgate_base::config::FhirConfig;
use fedgate_core::escape;

pub(super) use self::matching::find;
pub(super) use self::read::read;
pub(super) use self::search::{search, search_by_form};

/// The headers in which the gateway tells how the client has asked.
const HOST: &str = "x-forwarded-host";
const SCHEME: &str = "x-forwarded-proto";

/// FHIR as configured.
pub(super) struct FhirDesk {
    settings: FhirSettings,
    base: Option<String>,
    /// When the service was started.
    started: String,
}

/// Why FHIR cannot be served as configured.
#[derive(Debug, Error)]
#[error("`fhir.{key}` is `{text}`, which is no absolute URI; write one such as \"urn:oid:2.16.840.1.113883.3.1\"")]
pub struct FhirError {
    key: String,
    text: String,
}

impl FhirDesk {
    /// FHIR as configured; none if it is switched off.
    ///
    /// # Errors
    /// See [`FhirError`].
    pub(super) fn new(config: &FhirConfig) -> Result<Option<Self>, FhirError> {
        let uri = |key: String, text: &str| {
            SystemUri::parse(text).map_err(|_| FhirError { key, text: escape::name(text).to_string() })
        };
        let own =
            config.identifier_system.as_deref().map(|text| uri("identifier_system".to_owned(), text)).transpose()?;
        let mut settings = FhirSettings { identifier_system: own, ..FhirSettings::default() };
        for (name, text) in &config.identifier_systems {
            settings.identifier_systems.insert(name.clone(), uri(format!("identifier_systems.{name}"), text)?);
        }
        let started = DateTime::<Utc>::from(SystemTime::now()).to_rfc3339_opts(SecondsFormat::Secs, true);
        Ok(config.enabled.then(|| Self { settings, base: config.base.clone(), started }))
    }

    /// The address of the endpoint as the client sees it: that of the configuration, or the one that it asked.
    fn base(&self, headers: &HeaderMap) -> String {
        let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        self.base.clone().unwrap_or_else(|| {
            let host = value(HOST).or_else(|| value(header::HOST.as_str())).unwrap_or("localhost");
            format!("{}://{host}/fhir", value(SCHEME).unwrap_or("http"))
        })
    }
}

/// What the answer to a request depends on besides the request.
struct FhirScene<'a> {
    service: &'a Arc<HisService>,
    caller: &'a Caller,
    desk: &'a FhirDesk,
    base: String,
}

impl<'a> FhirScene<'a> {
    /// Routes lead here only if FHIR is served.
    fn of(service: &'a Arc<HisService>, caller: &'a Caller, headers: &HeaderMap) -> FhirResult<Self> {
        let desk = service.fhir.as_ref().ok_or(super::error::HisError::NoRoute)?;
        Ok(Self { service, caller, desk, base: desk.base(headers) })
    }

    fn mapping(&self) -> FhirMapping<'_> {
        FhirMapping { fields: self.service.person_index.fields(), settings: &self.desk.settings, base: &self.base }
    }
}

/// `GET /fhir/metadata`
pub(super) async fn metadata(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> FhirResult<Response> {
    let form = FhirForm::of(&uri, &headers)?;
    let scene = FhirScene::of(&service, &caller, &headers)?;
    let served = ServedFhir { base: &scene.base, version: env!("CARGO_PKG_VERSION"), date: &scene.desk.started };
    Ok(form.answer(&statement(&served)))
}
