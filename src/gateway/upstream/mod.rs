//! The upstream side: servers, and the headers of forwarded requests.
//!
//! The one rule: the gateway alone tells the upstream who calls, from where and how. Of a client's headers only
//! those on the list of [`fedgate_core::request_headers`] pass.

mod servers;
mod tls_trust;
mod connections;
mod kept_connections;
mod health;
mod dropped_headers;
mod server_name;
mod stream_peers;
mod stream_version;
mod clock_skew;

use std::os::fd::RawFd;
use std::sync::{Arc, OnceLock};

use http::header::InvalidHeaderValue;
use http::{HeaderMap, HeaderValue, Request, header};
use pingora_core::connectors::TransportConnector;
use pingora_core::connectors::http::Connector;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use clock_skew::ClockSkew;
pub(crate) use connections::{ConnectionHold, ServerLine};
use connections::{ServerConnections, ServerConnector};
use dropped_headers::DroppedNames;
pub(crate) use kept_connections::{KeptConnection, KeptConnections};
pub(crate) use servers::{ServerAddress, ServerSet};
pub use tls_trust::TrustError;

use crate::balance::UpstreamServer;
use crate::gateway::edge::forwarded::RequestOrigin;
use crate::gateway::headers::{REQUEST_ID, connection_options};
use fedgate_base::config::{HostHeader, UpstreamConfig};
use fedgate_core::admission::requested_host;
use fedgate_core::assertion;
use fedgate_core::host::HostList;
use fedgate_core::request_headers::{HeaderPassage, PassList};

/// Headers of answers that describe the service or instruct a proxy: neither is for clients, nor for a proxy in
/// front of the gateway.
pub(crate) const REMOVED_ANSWER_HEADERS: &[&str] = &[
    assertion::HEADER,
    assertion::EXCHANGE,
    assertion::BUSY_HEADER,
    assertion::CLOCK_HEADER,
    "server",
    "via",
    "x-powered-by",
    "x-aspnet-version",
    "x-aspnetmvc-version",
    "x-generator",
    "x-runtime",
    "x-accel-redirect",
    "x-accel-buffering",
    "x-accel-charset",
    "x-accel-expires",
    "x-accel-limit-rate",
    "x-sendfile",
    "x-lighttpd-send-file",
    "x-reproxy-url",
];

/// How many headers of its own the gateway adds to a request, at most.
const OWN_HEADERS: usize = 12;

/// Every upstream, in the order of the configuration.
pub(crate) struct UpstreamSet {
    list: Vec<ServedUpstream>,
    /// Connects for the gateway's own requests. Made when first needed: it loads the system's authorities, which
    /// takes a moment.
    connector: OnceLock<TransportConnector>,
    /// Connects for streams: many of them share a connection.
    stream_connector: OnceLock<Connector>,
    connections: Arc<ServerConnections>,
    clock_skew: ClockSkew,
}

/// One upstream, ready to be connected to.
pub(crate) struct ServedUpstream {
    pub(crate) servers: ServerSet,
    pub(crate) assertion: bool,
    forward_authorization: bool,
    passed: PassList,
    asks_by_own_name: bool,
    /// The served hosts; empty if every host is.
    hosts: HostList,
    dropped: DroppedNames,
}

/// The gateway's statements about a request to the upstream.
pub(crate) struct ForwardedFacts<'a> {
    pub(crate) target: &'a str,
    pub(crate) origin: &'a RequestOrigin,
    pub(crate) request_id: &'a str,
    pub(crate) assertion: Option<&'a str>,
    /// The server's own name for `Host`, if it is not asked by the client's.
    pub(crate) host: Option<&'a str>,
}

