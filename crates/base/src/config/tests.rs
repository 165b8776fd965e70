use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

mod faults;
mod open;

use super::*;

fn file(name: &str, text: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("fedgate-config-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    crate::regular::write(&dir.join("secret"), 0o600, &[b'k'; 40]).unwrap();
    let path = dir.join("fedgate.toml");
    std::fs::write(&path, text).unwrap();
    path
}

const LEAST: &str = "[assertion]\nsecret_file = \"secret\"\n";

fn environment(variables: &[(String, String)]) -> Environment {
    Environment::new(variables.iter().map(|(variable, value)| (variable.into(), value.into())))
}

fn load(path: &Path, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load_with(path, environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
}

#[test]
fn paths_start_at_the_file_and_defaults_are_safe() {
    let path = file("least", LEAST);
    let config = load(&path, &[]).unwrap();
    assert_eq!(config.policy.roles, path.parent().unwrap().join("policies/roles.cfg"));
    assert_eq!(config.gateway.listen, ["127.0.0.1:8443".parse().unwrap()]);
    assert_eq!(
        config.upstreams[0].servers[0].place,
        ServerPlace::Address(Address::Tcp("127.0.0.1:8081".parse().unwrap()))
    );
    assert!(config.upstreams[0].assertion && !config.upstreams[0].forward_authorization);
}

#[test]
fn the_environment_overrides_the_file_in_the_type_of_the_key() {
    let path = file("environment", LEAST);
    let environment = [
        ("FEDGATE_GATEWAY_LISTEN", "0.0.0.0:1, [::]:2"),
        ("FEDGATE_GATEWAY_THREADS", "3"),
        ("FEDGATE_STORE_KIND", "postgres"),
        ("FEDGATE_STORE_URI", "postgres://u:p@h/d"),
        ("FEDGATE_STORE_PASSWORD", "12345"),
        ("FEDGATE_AUTHENTICATION_UPGRADE_HASHES", "false"),
        ("FEDGATE_LOG", "debug"),
    ];
    let config = load(&path, &environment).unwrap();
    assert_eq!((config.gateway.listen.len(), config.gateway.threads), (2, 3));
    assert_eq!(config.authentication.hashes.upgraded, Some(false));
    let StoreConfig::Postgres(store) = config.store else { panic!("sqlite") };
    assert_eq!(store.password.unwrap().expose(), b"12345");
}

#[test]
fn a_fault_is_one_line_naming_file_key_and_remedy() {
    #[rustfmt::skip]
    let cases = [
        // text of the file, environment                 named in the error
        ("[gateway]\nlisten = [\"x\"]",                  "",               "`gateway.listen` holds `x`"),
        ("[gateway]\nthreds = 1",                        "",               "fedgate.toml:2: `threds`: unknown field `threds`"),
        ("[gateway]\nthreads = \"two\"",                 "",               "fedgate.toml:2: `threads`: invalid type"),
        ("[gatway]",                                     "",               "unknown field `gatway`"),
        ("[assertion]",                                  "",               "`assertion.secret_file` is missing"),
        ("[assertion]\nsecret_file = \"none\"",          "",               "which cannot be read"),
        ("[assertion]\nsecret = \"x\"",                  "",               "is a secret in the configuration file"),
        ("[store]\nuri = \"postgres://u:p@h/d\"",        "",               "`store.uri` holds a password"),
        ("[store]\nkind = \"mysql\"",                    "",               "write \"sqlite\" or \"postgres\""),
        ("[tls]\nmin_version = \"1.0\"",                 "",               "`tls.min_version` is `1.0`"),
        ("[authentication]\nargon2_memory_kib = 8",      "",               "write at least 19456"),
        ("[authentication]\nargon2_memory_kib = 999999", "",               "`authentication.argon2_memory_kib` is 999999; write at most 262144"),
        ("[authentication]\nargon2_passes = 11",         "",               "`authentication.argon2_passes` is 11; write at most 10"),
        ("[cors]\nallowed_origins = [\"portal\"]",       "",               "`cors.allowed_origins` holds `portal`"),
        ("[[route]]\npath=\"/x\"\nmethods=[]\nupstream=\"y\"", "",         "which is no upstream"),
        ("[[upstream]]\nname=\"y\"\naddress=\"127.0.0.1:1\"\n[[route]]\npath=\"/x\"\nmethods=[\"GET\"]\nendpoint=\"e\"\nupstream=\"y\"\n[[route.guard]]\nmembers=[\"roles\"]", "", "`route.guard of /x` guards nothing"),
        ("[[upstream]]\nname=\"y\"\naddress=\"127.0.0.1:1\"\n[[route]]\npath=\"/x\"\nmethods=[\"PUT\"]\nendpoint=\"e\"\nupstream=\"y\"\n[[route.guard]]\nmembers=[\"id\"]\nmay_name_subject=true", "", "`route.guard.may_name_subject of /x` is set where there is no subject"),
        ("[[upstream]]\nname=\"y\"\naddress=\"127.0.0.1:1\"\n[[route]]\npath=\"/x\"\nmethods=[\"PUT\"]\nendpoint=\"e\"\nupstream=\"y\"\n[[route.guard]]\nmembers=[]", "", "`route.guard.members of /x` is empty"),
        ("[authentication]\nverified_for_seconds = 9223372036854775807", "", "write at most 31536000"),
        ("[limits]\nhead_bytes = 70000", "", "`limits.head_bytes` is 70000; write at most 65536"),
        ("[limits]\nbytes_per_second = 0", "", "`limits.bytes_per_second` is 0; write at least 1"),
        ("[limits]\nhead_timeout_seconds = 0", "", "`limits.head_timeout_seconds` is 0; write at least 1"),
        ("[[upstream]]\naddress = \"127.0.0.1:1\"",       "",               "`upstream.name` is missing"),
        ("[[upstream]]\nname = \"a\"",                    "",               "`upstream.a.servers` is missing"),
        ("[[upstream]]\nname = \"a\"\naddress = \"127.0.0.1:1\"\nservers = [\"127.0.0.1:2\"]", "", "is set beside `address`"),
        ("[[upstream]]\nname = \"a\"\nservers = [\"127.0.0.1:1\", \"http://127.0.0.1:1\"]", "", "twice"),
        ("[[upstream]]\nname = \"a\"\nservers = [\"his..example:1\"]", "", "`upstream.a.servers` is `his..example:1`"),
        ("[[upstream]]\nname = \"a\"\nservers = [\"https://1.2.3.4\"]", "", "`upstream.a.servers` holds `https://1.2.3.4`"),
        ("[[upstream]]\nname = \"a\"\nservers = [\"his:1\"]\nbalance = \"random\"", "", "`upstream.a.balance` is `random`"),
        ("[[upstream]]\nname = \"a\"\nservers = [\"his:1\"]\ntls = { ca_file = \"x\" }", "", "`upstream.a.tls` has no effect"),
        ("[[upstream]]\nname = \"a\"\nservers = [\"https://his:1\"]\ntls = { key = \"x\" }", "", "names one of `certificate` and `key`"),
        ("[[upstream]]\nname = \"a\"\nservers = [\"his:1\"]\nhealth = { path = \"x\" }", "", "`upstream.a.health.path` is `x`"),
        ("[[upstream]]\nname = \"a\"\nservers = [\"his:1\"]\nejection = { max_percent = 101 }", "", "write at most 100"),
        ("= 1",                                          "",               "fedgate.toml:1"),
        ("[gateway]",                                    "FEDGATE_GATEWAY_THREADS=many", "environment: `FEDGATE_GATEWAY_THREADS`"),
        ("[gateway]",                                    "FEDGATE_GATEWAY_THREADS=many", "invalid type: string \"many\", expected a whole number"),
        ("[gateway]\nthreads = -5",                       "",               "`-5`, expected a whole number from 0 on"),
        ("[gateway]",                                    "FEDGATE_GATEWAY_THREADS=-5", "string \"-5\", expected a whole number from 0 on"),
        ("[authentication]\nargon2_passes = -5",          "",               "`-5`, expected a whole number from 0 to 4294967295"),
        ("[gateway]\nthreads = 1025",                     "",               "`gateway.threads` is 1025; write at most 1024"),
        ("[authentication]\nhasher_threads = 1000000",    "",               "`authentication.hasher_threads` is 1000000; write at most 256"),
        ("[authentication]\nhasher_queue = 100001",       "",               "`authentication.hasher_queue` is 100001; write at most"),
        ("[authentication]\nhasher_queue_ms = 600001",    "",               "`authentication.hasher_queue_ms` is 600001; write at most"),
        ("[authentication]\nrejection_step_ms = 10001",   "",               "`authentication.rejection_step_ms` is 10001; write at most"),
        ("[gateway]\nadmin = [\"127.0.0.1:8443\"]",       "",               "`gateway.admin` holds `127.0.0.1:8443`, and `gateway.listen` holds `127.0.0.1:8443`"),
        ("[gateway]\nredirect = [\"0.0.0.0:8443\"]",      "",               "`gateway.redirect` holds `0.0.0.0:8443`, and `gateway.listen`"),
        ("[gateway]\nlisten_plain = [\"[::1]:1\", \"[::1]:1\"]", "",      "`gateway.listen_plain` holds `[::1]:1`"),
        ("[cors]\nallowed_origins = [\"https://*.example.org\"]", "",      "`cors.allowed_origins` holds `https://*.example.org`"),
        ("[cors]\nallowed_origins = [\"https://a.org/x\"]", "",            "`cors.allowed_origins` holds `https://a.org/x`"),
        ("[cors]\nallowed_origins = [\"https://A.org\"]", "",              "`cors.allowed_origins` holds `https://A.org`"),
        ("[cors]\ncredential_origins = [\"*\", \"portal\"]", "",          "`cors.credential_origins` holds `portal`"),
        ("[cors]\nown_origins = [\"*\"]", "",                              "`cors.own_origins` holds `*`"),
        ("[cors]\nallowed_origins = [\"*\"]\nown_origins = [\"his.org\"]", "", "`cors.own_origins` holds `his.org`"),
        ("[store]\nkind = \"postgres\"",                  "",               "`store.uri` is missing"),
        ("[store]\nkind = \"postgres\"\nuri = \"federation\"", "",         "`store.uri` is no connection string"),
        ("[store]\nkind = \"postgres\"\nuri = \"postgres://h/d?sslrootcert=a\"\nca_file = \"b\"", "", "`store.ca_file` names `b`, and `store.uri` has another"),
        ("[gateway]",                                    "FEDGATE_ASSERTION_SECRET=short", "`FEDGATE_ASSERTION_SECRET` holds less than 32 bytes"),
        ("[gateway]",                                    "FEDGATE_GATEWAY_THREDS=1",     "unknown field `threds`"),
    ];
    for (number, (text, environment, named)) in cases.into_iter().enumerate() {
        let text = if text.contains("assertion") { text.to_owned() } else { format!("{text}\n{LEAST}") };
        let path = file(&format!("fault{number}"), &text);
        let environment: Vec<_> = environment.split_once('=').into_iter().collect();
        let error = load(&path, &environment).unwrap_err().to_string();
        assert!(error.contains(named), "{text}: {error}");
        assert!(!error.contains('\n') && error.contains("; "), "{error}");
    }
}

#[test]
fn listeners_with_an_address_each_are_no_fault() {
    let text = format!(
        "[gateway]\nlisten = [\"0.0.0.0:8443\", \"[::]:8443\"]\nlisten_plain = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\n{LEAST}\n\
         [cors]\nallowed_origins = [\"https://portal.example.org:8443\", \"http://[::1]:80\"]"
    );
    load(&file("addresses", &text), &[]).unwrap();
}

#[test]
fn a_door_that_is_left_open_is_worth_a_word() {
    let text = format!("{LEAST}\n[cors]\nrefuse_foreign_writes = false");
    let warnings = load(&file("open-door", &text), &[]).unwrap().warnings();
    assert!(warnings.iter().any(|warning| warning.contains("`cors.refuse_foreign_writes` is false")), "{warnings:?}");
    let warnings = load(&file("closed-door", LEAST), &[]).unwrap().warnings();
    assert!(!warnings.iter().any(|warning| warning.contains("cors")), "{warnings:?}");
}

#[test]
fn pages_that_may_send_passwords_are_every_one_unless_a_list_says_otherwise() {
    let cors = |keys: &str| load(&file("pages", &format!("{LEAST}\n[cors]\n{keys}")), &[]).unwrap();
    let portal = "[\"https://portal.example\"]";
    for (keys, is_open, evil, named) in [
        (String::new(), true, true, 0),
        ("allowed_origins = [\"*\", \"https://portal.example\"]".to_owned(), true, true, 1),
        (format!("allowed_origins = {portal}"), false, true, 1),
        (format!("credential_origins = {portal}"), false, false, 1),
        ("credential_origins = []".to_owned(), false, false, 0),
        (format!("allowed_origins = {portal}\ncredential_origins = {portal}"), false, false, 2),
    ] {
        let config = cors(&keys);
        assert_eq!(config.cors.takes_credentials_of("https://evil.example"), evil, "{keys}");
        assert!(named == 0 || config.cors.takes_credentials_of("https://portal.example"), "{keys}");
        assert_eq!(config.cors.named.len(), named, "{keys}");
        let told = config.open_defaults();
        assert_eq!(told.iter().any(|line| line.contains("`cors.allowed_origins` holds \"*\"")), is_open, "{told:?}");
        assert!(!config.warnings().iter().any(|warning| warning.contains("`cors.")), "{keys}");
    }
    let keys = format!("allowed_origins = [\"https://other.example\"]\ncredential_origins = {portal}");
    let warnings = cors(&keys).warnings();
    assert!(warnings.iter().any(|line| line.contains("whose pages may read nothing")), "{warnings:?}");
}

#[test]
fn a_queue_of_hashers_that_is_counted_is_taken_for_its_work_and_is_worth_a_word() {
    #[rustfmt::skip]
    let cases = [
        ("",                                        10_000, false),
        ("hasher_queue = 0",                      10_000, false),
        ("hasher_queue = 50",                       1000, true),
        ("hasher_queue = 1",                          20, true),
        ("hasher_queue_ms = 700",                    700, false),
        ("hasher_queue = 50\nhasher_queue_ms = 700", 700, true),
    ];
    for (keys, milliseconds, is_told) in cases {
        let text = format!("{LEAST}\n[authentication]\nhasher_threads = 2\n{keys}");
        let config = load(&file("hasher-queue", &text), &[]).unwrap();
        assert_eq!(config.authentication.hasher_queue.as_millis(), milliseconds, "{keys}");
        let warnings = config.warnings();
        let told = warnings.iter().filter(|warning| warning.contains(&format!("taken for {milliseconds} ms")));
        assert_eq!(told.count(), usize::from(is_told), "{keys}: {warnings:?}");
    }
}

#[test]
fn a_group_may_read_a_secret_and_nobody_else() {
    let path = file("exposed", LEAST);
    let secret = path.with_file_name("secret");
    for (mode, words, is_refused) in [
        (0o600, 0, false),
        (0o400, 0, false),
        (0o640, 0, false),
        (0o440, 0, false),
        (0o660, 1, false),
        (0o604, 1, true),
        (0o644, 1, true),
        (0o602, 1, true),
    ] {
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).unwrap();
        for loaded in [load(&path, &[]), Config::load_for_his(&path)] {
            let refused = loaded.err().map(|error| error.to_string());
            assert_eq!(refused.is_some(), is_refused, "{mode:o}: {refused:?}");
            assert!(refused.is_none_or(|refused| refused.contains("everybody on this machine; give it to")));
        }
        let warnings = load(&path, &[("FEDGATE_GATEWAY_EXPOSED_SECRETS", "warn")]).unwrap().warnings();
        assert_eq!(warnings.len(), words, "{mode:o}: {warnings:?}");
        let file = secret.display().to_string();
        let is_told = |word: &String| {
            word.contains(&file) && word.contains("`assertion.secret_file`") && word.contains("chmod 600")
        };
        assert!(warnings.iter().all(is_told), "{warnings:?}");
    }
}

#[test]
fn servers_are_addresses_names_or_sockets() {
    let text = format!(
        "{LEAST}[[upstream]]\nname = \"his\"\nservers = [\"[::1]:1\", \"http://10.0.0.1:2\", \"https://HIS.example.org:3\", \
         \"https://10.0.0.1:4\", \"unix:his.sock\"]\n[upstream.health]\npath = \"/\"\n"
    );
    let path = file("servers", &text);
    let upstream = load(&path, &[]).unwrap().upstreams.remove(0);
    let tcp = |address: &str| ServerPlace::Address(Address::Tcp(address.parse().unwrap()));
    let places = [
        (false, tcp("[::1]:1")),
        (false, tcp("10.0.0.1:2")),
        (true, ServerPlace::Name { host: "his.example.org".into(), port: 3 }),
        (true, tcp("10.0.0.1:4")),
        (false, ServerPlace::Address(Address::Unix(path.parent().unwrap().join("his.sock")))),
    ];
    let read: Vec<_> = upstream.servers.into_iter().map(|server| (server.tls, server.place)).collect();
    assert_eq!(read, places);
    assert_eq!(upstream.health.unwrap().path.as_deref(), Some("/"));
}

#[test]
fn the_shipped_example_states_every_default() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/fedgate.toml");
    let text = std::fs::read_to_string(shipped).unwrap();
    let mut example = load(&file("example", &text), &[]).unwrap();
    let mut defaults = load(&file("defaults", LEAST), &[]).unwrap();
    // The example sets every key, except those whose default depends on the store.
    let left: Vec<_> = std::mem::take(&mut example.changed_defaults).iter().map(|changed| changed.key).collect();
    assert_eq!(left, ["upgrade_hashes"]);
    assert!(!std::mem::take(&mut defaults.changed_defaults).is_empty());
    let masked = |config: &Config| {
        let dir = config.file.parent().unwrap().display().to_string();
        format!("{config:#?}").replace(&dir, "")
    };
    assert_eq!(masked(&example), masked(&defaults));
    // A value shown in a comment beside an empty list must be valid in its place.
    let shown = |text: String, key: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("# {key} = [{{"))).expect(key).to_owned();
        text.replace(&format!("\n{key} = []\n"), &format!("\n{}\n", line.trim_start_matches("# ")))
    };
    let shown = shown(shown(text.clone(), "sni"), "client").replace("5E:AA:…", &"5E:AA:".repeat(16)[..95]);
    let config = load(&file("shown", &shown), &[]).unwrap();
    assert_eq!((config.tls.certificates.len(), config.tls.clients.accounts.len()), (2, 1));
    // The example contains every key of every section, at least as a comment.
    let keys = written::keys();
    let missing: Vec<_> = keys.iter().filter(|key| !text.contains(&format!("{key} ="))).collect();
    assert!(missing.is_empty() && keys.len() > 30, "{missing:?}");
}

