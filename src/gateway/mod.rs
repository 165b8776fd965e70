//! The policy enforcement point (PEP). pingora is used nowhere else.
//!
//! The one rule: no callback decides. The pipeline decides about a request. This module turns pingora's sessions
//! into questions for the pipeline, and its decisions into forwarded requests, answers and records.
//!
//! Called by the `fedgate` binary. [`PreparedGateway::serve`] puts the parts together and returns when the gateway
//! has stopped.

mod headers;
mod plain_text;
mod error_text;
mod edge;
mod exchange;
mod upstream;
mod lifecycle;
mod authzen;
mod acceptors;

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use edge::tls;
pub use edge::tls::{CertificateFile, CertificateFinding, TlsError};
use lifecycle::account_changes;
pub use lifecycle::address_in_use::AddressHolder;
pub use lifecycle::error::ServeError;
pub use lifecycle::inspection::{GatewayInspection, ListenFault};
use lifecycle::pid_file;
pub use lifecycle::pid_file::RunningGateway;
pub use upstream::TrustError;
use upstream::UpstreamSet;

use crate::accounts::{AccountStore, watch};
use crate::assertion_signer::AssertionSigner;
use crate::authn::Authenticator;
use crate::observe::{RecordKeeping, RecordRates, RequestRecorder};
use crate::pipeline::{PageLinkKey, Pipeline};
use crate::reload::{self, FileState, ReloadError, keep_current, read_policy, tell_warnings};
use edge::live_traffic::LiveTraffic;
use edge::tls::ServedTls;
use fedgate_base::config::{Config, GatewayConfig, RecordsConfig};
use fedgate_base::descriptors;
use fedgate_base::threads;
use fedgate_base::workers::RequestWorkers;
use fedgate_core::policy::PolicySet;
use lifecycle::handover::InheritedSockets;
use lifecycle::instance_report::InstanceReporter;
use lifecycle::listeners::ListeningSockets;
use lifecycle::pid_file::StartOrigin;
use lifecycle::schema_watch::SchemaWatch;
use lifecycle::serving;
use lifecycle::startup_certificates::StartupCertificates;
use lifecycle::stream_watch;
use lifecycle::supervise::supervise;

/// Everything that a gateway needs, loaded and checked, not yet listening.
pub struct PreparedGateway {
    config: Config,
    pipeline: Arc<Pipeline>,
    authenticator: Arc<Authenticator>,
    policy: Arc<ArcSwap<PolicySet>>,
    signer: AssertionSigner,
    tls: Option<Arc<ServedTls>>,
    upstreams: Arc<UpstreamSet>,
    fixed: Arc<StartupCertificates>,
    schema: Arc<SchemaWatch>,
}

impl PreparedGateway {
    /// Loads policy, routes, certificates and keys, looks up the upstreams' servers, and opens the accounts.
    ///
    /// # Errors
    /// The first fault that was found.
    pub async fn new(config: Config) -> Result<Self, ServeError> {
        let mut inspection = GatewayInspection::new(config, |_| true).await;
        if let Some(first) = inspection.take_faults().into_iter().next() {
            return Err(first);
        }
        let GatewayInspection { config, policy, routes, tls, signer, upstreams, accounts, fixed, .. } = inspection;
        // INVARIANT: a part that is missing here was a fault, which was returned above.
        let missing = |part| move || std::io::Error::other(format!("{part} not loaded, and no fault says why"));
        let policy = policy.ok_or_else(missing("the policy was"))?;
        let signer = signer.ok_or_else(missing("the key of the assertion was"))?;
        let upstreams = upstreams.ok_or_else(missing("the upstreams were"))?;
        let accounts = accounts.ok_or_else(missing("the accounts were"))?;
        let fixed = fixed.ok_or_else(missing("the certificates of upstreams and store were"))?;
        for (what, path) in routes.yielded() {
            tracing::info!("`{path}` is served instead of the built-in routes of {what}");
        }
        let policy = Arc::new(ArcSwap::from_pointee(policy));
        let schema = Arc::new(SchemaWatch::new(accounts.clone()));
        let authenticator = Arc::new(Authenticator::new(accounts, Arc::clone(&routes), config.authentication.clone())?);
        let pipeline = Pipeline::new(Arc::clone(&authenticator), routes, Arc::clone(&policy));
        let pipeline = Arc::new(pipeline.with_page_links(PageLinkKey::of(&signer)));
        Ok(Self { config, pipeline, authenticator, policy, signer, tls, upstreams, fixed, schema })
    }

