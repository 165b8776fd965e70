//! The rights of the database roles: both programs do all their work with them, and can do nothing beyond.

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fedgate_base::config::{PostgresConfig, StoreConfig};
use fedgate_base::db::schema::roles::{self, RoleNames};
use fedgate_base::db::{Database, schema};
use tokio::runtime::Runtime;

use crate::fixture::{CANARY, Gateway, PATIENCE, Place, Setup, basic, password_hash};
use crate::support::postgres::Cluster;
use crate::support::{Scratch, free_address, postgres_text};

/// The statements of the page that make the roles.
fn script() -> Vec<String> {
    let page = std::fs::read_to_string("docs/INSTALL.md").unwrap();
    let scripts = page.split("<<'SQL'\n").skip(1).map(|rest| rest.split("\nSQL\n").next().unwrap());
    let statements = |script: &str| {
        let lines = script.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
        lines
            .split(';')
            .map(|statement| statement.trim().to_owned())
            .filter(|statement| !statement.is_empty())
            .collect()
    };
    let scripts: Vec<Vec<String>> = scripts.map(statements).collect();
    let [script] = scripts.try_into().expect("docs/INSTALL.md has one script of SQL");
    script
}

/// What the roles may do with tables and functions, with the database, and as roles.
const RIGHTS: &str = "
    SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
        SELECT format('%s %s %s', coalesce(grantee.rolname, 'PUBLIC'), relname, privilege_type) AS line
        FROM pg_class CROSS JOIN LATERAL aclexplode(coalesce(relacl, acldefault('r', relowner))) AS acl
        LEFT JOIN pg_roles AS grantee ON grantee.oid = acl.grantee WHERE relnamespace = 'public'::regnamespace
        UNION ALL
        SELECT format('%s %s %s', coalesce(grantee.rolname, 'PUBLIC'), pg_proc.oid::regprocedure, privilege_type)
        FROM pg_proc CROSS JOIN LATERAL aclexplode(coalesce(proacl, acldefault('f', proowner))) AS acl
        LEFT JOIN pg_roles AS grantee ON grantee.oid = acl.grantee WHERE pronamespace = 'public'::regnamespace
        UNION ALL
        SELECT format('%s database %s', coalesce(grantee.rolname, 'PUBLIC'), privilege_type)
        FROM pg_database CROSS JOIN LATERAL aclexplode(datacl) AS acl
        LEFT JOIN pg_roles AS grantee ON grantee.oid = acl.grantee WHERE datname = current_database()
        UNION ALL
        SELECT format('%s super %s create %s %s login %s', rolname, rolsuper, rolcreaterole, rolcreatedb, rolcanlogin)
        FROM pg_roles WHERE rolname !~ '^pg_'
    ) AS lines";

/// The database of the page, as its roles reach it.
struct Granted {
    runtime: Runtime,
    any: PostgresConfig,
}

impl Granted {
    /// Sets up the database as docker/compose.yaml does.
    fn compose(cluster: &Cluster) -> Self {
        let granted =
            Self { runtime: Runtime::new().unwrap(), any: Runtime::new().unwrap().block_on(cluster.database()) };
        let scratch = Scratch::new();
        std::fs::set_permissions(&scratch.0, std::fs::Permissions::from_mode(0o755)).unwrap();
        for role in ["owner", "fedhis", "fedgate"] {
            std::fs::write(scratch.0.join(format!("{role}_password")), format!("secret of {role}\n")).unwrap();
        }
        let script = |name: &str| {
            let text = std::fs::read_to_string(format!("docker/{name}")).unwrap();
            let script = scratch.0.join(name);
            std::fs::write(&script, text.replace("/run/secrets", &scratch.0.display().to_string())).unwrap();
            script
        };
        cluster.psql("postgres", "postgres", &script("roles.sql"));
        granted.migrate();
        granted.give_rights();
        granted
    }

    /// The rights of both programs, one a line.
    fn rights(&self) -> String {
        self.runtime.block_on(postgres_text(&self.of("postgres"), RIGHTS))
    }