#[test]
fn a_secret_is_what_a_regular_file_holds_without_its_line_end() {
    let with = |name: &str| load(&file("secret", &format!("[assertion]\nsecret_file = \"{name}\"\n")), &[]);
    let path = std::env::temp_dir().join(format!("fedgate-secret-{:x}", rand::random::<u128>()));
    let name = path.display().to_string();
    let key = "k".repeat(32);
    for (text, expected) in [("{key}", "{key}"), ("{key}\n", "{key}"), ("{key}\r\n", "{key}"), ("{key}\n\n", "{key}\n")]
    {
        crate::regular::write(&path, 0o600, text.replace("{key}", &key).as_bytes()).unwrap();
        let AssertionKeys::Hs256 { secret } = with(&name).unwrap().assertion.keys else { panic!("{text}") };
        assert_eq!(secret.expose(), expected.replace("{key}", &key).as_bytes(), "{text:?}");
    }
    std::fs::write(&path, vec![b'k'; 64 * 1024 + 1]).unwrap();
    assert!(with(&name).unwrap_err().to_string().contains("larger than 65536 bytes"));
    std::fs::remove_file(&path).unwrap();
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, rustix::fs::Mode::RUSR, 0).unwrap();
    let refused = with(&name).unwrap_err().to_string();
    assert!(refused.contains("`assertion.secret_file`") && refused.contains("not a regular file"), "{refused}");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn without_secrets_none_is_read_and_all_else_is_checked() {
    let postgres = "[store]\nkind = \"postgres\"\nuri = \"postgres://u@h/d\"\npassword_file = \"nowhere\"\n";
    for assertion in [
        "",
        "[assertion]\nsecret_file = \"nowhere\"\n",
        "[assertion]\nalgorithm = \"EdDSA\"\nprivate_key_file = \"nowhere\"\npublic_key_file = \"nowhere\"\n",
    ] {
        let path = file("without-secrets", &format!("{postgres}{assertion}[tls]\ncertificate = \"nowhere\"\n"));
        assert!(load(&path, &[]).is_err(), "{assertion}");
        let config = Config::load_without_secrets(&path).unwrap();
        assert!(matches!(config.assertion.keys, AssertionKeys::Unread), "{assertion}");
        assert!(fedgate_core::assertion::AssertionVerifier::from_config(&config.assertion).is_err());
        let given = [("FEDGATE_STORE_PASSWORD".to_owned(), "12345".to_owned())];
        for config in [config, Config::read(&path, environment(&given), WantedSecrets::LeaveUnread).unwrap()] {
            let StoreConfig::Postgres(store) = config.store else { panic!("sqlite") };
            assert!(store.password.is_none());
        }
    }
    let whole = Config::load_without_secrets(&file("with-secrets", LEAST)).unwrap();
    assert!(matches!(whole.assertion.keys, AssertionKeys::Unread), "what is there is not read either");
    for (text, fault) in [
        ("[gateway]\nthreds = 1", "unknown field `threds`"),
        ("[assertion]\nalgorithm = \"none\"", "`assertion.algorithm` is `none`"),
        ("[assertion]\nlifetime_seconds = 0", "`assertion.lifetime_seconds` is 0"),
        ("[assertion]\nsecret = \"x\"", "is a secret in the configuration file"),
    ] {
        let found = Config::load_without_secrets(&file("without-secrets-faulty", text)).unwrap_err().to_string();
        assert!(found.contains(fault), "{found}");
    }
}

