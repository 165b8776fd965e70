//! PostgreSQL: a pool for requests, and single sessions for LISTEN.
//!
//! The one rule: nothing waits without a bound, for a connection, a statement, or a peer that has vanished.
//! Both ways of connecting share one connection string, one TLS setting and one set of bounds.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{DbError, SessionPool};
use crate::config::PostgresConfig;
use crate::pem;

/// The transport of an encrypted session.
pub type TlsStream = <<MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect as TlsConnect<Socket>>::Stream;

/// How long connecting may take, where the connection string names no other bound.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a request waits for a free connection.
const WAIT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the server works on one statement.
const STATEMENT_TIMEOUT_MS: u32 = 10_000;
/// How long sent bytes may stay unacknowledged before the peer counts as gone.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVES_IDLE: Duration = Duration::from_secs(10);

/// Makes the pool; connections are opened when they are needed, and replaced when they have died.
///
/// # Errors
/// [`DbError::Settings`]: the connection string or the certificate file cannot be used.
pub fn pool(config: &PostgresConfig) -> Result<SessionPool, DbError> {
    let (tls, manager) = (tls(config)?, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    let manager = Manager::from_config(settings(config)?, tls.clone(), manager);
    let pool = Pool::builder(manager)
        .max_size(config.pool_size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(WAIT_TIMEOUT))
        .create_timeout(Some(CONNECT_TIMEOUT * 2))
        .recycle_timeout(Some(CONNECT_TIMEOUT))
        .build()
        .map_err(|error| DbError::Settings { key: "pool_size", problem: error.to_string() })?;
    Ok(SessionPool::new(pool, tls))
}

/// Opens a session of its own, for LISTEN; the caller polls the connection, which yields the notices.
///
/// # Errors
/// [`DbError::Settings`] as for [`pool`]; [`DbError::Unavailable`] when the server cannot be reached.
pub async fn connect(config: &PostgresConfig) -> Result<(Client, Connection<Socket, TlsStream>), DbError> {
    let settings = settings(config)?;
    match tokio::time::timeout(CONNECT_TIMEOUT * 2, settings.connect(tls(config)?)).await {
        Ok(session) => session.map_err(DbError::no_session),
        Err(elapsed) => Err(DbError::Unavailable(elapsed.into())),
    }
}

/// The connection string, completed by the password and the bounds it does not name.
fn settings(config: &PostgresConfig) -> Result<tokio_postgres::Config, DbError> {
    let uri = verified_modes_as_require(&config.uri);
    let mut settings: tokio_postgres::Config = uri.parse().map_err(|error| DbError::Settings {
        key: "uri",
        problem: format!(
            "is not a PostgreSQL connection string ({}); write it as postgres://user@host/database",
            super::cause(&error)
        ),
    })?;
    if let (None, Some(password)) = (settings.get_password(), &config.password) {
        settings.password(password.expose());
    }
    if settings.get_connect_timeout().is_none() {
        settings.connect_timeout(CONNECT_TIMEOUT);
    }
    if settings.get_tcp_user_timeout().is_none() {
        settings.tcp_user_timeout(TCP_USER_TIMEOUT);
    }
    settings.keepalives_idle(KEEPALIVES_IDLE);
    if settings.get_application_name().is_none() {
        settings.application_name("fedgate");
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
    Ok(settings)
}

/// Reads libpq's `verify-ca` and `verify-full` as `require`, which here always verifies certificate and name.
fn verified_modes_as_require(uri: &str) -> String {
    uri.replace("sslmode=verify-full", "sslmode=require").replace("sslmode=verify-ca", "sslmode=require")
}

fn tls(config: &PostgresConfig) -> Result<MakeRustlsConnect, DbError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| DbError::Settings { key: "uri", problem: error.to_string() })?
        .with_root_certificates(roots(config)?)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(client))
}

/// The authorities that may have signed the server's certificate: the operator's file, or else the system's.
fn roots(config: &PostgresConfig) -> Result<RootCertStore, DbError> {
    let mut roots = RootCertStore::empty();
    let Some(file) = &config.ca_file else {
        // Without any the handshake fails with a clear message; plain connections do not need them.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().unwrap_or_default());
        return Ok(roots);
    };
    let unusable = |problem: String| DbError::Settings {
        key: "ca_file",
        problem: format!("`{}` {problem}; put the authority's certificate there as PEM", file.display()),
    };
    match roots.add_parsable_certificates(pem::certificates(file).map_err(unusable)?) {
        (0, _) => Err(unusable("holds no usable certificate".into())),
        _ => Ok(roots),
    }
}
