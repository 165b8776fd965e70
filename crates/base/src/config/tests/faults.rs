//! All faults at once, and what the environment may set.

use super::*;

fn variables(variables: &[(&str, &str)]) -> Environment {
    let owned: Vec<_> = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    environment(&owned)
}

fn told(text: &str, of: &[(&str, &str)]) -> Vec<String> {
    // Each its own: tests run beside each other.
    let path = file(&format!("faults-{:x}", rand::random::<u64>()), text);
    Config::examine_with(&path, variables(of)).faults.iter().map(ToString::to_string).collect()
}

#[test]
fn all_faults_are_reported_together_and_each_once() {
    let text = "[gateway]\nthreads = \"two\"\nthreds = 1\nlisten = [\"x\"]\nadmin = [\"y\"]\n[gatway]\na = 1\n\
                [tls]\nmin_version = \"1.0\"\nclient_certificates = \"optional\"\n[store]\nkind = \"postgres\"\n\
                password = \"secret-x\"\n[assertion]\nsecret_file = \"none\"\n[cors]\nallowed_origins = [\"z\"]\n\
                [his]\nlisten = \"nowhere\"\n\
                [[upstream]]\nname = \"a\"\nbalance = \"dice\"\nservers = [\"a:1\"]\n[[upstream]]\nname = \"b\"\n\
                [[route]]\npath = \"/a\"\nmethods = [\"GET\"]\nupstream = \"c\"\nendpoint = \"e\"\n\
                [[route]]\npath = \"/b\"\nmethods = [\"GET\"]\nupstream = \"b\"\n";
    let told = told(text, &[("FEDGATE_LIMITS_CONNECTIONS", "many"), ("FEDGATE_HIS_NOTHING", "1")]);
    #[rustfmt::skip]
    let expected = [
        "fedgate.toml:2: `gateway.threads`: invalid type",
        "fedgate.toml:3: `gateway.threds`: unknown field `threds`",
        "`gateway.listen` holds `x`",
        "`gateway.admin` holds `y`",
        "fedgate.toml:6: `gatway`: unknown field `gatway`",
        "`tls.min_version` is `1.0`",
        "`tls.client_ca` is missing",
        "`store.password` is a secret in the configuration file",
        "`store.uri` is missing",
        "`assertion.secret_file` names",
        "`cors.allowed_origins` holds `z`",
        "`his.listen` is `nowhere`",
        "`upstream.a.balance` is `dice`",
        "`upstream.b.servers` is missing",
        "`route.upstream of /a`",
        "`route.endpoint of /b` is missing",
        "environment: `FEDGATE_LIMITS_CONNECTIONS` invalid type",
        "environment: `FEDGATE_HIS_NOTHING` unknown field `nothing`",
    ];
    for words in expected {
        assert_eq!(told.iter().filter(|fault| fault.contains(words)).count(), 1, "{words}: {told:#?}");
    }
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    assert!(told.iter().all(|fault| !fault.contains("secret-x") && !fault.contains('\n')));
}