    /// Sets up the database as the page does, and adds an administrator, and an account that still has a bcrypt
    /// hash.
    fn make(cluster: &Cluster) -> Self {
        let runtime = Runtime::new().unwrap();
        let any = runtime.block_on(cluster.database());
        script().iter().for_each(|statement| _ = runtime.block_on(postgres_text(&any, statement)));
        let granted = Self { runtime, any };
        granted.migrate();
        granted.give_rights();
        let bcrypt = bcrypt::hash_with_salt(CANARY.as_bytes(), 4, [7; 16]).unwrap().to_string();
        for (id, role, hash) in [("ADM", "root", password_hash()), ("OLD", "end_user", bcrypt)] {
            let insert = format!(
                "INSERT INTO people (id, data) VALUES ('{id}', '{{\"active\":true,\"roles\":[\"{role}\"],\"password\":\"{hash}\"}}')"
            );
            granted.sql("fedgate_owner", &insert);
        }
        granted
    }

    fn of(&self, role: &str) -> PostgresConfig {
        let name = self.any.uri.split("dbname=").nth(1).unwrap();
        let uri = self.any.uri.replace("user=postgres", &format!("user={role}"));
        PostgresConfig { uri: uri.replace(&format!("dbname={name}"), "dbname=federation"), ..self.any.clone() }
    }

    fn migrate(&self) {
        let store = StoreConfig::Postgres(self.of("fedgate_owner"));
        let done = async { schema::migrate(&Database::open(&store).await.unwrap()).await.unwrap() };
        assert_eq!(self.runtime.block_on(done), schema::VERSION);
    }

    /// As `fedhis migrate --roles` does, under the owner.
    fn give_rights(&self) {
        let store = StoreConfig::Postgres(self.of("fedgate_owner"));
        let names = RoleNames::USUAL.parse().unwrap();
        let given = async { roles::set_up(&Database::open(&store).await.unwrap(), &names).await };
        self.runtime.block_on(given).unwrap();
    }

    fn sql(&self, role: &str, statement: &str) {
        self.runtime.block_on(postgres_text(&self.of(role), statement));
    }

