//! Loads and tests everything that serving needs: the usable parts, and all faults.
//!
//! The one rule: `check` and `serve` use the same code. `serve` stops at the first fault; `check` reports it with
//! all others. A running gateway is not disturbed: a tried address is released at once.

use std::path::Path;
use std::sync::Arc;

use rustix::fs::Access;

use super::address_in_use::{self, AddressHolder, RunningVersion};
use super::listeners::ListeningSockets;
use super::pid_file::{self, PidFileError};
use super::same_configuration;
use super::startup_certificates::StartupCertificates;
use crate::accounts::AccountStore;
use crate::assertion_signer::AssertionSigner;
use crate::gateway::edge::tls::{self, CertificateFile, CertificateFinding, ServedTls};
use crate::gateway::upstream::UpstreamSet;
use crate::gateway::{RunningGateway, ServeError, examine_policy};
use crate::routes::RouteTable;
use fedgate_base::config::Config;
use fedgate_core::policy::PolicySet;

/// The outcome of loading a configuration.
pub struct GatewayInspection {
    pub(crate) config: Config,
    pub(crate) policy: Option<PolicySet>,
    pub(crate) routes: Arc<RouteTable>,
    /// None if nothing listens with TLS.
    pub(crate) tls: Option<Arc<ServedTls>>,
    pub(crate) signer: Option<AssertionSigner>,
    pub(crate) upstreams: Option<Arc<UpstreamSet>>,
    pub(crate) accounts: Option<AccountStore>,
    pub(crate) fixed: Option<Arc<StartupCertificates>>,
    faults: Vec<ServeError>,
}

/// A configured address that is in use or cannot be had.
pub struct ListenFault {
    /// The cause.
    pub error: ServeError,
    /// Whether the gateway of this configuration holds it.
    pub holder: AddressHolder,
}

impl GatewayInspection {
    /// Loads policy, routes, certificates and keys, looks up the upstreams' servers, and opens the accounts. Loads
    /// nothing of a section that has faults itself.
    pub async fn new(config: Config, is_sound: impl Fn(&str) -> bool) -> Self {
        let mut faults = crate::gateway::check_places(&config);
        let policy =
            is_sound("policy").then(|| examine_policy(&config)).and_then(|policy| all_noted(policy, &mut faults));
        let (routes, of_routes) = RouteTable::examine(&config);
        // Routes with faults are left out; all others are checked.
        if is_sound("upstream") {
            let of_file = |fault| ServeError::Route { file: config.file.clone(), fault };
            faults.extend(of_routes.into_iter().map(of_file));
        }
        let listens = !config.gateway.listen.is_empty() || config.gateway.beside.has_tls();
        let has_tls = listens && is_sound("tls");
        let tls = has_tls.then(|| ServedTls::load(&config.tls)).and_then(|tls| all_noted(tls, &mut faults));
        let signer = is_sound("assertion").then(|| AssertionSigner::from_config(&config.assertion));
        let of_file = |fault| ServeError::Assertion { file: config.file.clone(), fault };
        let signer = signer.and_then(|signer| noted(signer.map_err(of_file), &mut faults));
        let upstreams = match is_sound("upstream") {
            true => {
                all_noted(UpstreamSet::open(&config.upstreams, &config.gateway.hosts).await, &mut faults).map(Arc::new)
            }
            false => None,
        };
        let accounts = match is_sound("store") {
            true => {
                let opened = AccountStore::open(&config.store).await;
                let opened = opened.map_err(|error| ServeError::Accounts {
                    text: error.located(&config.file, &config.store),
                    is_of_settings: error.is_of_settings(),
                });
                noted(opened, &mut faults)
            }
            false => None,
        };
        let fixed = upstreams.as_ref().map(|upstreams| Arc::new(StartupCertificates::new(&config, upstreams)));
        Self { config, policy, routes: Arc::new(routes), tls, signer, upstreams, accounts, fixed, faults }
    }

    /// All faults that would stop serving, apart from those of addresses and writable files.
    pub fn take_faults(&mut self) -> Vec<ServeError> {
        std::mem::take(&mut self.faults)
    }

    /// The policy, if usable.
    pub fn policy(&self) -> Option<&PolicySet> {
        self.policy.as_ref()
    }

    /// The usable routes.
    pub fn routes(&self) -> &RouteTable {
        &self.routes
    }

    /// The accounts, if usable.
    pub fn accounts(&self) -> Option<&AccountStore> {
        self.accounts.as_ref()
    }

    /// The content of each certificate file.
    pub fn certificate_files(&self) -> Vec<CertificateFile> {
        let followed = self.tls.as_ref().map(|tls| tls.held()).unwrap_or_default();
        let fixed = self.fixed.as_ref().map(|fixed| fixed.files()).unwrap_or_default();
        followed.iter().chain(fixed).map(|file| file.report()).collect()
    }