#[test]
fn all_faults_of_one_upstream_are_reported_each_with_its_key() {
    let text = "[[upstream]]\nname = \"good\"\nservers = [\"g:1\"]\n\
                [[upstream]]\nname = \"a.b\"\nbalance = \"dice\"\nservers = [\"a:1\", \"https://x\", \"a:0\"]\nhost = \"any\"\n\
                asertion = true\nread_timeout_ms = \"long\"\nconnect_timeout_ms = 0\n\
                request_headers = [\"x-good\", \"x bad\", \"host\"]\n\
                [upstream.tls]\nserver_name = \"-\"\nca = 1\n\
                [upstream.health]\npath = \"x\"\nunhealthy_after = 0\ninterval_ms = true\n\
                [upstream.ejection]\nmax_percent = 101\nseconds = 999\n\
                [[upstream]]\nname = \"c\"\nservers = 5\nbalance = 5\n\
                [[route]]\npath = \"/b\"\nmethods = [\"GET\"]\nupstream = \"a.b\"\nendpoint = \"e\"\n";
    let told = told(&format!("{text}{LEAST}"), &[]);
    #[rustfmt::skip]
    let expected = [
        "fedgate.toml:9: `upstream.asertion`: unknown field `asertion`",
        "fedgate.toml:10: `upstream.read_timeout_ms`: invalid type",
        "fedgate.toml:15: `upstream.tls.ca`: unknown field `ca`",
        "fedgate.toml:19: `upstream.health.interval_ms`: invalid type",
        "fedgate.toml:25: `upstream.servers`: invalid type",
        "fedgate.toml:26: `upstream.balance`: invalid type",
        "`upstream.a.b.balance` is `dice`",
        "`upstream.a.b.servers` holds `https://x`",
        "`upstream.a.b.servers` is `a:0`",
        "`upstream.a.b.host` is `any`",
        "`upstream.a.b.connect_timeout_ms` is",
        "`upstream.a.b.request_headers` holds `x bad`",
        "`upstream.a.b.request_headers` holds `host`",
        "`upstream.a.b.tls.server_name` is `-`",
        "`upstream.a.b.health.path` is `x`",
        "`upstream.a.b.health.unhealthy_after` is",
        "`upstream.a.b.ejection.max_percent` is 101",
        "`upstream.a.b.ejection.max_seconds` is",
    ];
    for words in expected {
        assert_eq!(told.iter().filter(|fault| fault.contains(words)).count(), 1, "{words}: {told:#?}");
    }
    assert_eq!(told.len(), expected.len(), "{told:#?}");
}

#[test]
fn every_faulty_entry_of_a_list_is_reported() {
    let text = "[gateway]\ntrusted_proxies = [\"10.0.0.0/33\", \"10.0.0.0/8\", \"foo\"]\nlisten = [\"x\", \"127.0.0.1:1\", \"y\"]\n\
                admin = [\"127.0.0.1:1\", \"z\"]\nhosts = [\"a b\", \"good\", \"c d\"]\n[cors]\nallowed_origins = [\"p\", \"https://a\", \"q\"]\n\
                own_origins = [\"r\", \"s\"]\n[[tls.client]]\naccount = \"A\"\nsha256 = \"1\"\n[[tls.client]]\naccount = \"B\"\nsha256 = \"2\"\n\
                [[route]]\npath = \"/b\"\nmethods = [\"GET\"]\nendpoint = \"e\"\n";
    let told = told(&format!("{text}{LEAST}"), &[("FEDGATE_GATEWAY_REDIRECT", "u,v")]);
    #[rustfmt::skip]
    let expected = [
        "`gateway.trusted_proxies` holds `10.0.0.0/33`", "`gateway.trusted_proxies` holds `foo`",
        "`gateway.listen` holds `x`", "`gateway.listen` holds `y`",
        "`gateway.admin` holds `z`", "`gateway.admin` holds `127.0.0.1:1`, and `gateway.listen` holds",
        "`gateway.hosts` holds `a b`", "`gateway.hosts` holds `c d`",
        "`cors.allowed_origins` holds `p`", "`cors.allowed_origins` holds `q`",
        "`cors.own_origins` holds `r`", "`cors.own_origins` holds `s`",
        "`tls.client.sha256` is `1`", "`tls.client.sha256` is `2`",
        "environment: `FEDGATE_GATEWAY_REDIRECT` holds `u`", "environment: `FEDGATE_GATEWAY_REDIRECT` holds `v`",
        "`route`: missing field `upstream`",
    ];
    for words in expected {
        assert_eq!(told.iter().filter(|fault| fault.contains(words)).count(), 1, "{words}: {told:#?}");
    }
    assert_eq!(told.len(), expected.len(), "{told:#?}");
}

