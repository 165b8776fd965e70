//! Whether this program can work with the schema of a database.
//!
//! The one rule: the version and all objects must be those of this program. Otherwise the error names the remedy.

use anyhow::anyhow;

use fedgate_base::command::CommandFailure;
use fedgate_base::db::schema::MissingObjects;
use fedgate_base::db::{Database, DbError, schema};

/// The version of a database's schema, and what the schema lacks.
pub(crate) struct SchemaFound {
    version: i64,
    missing: Option<MissingObjects>,
}

impl SchemaFound {
    /// Reads the state of a schema.
    pub(crate) async fn of(database: &Database) -> Result<Self, DbError> {
        let version = schema::version(database).await?;
        Ok(Self { version, missing: schema::missing_objects(database).await? })
    }

    /// An error unless the schema is the one that this program needs.
    pub(crate) fn check(&self) -> Result<(), CommandFailure> {
        check_version(self.version)?;
        match &self.missing {
            None => Ok(()),
            Some(missing) => Err(CommandFailure::Usage(anyhow!("{missing}"))),
        }
    }
}

fn check_version(version: i64) -> Result<(), CommandFailure> {
    match version {
        schema::VERSION => Ok(()),
        newer if newer > schema::VERSION => Err(CommandFailure::Usage(anyhow!(
            "the database has schema version {newer}, this program knows {}; install its newer release",
            schema::VERSION
        ))),
        0 => Err(CommandFailure::Usage(anyhow!("the database has no schema of fedgate; run `fedhis migrate`"))),
        older => Err(CommandFailure::Usage(anyhow!(
            "the database has schema version {older}, {} is needed; run `fedhis migrate`",
            schema::VERSION
        ))),
    }
}
