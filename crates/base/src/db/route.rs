//! The way to the server: which of the hosts answers, whether it is the primary, and which one server all sessions are with.
//!
//! The one rule: sessions of one route are with one server. Whoever watches over the database (`accounts::watch`, or
//! [`follow`](super::follow) for the HIS) names the server that is followed. A session with another server is refused as
//! it opens, and those that are open when another server is named end at that moment, whatever they are at: after a
//! switchover the old primary may go on answering, and what it says is no longer true.
//!
//! A connection stays with its server, so that it is enough to ask once, as it opens.
//!
//! Called by the pools and by who watches.

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

/// How often it is looked where new sessions lead, while nothing gives a reason to look.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long after a look the next one may follow.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// The way to the servers of one connection string; shared by all that use it together.
pub struct ServerRoute {
    settings: Config,
    tls: MakeRustlsConnect,
    hosts: ServerHosts,
    wanted: WantedServer,
    /// How long one address may take to connect and to say what it is.
    deadline: Duration,
    followed: Mutex<FollowedServer>,
    /// Counts the servers that were named; sessions of an earlier one end when it grows.
    named: watch::Sender<u64>,
    /// That there is a reason to look where new sessions lead.
    doubt: Notify,
}

/// Which servers are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedServer {
    /// One that takes writes.
    Primary,
    /// One that takes writes if there is one, or else any.
    Any,
    /// One that takes no writes.
    Standby,
}

impl WantedServer {
    /// What a connection string asks for. With several hosts and no word of it, one of them may be a standby, and the others
    /// are there for its primary.
    pub(super) fn by(uri: &str, settings: &Config) -> Self {
        match settings.get_target_session_attrs() {
            TargetSessionAttrs::ReadWrite => Self::Primary,
            TargetSessionAttrs::ReadOnly => Self::Standby,
            _ if Self::is_usual_of_several(uri, settings) => Self::Primary,
            _ => Self::Any,
        }
    }

    /// Whether it names several hosts and does not say which are wanted.
    pub(super) fn is_usual_of_several(uri: &str, settings: &Config) -> bool {
        let count = settings.get_hosts().len().max(settings.get_hostaddrs().len());
        count > 1 && !uri.contains("target_session_attrs")
    }
}

/// A server process, told from every other: the moment it started, to the microsecond. A standby keeps it when it is promoted,
/// and so do its sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerIdentity(String);

/// Whose sessions are admitted.
enum FollowedServer {
    /// Any server's: nobody watches. Every session so far is with the server that is named, if one is.
    Whichever(Option<ServerIdentity>),
    /// Any server's, and there are sessions with several.
    Mixed,
    Only(ServerIdentity),
}

/// A new session, and with whom.
pub struct ReachedServer {
    /// Asks.
    pub client: Client,
    /// Must be polled; yields notices.
    pub connection: Connection<Socket, TlsStream>,
    /// Which server it is.
    pub identity: ServerIdentity,
    /// False on a standby, and on a server that was set read-only.
    pub takes_writes: bool,
    at: HostAddress,
}

impl ReachedServer {
    /// Where it answered.
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
    /// It is none.
    #[error("the server takes writes; `target_session_attrs=read-only` asks for one that does not")]
    TakesWrites,
    /// It is not the one that is followed.
    #[error("another server answers than before")]
    Another,
}

/// What each of several hosts said, none of which will do.
#[derive(Debug, Error)]
#[error("{said}")]
pub(super) struct NoHostWillDo {
    said: String,
    /// Whether one of them answered at all.
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

    /// What encrypts sessions and cancel requests.
    pub(super) fn tls(&self) -> MakeRustlsConnect {
        self.tls.clone()
    }

    /// Opens a session for the pool.
    pub(super) async fn open(&self) -> Result<ClientWrapper, DbError> {
        // Before the server is asked: if another one is named meanwhile, this session ends as it begins.
        let mut named = self.named.subscribe();
        let ReachedServer { client, connection, identity, .. } = self.reach().await?;
        self.admit(&identity)?;
        let driver = tokio::spawn(async move {
            tokio::select! {
                // First of all: no answer is passed on after another server was named.
                biased;
                Ok(()) = named.changed() => {}
                ended = connection => if let Err(error) = ended {
                    tracing::debug!("a session of the pool has ended: {error}");
                },
            }
        });
        Ok(ClientWrapper::new(client, driver))
    }