#[test]
fn examination_reports_exactly_what_loading_refuses() {
    for text in ["", "[gateway]\nthreads = 1", "[tls]\nmin_version = \"9\"", "[gateway", "[route]\n", "upstream = 1"] {
        let text = format!("{text}\n{LEAST}");
        let path = file("one-fault", &text);
        let first = load(&path, &[]).map(drop).map_err(|fault| fault.to_string());
        let examined = Config::examine_with(&path, variables(&[]));
        assert_eq!(first.is_ok(), examined.faults.is_empty(), "{text}: {:?}", examined.faults);
        assert!(first.is_err() || examined.config.is_some(), "{text}");
    }
    for (key, is_sound) in [("certificate = 9", false), ("min_version = \"9\"", true), ("unknown = 1", true)] {
        let path = file("sections", &format!("[tls]\n{key}\n{LEAST}"));
        let examined = Config::examine_with(&path, variables(&[]));
        assert_eq!((examined.is_sound("tls"), examined.faults.len()), (is_sound, 1), "{key}");
        assert!(examined.is_sound("gateway") && examined.config.is_some());
    }
}

#[test]
fn a_fault_of_the_store_is_reported_once_and_leads_to_no_other() {
    let signed = "[assertion]\nalgorithm = \"EdDSA\"\n";
    let with = |uri: &str| format!("[store]\nkind = \"postgres\"\nuri = \"{uri}\"\npool_size = 0\n{signed}");
    for (uri, words) in [
        ("postgres://a@b/c?sslmode=bogus", "has `sslmode=bogus`"),
        ("postgres://a@b/c?nothing=1", "is no connection string"),
        ("postgres://a:secret-x@b/c", "holds a password"),
        ("", "is missing"),
    ] {
        let told = told(&with(uri), &[]);
        assert_eq!(told.len(), 2, "{uri}: {told:#?}");
        assert!(told[0].contains("`store.uri`") && told[0].contains(words), "{uri}: {told:#?}");
        assert!(told[1].contains("`store.pool_size`"), "{uri}: {told:#?}");
    }
    let empty = told(&format!("[store]\nkind = \"postgres\"\n{signed}"), &[("FEDGATE_STORE_URI", "")]);
    assert!(empty.len() == 1 && empty[0].starts_with("environment: `FEDGATE_STORE_URI` is missing"), "{empty:#?}");
}

#[test]
fn replicas_are_written_as_the_store_is_and_a_fault_names_their_key() {
    let signed = "[assertion]\nalgorithm = \"EdDSA\"\n";
    let with = |uris: &str| {
        format!("[store]\nkind = \"postgres\"\nuri = \"postgres://a@b/c\"\nread_uris = {uris}\npool_size = 0\n{signed}")
    };
    let nine = format!("[{}]", ["\"host=b\""; 9].join(", "));
    for (uris, words) in [
        ("[\"postgres://a@s/c\", \"postgres://a@s/c?sslmode=bogus\"]", "has `sslmode=bogus`"),
        ("[\"postgres://a:secret-x@s/c\"]", "holds a password"),
        ("[\"host=s target_session_attrs=read-write\"]", "asks for a server that takes writes"),
        (nine.as_str(), "names 9 replicas; name 8 at most"),
    ] {
        let told = told(&with(uris), &[]);
        assert_eq!(told.len(), 2, "{uris}: {told:#?}");
        assert!(told[0].contains("`store.read_uris`") && told[0].contains(words), "{uris}: {told:#?}");
        assert!(!told[0].contains("secret-x"), "{told:#?}");
        assert!(told[1].contains("`store.pool_size`"), "{uris}: {told:#?}");
    }
    let embedded = told(&format!("[store]\nread_uris = [\"host=s\"]\n{signed}"), &[]);
    assert!(embedded.len() == 1 && embedded[0].contains("`store.kind` is `sqlite`"), "{embedded:#?}");
    let text = format!("[store]\nkind = \"postgres\"\nuri = \"host=b\"\nca_file = \"ca.pem\"\n{signed}");
    let several = [("FEDGATE_STORE_READ_URIS", "host=s, host=t sslrootcert=other.pem")];
    let examined = Config::examine_with(&file("replicas", &text), variables(&several));
    let Some(StoreConfig::Postgres(read)) = examined.config.map(|config| config.store) else { panic!() };
    let ends = |at: usize, name: &str| read.replicas[at].ca_file.as_ref().is_some_and(|file| file.ends_with(name));
    assert!(read.replicas.len() == 2 && ends(0, "ca.pem") && ends(1, "other.pem"), "{:?}", read.replicas);
    assert!(read.of_replica(&read.replicas[0]).replicas.is_empty());
}

