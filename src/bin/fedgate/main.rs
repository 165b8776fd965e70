//! `fedgate`: the gateway, and the operator's commands.
//!
//! Arguments to configuration to run. Exit codes: 0 done, 1 failure, 2 usage or configuration.

mod account;
mod check;
mod demo;
mod explain;
mod policy;
mod print;
mod status;
mod upgrade;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Parser, Subcommand};
use fedgate::accounts::{AccountStore, AccountsError};
use fedgate::gateway::{PreparedGateway, ServeError};
use fedgate_base::config::{Config, StoreConfig};
use fedgate_base::db::actor::ChangeActor;
use fedgate_base::db::hashes::HashRule;
use fedgate_base::db::{Database, schema};
use fedgate_base::dumps::{self, ForbiddenDumps};
use fedgate_base::{arguments, descriptors, log, parent, threads};
use fedgate_core::password::{self, HashCost, HashKind};

pub(crate) use print::print_line;

/// The configuration where none is named.
const CONFIG: &str = "fedgate.toml";
/// Threads that a command needs beside its own: to wait for the network, and for the disk.
const SPARE_THREADS: usize = 4;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Authorization gateway for health information systems.
///
/// Terminates TLS, finds out who calls, decides by roles.cfg whether this person may use this method on this endpoint
/// for this patient's record, and forwards what is allowed.
#[derive(Parser)]
#[command(name = "fedgate", version, max_term_width = 100)]
struct GatewayArguments {
    /// The configuration file, before or after the command [default: fedgate.toml]; FEDGATE_* environment variables override it.
    #[arg(short = 'c', long = "config", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: GatewayCommand,
}

#[derive(Subcommand)]
enum GatewayCommand {
    /// Serve: listen on HTTPS, authenticate, decide, forward.
    Serve,
    /// Try it out: gateway and HIS on an embedded store with the demo federation.
    Demo {
        /// Where the gateway listens.
        #[arg(long, default_value = "127.0.0.1:8443")]
        listen: SocketAddr,
        /// Where everything it makes is kept, from one run to the next.
        #[arg(long, default_value = "demo")]
        dir: PathBuf,
    },
    /// Let the running gateway hand its sockets to the program on disk: no connection is refused, no request lost.
    Upgrade,
    /// Validate configuration, policy, certificates, addresses and database, without serving; tells all faults at once.
    Check {
        /// Print JSON: one object with what was found, all faults and all warnings.
        #[arg(long)]
        json: bool,
    },
    /// Hash a password as the store keeps it; it is asked for, or read from standard input.
    ///
    /// A configuration that is named says the kind and the cost (`authentication.upgrade_hashes`, `argon2_*`) or, for the kind, its
    /// database does; without one, it is argon2id at the default cost.
    HashPassword,
    /// Look at policies: check, explain, matrix, diff, test.
    ///
    /// The routes of a configuration that is named count; without one, the built-in routes of Thalamus.
    Policy {
        #[command(subcommand)]
        command: policy::PolicyCommand,
    },
    /// Find every record of a request id, and replay its decision against the policy that made it.
    Explain {
        /// The request id, as in the answer (`request_id`, X-Request-Id) and in the records; or one that a client chose.
        request_id: String,
        /// The records, if not the `records.file` of the configuration and those rotated beside it; may stand several times. Files
        /// may be compressed (gzip, zstd); - is standard input.
        #[arg(long, value_name = "FILE|-")]
        records: Vec<PathBuf>,
        /// Print JSON: the record, and the decision that was replayed; also when that failed, with why.
        #[arg(long)]
        json: bool,
    },
    /// Show the gateways that run on the configured store: policies, account epoch, leases, caches.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Manage the accounts of the configured store.
    Account {
        /// Print JSON: one object that says what was done, or why it was not.
        #[arg(long, global = true)]
        json: bool,
        #[command(subcommand)]
        command: account::AccountCommand,
    },
}

