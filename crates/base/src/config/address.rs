//! Addresses of services.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a service listens or is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}
