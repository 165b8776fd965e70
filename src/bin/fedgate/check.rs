//! `fedgate check`: tests everything that `serve` would need and do, without serving.
//!
//! The one rule: all faults are reported, not only the first, and a running gateway is not disturbed.

mod as_root;
mod connections;
mod replicas;

use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use fedgate::gateway::{AddressHolder, GatewayInspection, RunningGateway, ServeError};
use fedgate::observe;
use fedgate_base::config::{Config, ExaminedConfig, StoreConfig};
use fedgate_base::db::{Database, DbError, foreign, hashes, postgres, schema};
use fedgate_core::escape;
use serde_json::{Value, json};

use crate::print::{self, CommandReport};
use crate::{check_schema, incomplete, store_exists, store_fault};
use fedgate_base::command::CommandFailure;

/// How long the search for rows that are served with limits may take, for each table: running programs must not
/// suffer.
const ODD_ROWS_PATIENCE: Duration = Duration::from_secs(5);

/// The findings so far.
struct CheckReport {
    report: CommandReport,
    /// Whether each default that has changed is listed.
    with_changes: bool,
    faults: Vec<CommandFailure>,
    /// Faults of certificates, which are printed among the certificates.
    findings: Vec<String>,
}

pub(crate) async fn run(file: &Path, as_json: bool, with_changes: bool) -> Result<(), CommandFailure> {
    let mut check = CheckReport { report: CommandReport::new(as_json), with_changes, faults: vec![], findings: vec![] };
    let mut examined = Config::examine(file);
    examined.config = examined.config.map(|config| config.called("fedgate check"));
    let looked = check.look(file, &examined).await;
    if let Err(failure) = looked {
        check.faults.push(failure);
    }
    check.end(file)
}

impl CheckReport {
    async fn look(&mut self, file: &Path, examined: &ExaminedConfig) -> Result<(), CommandFailure> {
        self.faults.extend(examined.faults.iter().map(|fault| CommandFailure::Usage(anyhow!("{fault}"))));
        let Some(config) = &examined.config else { return Ok(()) };
        config.warnings().into_iter().chain(config.open_defaults()).for_each(|warning| self.report.warn(warning));
        if examined.faults.is_empty() {
            self.report.line(&format!("configuration  {} is valid", file.display()))?;
        }
        self.changed_defaults(config)?;
        let mut is_stored = examined.is_sound("store");
        if is_stored && let Err(missing) = store_exists(config) {
            self.faults.push(missing);
            is_stored = false;
        }
        let is_sound = |section: &str| examined.is_sound(section) && (section != "store" || is_stored);
        let mut inspection = GatewayInspection::new(config.clone(), is_sound).await;
        let fault_of = |fault: ServeError| {
            let text = anyhow!(config.origins.with_origin(&fault.to_string()));
            if fault.is_of_settings() { CommandFailure::Usage(text) } else { CommandFailure::Failed(text) }
        };
        self.faults.extend(inspection.take_faults().into_iter().map(fault_of));
        for (what, path) in inspection.routes().yielded() {
            self.report.line(&format!("routes         `{path}` is served instead of the built-in routes of {what}"))?;
        }
        self.beside(config, &inspection)?;
        self.policy(config, &inspection)?;
        self.records(config)?;
        self.certificates(config, &inspection)?;
        // The addresses of a faulty section would be the defaults.
        if is_sound("gateway") {
            self.listeners(config, &inspection)?;
        }
        self.upstreams(&inspection).await?;
        if let Err(failure) = self.database(config, &inspection).await {
            self.faults.push(failure);
        }
        Ok(())
    }

    /// Reports the routes that are refused to proxies that ask about their requests.
    fn beside(&mut self, config: &Config, inspection: &GatewayInspection) -> Result<(), CommandFailure> {
        if config.gateway.beside.listeners.is_empty() {
            return Ok(());
        }
        let not_decided: Vec<_> = inspection.routes().not_decided_beside().collect();
        let member = |(method, path, why): &(fedgate_core::methods::Method, &str, &str)| json!({ "method": method.as_str(), "path": path, "why": why });
        self.report.note("not_decided_beside", not_decided.iter().map(member).collect::<Vec<Value>>());
        let listeners = print::count(config.gateway.beside.listeners.len(), "listener", "listeners");
        let count = print::count(not_decided.len(), "route", "routes");
        self.report.line(&format!("beside         {listeners} for proxies that ask; {count} not decided there"))?;
        for (method, path, why) in not_decided {
            self.report.line(&format!("  {} {path}: {why}", method.as_str()))?;
        }
        Ok(())
    }

