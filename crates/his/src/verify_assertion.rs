//! Verifies the assertion: a request is served only with a valid assertion of the gateway, made for exactly this
//! request.
//!
//! The one rule: handlers take a [`Caller`], and only [`endpoint`] makes one. A handler that is registered without
//! this check answers 401 to every request.
//!
//! Method and path of the assertion are compared byte for byte with the request. The ids in the path are
//! decoded here, once and strictly. The router must not do it: it decodes after routing, so `..%2fadm` would
//! become an id.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use http::request::Parts;
use http::{HeaderValue, Version, header};
use percent_encoding::percent_decode_str;

use super::complete::{ErrorForm, complete};
use super::error::HisError;
use super::fhir_form::FhirForm;
use super::html;
use super::html::words::PageWords;
use super::store::{MessageReach, OwnPersons, RecordReach, RecordStore};
use super::{HisService, incoming};
use fedgate_base::db::actor::ChangeActor;
use fedgate_core::assertion::{AssertionClaims, AssertionError, EXCHANGE, HEADER, RecordScope};
use fedgate_core::path::MAX_ID_BYTES;

/// The endpoint claim of public pages, which need no principal.
pub(super) const PUBLIC: &str = "";
/// The grant that lets a caller write `roles` and `active`.
const ACCOUNT: &str = "account";
/// The grant that lets a caller learn whom a new person is like.
const MATCH: &str = "match";

/// The caller, and the records that the gateway's decision lets this request touch.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The account id; empty on public pages.
    pub(super) account: String,
    /// The records that may be touched; part of every statement.
    pub(super) reach: RecordReach,
    /// The gateway's id of the request.
    pub(super) request_id: String,
    /// The account's roles, as the gateway asserts them.
    roles: Vec<String>,
    may_write_accounts: bool,
    may_match: bool,
}

impl Caller {
    /// The store for this caller: each statement counts to the account's share of connections, and each change
    /// of an account names the account as its actor.
    pub(super) fn store(&self, service: &HisService) -> RecordStore {
        service.store.of(&self.account).acting_as(ChangeActor::caller(&self.account, &self.request_id))
    }

    /// As [`Caller::store`], for a read that decides nothing: a replica may answer it.
    pub(super) fn reading(&self, service: &HisService) -> RecordStore {
        self.store(service).reading_replicas()
    }

    /// The messages that the caller sees.
    pub(super) fn messages(&self) -> MessageReach {
        MessageReach::new(self.reach.clone(), &self.account, &self.roles)
    }

    /// Whether the caller may learn whom a new person is like.
    pub(super) fn may_match(&self) -> bool {
        self.may_match
    }

    /// Whether the caller may write `roles` and `active` of a person.
    pub(super) fn may_write_accounts(&self) -> bool {
        self.may_write_accounts
    }
}

/// The ids in the path, decoded, in order.
#[derive(Debug, Clone)]
pub(super) struct RouteIds<const N: usize>(pub(super) [String; N]);

#[derive(Clone)]
struct PathIds(Vec<String>);

/// Verifies the assertion of every request, then completes and traces the answer.
pub(super) async fn admit(State(service): State<Arc<HisService>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (exchange, version) = (request.headers().get(EXCHANGE).cloned(), request.version());
    // How long a reader waits for messages says nothing about this service.
    let is_awaited = path == "/messages" && request.uri().query().is_some_and(|query| query.contains("wait="));
    let form = match service.fhir.as_ref().and_then(|_| FhirForm::of_errors(request.uri(), request.headers())) {
        Some(form) => ErrorForm::Fhir(form),
        None if html::is_for_people(&path, request.headers()) => ErrorForm::Page(PageWords::of(request.headers())),
        None => ErrorForm::Json,
    };
    let (response, request_id) = match believe(&service, &request) {
        Ok(claims) => {
            let request_id = claims.rid.to_string();
            request.extensions_mut().insert(claims);
            (next.run(request).await, Some(request_id))
        }
        Err(problem) => (problem.into_response(), None),
    };
    let mut response = complete(response, request_id.as_deref(), &form);
    // On refusals too: once a connection has named exchanges, the gateway drops an answer that names none.
    if let Some(exchange) = exchange {
        response.headers_mut().insert(EXCHANGE, exchange);
    }
    // During a stop each connection ends with its answer, so that no gateway writes to one that is about to
    // close.
    if service.is_stopping() && version < Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let duration = started.elapsed();
    service.metrics.request(response.status().as_u16(), (!is_awaited).then_some(duration));
    tracing::debug!(
        request.id = request_id.as_deref().unwrap_or_default(),
        http.method = %method,
        http.path = ?path,
        http.status = response.status().as_u16(),
        duration_us = duration.as_micros(),
        "served"
    );
    response
}