/// Why a command failed, with its exit code.
pub(crate) enum CommandFailure {
    /// The command could not do what it was asked: exit 1.
    Failed(anyhow::Error),
    /// Usage or configuration is wrong: exit 2.
    Usage(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for CommandFailure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl CommandFailure {
    /// What went wrong and why, in one line.
    pub(crate) fn in_words(&self) -> String {
        let (Self::Failed(error) | Self::Usage(error)) = self;
        log::with_causes(error.as_ref())
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
        }
    }
}

fn main() -> ExitCode {
    let arguments = match arguments::parse::<GatewayArguments>() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let enough = descriptors::can_start().map_err(CommandFailure::from);
    let log = enough.and_then(|()| log::log_to_stderr().map_err(|error| CommandFailure::Usage(error.into())));
    let started = log.and_then(|log| Ok((log, dumps::forbid()?)));
    // The log ends before the last word, which says how the command ended.
    match started.and_then(|(_log, dumps)| run(arguments.command, arguments.config, dumps)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            print::complain(&failure.in_words());
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(command: GatewayCommand, named: Option<PathBuf>, dumps: ForbiddenDumps) -> Result<(), CommandFailure> {
    parent::follow()?;
    let config = named.clone().unwrap_or(CONFIG.into());
    match command {
        GatewayCommand::Serve => serve(&config, dumps),
        GatewayCommand::Demo { .. } if named.is_some() => Err(CommandFailure::Usage(anyhow!(
            "demo writes a configuration of its own, under --dir, and takes no --config"
        ))),
        GatewayCommand::Demo { listen, dir } => runtime()?.block_on(demo::run(listen, &dir)),
        GatewayCommand::Upgrade => runtime()?.block_on(upgrade::run(load(&config, "fedgate upgrade")?)),
        GatewayCommand::Check { json } => runtime()?.block_on(check::run(&config, json)),
        GatewayCommand::HashPassword => {
            let kind = match named {
                Some(file) => runtime()?.block_on(configured_kind(&load(&file, "fedgate hash-password")?))?,
                None => HashKind::Argon2id(HashCost::DEFAULT),
            };
            let password = account::read_password("Password: ")?;
            account::check_length(&password, kind)?;
            Ok(print_line(&password::make(password.expose(), kind)?)?)
        }
        GatewayCommand::Policy { command } => runtime()?.block_on(policy::run(command, named.as_deref())),
        GatewayCommand::Explain { request_id, records, json } => explain::run(&config, &request_id, &records, json),
        GatewayCommand::Status { json } => runtime()?.block_on(status::run(&load(&config, "fedgate status")?, json)),
        GatewayCommand::Account { json, command } => runtime()?.block_on(account::run(&config, command, json)),
    }
}

/// The kind of new hashes in the store of a configuration, which is asked where the configuration does not say it.
async fn configured_kind(config: &Config) -> Result<HashKind, CommandFailure> {
    let hashes = config.authentication.hashes;
    let database = match (&config.store, hashes.upgraded) {
        (StoreConfig::Postgres(_), None) => {
            Database::open(&config.store).await.map_err(|error| store_fault(config, error))?
        }
        (_, Some(false)) => return Ok(HashKind::Bcrypt),
        (StoreConfig::Sqlite(_) | StoreConfig::Postgres(_), _) => return Ok(HashKind::Argon2id(hashes.cost)),
    };
    let asked = HashRule::new(database, hashes).kind().await;
    asked.map_err(|error| {
        let fault = store_fault(config, error).in_words();
        CommandFailure::Failed(anyhow!("{fault}; `authentication.upgrade_hashes` says it without the store"))
    })
}

fn serve(file: &Path, dumps: ForbiddenDumps) -> Result<(), CommandFailure> {
    let config = Config::load(file).map_err(|error| CommandFailure::Usage(error.into()))?;
    dumps.follow(config.core_dumps)?;
    config.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    // The embedded store is opened by a runtime; the gateway's own runtimes begin when it serves.
    let origins = config.origins.clone();
    let told = |error: ServeError| anyhow!(origins.told(&log::with_causes(&error)));
    let prepared =
        runtime()?.block_on(PreparedGateway::new(config)).map_err(|error| CommandFailure::Usage(told(error)))?;
    Ok(prepared.serve().map_err(told)?)
}

/// The configuration of a command of this name, which tells at least what of the environment was not understood.
fn load(file: &Path, command: &'static str) -> Result<Config, CommandFailure> {
    let config = Config::load(file).map_err(|error| CommandFailure::Usage(error.into()))?.called(command);
    config.unknown_names().iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(config)
}

/// Opens the store as `fedhis migrate` has left it.
pub(crate) async fn open_store(config: &Config) -> Result<AccountStore, CommandFailure> {
    store_exists(config)?;
    let accounts = AccountStore::open(&config.store).await.map_err(|error| store_fault(config, error))?;
    accounts.keep_to_one_server().await.map_err(|error| store_fault(config, error))?;
    check_schema(config, accounts.database()).await?;
    Ok(accounts.acting_as(ChangeActor::operator()))
}

/// Sees that the schema is not older than this program; tells its version.
pub(crate) async fn check_schema(config: &Config, database: &Database) -> Result<i64, CommandFailure> {
    let version = schema::version(database).await.map_err(|error| store_fault(config, error))?;
    if version >= schema::VERSION {
        return Ok(version);
    }
    let (file, key, needed) = (config.file.display(), config.store.key(), schema::VERSION);
    let problem = format!("the database has schema version {version}, {needed} is needed; run `fedhis migrate`");
    Err(CommandFailure::Usage(told(config, format!("{file}: `{key}`: {problem}"))))
}

/// Asks for the file of an embedded store before it is opened, because opening creates it, and a command for looking
/// at accounts or changing them creates no database.
pub(crate) fn store_exists(config: &Config) -> Result<(), CommandFailure> {
    match &config.store {
        StoreConfig::Sqlite(sqlite) if !sqlite.path.exists() => {
            let (file, path) = (config.file.display(), sqlite.path.display());
            let remedy = "`fedhis serve` or `fedhis migrate` creates it";
            Err(CommandFailure::Usage(told(config, format!("{file}: `store.path`: {path} does not exist; {remedy}"))))
        }
        StoreConfig::Sqlite(_) | StoreConfig::Postgres(_) => Ok(()),
    }
}

/// A fault of the store, as one line that names file, key and remedy; of usage, where a setting mends it.
pub(crate) fn store_fault(config: &Config, error: impl Into<AccountsError>) -> CommandFailure {
    let error = error.into();
    let words = told(config, error.located(&config.file, &config.store));
    if error.is_of_settings() { CommandFailure::Usage(words) } else { CommandFailure::Failed(words) }
}

/// What is wrong, with the variables that have set the keys it names.
fn told(config: &Config, problem: impl std::fmt::Display) -> anyhow::Error {
    anyhow!(config.origins.told(&problem.to_string()))
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    threads::can_start(SPARE_THREADS)?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}
