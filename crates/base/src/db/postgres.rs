//! PostgreSQL: a pool for requests, and single sessions for LISTEN.
//!
//! The one rule: no wait is unbounded, whether for a connection, for a statement, or for a peer that has vanished.
//! Both ways of connecting share one [`ServerRoute`]: one connection string, one TLS setting, one set of bounds, and
//! one server.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio_postgres::{Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::hosts::ServerHosts;
use super::pool::ClientPool;
use super::route::{ServerRoute, TlsStream, WantedServer};
use super::trust::server_verifier;
use super::{DbError, SessionPool};
use crate::config::{ConnectionString, PostgresConfig};

/// The longest time for one of several hosts to connect and answer, if the connection string has no other bound.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The same for an only host, with no other host waiting.
const ONLY_CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// How long the server may work on one statement.
const STATEMENT_TIMEOUT_MS: u32 = 10_000;
/// How long sent bytes may remain unacknowledged before the peer counts as gone.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent connection is probed after the first time, then each second. After three probes its peer counts as gone.
const KEEPALIVES_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVES_RETRIES: u32 = 3;

/// Makes the pool. Connections are opened on demand, and replaced when they have died.
///
/// # Errors
/// [`DbError::Settings`]: the connection string or the certificate file is unusable.
pub fn pool(config: &PostgresConfig) -> Result<SessionPool, DbError> {
    let settings = settings(config)?;
    Ok(pool_on(route_to(WantedServer::by(&config.uri, &settings), settings, config)?, config.pool_size))
}

/// Makes the pool of a replica: of a standby, whatever else the connection string would accept.
///
/// # Errors
/// [`DbError::Settings`] as for [`pool`].
pub(super) fn replica_pool(config: &PostgresConfig) -> Result<SessionPool, DbError> {
    Ok(pool_on(route_to(WantedServer::Standby, settings(config)?, config)?, config.pool_size))
}

/// Makes a pool on an existing route. All pools of one route use one server.
pub fn pool_on(route: Arc<ServerRoute>, size: usize) -> SessionPool {
    SessionPool::new(ClientPool::new(route, size))
}

/// The route to the primary, whatever else the connection string would accept.
///
/// # Errors
/// [`DbError::Settings`] as for [`pool`].
pub fn route_to_primary(config: &PostgresConfig) -> Result<Arc<ServerRoute>, DbError> {
    route_to(WantedServer::Primary, settings(config)?, config)
}

fn route_to(
    wanted: WantedServer,
    settings: tokio_postgres::Config,
    config: &PostgresConfig,
) -> Result<Arc<ServerRoute>, DbError> {
    let named = settings.get_connect_timeout().copied().filter(|_| config.uri.contains("connect_timeout"));
    let usual = |hosts: &ServerHosts| if hosts.are_several() { CONNECT_TIMEOUT } else { ONLY_CONNECT_TIMEOUT };
    ServerRoute::new(settings, tls(config)?, wanted, |hosts| named.unwrap_or_else(|| usual(hosts))).map(Arc::new)
}

/// A note for the operator on a valid connection string with a default that has changed.
pub fn note(config: &PostgresConfig) -> Option<&'static str> {
    let is_usual = settings(config).is_ok_and(|settings| WantedServer::is_usual_of_several(&config.uri, &settings));
    is_usual.then_some(
        "of the hosts in `store.uri` the one that takes writes is used, as with target_session_attrs=read-write; \
         target_session_attrs=any lets fedhis read from a standby while none does",
    )
}

/// Opens a separate session. The caller must poll its connection.
///
/// # Errors
/// [`DbError::Settings`] as for [`pool`]; [`DbError::Unavailable`] if the server cannot be reached.
pub async fn connect(
    config: &PostgresConfig,
) -> Result<(tokio_postgres::Client, Connection<Socket, TlsStream>), DbError> {
    let settings = settings(config)?;
    let reached = route_to(WantedServer::by(&config.uri, &settings), settings, config)?.reach().await?;
    Ok((reached.client, reached.connection))
}

