//! Sends one message to one address, over TLS.
//!
//! The one rule: a connection leads to an address that the rules admit, checked on the address itself after the name was
//! resolved, each time that a connection is opened. No proxy of the environment is asked, and no redirect is followed.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{HOST, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::address::NetworkRules;
use super::retry_after;
use super::url::WebhookUrl;
use crate::store::webhooks::DeliveryProblem;
use fedgate_base::config::WebhooksConfig;
use fedgate_base::pem;

/// The limit of one attempt, from the name to the end of the answer.
const ATTEMPT: Duration = Duration::from_secs(20);
/// How long the rest of an answer is read, so that the connection can be used again.
const REST: Duration = Duration::from_secs(2);
/// The limit for one of several addresses of a name.
const CONNECT: Duration = Duration::from_secs(5);
/// The most addresses of a name that are tried.
const MOST_ADDRESSES: usize = 4;
/// The most bytes of an answer that are read. They are thrown away.
const MOST_ANSWER: usize = 64 * 1024;
/// How old a connection may be when a message begins on it. After that, the name is resolved and checked again.
const CONNECTION_AGE: Duration = Duration::from_secs(30);
/// The most unused connections of a webhook that are kept.
const MOST_IDLE: usize = 8;
/// The most bytes of a head.
const HEAD_BYTES: usize = 32 * 1024;

/// Why a message was not taken.
#[derive(Debug, Error)]
pub(super) enum SendingFault {
    #[error("the name of the host cannot be resolved")]
    NotResolved,
    #[error("the host has no address that is allowed ({0})")]
    NotAllowed(IpAddr),
    #[error("the host cannot be reached ({0})")]
    Unreachable(String),
    #[error("TLS fails ({0})")]
    Tls(String),
    #[error("the connection broke ({0})")]
    Broken(String),
    #[error("there was no answer within 20 s")]
    Timeout,
}

impl SendingFault {
    /// The fault for the account of the webhook. It must not learn the addresses of the hub's networks, nor which names
    /// exist there; operators see the whole.
    pub(super) fn problem(&self) -> DeliveryProblem {
        match self {
            Self::NotResolved | Self::NotAllowed(_) => DeliveryProblem {
                shown: "the host has no address that is allowed".to_owned(),
                detail: Some(self.to_string()),
            },
            Self::Unreachable(_) | Self::Tls(_) | Self::Broken(_) | Self::Timeout => {
                DeliveryProblem { shown: self.to_string(), detail: None }
            }
        }
    }
}

/// The answer of a receiver, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReceiverAnswer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
}

/// The client that all webhooks share.
pub(super) struct WebhookClient {
    tls: TlsConnector,
    rules: NetworkRules,
}

/// A connection, which ends with this value.
struct OpenConnection {
    sender: SendRequest<Body>,
    opened: Instant,
    /// Drives the connection.
    _driver: JoinSet<()>,
}

/// The unused connections of one webhook.
#[derive(Default)]
pub(super) struct IdleConnections(Mutex<Vec<OpenConnection>>);

impl IdleConnections {
    fn take(&self) -> Option<OpenConnection> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|open| open.opened.elapsed() < CONNECTION_AGE && !open.sender.is_closed());
        idle.pop()
    }

    fn keep(&self, open: OpenConnection) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push(open);
        }
    }
}

impl WebhookClient {
    /// # Errors
    /// The file of authorities cannot be used.
    pub(super) fn new(config: &WebhooksConfig) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        match &config.ca_file {
            Some(file) => {
                let problem =
                    |problem: String| format!("`his.webhook_ca_file` names `{}`, which {problem}", file.display());
                let named = pem::certificates(file).map_err(problem)?;
                if roots.add_parsable_certificates(named).0 == 0 {
                    return Err(problem("holds no usable certificate".into()));
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().unwrap_or_default());
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut tls = builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let rules = NetworkRules { allowed: config.allowed.clone(), refused: config.refused.clone() };
        Ok(Self { tls: TlsConnector::from(Arc::new(tls)), rules })
    }

    /// Posts a message, and returns the answer whatever its status is.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn post(
        &self,
        url: &WebhookUrl,
        headers: HeaderMap,
        body: Bytes,
        idle: &IdleConnections,
    ) -> Result<ReceiverAnswer, SendingFault> {
        let attempt = async {
            // A receiver may close an unused connection at any moment, so a failure on one is no failure of the message.
            if let Some(open) = idle.take()
                && let Ok(answer) = exchange(open, url, headers.clone(), body.clone(), idle).await
            {
                return Ok(answer);
            }
            exchange(self.open(url).await?, url, headers, body, idle).await
        };
        timeout(ATTEMPT, attempt).await.unwrap_or(Err(SendingFault::Timeout))
    }

