//! `fedgate`: the gateway, and the operator's commands.
//!
//! Reads the arguments and the configuration, and runs one command. Exit codes: 0 done, 1 failure, 2 usage or
//! configuration.

#![forbid(unsafe_code)]

mod account;
mod check;
mod demo;
mod explain;
mod policy;
mod print;
mod quote;
mod status;
mod upgrade;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Parser, Subcommand};
use fedgate::accounts::{AccountStore, AccountsError};
use fedgate::gateway::{PreparedGateway, ServeError};
use fedgate_base::command::{self, CommandFailure};
use fedgate_base::config::{Config, StoreConfig};
use fedgate_base::db::actor::ChangeActor;
use fedgate_base::db::hashes::HashRule;
use fedgate_base::db::{Database, schema};
use fedgate_base::dumps::ForbiddenDumps;
use fedgate_base::{log, threads};
use fedgate_core::password::{self, HashCost, HashKind};

pub(crate) use print::print_line;

/// The default configuration file.
const CONFIG: &str = "fedgate.toml";
/// Threads that a command needs in addition to its own: for the network and the disk.
const SPARE_THREADS: usize = 4;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Authorization gateway for health information systems.
///
/// Terminates TLS, authenticates the caller, decides by roles.cfg whether this caller may use this method on this
/// endpoint for this patient's record, and forwards allowed requests.
#[derive(Parser)]
#[command(name = "fedgate", version, max_term_width = 100)]
struct GatewayArguments {
    /// The configuration file, before or after the command [default: fedgate.toml]; FEDGATE_* environment variables
    /// override it.
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
        /// The address that the gateway listens on.
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443", value_parser = demo::address)]
        listen: SocketAddr,
        /// The directory of its files, kept from one run to the next.
        #[arg(long, default_value = "demo")]
        dir: PathBuf,
    },
    /// Make the running gateway hand its sockets to the program on disk: no connection is refused, no request lost.
    Upgrade,
    /// Validate configuration, policy, certificates, addresses and database, without serving; reports all faults at
    /// once.
    Check {
        /// Print JSON: one object with the findings, all faults and all warnings.
        #[arg(long)]
        json: bool,
        /// List each default that an earlier build had otherwise, with the key that restores it.
        #[arg(long)]
        changes: bool,
    },
    /// Hash a password as the store keeps it; the password is read from the terminal or standard input.
    ///
    /// A named configuration decides the kind and the cost (`authentication.upgrade_hashes`, `argon2_*`); if it
    /// does not name the kind, its database decides. Without one, the result is argon2id at the default cost.
    HashPassword,
    /// Review policies: check, explain, matrix, diff, test.
    ///
    /// Uses the routes of a named configuration; without one, the built-in routes of Thalamus.
    Policy {
        #[command(subcommand)]
        command: policy::PolicyCommand,
    },
    /// Find every record of a request id, and replay its decision against the policy that made it.
    Explain {
        /// The request id, as in the answer (`request_id`, X-Request-Id) and in the records; or one that a client
        /// chose.
        request_id: String,
        /// A file of records, instead of the `records.file` of the configuration and its rotated files; may be
        /// repeated. Files may be compressed (gzip, zstd); - is standard input.
        #[arg(long, value_name = "FILE|-")]
        records: Vec<PathBuf>,
        /// Print JSON: the record and the replayed decision, or the reason why the replay failed.
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

fn main() -> ExitCode {
    command::run("fedgate", |arguments: GatewayArguments, dumps| run(arguments.command, arguments.config, dumps))
}

fn run(command: GatewayCommand, named: Option<PathBuf>, dumps: ForbiddenDumps) -> Result<(), CommandFailure> {
    let config = named.clone().unwrap_or(CONFIG.into());
    match command {
        GatewayCommand::Serve => serve(&config, dumps),
        GatewayCommand::Demo { .. } if named.is_some() => {
            Err(CommandFailure::Usage(anyhow!("demo writes its own configuration under --dir and takes no --config")))
        }
        GatewayCommand::Demo { listen, dir } => runtime()?.block_on(demo::run(listen, &dir)),
        GatewayCommand::Upgrade => runtime()?.block_on(upgrade::run(load(&config, "fedgate upgrade")?)),
        GatewayCommand::Check { json, changes } => runtime()?.block_on(check::run(&config, json, changes)),
        GatewayCommand::HashPassword => {
            let kind = match named {
                Some(file) => runtime()?.block_on(configured_kind(&load(&file, "fedgate hash-password")?))?,
                None => HashKind::Argon2id(HashCost::DEFAULT),
            };
            let password = account::read_password("Password: ")?;
            account::check_length(&password, kind)?;
            // Hashes of other programs' short passwords were made here before.
            if let Err(short) = account::check_characters(&password) {
                print::warn(&format!("{short}: `fedgate account` and /password refuse it"));
            }
            Ok(print_line(&password::make(password.expose(), kind)?)?)
        }
        GatewayCommand::Policy { command } => runtime()?.block_on(policy::run(command, named.as_deref())),
        GatewayCommand::Explain { request_id, records, json } => explain::run(&config, &request_id, &records, json),
        GatewayCommand::Status { json } => runtime()?.block_on(status::run(&config, json)),
        GatewayCommand::Account { json, command } => runtime()?.block_on(account::run(&config, command, json)),
    }
}

/// The kind of new hashes in the store of a configuration; the store is asked if the configuration does not say it.
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
        CommandFailure::Failed(anyhow!("{fault}; `authentication.upgrade_hashes` decides it without the store"))
    })
}