fn believe(service: &HisService, request: &Request) -> Result<AssertionClaims<'static>, HisError> {
    // Two assertions would leave it open which one was meant, so they count as none.
    let mut tokens = request.headers().get_all(HEADER).iter();
    let (Some(token), None) = (tokens.next(), tokens.next()) else {
        // Probes carry no assertion.
        let is_stopping = service.is_stopping();
        return Err(if is_stopping { HisError::Stopping } else { HisError::NoAssertion });
    };
    let claims = service.verifier.verify(token.as_bytes(), SystemTime::now()).map_err(|error| {
        tracing::debug!("{error}");
        // The client learns no more than 401. The reason is logged here, because only the operator can act on
        // it.
        match error {
            AssertionError::Expired => {
                service.clock_alarm.refused();
                HisError::ClockDiffers
            }
            AssertionError::Malformed | AssertionError::Signature | AssertionError::Audience => {
                service.key_alarm.refused();
                HisError::NoAssertion
            }
        }
    })?;
    service.clock_alarm.accepted();
    service.key_alarm.accepted();
    // Bytes are compared, not meanings: an assertion for one spelling of a path says nothing about another
    // spelling.
    if claims.method != request.method().as_str() || claims.path != request.uri().path() {
        return Err(HisError::OtherRequest);
    }
    Ok(claims)
}

/// Binds a route to the endpoint that the gateway must have decided on.
///
/// The ids are the path's segments after the first. Under the scope `own`, the first id is one of the caller's own.
pub(super) fn endpoint(name: &'static str, methods: MethodRouter<Arc<HisService>>) -> MethodRouter<Arc<HisService>> {
    methods.route_layer(from_fn(async move |mut request: Request, next: Next| match bind(name, &request) {
        Ok((caller, ids)) => {
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(ids);
            next.run(request).await
        }
        Err(problem) => {
            // An answer that overtakes its request is lost, so a small body is read first.
            incoming::drain(request.into_body()).await;
            problem.into_response()
        }
    }))
}

fn bind(endpoint: &str, request: &Request) -> Result<(Caller, PathIds), HisError> {
    let claims = request.extensions().get::<AssertionClaims<'static>>().ok_or(HisError::NoAssertion)?;
    let is_public = claims.scope == RecordScope::Public;
    // `PUBLIC` works in both directions: a public claim opens no protected route, and a protected claim no
    // public one.
    if claims.endpoint != endpoint || is_public != (endpoint == PUBLIC) {
        return Err(HisError::OtherRequest);
    }
    let ids = decode_ids(request.uri().path())?;
    // The subject that was decided on must be the person in this path.
    if claims.subject.is_some() && claims.subject.as_deref() != ids.first().map(String::as_str) {
        return Err(HisError::OtherRequest);
    }
    let account = claims.sub.to_string();
    let reach = match claims.scope {
        RecordScope::Global => RecordReach::Global,
        RecordScope::Public => RecordReach::Nobody,
        // Without a subject, only the SQL limits the request, by the caller's own ids.
        RecordScope::Own => {
            let own = OwnPersons::new(account.clone(), claims.same.iter().cloned());
            if claims.subject.as_deref().is_some_and(|subject| !own.holds(subject)) {
                return Err(HisError::OtherRequest);
            }
            RecordReach::Own(own)
        }
    };
    let [may_write_accounts, may_match] = [ACCOUNT, MATCH].map(|name| claims.grants.iter().any(|grant| grant == name));
    let request_id = claims.rid.to_string();
    let roles = claims.roles.to_vec();
    Ok((Caller { account, reach, request_id, roles, may_write_accounts, may_match }, PathIds(ids)))
}

/// Whether a text can be an id: 1 to 256 bytes without control characters or slashes, and not a dot segment.
pub(super) fn is_id(id: &str) -> bool {
    let is_text = !id.chars().any(|character| character.is_control() || character == '/');
    (1..=MAX_ID_BYTES).contains(&id.len()) && is_text && id != "." && id != ".."
}

/// Decodes each segment after the first to an id.
fn decode_ids(path: &str) -> Result<Vec<String>, HisError> {
    let segments = path.strip_prefix('/').unwrap_or(path).split('/').skip(1);
    segments
        .map(|segment| {
            let id = percent_decode_str(segment).decode_utf8().map_err(|_| HisError::BadId)?;
            is_id(&id).then(|| id.into_owned()).ok_or(HisError::BadId)
        })
        .collect()
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = HisError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HisError> {
        parts.extensions.get::<Self>().cloned().ok_or(HisError::NoAssertion)
    }
}

impl<S: Sync, const N: usize> FromRequestParts<S> for RouteIds<N> {
    type Rejection = HisError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HisError> {
        let PathIds(ids) = parts.extensions.get::<PathIds>().cloned().ok_or(HisError::NoAssertion)?;
        ids.try_into().map(Self).map_err(|_| HisError::NoRoute)
    }
}

#[cfg(test)]
mod tests {
    use super::decode_ids;

    #[test]
    fn an_id_is_decoded_once_and_strictly() {
        assert_eq!(decode_ids("/pols/A%C3%9F/p+1;x=%20").unwrap(), ["Aß", "p+1;x= "]);
        assert_eq!(decode_ids("/people").unwrap(), [""; 0]);
        let long = format!("/people/{}", "x".repeat(257));
        for path in [
            "/people/",
            "/people/..%2fadm",
            "/people/a%00",
            "/people/%ff",
            "/pols//1",
            "/people/%0a",
            "/people/..",
            &long,
        ] {
            assert!(decode_ids(path).is_err(), "{path}");
        }
        assert_eq!(decode_ids("/people/%252e").unwrap(), ["%2e"], "decoded once, not twice");
    }
}
