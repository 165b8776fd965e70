//! Support for the tests of the HIS: a service on a real socket with a store of its own, and callers in the form in
//! which the gateway asserts them.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

pub mod client;
pub mod keepalive;
mod ports;
pub mod postgres;
pub mod programs;
pub mod proxy;
pub mod receiver;
pub mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use fedgate::assertion_signer::AssertionSigner;
use fedgate_base::config::{
    Address, AssertionConfig, AssertionKeys, ConnectionsConfig, FhirConfig, HashesConfig, HeadsConfig, HisConfig,
    IndexConfig, MessagesConfig, PostgresConfig, SharesConfig, SqliteConfig, StoreConfig, WebhooksConfig,
};
use fedgate_base::db::replicas::Replicas;
use fedgate_base::db::{Database, DbError, schema};
use fedgate_base::workers::RequestWorkers;
use fedgate_core::assertion::{AssertionClaims, AssertionVerifier, RecordScope};
use fedgate_core::password::HashCost;
use fedgate_core::secret::Secret;
use fedgate_his::store::RecordStore;
use fedgate_his::{HisListener, HisService, router};

pub use client::Reply;
pub use ports::free_address;

/// Writes a file with the mode of a secret: for its owner alone.
pub fn write_private(path: &std::path::Path, bytes: impl AsRef<[u8]>) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// The percentiles 50 and 99 and the maximum, in ms, as text.
pub fn percentiles(mut durations: Vec<Duration>) -> String {
    durations.sort_unstable();
    let at = |percent: usize| {
        let index = (durations.len() * percent / 100).min(durations.len().saturating_sub(1));
        durations.get(index).map_or(f64::NAN, |duration| duration.as_secs_f64() * 1000.0)
    };
    format!("p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms of {}", at(50), at(99), at(100), durations.len())
}

