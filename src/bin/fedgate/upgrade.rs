//! `fedgate upgrade`: a running gateway hands its sockets to the program that is on disk now.

use std::path::Path;
use std::time::{Duration, Instant};

use fedgate::config::Config;
use fedgate::gateway::Prepared;
use rustix::process::{Pid, Signal, kill_process};

use crate::{Failure, print_line};

/// How long the successor may take to listen.
const PATIENCE: Duration = Duration::from_secs(65);
const LOOK: Duration = Duration::from_millis(20);

/// Checks what the successor will read, then tells the running process to start it, and waits until it listens.
pub(crate) async fn run(config: Config) -> Result<(), Failure> {
    let Some(file) = config.gateway.pid_file.clone() else {
        return Err(Failure::Usage(anyhow::anyhow!(
            "{}: `gateway.pid_file` is not set; name a file where the gateway writes its process id, and restart it once",
            config.file.display()
        )));
    };
    let running = read(&file)?;
    // Most that keeps a successor from starting is found here, before anything is touched.
    drop(Prepared::new(config).await.map_err(|error| Failure::Usage(error.into()))?);
    kill_process(running, Signal::USR2)
        .map_err(|error| anyhow::anyhow!("process {}: {error}", running.as_raw_nonzero()))?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match read(&file) {
            Ok(now) if now != running => {
                print_line(&format!(
                    "process {} listens; process {} finishes what is in flight",
                    now.as_raw_nonzero(),
                    running.as_raw_nonzero()
                ))?;
                return Ok(());
            }
            // Between two writes, or unchanged.
            Ok(_) | Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
    Err(Failure::Failed(anyhow::anyhow!(
        "the successor did not listen within {} s; process {} goes on, and its log says why",
        PATIENCE.as_secs(),
        running.as_raw_nonzero()
    )))
}

fn read(file: &Path) -> anyhow::Result<Pid> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| anyhow::anyhow!("{}: {error}; no gateway runs with this configuration", file.display()))?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| anyhow::anyhow!("{}: holds no process id", file.display()))
}
