//! `fedhis`: the HIS and its operator's commands. Exit codes: 0 done, 1 failure, 2 usage or configuration.

#![forbid(unsafe_code)]

mod import;
mod index;
mod migrate;
mod relay;
mod review;
mod schema_check;
mod serve;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Parser, Subcommand, ValueEnum};

use schema_check::SchemaFound;

use fedgate_base::command::{self, CommandFailure, print_line};
use fedgate_base::config::{Config, StoreConfig};
use fedgate_base::db::actor::ChangeActor;
use fedgate_base::db::backup::{self, BackupError};
use fedgate_base::db::{Database, DbError, schema};
use fedgate_base::dumps::ForbiddenDumps;
use fedgate_base::{log, patience, threads};
use fedgate_his::demo;
use fedgate_his::import::{ClearPasswords, ImportError, ImportKind};
use fedgate_his::store::RecordStore;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The limit of each statement that looks for older rows that are served with limits.
const ODD_ROWS_PATIENCE: Duration = Duration::from_secs(600);
/// Threads beside those that serve: for hashing, and for the disk.
const SPARE_THREADS: usize = 8;

/// Health information service of a federation: people, books of life, documents, institutions.
///
/// Serves what Thalamus serves, and only to requests that carry an assertion of the gateway (fedgate).
#[derive(Parser)]
#[command(name = "fedhis", version, max_term_width = 100)]
struct HisArguments {
    /// The configuration file, before or after the command; FEDGATE_* environment variables override it.
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = "fedgate.toml", global = true)]
    config: PathBuf,
    #[command(subcommand)]
    command: HisCommand,
}

#[derive(Subcommand)]
enum HisCommand {
    /// Serve the gateway's requests until SIGTERM or SIGINT.
    Serve,
    /// Create or upgrade the schema; an existing Thalamus database keeps its tables and rows.
    ///
    /// `fedhis serve` does this by itself for an embedded store. Indexes of large tables are built while the federation
    /// works; an interrupted build begins again when this is run again.
    Migrate(migrate::MigrateArguments),
    /// Import people or pages: a JSON array (also as Thalamus lists them), or one JSON object a line.
    ///
    /// An interrupted import continues when it is run again (FILE.import-state). It starts from the beginning if
    /// the file or the store is another one. Records that already exist count as unchanged. Records that cannot be
    /// stored are written to FILE.refused.jsonl with line and reason, and make the exit code 1.
    Import {
        /// The kind of records in the file; import people before their pages.
        #[arg(value_enum)]
        kind: ImportedRows,
        /// The file, or - for standard input.
        #[arg(value_name = "FILE|-")]
        source: PathBuf,
        /// Hash passwords in clear text, instead of refusing their persons.
        #[arg(long)]
        hash_passwords: bool,
    },
    /// Copy an embedded store to a new file, consistently, while both programs run.
    ///
    /// The file has mode 0600 and is on the disk when the command ends. An existing file is never overwritten.
    /// docs/BACKUP.md says how to restore it. For PostgreSQL use pg_dump.
    Backup {
        /// The file to create.
        #[arg(value_name = "FILE")]
        target: PathBuf,
    },
    /// Show the state of the relay, and manage webhooks and dead letters.
    Relay(Box<relay::RelayArguments>),
    /// Find persons who have two records, decide, merge them, and end merges.
    Index(index::IndexArguments),
    /// Load the demo federation into an empty store; a store that has people is not changed.
    Seed,
}