    /// The accounts, to test whether they can be read.
    pub fn accounts(&self) -> &AccountStore {
        self.authenticator.accounts()
    }

    /// Listens and serves until SIGTERM, SIGINT or a successor, then finishes requests in flight.
    ///
    /// # Errors
    /// An address is in use, or the operating system gives no threads.
    pub fn serve(self) -> Result<(), ServeError> {
        tls::install_provider();
        let mut gateway = self.config.gateway.clone();
        let idle = cap_connections(&mut gateway);
        threads::can_start(gateway.threads + SPARE_THREADS)?;
        // The watches have a thread of their own: no number of requests can make a lease run out.
        let control = runtime("control", 1)?;
        // Registered first: from here on an early SIGHUP does not end the process, but waits to be handled.
        let hangup = control.block_on(async { signal(SignalKind::hangup()) })?;
        let policy_reload = Arc::new(Notify::new());
        let mut inherited = InheritedSockets::take()?;
        if let (Some(path), StartOrigin::First) = (&gateway.pid_file, inherited.origin()) {
            pid_file::is_free(path).map_err(|error| ServeError::of_pid_file(Some(path), error))?;
        }
        let listeners = ListeningSockets::open(&gateway, &mut inherited)?;
        let recorder = start_records(&self.config.records)?;
        let records_file = self.config.records.file.clone();
        control.spawn(heed_hangups(hangup, recorder.clone(), Arc::clone(&policy_reload)));
        let file = Arc::new(FileState::default());
        let reporter = InstanceReporter::new(
            &gateway,
            Arc::clone(&self.authenticator),
            Arc::clone(&self.policy),
            Arc::clone(&file),
        );
        let warnings = self.policy.load().warnings(&self.pipeline.routes().asked());
        tell_warnings(&self.config.policy.roles, &warnings);
        self.keep_watch(&control, &reporter, &file, &policy_reload);
        let (authenticator, records) = (Arc::clone(&self.authenticator), recorder.clone());
        supervise(&control, "the record of changes of accounts", move || {
            account_changes::record(Arc::clone(&authenticator), records.clone())
        });
        let traffic = Arc::new(LiveTraffic::new(&gateway.limits));
        let accounts = self.authenticator.accounts().clone();
        let (authenticator, current, live) = (Arc::clone(&self.authenticator), Arc::clone(&file), Arc::clone(&traffic));
        supervise(&control, "the watch over streams", move || {
            stream_watch::keep(Arc::clone(&authenticator), Arc::clone(&current), Arc::clone(&live))
        });
        let authenticator = Arc::clone(&self.authenticator);
        let (workers, threads) = RequestWorkers::start(gateway.threads)?;
        let acceptors = self.acceptors(&gateway, idle, recorder.clone(), file, &traffic, workers.count());
        // This thread accepts, and hears the signals.
        let listening = Builder::new_current_thread().enable_all().build()?;
        let end = serving::until_end(&gateway, &traffic, &workers, acceptors, listeners, inherited, &authenticator);
        listening.block_on(end)?;
        listening.shutdown_timeout(serving::LAST_WORDS);
        threads.end(serving::LAST_WORDS);
        let (lost, ()) = control.block_on(async { tokio::join!(recorder.flush(), reporter.withdraw()) });
        // The watches end before the database is closed, or they would log an outage.
        control.shutdown_background();
        accounts.database().close();
        match lost {
            0 => {
                tracing::info!("stopped");
                Ok(())
            }
            count => Err(ServeError::RecordsLost { file: records_file, count, fault: recorder.fault() }),
        }
    }

