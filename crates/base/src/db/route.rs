//! The route to the server: which host answers, whether it is the primary, and the one server that all sessions use.
//!
//! The one rule: all sessions of one route are with one server. The watch over the database (`accounts::watch`, or
//! [`follow`](super::follow) for the HIS) names the server to follow. A session with another server is refused when it
//! opens. Open sessions end at the moment when another server is named, whatever they are doing: after a switchover
//! the old primary may keep answering, and its answers are no longer true.
//!
//! A connection stays with its server, so one question when it opens is enough.
//!
//! The pools and the watches call it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Connection, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::DbError;
pub use super::hosts::HostAddress;
use super::hosts::ServerHosts;
use super::place::UnreachedServer;

/// The transport of an encrypted session.
pub type TlsStream = <<MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect as TlsConnect<Socket>>::Stream;

/// The interval between looks at where new sessions lead, without a reason to look.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The shortest pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// The route to the servers of one connection string, shared by all that use it together.
pub struct ServerRoute {
    settings: Config,
    tls: MakeRustlsConnect,
    hosts: ServerHosts,
    wanted: WantedServer,
    /// The longest time for one address to connect and identify itself.
    deadline: Duration,
    followed: Mutex<FollowedServer>,
    /// Counts how many times a server was named. Sessions of earlier servers end when it grows.
    named: watch::Sender<u64>,
    /// Notifies of a reason to look where new sessions lead.
    doubt: Notify,
}

/// Which servers may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedServer {
    /// One that takes writes.
    Primary,
    /// One that takes writes if there is one; otherwise any.
    Any,
    /// One that takes no writes.
    Standby,
}

impl WantedServer {
    /// The kind that a connection string asks for. Several hosts without `target_session_attrs` ask for the primary:
    /// some may be standbys, and the others are there to become primary.
    pub(super) fn by(uri: &str, settings: &Config) -> Self {
        match settings.get_target_session_attrs() {
            TargetSessionAttrs::ReadWrite => Self::Primary,
            TargetSessionAttrs::ReadOnly => Self::Standby,
            _ if Self::is_usual_of_several(uri, settings) => Self::Primary,
            _ => Self::Any,
        }
    }

    /// Whether it names several hosts without saying which kind it wants.
    pub(super) fn is_usual_of_several(uri: &str, settings: &Config) -> bool {
        let count = settings.get_hosts().len().max(settings.get_hostaddrs().len());
        count > 1 && !uri.contains("target_session_attrs")
    }
}

/// Identifies a server process by the moment when it started, in microseconds. A standby keeps its identity when it is
/// promoted, and so do its sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerIdentity(String);

/// The servers whose sessions are admitted.
enum FollowedServer {
    /// Any server: there is no watch. All sessions so far are with the given server, if there is one.
    Whichever(Option<ServerIdentity>),
    /// Any server, and there are sessions with several.
    Mixed,
    Only(ServerIdentity),
}

/// A new session with its server.
pub struct ReachedServer {
    /// The client.
    pub client: Client,
    /// Must be polled; yields notices.
    pub connection: Connection<Socket, TlsStream>,
    /// The server's identity.
    pub identity: ServerIdentity,
    /// False on a standby, and on a server that was set read-only.
    pub takes_writes: bool,
    at: HostAddress,
}

impl ReachedServer {
    /// The address that answered.
    pub fn at(&self) -> HostAddress {
        self.at
    }
}

/// Why a server that answers is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WrongServer {
    /// It is a standby, or was set read-only.
    #[error("the server takes no writes: it is a standby, or was set read-only")]
    TakesNoWrites,
    /// It takes writes, but a standby is wanted.
    #[error("the server takes writes; `target_session_attrs=read-only` asks for one that does not")]
    TakesWrites,
    /// It is not the followed server.
    #[error("a different server answers")]
    Another,
}

/// The answers of several hosts, none of which is usable.
#[derive(Debug, Error)]
#[error("{said}")]
pub(super) struct NoHostWillDo {
    said: String,
    /// Whether any of them answered at all.
    pub(super) is_one_up: bool,
}

impl From<WrongServer> for DbError {
    fn from(error: WrongServer) -> Self {
        Self::Unavailable(error.into())
    }
}

impl ServerRoute {
    pub(super) fn new(
        settings: Config,
        tls: MakeRustlsConnect,
        wanted: WantedServer,
        deadline: impl FnOnce(&ServerHosts) -> Duration,
    ) -> Result<Self, DbError> {
        let hosts = ServerHosts::of(&settings)?;
        Ok(Self {
            deadline: deadline(&hosts),
            settings,
            tls,
            hosts,
            wanted,
            followed: Mutex::new(FollowedServer::Whichever(None)),
            named: watch::Sender::new(0),
            doubt: Notify::new(),
        })
    }

