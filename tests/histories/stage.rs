//! The hub of a history: a database, two processes of fedhis on it, and a third instance in this process.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use fedgate_base::config::{Address, PostgresConfig, StoreConfig};
use fedgate_base::db::Database;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use super::log::HistoryClock;
use crate::support::client::{self, Reply};
use crate::support::postgres::Cluster;
use crate::support::{His, Scratch, write_private};

/// How long anything of a history may take before the history counts as stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The same where messages may wait for ever.
const PATIENCE_OF_SPOILED: Duration = Duration::from_secs(1);
/// The processes on the store, beside the instance in this process.
pub(crate) const PROCESSES: usize = 2;

/// The servers of a history.
pub(crate) enum Servers<'a> {
    Sqlite,
    /// One cluster, which may be killed and started again.
    Single(&'a Cluster),
    /// A primary and the synchronous standby that may replace it.
    Pair(&'a Cluster, &'a Cluster),
    /// A cluster that is left alone and a schema that is changed by a statement, with no process beside.
    Spoiled(&'a Cluster, &'a str),
}

pub(crate) struct Stage {
    pub(crate) clock: HistoryClock,
    pub(crate) his: His,
    processes: Vec<Process>,
    /// How long the end of the history is waited for.
    patience: Duration,
}

/// A process of fedhis.
struct Process {
    scratch: Scratch,
    child: Mutex<Child>,
}

impl Process {
    fn start(store: &str) -> Self {
        let scratch = Scratch::new();
        write_private(&scratch.0.join("assertion.key"), "a secret of thirty-two bytes ....");
        let text = format!(
            "[store]\n{store}\n[assertion]\nsecret_file = \"assertion.key\"\n[his]\nlisten = \"unix:{}\"\n",
            scratch.0.join("his.sock").display()
        );
        std::fs::write(scratch.0.join("fedgate.toml"), text).unwrap();
        let child = Mutex::new(serve(&scratch));
        Self { scratch, child }
    }

    fn socket(&self) -> PathBuf {
        self.scratch.0.join("his.sock")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child.lock().unwrap()), signal).unwrap();
    }
}

fn serve(scratch: &Scratch) -> Child {
    let mut command = Command::new(crate::support::programs::fedhis());
    command.args(["serve", "--config"]).arg(scratch.0.join("fedgate.toml"));
    let log = std::fs::File::options().create(true).append(true).open(scratch.0.join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        let _ = child.kill();
        let _ = child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.scratch.0.join("log")).unwrap_or_default();
            eprintln!("{}", log.lines().rev().take(20).collect::<Vec<_>>().join("\n"));
        }
    }
}

impl Stage {
    pub(crate) async fn set(servers: &Servers<'_>) -> Self {
        let his = match servers {
            Servers::Sqlite => His::on_sqlite().await,
            Servers::Single(cluster) | Servers::Spoiled(cluster, _) => His::on(cluster.database().await).await,
            Servers::Pair(primary, standby) => {
                let database = primary.database().await;
                // The standby has the new database once it has followed.
                let name = database.uri.split("dbname=").nth(1).unwrap();
                let uri = database.uri.replace(&format!("dbname={name}"), "dbname=postgres");
                standby.follow(&PostgresConfig { uri, ..database.clone() }).await;
                His::on(Cluster::on_all([primary, standby], &database)).await
            }
        };
        let store = match &his.config {
            StoreConfig::Sqlite(sqlite) => format!("kind = \"sqlite\"\npath = \"{}\"", sqlite.path.display()),
            StoreConfig::Postgres(postgres) => format!("kind = \"postgres\"\nuri = \"{}\"", postgres.uri),
        };
        let (count, patience) = match servers {
            Servers::Spoiled(_, sql) => {
                his.sql(sql).await;
                (0, PATIENCE_OF_SPOILED)
            }
            Servers::Sqlite | Servers::Single(_) | Servers::Pair(..) => (PROCESSES, PATIENCE),
        };
        let processes = (0..count).map(|_| Process::start(&store)).collect();
        let stage = Self { clock: HistoryClock::start(), his, processes, patience };
        for instance in 0..count {
            stage.listens(instance).await;
        }
        stage
    }