impl UpstreamSet {
    /// Loads the TLS files of the upstreams, and looks up their servers.
    ///
    /// # Errors
    /// Files that cannot be used. A name that leads nowhere is no error; it is looked up again.
    pub(crate) async fn open(configs: &[UpstreamConfig], hosts: &HostList) -> Result<Self, Vec<TrustError>> {
        let connections = ServerConnections::new();
        let connector = Arc::new(ServerConnector(Arc::clone(&connections)));
        // The index is a part of the pool key: two upstreams with the same address share no connection.
        let open = |(index, config)| ServedUpstream::new(index, config, hosts, Arc::clone(&connector));
        let (mut list, mut faults) = (vec![], vec![]);
        for opened in configs.iter().enumerate().map(open) {
            match opened {
                Ok(upstream) => list.push(upstream),
                Err(fault) => faults.push(fault),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        for upstream in &list {
            upstream.servers.resolve().await;
        }
        let (connector, stream_connector) = (OnceLock::new(), OnceLock::new());
        Ok(Self { list, connector, stream_connector, connections, clock_skew: ClockSkew::default() })
    }

    /// The services' latest opinion of this gateway's clock.
    pub(super) fn clock_skew(&self) -> &ClockSkew {
        &self.clock_skew
    }

    pub(crate) fn find(&self, index: usize) -> Option<&ServedUpstream> {
        self.list.get(index)
    }

    /// The connector of the gateway's own requests.
    pub(crate) fn connector(&self) -> &TransportConnector {
        self.connector.get_or_init(|| TransportConnector::new(None))
    }

    /// The connector of streams.
    pub(crate) fn stream_connector(&self) -> &Connector {
        self.stream_connector.get_or_init(|| Connector::new(None))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &ServedUpstream> {
        self.list.iter()
    }

    /// The second handle of a connection.
    pub(crate) fn line(&self, connection: RawFd) -> Option<ServerLine> {
        self.connections.line(connection)
    }
}

impl ServedUpstream {
    fn new(
        index: usize,
        config: &UpstreamConfig,
        hosts: &HostList,
        connector: Arc<ServerConnector>,
    ) -> Result<Self, TrustError> {
        Ok(Self {
            servers: ServerSet::new(index, config, connector)?,
            assertion: config.assertion,
            forward_authorization: config.forward_authorization,
            asks_by_own_name: match config.host {
                HostHeader::Listed => !hosts.names_some(),
                HostHeader::Clients => false,
                HostHeader::Own => true,
            },
            hosts: hosts.clone(),
            passed: PassList::new(&config.request_headers),
            dropped: DroppedNames::default(),
        })
    }

    /// Whether it receives the client's `Authorization`.
    pub(crate) fn forwards_authorization(&self) -> bool {
        self.forward_authorization
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.servers.name()
    }

    /// The server's own name, if it is asked by that.
    pub(crate) fn own_name<'a>(&self, server: &'a UpstreamServer<ServerAddress>) -> Option<&'a str> {
        self.asks_by_own_name.then_some(&*server.peer.authority)
    }

    /// Rewrites addresses under the server's own name in an answer, so that clients come back to the gateway.
    pub(crate) fn lead_back(
        &self,
        server: &UpstreamServer<ServerAddress>,
        response: &mut ResponseHeader,
    ) -> Result<()> {
        self.own_name(server).map_or(Ok(()), |authority| server_name::lead_back(response, authority))
    }

    /// The request that is forwarded, made of the client's; and how many headers the list dropped.
    ///
    /// It is written anew, with the listed headers alone: nothing that a client sent passes because nobody removed it.
    ///
    /// # Errors
    /// A text that is no value of a header; there is none.
    pub(crate) fn rewrite(
        &self,
        client: &RequestHeader,
        forwarded: &ForwardedFacts<'_>,
    ) -> Result<(RequestHeader, usize)> {
        let (mut headers, dropped) = self.listed(&client.headers);
        // HTTP/2 names it in `:authority`.
        let host = requested_host(&client.uri, &client.headers);
        if !host.is_empty() && headers.get(header::HOST).is_none_or(|named| named != host) {
            headers.insert(header::HOST, value(host)?);
        }
        self.spell_host(&mut headers)?;
        join_cookies(&mut headers)?;
        // A client cannot set these: what it sent under their names is not listed.
        forwarded.origin.tell(&mut headers, forwarded.request_id).map_err(invalid)?;
        // After `tell`, which reads the client's `Host` for `X-Forwarded-Host`.
        if let Some(host) = forwarded.host {
            headers.insert(header::HOST, value(host)?);
        }
        headers.insert(REQUEST_ID, value(forwarded.request_id)?);
        if let Some(assertion) = forwarded.assertion {
            headers.insert(assertion::HEADER, value(assertion)?);
        }
        let (mut parts, ()) = Request::new(()).into_parts();
        (parts.method, parts.headers) = (client.method.clone(), headers);
        let mut request = RequestHeader::from(parts);
        // The decided target, byte for byte, and not as a parsed URI would write it.
        request.set_raw_path(forwarded.target.as_bytes())?;
        Ok((request, dropped))
    }

    /// Writes a listed host as the list does, for `Host` and for `X-Forwarded-Host`, which is read from it.
    fn spell_host(&self, headers: &mut HeaderMap) -> Result<()> {
        let asked = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        if let Some(spelling) = asked.and_then(|asked| self.hosts.spelling(asked).filter(|spelling| spelling != asked))
        {
            headers.insert(header::HOST, value(&spelling)?);
        }
        Ok(())
    }

    /// The headers that are listed, and how many others there were.
    fn listed(&self, sent: &HeaderMap) -> (HeaderMap, usize) {
        let mut listed = HeaderMap::with_capacity(sent.len() + OWN_HEADERS);
        let mut dropped = 0;
        for name in sent.keys() {
            let passes = match self.passed.judge(name) {
                // Where `Connection` names it, it is for the gateway alone.
                HeaderPassage::Passes => {
                    !connection_options(sent).any(|option| option.eq_ignore_ascii_case(name.as_str().as_bytes()))
                }
                // The gateway's own values are inserted later; a client's never pass.
                HeaderPassage::IsOwn => {
                    *name == header::HOST || (*name == header::AUTHORIZATION && self.forward_authorization)
                }
                HeaderPassage::IsDropped => {
                    dropped += 1;
                    self.dropped.note(self.name(), name.as_str());
                    false
                }
            };
            if passes {
                for value in sent.get_all(name) {
                    listed.append(name, value.clone());
                }
            }
        }
        (listed, dropped)
    }
}

fn value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(invalid)
}