    /// Starts the watches over accounts, policy, certificates and upstreams, and the report of this instance.
    fn keep_watch(
        &self,
        control: &Runtime,
        reporter: &InstanceReporter,
        file: &Arc<FileState>,
        policy_reload: &Arc<Notify>,
    ) {
        let reporter = reporter.clone();
        supervise(control, "the report of this instance", move || reporter.clone().run());
        let authenticator = Arc::clone(&self.authenticator);
        supervise(control, "the watch over the accounts", move || {
            let authenticator = Arc::clone(&authenticator);
            async move {
                watch(authenticator.accounts().clone(), authenticator.freshness_bound(), &*authenticator).await;
            }
        });
        let authenticator = Arc::clone(&self.authenticator);
        supervise(control, "the watch over reads of accounts", move || {
            let authenticator = Arc::clone(&authenticator);
            async move { authenticator.keep_reading().await }
        });
        let schema = Arc::clone(&self.schema);
        supervise(control, "the watch over the schema", move || Arc::clone(&schema).keep_watch());
        if let Some(tls) = self.tls.clone() {
            supervise(control, "the watch over the certificates", move || Arc::clone(&tls).keep_current());
        }
        let fixed = Arc::clone(&self.fixed);
        supervise(control, "the watch over the dates of certificates", move || Arc::clone(&fixed).keep_watch());
        let upstreams = Arc::clone(&self.upstreams);
        supervise(control, "the watch over the upstreams", move || {
            let upstreams = Arc::clone(&upstreams);
            async move { upstreams.look_after().await }
        });
        let (policy, current) = (self.config.policy.clone(), Arc::clone(&self.policy));
        let (routes, file) = (Arc::clone(self.pipeline.routes()), Arc::clone(file));
        let policy_reload = Arc::clone(policy_reload);
        supervise(control, "the watch over the policy", move || {
            let (roles, history) = (policy.roles.clone(), policy.history.clone());
            let (current, routes) = (Arc::clone(&current), Arc::clone(&routes));
            keep_current(roles, history, current, routes, Arc::clone(&file), Arc::clone(&policy_reload))
        });
    }
}

/// Starts the records as they are configured.
fn start_records(records: &RecordsConfig) -> std::io::Result<RequestRecorder> {
    RequestRecorder::start(RecordKeeping {
        file: records.file.as_deref(),
        stdout: records.stdout,
        answers_wait: records.durable,
        rates: RecordRates { of_source: records.anonymous_of_source_per_minute, in_all: records.anonymous_per_minute },
        reserve_bytes: records.reserve_bytes,
    })
}

/// Reads the policy and opens the file of records again, at each SIGHUP.
async fn heed_hangups(mut hangup: Signal, recorder: RequestRecorder, policy_reload: Arc<Notify>) {
    while hangup.recv().await.is_some() {
        tracing::info!("SIGHUP received, reading the policy, and opening the file of records");
        recorder.reopen();
        policy_reload.notify_one();
    }
}

/// Lowers the limit of connections to the number that the limit of open files allows, and warns of it. Returns how
/// many idle connections to servers are kept.
fn cap_connections(gateway: &mut GatewayConfig) -> usize {
    let (limit, limits) = (descriptors::raise(), &mut gateway.limits);
    let idle = descriptors::idle(limit, gateway.threads);
    let allowed = descriptors::connections(limit, limits.connections, idle);
    if allowed < limits.connections {
        tracing::warn!(
            "`limits.connections` is {}, and the limit of {} open files allows {allowed} connections, which applies; \
             raise the limit to {} (`LimitNOFILE` of systemd, `ulimit -n`), or lower the key",
            limits.connections,
            limit.unwrap_or_default(),
            descriptors::needed(limits.connections, gateway.threads)
        );
        limits.connections = allowed;
    }
    idle
}

fn runtime(name: &str, threads: usize) -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build()
}

/// Threads in addition to those for requests: records, hashing and the disk.
const SPARE_THREADS: usize = 8;

/// Finds configured files whose directory does not exist.
fn check_places(config: &Config) -> Vec<ServeError> {
    let places = [("records.file", &config.records.file), ("gateway.pid_file", &config.gateway.pid_file)];
    let faults = places.into_iter().filter_map(|(key, path)| {
        let path = path.as_ref()?;
        let problem = match (directory_of(path).is_dir(), path.is_dir()) {
            (false, _) => "its directory does not exist; create the directory, or name another",
            (true, true) => "this is a directory itself; name a file, in it or elsewhere",
            (true, false) => return None,
        };
        Some(ServeError::Place { file: config.file.clone(), path: path.clone(), key, problem })
    });
    faults.collect()
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Reads and parses the policy file of the configuration.
///
/// # Errors
/// The file cannot be read or is refused; the text names it.
pub fn load_policy(config: &Config) -> Result<PolicySet, ServeError> {
    let path = &config.policy.roles;
    read_policy(path).map_err(|fault| ServeError::of_policy(path, &fault))
}

/// The same, with all faults up to a bound.
fn examine_policy(config: &Config) -> Result<PolicySet, Vec<ServeError>> {
    let path = &config.policy.roles;
    let located = |faults: Vec<ReloadError>| faults.iter().map(|fault| ServeError::of_policy(path, fault)).collect();
    reload::examine_policy(path, MOST_POLICY_FAULTS).map_err(located)
}

/// Most faults of a policy file that are reported.
const MOST_POLICY_FAULTS: usize = 20;