    async fn open(&self, url: &WebhookUrl) -> Result<OpenConnection, SendingFault> {
        let name = ServerName::try_from(url.host.clone()).map_err(|error| SendingFault::Tls(error.to_string()))?;
        let stream = self.connect(url).await?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| SendingFault::Tls(error.to_string()))?;
        let broken = |error: hyper::Error| SendingFault::Broken(error.to_string());
        let mut builder = Builder::new();
        builder.max_buf_size(HEAD_BYTES);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Its failure is that of the request.
            let _ = connection.await;
        });
        Ok(OpenConnection { sender, opened: Instant::now(), _driver: driver })
    }

    /// A connection to the first address that is admitted and answers.
    async fn connect(&self, url: &WebhookUrl) -> Result<TcpStream, SendingFault> {
        let resolved = lookup_host((url.host.as_str(), url.port)).await.map_err(|_| SendingFault::NotResolved)?;
        let mut fault = SendingFault::NotResolved;
        let (admitted, refused): (Vec<SocketAddr>, Vec<_>) =
            resolved.partition(|address| self.rules.admit(address.ip()));
        if let Some(address) = refused.first() {
            fault = SendingFault::NotAllowed(address.ip());
        }
        for address in admitted.into_iter().take(MOST_ADDRESSES) {
            fault = match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) if self.is_elsewhere(&stream) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Ok(_)) => SendingFault::NotAllowed(address.ip()),
                Ok(Err(error)) => SendingFault::Unreachable(error.to_string()),
                Err(_) => SendingFault::Unreachable("no answer within 5 s".to_owned()),
            };
        }
        Err(fault)
    }

    /// Whether a connection leads to an admitted address of another machine. A machine that connects to a public address
    /// of its own does so from that address.
    fn is_elsewhere(&self, stream: &TcpStream) -> bool {
        let (Ok(local), Ok(peer)) = (stream.local_addr(), stream.peer_addr()) else { return false };
        self.rules.admit(peer.ip()) && (local.ip() != peer.ip() || self.rules.names(peer.ip()))
    }
}

async fn exchange(
    mut open: OpenConnection,
    url: &WebhookUrl,
    headers: HeaderMap,
    body: Bytes,
    idle: &IdleConnections,
) -> Result<ReceiverAnswer, SendingFault> {
    let broken = |error: hyper::Error| SendingFault::Broken(error.to_string());
    open.sender.ready().await.map_err(broken)?;
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from(url.target.clone());
    *request.headers_mut() = headers;
    let host = HeaderValue::from_str(&url.authority).map_err(|_| SendingFault::NotResolved)?;
    request.headers_mut().insert(HOST, host);
    let answer = open.sender.send_request(request).await.map_err(broken)?;
    let (status, retry_after) = (answer.status(), retry_after::of(answer.headers().get(RETRY_AFTER)));
    // Read to its end, within a bound, so that the connection can be used again. Its content does not matter.
    let mut bytes = Body::new(answer.into_body()).into_data_stream();
    let mut left = MOST_ANSWER;
    let rest = async {
        loop {
            match bytes.next().await {
                None => break true,
                Some(Ok(piece)) if piece.len() <= left => left -= piece.len(),
                Some(_) => break false,
            }
        }
    };
    if timeout(REST, rest).await.unwrap_or(false) {
        idle.keep(open);
    }
    Ok(ReceiverAnswer { status, retry_after })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_learns_neither_addresses_nor_names_of_the_hubs_networks() {
        let inner = SendingFault::NotAllowed(IpAddr::from([10, 1, 2, 3])).problem();
        assert!(inner.detail.unwrap().contains("10.1.2.3"));
        assert_eq!(inner.shown, SendingFault::NotResolved.problem().shown, "whether the name exists");
        assert!(!inner.shown.contains("10."), "{}", inner.shown);
        assert_eq!(SendingFault::Timeout.problem().shown, "there was no answer within 20 s");
    }
}