    /// The TLS settings of sessions and cancel requests.
    pub(super) fn tls(&self) -> MakeRustlsConnect {
        self.tls.clone()
    }

    /// Opens a session for the pool.
    pub(super) async fn open(&self) -> Result<ClientWrapper, DbError> {
        // Before the server is asked: if another server is named meanwhile, this session ends at once.
        let mut named = self.named.subscribe();
        let ReachedServer { client, connection, identity, .. } = self.reach().await?;
        self.admit(&identity)?;
        let driver = tokio::spawn(async move {
            tokio::select! {
                // The notice comes first, so that no answer is passed on after another server was named.
                biased;
                Ok(()) = named.changed() => {}
                ended = connection => if let Err(error) = ended {
                    tracing::debug!("a session of the pool has ended: {error}");
                },
            }
        });
        Ok(ClientWrapper::new(client, driver))
    }

    /// Opens a session with the first wanted server, whichever is followed.
    ///
    /// Each address has its own time to connect and identify itself.
    ///
    /// # Errors
    /// [`DbError::Settings`]; or [`DbError::Unavailable`] with the answer of each host.
    pub async fn reach(&self) -> Result<ReachedServer, DbError> {
        Box::pin(self.reach_in_order()).await
    }

    async fn reach_in_order(&self) -> Result<ReachedServer, DbError> {
        let (mut failures, mut second_best) = (Vec::new(), None);
        for number in self.hosts.in_order() {
            let addresses = match timeout(self.deadline, self.hosts.addresses(number)).await {
                Ok(Ok(addresses)) => addresses,
                Ok(Err(error)) => {
                    failures.push((number, DbError::Unavailable(error.into())));
                    continue;
                }
                Err(elapsed) => {
                    self.hosts.lookup_was_silent(number);
                    failures.push((number, DbError::Unavailable(elapsed.into())));
                    continue;
                }
            };
            for at in addresses {
                match self.attempt(at).await {
                    // A standby is used only if no host takes writes.
                    Ok(reached) if self.wanted == WantedServer::Any && !reached.takes_writes => {
                        second_best.get_or_insert((at, reached));
                    }
                    Ok(reached) => {
                        self.hosts.used(at);
                        return Ok(reached);
                    }
                    Err(error @ DbError::Settings { .. }) => return Err(error),
                    Err(error) => failures.push((number, error)),
                }
            }
        }
        match second_best {
            Some((at, reached)) => {
                self.hosts.used(at);
                Ok(reached)
            }
            None => Err(self.all_failed(failures)),
        }
    }

    /// Tries one address.
    async fn attempt(&self, at: HostAddress) -> Result<ReachedServer, DbError> {
        let settings = self.hosts.only(&self.settings, at);
        match timeout(self.deadline, introduce(&settings, self.tls.clone(), at)).await {
            Err(elapsed) => {
                self.hosts.silent(at);
                Err(DbError::Unavailable(elapsed.into()))
            }
            Ok(answer) => {
                // Any answer counts, also a refusal: only silence moves an address to the end.
                self.hosts.answered(at);
                let reached = answer.map_err(DbError::no_session)?;
                match reached.takes_writes {
                    is_wanted if self.wants(is_wanted) => Ok(reached),
                    true => Err(WrongServer::TakesWrites.into()),
                    false => Err(WrongServer::TakesNoWrites.into()),
                }
            }
        }
    }

    /// Whether a server that takes writes, or takes none, may be used.
    pub fn wants(&self, takes_writes: bool) -> bool {
        match self.wanted {
            WantedServer::Primary => takes_writes,
            WantedServer::Any => true,
            WantedServer::Standby => !takes_writes,
        }
    }

    /// Whether the server of a session takes writes now.
    ///
    /// # Errors
    /// It did not answer.
    pub async fn takes_writes(client: &Client) -> Result<bool, DbError> {
        Ok(said(&client.simple_query(WHO).await?, 0) == "t")
    }

    /// Records that a server no longer answers at this address; others are tried first.
    pub fn was_silent(&self, at: HostAddress) {
        self.hosts.silent(at);
    }

    /// The error when no host is usable: the fault of the only one, or the answer of each.
    fn all_failed(&self, mut failures: Vec<(usize, DbError)>) -> DbError {
        let are_alike = |wrong: WrongServer| failures.iter().all(|(_, error)| error.wrong_server() == Some(wrong));
        match failures.len() {
            0 => DbError::Unavailable("the host of `store.uri` has no address".into()),
            1 => {
                let (number, error) = failures.remove(0);
                UnreachedServer::at(self.hosts.name(number), error)
            }
            _ if are_alike(WrongServer::TakesNoWrites) => WrongServer::TakesNoWrites.into(),
            _ => {
                let said = failures
                    .iter()
                    .map(|(number, error)| format!("`{}`: {}", self.hosts.name(*number), error.in_short()));
                let said = said.collect::<Vec<_>>().join("; ");
                DbError::Unavailable(Box::new(NoHostWillDo {
                    said,
                    is_one_up: failures.iter().any(|(_, error)| error.is_answer()),
                }))
            }
        }
    }