/// A number from the environment, for a longer run on demand.
pub fn wanted<T: std::str::FromStr>(name: &str, usual: T) -> T {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// A directory that is removed with the test.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fedhis-test-{}-{count}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs statements on a PostgreSQL server, without a pool, and returns their first value as text.
pub async fn postgres_text(database: &PostgresConfig, statements: &str) -> String {
    let (client, connection) = tokio_postgres::connect(&database.uri, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let messages = client.simple_query(statements).await.unwrap();
    let value = messages.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    value.unwrap_or_default()
}

/// The kind of new hashes: argon2id at the usual cost.
pub const HASHES: HashesConfig = HashesConfig { upgraded: None, cost: HashCost::DEFAULT };

/// A running service.
pub struct His {
    pub address: Address,
    pub service: Arc<HisService>,
    pub database: Database,
    /// The same database, with the rights and the sessions of the service.
    pub served: Database,
    pub store: RecordStore,
    pub signer: AssertionSigner,
    pub config: StoreConfig,
    pub scratch: Scratch,
    his: HisConfig,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for His {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl His {
    pub async fn on_sqlite() -> Self {
        let scratch = Scratch::new();
        let config =
            StoreConfig::Sqlite(SqliteConfig { path: scratch.0.join("his.db"), lock_timeout: Duration::from_secs(2) });
        Self::start(config, scratch).await
    }

    pub async fn on_postgres() -> Self {
        let config = StoreConfig::Postgres(postgres::Cluster::shared().database().await);
        Self::start(config, Scratch::new()).await
    }

    pub async fn on(config: PostgresConfig) -> Self {
        Self::start(StoreConfig::Postgres(config), Scratch::new()).await
    }

    pub async fn start(config: StoreConfig, scratch: Scratch) -> Self {
        Self::listen(config, scratch, Address::Tcp(([127, 0, 0, 1], 0).into())).await
    }

    pub async fn listen(config: StoreConfig, scratch: Scratch, address: Address) -> Self {
        let his = HisConfig {
            listen: address,
            admin: vec![],
            index: IndexConfig::default(),
            fhir: FhirConfig::default(),
            hashes: HASHES,
            max_body_bytes: 1 << 20,
            max_document_bytes: 1 << 20,
            max_record_bytes: 4 << 20,
            max_bytes_in_flight: 32 << 20,
            max_pages_per_person: 100_000,
            max_documents_per_person: 10_000,
            max_messages_per_account: 100_000,
            ask_current_password: true,
            refuse_common_passwords: true,
            stop_delay: Duration::ZERO,
            messages: MessagesConfig { age: None, most: None, stall: None },
            webhooks: WebhooksConfig {
                secrets: vec![],
                roles: scratch.0.join("roles.cfg"),
                ca_file: None,
                allowed: vec![],
                refused: vec![],
                behind: None,
                waiting: 5000,
            },
            shares: SharesConfig { caller_percent: 50, write_percent: 75 },
            connections: ConnectionsConfig {
                most: None,
                heads: HeadsConfig { timeout: Duration::from_secs(10), idle: Duration::from_secs(600) },
            },
        };
        Self::serve(config, scratch, his).await
    }

    /// Another service on the same store, with other limits.
    pub async fn with(&self, change: impl FnOnce(&mut HisConfig)) -> Self {
        let mut his = self.his.clone();
        his.listen = Address::Tcp(([127, 0, 0, 1], 0).into());
        change(&mut his);
        Self::serve(self.config.clone(), Scratch::new(), his).await
    }

    async fn serve(config: StoreConfig, scratch: Scratch, his: HisConfig) -> Self {
        let database = Database::open(&config).await.unwrap();
        schema::migrate(&database).await.unwrap();
        // The service has the rights of its own role, and the test those of the owner.
        let (served, replicas) = match &config {
            StoreConfig::Postgres(owner) => {
                let granted = postgres::as_role(owner, "fedhis").await;
                let opened = Database::open(&StoreConfig::Postgres(granted.clone())).await.unwrap();
                let Database::Postgres(pool) = &opened else { unreachable!() };
                let replicas = Replicas::of(&granted, pool).unwrap();
                (opened, replicas)
            }
            StoreConfig::Sqlite(_) => (database.clone(), None),
        };
        let store = RecordStore::new(database.clone());
        let of_service = match &served {
            Database::Postgres(_) => RecordStore::new(served.clone()).with_replicas(replicas),
            Database::Sqlite(_) => store.clone(),
        };
        let assertion = assertion();
        let address = his.listen.clone();
        let service = HisService::new(&his, AssertionVerifier::from_config(&assertion).unwrap(), of_service).unwrap();
        let listener = HisListener::bind(&address, "his.listen").await.unwrap();
        let address = match &listener {
            HisListener::Tcp(listener) => Address::Tcp(listener.local_addr().unwrap()),
            HisListener::Unix(_) => address,
        };
        let monitored = Arc::clone(&service);
        let server = tokio::spawn(async move {
            let here = RequestWorkers::here();
            listener.serve(&here, router(service), &his.connections, std::future::pending()).await;
        });
        let signer = AssertionSigner::from_config(&assertion).unwrap();
        Self { address, service: monitored, database, served, store, signer, config, scratch, his, server }
    }

    /// A request of `actor`, with the assertion that the gateway would mint for it.
    pub fn request<'a>(&'a self, actor: &Actor, method: &'a str, target: &'a str) -> Request<'a> {
        let path = target.split('?').next().unwrap();
        let claims = self.claims(actor, method, path);
        Request { his: self, method, target, headers: vec![], body: vec![], token: Some(self.signer.sign(&claims)) }
    }

    pub async fn get(&self, actor: &Actor, target: &str) -> Reply {
        self.request(actor, "GET", target).send().await
    }

    pub async fn delete(&self, actor: &Actor, target: &str) -> Reply {
        self.request(actor, "DELETE", target).send().await
    }

    pub async fn post(&self, actor: &Actor, target: &str, body: impl AsRef<[u8]>) -> Reply {
        self.request(actor, "POST", target).body(body).send().await
    }

    pub async fn patch(&self, actor: &Actor, target: &str, body: impl AsRef<[u8]>) -> Reply {
        self.request(actor, "PATCH", target).body(body).send().await
    }

    /// Posts a person and expects it to be stored.
    pub async fn person(&self, id: &str, document: &str) {
        let reply = self.post(&root(), &format!("/people/{id}"), document).await;
        assert_eq!((reply.status, reply.text()), (200, "null"), "{document}");
    }

    /// Posts a page and expects it to be stored.
    pub async fn page(&self, person: &str, page: &str, document: &str) {
        let reply = self.post(&root(), &format!("/pols/{person}/{page}"), document).await;
        assert_eq!((reply.status, reply.text()), (200, "null"), "{document}");
    }

    /// The claims of the gateway for a request.
    pub fn claims(&self, actor: &Actor, method: &str, path: &str) -> AssertionClaims<'static> {
        let (endpoint, subject) = route(path);
        let (iat, exp) = self.signer.validity(SystemTime::now());
        let is_public = endpoint.is_empty();
        AssertionClaims {
            iss: self.signer.issuer().to_owned().into(),
            aud: self.signer.audience().to_owned().into(),
            sub: if is_public { "".into() } else { actor.account.to_owned().into() },
            same: actor.same.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>().into(),
            roles: actor.roles.iter().map(|role| (*role).to_owned()).collect::<Vec<_>>().into(),
            endpoint: endpoint.into(),
            method: method.to_owned().into(),
            path: path.to_owned().into(),
            scope: if is_public { RecordScope::Public } else { actor.scope },
            subject: subject.map(Into::into),
            grants: actor.grants.iter().map(|grant| (*grant).to_owned()).collect::<Vec<_>>().into(),
            rid: "req-1".into(),
            pol: "pol-1".into(),
            iat,
            exp,
        }
    }

    /// Runs SQL without the service.
    pub async fn sql(&self, sql: &str) {
        self.try_sql(sql).await.unwrap();
    }

    /// The same for SQL that the store may refuse.
    pub async fn try_sql(&self, sql: &str) -> Result<(), DbError> {
        let sql = sql.to_owned();
        match &self.database {
            Database::Postgres(pool) => pool.get().await.unwrap().batch_execute(&sql).await,
            Database::Sqlite(sqlite) => sqlite.write(move |tx| tx.execute_batch(&sql)).await,
        }
    }

    /// One text value, read without the service.
    pub async fn sql_text(&self, sql: &'static str) -> Option<String> {
        match &self.database {
            Database::Postgres(pool) => {
                pool.get().await.unwrap().query_opt(sql, &[]).await.unwrap().and_then(|row| row.get(0))
            }
            Database::Sqlite(sqlite) => sqlite
                .read(move |connection| {
                    use rusqlite::OptionalExtension;
                    Ok(connection.query_row(sql, [], |row| row.get(0)).optional()?.flatten())
                })
                .await
                .unwrap(),
        }
    }

    /// Waits until the index has keys of everybody's present record, and everybody has been compared.
    pub async fn indexed(&self) {
        let due = "SELECT CAST(count(*) AS text) FROM (SELECT person FROM fedgate_person_keys_due \
                   UNION ALL SELECT person FROM fedgate_person_pairs_due \
                   UNION ALL SELECT upto FROM fedgate_person_index WHERE upto IS NOT NULL) AS due";
        let began = std::time::Instant::now();
        while self.sql_text(due).await.as_deref() != Some("0") {
            assert!(began.elapsed() < Duration::from_secs(60), "persons are still due");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The endpoint and subject of a path, as in the gateway's routes.
fn route(path: &str) -> (&'static str, Option<String>) {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let person = segments.get(1).map(|id| percent_encoding::percent_decode_str(id).decode_utf8_lossy().into_owned());
    match (segments[0], segments.len()) {
        ("" | "static" | "openapi.json", _) => ("", None),
        ("people", 1) => ("people", None),
        ("people", _) => ("person", person),
        ("pols", 2) => ("book", person),
        ("pols", _) => ("page", person),
        ("personal_docs", 2) => ("personaldocs", person),
        ("personal_docs", _) => ("poldocs", person),
        ("domiciliary-units", _) => ("domiciliaryunits", None),
        ("institutions", _) => ("institutions", None),
        ("password", _) => ("password", person),
        ("messages", _) => ("messages", None),
        ("index", _) if segments[1] == "merges" => ("merge", None),
        ("index", _) => ("match", None),
        ("fhir", _) => match segments.last() {
            Some(&"metadata") => ("", None),
            Some(&"$match") => ("match", None),
            Some(&"Patient" | &"_search") => ("people", None),
            _ => ("person", None),
        },
        _ => ("login", None),
    }
}

/// A caller, as the gateway has decided.
pub struct Actor {
    pub account: &'static str,
    pub scope: RecordScope,
    pub grants: &'static [&'static str],
    pub roles: &'static [&'static str],
    /// The other ids of the same person.
    pub same: &'static [&'static str],
}

/// An administrator: every record, and the `account` permission.
pub fn root() -> Actor {
    Actor { account: "ARGBUE111FAV", scope: RecordScope::Global, grants: &["account"], roles: &[], same: &[] }
}

/// A health professional: every record.
pub fn professional() -> Actor {
    Actor { account: "ITAPYT999HON", scope: RecordScope::Global, grants: &[], roles: &[], same: &[] }
}

/// A person with her own record.
pub fn own(account: &'static str) -> Actor {
    Actor { account, scope: RecordScope::Own, grants: &[], roles: &[], same: &[] }
}

pub fn assertion() -> AssertionConfig {
    AssertionConfig {
        keys: AssertionKeys::Hs256 { secret: Secret::new(b"a secret of thirty-two bytes ....".to_vec()) },
        issuer: "fedgate".into(),
        audience: "fedhis".into(),
        lifetime: Duration::from_secs(30),
    }
}

/// A request under construction.
pub struct Request<'a> {
    his: &'a His,
    method: &'a str,
    target: &'a str,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    token: Option<String>,
}

impl Request<'_> {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    pub fn token(mut self, token: Option<String>) -> Self {
        self.token = token;
        self
    }

    /// The head to send. A `content-length` that the test gives replaces the right one.
    pub fn head(&self) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: his\r\nconnection: close\r\n", self.method, self.target);
        if let Some(token) = &self.token {
            head.push_str(&format!("{}: {token}\r\n", fedgate_core::assertion::HEADER));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let has_length = self.headers.iter().any(|(name, _)| name == "content-length");
        if !has_length && (!self.body.is_empty() || self.method != "GET") {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        head
    }

    pub async fn send(self) -> Reply {
        client::exchange(&self.his.address, &self.head(), &self.body).await
    }
}

/// Runs each law against both stores.
#[macro_export]
macro_rules! on_both_stores {
    ($($(#[$meta:meta])* async fn $name:ident($his:ident) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            $(#[$meta])*
            async fn law($his: $crate::support::His) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                law($crate::support::His::on_sqlite().await).await
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                law($crate::support::His::on_postgres().await).await
            }
        }
    )*};
}
