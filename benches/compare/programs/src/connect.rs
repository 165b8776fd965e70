//! The load of new connections: each request has a connection and a whole handshake of its own.
//!
//! Prints one line, as the script of wrk does: requests that succeeded, others, failures; the times of the
//! successful ones (median, 99th and 99.9th percentile) and the whole time, in microseconds. A time is from
//! `connect` to the last byte of the answer.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// A request that takes longer has failed.
const MOST: Duration = Duration::from_secs(30);

/// The requests to one proxy.
pub(crate) struct Load {
    address: String,
    request: Vec<u8>,
    duration: Duration,
    tls: TlsConnector,
}

#[derive(Default)]
struct Counts {
    good: Vec<u64>,
    other: u64,
    failed: u64,
}

impl Load {
    /// `credential` is the value of `Authorization`.
    pub(crate) fn new(address: &str, path: &str, credential: &str, seconds: f64) -> Self {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {credential}\r\nConnection: close\r\n\r\n"
        );
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let anyone = Arc::new(Anyone(provider));
        let mut config = config.unwrap().dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth();
        config.resumption = Resumption::disabled();
        let (address, duration) = (address.to_owned(), Duration::from_secs_f64(seconds));
        Self { address, request: request.into_bytes(), duration, tls: TlsConnector::from(Arc::new(config)) }
    }

    /// Keeps as many connections going at a time, and prints what came of them.
    pub(crate) async fn run(self, connections: usize) {
        let load = Arc::new(self);
        let begin = Instant::now();
        let end = begin + load.duration;
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let load = Arc::clone(&load);
            tasks.spawn(async move {
                let mut counts = Counts::default();
                while Instant::now() < end {
                    let begin = Instant::now();
                    match timeout(MOST, load.request()).await {
                        Ok(Ok(true)) => counts.good.push(begin.elapsed().as_micros().try_into().unwrap()),
                        Ok(Ok(false)) => counts.other += 1,
                        _ => counts.failed += 1,
                    }
                }
                counts
            });
        }
        let mut all = Counts::default();
        while let Some(counts) = tasks.join_next().await {
            let counts = counts.unwrap();
            all.good.extend(counts.good);
            all.other += counts.other;
            all.failed += counts.failed;
        }
        all.good.sort_unstable();
        let at = |share: usize| all.good.get(all.good.len() * share / 1000).copied().unwrap_or(0);
        let (median, p99, p999) = (at(500), at(990), at(999));
        let elapsed = begin.elapsed().as_micros();
        println!("counts {} {} {} {median} {p99} {p999} {elapsed}", all.good.len(), all.other, all.failed);
    }

    /// Whether the answer is a 200.
    async fn request(&self) -> io::Result<bool> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = self.tls.connect(name, stream).await?;
        stream.write_all(&self.request).await?;
        let mut answer = Vec::with_capacity(4096);
        // A proxy may close without the farewell of TLS, which rustls reports; what came is judged by its status.
        match stream.read_to_end(&mut answer).await {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
            _ => {}
        }
        match answer.get(9..12) {
            Some(status) => Ok(status == b"200"),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Believes every certificate: all proxies have the same one, and who they are is not the question.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