    /// Opens a session with the first server that is wanted, whichever is followed.
    ///
    /// Each address has the same time of its own, to connect and to say what it is.
    ///
    /// # Errors
    /// [`DbError::Settings`]; or [`DbError::Unavailable`], with what each host said.
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

    /// Asks one address.
    async fn attempt(&self, at: HostAddress) -> Result<ReachedServer, DbError> {
        let settings = self.hosts.only(&self.settings, at);
        match timeout(self.deadline, introduce(&settings, self.tls.clone(), at)).await {
            Err(elapsed) => {
                self.hosts.silent(at);
                Err(DbError::Unavailable(elapsed.into()))
            }
            Ok(answer) => {
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

    /// Whether a server is used that takes writes, or takes none.
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

    /// A server that was reached there answers no longer: others are asked first.
    pub fn was_silent(&self, at: HostAddress) {
        self.hosts.silent(at);
    }

    /// What is told when no host will do: the fault of the one, or what each said.
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

    /// Lets a session pass that is with the server that is followed.
    fn admit(&self, identity: &ServerIdentity) -> Result<(), DbError> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        match &*followed {
            FollowedServer::Whichever(Some(known)) if known != identity => *followed = FollowedServer::Mixed,
            FollowedServer::Whichever(_) => *followed = FollowedServer::Whichever(Some(identity.clone())),
            FollowedServer::Only(server) if server != identity => {
                // Whether this session went astray, or new ones lead elsewhere, whoever watches finds out.
                self.doubt.notify_one();
                return Err(WrongServer::Another.into());
            }
            FollowedServer::Mixed | FollowedServer::Only(_) => {}
        }
        Ok(())
    }

    /// Names the server that is followed, and ends every session of the pools.
    pub fn follow(&self, server: &ServerIdentity) {
        self.name(server);
        // After the name: a session that began before this ends, one that begins after it is compared with the name.
        self.named.send_modify(|count| *count += 1);
    }

    /// Names the server that is followed, and ends the sessions of the pools if one of them may be with another.
    pub fn keep_to(&self, server: &ServerIdentity) {
        match self.name(server) {
            FollowedServer::Whichever(None) => {}
            FollowedServer::Whichever(Some(known)) | FollowedServer::Only(known) if known == *server => {}
            FollowedServer::Whichever(Some(_)) | FollowedServer::Mixed | FollowedServer::Only(_) => {
                self.named.send_modify(|count| *count += 1);
            }
        }
    }

    /// Names the server that is followed; tells what was so before.
    fn name(&self, server: &ServerIdentity) -> FollowedServer {
        let only = FollowedServer::Only(server.clone());
        std::mem::replace(&mut *self.followed.lock().unwrap_or_else(PoisonError::into_inner), only)
    }

    /// Keeps to the first server that answers, for a command whose questions must all be answered by one. It is asked for
    /// here, so that no later question pays for hosts that say nothing.
    ///
    /// # Errors
    /// As [`ServerRoute::reach`].
    pub async fn keep_to_the_first(&self) -> Result<(), DbError> {
        self.keep_to(&self.reach().await?.identity);
        Ok(())
    }

    /// Gives a reason to look where new sessions lead.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Waits until new sessions lead to another server than `server`: after a switchover behind a proxy or a name, which
    /// moves new connections alone. That none can be opened tells nothing.
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

/// Opens a session and asks the server what it is.
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

/// What a column of the one row says; nothing where it is not there, which is no primary.
fn said(messages: &[SimpleQueryMessage], column: usize) -> &str {
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    row.and_then(|row| row.try_get(column).ok().flatten()).unwrap_or_default()
}

/// Awaits an answer on a connection that nobody else polls.
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
                // The answer says that the connection is closed.
                None => return answer.await,
            },
        }
    }
}

/// Whether writes are taken here (`transaction_read_only` is `on` on every standby), and which server this is.
const WHO: &str = "SELECT NOT (pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean), \
                   extract(epoch FROM pg_postmaster_start_time())";

#[cfg(test)]
mod tests;