    /// Admits a session if it is with the followed server.
    fn admit(&self, identity: &ServerIdentity) -> Result<(), DbError> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        match &*followed {
            // Admitted anyway: without a watch it is unknown which of them is the primary. The first watch ends these
            // sessions.
            FollowedServer::Whichever(Some(known)) if known != identity => *followed = FollowedServer::Mixed,
            FollowedServer::Whichever(_) => *followed = FollowedServer::Whichever(Some(identity.clone())),
            FollowedServer::Only(server) if server != identity => {
                // The watch finds out whether this session went astray or new sessions lead elsewhere.
                self.doubt.notify_one();
                return Err(WrongServer::Another.into());
            }
            FollowedServer::Mixed | FollowedServer::Only(_) => {}
        }
        Ok(())
    }

    /// Whether sessions with this server may go on: no watch has named another one.
    pub fn admits(&self, identity: &ServerIdentity) -> bool {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        !matches!(&*followed, FollowedServer::Only(server) if server != identity)
    }

    /// Names the server to follow, and ends every session of the pools.
    pub fn follow(&self, server: &ServerIdentity) {
        self.name(server);
        // After naming it: a session that opened before this ends, and one that opens later is compared with the name.
        self.named.send_modify(|count| *count += 1);
    }

    /// Names the server to follow, and ends the pools' sessions if one of them may be with another server.
    pub fn keep_to(&self, server: &ServerIdentity) {
        match self.name(server) {
            FollowedServer::Whichever(None) => {}
            FollowedServer::Whichever(Some(known)) | FollowedServer::Only(known) if known == *server => {}
            FollowedServer::Whichever(Some(_)) | FollowedServer::Mixed | FollowedServer::Only(_) => {
                self.named.send_modify(|count| *count += 1);
            }
        }
    }

    /// Ends every session of the pools, whatever it is doing.
    pub(super) fn end_sessions(&self) {
        self.named.send_modify(|count| *count += 1);
    }

    /// Names the server to follow, and returns the previous state.
    fn name(&self, server: &ServerIdentity) -> FollowedServer {
        let only = FollowedServer::Only(server.clone());
        std::mem::replace(&mut *self.followed.lock().unwrap_or_else(PoisonError::into_inner), only)
    }

    /// Keeps to the first server that answers, for a command that needs all its answers from one server. Connecting
    /// here saves later questions the time for silent hosts.
    ///
    /// # Errors
    /// As [`ServerRoute::reach`].
    pub async fn keep_to_the_first(&self) -> Result<(), DbError> {
        self.keep_to(&self.reach().await?.identity);
        Ok(())
    }

    /// Reports a reason to look where new sessions lead.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Waits until new sessions lead to another server than `server`, after a switchover behind a proxy or a name that
    /// moves only new connections. If no session can be opened, that says nothing.
    pub async fn leads_elsewhere(&self, server: &ServerIdentity) {
        loop {
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = self.doubt.notified() => {}
            }
            if self.reach().await.is_ok_and(|reached| reached.identity != *server) {
                return;
            }
            sleep(LOOK_PAUSE).await;
        }
    }
}

/// Opens a session and asks the server for its identity.
async fn introduce(
    settings: &Config,
    tls: MakeRustlsConnect,
    at: HostAddress,
) -> Result<ReachedServer, tokio_postgres::Error> {
    let (client, mut connection) = settings.connect(tls).await?;
    let messages = driven(&mut connection, client.simple_query(WHO)).await?;
    let (takes_writes, identity) = (said(&messages, 0) == "t", ServerIdentity(said(&messages, 1).to_owned()));
    Ok(ReachedServer { client, connection, identity, takes_writes, at })
}

/// A column of the only row; empty if it is missing, which counts as no primary.
fn said(messages: &[SimpleQueryMessage], column: usize) -> &str {
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    row.and_then(|row| row.try_get(column).ok().flatten()).unwrap_or_default()
}

/// Awaits an answer on a connection that nothing else polls.
async fn driven<T>(
    connection: &mut Connection<Socket, TlsStream>,
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, tokio_postgres::Error> {
    let mut answer = pin!(answer);
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            message = poll_fn(|context| connection.poll_message(context)) => match message {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                // The answer reports that the connection is closed.
                None => return answer.await,
            },
        }
    }
}

/// Whether writes are taken (`transaction_read_only` is `on` on every standby), and the server's identity.
const WHO: &str = "SELECT NOT (pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean), \
                   extract(epoch FROM pg_postmaster_start_time())";

#[cfg(test)]
mod tests;
