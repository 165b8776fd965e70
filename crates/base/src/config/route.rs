//! The sections `[[route]]`.

use serde::Deserialize;

use super::check::ValueCheck;
use super::error::ConfigError;
use super::fields::{self, GuardConfig};
use super::subject::{SubjectConfig, SubjectRoute, SubjectSection};
use super::upstreams::UpstreamConfig;

/// One of the operator's own routes; `routes` parses the pattern.
#[derive(Debug, Clone)]
pub struct RouteConfig {
    /// The path pattern, with `{name}` for one segment and `{*name}` for all that follow.
    pub path: String,
    /// The methods, named as in roles.cfg.
    pub methods: Vec<String>,
    /// The endpoint name that roles.cfg grants; none on a public route.
    pub endpoint: Option<String>,
    /// Where a request names the person whose record is touched.
    pub subject: SubjectConfig,
    /// The upstream's name.
    pub upstream: String,
    /// The largest request body, in bytes.
    pub max_body_bytes: Option<u64>,
    /// Members of request bodies that need a permission.
    pub guards: Vec<GuardConfig>,
    /// Whether request bodies must be objects. Otherwise lists of documents pass too.
    pub only_object: bool,
    /// Members that are removed from answers.
    pub hide: Vec<String>,
    /// Whether answers to GET are streams or long polls: they pass as they come, for as long as they are permitted. POST
    /// is then a call: its body and its answer pass at the same time, over HTTP/2.
    pub stream: bool,
    /// Whether GET may open a WebSocket.
    pub websocket: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteSection {
    path: String,
    methods: Vec<String>,
    endpoint: Option<String>,
    #[serde(default)]
    public: bool,
    subject: Option<SubjectSection>,
    upstream: String,
    max_body_bytes: Option<u64>,
    #[serde(default)]
    guard: Vec<fields::GuardSection>,
    #[serde(default)]
    hide: Vec<String>,
    #[serde(default)]
    stream: bool,
}

impl RouteSection {
    pub(super) fn check(
        self,
        check: &ValueCheck<'_>,
        upstreams: &[UpstreamConfig],
    ) -> Result<RouteConfig, ConfigError> {
        let fault = |key: &str, problem: &str, remedy: &str| {
            check.fault(&format!("route.{key} of {}", self.path), problem, remedy)
        };
        if !upstreams.iter().any(|upstream| upstream.name == self.upstream) {
            let problem = format!("names `{}`, which is no upstream", self.upstream);
            return Err(fault("upstream", &problem, "add an [[upstream]] of that name"));
        }
        // Neither is implied: a forgotten `endpoint` must not open the route.
        match (&self.endpoint, self.public) {
            (None, false) => {
                return Err(fault("endpoint", "is missing", "name an endpoint of roles.cfg, or set `public = true`"));
            }
            (Some(_), true) => {
                return Err(fault("endpoint", "is set beside `public = true`", "leave one of the two out"));
            }
            _ => {}
        }
        // A filter needs whole answers, and a stream is never whole.
        if self.stream && !self.hide.is_empty() {
            return Err(fault("hide", "is set beside `stream = true`", "leave one of the two out"));
        }
        let is_call = self.stream && self.methods == ["POST"];
        if self.stream && !is_call && self.methods != ["GET"] {
            let remedy = "write methods = [\"GET\"], or [\"POST\"] for calls over HTTP/2, and another [[route]] of this path \
                          for other methods";
            return Err(fault("stream", "is true, and `methods` is neither GET nor POST alone", remedy));
        }
        // A guard needs whole bodies.
        if is_call && !self.guard.is_empty() {
            return Err(fault("guard", "is set beside `stream = true`", "leave one of the two out"));
        }
        if is_call && upstreams.iter().any(|upstream| upstream.name == self.upstream && !upstream.stream_http2) {
            let remedy = "set `stream_http2 = true` in its [[upstream]], or leave `stream` out";
            return Err(fault("stream", "is true for POST, and its upstream is not asked over HTTP/2", remedy));
        }
        let facts = SubjectRoute { methods: &self.methods, is_public: self.public, is_stream: self.stream };
        let subject = self.subject.map(|subject| subject.check(&facts, fault)).transpose()?.unwrap_or_default();
        let guards = fields::check(self.guard, &self.hide, &self.methods, subject.path.is_some(), fault)?;
        Ok(RouteConfig {
            guards,
            only_object: false,
            hide: self.hide,
            path: self.path,
            methods: self.methods,
            endpoint: self.endpoint,
            subject,
            upstream: self.upstream,
            max_body_bytes: self.max_body_bytes,
            stream: self.stream,
            websocket: self.stream && !is_call,
        })
    }
}
