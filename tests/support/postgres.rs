//! A private PostgreSQL cluster for tests: made in a temporary directory, and gone when the test process ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use fedgate_base::config::{PostgresConfig, ReplicaConfig, StoreConfig};
use fedgate_base::db::schema::roles;
use fedgate_base::db::{Database, schema};

/// How long a write of a test waits for a lock.
const LOCK_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// The roles of the programs.
const ROLES: &str = roles::RoleNames::USUAL;

/// The same database as a program's role reaches it, with the rights that `fedhis migrate --roles` gives. A database that
/// is another role's already stays as it is.
pub async fn as_role(owner: &PostgresConfig, role: &str) -> PostgresConfig {
    static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    // Libraries that a session loads are the superuser's.
    if !owner.uri.contains("user=postgres") || owner.uri.contains("session_preload_libraries") {
        return owner.clone();
    }
    let database = Database::open(&StoreConfig::Postgres(owner.clone())).await.unwrap();
    let Database::Postgres(pool) = &database else { unreachable!() };
    // Roles belong to the cluster, not to one database.
    let turn = ONE_AT_A_TIME.lock().await;
    let known = pool.get().await.unwrap().query_one("SELECT count(*) FROM fedgate_roles", &[]).await.unwrap();
    if known.get::<_, i64>(0) == 0 {
        roles::set_up(&database, &ROLES.parse().unwrap()).await.unwrap();
    }
    drop(turn);
    let by_role = |uri: &str| uri.replace("user=postgres", &format!("user={role}"));
    let replica = |replica: &ReplicaConfig| ReplicaConfig { uri: by_role(&replica.uri), ..replica.clone() };
    let replicas = owner.replicas.iter().map(replica).collect();
    PostgresConfig { uri: by_role(&owner.uri), replicas, ..owner.clone() }
}

/// A running cluster that listens on a Unix socket in its directory.
pub struct Cluster {
    directory: PathBuf,
    programs: PathBuf,
    databases: AtomicUsize,
    /// Options of the server beyond the usual.
    options: Mutex<String>,
    /// Stops the server and removes the directory when its pipe closes, however this process ends.
    _watchdog: Child,
}

