//! `fedgate check`: everything `serve` would need, looked at without serving.

use std::path::Path;
use std::time::Duration;

use fedgate::config::{Config, StoreConfig};
use fedgate::db::{Database, hashes, postgres, schema};
use fedgate::gateway::Prepared;
use fedgate::observe;

use crate::{Failure, check_schema, load, print, print_line, store_exists, store_fault};

/// How long the look for rows of before that are served with limits may take, for each table: what runs is not to suffer.
const ODD_ROWS_PATIENCE: Duration = Duration::from_secs(5);

pub(crate) async fn run(file: &Path) -> Result<(), Failure> {
    let config = load(file)?;
    config.warnings().iter().chain(&config.open_defaults()).for_each(|warning| print::warn(warning));
    let store = match &config.store {
        StoreConfig::Sqlite(sqlite) => format!("embedded store {}", sqlite.path.display()),
        StoreConfig::Postgres(_) => "PostgreSQL".to_owned(),
    };
    store_exists(&config)?;
    let mut faults = 0;
    let (roles, plain) = (config.policy.roles.clone(), config.gateway.listen.is_empty());
    let prepared = Prepared::new(config.clone()).await.map_err(|error| Failure::Usage(error.into()))?;
    print_line(&format!("configuration  {} is valid", file.display()))?;
    tell_changed_defaults(&config)?;
    let policy = prepared.pipeline().policy();
    print_line(&format!(
        "policy         {} defines {}, fingerprint {}",
        roles.display(),
        print::count(policy.roles().len(), "role", "roles"),
        policy.fingerprint()
    ))?;
    for warning in policy.warnings(&prepared.pipeline().routes().asked()) {
        print_line(&format!("  line {}: {}", warning.line, warning.text))?;
    }
    if let Some(path) = &config.records.file {
        let can_be_written = observe::try_file(path, config.records.durable);
        can_be_written.map_err(|error| {
            Failure::Usage(anyhow::anyhow!("{}: `records.file`: {}: {error}", file.display(), path.display()))
        })?;
        print_line(&format!("records        {} can be written", path.display()))?;
    }
    if plain {
        print_line("certificate    none is needed: nothing listens with TLS")?;
    }
    for file in prepared.certificate_files() {
        let path = file.path.display();
        match file.key.as_str() {
            "tls.certificate" => print_line(&format!("certificate    {path} and its key belong together"))?,
            key => print_line(&format!("certificates   {path} (`{key}`)"))?,
        }
        file.certificates.iter().try_for_each(|one| print_line(&format!("  {one}")))?;
    }
    for finding in prepared.certificate_findings() {
        faults += usize::from(finding.is_fault);
        print_line(&format!("  {}: {}", if finding.is_fault { "fault" } else { "warning" }, finding.text))?;
    }
    for (upstream, servers) in prepared.upstreams() {
        let servers = servers.iter().map(|(server, addresses)| match addresses {
            0 => format!("{server} (has no address now)"),
            1 => (*server).to_owned(),
            several => format!("{server} ({several} addresses)"),
        });
        print_line(&format!("upstream       {upstream} at {}", servers.collect::<Vec<_>>().join(", ")))?;
    }
    let version = check_schema(&config, prepared.accounts().database()).await?;
    let epoch = prepared.accounts().check().await.map_err(|error| store_fault(&config, error))?;
    if version > schema::VERSION {
        let known = schema::VERSION;
        print::warn(&format!(
            "the schema has version {version}, of a newer release; this program knows {known}, and fedhis of it does not start"
        ));
    }
    print_line(&format!("database       {store} answers, schema version {version}, account epoch {epoch}"))?;
    for column in
        schema::loose_columns(prepared.accounts().database()).await.map_err(|error| store_fault(&config, error))?
    {
        print::warn(&column.to_string());
    }
    let unkept = schema::unkept_logins(prepared.accounts().database()).await;
    if let Some(unkept) = unkept.map_err(|error| store_fault(&config, error))? {
        print::warn(&unkept.to_string());
    }
    tell_hashes(&config, prepared.accounts().database()).await?;
    let odd = schema::odd_rows(prepared.accounts().database(), ODD_ROWS_PATIENCE).await;
    for rows in odd.map_err(|error| store_fault(&config, error))? {
        print::warn(&format!("{rows}; see docs/API.md, Rows of before"));
    }
    if let StoreConfig::Postgres(store) = &config.store
        && let Some(note) = postgres::note(store)
    {
        print_line(&format!("  {note}"))?;
    }
    match faults {
        0 => Ok(()),
        _ => Err(Failure::Usage(anyhow::anyhow!(
            "{}: {} in files of certificates, as told above",
            file.display(),
            print::count(faults, "fault", "faults")
        ))),
    }
}

/// Tells which hashes of passwords are written, and how many accounts a Thalamus on the same database could not log in.
async fn tell_hashes(config: &Config, database: &Database) -> Result<(), Failure> {
    let told = hashes::tell(database, config.authentication.hashes, ODD_ROWS_PATIENCE).await;
    let told = told.map_err(|error| store_fault(config, error))?;
    print_line(&format!("passwords      {}", told.written))?;
    told.unreadable.iter().for_each(|unreadable| print::warn(unreadable));
    Ok(())
}

/// Tells of each default that has changed and that the configuration leaves as it is, with what restores the old one.
fn tell_changed_defaults(config: &Config) -> Result<(), Failure> {
    let changed = &config.changed_defaults;
    if changed.is_empty() {
        return Ok(());
    }
    let count = print::count(changed.len(), "has", "have");
    print_line(&format!("defaults       {count} changed; a key that the file names, with either value, is not told:"))?;
    for default in changed {
        let (section, key, before) = (default.section, default.key, default.restored_by);
        print_line(&format!("  {} (`{section}.{key} = {before}` restores what was before)", default.now))?;
    }
    Ok(())
}
