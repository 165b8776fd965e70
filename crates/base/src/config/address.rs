//! Addresses of services.

use std::net::SocketAddr;
use std::path::PathBuf;

/// An address on which a service listens, or at which it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}