    /// Reports each changed default that the configuration leaves open, with the key that restores the old one.
    fn changed_defaults(&mut self, config: &Config) -> Result<(), CommandFailure> {
        let changed = &config.changed_defaults;
        let member = |default: &fedgate_base::config::ChangedDefault| json!({ "key": format!("{}.{}", default.section, default.key), "now": default.now, "restored_by": default.restored_by });
        self.report.note("changed_defaults", changed.iter().map(member).collect::<Vec<Value>>());
        if changed.is_empty() {
            return Ok(());
        }
        let count = print::count(changed.len(), "holds", "hold");
        let more = if self.with_changes { ":" } else { "; --changes lists them" };
        self.report.line(&format!(
            "defaults       {count} now that earlier builds of fedgate had otherwise; a new installation needs to do \
             nothing{more}"
        ))?;
        for default in changed.iter().filter(|_| self.with_changes) {
            let (section, key, before) = (default.section, default.key, default.restored_by);
            self.report.line(&format!("  {} (`{section}.{key} = {before}` restores the old default)", default.now))?;
        }
        Ok(())
    }

    fn policy(&mut self, config: &Config, inspection: &GatewayInspection) -> Result<(), CommandFailure> {
        let Some(policy) = inspection.policy() else { return Ok(()) };
        let roles = print::count(policy.roles().len(), "role", "roles");
        let (file, fingerprint) = (config.policy.roles.display(), policy.fingerprint());
        self.report.line(&format!("policy         {file} defines {roles}, fingerprint {fingerprint}"))?;
        let warnings = policy.warnings(&inspection.routes().asked());
        let members = warnings.iter().map(|warning| json!({ "line": warning.line, "text": warning.text }));
        let members: Vec<Value> = members.collect();
        self.report.note(
            "policy",
            json!({ "file": config.policy.roles, "roles": policy.roles().len(), "fingerprint": fingerprint, "warnings": members }),
        );
        for warning in warnings {
            self.report.line(&format!("  line {}: {}", warning.line, warning.text))?;
        }
        Ok(())
    }

    fn records(&mut self, config: &Config) -> Result<(), CommandFailure> {
        let Some(path) = &config.records.file else { return Ok(()) };
        // A missing directory was reported before.
        if path.parent().is_some_and(|directory| !directory.as_os_str().is_empty() && !directory.is_dir())
            || path.is_dir()
        {
            return Ok(());
        }
        match observe::try_file(path, config.records.durable) {
            Ok(()) => {
                self.report.line(&format!("records        {} can be written", path.display()))?;
                let (reserve, free) = (config.records.reserve_bytes, observe::free_bytes(path));
                if let Some(free) = free.filter(|free| *free < reserve) {
                    self.report.warn(format!(
                        "{}: its disk has {} MiB free, less than `records.reserve_mib` ({}): anonymous callers share \
                         a record until there is room; make some, or lower the key",
                        path.display(),
                        free >> 20,
                        reserve >> 20
                    ));
                }
            }
            Err(error) => {
                let (file, path) = (config.file.display(), path.display());
                let text = config.origins.with_origin(&format!("{file}: `records.file`: {path}: {error}"));
                self.faults.push(CommandFailure::Usage(anyhow!(text)));
            }
        }
        Ok(())
    }

    fn certificates(&mut self, config: &Config, inspection: &GatewayInspection) -> Result<(), CommandFailure> {
        if config.gateway.listen.is_empty() {
            self.report.line("certificate    none is needed: nothing listens with TLS")?;
        }
        let files = inspection.certificate_files();
        for file in &files {
            let path = file.path.display();
            match file.key.as_str() {
                "tls.certificate" => {
                    self.report.line(&format!("certificate    {path} and its key belong together"))?;
                }
                key => self.report.line(&format!("certificates   {path} (`{key}`)"))?,
            }
            file.certificates.iter().try_for_each(|one| self.report.line(&format!("  {one}")))?;
        }
        let members = files.into_iter().map(|file| {
            json!({ "key": file.key, "file": file.path, "certificates": file.certificates, "valid_to": file.valid_to })
        });
        self.report.note("certificates", members.collect::<Vec<Value>>());
        for finding in inspection.certificate_findings() {
            if finding.is_fault {
                self.report.line(&format!("  fault: {}", finding.text))?;
                self.findings.push(finding.text);
            } else if self.report.is_json() {
                self.report.warn(finding.text);
            } else {
                self.report.line(&format!("  warning: {}", finding.text))?;
            }
        }
        Ok(())
    }

