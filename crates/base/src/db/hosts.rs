//! The hosts that `store.uri` names, and the order in which their addresses are tried.
//!
//! The one rule: a silent host costs its own time and no other host's. So each address is a separate connection
//! attempt, a silent address is tried after all others, and the host that was used last is tried first.
//!
//! `route` calls it. It knows nothing of what a server answers.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::net::lookup_host;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, TargetSessionAttrs};

use super::DbError;

/// The port of a host without one.
const PORT: u16 = 5432;

/// The hosts of a connection string.
pub(super) struct ServerHosts {
    hosts: Vec<ServerHost>,
    order: Mutex<HostOrder>,
}

/// One host as the connection string names it.
struct ServerHost {
    /// The name, which its certificate must also have.
    host: Option<Host>,
    /// Its address, if given apart from the name.
    address: Option<IpAddr>,
    port: u16,
}

/// The results of earlier attempts.
#[derive(Default)]
struct HostOrder {
    /// The host that was used last.
    used: Option<usize>,
    /// The addresses that did not answer.
    silent: HashSet<HostAddress>,
}

/// One address of one host; none for a Unix socket, or for a name without an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostAddress {
    host: usize,
    address: Option<IpAddr>,
}

impl ServerHosts {
    /// Reads the hosts of a connection string.
    ///
    /// # Errors
    /// [`DbError::Settings`] if it names no host, or the number of addresses or ports does not match.
    pub(super) fn of(config: &Config) -> Result<Self, DbError> {
        let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
        let count = hosts.len().max(addresses.len());
        let problem = match count {
            0 => "names no host; write it as postgres://user@host/database",
            _ if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() => {
                "must name as many addresses (`hostaddr`) as hosts, or none"
            }
            _ if ports.len() > 1 && ports.len() != count => "must name one port for all hosts, or one for each",
            _ => {
                let host = |number: usize| ServerHost {
                    host: hosts.get(number).cloned(),
                    address: addresses.get(number).copied(),
                    port: ports.get(number).or(ports.first()).copied().unwrap_or(PORT),
                };
                return Ok(Self { hosts: (0..count).map(host).collect(), order: Mutex::default() });
            }
        };
        Err(DbError::Settings { key: "uri", problem: problem.to_owned() })
    }

    /// Whether there is more than one host.
    pub(super) fn are_several(&self) -> bool {
        self.hosts.len() > 1
    }

    /// The numbers of the hosts, in the order in which to try them.
    pub(super) fn in_order(&self) -> Vec<usize> {
        let order = self.order();
        let mut hosts: Vec<usize> = (0..self.hosts.len()).collect();
        hosts.sort_by_key(|number| match order.used == Some(*number) {
            true => 0,
            false if order.silent.iter().any(|silent| silent.host == *number) => 2,
            false => 1,
        });
        hosts
    }

    /// The addresses of a host, looked up, in the order in which to try them.
    ///
    /// # Errors
    /// Its name has no address.
    pub(super) async fn addresses(&self, number: usize) -> Result<Vec<HostAddress>, std::io::Error> {
        let at = |address| HostAddress { host: number, address };
        let mut addresses = match self.hosts.get(number) {
            Some(ServerHost { host: Some(Host::Tcp(name)), address: None, port }) => {
                lookup_host((name.as_str(), *port)).await?.map(|found| at(Some(found.ip()))).collect()
            }
            Some(ServerHost { address, .. }) => vec![at(*address)],
            None => vec![],
        };
        let order = self.order();
        addresses.sort_by_key(|address| order.silent.contains(address));
        Ok(addresses)
    }

    /// The settings for a single address.
    pub(super) fn only(&self, settings: &Config, to: HostAddress) -> Config {
        let mut only = without_hosts(settings);
        if let Some(ServerHost { host, port, .. }) = self.hosts.get(to.host) {
            only.port(*port);
            match host {
                Some(Host::Tcp(name)) => _ = only.host(name),
                Some(Host::Unix(directory)) => _ = only.host_path(directory),
                None => {}
            }
        }
        if let Some(address) = to.address {
            only.hostaddr(address);
        }
        only
    }

    /// Records that a host's server is used; it is tried first from now on.
    pub(super) fn used(&self, at: HostAddress) {
        self.order().used = Some(at.host);
    }

    /// Records that a server answered there, whatever its answer.
    pub(super) fn answered(&self, at: HostAddress) {
        self.order().silent.remove(&at);
    }

    /// Records that nothing answered there in time; it is tried last from now on.
    pub(super) fn silent(&self, at: HostAddress) {
        let mut order = self.order();
        order.used.take_if(|used| *used == at.host);
        // A name that keeps changing its addresses leaves old ones behind.
        order.silent.retain(|silent| silent.host != at.host || silent.address.is_none() == at.address.is_none());
        order.silent.insert(at);
    }

    /// Records that the name of a host was not looked up in time.
    pub(super) fn lookup_was_silent(&self, number: usize) {
        self.silent(HostAddress { host: number, address: None });
    }

