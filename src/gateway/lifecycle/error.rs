//! Errors of a gateway that cannot start or could not finish.

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

/// Why the gateway cannot serve; the text names the file or address, and the remedy if there is one.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The policy file is missing or refused.
    #[error("{path}: {problem}")]
    Policy {
        /// The file.
        path: String,
        /// The fault.
        problem: String,
    },
    /// A route cannot be used.
    #[error("{}: {fault}", .file.display())]
    Route {
        /// The configuration.
        file: PathBuf,
        /// Why.
        fault: RouteError,
    },
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A file that TLS with an upstream needs cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The key that signs assertions cannot be used.
    #[error("{}: {fault}", .file.display())]
    Assertion {
        /// The configuration.
        file: PathBuf,
        /// Why.
        fault: AssertionKeyError,
    },
    /// The accounts cannot be opened, in words for the operator.
    #[error("{text}")]
    Accounts {
        /// The text for the operator.
        text: String,
        /// Whether changing a setting would mend it. A lock or a full disk may be gone at the next
        /// start.
        is_of_settings: bool,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; {}", remedy(*address, key, source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The configuration key that names it.
        key: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// The process id file cannot be written.
    #[error(
        "{}: {source}; `gateway.pid_file` must name a file in a directory that this user may write",
        .path.as_deref().unwrap_or(Path::new("")).display()
    )]
    PidFile {
        /// The file.
        path: Option<PathBuf>,
        /// The cause.
        source: std::io::Error,
    },
    /// Another gateway holds the process id file.
    #[error("{}: the gateway of process {process} runs and holds this file; stop it, let it hand over with `fedgate \
             upgrade`, or give each gateway a `gateway.pid_file` of its own", .path.display())]
    Runs {
        /// The file.
        path: PathBuf,
        /// The process, as the file names it.
        process: String,
    },
    /// The directory of a file that serving creates is missing.
    #[error("{}: `{key}` names {}: {problem}", .file.display(), .path.display())]
    Place {
        /// The configuration.
        file: PathBuf,
        /// The file.
        path: PathBuf,
        /// The configuration key that names it.
        key: &'static str,
        /// The fault and the remedy.
        problem: &'static str,
    },
    /// The gateway has served, and its last records could not be written.
    #[error(
        "{}: {count} records could not be written before the end, and are lost{}",
        .file.as_deref().unwrap_or(Path::new("stdout")).display(),
        .fault.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default()
    )]
    RecordsLost {
        /// Their file; stdout if there is none.
        file: Option<PathBuf>,
        /// Their number.
        count: usize,
        /// The cause.
        fault: Option<String>,
    },
    /// The operating system refused something else.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// The remedy for an address that cannot be listened on.
fn remedy(address: SocketAddr, key: &str, error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => ports::remedy(address.port(), key),
        ErrorKind::AddrNotAvailable => format!("this machine does not have that address; change `{key}`"),
        _ => format!("stop the program that listens there, or change `{key}`"),
    }
}

impl ServeError {
    /// Whether another start with the same configuration meets the same fault.
    pub fn is_of_settings(&self) -> bool {
        !matches!(self, Self::Accounts { is_of_settings: false, .. } | Self::System(_) | Self::RecordsLost { .. })
    }

    /// Why a policy cannot be used.
    pub(crate) fn of_policy(path: &Path, fault: &ReloadError) -> Self {
        let remedy = match fault {
            ReloadError::Unreadable(_) => "; `policy.roles` must name a roles.cfg",
            ReloadError::Unsettled | ReloadError::Policy(_) => "",
        };
        Self::Policy { path: path.display().to_string(), problem: format!("{fault}{remedy}") }
    }

    /// The error of a process id file that cannot be had.
    pub(crate) fn of_pid_file(path: Option<&Path>, error: PidFileError) -> Self {
        let path = path.map(Path::to_owned);
        match error {
            PidFileError::Held(process) => Self::Runs { path: path.unwrap_or_default(), process },
            PidFileError::System(source) => Self::PidFile { path, source },
        }
    }
}