/// The settings of the connection string, with the password and bounds that it lacks.
fn settings(config: &PostgresConfig) -> Result<tokio_postgres::Config, DbError> {
    let mut settings = read(config)?.settings;
    if let (None, Some(password)) = (settings.get_password(), &config.password) {
        settings.password(password.expose());
    }
    if settings.get_connect_timeout().is_none() {
        settings.connect_timeout(CONNECT_TIMEOUT);
    }
    if settings.get_tcp_user_timeout().is_none() {
        settings.tcp_user_timeout(TCP_USER_TIMEOUT);
    }
    // The driver has a default here, so only the text tells whether the operator has set it.
    if !config.uri.contains("keepalives_idle") {
        settings.keepalives_idle(KEEPALIVES_IDLE);
    }
    if settings.get_keepalives_interval().is_none() {
        settings.keepalives_interval(KEEPALIVES_INTERVAL);
    }
    if settings.get_keepalives_retries().is_none() {
        settings.keepalives_retries(KEEPALIVES_RETRIES);
    }
    if settings.get_application_name().is_none() {
        settings.application_name(config.application);
    }
    let options = settings.get_options().unwrap_or_default();
    if !options.contains("statement_timeout") {
        settings.options(format!("{options} -c statement_timeout={STATEMENT_TIMEOUT_MS}").trim_start());
    }
    let options = settings.get_options().unwrap_or_default();
    if !options.contains("lock_timeout") && !config.lock_timeout.is_zero() {
        let lock_timeout_ms = config.lock_timeout.as_millis();
        settings.options(format!("{options} -c lock_timeout={lock_timeout_ms}").trim_start());
    }
    // This overrides the isolation of the role and the database: writers of accounts meet in one row, and must see a
    // newer snapshot than that of their first statement. A session's startup option overrides a role's setting.
    let options = settings.get_options().unwrap_or_default();
    settings.options(format!("{options} -c default_transaction_isolation=read\\ committed").trim_start());
    // A list is read from an index in its order, a few rows at a time. Where a random page costs more than the next one,
    // the planner may rather find all rows of a frequent name, and sort them.
    let options = settings.get_options().unwrap_or_default();
    if !options.contains("random_page_cost") {
        settings.options(format!("{options} -c random_page_cost=1").trim_start());
    }
    Ok(settings)
}

pub(super) fn tls(config: &PostgresConfig) -> Result<MakeRustlsConnect, DbError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = server_verifier(config, &read(config)?, Arc::clone(&provider))?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| DbError::Settings { key: "uri", problem: error.to_string() })?
        // rustls calls every verifier of one's own dangerous. This one verifies each certificate.
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(client))
}

/// The connection string.
fn read(config: &PostgresConfig) -> Result<ConnectionString, DbError> {
    ConnectionString::parse(&config.uri).map_err(|problem| DbError::Settings { key: "uri", problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings_of(uri: &str) -> tokio_postgres::Config {
        let config = PostgresConfig {
            uri: uri.to_owned(),
            password: None,
            ca_file: None,
            pool_size: 1,
            lock_timeout: Duration::from_millis(2000),
            application: "fedgate check",
            replicas: vec![],
        };
        settings(&config).unwrap()
    }

    #[test]
    fn a_peer_that_has_vanished_is_given_up_within_seconds_unless_the_connection_string_says_otherwise() {
        let probes = |of: &tokio_postgres::Config| {
            let seconds = |time: Duration| time.as_secs();
            let timeout = [of.get_connect_timeout(), of.get_tcp_user_timeout()].map(|time| time.copied().map(seconds));
            (
                timeout,
                seconds(of.get_keepalives_idle()),
                of.get_keepalives_interval().map(seconds),
                of.get_keepalives_retries(),
            )
        };
        let usual = settings_of("postgres://u@127.0.0.1/d");
        assert!(usual.get_keepalives(), "idle connections are probed");
        assert_eq!(probes(&usual), ([Some(2), Some(5)], 5, Some(1), Some(3)));
        assert_eq!(
            usual.get_options(),
            Some(
                "-c statement_timeout=10000 -c lock_timeout=2000 -c default_transaction_isolation=read\\ committed \
                 -c random_page_cost=1"
            )
        );
        let named = settings_of(
            "postgres://u@127.0.0.1/d?connect_timeout=9&tcp_user_timeout=11&keepalives_idle=12&keepalives_interval=13\
             &keepalives_retries=14&options=-c%20statement_timeout%3D1%20-c%20lock_timeout%3D3",
        );
        assert_eq!(probes(&named), ([Some(9), Some(11)], 12, Some(13), Some(14)));
        assert_eq!(
            named.get_options(),
            Some(
                "-c statement_timeout=1 -c lock_timeout=3 -c default_transaction_isolation=read\\ committed \
                 -c random_page_cost=1"
            )
        );
    }
}
