//! Database servers as operators run them: their certificates, their sockets, and the defaults of their roles.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use fedgate::accounts::{AccountChange, AccountStore};
use fedgate_base::config::{PostgresConfig, StoreConfig, socket_directory};
use fedgate_base::db::{Database, DbError, schema};
use rcgen::{BasicConstraints, CertificateParams, IsCa};

use crate::his::program::{configuration_on, fedhis};
use crate::support::postgres::Cluster;
use crate::support::{His, Scratch, postgres_text, root};

/// Asks a server for the schema version, with this connection string and file of authorities.
async fn ask(uri: &str, ca_file: Option<&PathBuf>) -> Result<i64, DbError> {
    let base = Cluster::shared().database().await;
    let config = PostgresConfig { uri: uri.to_owned(), ca_file: ca_file.cloned(), ..base };
    schema::version(&Database::open(&StoreConfig::Postgres(config)).await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_of_a_server_is_verified_as_its_mode_says_and_a_fault_names_the_key() {
    let cluster = Cluster::start();
    let (port, file) = cluster.encrypt();
    let uri = |host: &str, mode: &str| format!("postgres://postgres@{host}:{port}/postgres?{mode}");
    let root = format!("sslrootcert={}", file.display());
    for (host, mode, ca_file, fault) in [
        ("localhost", "", None, "`store.ca_file`"),
        ("localhost", "sslmode=verify-full", None, "`store.ca_file`"),
        ("localhost", "sslmode=verify-ca", None, "`store.ca_file`"),
        ("localhost", "sslmode=disable", None, ""),
        ("localhost", "sslmode=verify-full", Some(&file), ""),
        ("127.0.0.1", "sslmode=verify-full", Some(&file), "another name than that in `store.uri`"),
        ("127.0.0.1", "sslmode=verify-ca", Some(&file), ""),
        // The operator has named exactly this certificate.
        ("127.0.0.1", "sslmode=require", Some(&file), ""),
    ] {
        let asked = ask(&uri(host, mode), ca_file).await.map_err(|error| error.to_string());
        match fault {
            "" => assert_eq!(asked, Ok(0), "{host} {mode}"),
            fault => assert!(asked.as_ref().is_err_and(|told| told.contains(fault)), "{host} {mode}: {asked:?}"),
        }
    }
    // As a program reads them from its configuration, and reports what is wrong.
    let scratch = Scratch::new();
    let migrate = |uri: &str| {
        let out = fedhis(&["migrate"], &configuration_on(&scratch.0, uri));
        (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (is_done, told) = migrate(&uri("localhost", "sslmode=require"));
    assert!(!is_done && told.contains("`store.ca_file`") && !told.contains("is the server up"), "{told}");
    // The message names what the operator wrote.
    let (is_done, told) = migrate(&uri("localhost", "sslmode=verify-full&sslrootcert=/nowhere/ca.pem"));
    assert!(
        !is_done && told.contains("`store.uri` names, as `sslrootcert`, `/nowhere/ca.pem`, which cannot be read"),
        "{told}"
    );
    assert!(!told.contains("ca_file"), "{told}");
    let (is_done, told) = migrate(&format!("{}\"\nca_file = \"/nowhere/ca.pem", uri("localhost", "sslmode=require")));
    assert!(!is_done && told.contains("`store.ca_file` names `/nowhere/ca.pem`, which cannot be read"), "{told}");
    let (is_done, told) = migrate(&uri("localhost", &format!("sslmode=verify-full&{root}")));
    assert!(is_done, "{told}");
    let several = uri("localhost", "sslmode=require").replace("@", "@127.0.0.1:1,");
    let (is_done, told) = migrate(&several);
    assert!(!is_done && told.contains("`store.ca_file`") && !told.contains("is the server up"), "{told}");

    // As `openssl req -x509` makes it: a self-signed authority.
    let mut authority = CertificateParams::new(vec!["localhost".into()]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (port, file) = cluster.encrypt_with(authority);
    let uri = |host: &str, mode: &str| format!("postgres://postgres@{host}:{port}/postgres?{mode}");
    for (host, mode, is_taken) in [
        ("localhost", "sslmode=verify-full", true),
        ("127.0.0.1", "sslmode=verify-full", false),
        ("127.0.0.1", "sslmode=verify-ca", true),
        ("127.0.0.1", "sslmode=require", true),
    ] {
        let asked = ask(&uri(host, mode), Some(&file)).await;
        assert_eq!(asked.is_ok(), is_taken, "{host} {mode}: {asked:?}");
        if let Err(error) = asked {
            assert!(error.to_string().contains("another name than that in `store.uri`"), "{error}");
        }
    }
    let other = scratch.0.join("other.pem");
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(&other, CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap().pem())
        .unwrap();
    let asked = ask(&uri("localhost", "sslmode=verify-ca"), Some(&other)).await.unwrap_err().to_string();
    assert!(asked.contains("`store.ca_file`"), "{asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_string_without_a_host_leads_to_the_socket_of_this_machine() {
    let cluster = Cluster::start();
    let port = cluster.listen_in(socket_directory());
    let scratch = Scratch::new();
    for uri in [
        format!("postgresql:///postgres?user=postgres&port={port}"),
        format!("dbname=postgres user=postgres port={port} sslmode=verify-full"),
    ] {
        let out = fedhis(&["migrate"], &configuration_on(&scratch.0, &uri));
        assert!(out.status.success(), "{uri}: {out:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_role_has_as_its_isolation_harms_no_writer() {
    for level in ["repeatable read", "serializable"] {
        let config = Cluster::shared().database_with_accounts(8, "!").await;
        let name = config.uri.split("dbname=").nth(1).unwrap();
        let of_role = format!("ALTER ROLE postgres IN DATABASE {name} SET default_transaction_isolation = '{level}'");
        postgres_text(&config, &of_role).await;
        assert_eq!(postgres_text(&config, "SHOW default_transaction_isolation").await, level);
        let accounts = Arc::new(AccountStore::open(&StoreConfig::Postgres(config.clone())).await.unwrap());
        let his = Arc::new(His::on(config).await);
        let writers = (0..8).map(|number| {
            let (accounts, his) = (Arc::clone(&accounts), Arc::clone(&his));
            tokio::spawn(async move {
                for turn in 0..10 {
                    let (id, hash) = (format!("P{number}"), format!("{turn}"));
                    accounts.change(&id, &AccountChange::PasswordHash(hash)).await.unwrap();
                    let roles = format!(r#"{{"roles":["end_user"],"active":{}}}"#, turn % 2 == 0);
                    let reply = his.patch(&root(), &format!("/people/{id}"), roles).await;
                    assert_eq!(reply.status, 200, "{}", reply.text());
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_tls_is_distinct_from_an_unavailable_one() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The answer to a request for TLS (PostgreSQL manual, 54.2.12).
            let _ = stream.read_exact(&mut [0; 8]);
            let _ = stream.write_all(b"N");
        }
    });
    let asked = ask(&format!("postgres://u@127.0.0.1:{port}/d?sslmode=require"), None).await.unwrap_err();
    assert!(asked.is_answer() && asked.to_string().contains("the server does not speak TLS"), "{asked}");
}