    fn is_refused(&self, role: &str, statement: &str) -> bool {
        let uri = self.of(role).uri;
        let refused = async {
            let (client, connection) = tokio_postgres::connect(&uri, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            client
                .simple_query(statement)
                .await
                .is_err_and(|error| error.code().is_some_and(|code| code.code() == "42501"))
        };
        self.runtime.block_on(refused)
    }
}

/// The exit code and the words of a command under the configuration of the gateway, as the role of `uri`.
fn command(program: &str, words: &[&str], gateway: &Gateway, uri: &str) -> (Option<i32>, String) {
    let mut command = Command::new(program);
    command.args(words).arg("--config").arg(gateway.dir.join("fedgate.toml")).env("FEDGATE_STORE_URI", uri);
    let out = command.stdin(Stdio::null()).output().unwrap();
    (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
}

/// A HIS that ends with its test.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The two programs, each under its own role.
fn start(granted: &Granted) -> (Gateway, Served) {
    let gateway = granted.of("fedgate").uri;
    let place = Place::prepare(&Setup { database: Some(&gateway), ..Setup::default() });
    let (file, address) = (place.dir.join("fedgate.toml"), free_address());
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, _) = text.split_once("[[upstream]]").unwrap();
    std::fs::write(&file, format!("{before}[his]\nlisten = \"{address}\"\n")).unwrap();
    let mut his = Command::new(crate::support::programs::fedhis());
    his.args(["serve", "--config"]).arg(&file).env("FEDGATE_STORE_URI", granted.of("fedhis").uri);
    let his = Served(his.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait("fedhis listens", || std::net::TcpStream::connect(address).is_ok());
    (Gateway::start_at(place, &[]), his)
}

fn wait(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn ask(gateway: &Gateway, method: &str, path: &str, kind: &str, body: &[u8]) -> u16 {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        basic("ADM", CANARY),
        body.len()
    );
    gateway.send(&[head.as_bytes(), body].concat()).status
}

#[test]
fn both_programs_do_their_work_under_the_rights_that_the_page_grants_and_can_do_no_more() {
    let cluster = Cluster::start();
    let granted = Granted::make(&cluster);
    let began = Instant::now();
    let (gateway, _his) = start(&granted);
    wait("the gateway is ready", || gateway.admin_get("/readyz").status == 200);

    // More than one piece, so that it is staged.
    let picture = [b'x'; 400 * 1024];
    let json = "application/json";
    #[rustfmt::skip]
    let requests: [(&str, &str, &str, &[u8]); 15] = [
        ("POST", "/people/BOB", json, br#"{"name":"Bo","roles":["end_user"],"active":false}"#),
        ("PATCH", "/people/BOB", json, br#"{"name":"Bob"}"#),
        ("POST", "/pols/BOB/p1", json, br#"{"id":"p1","book":"BOB"}"#),
        ("PATCH", "/pols/BOB/p1", json, br#"{"id":"p1","summary":"s"}"#),
        ("POST", "/personal_docs/BOB/p1/d1", "image/png", &picture),
        ("DELETE", "/personal_docs/BOB/p1/d1", json, b""),
        ("DELETE", "/pols/BOB/p1", json, b""),
        ("DELETE", "/people/BOB", json, b""),
        ("POST", "/domiciliary-units/U1", json, br#"{"name":"U"}"#),
        ("PATCH", "/domiciliary-units/U1", json, br#"{"name":"V"}"#),
        ("DELETE", "/domiciliary-units/U1", json, b""),
        ("POST", "/institutions/I1", json, br#"{"name":"I"}"#),
        ("PATCH", "/institutions/I1", json, br#"{"name":"J"}"#),
        ("DELETE", "/institutions/I1", json, b""),
        ("GET", "/people", json, b""),
    ];
    for (method, path, kind, body) in requests {
        // A GET or DELETE with a length of zero has no body.
        assert_eq!(ask(&gateway, method, path, kind, body), 200, "{method} {path}");
    }
    assert_eq!(gateway.get("/people/OLD", "OLD").status, 200);
    gateway.logged("password hash replaced by argon2id", began, PATIENCE).expect("the gateway writes a new hash");
    wait("changes of accounts are recorded", || {
        gateway.admin_get("/metrics").body.contains("fedgate_account_changes_total{via=\"http\"}")
    });
    assert_eq!(gateway.log_lines("permission denied", began), 0);
    let fedgate =
        |words: &[&str], role: &str| command(env!("CARGO_BIN_EXE_fedgate"), words, &gateway, &granted.of(role).uri);
    let (_, status) = fedgate(&["status"], "fedgate");
    assert!(status.contains("1 runs"), "it has reported itself: {status}");
    // What the gateway's role may not read is no fault of the gateway. The owner may read everything.
    let (code, told) = fedgate(&["check"], "fedgate");
    let unread =
        |table: &str| format!("not checked: `{table}`, for rows that are served with limits, because this role");
    assert_eq!(code, Some(0), "{told}");
    for table in ["pols", "dus", "institutions", "personal_docs"] {
        assert!(told.contains(&unread(table)), "{table}: {told}");
    }
    assert!(told.contains("as the role `fedgate`"), "{told}");
    granted.sql("postgres", "REVOKE INSERT, UPDATE ON fedgate_instances FROM fedgate");
    let (code, told) = fedgate(&["check"], "fedgate");
    assert!(code != Some(0) && told.contains("may not write `fedgate_instances`"), "a forgotten GRANT: {told}");
    granted.sql("postgres", "GRANT INSERT, UPDATE ON fedgate_instances TO fedgate");
    // A right that was forgotten, which only logins need.
    for (right, code_of_check, words) in [
        ("SELECT ON fedgate_account_changes", 1, "permission denied for table fedgate_account_changes"),
        ("EXECUTE ON FUNCTION fedgate_account(varchar, bigint)", 1, "permission denied for function fedgate_account"),
        (
            "EXECUTE ON FUNCTION fedgate_replace_hash(varchar, varchar, varchar, varchar)",
            0,
            "run `fedhis migrate --roles`",
        ),
    ] {
        granted.sql("fedgate_owner", &format!("REVOKE {right} FROM fedgate"));
        let (code, told) = fedgate(&["check"], "fedgate");
        granted.sql("fedgate_owner", &format!("GRANT {right} TO fedgate"));
        assert!(code == Some(code_of_check) && told.contains(words), "{right}: {told}");
    }
    let (code, told) = fedgate(&["check"], "fedgate_owner");
    assert!(code == Some(0) && !told.contains("not checked"), "{told}");
    // A gateway could not serve under the role of the HIS.
    let (code, told) = fedgate(&["check"], "fedhis");
    assert!(code == Some(1) && told.contains("permission denied for function fedgate_account"), "{told}");
    let (code, told) = command(crate::support::programs::fedhis(), &["migrate"], &gateway, &granted.of("fedhis").uri);
    assert!(code == Some(2) && told.contains("names a role without the rights that the migration needs"), "{told}");

    for (role, statement) in [
        ("fedgate", "SELECT FROM people"),
        ("fedgate", "SELECT id FROM people"),
        ("fedgate", "SELECT FROM fedgate_people"),
        ("fedgate", "SELECT FROM fedgate_logins"),
        ("fedgate", "UPDATE people SET data = '{}'"),
        ("fedgate", "SELECT fedgate_whole_person('ADM')"),
        ("fedgate", "SELECT fedgate_put_person('ADM', '{}')"),
        ("fedgate", "SELECT FROM pols"),
        ("fedgate", "SELECT FROM personal_docs"),
        ("fedgate", "INSERT INTO people (id, data) VALUES ('X', '{}')"),
        ("fedgate", "DELETE FROM people"),
        ("fedgate", "DELETE FROM fedgate_account_events"),
        ("fedhis", "UPDATE fedgate_people SET id = 'X'"),
        ("fedhis", "DELETE FROM fedgate_people"),
        ("fedhis", "SELECT data FROM people"),
        ("fedhis", "SELECT id FROM people WHERE data IS NOT NULL"),
        ("fedhis", "SELECT FROM fedgate_logins"),
        ("fedhis", "UPDATE people SET data = '{}'"),
        ("fedhis", "SELECT fedgate_account('ADM', 1)"),
        ("fedhis", "SELECT FROM fedgate_account_events"),
        ("fedhis", "DELETE FROM fedgate_instances"),
        ("fedhis", "UPDATE fedgate_epoch SET epoch = 1"),
        ("fedhis", "DELETE FROM fedgate_account_events"),
        ("fedhis", "ALTER TABLE people DISABLE TRIGGER ALL"),
        ("fedhis", "CREATE TABLE x ()"),
    ] {
        assert!(granted.is_refused(role, statement), "{role} may: {statement}");
    }
}

#[test]
fn the_composition_grants_what_the_page_grants_and_each_role_has_a_password_of_its_own() {
    let (page, composed) = (Cluster::start(), Cluster::start());
    let (page, composed) = (Granted::make(&page), Granted::compose(&composed));
    let rights = composed.rights();
    for words in [
        "fedgate_operator people UPDATE",
        "fedhis pols DELETE",
        "fedgate_owner super f",
        "fedgate fedgate_epoch SELECT",
    ] {
        assert!(rights.contains(words), "{words}: {rights}");
    }
    assert_eq!(rights, page.rights());
    let passwords = "SELECT count(DISTINCT rolpassword)::text FROM pg_authid WHERE rolname LIKE 'fed%'";
    assert_eq!(composed.runtime.block_on(postgres_text(&composed.of("postgres"), passwords)), "3");
}

#[test]
fn a_database_without_objects_of_a_newer_build_is_reported_by_check_start_and_readyz() {
    let cluster = Cluster::start();
    let granted = Granted::make(&cluster);
    let (gateway, mut his) = start(&granted);
    let fault = || gateway.admin_get("/readyz").json()["schema"]["fault"].as_str().unwrap_or_default().to_owned();
    wait("the gateway is ready", || gateway.admin_get("/readyz").status == 200);
    assert_eq!(fault(), "");
    granted.sql("fedgate_owner", "DROP TABLE fedgate_page_waits");
    wait("the gateway tells it", || fault().contains("lacks the table `fedgate_page_waits`"));
    assert_eq!(gateway.admin_get("/readyz").status, 200, "every other gateway would find the same");
    let since = Instant::now() - PATIENCE;
    gateway.logged("the schema is incomplete: the database lacks the table", since, PATIENCE).expect("it is logged");

    let (fedgate, fedhis) = (env!("CARGO_BIN_EXE_fedgate"), crate::support::programs::fedhis());
    for (program, words, role) in
        [(fedgate, "check", "fedgate"), (fedhis, "serve", "fedhis"), (fedhis, "seed", "fedhis")]
    {
        let (code, told) = command(program, &[words], &gateway, &granted.of(role).uri);
        assert!(code == Some(2) && told.contains("lacks the table `fedgate_page_waits`"), "{words}: {code:?} {told}");
        assert!(told.contains("run `fedhis migrate` again"), "{words}: {told}");
    }
    let at_start = Instant::now();
    let mut gateway = gateway;
    gateway.kill();
    gateway.start_again(&[]);
    gateway.logged("the schema is incomplete: the database lacks the table", at_start, PATIENCE).expect("at the start");
    granted.migrate();
    let fault = || gateway.admin_get("/readyz").json()["schema"]["fault"].clone();
    wait("the gateway tells that it is complete", || fault().is_null());
    gateway.logged("the schema is complete again", at_start, PATIENCE).expect("it is logged");
    assert!(his.0.try_wait().unwrap().is_none(), "the running service goes on");
}

#[test]
fn the_operators_role_changes_accounts_and_reads_no_record() {
    let cluster = Cluster::start();
    let granted = Granted::make(&cluster);
    let (gateway, _his) = start(&granted);
    wait("the gateway is ready", || gateway.admin_get("/readyz").status == 200);
    let operator =
        |words: &[&str]| command(env!("CARGO_BIN_EXE_fedgate"), words, &gateway, &granted.of("fedgate_operator").uri);
    #[rustfmt::skip]
    let commands: [&[&str]; 10] = [
        &["account", "add", "NEW", "--roles", "end_user", "--no-login"], &["account", "show", "OLD"], &["account", "list"],
        &["account", "roles", "OLD", "end_user,health_professional"], &["account", "disable", "OLD", "--wait"],
        &["account", "enable", "OLD"], &["account", "unlock", "OLD"], &["account", "history", "OLD"],
        &["account", "delete", "NEW"], &["status"],
    ];
    for words in commands {
        let (code, told) = operator(words);
        assert!(!told.contains("permission denied"), "{words:?}: {code:?} {told}");
    }
    let (code, told) = operator(&["account", "show", "OLD"]);
    assert!(code == Some(0) && told.contains("health_professional"), "{told}");
    for statement in [
        "SELECT data FROM pols",
        "SELECT document FROM personal_docs",
        "DELETE FROM pols",
        "SELECT FROM fedgate_messages",
    ] {
        assert!(granted.is_refused("fedgate_operator", statement), "{statement}");
    }
}

#[test]
fn roles_that_can_do_more_are_refused_and_later_migrations_keep_the_rights_complete() {
    let cluster = Cluster::start();
    let granted = Granted::make(&cluster);
    let (gateway, _his) = start(&granted);
    let migrate = |role: &str, names: &str| {
        command(crate::support::programs::fedhis(), &["migrate", names], &gateway, &granted.of(role).uri)
    };
    let rights = granted.rights();
    for (grant, revoke, words) in [
        ("GRANT fedgate_owner TO fedgate", "REVOKE fedgate_owner FROM fedgate", "or a member of a role that is"),
        ("ALTER ROLE fedhis CREATEDB", "ALTER ROLE fedhis NOCREATEDB", "NOCREATEDB"),
        (
            "GRANT pg_read_server_files TO fedhis",
            "REVOKE pg_read_server_files FROM fedhis",
            "the role `fedhis` is more than a program needs",
        ),
        ("GRANT DELETE ON dus TO PUBLIC", "REVOKE DELETE ON dus FROM PUBLIC", "`fedgate` may DELETE `dus`, by a grant"),
        (
            "GRANT REFERENCES (data) ON people TO PUBLIC",
            "REVOKE REFERENCES (data) ON people FROM PUBLIC",
            "the role `fedhis` may REFERENCES `people`",
        ),
        // Rights that a role has to take first.
        (
            "CREATE ROLE other; GRANT TRUNCATE ON pols TO other; ALTER ROLE fedgate NOINHERIT; GRANT other TO fedgate",
            "DROP OWNED BY other; DROP ROLE other; ALTER ROLE fedgate INHERIT",
            "the role `fedgate` may TRUNCATE `pols`",
        ),
        // Rights that somebody else has granted stay when the owner revokes.
        (
            "CREATE ROLE other; GRANT UPDATE ON pols TO other WITH GRANT OPTION; SET ROLE other; \
             GRANT UPDATE ON pols TO fedgate; RESET ROLE",
            "DROP OWNED BY other CASCADE; DROP ROLE other",
            "the role `fedgate` may UPDATE `pols`",
        ),
        (
            "GRANT CREATE ON SCHEMA public TO PUBLIC",
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            "the role `fedgate` may create objects in the schema `public`",
        ),
    ] {
        granted.sql("postgres", grant);
        let (code, told) = migrate("fedgate_owner", "--roles");
        granted.sql("postgres", revoke);
        assert!(code == Some(1) && told.contains(words), "{grant}: {code:?} {told}");
    }
    let (code, told) = migrate("fedgate_owner", "--roles=fedhis,fedgate,other");
    assert!(code == Some(1) && told.contains("CREATE ROLE other LOGIN;"), "{told}");
    let (code, told) = migrate("fedgate_owner", "--roles=fedhis,fedgate");
    assert!(code == Some(2) && told.contains("three different names"), "{told}");
    // What somebody granted beside is taken away, and what is missing is given, by each migration.
    granted.sql("postgres", "GRANT SELECT ON people TO fedgate; REVOKE ALL ON fedgate_pieces FROM fedhis");
    granted.migrate();
    assert_eq!(granted.rights(), rights);
    let (code, told) = migrate("fedgate_owner", "--roles");
    assert!(code == Some(0) && told.contains("roles: `fedhis` serves records, `fedgate` reads accounts"), "{told}");
    assert_eq!(granted.rights(), rights);
    // A role whose name has capitals is not the one without.
    granted.sql("postgres", "CREATE ROLE \"Fedgate\" LOGIN; GRANT SELECT ON people TO \"Fedgate\"");
    let (code, told) = migrate("fedgate_owner", "--roles=fedhis,Fedgate,fedgate_operator");
    assert!(code == Some(0), "{told}");
    assert!(granted.is_refused("Fedgate", "SELECT FROM people"));
    // A superuser may make the roles that are missing.
    let (code, told) = migrate("postgres", "--roles=fedhis,fedgate,other");
    assert!(code == Some(0), "{told}");
}

#[test]
fn no_role_fires_what_fires_for_the_owner_and_only_a_gateway_is_believed_to_log_in() {
    let cluster = Cluster::start();
    let granted = Granted::make(&cluster);
    granted.sql("postgres", "GRANT TEMPORARY ON DATABASE federation TO fedgate");
    let functions = "SELECT string_agg(oid::regprocedure::text, ';') FROM pg_proc
                     WHERE starts_with(proname, 'fedgate_') AND prorettype = 'trigger'::regtype";
    let functions = granted.runtime.block_on(postgres_text(&granted.of("postgres"), functions));
    assert!(functions.split(';').count() > 10, "{functions}");
    for function in functions.split(';') {
        let fires = format!(
            "CREATE TEMPORARY TABLE t (id varchar, data jsonb); \
             CREATE TRIGGER mine AFTER TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION {function}"
        );
        assert!(granted.is_refused("fedgate", &fires), "{function}");
    }
    let forged = "SELECT fedgate_patch_person('OLD', NULL, '{\"password\": \"$2b$12$x\"}', NULL, 'login r OLD', '')";
    granted.sql("fedhis", forged);
    let last = "SELECT via || ' ' || password || ' ' || recorded FROM fedgate_account_events ORDER BY id DESC LIMIT 1";
    let last = || granted.runtime.block_on(postgres_text(&granted.of("postgres"), last));
    assert_eq!(last(), "outside changed false", "it goes into the records");
    granted.sql("fedgate", "SELECT fedgate_replace_hash('OLD', '$2b$12$x', '$2b$12$y', 'login r OLD')");
    assert_eq!(last(), "login rehashed true");
}