fn invalid(error: InvalidHeaderValue) -> Box<Error> {
    Error::because(ErrorType::InvalidHTTPHeader, "a header of the gateway's own", error)
}

/// Joins several cookie lines into one: HTTP/2 may split them, and services read only the first, or join them by
/// commas (RFC 9113, 8.2.3; RFC 6265, 5.4).
fn join_cookies(headers: &mut HeaderMap) -> Result<()> {
    let lines: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(|line| line.as_bytes()).collect();
    if lines.len() > 1 {
        let joined = lines.join(&b"; "[..]);
        headers.insert(header::COOKIE, HeaderValue::from_bytes(&joined).map_err(invalid)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use fedgate_base::config::{Config, ProxiesConfig};

    fn upstream(forward_authorization: bool) -> ServedUpstream {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fedgate.toml");
        let secret = ("FEDGATE_ASSERTION_SECRET".to_owned(), "k".repeat(40));
        let mut config = Config::load_with(&example, [secret].into_iter()).unwrap().upstreams.remove(0);
        config.forward_authorization = forward_authorization;
        ServedUpstream::new(0, &config, &HostList::default(), Arc::new(ServerConnector(ServerConnections::new())))
            .unwrap()
    }

    fn forwarded(upstream: &ServedUpstream, sent: &[(&'static str, &str)], assertion: Option<&str>) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/people?x", None).unwrap();
        for (name, value) in sent {
            request.append_header(*name, *value).unwrap();
        }
        let proxies = ProxiesConfig::default();
        let origin = RequestOrigin::of(&request.headers, Some("192.0.2.7".parse().unwrap()), true, &proxies);
        let (request, _) = upstream
            .rewrite(
                &request,
                &ForwardedFacts {
                    target: "/people",
                    origin: &origin,
                    request_id: "r1",
                    assertion,
                    host: Some("his:8081"),
                },
            )
            .unwrap();
        request
    }

    #[test]
    fn what_a_client_says_of_itself_has_no_effect() {
        let mut sent = [
            "fedgate-assertion",
            "FEDGATE-ASSERTION",
            "fedgate-exchange",
            "Fedgate_Assertion",
            "fedgate.assertion",
            "X-Forwarded-User",
            "X-Forwarded-For",
            "Forwarded",
            "Via",
            "X-Real-IP",
            "X-Original-URL",
            "X-HTTP-Method-Override",
            "Remote-User",
            "Proxy-Authorization",
            "Expect",
            "X-Request-Id",
        ]
        .map(|name| (name, "forged"))
        .to_vec();
        sent.extend([("Accept", "kept"), ("Host", "hospital.example"), ("Authorization", "Basic forged")]);
        sent.extend([("X-Requested-With", "forged"), ("Connection", "close, x-requested-WITH")]);
        let request = forwarded(&upstream(false), &sent, Some("minted"));
        let all: Vec<_> =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert!(all.iter().all(|(_, value)| !value.contains("forged")), "{all:?}");
        for kept in [
            ("accept", "kept"),
            ("fedgate-assertion", "minted"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "hospital.example"),
            ("host", "his:8081"),
            ("forwarded", "for=192.0.2.7;proto=https"),
            ("x-request-id", "r1"),
        ] {
            assert!(all.contains(&kept), "{kept:?} in {all:?}");
        }
        assert_eq!(request.raw_path(), b"/people", "what was judged is what is forwarded");
    }

    #[test]
    fn authorization_goes_on_only_where_the_upstream_is_to_have_it() {
        let sent = [("Authorization", "Basic QTpi")];
        assert!(!forwarded(&upstream(false), &sent, None).headers.contains_key("authorization"));
        assert!(forwarded(&upstream(true), &sent, None).headers.contains_key("authorization"));
        assert!(
            !forwarded(&upstream(true), &[("fedgate-assertion", "forged")], None)
                .headers
                .contains_key(assertion::HEADER)
        );
    }
}
