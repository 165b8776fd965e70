//! Checks the shipped composition, manifests and units with tools that need no container engine: the compose
//! schema, the schemas of Kubernetes, and `systemd-analyze verify`. It also checks the configurations inside them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use fedgate_base::config::Config;
use fedgate_base::db::connection_room::RunningPrograms;
use serde_json::Value;

/// The tools that `tests/run` installs.
const TOOLS: &str = "target/test-tools/bin";
/// The directories that configurations name.
const PLACES: [&str; 2] = ["/etc/fedgate", "/run/secrets"];
/// The files in those directories that are read with the configuration.
const SECRETS: [&str; 5] =
    ["fedgate.password", "fedgate_password", "assertion.key", "assertion_key", "database/database.password"];
/// The users of both programs in the units.
const USERS: [&str; 2] = ["fedgate", "fedhis"];

/// The output of a tool, which must succeed.
fn passes(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs it"));
    let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {text}");
    text.into_owned()
}

fn scratch() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("fedgate-deploy-{:x}", rand::random::<u128>()));
    ["database", "mint", "verify", "tls"].iter().for_each(|part| fs::create_dir_all(dir.join(part)).unwrap());
    dir
}

fn files(dir: &str, kind: &str) -> Vec<PathBuf> {
    let found = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> = found.filter(|path| path.extension().is_some_and(|known| known == kind)).collect();
    assert!(!found.is_empty(), "{dir} has a .{kind}");
    found
}

#[test]
fn the_composition_is_one() {
    let tool = Path::new(TOOLS).join("check-jsonschema");
    passes(Command::new(tool).args(["--builtin-schema", "vendor.compose-spec", "docker/compose.yaml"]));
}

#[test]
fn the_manifests_are_of_kubernetes() {
    let tool = Path::new(TOOLS).join("kubernetes-validate");
    passes(Command::new(tool).arg("--strict").args(files("deploy/kubernetes", "yaml")));
}

#[test]
fn the_shipped_programs_fit_the_connections_that_postgresql_has_by_default() {
    // 100, of which 3 are kept for superusers.
    const USABLE: usize = 97;
    for (file, gateways, his, replicas) in [
        ("deploy/kubernetes/central.yaml", 3, 2, &["replicas: 3", "replicas: 2"][..]),
        ("deploy/kubernetes/fedgate.yaml", 3, 3, &["replicas: 3"]),
        ("docker/fedgate.toml", 2, 2, &[]),
        ("deploy/systemd/fedgate.toml", 1, 1, &[]),
    ] {
        let text = fs::read_to_string(file).unwrap();
        let found: Vec<&str> = text.lines().map(str::trim).filter(|line| line.starts_with("replicas: ")).collect();
        assert_eq!(found, replicas, "{file}");
        let size = text.lines().find_map(|line| line.trim().strip_prefix("pool_size = "));
        let needed = RunningPrograms { gateways, his }.connections(size.map_or(16, |size| size.parse().unwrap()));
        assert!(needed <= USABLE, "{file}: {needed}");
    }
    let composition = fs::read_to_string("docker/compose.yaml").unwrap();
    let count = |words: &str| composition.lines().filter(|line| line.ends_with(words)).count();
    assert_eq!((count(": *gateway"), count(": *his")), (2, 2));
}