fn serve(file: &Path, dumps: ForbiddenDumps) -> Result<(), CommandFailure> {
    let config = Config::load(file).map_err(|error| CommandFailure::Usage(error.into()))?;
    dumps.follow(config.core_dumps)?;
    config.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    // Opening the embedded store needs a runtime; those of the gateway start only when it serves.
    let origins = config.origins.clone();
    let with_origin = |error: &ServeError| anyhow!(origins.with_origin(&log::with_causes(error)));
    let prepared = runtime()?.block_on(PreparedGateway::new(config)).map_err(|error| match error.is_of_settings() {
        true => CommandFailure::Usage(with_origin(&error)),
        // A service manager starts it again.
        false => CommandFailure::Failed(with_origin(&error)),
    })?;
    Ok(prepared.serve().map_err(|error| with_origin(&error))?)
}

/// The configuration of the command of this name; warns of environment variables that mean nothing.
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

/// Checks that the schema is not older than this program; returns its version.
pub(crate) async fn check_schema(config: &Config, database: &Database) -> Result<i64, CommandFailure> {
    let version = schema::version(database).await.map_err(|error| store_fault(config, error))?;
    if version >= schema::VERSION {
        return Ok(version);
    }
    let (file, key, needed) = (config.file.display(), config.store.key(), schema::VERSION);
    let problem = format!("the database has schema version {version}, {needed} is needed; run `fedhis migrate`");
    Err(CommandFailure::Usage(with_origin(config, format!("{file}: `{key}`: {problem}"))))
}

/// The fault of a database that lacks something that the programs use, whatever its version.
pub(crate) fn incomplete(config: &Config, missing: &schema::MissingObjects) -> CommandFailure {
    CommandFailure::Usage(with_origin(
        config,
        format!("{}: `{}`: {missing}", config.file.display(), config.store.key()),
    ))
}

/// Checks that the file of an embedded store exists before it is opened. Opening creates it, and a command that
/// looks at accounts or changes them must not create a database.
pub(crate) fn store_exists(config: &Config) -> Result<(), CommandFailure> {
    match &config.store {
        StoreConfig::Sqlite(sqlite) if !sqlite.path.exists() => {
            let (file, path) = (config.file.display(), sqlite.path.display());
            let remedy = "`fedhis serve` or `fedhis migrate` creates it";
            Err(CommandFailure::Usage(with_origin(
                config,
                format!("{file}: `store.path`: {path} does not exist; {remedy}"),
            )))
        }
        StoreConfig::Sqlite(_) | StoreConfig::Postgres(_) => Ok(()),
    }
}

/// A fault of the store, as one line with file, key and remedy; a usage failure if a setting is the remedy.
pub(crate) fn store_fault(config: &Config, error: impl Into<AccountsError>) -> CommandFailure {
    let error = error.into();
    let words = with_origin(config, error.located(&config.file, &config.store));
    if error.is_of_settings() { CommandFailure::Usage(words) } else { CommandFailure::Failed(words) }
}

/// A problem, with the environment variables that have set the keys it names.
fn with_origin(config: &Config, problem: impl std::fmt::Display) -> anyhow::Error {
    anyhow!(config.origins.with_origin(&problem.to_string()))
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    threads::can_start(SPARE_THREADS)?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}