#[test]
fn one_fault_of_a_route_or_of_a_key_hides_no_other() {
    let text = "[assertion]\nlifetime_seconds = 0\nalgorithm = \"none\"\n[store]\nkind = \"postgres\"\n\
                uri = \"postgres://a@b/c\"\npassword_file = \"none\"\n\
                [[route]]\npath = \"/x/{a}\"\nmethods = [\"GTE\"]\nupstream = \"c\"\nhide = [\"\"]\n";
    let path = file("each-fault", text);
    let examined = Config::examine_with(&path, variables(&[]));
    let told: Vec<_> = examined.faults.iter().map(ToString::to_string).collect();
    for words in [
        "`assertion.lifetime_seconds` is 0",
        "`assertion.algorithm` is `none`",
        "`store.password_file` names",
        "`route.upstream of /x/{a}`",
        "`route.endpoint of /x/{a}` is missing",
        "`route.hide of /x/{a}`",
    ] {
        assert_eq!(told.iter().filter(|fault| fault.contains(words)).count(), 1, "{words}: {told:#?}");
    }
    assert_eq!(told.len(), 6, "{told:#?}");
}

#[test]
fn a_wrong_value_of_the_environment_names_its_variable() {
    let path = file("variables", LEAST);
    for (variable, value, words) in [
        ("FEDGATE_TLS_MIN_VERSION", "1.0", "is `1.0`"),
        ("FEDGATE_HIS_LISTEN", "nowhere", "is `nowhere`"),
        ("FEDGATE_GATEWAY_LISTEN", "8443", "holds `8443`"),
        ("FEDGATE_STORE_KIND", "a\u{1b}[31m", "is `a\\u{1b}[31m`"),
        ("FEDGATE_UPSTREAM_HIS_ADDRESS", "his:1", "a key of [[upstream]]"),
        ("FEDGATE_GATEWAY_THREDS", "1", "unknown field `threds`"),
    ] {
        let fault = load(&path, &[(variable, value)]).unwrap_err().to_string();
        assert!(fault.starts_with(&format!("environment: `{variable}` ")) && fault.contains(words), "{fault}");
    }
    let broken = std::os::unix::ffi::OsStringExt::from_vec(vec![0xff]);
    let read = Environment::new([("FEDGATE_HIS_LISTEN".into(), broken)].into_iter());
    assert!(read.faults[0].to_string().contains("is no UTF-8"), "{}", read.faults[0]);
    // A fault that is found later names its variable too.
    let config = load(&path, &[("FEDGATE_RECORDS_FILE", "/nowhere/r")]).unwrap();
    let told = config.origins.with_origin("/nowhere/r: no such directory; change `records.file`");
    assert!(told.ends_with("(`records.file` is set by FEDGATE_RECORDS_FILE)"), "{told}");
    assert_eq!(config.origins.with_origin("change `gateway.listen`"), "change `gateway.listen`");
}

#[test]
fn names_that_mean_nothing_are_warned_of_and_those_of_kubernetes_are_not() {
    let names = |of: &[(&str, &str)]| {
        let warnings = load(&file("names", LEAST), of).unwrap().warnings();
        warnings.into_iter().filter(|warning| warning.starts_with("environment: ")).collect::<Vec<_>>()
    };
    let kubernetes = [
        ("FEDGATE_SERVICE_HOST", "10.0.0.1"),
        ("FEDGATE_SERVICE_PORT", "443"),
        ("FEDGATE_SERVICE_PORT_HTTPS", "443"),
        ("FEDGATE_PORT", "tcp://10.0.0.1:443"),
        ("FEDGATE_PORT_443_TCP_ADDR", "10.0.0.1"),
        ("FEDGATE_LOG", "info"),
        ("FEDGATED", "1"),
    ];
    assert_eq!(names(&kubernetes), Vec::<String>::new());
    for name in ["FEDGATE_RECORD_FILE", "FEDGATE_TLS", "FEDGATE_", "FEDGATE_PORTAL"] {
        let told = names(&[(name, "x")]);
        assert!(told.len() == 1 && told[0].contains(&format!("`{name}` means nothing")), "{name}: {told:?}");
    }
}

