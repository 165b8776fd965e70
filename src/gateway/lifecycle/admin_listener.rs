//! The admin listener: liveness, readiness with reasons, metrics, version.
//!
//! The one rule: it listens on loopback unless configured otherwise, changes nothing, and reveals nothing about
//! persons.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::{Response, StatusCode, Version, header};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;
use serde_json::{Value, json};

use super::schema_watch::SchemaWatch;
use super::startup_certificates::StartupCertificates;
use crate::authn::Authenticator;
use crate::gateway::edge::live_traffic::LiveTraffic;
use crate::gateway::edge::tls::{LoadedCertificates, ServedTls};
use crate::gateway::upstream::{ServedUpstream, UpstreamSet};
use crate::observe::RequestRecorder;
use crate::reload::FileState;
use fedgate_base::moment::BootMoment;
use fedgate_core::escape;
use fedgate_core::methods::Method;
use fedgate_core::policy::PolicySet;

/// The parts that the admin listener reports on.
pub(crate) struct AdminListener {
    pub(crate) recorder: RequestRecorder,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) policy: Arc<ArcSwap<PolicySet>>,
    pub(crate) file: Arc<FileState>,
    pub(crate) upstreams: Arc<UpstreamSet>,
    pub(crate) traffic: Arc<LiveTraffic>,
    /// None if nothing listens with TLS.
    pub(crate) tls: Option<Arc<ServedTls>>,
    pub(crate) fixed: Arc<StartupCertificates>,
    pub(crate) schema: Arc<SchemaWatch>,
    /// Distinguishes this gateway from one with another configuration ([`super::address_in_use`]).
    pub(crate) configuration: String,
    /// The addresses of this gateway.
    pub(crate) listens: Vec<SocketAddr>,
}

#[async_trait]
impl ServeHttp for AdminListener {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        // In HTTP/1.0 the end of the connection ends an answer, unless the client asked otherwise.
        if head.version == Version::HTTP_10 {
            session.set_keepalive(None);
        }
        let head = session.req_header();
        if Method::parse(head.method.as_str()) != Some(Method::Get) {
            return answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain", b"only GET\n".to_vec());
        }
        match head.uri.path() {
            "/livez" => answer(StatusCode::OK, "text/plain", b"ok\n".to_vec()),
            "/readyz" => self.ready(),
            "/metrics" => answer(StatusCode::OK, "text/plain; version=0.0.4", self.metrics().await),
            "/version" => {
                let version = json!({
                    "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION"),
                    "configuration": self.configuration, "process": std::process::id(), "listens": self.listens,
                });
                answer(StatusCode::OK, "application/json", version.to_string().into_bytes())
            }
            _ => answer(StatusCode::NOT_FOUND, "text/plain", b"/livez /readyz /metrics /version\n".to_vec()),
        }
    }
}

impl AdminListener {
    /// Ready for requests: the accounts are confirmed or an outage lease is valid, records can be written, no
    /// service has just refused the gateway's clock, and the gateway is not stopping.
    ///
    /// A faulty policy file or certificate file is reported and does not count: the last good content is in force.
    /// Nor do an incomplete schema, and an upstream without a healthy server: every other gateway would find the same,
    /// and this one can still refuse.
    fn ready(&self) -> Response<Vec<u8>> {
        let draining = self.traffic.is_stopping();
        let lease = self.authenticator.lease_is_valid(BootMoment::now());
        let skew = self.upstreams.clock_skew().fault();
        let is_recorded = !self.recorder.refuses();
        let ready = self.authenticator.is_ready(BootMoment::now()) && !draining && is_recorded && skew.is_none();
        let healthy =
            |upstream: &ServedUpstream| upstream.servers.healthy().map(|(_, addresses)| addresses).sum::<usize>();
        let upstreams: serde_json::Map<_, _> =
            self.upstreams.all().map(|upstream| (upstream.name().to_owned(), json!(healthy(upstream)))).collect();
        let detail = json!({
            "ready": ready,
            "draining": draining,
            "accounts": { "lease_valid": lease, "fault": self.authenticator.fault() },
            "schema": { "fault": self.schema.fault() },
            "policy": { "fingerprint": self.policy.load().fingerprint(), "fault": self.file.fault() },
            "records": {
                "durable": self.recorder.is_durable(), "fault": self.recorder.fault(), "scarce": self.recorder.is_scarce(),
            },
            "clocks": { "fault": skew },
            "certificates": {
                "faults": self.certificate_faults(), "warnings": self.certificate_warnings(), "files": self.certificate_files(),
            },
            "upstreams": upstreams,
        });
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        // Error texts may hold control characters, on which a terminal would act.
        answer(status, "application/json", escape::json(&detail.to_string()).into_owned().into_bytes())
    }

