//! The exposure of a configuration: secrets that others can read, and listeners that others can reach.

use super::*;

fn told(words: &[String], file: &Path, key: &str) -> bool {
    words.iter().any(|word| word.starts_with(&file.display().to_string()) && word.contains(&format!("`{key}`")))
}

#[test]
fn every_secret_that_a_program_reads_is_looked_at_and_none_that_it_does_not_read() {
    let text = "[gateway]\nexposed_secrets = \"warn\"\n\
                [tls]\ncertificate = \"tls.pem\"\nkey = \"tls.key\"\nsni = [{ certificate = \"b.pem\", key = \"b.key\" }]\n\
                [store]\nkind = \"postgres\"\nuri = \"postgres://h/d\"\npassword_file = \"password\"\n\
                [[upstream]]\nname = \"his\"\nservers = [\"https://his.example:443\"]\n\
                [upstream.tls]\ncertificate = \"c.pem\"\nkey = \"c.key\"\n";
    let (shared, eddsa) = (
        "[assertion]\nsecret_file = \"secret\"\nprivate_key_file = \"mints\"\n",
        "[assertion]\nalgorithm = \"EdDSA\"\nsecret_file = \"secret\"\nprivate_key_file = \"mints\"\npublic_key_file = \"verifies\"\n",
    );
    for (algorithm, minting) in [(shared, "secret"), (eddsa, "mints")] {
        let path = file(&format!("open-secrets-{minting}"), &format!("{text}{algorithm}"));
        let dir = path.parent().unwrap();
        for name in ["secret", "mints", "verifies", "password", "tls.key", "b.key", "c.key"] {
            std::fs::write(dir.join(name), [b'k'; 40]).unwrap();
            std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(0o644)).unwrap();
        }
        let at = |name: &str| dir.join(name);
        let gateways = load(&path, &[]).unwrap().warnings();
        let of_both = [("password", "store.password_file")];
        let of_gateway = [("tls.key", "tls"), ("b.key", "tls"), ("c.key", "upstream.tls")];
        let assertions = [("secret", "assertion.secret_file"), ("mints", "assertion.private_key_file")];
        for (name, key) in of_both.iter().chain(&of_gateway) {
            assert!(told(&gateways, &at(name), key), "{name}: {gateways:#?}");
        }
        for (name, key) in assertions {
            assert_eq!(told(&gateways, &at(name), key), name == minting, "{name}: {gateways:#?}");
        }
        let his = Config::load_for_his(&path).unwrap().loose_secrets();
        assert!(told(&his, &at("password"), "store.password_file"), "{his:#?}");
        // A shared secret is the HIS's, too; a key that mints is not.
        assert_eq!(his.len(), if minting == "secret" { 2 } else { 1 }, "{his:#?}");
        // A password for another kind of store is not read.
        let embedded = load(&path, &[("FEDGATE_STORE_KIND", "sqlite")]).unwrap().warnings();
        assert!(!told(&embedded, &at("password"), "store.password_file"), "{embedded:#?}");
    }
}

#[test]
fn reachable_listeners_without_tls_are_reported_with_the_remedy() {
    let config = |listen: &str, his: &str| {
        let text = format!(
            "[gateway]\nlisten = [\"0.0.0.0:443\"]\nredirect = [\"0.0.0.0:80\"]\nlisten_plain = [\"{listen}:8080\"]\n\
             admin = [\"{listen}:8442\"]\n{LEAST}[his]\nlisten = \"{his}\"\nadmin = [\"{listen}:8083\"]\n"
        );
        let open = load(&file("open-listeners", &text), &[]).unwrap().open_defaults();
        open.into_iter().filter(|word| word.contains("other machines can reach")).collect::<Vec<_>>()
    };
    for loopback in ["127.0.0.1", "127.8.9.10", "[::1]", "[::ffff:127.0.0.1]"] {
        assert_eq!(config(loopback, &format!("{loopback}:8081")), Vec::<String>::new());
    }
    assert_eq!(config("127.0.0.1", "unix:/run/fedhis/his.sock"), Vec::<String>::new());
    for (everywhere, instead) in [("0.0.0.0", "127.0.0.1"), ("[::]", "[::1]"), ("192.0.2.1", "127.0.0.1")] {
        let open = config(everywhere, &format!("{everywhere}:8081"));
        for (word, key) in open.iter().zip(["gateway.listen_plain", "gateway.admin", "his.listen", "his.admin"]) {
            assert!(word.contains(&format!("`{key}` holds {everywhere}:")), "{word}");
            assert!(word.contains(&format!("or listen on {instead}; in a container, do not publish")), "{word}");
        }
        assert_eq!(open.len(), 4, "the redirect is meant for everybody: {open:#?}");
    }
}
