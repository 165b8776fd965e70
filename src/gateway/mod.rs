//! The policy enforcement point: pingora lives only here, and only translates.
//!
//! The one rule: no callback decides. What a request may do is the pipeline's answer; this module turns pingora's
//! sessions into the pipeline's questions, and its answers into forwarded requests, responses and records.
//!
//! Called by the `fedgate` binary. [`Prepared::serve`] puts the parts together and returns when the service has stopped.

mod door;
mod guarded;
mod proxy;
mod request;
mod respond;
mod cors;
mod upstream;
mod tls;
mod stop;
mod admin;
mod report;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, PoisonError};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora_core::apps::HttpServerOptions;
use pingora_core::apps::http_app::HttpServer;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server, ShutdownWatch};
use pingora_core::services::background::{BackgroundService, background_service};
use pingora_core::services::listening::Service;
use pingora_proxy::http_proxy;
use thiserror::Error;

use tls::Served;
pub use tls::TlsError;

use crate::accounts::{Accounts, AccountsError, watch};
use crate::assertion::{AssertionKeyError, Minter};
use crate::authn::Authenticator;
use crate::config::Config;
use crate::observe::Recorder;
use crate::pipeline::Pipeline;
use crate::policy::PolicySet;
use crate::reload::{FileState, ReloadError, keep_current, read_policy};
use crate::routes::{RouteError, Routes};
use admin::Admin;
use door::Door;
use proxy::Gateway;
use report::Reporter;

