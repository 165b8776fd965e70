//! Where the service listens, and how it stops.

use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use axum::Router;
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::oneshot;

use crate::config::Address;

/// How long a stop waits for requests in flight.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Owner and group may connect: the gateway runs in the group of the HIS.
const SOCKET_MODE: u32 = 0o660;

/// Why the service does not listen, or no longer.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The address cannot be taken.
    #[error("cannot listen on `{address}` (`his.listen`): {source}")]
    Bind {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Another service answers on the socket.
    #[error("another service is listening on `{0}` (`his.listen`); stop it first")]
    InUse(String),
    /// Accepting failed for good.
    #[error("the listener failed: {0}")]
    Accept(io::Error),
}

/// A bound address.
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Listener {
    /// Takes the address.
    ///
    /// # Errors
    /// See [`ListenError`]; a socket file that nobody listens on any more is replaced.
    pub async fn bind(address: &Address) -> Result<Self, ListenError> {
        let named = |address: String| move |source| ListenError::Bind { address, source };
        match address {
            Address::Tcp(address) => {
                TcpListener::bind(address).await.map(Self::Tcp).map_err(named(address.to_string()))
            }
            Address::Unix(path) => {
                remove_stale(path).await?;
                let bound = UnixListener::bind(path).map_err(named(path.display().to_string()))?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))
                    .map_err(named(path.display().to_string()))?;
                Ok(Self::Unix(bound))
            }
        }
    }

    /// Where it listens, as text.
    pub fn address(&self) -> String {
        let address = match self {
            Self::Tcp(listener) => listener.local_addr().map(|address| address.to_string()),
            Self::Unix(listener) => listener.local_addr().map(|address| format!("{address:?}")),
        };
        address.unwrap_or_default()
    }

    /// Serves until `stop` is ready; then requests in flight are finished, for 10 seconds at most.
    ///
    /// # Errors
    /// [`ListenError::Accept`].
    pub async fn serve(
        self,
        router: Router,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ListenError> {
        let (stopped, stopping) = oneshot::channel::<()>();
        let stop = async move {
            stop.await;
            let _ = stopped.send(());
        };
        let service = async move {
            match self {
                Self::Tcp(listener) => axum::serve(listener, router).with_graceful_shutdown(stop).await,
                Self::Unix(listener) => axum::serve(listener, router).with_graceful_shutdown(stop).await,
            }
        };
        let overtime = async move {
            match stopping.await {
                Ok(()) => tokio::time::sleep(STOP_TIMEOUT).await,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            served = service => served.map_err(ListenError::Accept),
            () = overtime => Ok(()),
        }
    }
}

/// Removes a socket file that nobody listens on; anything else in its place stays.
async fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(ListenError::InUse(path.display().to_string())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)
            .map_err(|source| ListenError::Bind { address: path.display().to_string(), source }),
        Err(source) => Err(ListenError::Bind { address: path.display().to_string(), source }),
    }
}