#[test]
fn the_units_are_of_systemd() {
    let dir = scratch();
    let units = files("deploy/systemd", "service").into_iter().chain(files("deploy/systemd", "socket"));
    let copies = units.map(|unit| {
        let programs = Path::new(env!("CARGO_BIN_EXE_fedgate")).parent().unwrap().display().to_string();
        let copy = dir.join(unit.file_name().unwrap());
        fs::write(&copy, fs::read_to_string(&unit).unwrap().replace("/usr/bin/", &format!("{programs}/"))).unwrap();
        copy
    });
    // Keys that systemd does not know are reported, and are no failure.
    let told = passes(Command::new("systemd-analyze").args(["verify", "--man=no"]).args(copies));
    assert_eq!(told, "");
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn no_unit_is_given_up_and_no_start_waits_for_the_database() {
    for unit in files("deploy/systemd", "service") {
        let text = fs::read_to_string(&unit).unwrap();
        let (head, service) = text.split_once("[Service]").unwrap();
        assert!(head.contains("\nStartLimitIntervalSec=0\n"), "{}", unit.display());
        assert!(service.contains("\nRestart=on-failure\n"), "{}", unit.display());
        let mut orders = service.lines().filter(|line| !line.starts_with('#'));
        assert!(!orders.any(|order| order.contains("fedgate check")), "{}: it asks the database", unit.display());
    }
}

/// The text of a block scalar `name: |` in YAML.
fn block(yaml: &str, name: &str) -> String {
    let mut lines = yaml.lines();
    let head = lines.find(|line| line.trim_end().ends_with(&format!("{name}: |"))).expect(name);
    let depth = |line: &str| line.len() - line.trim_start().len();
    lines
        .take_while(|line| line.trim().is_empty() || depth(line) > depth(head))
        .map(|line| format!("{}\n", line.trim_start()))
        .collect()
}

#[test]
fn the_configurations_within_them_are_understood() {
    let dir = scratch();
    for secret in SECRETS.iter().chain(&["mint/assertion.key"]) {
        fs::write(dir.join(secret), "s".repeat(48)).unwrap();
        fs::set_permissions(dir.join(secret), fs::Permissions::from_mode(0o440)).unwrap();
    }
    // Public keys are no secret.
    ["assertion.pub", "verify/assertion.pub"].iter().for_each(|key| fs::write(dir.join(key), "p").unwrap());
    let manifests = files("deploy/kubernetes", "yaml");
    let mut texts: Vec<_> =
        manifests.iter().map(|path| block(&fs::read_to_string(path).unwrap(), "fedgate.toml")).collect();
    texts.push(fs::read_to_string("docker/fedgate.toml").unwrap());
    texts.push(fs::read_to_string("deploy/systemd/fedgate.toml").unwrap());
    for text in texts {
        let text = PLACES.iter().fold(text, |text, place| text.replace(place, &dir.display().to_string()));
        let file = dir.join("fedgate.toml");
        fs::write(&file, &text).unwrap();
        for config in [Config::load(&file), Config::load_for_his(&file)] {
            config.unwrap_or_else(|error| panic!("{error}\n{text}"));
        }
    }
    fs::remove_dir_all(dir).unwrap();
}

/// The documents of a YAML file.
fn yaml(path: &Path) -> Vec<Value> {
    let program = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let mut python = Command::new(Path::new(TOOLS).join("python"));
    serde_json::from_str(&passes(python.args(["-c", program]).arg(path))).unwrap()
}

fn texts(list: &Value, name: &str) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items.map(|item| item.as_str().or(item[name].as_str()).unwrap().to_owned()).collect()
}

/// The files that only the gateway may have, by their names in any composition.
const GATEWAYS: [&str; 9] = [
    "certificate",
    "certificate_key",
    "assertion_key",
    "fedgate_password",
    "roles",
    "fedgate-tls",
    "fedgate-mint",
    "fedgate-policy",
    "fedgate-database",
];
/// What only the owner of the database may have, and no program that serves.
const OWNERS: [&str; 3] = ["owner_password", "superuser_password", "fedgate-owner-database"];

/// The role in a `postgres://` URI.
fn role(uri: &str) -> String {
    uri.strip_prefix("postgres://").and_then(|rest| rest.split('@').next()).expect(uri).to_owned()
}

/// The role in the configuration that both programs read.
fn configured_role(text: &str) -> String {
    let config: toml::Table = toml::from_str(text).unwrap();
    role(config["store"]["uri"].as_str().unwrap())
}

