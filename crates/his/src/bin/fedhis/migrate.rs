//! `fedhis migrate`: the schema, and what the operator has to know about older rows.
//!
//! The one rule: what takes long is told while it lasts, on a terminal in one line, and elsewhere in lines that a log can
//! keep.

use std::io::{self, IsTerminal};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use indicatif::{ProgressBar, ProgressStyle};

use fedgate_base::command::{CommandFailure, print_line};
use fedgate_base::config::{Config, StoreConfig};
use fedgate_base::db::schema::roles::{self, RoleNames, RolesError};
use fedgate_base::db::schema::{self, PartitionCount, PartitionError};
use fedgate_base::db::{Database, hashes};
use fedgate_base::patience;

use super::{ODD_ROWS_PATIENCE, complain, open};

/// How often a step without figures is told.
const STEP: Duration = Duration::from_secs(2);
/// How often a log is told how far a build is.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What a migration does beyond the schema.
#[derive(clap::Args)]
pub(super) struct MigrateArguments {
    /// Also give the database roles of the programs their rights, and take all others from them (PostgreSQL).
    ///
    /// Three roles: of the HIS, of the gateway, and of the operator who changes accounts. Missing ones are created if this
    /// role may create roles. Later migrations keep their rights complete. Programs of an older release do not work with
    /// these rights, so replace them first.
    #[arg(
        long, value_name = "HIS,GATEWAY,OPERATOR", num_args = 0..=1, require_equals = true,
        default_missing_value = RoleNames::USUAL
    )]
    roles: Option<RoleNames>,
    /// Move pages and documents to this many partitions by person (2 to 128), or back to one table (0).
    ///
    /// For PostgreSQL, while the federation works; an interrupted move goes on when this is run again. It takes room
    /// for both tables once more. See docs/OPERATE.md, Partitions.
    #[arg(long, value_name = "N")]
    partition: Option<u16>,
}

pub(super) async fn migrate(config: &Config, asked: &MigrateArguments) -> Result<(), CommandFailure> {
    let count = asked.partition.map(PartitionCount::new).transpose().map_err(refused)?;
    if count.is_some() && !matches!(config.store, StoreConfig::Postgres(_)) {
        let file = config.file.display();
        let problem = "the store is a file of SQLite, which has no partitions; `--partition` is for PostgreSQL";
        return Err(CommandFailure::Usage(anyhow!("{file}: {problem} (docs/OPERATE.md, Partitions)")));
    }
    let database = open(config).await?;
    if asked.roles.is_some() && matches!(database, Database::Sqlite(_)) {
        return Err(CommandFailure::Usage(RolesError::Embedded.into()));
    }
    let progress = MigrationProgress::new()?;
    let report = |line: &str| progress.report(line);
    let migration = schema::migrate_and_report(&database, &report);
    let version = patience::on_store(&config.store, migration).await;
    let version = version.inspect_err(|_| progress.end())?;
    let newer = if version > schema::VERSION { ", of a newer release than this; nothing was changed" } else { "" };
    for column in schema::loose_columns(&database).await? {
        complain(&format!("warning: {column}"));
    }
    let odd = schema::odd_rows(&database, ODD_ROWS_PATIENCE);
    let odd = progress.during("looking for rows that are served with limits", odd).await;
    let told = match version == schema::VERSION {
        true => {
            let told = hashes::tell(&database, config.authentication.hashes, ODD_ROWS_PATIENCE);
            Some(progress.during("looking at password hashes", told).await)
        }
        false => None,
    };
    progress.end();
    for rows in odd? {
        complain(&format!("warning: {rows}; see docs/API.md, Rows of before"));
    }
    if let Some(names) = &asked.roles {
        match roles::set_up(&database, names).await {
            Ok(()) => print_line(&format!("roles: {names}"))?,
            Err(RolesError::Database(error)) => return Err(error.into()),
            Err(fault) => return Err(CommandFailure::Failed(fault.into())),
        }
    }
    if let Some(told) = told {
        let told = told?;
        for warning in told.unreadable.iter().chain(&told.beside) {
            complain(&format!("warning: {warning}"));
        }
        print_line(&format!("passwords: {}", told.written))?;
    }
    print_line(&format!("the schema is at version {version}{newer}"))?;
    if let (Some(count), true) = (count, version == schema::VERSION) {
        let progress = MigrationProgress::new()?;
        let moved = schema::partition(&database, count, &|line| progress.report(line)).await;
        progress.end();
        print_line(&moved.map_err(refused)?)?;
    }
    Ok(())
}

fn refused(error: PartitionError) -> CommandFailure {
    match error {
        PartitionError::Refused(problem) => CommandFailure::Usage(anyhow!(problem)),
        PartitionError::Database(error) => error.into(),
    }
}

/// Where the lines of a long migration go.
enum MigrationProgress {
    Terminal(ProgressBar),
    /// The last line, without its figures, and its time.
    Log(Mutex<Option<(String, Instant)>>),
}

impl MigrationProgress {
    fn new() -> Result<Self, CommandFailure> {
        if !io::stderr().is_terminal() {
            return Ok(Self::Log(Mutex::default()));
        }
        let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg}")?);
        Ok(Self::Terminal(bar))
    }

    fn report(&self, line: &str) {
        match self {
            Self::Terminal(bar) => {
                bar.set_message(line.to_owned());
                bar.tick();
            }
            Self::Log(told) => {
                let step: String = line.chars().filter(|character| !character.is_ascii_digit()).collect();
                let Ok(mut told) = told.lock() else { return };
                if told.as_ref().is_none_or(|(last, at)| *last != step || at.elapsed() >= TOLD_EVERY) {
                    *told = Some((step, Instant::now()));
                    complain(line);
                }
            }
        }
    }

    fn end(&self) {
        match self {
            Self::Terminal(bar) => bar.finish_and_clear(),
            Self::Log(_) => {}
        }
    }

    /// Tells of a step for as long as it lasts, but not of one that is done at once.
    async fn during<T>(&self, step: &str, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(STEP, &mut work).await {
                Ok(done) => return done,
                Err(_) => self.report(step),
            }
        }
    }
}
