//! Background work on servers: names are resolved again, servers are probed, overdue requests are ended.
//!
//! The one rule: a probe carries nothing of any client, no credential and no assertion. It asks whether a server
//! lives, not whether it admits anybody, so every status below 500 is a good answer.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::header;
use pingora_core::Result;
use pingora_core::connectors::TransportConnector;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_http::RequestHeader;
use tokio::time::{sleep, timeout};

use super::UpstreamSet;
use super::servers::{ServerAddress, ServerSet};
use crate::gateway::error_text::in_words;
use fedgate_base::config::HealthConfig;

/// How often names are resolved.
const RESOLVE_EVERY: Duration = Duration::from_secs(10);

impl UpstreamSet {
    /// Resolves, probes and watches all servers, for ever.
    pub(crate) async fn look_after(&self) {
        let probing = async {
            // A connector loads the system's authorities, which takes a moment: none is made if nothing is probed.
            if self.all().any(|upstream| upstream.servers.config.health.is_some()) {
                let connector = TransportConnector::new(None);
                join_all(self.all().map(|upstream| upstream.servers.probe_all(&connector))).await;
            }
        };
        let resolving = join_all(self.all().map(|upstream| upstream.servers.keep_resolved()));
        tokio::join!(self.connections.watch(), probing, resolving);
    }
}

impl UpstreamSet {
    /// Connects to each server as a request would, and sends nothing; returns those that cannot be reached.
    pub(crate) async fn unreachable(&self) -> Vec<String> {
        let connector = TransportConnector::new(None);
        let tried = self.all().map(|upstream| upstream.servers.unreachable(&connector));
        join_all(tried).await.into_iter().flatten().collect()
    }
}

impl ServerSet {
    async fn unreachable(&self, connector: &TransportConnector) -> Vec<String> {
        let servers = self.pool.servers();
        let tried = servers.iter().map(async |server| {
            let problem = match timeout(self.config.connect_timeout, connector.new_stream(&server.peer.http)).await {
                Ok(Ok(_)) => return None,
                Ok(Err(error)) => in_words(&error),
                Err(_) => format!("no connection within {} ms", self.config.connect_timeout.as_millis()),
            };
            Some(format!("upstream `{}`: server `{}` cannot be reached now: {problem}", self.config.name, server.name))
        });
        join_all(tried).await.into_iter().flatten().collect()
    }

    async fn keep_resolved(&self) {
        while self.has_names() {
            sleep(RESOLVE_EVERY).await;
            self.resolve().await;
        }
    }

    async fn probe_all(&self, connector: &TransportConnector) {
        let Some(health) = &self.config.health else { return };
        loop {
            let began = Instant::now();
            let servers = self.pool.servers();
            join_all(servers.iter().map(async |server| {
                let found = probe(connector, &server.peer, health).await;
                let (upstream, name) = (&self.config.name, &server.name);
                match (server.probed(found.is_ok(), health), found) {
                    (Some(false), Err(problem)) => {
                        tracing::warn!(
                            "upstream `{upstream}`: server `{name}` is unhealthy and gets no requests: {problem}"
                        );
                    }
                    (Some(_), _) => tracing::info!("upstream `{upstream}`: server `{name}` is healthy again"),
                    (None, _) => {}
                }
            }))
            .await;
            // From beginning to beginning: slow probes do not stretch the interval.
            sleep(health.interval.saturating_sub(began.elapsed())).await;
        }
    }
}

/// Probes one server: a connection, and one request if a path is configured.
async fn probe(connector: &TransportConnector, peer: &ServerAddress, health: &HealthConfig) -> Result<(), String> {
    match timeout(health.timeout, ask(connector, peer, health)).await {
        Ok(Ok(status @ 500..)) => Err(format!("it answers {status}")),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(in_words(&error)),
        Err(_) => Err(format!("no answer within {} ms", health.timeout.as_millis())),
    }
}

/// The status of the answer; 0 if a connection was enough.
async fn ask(connector: &TransportConnector, peer: &ServerAddress, health: &HealthConfig) -> Result<u16> {
    let stream = connector.new_stream(&peer.http).await?;
    let Some(path) = &health.path else { return Ok(0) };
    let mut request = RequestHeader::build("GET", path.as_bytes(), Some(3))?;
    request.insert_header(header::HOST, &peer.authority)?;
    request.insert_header(header::USER_AGENT, concat!("fedgate/", env!("CARGO_PKG_VERSION"), " probe"))?;
    // A fresh connection for each probe: a kept one would not show that the server refuses new ones.
    request.insert_header(header::CONNECTION, "close")?;
    let mut session = HttpSession::new(stream);
    session.write_request_header(Box::new(request)).await?;
    loop {
        session.read_response().await?;
        match session.get_status() {
            Some(status) if status.is_informational() => {}
            status => return Ok(status.map_or(0, |status| status.as_u16())),
        }
    }
}
