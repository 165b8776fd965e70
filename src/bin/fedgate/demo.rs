//! `fedgate demo`: gateway and HIS as two processes, with the demo federation on the embedded store.
//!
//! All files are under one directory. Missing ones are made, and existing ones are kept, except the configuration:
//! stored data and an edited `roles.cfg` are there again at the next run.

mod place;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use fedgate::gateway::RunningGateway;
use fedgate_base::pem::{self, HeldCertificate};
use fedgate_base::{log, parent, ports, regular};
use rand::TryRngCore;
use rustix::fs::Mode;
use rustix::process::{Pid, Signal, geteuid, kill_process, umask};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use crate::{print_line, quote};
use fedgate_base::command::CommandFailure;

/// How long the two processes may take to listen, and to stop.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(35);
/// Validity of the certificate; browsers accept no longer one.
const CERTIFICATE_DAYS: i64 = 825;
/// The addresses of the name `localhost`.
const LOCALHOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
/// Longest path of a Unix socket, in bytes.
const MAX_SOCKET_PATH: usize = 100;

/// The address to listen on, as the argument gives it.
///
/// # Errors
/// It is no address and port; the text is the remedy.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let port = text.rsplit_once(':').map(|(_, port)| port).filter(|port| port.parse::<u16>().is_ok());
        format!("write an address in numbers and a port, such as 127.0.0.1:{}", port.unwrap_or("8443"))
    })
}

pub(crate) async fn run(listen: SocketAddr, dir: &Path) -> Result<(), CommandFailure> {
    // A port that the system chooses is chosen here, so that the addresses that are printed are right.
    let listen = free(listen)?;
    // No other user may read or change any file of the demo and of its two processes.
    umask(Mode::RWXG | Mode::RWXO);
    let files = DemoFiles::make(dir, listen).map_err(|error| {
        let (dir, reason) = (dir.display(), log::with_causes(error.as_ref()));
        CommandFailure::Usage(anyhow!("{dir}: cannot be set up: {reason}; `--dir` names the directory"))
    })?;
    let outcome = run_both(&files, listen).await;
    files.end();
    outcome
}

/// Loads the federation, and runs gateway and HIS until one of them ends or this process is told to.
async fn run_both(files: &DemoFiles, listen: SocketAddr) -> Result<(), CommandFailure> {
    let fedgate = std::env::current_exe()?;
    let fedhis = fedgate.with_file_name("fedhis");
    if !fedhis.exists() {
        return Err(CommandFailure::Usage(anyhow!(
            "{}: does not exist; build both programs (cargo build --release)",
            fedhis.display()
        )));
    }
    let command = |program: &Path, verb: &str| {
        let mut command = Command::new(program);
        command.arg(verb).arg("--config").arg(&files.config).stdin(Stdio::null()).kill_on_drop(true);
        // A separate process group: Ctrl-C reaches only this process, which then stops the two in order.
        command.process_group(0).env("FEDGATE_GATEWAY_LISTEN", listen.to_string());
        command.env("FEDGATE_GATEWAY_PID_FILE", &files.pid_file).env(parent::PARENT, std::process::id().to_string());
        command
    };
    let seeded = command(&fedhis, "seed").status().await.context("fedhis cannot be started")?;
    if !seeded.success() {
        return Err(anyhow!("the demo federation could not be loaded").into());
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Sent when the terminal is closed.
    let mut hangup = signal(SignalKind::hangup())?;
    // Spawned by the thread that waits for them: the kernel ends them with this thread, not with the process
    // (prctl(2)).
    let mut his = command(&fedhis, "serve").spawn().context("fedhis cannot be started")?;
    let mut gateway = command(&fedgate, "serve").spawn().context("fedgate cannot be started")?;
    let pids = (his.id(), gateway.id());
    let served = tokio::select! {
        exit = his.wait() => Err(anyhow!("fedhis ended unexpectedly: {}", exit?)),
        exit = gateway.wait() => Err(anyhow!("the gateway ended unexpectedly: {}", exit?)),
        served = serve(files, listen, pids) => served,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
    };
    stop(&mut gateway).await;
    stop(&mut his).await;
    Ok(served?)
}

/// Checks that the demo's address is free, and returns it with its port. The gateway's own message would name a
/// setting, which a demo does not let its user change.
fn free(listen: SocketAddr) -> Result<SocketAddr, CommandFailure> {
    TcpListener::bind(listen).and_then(|listener| listener.local_addr()).map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::PermissionDenied => ports::remedy(listen.port(), "--listen"),
            _ => "stop the program that listens there, or name another address with --listen".to_owned(),
        };
        CommandFailure::Failed(anyhow!("cannot listen on {listen}: {error}; {remedy}"))
    })
}

