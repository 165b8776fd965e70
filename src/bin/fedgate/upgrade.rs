//! `fedgate upgrade`: makes a running gateway hand its sockets to the program on disk.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use fedgate::gateway::{PreparedGateway, RunningGateway};
use fedgate_base::config::Config;

use crate::{check_schema, print_line};
use fedgate_base::command::CommandFailure;

/// How long the successor may take to listen: 5 s more than the gateway itself waits.
const PATIENCE: Duration = Duration::from_secs(65);
const LOOK: Duration = Duration::from_millis(20);

/// Checks what the successor will read, tells the running process to start it, and waits until it listens.
pub(crate) async fn run(config: Config) -> Result<(), CommandFailure> {
    let Some(file) = config.gateway.pid_file.clone() else {
        return Err(CommandFailure::Usage(anyhow!(
            "{}: `gateway.pid_file` is not set; name a file where the gateway writes its process id, and restart it \
             once",
            config.file.display()
        )));
    };
    let running = find(&file)?;
    // Most faults that would stop a successor are found here, before anything changes.
    let prepared = PreparedGateway::new(config.clone()).await.map_err(|error| CommandFailure::Usage(error.into()))?;
    match check_schema(&config, prepared.accounts().database()).await {
        // An unreachable database does not stop a successor.
        Err(CommandFailure::Failed(_)) | Ok(_) => drop(prepared),
        Err(outdated) => return Err(outdated),
    }
    RunningGateway::may_be_followed(&file).map_err(|error| {
        let remedy = "the directory of `gateway.pid_file` must be writable, on a disk that has room";
        CommandFailure::Usage(anyhow!(
            "{}: a successor could not write its process id: {error}; {remedy}",
            file.display()
        ))
    })?;
    running.hand_over().map_err(|error| anyhow!("process {}: {error}", running.pid()))?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let has_ended = running.ends_within(LOOK).map_err(anyhow::Error::from)?;
        // For a moment the file may be missing.
        let now = find(&file).ok();
        if now.as_ref().is_some_and(|now| now.has_failed_since(&running)) {
            return Err(CommandFailure::Failed(anyhow!(
                "the successor did not take over; process {} goes on, and its log says why",
                running.pid()
            )));
        }
        match now.filter(|now| now.pid() != running.pid()) {
            Some(now) => {
                let (pid, before) = (now.pid(), running.pid());
                let before = match has_ended {
                    true => format!("process {before} has ended"),
                    false => format!("process {before} finishes its requests in flight"),
                };
                return Ok(print_line(&format!("process {pid} listens; {before}"))?);
            }
            None if has_ended => {
                return Err(CommandFailure::Failed(anyhow!(
                    "process {} ended before a successor listened, and its log says why; start the gateway",
                    running.pid()
                )));
            }
            None => {}
        }
    }
    Err(CommandFailure::Failed(anyhow!(
        "the successor did not listen within {} s; process {} goes on, and its log says why",
        PATIENCE.as_secs(),
        running.pid()
    )))
}

fn find(file: &Path) -> anyhow::Result<RunningGateway> {
    let running = RunningGateway::find(file).map_err(|error| {
        let remedy = "no gateway runs with this configuration; `fedgate serve` starts one";
        anyhow!("{} (`gateway.pid_file`): {error}; {remedy}", file.display())
    })?;
    running.ok_or_else(|| {
        let problem = "no gateway holds this file; the one that wrote it has ended, and `fedgate serve` starts one";
        anyhow!("{} (`gateway.pid_file`): {problem}", file.display())
    })
}