/// Why the gateway cannot serve; the text names file or address, and the remedy where there is one.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The policy file is missing or refused.
    #[error("{path}: {problem}")]
    Policy {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// A route cannot be used.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The key that signs assertions cannot be used.
    #[error(transparent)]
    Assertion(#[from] AssertionKeyError),
    /// The accounts cannot be opened.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; stop what listens there, or change `gateway.listen`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The operating system refused something else.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// Everything a gateway needs, loaded and checked, not yet listening.
pub struct Prepared {
    config: Config,
    pipeline: Arc<Pipeline>,
    authenticator: Arc<Authenticator>,
    policy: Arc<ArcSwap<PolicySet>>,
    minter: Minter,
    certificate: Option<tls::Certificate>,
}

impl Prepared {
    /// Loads policy, routes, certificate and keys, and opens the accounts.
    ///
    /// # Errors
    /// The first thing that cannot be used.
    pub async fn new(config: Config) -> Result<Self, ServeError> {
        let policy = Arc::new(ArcSwap::from_pointee(load_policy(&config)?));
        let routes = Arc::new(Routes::from_config(&config)?);
        let certificate = match config.gateway.listen.is_empty() {
            true => None,
            false => Some(tls::load_certificate(&config.tls)?),
        };
        let minter = Minter::from_config(&config.assertion)?;
        let accounts = Accounts::open(&config.store).await?;
        let authenticator = Arc::new(Authenticator::new(accounts, Arc::clone(&routes), config.authentication.clone())?);
        let pipeline = Arc::new(Pipeline::new(Arc::clone(&authenticator), routes, Arc::clone(&policy)));
        Ok(Self { config, pipeline, authenticator, policy, minter, certificate })
    }

    /// The accounts, to ask whether they can be read.
    pub fn accounts(&self) -> &Accounts {
        self.authenticator.accounts()
    }

    /// The policy and the pipeline, to look at.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Listens and serves until SIGTERM or SIGINT, then finishes what is in flight.
    ///
    /// # Errors
    /// An address is taken, or the operating system gives no threads.
    pub fn serve(self) -> Result<(), ServeError> {
        tls::install_provider(self.config.tls.min_version);
        let addresses = &self.config.gateway;
        for address in addresses.listen.iter().chain(&addresses.listen_plain).chain(&addresses.admin) {
            // pingora would end the process with a backtrace; this ends it with a sentence.
            TcpListener::bind(address).map_err(|source| ServeError::Listen { address: *address, source })?;
        }
        let conf = ServerConf {
            threads: self.config.gateway.threads,
            grace_period_seconds: Some(0),
            graceful_shutdown_timeout_seconds: Some(1),
            ..ServerConf::default()
        };
        let mut server = Server::new_with_opt_and_conf(None, conf);
        server.bootstrap();
        let in_flight = Arc::new(AtomicUsize::new(0));
        let draining = Arc::new(AtomicBool::new(false));
        let stop =
            stop::StopSignal::new(self.config.gateway.stop_timeout, Arc::clone(&in_flight), Arc::clone(&draining));
        let listen = self.config.gateway.clone();
        let recorder = Recorder::start(self.config.records.file.as_deref())?;
        let file = Arc::new(FileState::default());
        let admin = Admin {
            metrics: Arc::clone(recorder.metrics()),
            authenticator: Arc::clone(&self.authenticator),
            policy: Arc::clone(&self.policy),
            file: Arc::clone(&file),
            in_flight: Arc::clone(&in_flight),
            draining: Arc::clone(&draining),
        };
        let gateway = Gateway::new(&self.config, self.pipeline, self.minter, recorder.clone(), in_flight, draining);
        let mut proxy = http_proxy(&server.configuration, gateway);
        let mut options = HttpServerOptions::default();
        options.keepalive_request_limit = Some(listen.limits.requests_per_connection);
        options.h2_idle_timeout = Some(listen.limits.idle);
        proxy.server_options = Some(options);
        proxy.h2_options = Some(door::h2_options(&listen.limits));
        let door = Door::new(proxy, &listen.limits, recorder);
        let mut proxy = Service::new("gateway".to_owned(), door);
        let served = self.certificate.map(Served::new);
        if let Some(certificate) = &served {
            for address in &listen.listen {
                proxy.add_tls_with_settings(&address.to_string(), None, tls::settings(certificate)?);
            }
        }
        for address in &listen.listen_plain {
            proxy.add_tcp(&address.to_string());
        }
        server.add_service(proxy);
        if !listen.admin.is_empty() {
            let mut service = Service::new("admin".to_owned(), HttpServer::new_app(admin));
            listen.admin.iter().for_each(|address| service.add_tcp(&address.to_string()));
            service.threads = Some(1);
            server.add_service(service);
        }
        let reporter = Reporter::new(&listen, Arc::clone(&self.authenticator), Arc::clone(&self.policy));
        server.add_service(background_service("report", Background::new(reporter.clone().run())));
        let authenticator = self.authenticator;
        let watching = async move {
            watch(authenticator.accounts().clone(), authenticator.freshness_bound(), &*authenticator).await;
        };
        server.add_service(background_service("accounts", Background::new(watching)));
        if let Some(served) = served {
            let following = served.keep_current(self.config.tls.clone());
            server.add_service(background_service("certificate", Background::new(following)));
        }
        let reloading = keep_current(
            self.config.policy.roles.clone(),
            self.config.policy.history.clone(),
            Arc::clone(&self.policy),
            file,
        );
        server.add_service(background_service("policy", Background::new(reloading)));
        for address in &listen.listen {
            tracing::info!("listening on https://{address}");
        }
        for address in &listen.admin {
            tracing::info!("admin listener on http://{address}: /livez /readyz /metrics /version");
        }
        for address in &listen.listen_plain {
            tracing::info!("listening on http://{address}, without TLS");
        }
        tracing::info!(policy = self.policy.load().fingerprint(), "serving");
        server.run(RunArgs { shutdown_signal: Box::new(stop) });
        // The runtimes have ended with the server; this last word gets one of its own.
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(reporter.withdraw());
        tracing::info!("stopped");
        Ok(())
    }
}

/// Reads and parses the policy file of the configuration.
///
/// # Errors
/// The file cannot be read or is refused; the text names it.
pub fn load_policy(config: &Config) -> Result<PolicySet, ServeError> {
    let path = &config.policy.roles;
    read_policy(path).map_err(|fault| {
        let remedy = match &fault {
            ReloadError::Unreadable(_) | ReloadError::NotAFile => "; `policy.roles` must name a roles.cfg",
            ReloadError::Policy(_) => "",
        };
        ServeError::Policy { path: path.display().to_string(), problem: format!("{fault}{remedy}") }
    })
}

/// Runs for as long as the gateway does.
struct Background<F>(std::sync::Mutex<Option<F>>);

impl<F: Future<Output = ()> + Send> Background<F> {
    fn new(work: F) -> Self {
        Self(std::sync::Mutex::new(Some(work)))
    }
}

#[async_trait]
impl<F: Future<Output = ()> + Send> BackgroundService for Background<F> {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let work = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(work) = work else { return };
        tokio::select! {
            biased; // What runs on in a runtime that is ending would only report that it was cut short.
            _ = shutdown.changed() => {}
            () = work => {}
        }
    }
}