/// Once exactly these two listen, prints what to try; then waits for ever.
async fn serve(
    files: &DemoFiles,
    listen: SocketAddr,
    (his, gateway): (Option<u32>, Option<u32>),
) -> anyhow::Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    while files.his().await != his || files.gateway() != gateway {
        if Instant::now() > deadline {
            return Err(anyhow!("gateway and HIS did not listen within {} s", START_TIMEOUT.as_secs()));
        }
        sleep(Duration::from_millis(20)).await;
    }
    welcome(files, listen).lines().try_for_each(print_line)?;
    std::future::pending().await
}

async fn stop(child: &mut Child) {
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(pid) = pid {
        let _ = kill_process(pid, Signal::INT);
    }
    if timeout(STOP_TIMEOUT, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn welcome(files: &DemoFiles, listen: SocketAddr) -> String {
    let url = match reachable(listen) {
        // The name leads to these two, and to no other address of the loopback network.
        address if LOCALHOST.contains(&address.ip()) => format!("https://localhost:{}", address.port()),
        address => format!("https://{address}"),
    };
    let certificate = files.certificate.to_string_lossy();
    let certificate = quote::quoted(&certificate);
    format!(
        "
fedgate serves the demo federation at {url}

  account        password       person           roles
  ITAPYT999HON   gnusolidario   Cameron Cordara  end_user, health_professional
  ESPGNU777ORG   gnusolidario   Ana Betz         end_user
  ARGBUE111FAV   freedom        Admin Root       root

Try, in another terminal:

  allowed: Ana reads her own record
    curl --cacert {certificate} -u ESPGNU777ORG:gnusolidario {url}/people/ESPGNU777ORG
  denied: Ana asks for another's (403)
    curl --cacert {certificate} -u ESPGNU777ORG:gnusolidario {url}/people/ARGBUE111FAV
  wrong password (401)
    curl --cacert {certificate} -u ESPGNU777ORG:wrong {url}/people/ESPGNU777ORG

Everything is kept in {}; an edit of its roles.cfg takes effect while this runs.
Each request is recorded below, one line of JSON. Ctrl-C stops both processes.
",
        files.dir.display()
    )
}

/// The files of the demo.
struct DemoFiles {
    dir: PathBuf,
    config: PathBuf,
    certificate: PathBuf,
    socket: PathBuf,
    pid_file: PathBuf,
}

impl DemoFiles {
    fn make(dir: &Path, listen: SocketAddr) -> anyhow::Result<Self> {
        let dir = std::path::absolute(dir)?;
        for own in [dir.clone(), dir.join("certs")] {
            place::make(&own)?;
            place::check_files(&own)?;
        }
        let files = Self {
            config: dir.join("fedgate.toml"),
            certificate: dir.join("certs/localhost.pem"),
            socket: socket(&dir)?,
            pid_file: dir.join("gateway.pid"),
            dir,
        };
        // Before anything is written, because another demo uses the existing files.
        if let Some(running) = RunningGateway::find(&files.pid_file).ok().flatten() {
            bail!(
                "a demo runs there already (its gateway is process {}); stop it with Ctrl-C, or name another directory",
                running.pid()
            );
        }
        let key = files.dir.join("certs/localhost.key");
        if !key.exists() || !is_for(&files.certificate, reachable(listen).ip()) {
            let (certificate, private_key) = self_signed(reachable(listen).ip())?;
            write(&key, 0o600, private_key.as_bytes())?;
            write(&files.certificate, 0o644, certificate.as_bytes())?;
        }
        let secret = files.dir.join("assertion.secret");
        if !secret.exists() {
            let mut bytes = [0u8; 48];
            rand::rngs::OsRng.try_fill_bytes(&mut bytes)?;
            write(&secret, 0o600, STANDARD.encode(bytes).as_bytes())?;
        }
        let roles = files.dir.join("roles.cfg");
        if !roles.exists() {
            write(&roles, 0o644, include_bytes!("../../../policies/roles.cfg"))?;
        }
        // Rewritten each time: the socket may have to be elsewhere, and your own configuration is for `serve`.
        write(&files.config, 0o644, configuration(&files.socket, listen).as_bytes())?;
        Ok(files)
    }

    /// Removes the directory of the socket, if the socket is not in the demo's own.
    fn end(&self) {
        if let Some(own) = self.socket.parent().filter(|own| *own != self.dir) {
            let _ = std::fs::remove_file(&self.socket);
            let _ = std::fs::remove_dir(own);
        }
    }

    /// The process that listens on the socket of the HIS.
    async fn his(&self) -> Option<u32> {
        let peer = UnixStream::connect(&self.socket).await.ok()?.peer_cred().ok()?;
        peer.pid()?.try_into().ok()
    }

    /// The process of the gateway; it writes its id when it listens.
    fn gateway(&self) -> Option<u32> {
        std::fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok()
    }
}

/// In the directory, unless its path is too long for a socket; then in a directory of its own for temporary files.
fn socket(dir: &Path) -> anyhow::Result<PathBuf> {
    let inside = dir.join("his.sock");
    if inside.as_os_str().len() <= MAX_SOCKET_PATH {
        return Ok(inside);
    }
    let name = blake3::hash(dir.as_os_str().as_encoded_bytes()).to_hex();
    let name = format!("fedgate-demo-{}-{}", geteuid().as_raw(), name.get(..16).unwrap_or_default());
    let own = std::path::absolute(std::env::temp_dir())?.join(name);
    place::make(&own)?;
    place::check_files(&own)?;
    Ok(own.join("his.sock"))
}

fn configuration(socket: &Path, listen: SocketAddr) -> String {
    let socket = toml::Value::String(format!("unix:{}", socket.display()));
    format!(
        "# Made by `fedgate demo`, at each start. examples/fedgate.toml states every key.

[gateway]
listen = [\"{listen}\"]
admin = []
pid_file = \"gateway.pid\"

[tls]
certificate = \"certs/localhost.pem\"
key = \"certs/localhost.key\"

[policy]
roles = \"roles.cfg\"

[records]
file = \"records.jsonl\"

[store]
kind = \"sqlite\"
path = \"fedgate.db\"

[assertion]
secret_file = \"assertion.secret\"

[his]
listen = {socket}
"
    )
}

/// Whether a certificate of an earlier run is there, and names this address.
fn is_for(certificate: &Path, address: IpAddr) -> bool {
    let chain = pem::certificates(certificate).unwrap_or_default();
    HeldCertificate::all(&chain).iter().any(|held| held.names.contains(&address.to_string()))
}

/// A self-signed certificate for localhost and an address (ECDSA P-256): certificate and key as PEM.
fn self_signed(address: IpAddr) -> anyhow::Result<(String, String)> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    if !LOCALHOST.contains(&address) {
        names.push(address.to_string());
    }
    let mut parameters = rcgen::CertificateParams::new(names)?;
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "fedgate demo");
    parameters.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(1);
    parameters.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(CERTIFICATE_DAYS - 1);
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    Ok((parameters.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn write(path: &Path, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
    regular::write(path, mode, bytes).with_context(|| format!("{}: cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_banner_tells_to_try_is_read_by_a_shell_as_it_is_meant() {
        let dir = PathBuf::from("/home/ana/my demo's");
        let files = DemoFiles {
            config: dir.join("fedgate.toml"),
            certificate: dir.join("certs/localhost.pem"),
            socket: dir.join("his.sock"),
            pid_file: dir.join("gateway.pid"),
            dir,
        };
        let told = welcome(&files, SocketAddr::from(([127, 0, 0, 1], 8443)));
        let quoted = r"curl --cacert '/home/ana/my demo'\''s/certs/localhost.pem' -u ";
        assert_eq!(told.matches(quoted).count(), told.matches("curl ").count(), "{told}");
    }
}