    /// Faults of certificate files. They do not make the gateway unready: the last good content is in force.
    fn certificate_faults(&self) -> Vec<String> {
        let followed = self.tls.as_ref().map(|tls| tls.faults()).unwrap_or_default();
        followed.into_iter().chain(self.fixed.faults()).collect()
    }

    /// Certificates that end soon.
    fn certificate_warnings(&self) -> Vec<String> {
        let followed = self.tls.as_ref().map(|tls| tls.ahead()).unwrap_or_default();
        followed.into_iter().chain(self.fixed.ahead()).collect()
    }

    /// The certificate files in force, and when each ends.
    fn certificate_files(&self) -> Vec<Value> {
        let files = self.held_files().into_iter().map(|file| file.report());
        files.map(|file| json!({ "key": file.key, "path": file.path, "valid_to": file.valid_to })).collect()
    }

    fn held_files(&self) -> Vec<LoadedCertificates> {
        let followed = self.tls.as_ref().map(|tls| tls.held()).unwrap_or_default();
        followed.into_iter().chain(self.fixed.files().iter().cloned()).collect()
    }

    async fn metrics(&self) -> Vec<u8> {
        let caches = self.authenticator.figures();
        let metrics = self.recorder.metrics();
        let samples = [
            ("fedgate_requests_in_flight", self.traffic.in_flight() as u64),
            ("fedgate_lease_valid", self.authenticator.lease_is_valid(BootMoment::now()).into()),
            ("fedgate_account_epoch", *self.authenticator.epoch().borrow()),
            ("fedgate_policy_faults_total", self.file.faults()),
            ("fedgate_policy_faulty", self.file.fault().is_some().into()),
            ("fedgate_policy_unkept", self.file.is_unkept().into()),
            ("fedgate_certificate_faults", self.certificate_faults().len() as u64),
            ("fedgate_records_failing", self.recorder.fault().is_some().into()),
            ("fedgate_records_scarce", self.recorder.is_scarce().into()),
            ("fedgate_cache_principals", caches.principals),
            ("fedgate_cache_hits_total", caches.hits),
            ("fedgate_cache_misses_total", caches.misses),
            ("fedgate_cache_invalidated_total", caches.invalidated),
            ("fedgate_cache_evicted_total", caches.evicted),
            ("fedgate_cache_mean_age_seconds", caches.mean_age_seconds),
            ("fedgate_cache_proofs", caches.proofs),
            ("fedgate_cache_proof_hits_total", caches.proof_hits),
            ("fedgate_cache_proofs_evicted_total", caches.proofs_evicted),
            ("fedgate_cache_proofs_mean_age_seconds", caches.proofs_mean_age_seconds),
            ("fedgate_cache_recompiled_total", caches.recompiled),
            ("fedgate_passwords_hashed_total", caches.hashed),
        ];
        metrics.scrape(|metrics| {
            samples.into_iter().for_each(|(name, value)| metrics.sample(name, value));
            for upstream in self.upstreams.all() {
                let healthy = upstream.servers.healthy();
                healthy.for_each(|(server, count)| metrics.upstreams.healthy(upstream.name(), server, count));
            }
            // A renewed certificate has other labels; the series of the old one must end.
            metrics.no_certificates();
            for file in self.held_files() {
                let path = file.path.display().to_string();
                for one in &file.certificates {
                    metrics.certificate(&file.key, &path, &one.subject, one.validity.to);
                }
            }
            metrics.policy_in_force(self.policy.load().fingerprint());
        })
    }
}

fn answer(status: StatusCode, content_type: &str, body: Vec<u8>) -> Response<Vec<u8>> {
    let response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::CONTENT_LENGTH, body.len())
        .header(header::CACHE_CONTROL, "no-store");
    response.body(body).unwrap_or_default()
}