    /// A host as the operator knows it.
    pub(super) fn name(&self, number: usize) -> impl fmt::Display {
        match self.hosts.get(number) {
            Some(ServerHost { host: Some(Host::Tcp(name)), port, .. }) => format!("{name}:{port}"),
            Some(ServerHost { host: Some(Host::Unix(directory)), port, .. }) => {
                // The socket's name in PostgreSQL's `unix_socket_directories`.
                format!("{}/.s.PGSQL.{port}", directory.display())
            }
            Some(ServerHost { host: None, address: Some(address), port }) => format!("{address}:{port}"),
            Some(ServerHost { host: None, address: None, .. }) | None => "the server".to_owned(),
        }
    }

    fn order(&self) -> MutexGuard<'_, HostOrder> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same settings without the hosts, and without what `route` checks itself.
fn without_hosts(settings: &Config) -> Config {
    let mut bare = Config::new();
    if let Some(user) = settings.get_user() {
        bare.user(user);
    }
    if let Some(password) = settings.get_password() {
        bare.password(password);
    }
    if let Some(database) = settings.get_dbname() {
        bare.dbname(database);
    }
    if let Some(options) = settings.get_options() {
        bare.options(options);
    }
    if let Some(name) = settings.get_application_name() {
        bare.application_name(name);
    }
    if let Some(timeout) = settings.get_connect_timeout() {
        bare.connect_timeout(*timeout);
    }
    if let Some(timeout) = settings.get_tcp_user_timeout() {
        bare.tcp_user_timeout(*timeout);
    }
    if let Some(interval) = settings.get_keepalives_interval() {
        bare.keepalives_interval(interval);
    }
    if let Some(retries) = settings.get_keepalives_retries() {
        bare.keepalives_retries(retries);
    }
    bare.keepalives(settings.get_keepalives()).keepalives_idle(settings.get_keepalives_idle());
    bare.ssl_mode(settings.get_ssl_mode()).ssl_negotiation(settings.get_ssl_negotiation());
    bare.channel_binding(settings.get_channel_binding()).target_session_attrs(TargetSessionAttrs::Any);
    bare
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(uri: &str) -> ServerHosts {
        ServerHosts::of(&uri.parse().unwrap()).unwrap()
    }

    #[test]
    fn what_did_not_answer_is_asked_last_and_what_was_used_first() {
        let hosts = list("host=/a,/b,/c user=u");
        let at = |host| HostAddress { host, address: None };
        assert_eq!(hosts.in_order(), [0, 1, 2]);
        hosts.silent(at(0));
        assert_eq!(hosts.in_order(), [1, 2, 0]);
        hosts.used(at(2));
        assert_eq!(hosts.in_order(), [2, 1, 0]);
        hosts.silent(at(2));
        assert_eq!(hosts.in_order(), [1, 0, 2]);
        hosts.answered(at(0));
        assert_eq!(hosts.in_order(), [0, 1, 2], "a server that answers has its place again");
    }

    #[tokio::test]
    async fn each_address_is_an_attempt_of_its_own_with_the_settings_of_all() {
        let uri = "postgres://user:word@127.0.0.1:5433,localhost:5434/federation?sslmode=require&connect_timeout=3\
                   &keepalives_idle=7&options=-c%20statement_timeout%3D5&target_session_attrs=read-write";
        let settings: Config = uri.parse().unwrap();
        let hosts = ServerHosts::of(&settings).unwrap();
        let [first] = *hosts.addresses(0).await.unwrap() else { panic!("one address") };
        let only = hosts.only(&settings, first);
        assert_eq!(only.get_hosts(), [Host::Tcp("127.0.0.1".into())]);
        assert_eq!((only.get_hostaddrs(), only.get_ports()), (&["127.0.0.1".parse().unwrap()][..], &[5433][..]));
        // Everything else must be unchanged, compared by the settings' own `Debug` text.
        let rest = |config: &Config| format!("{:?}", without_hosts(config));
        assert_eq!(rest(&only), rest(&settings));
        assert_eq!((only.get_user(), only.get_dbname()), (Some("user"), Some("federation")));
        assert_eq!(only.get_password(), Some(&b"word"[..]));
        assert_eq!(only.get_options(), Some("-c statement_timeout=5"));
        assert_eq!(only.get_connect_timeout(), Some(&std::time::Duration::from_secs(3)));
        assert_eq!(only.get_keepalives_idle(), std::time::Duration::from_secs(7));
        assert_eq!(only.get_ssl_mode(), settings.get_ssl_mode());
        let named = hosts.addresses(1).await.unwrap();
        assert!(named.iter().all(|address| address.address.is_some_and(|address| address.is_loopback())), "{named:?}");
        assert_eq!(hosts.name(1).to_string(), "localhost:5434");
    }

    #[test]
    fn a_string_without_a_host_or_with_another_count_of_ports_is_refused() {
        for (uri, problem) in [
            ("user=u dbname=d", "names no host"),
            ("host=a,b,c port=1,2 user=u", "one port for all hosts"),
            ("host=a,b hostaddr=127.0.0.1 user=u", "as many addresses"),
        ] {
            let error = ServerHosts::of(&uri.parse().unwrap()).err().unwrap().to_string();
            assert!(error.contains("`store.uri`") && error.contains(problem), "{uri}: {error}");
        }
    }
}