    /// How many instances there are, that of this process included.
    pub(crate) fn instances(&self) -> usize {
        self.processes.len() + 1
    }

    async fn listens(&self, process: usize) {
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(self.processes[process].socket()).await.is_err() {
            assert!(Instant::now() < deadline, "an instance does not listen");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// As `kill -9` does.
    pub(crate) async fn kill(&self, process: usize, away: Duration) {
        let process_killed = &self.processes[process];
        process_killed.signal(Signal::KILL);
        process_killed.child.lock().unwrap().wait().unwrap();
        sleep(away).await;
        let _ = std::fs::remove_file(process_killed.socket());
        *process_killed.child.lock().unwrap() = serve(&process_killed.scratch);
        self.listens(process).await;
    }

    /// Suspends a process for a while.
    pub(crate) async fn suspend(&self, process: usize, pause: Duration) {
        self.processes[process].signal(Signal::STOP);
        sleep(pause).await;
        self.processes[process].signal(Signal::CONT);
    }

    fn address(&self, instance: usize) -> Address {
        match self.processes.get(instance) {
            Some(process) => Address::Unix(process.socket()),
            None => self.his.address.clone(),
        }
    }

    /// Sends a request to an instance.
    pub(crate) async fn ask(&self, instance: usize, head: &str, body: &[u8]) -> Exchange {
        let Some(mut stream) = self.connect(instance).await else { return Exchange::NotSent };
        let mut answer = vec![];
        let exchanged = timeout(PATIENCE, async {
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body).await?;
            stream.read_to_end(&mut answer).await
        });
        let _ = exchanged.await;
        // Half an answer tells its status, too.
        match answer.windows(4).any(|four| four == b"\r\n\r\n") {
            true => Exchange::Answered(client::parse(&answer, false)),
            false => Exchange::Lost,
        }
    }

    /// A connection to an instance, if it listens.
    pub(crate) async fn connect(&self, instance: usize) -> Option<Box<dyn Wire>> {
        match self.address(instance) {
            Address::Tcp(address) => Some(Box::new(TcpStream::connect(address).await.ok()?)),
            Address::Unix(path) => Some(Box::new(UnixStream::connect(path).await.ok()?)),
        }
    }

    /// A session beside the service, if the server answers.
    pub(crate) async fn session(&self) -> Option<tokio_postgres::Client> {
        let StoreConfig::Postgres(PostgresConfig { uri, .. }) = &self.his.config else { return None };
        let uri = format!("{uri} target_session_attrs=read-write connect_timeout=5");
        let (session, connection) = tokio_postgres::connect(&uri, tokio_postgres::NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(session)
    }

    /// A connection beside the service.
    pub(crate) fn connection(&self) -> rusqlite::Connection {
        let StoreConfig::Sqlite(sqlite) = &self.his.config else { panic!("the store is a server") };
        let connection = rusqlite::Connection::open(&sqlite.path).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection
    }

    pub(crate) fn is_embedded(&self) -> bool {
        matches!(self.his.database, Database::Sqlite(_))
    }

    /// Waits until no transaction runs any more, and every message has its position. Returns the last one.
    pub(crate) async fn settled(&self) -> u64 {
        if self.is_embedded() {
            let last = "SELECT max(position) FROM fedgate_messages";
            let last: i64 = self.connection().query_row(last, [], |row| row.get(0)).unwrap();
            return u64::try_from(last).unwrap();
        }
        let deadline = Instant::now() + self.patience;
        let question = "SELECT position, NOT EXISTS (SELECT FROM fedgate_waiting) AND NOT EXISTS ( \
                        SELECT FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() \
                        AND datname = current_database()) FROM fedgate_relay";
        let mut last = 0i64;
        while Instant::now() < deadline {
            if let Some(session) = self.session().await
                && let Ok(row) = session.query_one(question, &[]).await
            {
                last = row.get(0);
                if row.get(1) {
                    break;
                }
            }
            sleep(Duration::from_millis(10)).await;
        }
        // If messages still wait, the checker finds them lost.
        u64::try_from(last).unwrap()
    }
}

/// A connection of either kind.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// What became of a request.
pub(crate) enum Exchange {
    /// Nothing of it was sent.
    NotSent,
    /// It may have arrived.
    Lost,
    Answered(Reply),
}