#[test]
fn all_faults_of_one_route_are_reported_and_drop_no_other_route() {
    let text = "[[upstream]]\nname = \"a\"\nservers = [\"a:1\"]\n\
                [[route]]\npath = \"/good\"\nmethods = [\"GET\"]\nupstream = \"a\"\nendpoint = \"e\"\n\
                [[route]]\npath = \"/b\"\nmethods = [\"GET\"]\nupstream = \"a\"\nendpiont = \"e\"\nmax_body_bytes = \"big\"\n\
                public = true\nhide = [\"\"]\n\
                [[route]]\npath = 1\nmethods = \"GET\"\nupstream = \"none\"\n\
                [[route]]\npath = \"/c\"\nupstream = \"a\"\n\
                [[route]]\npath = \"/d\"\nmethods = [\"PUT\"]\nupstream = \"a\"\nendpoint = \"e\"\n\
                [[route.guard]]\nmembers = 1\n\
                [[route]]\npath = \"/e\"\nmethods = [\"GET\"]\nupstream = \"f\"\npublic = true\n";
    let path = file("one-route", &format!("{text}{LEAST}"));
    let examined = Config::examine_with(&path, variables(&[]));
    let told: Vec<_> = examined.faults.iter().map(ToString::to_string).collect();
    #[rustfmt::skip]
    let expected = [
        "fedgate.toml:13: `route.endpiont`: unknown field `endpiont`",
        "fedgate.toml:14: `route.max_body_bytes`: invalid type",
        "`route.hide of /b` holds an empty name",
        "fedgate.toml:18: `route.path`: invalid type",
        "fedgate.toml:19: `route.methods`: invalid type",
        "fedgate.toml:21: `route`: missing field `methods`",
        "fedgate.toml:29: `route.guard`: invalid type",
        "`route.upstream of /e` names `f`",
    ];
    for words in expected {
        assert_eq!(told.iter().filter(|fault| fault.contains(words)).count(), 1, "{words}: {told:#?}");
    }
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    let kept: Vec<_> = examined.config.unwrap().routes.into_iter().map(|route| route.path).collect();
    assert!(kept.contains(&"/good".to_owned()) && kept.contains(&"/d".to_owned()), "{kept:?}");
}

#[test]
fn a_fault_that_a_keys_default_shares_is_reported_once_and_leads_to_no_other() {
    for text in [
        "[gateway]\nlisten = [\"127.0.0.1:8442\"]\nadmin = [\"127.0.0.1:8442\"]\n",
        "[tls]\nclient_certificates = \"required\"\nclient_ca = \"\"\n",
    ] {
        let told = told(&format!("{text}{LEAST}"), &[]);
        assert_eq!(told.len(), 1, "{told:#?}");
    }
    let password = std::env::temp_dir().join(format!("fedgate-password-{:x}", rand::random::<u64>()));
    crate::regular::write(&password, 0o600, "pässwörd".as_bytes()).unwrap();
    let store = format!("[store]\nkind = \"postgres\"\nuri = \"postgres://a@b/c\"\npassword_file = {password:?}\n");
    for assertion in ["secret_file = \"none\"", "algorithm = \"EdDSA\"\nprivate_key_file = \"none\""] {
        let path = file("one-secret", &format!("{store}[assertion]\n{assertion}\n"));
        let examined = Config::examine_with(&path, variables(&[]));
        assert_eq!(examined.faults.len(), 1, "{:#?}", examined.faults);
        let Some(StoreConfig::Postgres(read)) = examined.config.map(|config| config.store) else { panic!() };
        assert!(read.password.is_some(), "the store's is read: {assertion}");
    }
    std::fs::write(&password, "\n").unwrap();
    let told = told(&format!("{store}{LEAST}"), &[]);
    assert!(told.len() == 1 && told[0].contains("`store.password_file` names a file that is empty"), "{told:#?}");
}