impl HisCommand {
    /// The name that the command's sessions have at the database.
    fn program(&self) -> &'static str {
        match self {
            Self::Serve => "fedhis",
            Self::Migrate(_) => "fedhis migrate",
            Self::Import { .. } => "fedhis import",
            Self::Backup { .. } => "fedhis backup",
            Self::Relay(_) => "fedhis relay",
            Self::Index(_) => "fedhis index",
            Self::Seed => "fedhis seed",
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum ImportedRows {
    /// Persons.
    People,
    /// Pages of books of life.
    Pages,
}

fn main() -> ExitCode {
    command::run("fedhis", start)
}

fn start(arguments: HisArguments, dumps: ForbiddenDumps) -> Result<(), CommandFailure> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    // As many for this runtime as for those that serve. Without threads a runtime would panic. This ends with a message that names the limit.
    threads::can_start(2 * workers + SPARE_THREADS)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let done = runtime.block_on(run(arguments, dumps));
    // A statement on the blocking pool is not waited for. It is atomic, so it happens as a whole or not at all.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

async fn run(HisArguments { config, command }: HisArguments, dumps: ForbiddenDumps) -> Result<(), CommandFailure> {
    let config = load(&config)?.called(command.program());
    config.unknown_names().iter().for_each(|warning| tracing::warn!("{warning}"));
    let done = match command {
        HisCommand::Serve => {
            dumps.follow(config.core_dumps)?;
            serve::serve(&config).await
        }
        HisCommand::Migrate(asked) => migrate::migrate(&config, &asked).await,
        HisCommand::Seed => seed(&config).await,
        HisCommand::Relay(asked) => {
            let store = RecordStore::new(open_ready(&config).await?);
            relay::run(&config, &store, *asked).await
        }
        HisCommand::Index(asked) => {
            let operator = ChangeActor::operator();
            let store = RecordStore::new(open_ready(&config).await?).acting_as(operator.clone());
            index::run(&config, &store, operator.name(), asked).await
        }
        HisCommand::Backup { target } => backup(&config, target).await,
        HisCommand::Import { kind, source, hash_passwords } => {
            let kind = match kind {
                ImportedRows::People => ImportKind::People,
                ImportedRows::Pages => ImportKind::Pages,
            };
            let clear_passwords = if hash_passwords { ClearPasswords::Hash } else { ClearPasswords::Refuse };
            import::import(&config, kind, &source, clear_passwords).await
        }
    };
    let told = |error: anyhow::Error| anyhow!(config.origins.with_origin(&log::with_causes(error.as_ref())));
    done.map_err(|failure| match located(&config, failure) {
        CommandFailure::Failed(error) => CommandFailure::Failed(told(error)),
        CommandFailure::Usage(error) => CommandFailure::Usage(told(error)),
    })
}

/// Adds to a failure of the database the setting that leads to that database.
fn located(config: &Config, failure: CommandFailure) -> CommandFailure {
    let CommandFailure::Failed(error) = failure else {
        return failure;
    };
    let of_backup = match error.downcast_ref() {
        Some(BackupError::Store(error)) => Some(error),
        Some(BackupError::Exists(_) | BackupError::Room(..) | BackupError::File(..) | BackupError::Damaged(_))
        | None => None,
    };
    let of_import = match error.downcast_ref() {
        Some(ImportError::Database(error)) => Some(error),
        Some(ImportError::File(..) | ImportError::Unreadable(..) | ImportError::Running(_) | ImportError::Hashing)
        | None => None,
    };
    let Some(database) = error.downcast_ref::<DbError>().or(of_import).or(of_backup) else {
        return CommandFailure::Failed(error);
    };
    let words = anyhow!(database.located(&config.file, &config.store));
    if let DbError::Settings { .. } = database { CommandFailure::Usage(words) } else { CommandFailure::Failed(words) }
}

fn load(file: &Path) -> Result<Config, CommandFailure> {
    Config::load_for_his(file).map_err(|error| CommandFailure::Usage(error.into()))
}

async fn open(config: &Config) -> Result<Database, CommandFailure> {
    let opened = patience::on_store(&config.store, async {
        let database = Database::open(&config.store).await?;
        // No operator migrates an embedded store: the program that opens it does.
        if matches!(config.store, StoreConfig::Sqlite(_)) {
            schema::migrate(&database).await?;
        }
        Ok::<_, DbError>(database)
    });
    Ok(opened.await?)
}

/// Opens the database and checks that its schema has the right version.
async fn open_ready(config: &Config) -> Result<Database, CommandFailure> {
    let database = open(config).await?;
    SchemaFound::of(&database).await?.check().map(|()| database)
}

async fn seed(config: &Config) -> Result<(), CommandFailure> {
    let store = RecordStore::new(open_ready(config).await?).acting_as(ChangeActor::importer());
    let said = match patience::on_store(&config.store, demo::seed(&store)).await? {
        true => "the demo federation is loaded",
        false => "there are people in the store; nothing was changed",
    };
    Ok(print_line(said)?)
}

async fn backup(config: &Config, file: PathBuf) -> Result<(), CommandFailure> {
    let StoreConfig::Sqlite(sqlite) = &config.store else {
        return Err(CommandFailure::Usage(anyhow!(
            "{}: the store is a PostgreSQL database, which this does not copy; `pg_dump -Fc -f FILE DATABASE` does, \
             while it runs (docs/BACKUP.md)",
            config.file.display()
        )));
    };
    let (store, shown) = (sqlite.path.clone(), file.display().to_string());
    if !store.exists() {
        let (config, store) = (config.file.display(), store.display());
        let problem = format!("{config}: `store.path` names `{store}`, which does not exist; name the store to copy");
        return Err(CommandFailure::Usage(anyhow!(problem)));
    }
    let bytes = tokio::task::spawn_blocking(move || backup::copy(&store, &file)).await??;
    Ok(print_line(&format!(
        "{shown} is a copy of the store, {bytes} bytes, read through and on the disk; see docs/BACKUP.md"
    ))?)
}

fn complain(text: &str) {
    command::complain("fedhis", text);
}