impl Cluster {
    /// The cluster that the tests of this process share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A cluster for one test that stops and starts it.
    pub fn start() -> Self {
        let cluster = Self::make();
        run(cluster
            .program("initdb")
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "-D"])
            .arg(cluster.directory.join("data")));
        cluster.resume();
        cluster
    }

    /// A standby that follows this cluster by streaming.
    pub fn standby(&self) -> Self {
        let standby = Self::make();
        run(self
            .program("pg_basebackup")
            .args(["-U", "postgres", "-h"])
            .arg(&self.directory)
            .args(["--write-recovery-conf", "--no-sync", "--checkpoint=fast", "-D"])
            .arg(standby.directory.join("data")));
        standby.resume();
        standby
    }

    /// A standby without which this cluster acknowledges no commit and shows none.
    pub fn synchronous_standby(&self) -> Self {
        let standby = self.standby();
        // After the standby was copied, which is to wait for nobody once it is the primary.
        let mut program = self.program("psql");
        program.args(["-X", "-q", "-U", "postgres", "-h"]).arg(&self.directory);
        program.args(["-c", "ALTER SYSTEM SET synchronous_standby_names = '*'", "-c", "SELECT pg_reload_conf()"]);
        run(&mut program);
        standby
    }

    /// Promotes a standby to a primary with a history of its own.
    pub fn promote(&self) {
        run(self.program("pg_ctl").arg("-D").arg(self.directory.join("data")).args(["-w", "promote"]));
    }

    /// A directory for a cluster, and the process that removes it.
    fn make() -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let programs = programs();
        let count = STARTED.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("fedhis-pg-{}-{count}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        if rustix::process::geteuid().is_root() {
            run(Command::new("chown").arg("postgres").arg(&directory));
        }
        let quoted = directory.display();
        let stop = format!("{}/pg_ctl -D {quoted}/data -m immediate stop", programs.display());
        let stop = if rustix::process::geteuid().is_root() { format!("runuser -u postgres -- {stop}") } else { stop };
        let watchdog = Command::new("sh")
            .arg("-c")
            .arg(format!("trap '' INT TERM HUP; cat > /dev/null; {stop} > /dev/null 2>&1; rm -rf {quoted}"))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Self { directory, programs, databases: AtomicUsize::new(0), options: Mutex::default(), _watchdog: watchdog }
    }

    /// Starts the server, for the first time or again.
    pub fn resume(&self) {
        let options = format!(
            "-k {} -c listen_addresses='' -c fsync=off -c full_page_writes=off -c max_connections=400 \
             -c wal_level=logical -c max_prepared_transactions=4 -c wal_retrieve_retry_interval=100ms {}",
            self.directory.display(),
            self.options.lock().unwrap()
        );
        let (data, log) = (self.directory.join("data"), self.directory.join("log"));
        let mut start = self.program("pg_ctl");
        start.arg("-D").arg(data).args(["-w", "-l"]).arg(&log).args(["-o", &options, "start"]);
        let status = start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        let log = || std::fs::read_to_string(&log).unwrap_or_default();
        assert!(status.success(), "{start:?}: {}", log().lines().rev().take(9).collect::<Vec<_>>().join("\n"));
    }

    /// Kills the server, so that it finishes nothing.
    pub fn kill(&self) {
        run(self.program("pg_ctl").arg("-D").arg(self.directory.join("data")).args(["-m", "immediate", "-w", "stop"]));
    }

    /// Kills all processes of the server as `kill -9` does.
    pub fn crash(&self) {
        // A suspended server starts no process that would be missed.
        self.freeze(true);
        let pid = self.pid();
        let script = format!(
            "all=\"{pid} $(ps -o pid= --ppid {pid})\"; kill -KILL $all; \
             while ps -o stat= $all | grep -qv '^Z'; do sleep 0.002; done"
        );
        run(Command::new("sh").arg("-c").arg(script));
        // A parent that does not reap it leaves a process id that looks alive.
        for file in ["data/postmaster.pid", ".s.PGSQL.5432.lock", ".s.PGSQL.5432"] {
            std::fs::remove_file(self.directory.join(file)).unwrap();
        }
    }

    /// Kills one process of the server that serves a session. The server ends all others, and recovers.
    pub fn crash_session(&self) {
        let script = format!(
            "kill -KILL $(ps -o pid=,args= --ppid {} | grep 'postgres: postgres' | head -n 1 | awk '{{print $1}}') || true",
            self.pid()
        );
        run(Command::new("sh").arg("-c").arg(script));
    }

    /// The process of the server from which all others come.
    fn pid(&self) -> String {
        let file = std::fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap();
        file.lines().next().unwrap().to_owned()
    }

    /// The same database on another cluster.
    pub fn moved(&self, database: &PostgresConfig) -> PostgresConfig {
        let name = database.uri.split("dbname=").nth(1).unwrap();
        PostgresConfig { uri: self.uri(name), ..database.clone() }
    }

    /// The same database with these standbys as its replicas.
    pub fn read_from(database: &PostgresConfig, standbys: &[&Self]) -> PostgresConfig {
        let replica = |standby: &&Self| ReplicaConfig { uri: standby.moved(database).uri, ca_file: None };
        PostgresConfig { replicas: standbys.iter().map(replica).collect(), ..database.clone() }
    }

    /// A database on two clusters, in the given order.
    pub fn on_all(clusters: [&Self; 2], database: &PostgresConfig) -> PostgresConfig {
        let name = database.uri.split("dbname=").nth(1).unwrap();
        let hosts = clusters.map(|cluster| cluster.directory.display().to_string()).join(",");
        PostgresConfig { uri: format!("host={hosts} user=postgres dbname={name}"), ..database.clone() }
    }

    /// A new database, restored from a dump of another with the commands of docs/BACKUP.md.
    pub fn dumped_and_restored(&self, database: &PostgresConfig) -> PostgresConfig {
        let page = std::fs::read_to_string("docs/BACKUP.md").unwrap();
        let name = database.uri.split("dbname=").nth(1).unwrap();
        let (restored, dump) = (format!("{name}restored"), self.directory.join(format!("{name}.dump")));
        let commands = ["    pg_dump ", "createdb ", "pg_restore "].map(|begin| {
            let line = page.lines().find(|line| line.starts_with(begin)).unwrap().trim();
            let line = line.replace("federation.dump", dump.to_str().unwrap());
            let line = line.replace("-O fedgate", "-O postgres");
            line.replace("restored", &restored).replace(" federation", &format!(" {name}"))
        });
        for command in commands {
            let mut words = command.split(' ');
            let mut program = self.program(words.next().unwrap());
            run(program.args(["-U", "postgres", "-h"]).arg(&self.directory).args(words));
        }
        PostgresConfig { uri: self.uri(&restored), ..database.clone() }
    }

    /// Runs a script of psql as a role, which may read the files that it names.
    pub fn psql(&self, role: &str, database: &str, script: &Path) {
        let mut program = self.program("psql");
        program.args(["-X", "-q", "-U", role, "-d", database, "-h"]).arg(&self.directory).arg("-f").arg(script);
        run(&mut program);
    }

    /// Waits until a standby has everything that its primary has committed.
    pub async fn follow(&self, primary: &PostgresConfig) {
        let standby = self.moved(primary);
        let at = super::postgres_text(primary, "SELECT pg_current_wal_lsn()::text").await;
        let has_it = format!("SELECT (pg_last_wal_replay_lsn() >= '{at}')::text");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while super::postgres_text(&standby, &has_it).await != "true" {
            assert!(std::time::Instant::now() < deadline, "the standby does not follow");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Starts a pooling proxy in front of this cluster, which gives a session to another client after each
    /// transaction. Returns the connection string through it, and the process, which ends when it is dropped. In
    /// its default configuration the proxy refuses `options`.
    pub fn pooled(&self, database: &PostgresConfig, takes_options: bool) -> (String, Pooler) {
        let name = database.uri.split("dbname=").nth(1).unwrap();
        let (pooler, port) = (self.directory.join("pgbouncer.ini"), 6432);
        let directory = self.directory.display();
        let ignored = if takes_options { "options,extra_float_digits" } else { "extra_float_digits" };
        let text = format!(
            "[databases]\n* = host={directory}\n[pgbouncer]\npool_mode = transaction\nlisten_addr =\nunix_socket_dir = \
             {directory}\nlisten_port = {port}\nauth_type = any\nignore_startup_parameters = {ignored}\n"
        );
        std::fs::write(&pooler, text.replace("* = host", &format!("{name} = user=postgres host"))).unwrap();
        let mut command = match rustix::process::geteuid().is_root() {
            // pgbouncer, like PostgreSQL, refuses to run as root.
            true => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "/usr/sbin/pgbouncer"]);
                command
            }
            false => Command::new("pgbouncer"),
        };
        let child = command.arg("-q").arg(&pooler).stdin(Stdio::null()).spawn().unwrap();
        let socket = self.directory.join(format!(".s.PGSQL.{port}"));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(std::time::Instant::now() < deadline, "pgbouncer does not listen");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        (format!("host={directory} port={port} user=postgres dbname={name}"), Pooler(child))
    }

    /// Lets the server listen on TCP and require TLS there, with a new certificate for `localhost`. Returns the
    /// port and the certificate's file.
    pub fn encrypt(&self) -> (u16, PathBuf) {
        self.encrypt_with(rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap())
    }

    /// As [`encrypt`](Self::encrypt), with another self-signed certificate.
    pub fn encrypt_with(&self, certificate: rcgen::CertificateParams) -> (u16, PathBuf) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        let (certificate_file, key_file) = (self.directory.join("server.crt"), self.directory.join("server.key"));
        std::fs::write(&certificate_file, certificate.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        run(Command::new("chmod").args(["600"]).arg(&key_file));
        if rustix::process::geteuid().is_root() {
            run(Command::new("chown").arg("postgres").args([&certificate_file, &key_file]));
        }
        let port = super::free_address().port();
        self.kill();
        *self.options.lock().unwrap() = format!(
            "-p {port} -c listen_addresses=localhost -c ssl=on -c ssl_cert_file={} -c ssl_key_file={}",
            certificate_file.display(),
            key_file.display()
        );
        self.resume();
        (port, certificate_file)
    }

    /// Lets the server listen on a socket in another directory too, and returns its port.
    pub fn listen_in(&self, directory: &Path) -> u16 {
        let port = super::free_address().port();
        self.kill();
        *self.options.lock().unwrap() = format!("-p {port} -k {},{}", self.directory.display(), directory.display());
        self.resume();
        port
    }

    /// Suspends the server's processes, or resumes them.
    pub fn freeze(&self, is_frozen: bool) {
        let pid = self.pid();
        // A signalled process may still run for a moment, and a child that is being forked is not listed yet.
        let all = format!("{pid} $(ps -o pid= --ppid {pid})");
        let stands = format!("! ps -o stat= --pid {pid} --ppid {pid} | grep -qv '^[TZ]'");
        let script = match is_frozen {
            true => format!("until kill -STOP {all}; {stands}; do sleep 0.002; done"),
            // A child that ends meanwhile needs none.
            false => format!("kill -CONT {all} || kill -CONT {pid}"),
        };
        run(Command::new("sh").arg("-c").arg(script));
    }

    /// An empty database.
    pub async fn database(&self) -> PostgresConfig {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let (client, connection) =
            tokio_postgres::connect(&self.uri("postgres"), tokio_postgres::NoTls).await.expect("the cluster is there");
        tokio::spawn(connection);
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        PostgresConfig {
            uri: self.uri(&name),
            password: None,
            ca_file: None,
            pool_size: 4,
            lock_timeout: LOCK_TIMEOUT,
            application: "fedgate",
            replicas: vec![],
        }
    }

    /// A migrated database with the accounts `P0`, `P1`, … of one password, all of them health professionals.
    pub async fn database_with_accounts(&self, count: usize, password_hash: &str) -> PostgresConfig {
        let database = self.database().await;
        let opened = Database::open(&StoreConfig::Postgres(database.clone())).await.unwrap();
        schema::migrate(&opened).await.unwrap();
        let Database::Postgres(pool) = opened else { unreachable!() };
        let insert = "INSERT INTO people SELECT 'P' || n, jsonb_build_object('password', $1::text, 'active', true, \
                      'roles', jsonb_build_array('end_user', 'health_professional')) FROM generate_series(0, $2) n";
        let last = i32::try_from(count).unwrap() - 1;
        pool.get().await.unwrap().execute(insert, &[&password_hash, &last]).await.unwrap();
        database
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.directory.join("log")).unwrap()).into_owned()
    }

    /// The socket it listens on.
    pub fn socket(&self) -> PathBuf {
        self.directory.join(".s.PGSQL.5432")
    }

    fn uri(&self, database: &str) -> String {
        format!("host={} user=postgres dbname={database}", self.directory.display())
    }

    /// A program of PostgreSQL. Root runs it as another user, because the server refuses to run as root.
    fn program(&self, name: &str) -> Command {
        // Another version may have come without the programs of clients.
        let program = [self.programs.join(name), installed().join(name)].into_iter().find(|program| program.exists());
        let program = program.unwrap_or_else(|| self.programs.join(name));
        if !rustix::process::geteuid().is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program).current_dir("/");
        command
    }
}

/// A running pgbouncer.
pub struct Pooler(Child);

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The directory of the server's programs: of `FEDGATE_TEST_POSTGRES`, which names that of another version, or the
/// installed one.
fn programs() -> PathBuf {
    std::env::var_os("FEDGATE_TEST_POSTGRES").map_or_else(installed, PathBuf::from)
}

/// The directory of PostgreSQL's programs: the newest of Debian's, or the one on the `PATH`.
fn installed() -> PathBuf {
    let version = |path: &Path| path.parent().and_then(|path| path.file_name()?.to_str()?.parse::<u32>().ok());
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = installed.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").exists());
    let path = std::env::var_os("PATH").unwrap_or_default();
    newest
        .max_by_key(|bin| version(bin))
        .or_else(|| std::env::split_paths(&path).find(|bin| bin.join("initdb").exists()))
        .expect("these tests need PostgreSQL: install the package `postgresql`, or put `initdb` on the PATH")
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output();
    // `pg_ctl start` leaves a server behind that would hold a pipe open. So no output is a pipe but stderr, which
    // the server redirects to its log.
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
