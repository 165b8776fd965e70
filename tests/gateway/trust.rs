//! TLS with a server: only a server with a valid certificate is trusted, and the gateway presents its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::scripted::{OK, before};

/// An authority with its certificate in a file.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
    der: rustls::pki_types::CertificateDer<'static>,
}

/// A certificate with its key, in files and in memory.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
    der: rustls::pki_types::CertificateDer<'static>,
    key_der: Vec<u8>,
}

struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("fedgate-trust-{:x}", rand::random::<u128>()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        crate::support::write_private(&self.0.join(name), text);
        self.0.join(name)
    }

    fn authority(&self, name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        let file = self.write(name, &certificate.pem());
        Authority { der: certificate.der().clone(), issuer: Issuer::new(params, key), file }
    }

    fn pair(&self, authority: &Authority, name: &str) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &authority.issuer).unwrap();
        Pair {
            certificate: self.write(&format!("{name}.pem"), &certificate.pem()),
            key: self.write(&format!("{name}.key"), &key.serialize_pem()),
            der: certificate.der().clone(),
            key_der: key.serialize_der(),
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server that speaks TLS, and accepts only clients of the authority `clients`, if there is one.
fn serve(pair: &Pair, clients: Option<&Authority>) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der.clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.key_der.clone()));
    let config = Arc::new(builder.with_single_cert(vec![pair.der.clone()], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            std::thread::spawn(move || {
                let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
                while stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) && stream.write_all(OK).is_ok() {}
            });
        }
    });
    address
}

fn tls(authority: &Path, more: &str) -> String {
    format!("[upstream.tls]\nca_file = \"{}\"\n{more}\n", authority.display())
}

#[test]
fn the_authority_and_the_name_must_be_right() {
    let files = Files::new();
    let (ours, other) = (files.authority("ours"), files.authority("other"));
    let address = serve(&files.pair(&ours, "his.test"), None);
    let by_address = serve(&files.pair(&ours, "127.0.0.1"), None);
    #[rustfmt::skip]
    let cases = [
        // server      believed             expected name                    status
        (address,    tls(&ours.file,  "server_name = \"his.test\""),   200),
        (address,    tls(&other.file, "server_name = \"his.test\""),   502),
        (address,    tls(&ours.file,  "server_name = \"her.test\""),   502),
        (address,    tls(&ours.file,  ""),                             502),
        (address,    "[upstream.tls]\nserver_name = \"his.test\"".into(), 502),
        (by_address, tls(&ours.file,  ""),                             200),
        (by_address, String::new(),                                    502),
    ];
    for (server, trust, status) in cases {
        let gateway = before(&[format!("https://{server}")], &trust);
        assert_eq!([gateway.call("POST", "1"), gateway.call("POST", "1")], [status; 2], "{trust}");
    }
    let plain = before(&[address.to_string()], "");
    assert_eq!(plain.call("GET", "1"), 502, "it does not speak without TLS");
}

#[test]
fn a_connection_that_another_upstream_believes_in_is_not_used() {
    let files = Files::new();
    let (ours, other) = (files.authority("ours"), files.authority("other"));
    let address = serve(&files.pair(&ours, "127.0.0.1"), None);
    let second = format!(
        "{}[[upstream]]\nname = \"y\"\nservers = [\"https://{address}\"]\n{}\
         [[route]]\npath = \"/y/{{id}}\"\nmethods = [\"GET\"]\npublic = true\nupstream = \"y\"\n",
        tls(&ours.file, ""),
        tls(&other.file, ""),
    );
    let gateway = before(&[format!("https://{address}")], &second);
    assert_eq!(gateway.call("GET", "1"), 200);
    let answer = gateway.get("/y/1", "");
    assert_eq!(answer.status, 502, "the kept connection was verified by what x believes, not y");
}

#[test]
fn a_server_that_asks_for_a_certificate_is_shown_the_one_that_was_configured() {
    let files = Files::new();
    let (ours, clients) = (files.authority("ours"), files.authority("clients"));
    let address = serve(&files.pair(&ours, "127.0.0.1"), Some(&clients));
    let shown = |pair: &Pair| {
        let (certificate, key) = (pair.certificate.display(), pair.key.display());
        tls(&ours.file, &format!("certificate = \"{certificate}\"\nkey = \"{key}\""))
    };
    let known = shown(&files.pair(&clients, "gateway.test"));
    let unknown = shown(&files.pair(&ours, "stranger.test"));
    for (trust, status) in [(known, 200), (unknown, 502), (tls(&ours.file, ""), 502)] {
        let gateway = before(&[format!("https://{address}")], &trust);
        assert_eq!(gateway.call("POST", "1"), status, "{trust}");
    }
}

#[test]
fn probes_verify_as_requests_do() {
    let files = Files::new();
    let (ours, other) = (files.authority("ours"), files.authority("other"));
    let address = serve(&files.pair(&ours, "127.0.0.1"), None);
    let probed = "[upstream.health]\ninterval_ms = 30\nunhealthy_after = 1\n";
    let start = std::time::Instant::now();
    let gateway = before(&[format!("https://{address}")], &format!("{}{probed}", tls(&other.file, "")));
    gateway.logged("is unhealthy", start, crate::fixture::PATIENCE).expect("it is not believed");
}

#[test]
fn files_that_cannot_be_used_are_named_with_their_key() {
    let files = Files::new();
    let authority = files.authority("ours");
    let (pair, other) = (files.pair(&authority, "gateway.test"), files.pair(&authority, "other.test"));
    let no_certificate = files.write("empty.pem", "");
    let broken = files.write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let missing = files.0.join("missing.pem");
    let gateway = before(&["127.0.0.1:1".to_owned()], "");
    let file = gateway.dir.join("fedgate.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    let shown = |certificate: &Path, key: &Path| {
        format!("certificate = \"{}\"\nkey = \"{}\"", certificate.display(), key.display())
    };
    for (trust, named, key) in [
        (tls(&missing, ""), "missing.pem: cannot be read", "ca_file"),
        (tls(&no_certificate, ""), "empty.pem: holds no certificate", "ca_file"),
        (tls(&broken, ""), "broken.pem: ", "ca_file"),
        (tls(&authority.file, &shown(&pair.key, &pair.key)), "gateway.test.key: holds no certificate", "certificate"),
        (tls(&authority.file, &shown(&pair.certificate, &pair.certificate)), "gateway.test.pem: holds none", "key"),
        (tls(&authority.file, &shown(&pair.certificate, &other.key)), "other.test.key: does not fit", "key"),
    ] {
        std::fs::write(&file, format!("{good}[[upstream]]\nname = \"z\"\nservers = [\"https://a.test:1\"]\n{trust}"))
            .unwrap();
        let checked =
            Command::new(env!("CARGO_BIN_EXE_fedgate")).args(["check", "--config"]).arg(&file).output().unwrap();
        let told = String::from_utf8(checked.stderr).unwrap();
        let told = told.lines().last().unwrap_or_default();
        assert_eq!(checked.status.code(), Some(2), "{told}");
        assert!(told.contains(named) && told.contains(&format!("`upstream.z.tls.{key}` must name")), "{told}");
    }
}
