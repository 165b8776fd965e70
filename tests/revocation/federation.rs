//! Three gateways over one PostgreSQL, each behind a proxy of its own, with accounts whose rights are flipped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use fedgate_base::config::PostgresConfig;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::runtime::Runtime;

use crate::fixture::{CANARY, Gateway, Setup, basic, password_hash};
use crate::revocation::history::{Answer, Flip, Outcome, State};
use crate::support::keepalive::{Connection, get};
use crate::support::postgres::{Cluster, as_role};
use crate::support::proxy::Proxy;

pub(crate) const INSTANCES: usize = 3;
/// The freshness bound of the configuration's default.
pub(crate) const BOUND: Duration = Duration::from_secs(1);
/// The target of the accounts' requests. It needs a role, and concerns no single person.
pub(crate) const TARGET: &str = "/people";
/// Hashes that are not replaced, so that only flips change accounts. Rejections without delay, so that the measured
/// time is that of the decision. All requests come from one address, which fails on many accounts: on each that an
/// instance first meets while it is disabled.
pub(crate) const CONFIGURATION: &str =
    "[authentication]\nupgrade_hashes = false\nrejection_step_ms = 0\nfree_accounts_of_source = 1000\n";

/// A migrated database with accounts, and a proxy in front of it for each instance.
pub(crate) struct Federation {
    pub(crate) database: PostgresConfig,
    pub(crate) proxies: Vec<Proxy>,
    _turn: Turn,
}

/// Held exclusively by a measurement, and shared by other tests: a measurement has the machine to itself.
enum Turn {
    Alone(#[expect(dead_code, reason = "held, not read")] RwLockWriteGuard<'static, ()>),
    WithOthers(#[expect(dead_code, reason = "held, not read")] RwLockReadGuard<'static, ()>),
}

static TURNS: RwLock<()> = RwLock::new(());

impl Federation {
    /// Accounts `P0`, `P1`, … that are entitled to [`TARGET`].
    pub(crate) fn with_accounts(count: usize) -> Self {
        Self::start(count, Turn::WithOthers(TURNS.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The same, for a measurement.
    pub(crate) fn alone_with_accounts(count: usize) -> Self {
        Self::start(count, Turn::Alone(TURNS.write().unwrap_or_else(PoisonError::into_inner)))
    }

    fn start(count: usize, turn: Turn) -> Self {
        let cluster = Cluster::shared();
        let runtime = Runtime::new().unwrap();
        let database = runtime.block_on(cluster.database_with_accounts(count, &password_hash()));
        runtime.block_on(as_role(&database, "fedgate"));
        let proxies = (0..INSTANCES).map(|_| Proxy::before(cluster.socket())).collect();
        Self { database, proxies, _turn: turn }
    }

    /// Starts a gateway behind each proxy.
    pub(crate) fn gateways(&self) -> Vec<Gateway> {
        self.gateways_in(&[])
    }

    /// The same with environment variables.
    pub(crate) fn gateways_in(&self, environment: &[(&str, &str)]) -> Vec<Gateway> {
        let start = |proxy: &Proxy| {
            // With the rights of the gateway's own role.
            let (uri, configuration) =
                (proxy.uri(&self.database).replace("user=postgres", "user=fedgate"), CONFIGURATION);
            Gateway::start_as(&Setup { environment, configuration, database: Some(&uri), ..Setup::default() })
        };
        self.proxies.iter().map(start).collect()
    }

    pub(crate) fn controller(&self) -> Controller {
        let runtime = Runtime::new().unwrap();
        let client = runtime.block_on(async {
            let (client, connection) =
                tokio_postgres::connect(&self.database.uri, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            client
        });
        Controller { runtime, client }
    }
}

/// Changes accounts by SQL, without any proxy.
pub(crate) struct Controller {
    runtime: Runtime,
    client: tokio_postgres::Client,
}

impl Controller {
    /// Changes one account in one statement.
    pub(crate) fn flip(&self, account: usize, state: State) -> Flip {
        let change = match state {
            State::Entitled => r#"{"active": true, "roles": ["end_user", "health_professional"]}"#,
            State::Unentitled => r#"{"active": true, "roles": ["end_user"]}"#,
            State::Disabled => r#"{"active": false}"#,
        };
        let update = format!("UPDATE people SET data = data || '{change}' WHERE id = 'P{account}'");
        let begin = Instant::now();
        self.runtime.block_on(self.client.batch_execute(&update)).unwrap();
        Flip { account, state, begin, end: Instant::now() }
    }

    /// Runs SQL.
    pub(crate) fn run(&self, sql: &str) {
        self.runtime.block_on(self.client.batch_execute(sql)).unwrap();
    }

    /// Ends the sessions that listen, as an administrator or a failing server would.
    pub(crate) fn kill_listeners(&self) {
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                    WHERE datname = current_database() AND query LIKE '%fedgate_account_changes c ON%' AND pid <> pg_backend_pid()";
        self.runtime.block_on(self.client.execute(kill, &[])).unwrap();
    }
}

/// The first state of the accounts.
pub(crate) fn all_entitled(count: usize, since: Instant) -> Vec<Flip> {
    (0..count).map(|account| Flip { account, state: State::Entitled, begin: since, end: since }).collect()
}

/// The state after `state`: an entitled account loses its right in one of two ways, and any other gains it.
pub(crate) fn next_state(state: State, random: &mut StdRng) -> State {
    match state {
        State::Entitled if random.random() => State::Disabled,
        State::Entitled => State::Unentitled,
        State::Unentitled | State::Disabled => State::Entitled,
    }
}

/// The request of an account, ready to send.
pub(crate) fn request(account: usize) -> Vec<u8> {
    get(TARGET, &basic(&format!("P{account}"), CANARY))
}

/// Asks a gateway over a kept connection.
pub(crate) fn over(connection: &mut Connection, request: &[u8]) -> Outcome {
    connection.ask(request).map_or(Outcome::Failed(0), |answer| Outcome::of_status(answer.status))
}

/// Asks for the accounts that `pick` chooses, one after the other with a pause, until `stop`.
pub(crate) fn ask_until(
    stop: &AtomicBool,
    instance: usize,
    pause: Duration,
    mut pick: impl FnMut() -> usize,
    mut ask: impl FnMut(usize) -> Outcome,
) -> Vec<Answer> {
    let mut answers = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let account = pick();
        let start = Instant::now();
        let outcome = ask(account);
        answers.push(Answer { account, instance, start, end: Instant::now(), outcome });
        std::thread::sleep(pause);
    }
    answers
}