    /// The addresses to listen on, and the files to write.
    fn listeners(&mut self, config: &Config, inspection: &GatewayInspection) -> Result<(), CommandFailure> {
        for fault in inspection.listen_faults() {
            match fault.holder {
                AddressHolder::Process => {}
                AddressHolder::Other => {
                    self.faults
                        .push(CommandFailure::Failed(anyhow!(config.origins.with_origin(&fault.error.to_string()))));
                }
                AddressHolder::Unseen => {
                    let why = match config.gateway.admin.is_empty() {
                        true => ", or set `gateway.admin`",
                        false => "; it does not answer at `gateway.admin`, which may have changed since it started",
                    };
                    self.report.warn(format!(
                        "{}; this user may not see whether the running gateway of this configuration listens there: \
                         run `fedgate check` as root{why}",
                        fault.error
                    ));
                }
            }
        }
        let running = inspection.running();
        if let Some(warning) = as_root::warning(config, running.as_ref().map(RunningGateway::pid)) {
            self.report.warn(warning);
        }
        if let Some(running) = running {
            self.report.line(&format!("gateway        process {} runs and holds `gateway.pid_file`", running.pid()))?;
            self.report.note("running", running.pid());
            if inspection.is_elsewhere(&running) {
                self.report.warn(format!(
                    "process {} holds `gateway.pid_file` and listens on no address of this configuration: `fedgate \
                     serve` would refuse to start beside it, and `fedgate upgrade` would replace it; give each \
                     gateway a file of its own",
                    running.pid()
                ));
            }
        }
        for (text, is_fault) in inspection.write_faults() {
            match is_fault {
                true => self.faults.push(CommandFailure::Usage(anyhow!(config.origins.with_origin(&text)))),
                false => self.report.warn(text),
            }
        }
        Ok(())
    }

    async fn upstreams(&mut self, inspection: &GatewayInspection) -> Result<(), CommandFailure> {
        let mut members = vec![];
        for (upstream, servers) in inspection.upstreams() {
            let names = servers.iter().map(|(server, addresses)| match addresses {
                0 => format!("{server} (has no address now)"),
                1 => (*server).to_owned(),
                several => format!("{server} ({several} addresses)"),
            });
            self.report.line(&format!("upstream       {upstream} at {}", names.collect::<Vec<_>>().join(", ")))?;
            let servers = servers.iter().map(|(server, addresses)| json!({ "server": server, "addresses": addresses }));
            members.push(json!({ "name": upstream, "servers": servers.collect::<Vec<Value>>() }));
        }
        self.report.note("upstreams", members);
        inspection.unreachable().await.into_iter().for_each(|problem| self.report.warn(problem));
        Ok(())
    }