#[test]
fn the_composition_gives_the_his_a_user_of_its_own_and_nothing_of_the_gateways() {
    let composition = yaml(Path::new("docker/compose.yaml")).remove(0);
    let given = |service: &str| {
        let service = &composition["services"][service];
        let given = [texts(&service["secrets"], "source"), texts(&service["configs"], "source")].concat();
        (service["user"].as_str().unwrap().to_owned(), given)
    };
    let (gateways_user, gateways) = given("gateway1");
    let own = ["certificate_key", "assertion_key", "fedgate_password", "roles"];
    assert!(own.iter().all(|own| gateways.contains(&(*own).to_owned())));
    assert!(!gateways.contains(&"assertion_public".to_owned()), "{gateways:?}");
    for service in ["his1", "his2", "migrate"] {
        let (user, given) = given(service);
        assert_ne!(user, gateways_user, "{service}");
        assert!(given.iter().all(|given| !GATEWAYS.contains(&given.as_str())), "{service}: {given:?}");
        assert!(given.contains(&"assertion_public".to_owned()), "{service}: {given:?}");
    }
    // A role of the database and a password each; the owner's are only where nothing serves.
    let configured = configured_role(&fs::read_to_string("docker/fedgate.toml").unwrap());
    let at = |service: &str| {
        let environment = &composition["services"][service]["environment"];
        let secret = environment["FEDGATE_STORE_PASSWORD_FILE"].as_str().unwrap_or("/run/secrets/fedgate_password");
        let uri = environment["FEDGATE_STORE_URI"].as_str();
        (uri.map_or(configured.clone(), role), secret.rsplit('/').next().unwrap().to_owned())
    };
    for (service, name, secret) in [
        ("gateway1", "fedgate", "fedgate_password"),
        ("gateway2", "fedgate", "fedgate_password"),
        ("his1", "fedhis", "fedhis_password"),
        ("his2", "fedhis", "fedhis_password"),
        ("migrate", "fedgate_owner", "owner_password"),
        ("owner", "fedgate_owner", "owner_password"),
    ] {
        assert_eq!(at(service), (name.to_owned(), secret.to_owned()), "{service}");
        let (_, given) = given(service);
        let passwords: Vec<&String> = given.iter().filter(|given| given.ends_with("_password")).collect();
        assert_eq!(passwords, [secret], "{service}");
        assert_eq!(OWNERS.contains(&secret), name == "fedgate_owner", "{service}");
    }
}

#[test]
fn the_manifests_give_the_his_a_user_of_its_own_and_nothing_of_the_gateways() {
    let mut containers = 0;
    for manifest in files("deploy/kubernetes", "yaml") {
        let configured = configured_role(&block(&fs::read_to_string(&manifest).unwrap(), "fedgate.toml"));
        let pods: Vec<Value> =
            yaml(&manifest).into_iter().map(|document| document["spec"]["template"]["spec"].clone()).collect();
        let mut users = vec![vec![], vec![]];
        for pod in pods.iter().filter(|pod| !pod.is_null()) {
            let volumes = pod["volumes"].as_array().unwrap();
            for volume in volumes.iter().filter(|volume| !volume["secret"].is_null()) {
                let mode = volume["secret"]["defaultMode"].as_u64().expect("what everybody can read is refused");
                assert_eq!(mode & 0o007, 0, "{volume}");
            }
            assert!(pod["securityContext"]["fsGroup"].is_u64(), "the programs read their secrets by it");
            let both = [&pod["initContainers"], &pod["containers"]];
            for container in both.into_iter().filter_map(Value::as_array).flatten() {
                containers += 1;
                let user = [&container["securityContext"], &pod["securityContext"]].map(|of| of["runAsUser"].as_u64());
                let is_his = texts(&container["command"], "").iter().any(|word| word.ends_with("fedhis"));
                users[usize::from(is_his)].push(user[0].or(user[1]).unwrap());
                let source = |name: &str| {
                    let volume = volumes.iter().find(|volume| volume["name"] == name).unwrap();
                    let source = volume["secret"]["secretName"].as_str().or(volume["configMap"]["name"].as_str());
                    source.unwrap_or_default().to_owned()
                };
                let given: Vec<String> =
                    texts(&container["volumeMounts"], "name").iter().map(|name| source(name)).collect();
                let variable = &container["env"][0];
                let uri = variable["value"].as_str().filter(|_| variable["name"] == "FEDGATE_STORE_URI");
                let is_migration = texts(&container["command"], "").contains(&"migrate".to_owned());
                let (name, secret) = match (is_his, is_migration) {
                    (false, _) => ("fedgate", "fedgate-database"),
                    (true, false) => ("fedhis", "fedhis-database"),
                    (true, true) => ("fedgate_owner", "fedgate-owner-database"),
                };
                assert_eq!(uri.map_or(configured.clone(), role), name, "{container}");
                let logins: Vec<&String> = given.iter().filter(|given| given.ends_with("-database")).collect();
                assert_eq!(logins, [secret], "{container}");
                if is_his {
                    assert!(given.iter().all(|given| !GATEWAYS.contains(&given.as_str())), "{container}: {given:?}");
                } else {
                    assert!(
                        !given.contains(&"fedgate-verify".to_owned()) && given.contains(&"fedgate-mint".to_owned())
                    );
                }
            }
        }
        assert!(!users[0].is_empty() && !users[1].is_empty(), "{}", manifest.display());
        assert!(users[0].iter().all(|user| !users[1].contains(user)), "{}: {users:?}", manifest.display());
    }
    assert!(containers >= 6, "they were found");
}

