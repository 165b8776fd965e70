//! The listening sockets: taken over from a predecessor or opened, and handed to those that accept.
//!
//! The one rule: whatever can fail comes before the first connection is accepted.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::error::ServeError;
use super::handover::{InheritedSockets, bind};
use crate::gateway::edge::door::ShutdownCourse;
use crate::gateway::edge::listen::ConnectionAcceptor;
use fedgate_base::config::GatewayConfig;

/// Who accepts on each kind of listener.
pub(crate) struct ConnectionAcceptors {
    pub(crate) tls: ConnectionAcceptor,
    pub(crate) plain: ConnectionAcceptor,
    pub(crate) redirect: ConnectionAcceptor,
    pub(crate) admin: ConnectionAcceptor,
}

impl ConnectionAcceptors {
    /// Makes the sockets ready to accept from.
    ///
    /// # Errors
    /// One cannot be used.
    pub(crate) fn ready(self, listeners: ListeningSockets) -> io::Result<ReadyEntrances> {
        let kinds = [
            (self.tls, listeners.tls),
            (self.plain, listeners.plain),
            (self.redirect, listeners.redirect),
            (self.admin, listeners.admin),
        ];
        let mut ready = vec![];
        for (entrance, listeners) in kinds {
            for listener in listeners {
                listener.set_nonblocking(true)?;
                ready.push((entrance.clone(), tokio::net::TcpListener::from_std(listener)?));
            }
        }
        Ok(ReadyEntrances(ready))
    }
}

/// What accepts as soon as it may; nothing of it can fail any more.
pub(crate) struct ReadyEntrances(Vec<(ConnectionAcceptor, tokio::net::TcpListener)>);

impl ReadyEntrances {
    /// Accepts from now on.
    pub(crate) fn accept(self, course: &ShutdownCourse) {
        for (entrance, listener) in self.0 {
            tokio::spawn(entrance.accept(listener, course.clone()));
        }
    }
}

/// The listening sockets, by what they are for.
pub(crate) struct ListeningSockets {
    tls: Vec<TcpListener>,
    plain: Vec<TcpListener>,
    redirect: Vec<TcpListener>,
    admin: Vec<TcpListener>,
}

impl ListeningSockets {
    /// Takes over what a predecessor had open, and opens the rest.
    ///
    /// # Errors
    /// An address is taken, or not one of this machine.
    pub(crate) fn open(gateway: &GatewayConfig, inherited: &mut InheritedSockets) -> Result<Self, ServeError> {
        let mut opened = [const { vec![] }; 4];
        for ((addresses, key, what), opened) in kinds(gateway).into_iter().zip(&mut opened) {
            for address in addresses {
                let listener = inherited.open(*address);
                opened.push(listener.map_err(|source| ServeError::Listen { address: *address, key, source })?);
                tracing::info!("listening on {address}{what}");
            }
        }
        let [tls, plain, redirect, admin] = opened;
        Ok(Self { tls, plain, redirect, admin })
    }

    /// Sees whether each address could be listened on, and leaves it; tells which could not, and why.
    pub(crate) fn try_out(gateway: &GatewayConfig) -> Vec<(SocketAddr, &'static str, io::Error)> {
        let all =
            kinds(gateway).into_iter().flat_map(|(addresses, key, _)| addresses.iter().map(move |one| (*one, key)));
        all.filter_map(|(address, key)| Some((address, key, bind(address).err()?))).collect()
    }

    /// All of them once more, to be handed on.
    pub(crate) fn duplicates(&self) -> io::Result<Vec<TcpListener>> {
        let all = [&self.tls, &self.plain, &self.redirect, &self.admin];
        all.into_iter().flatten().map(TcpListener::try_clone).collect()
    }
}

/// Where to listen, with the key that says so and what it is for.
fn kinds(gateway: &GatewayConfig) -> [(&[SocketAddr], &'static str, &'static str); 4] {
    [
        (&gateway.listen, "gateway.listen", ", https"),
        (&gateway.listen_plain, "gateway.listen_plain", ", http, without TLS"),
        (&gateway.redirect, "gateway.redirect", ", http, which leads to https"),
        (&gateway.admin, "gateway.admin", ", http, for the operator: /livez /readyz /metrics /version"),
    ]
}
