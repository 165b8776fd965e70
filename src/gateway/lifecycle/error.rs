//! Why a gateway does not come up.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::pid_file::PidFileError;
use crate::gateway::edge::tls::TlsError;
use crate::gateway::upstream::TrustError;
use crate::reload::ReloadError;
use crate::routes::RouteError;
use fedgate_base::ports;
use fedgate_core::assertion::AssertionKeyError;

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
    /// What TLS with an upstream needs cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The key that signs assertions cannot be used.
    #[error(transparent)]
    Assertion(#[from] AssertionKeyError),
    /// The accounts cannot be opened, as the operator is told it.
    #[error("{0}")]
    Accounts(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; {}", remedy(*address, key, source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The configuration key that names it.
        key: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The process id cannot be written down.
    #[error("{}: {source}; `gateway.pid_file` must name a file in a directory that this user may write", .path.as_deref().unwrap_or(Path::new("")).display())]
    PidFile {
        /// The file.
        path: Option<PathBuf>,
        /// Why.
        source: std::io::Error,
    },
    /// Another gateway has the file of the process id.
    #[error("{}: the gateway of process {process} runs and holds this file; stop it, let it hand over with `fedgate upgrade`, or give each gateway a `gateway.pid_file` of its own", .path.display())]
    Runs {
        /// The file.
        path: PathBuf,
        /// The process, as the file tells.
        process: String,
    },
    /// A file that is made when serving begins has no place to be made in.
    #[error("{}: {problem}, or change `{key}`", .path.display())]
    Place {
        /// The file.
        path: PathBuf,
        /// The configuration key that names it.
        key: &'static str,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// It has served, and its last records could not be written.
    #[error("{}: {count} records could not be written before the end, and are lost{}", .file.as_deref().unwrap_or(Path::new("stdout")).display(), .fault.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default())]
    RecordsLost {
        /// Where they were to be written; stdout where there is no file.
        file: Option<PathBuf>,
        /// How many they are.
        count: usize,
        /// Why.
        fault: Option<String>,
    },
    /// The operating system refused something else.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// What to do about an address that cannot be listened on.
fn remedy(address: SocketAddr, key: &str, error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => ports::remedy(address.port(), key),
        ErrorKind::AddrNotAvailable => format!("it is no address of this machine; change `{key}`"),
        _ => format!("stop what listens there, or change `{key}`"),
    }
}

impl ServeError {
    /// Why a policy cannot be used.
    pub(crate) fn of_policy(path: &Path, fault: &ReloadError) -> Self {
        let remedy = match fault {
            ReloadError::Unreadable(_) => "; `policy.roles` must name a roles.cfg",
            ReloadError::Unsettled | ReloadError::Policy(_) => "",
        };
        Self::Policy { path: path.display().to_string(), problem: format!("{fault}{remedy}") }
    }

    /// Why there is no file of the process id.
    pub(crate) fn of_pid_file(path: Option<&Path>, error: PidFileError) -> Self {
        let path = path.map(Path::to_owned);
        match error {
            PidFileError::Held(process) => Self::Runs { path: path.unwrap_or_default(), process },
            PidFileError::System(source) => Self::PidFile { path, source },
        }
    }
}