    async fn database(&mut self, config: &Config, inspection: &GatewayInspection) -> Result<(), CommandFailure> {
        let Some(accounts) = inspection.accounts() else { return Ok(()) };
        let store = match &config.store {
            StoreConfig::Sqlite(sqlite) => format!("embedded store {}", sqlite.path.display()),
            StoreConfig::Postgres(_) => "PostgreSQL".to_owned(),
        };
        let database = accounts.database();
        // First, because otherwise the advice for another program's database would be to migrate it.
        foreign::refuse(database).await.map_err(|error| store_fault(config, error))?;
        let version = check_schema(config, database).await?;
        // Before anything uses the objects.
        let missing = schema::missing_objects(database).await.map_err(|error| store_fault(config, error))?;
        if let Some(missing) = missing {
            return Err(incomplete(config, &missing));
        }
        let epoch = accounts.check().await.map_err(|error| store_fault(config, error))?;
        accounts.may_report().await.map_err(|error| store_fault(config, error))?;
        // As a login replaces a hash. No row has this id.
        if matches!(config.store, StoreConfig::Postgres(_))
            && config.authentication.hashes.upgraded != Some(false)
            && let Err(error) = accounts.replace_hash("", "", "").await
        {
            self.report.warn(format!(
                "no login can replace a weak hash ({error}); run `fedhis migrate --roles`, or set \
                 `authentication.upgrade_hashes` to false"
            ));
        }
        if version > schema::VERSION {
            let known = schema::VERSION;
            self.report.warn(format!(
                "the schema has version {version}, of a newer release; this program knows {known}, and its fedhis \
                 does not start"
            ));
        }
        self.report
            .line(&format!("database       {store} answers, schema version {version}, account epoch {epoch}"))?;
        let role = database.role().await.map_err(|error| store_fault(config, error))?;
        if let Some(role) = &role {
            self.report.line(&format!("  as the role `{}`, with the rights of that role", escape::name(role)))?;
        }
        self.report.note("database", json!({ "store": store, "schema": version, "epoch": epoch, "role": role }));
        self.connections(config, database, inspection).await?;
        self.replicas(config, database, inspection).await?;
        if let Some(unbuilt) = schema::unbuilt_indexes(database).await.map_err(|error| store_fault(config, error))? {
            self.report.warn(unbuilt.to_string());
        }
        if let Some(moves) = schema::unfinished_moves(database).await.map_err(|error| store_fault(config, error))? {
            self.report.warn(moves.to_string());
        }
        for column in schema::loose_columns(database).await.map_err(|error| store_fault(config, error))? {
            self.report.warn(column.to_string());
        }
        let unkept = schema::unkept_logins(database).await;
        let unkept = self.unless_forbidden(config, "whether logins read whole documents", unkept)?.flatten();
        if let Some(unkept) = unkept {
            self.report.warn(unkept.to_string());
        }
        self.hashes(config, database).await?;
        // Last and with a bound: this may read whole tables.
        let odd = schema::odd_rows(database, ODD_ROWS_PATIENCE).await;
        for rows in odd.map_err(|error| store_fault(config, error))? {
            self.report.warn(format!("{rows}; see docs/API.md, Rows of before"));
        }
        if let StoreConfig::Postgres(store) = &config.store
            && let Some(note) = postgres::note(store)
        {
            self.report.line(&format!("  {note}"))?;
        }
        Ok(())
    }

    /// Reports which kind of password hash is written, and how many accounts a Thalamus on the same database could
    /// not log in.
    async fn hashes(&mut self, config: &Config, database: &Database) -> Result<(), CommandFailure> {
        let found = hashes::tell(database, config.authentication.hashes, ODD_ROWS_PATIENCE).await;
        let Some(found) = self.unless_forbidden(config, "which password hashes there are", found)? else {
            return Ok(());
        };
        self.report.line(&format!("passwords      {}", found.written))?;
        self.report.note("passwords", found.written.to_string());
        found.unreadable.iter().chain(&found.beside).for_each(|warning| self.report.warn(warning.clone()));
        Ok(())
    }

    /// The answer to a question that the gateway itself does not ask. If its role may not ask it, that is no fault.
    fn unless_forbidden<T>(
        &mut self,
        config: &Config,
        question: &str,
        answer: Result<T, DbError>,
    ) -> Result<Option<T>, CommandFailure> {
        match answer {
            Err(error) if error.is_forbidden() => {
                let reason = error.in_short();
                self.report.warn(format!("not checked: {question} ({reason}); run this as the owner of the database"));
                Ok(None)
            }
            answer => answer.map(Some).map_err(|error| store_fault(config, error)),
        }
    }

    /// Reports all faults; the outcome of the command follows from them.
    fn end(mut self, file: &Path) -> Result<(), CommandFailure> {
        let all = self.findings.iter().cloned().chain(self.faults.iter().map(CommandFailure::in_words));
        let all: Vec<Value> = all.map(Value::from).collect();
        let (count, is_json) = (all.len(), self.report.is_json());
        self.report.note("valid", all.is_empty());
        self.report.note("faults", all);
        let is_usage =
            !self.findings.is_empty() || self.faults.iter().any(|fault| matches!(fault, CommandFailure::Usage(_)));
        let outcome = match (count, self.findings.is_empty()) {
            (0, _) => Ok(()),
            (1, true) => self.faults.pop().map_or(Ok(()), Err),
            _ => {
                let told_here = self.faults.iter().filter(|_| !is_json);
                told_here.for_each(|fault| print::complain(&format!("fault: {}", fault.in_words())));
                let place = if is_json { "listed in `faults`" } else { "listed above" };
                let summary = anyhow!("{}: {}, {place}", file.display(), print::count(count, "fault", "faults"));
                Err(if is_usage { CommandFailure::Usage(summary) } else { CommandFailure::Failed(summary) })
            }
        };
        self.report.end(outcome)
    }
}