#[test]
fn each_unit_has_a_user_and_its_files_are_readable_only_where_needed() {
    for user in USERS {
        let unit = fs::read_to_string(format!("deploy/systemd/{user}.service")).unwrap();
        assert!(unit.contains(&format!("\nUser={user}\nGroup={user}\n")), "{user}");
        assert!(unit.contains("\nLimitCORE=0\n"), "{user}");
    }
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // As on a machine where the programs are installed.
    let root = scratch();
    let (etc, gateways) = (root.join("etc/fedgate"), ["assertion.key", "tls/certificate.key"]);
    fs::create_dir_all(etc.join("tls")).unwrap();
    let passwords = ["fedgate.password", "fedhis.password", "fedgate_owner.password"];
    for file in gateways.iter().chain(&passwords).chain(&["assertion.pub", "fedgate.toml", "fedhis.env"]) {
        fs::write(etc.join(file), "").unwrap();
    }
    let shipped = |kind: &str| fs::canonicalize(format!("deploy/systemd/fedgate.{kind}.conf")).unwrap();
    let at = format!("--root={}", root.display());
    passes(Command::new("systemd-sysusers").arg(&at).arg(shipped("sysusers")));
    passes(Command::new("systemd-tmpfiles").args([&at, "--create"]).arg(shipped("tmpfiles")));
    let groups = fs::read_to_string(root.join("etc/group")).unwrap();
    let id = |name: &str| -> u32 {
        let line = groups.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
        line.split(':').nth(2).unwrap().parse().unwrap()
    };
    assert!(
        groups.contains(&format!("fedhis:x:{}:fedgate", id("fedhis"))),
        "the gateway reads what is shared: {groups}"
    );
    let of =
        |file: &str| fs::metadata(etc.join(file)).map(|file| (file.mode() & 0o777, file.uid(), file.gid())).unwrap();
    for file in gateways {
        assert_eq!(of(file), (0o640, 0, id("fedgate")), "{file}");
    }
    // Neither program reads the password of the other, nor of the owner.
    for (user, password) in USERS.iter().zip(passwords) {
        let (mode, owner, _) = of(password);
        assert_eq!((mode, owner), (0o600, user_id(&root, user)), "{password}");
    }
    assert_eq!(of("fedgate_owner.password"), (0o600, 0, 0));
    assert_eq!((of("assertion.pub").0, of("fedgate.toml").0, of("fedhis.env").0), (0o644, 0o644, 0o644));
    fs::remove_dir_all(root).unwrap();
}

/// The number of a user on a machine below `root`.
fn user_id(root: &Path, name: &str) -> u32 {
    let users = fs::read_to_string(root.join("etc/passwd")).unwrap();
    let line = users.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
    line.split(':').nth(2).unwrap().parse().unwrap()
}

#[test]
fn the_units_have_a_role_and_a_password_each() {
    let configured = fs::read_to_string("deploy/systemd/fedgate.toml").unwrap();
    let of_his = fs::read_to_string("deploy/systemd/fedhis.env").unwrap();
    let variable = |name: &str| of_his.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap();
    let config: toml::Table = toml::from_str(&configured).unwrap();
    let password = config["store"]["password_file"].as_str().unwrap();
    assert_eq!((configured_role(&configured).as_str(), password), ("fedgate", "/etc/fedgate/fedgate.password"));
    assert_eq!(role(variable("FEDGATE_STORE_URI")), "fedhis");
    assert_eq!(variable("FEDGATE_STORE_PASSWORD_FILE"), "/etc/fedgate/fedhis.password");
    let unit = |name: &str| fs::read_to_string(format!("deploy/systemd/{name}.service")).unwrap();
    assert!(unit("fedhis").contains("\nEnvironmentFile=-/etc/fedgate/fedhis.env\n"));
    assert!(!unit("fedgate").contains("fedhis.env"));
    // The page installs the file, and its own script makes these passwords.
    let page = fs::read_to_string("docs/INSTALL.md").unwrap();
    for words in [
        "deploy/systemd/fedhis.env",
        "/etc/fedgate/$role.password",
        "for role in fedgate_owner fedgate_operator fedhis fedgate",
    ] {
        assert!(page.contains(words), "{words}");
    }
}