    /// Findings about the certificate files.
    pub fn certificate_findings(&self) -> Vec<CertificateFinding> {
        let now = tls::now();
        let followed = self.tls.as_ref().map(|tls| tls.findings(now)).unwrap_or_default();
        let fixed = self.fixed.as_ref().map(|fixed| fixed.findings(now)).unwrap_or_default();
        followed.into_iter().chain(fixed).collect()
    }

    /// Each upstream's name, and its servers with their number of addresses.
    pub fn upstreams(&self) -> impl Iterator<Item = (&str, Vec<(&str, usize)>)> {
        let all = self.upstreams.iter().flat_map(|upstreams| upstreams.all());
        all.map(|upstream| (upstream.name(), upstream.servers.healthy().collect()))
    }

    /// The servers that cannot be reached now, one line each. A gateway starts without them.
    pub async fn unreachable(&self) -> Vec<String> {
        tls::install_provider();
        match &self.upstreams {
            Some(upstreams) => upstreams.unreachable().await,
            None => vec![],
        }
    }

    /// The running gateway that holds the process id file of this configuration.
    pub fn running(&self) -> Option<RunningGateway> {
        self.config.gateway.pid_file.as_deref().and_then(|path| RunningGateway::find(path).ok()?)
    }

    /// Whether a gateway listens on none of the addresses of this configuration: it is another gateway, or its
    /// addresses have changed.
    pub fn is_elsewhere(&self, running: &RunningGateway) -> bool {
        let addresses = address_in_use::all_addresses(&self.config.gateway);
        addresses.into_iter().all(|address| running.listens_on(address) == AddressHolder::Other)
    }

    /// The addresses that cannot be listened on.
    pub fn listen_faults(&self) -> Vec<ListenFault> {
        let faults = ListeningSockets::try_out(&self.config.gateway);
        let is_taken = |source: &std::io::Error| source.kind() == std::io::ErrorKind::AddrInUse;
        let running = self.running();
        // Without a file that names it, the command line of a process may do so.
        let by_process = |address| match &running {
            Some(running) => running.listens_on(address),
            None => same_configuration::holder(&self.config.file, address),
        };
        // If its files may not be inspected, it is recognized by its answer.
        let is_unseen =
            |(address, _, source): &(_, _, _)| is_taken(source) && by_process(*address) != AddressHolder::Process;
        let version = if faults.iter().any(is_unseen) { RunningVersion::ask(&self.config) } else { None };
        let pid = running.as_ref().map(RunningGateway::pid);
        let own = address_in_use::digest(&self.config);
        let by_answer = |address| version.as_ref().and_then(|version| version.holder(&own, pid, address));
        let faults = faults.into_iter().map(|(address, key, source)| {
            let holder = match is_taken(&source) {
                false => AddressHolder::Other,
                true => by_answer(address).unwrap_or_else(|| by_process(address)),
            };
            ListenFault { error: ServeError::Listen { address, key, source }, holder }
        });
        faults.collect()
    }

    /// Files that a serving gateway writes and could not, each with whether it would stop at that.
    pub fn write_faults(&self) -> Vec<(String, bool)> {
        let mut faults = vec![];
        if let Some(path) = self.config.gateway.pid_file.as_deref().filter(|path| has_directory(path)) {
            // A running gateway may hold it: an upgrade takes it over.
            let held = match pid_file::is_free(path) {
                Ok(()) | Err(PidFileError::Held(_)) => Ok(()),
                Err(PidFileError::System(error)) => Err(error),
            };
            if let Err(error) = held.and_then(|()| RunningGateway::may_be_followed(path)) {
                let error = PidFileError::System(error);
                faults.push((ServeError::of_pid_file(Some(path), error).to_string(), true));
            }
        }
        if let Some(directory) = &self.config.policy.history
            && !may_write(directory)
        {
            let text = format!(
                "{}: this user may not write there, and policies are not kept for replay (`policy.history`)",
                directory.display()
            );
            faults.push((text, false));
        }
        faults
    }
}

fn noted<T, E: Into<ServeError>>(found: Result<T, E>, faults: &mut Vec<ServeError>) -> Option<T> {
    found.map_err(|fault| faults.push(fault.into())).ok()
}

fn all_noted<T, E: Into<ServeError>>(found: Result<T, Vec<E>>, faults: &mut Vec<ServeError>) -> Option<T> {
    found.map_err(|all| faults.extend(all.into_iter().map(Into::into))).ok()
}

fn has_directory(path: &Path) -> bool {
    crate::gateway::directory_of(path).is_dir()
}

/// Whether this user may write in a directory, or make it.
fn may_write(directory: &Path) -> bool {
    let nearest = directory.ancestors().find(|path| path.exists());
    let nearest = nearest.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    nearest.is_dir() && rustix::fs::access(nearest, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}