#[test]
fn each_program_reads_its_own_secrets_and_none_of_the_other() {
    let text = "[assertion]\nalgorithm = \"EdDSA\"\nprivate_key_file = \"mints\"\npublic_key_file = \"verifies\"\n\
                [tls]\ncertificate = \"none\"\nkey = \"none\"\n[policy]\nroles = \"none\"\n";
    let path = file("own-secrets", text);
    let (mints, verifies) = (path.with_file_name("mints"), path.with_file_name("verifies"));
    let keys = |config: &Config| match &config.assertion.keys {
        AssertionKeys::Ed25519 { private_key, public_key } => (private_key.is_some(), public_key.is_some()),
        other => panic!("{other:?}"),
    };
    std::fs::write(&verifies, "public").unwrap();
    assert_eq!(keys(&Config::load_for_his(&path).unwrap()), (false, true), "a public key is no secret");
    assert!(load(&path, &[]).is_err(), "the gateway cannot do without its key");
    std::fs::remove_file(&verifies).unwrap();
    crate::regular::write(&mints, 0o600, b"private").unwrap();
    assert_eq!(keys(&load(&path, &[]).unwrap()), (true, false));
    assert!(Config::load_for_his(&path).unwrap_err().to_string().contains("`assertion.public_key_file`"));
    std::fs::remove_file(&mints).unwrap();
}
