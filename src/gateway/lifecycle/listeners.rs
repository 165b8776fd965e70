//! The listening sockets: inherited or opened, and handed to their acceptors.
//!
//! The one rule: everything that can fail happens before the first connection is accepted.

use std::io;
use std::net::{SocketAddr, TcpListener};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::ServeError;
use super::handover::{InheritedSockets, bind};
use crate::gateway::edge::accept::ConnectionAcceptor;
use crate::gateway::edge::connection::ShutdownCourse;
use fedgate_base::config::GatewayConfig;
use fedgate_base::descriptors::bound_unsent;
use fedgate_base::workers::RequestWorkers;

/// The acceptor of each kind of listener.
pub(crate) struct ConnectionAcceptors {
    pub(crate) tls: ConnectionAcceptor,
    pub(crate) plain: ConnectionAcceptor,
    pub(crate) redirect: ConnectionAcceptor,
    pub(crate) admin: ConnectionAcceptor,
    /// One for each listener for proxies that ask, in the order of the configuration.
    pub(crate) beside: Vec<ConnectionAcceptor>,
}

impl ConnectionAcceptors {
    /// Prepares the sockets for accepting.
    ///
    /// # Errors
    /// One cannot be used.
    pub(crate) fn ready(self, listeners: ListeningSockets) -> io::Result<ReadyAcceptors> {
        let kinds = [
            (self.tls, listeners.tls),
            (self.plain, listeners.plain),
            (self.redirect, listeners.redirect),
            (self.admin, listeners.admin),
        ];
        let beside =
            self.beside.into_iter().zip(listeners.beside).map(|(acceptor, listener)| (acceptor, vec![listener]));
        let mut ready = vec![];
        for (acceptor, listeners) in kinds.into_iter().chain(beside) {
            for listener in listeners {
                listener.set_nonblocking(true)?;
                bound_unsent(&listener);
                #[expect(deprecated, reason = "the one that replaces it is unsafe; this one owns its descriptor")]
                let listener = AsyncFd::with_interest(listener, Interest::READABLE)?;
                ready.push((acceptor.clone(), listener));
            }
        }
        Ok(ReadyAcceptors(ready))
    }
}

/// Prepared acceptors, which can no longer fail.
pub(crate) struct ReadyAcceptors(Vec<(ConnectionAcceptor, AsyncFd<TcpListener>)>);

impl ReadyAcceptors {
    /// Accepts from now on, for these threads to serve.
    pub(crate) fn accept(self, workers: &RequestWorkers, course: &ShutdownCourse) {
        for (acceptor, listener) in self.0 {
            tokio::spawn(acceptor.accept(listener, workers.clone(), course.clone()));
        }
    }
}

/// The listening sockets, by purpose.
pub(crate) struct ListeningSockets {
    tls: Vec<TcpListener>,
    plain: Vec<TcpListener>,
    redirect: Vec<TcpListener>,
    admin: Vec<TcpListener>,
    beside: Vec<TcpListener>,
}

impl ListeningSockets {
    /// Takes over the sockets of a predecessor, and opens the rest.
    ///
    /// # Errors
    /// An address is in use, or not one of this machine.
    pub(crate) fn open(gateway: &GatewayConfig, inherited: &mut InheritedSockets) -> Result<Self, ServeError> {
        let mut opened = [const { vec![] }; 5];
        for ((addresses, key, what), opened) in kinds(gateway).into_iter().zip(&mut opened) {
            for address in addresses {
                let listener = inherited.open(address);
                opened.push(listener.map_err(|source| ServeError::Listen { address, key, source })?);
                tracing::info!("listening on {address}{what}");
            }
        }
        let [tls, plain, redirect, admin, beside] = opened;
        Ok(Self { tls, plain, redirect, admin, beside })
    }

    /// Tries each address and releases it; returns those that failed, and why.
    pub(crate) fn try_out(gateway: &GatewayConfig) -> Vec<(SocketAddr, &'static str, io::Error)> {
        let all =
            kinds(gateway).into_iter().flat_map(|(addresses, key, _)| addresses.into_iter().map(move |one| (one, key)));
        all.filter_map(|(address, key)| Some((address, key, bind(address).err()?))).collect()
    }

    /// Duplicates of all sockets, for a successor.
    pub(crate) fn duplicates(&self) -> io::Result<Vec<TcpListener>> {
        let all = [&self.tls, &self.plain, &self.redirect, &self.admin, &self.beside];
        all.into_iter().flatten().map(TcpListener::try_clone).collect()
    }
}

/// The addresses, with the key that names them and their purpose for the log.
fn kinds(gateway: &GatewayConfig) -> [(Vec<SocketAddr>, &'static str, &'static str); 5] {
    [
        (gateway.listen.clone(), "gateway.listen", ", https"),
        (gateway.listen_plain.clone(), "gateway.listen_plain", ", http, without TLS"),
        (gateway.redirect.clone(), "gateway.redirect", ", http, redirects to https"),
        (gateway.admin.clone(), "gateway.admin", ", http, for the operator: /livez /readyz /metrics /version"),
        (gateway.beside.addresses(), "beside", ", for proxies that ask"),
    ]
}
