//! The upstream side: servers, and the hygiene of what is forwarded.
//!
//! The one rule: the upstream is told by the gateway who calls, from where and how, and by nobody else. Whatever a client
//! says on these matters is removed, in every spelling that services are known to listen to.

mod servers;
mod trust;
mod connect;
mod health;

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, header};
use pingora_core::Result;
use pingora_http::RequestHeader;

use connect::{Connections, Connector};
pub(super) use connect::{Hold, ServerLine};
pub(super) use servers::{Peer, Servers};
pub use trust::TrustError;

use super::forwarded::Origin;
use super::respond::REQUEST_ID;
use crate::assertion;
use crate::config::UpstreamConfig;

/// What answers of a service tell of how it is made, or tell a proxy to do: neither is for clients, nor for a proxy before.
pub(super) const SERVICES_OWN: &[&str] = &[
    assertion::HEADER,
    assertion::EXCHANGE,
    assertion::BUSY_HEADER,
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

/// Names that say who calls, or override what was asked; of a client's own they have no effect.
const CLIENTS_OWN: &[&str] = &[
    assertion::HEADER,
    assertion::EXCHANGE,
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-original-url",
    "x-rewrite-url",
    "x-original-method",
    "x-original-uri",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "remote-user",
    "remote-addr",
    "x-remote-user",
    "x-remote-group",
    "x-auth-request-user",
    "x-authenticated-user",
    "x-user",
    "x-webauth-user",
    "proxy",
    "proxy-authorization",
    "expect",
    REQUEST_ID,
];

/// Every upstream, in the order of the configuration.
pub(super) struct Upstreams {
    list: Vec<Upstream>,
    connections: Arc<Connections>,
}

/// One upstream, ready to be connected to.
pub(super) struct Upstream {
    pub(super) servers: Servers,
    pub(super) assertion: bool,
    forward_authorization: bool,
}

/// What the gateway tells the upstream of a request.
pub(super) struct Told<'a> {
    pub(super) target: &'a str,
    pub(super) origin: &'a Origin,
    pub(super) request_id: &'a str,
    pub(super) assertion: Option<&'a str>,
}

impl Upstreams {
    /// Loads what TLS with the servers needs, and looks up where they are.
    ///
    /// # Errors
    /// A file cannot be used. A name that leads nowhere is no error: it is looked up again.
    pub(super) async fn open(configs: &[UpstreamConfig]) -> Result<Self, TrustError> {
        let connections = Connections::new();
        let connector = Arc::new(Connector(Arc::clone(&connections)));
        let open = |(index, config)| Upstream::new(index, config, Arc::clone(&connector));
        let list = configs.iter().enumerate().map(open).collect::<Result<Vec<_>, _>>()?;
        for upstream in &list {
            upstream.servers.resolve().await;
        }
        Ok(Self { list, connections })
    }

    pub(super) fn find(&self, index: usize) -> Option<&Upstream> {
        self.list.get(index)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Upstream> {
        self.list.iter()
    }

    /// The second handle of a connection.
    pub(super) fn line(&self, connection: RawFd) -> Option<ServerLine> {
        self.connections.line(connection)
    }

    /// Ends the connection when `until` is over and the request it now serves still holds it.
    pub(super) fn hold(&self, connection: RawFd, until: Instant) -> Option<Hold> {
        self.connections.hold(connection, until)
    }
}

impl Upstream {
    fn new(index: usize, config: &UpstreamConfig, connector: Arc<Connector>) -> Result<Self, TrustError> {
        Ok(Self {
            servers: Servers::new(index, config, connector)?,
            assertion: config.assertion,
            forward_authorization: config.forward_authorization,
        })
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        self.servers.name()
    }

    /// Makes the request that is forwarded out of the one that was judged.
    pub(super) fn rewrite(&self, request: &mut RequestHeader, told: &Told<'_>) -> Result<()> {
        request.set_raw_path(told.target.as_bytes())?;
        for name in unwanted(&request.headers) {
            request.remove_header(&name);
        }
        if !self.forward_authorization {
            request.remove_header(&header::AUTHORIZATION);
        }
        join_cookies(request)?;
        told.origin.tell(request, told.request_id)?;
        request.insert_header(REQUEST_ID, told.request_id)?;
        if let Some(assertion) = told.assertion {
            request.insert_header(assertion::HEADER, assertion)?;
        }
        Ok(())
    }
}

/// Makes one line of cookies that came in several: HTTP/2 may split them, and services read the first alone, or join them
/// by commas (RFC 9113, 8.2.3; RFC 6265, 5.4).
fn join_cookies(request: &mut RequestHeader) -> Result<()> {
    let lines: Vec<&[u8]> = request.headers.get_all(header::COOKIE).iter().map(|line| line.as_bytes()).collect();
    match lines.as_slice() {
        [] | [_] => Ok(()),
        several => {
            let joined = several.join(&b"; "[..]);
            request.insert_header(header::COOKIE, joined)
        }
    }
}

/// The headers that are not forwarded. Names with `_` or `.` are among them: services that read headers as variables
/// (CGI, WSGI) take `Fedgate_Assertion` for `Fedgate-Assertion`.
fn unwanted(headers: &HeaderMap) -> Vec<header::HeaderName> {
    let unwanted = |name: &&header::HeaderName| {
        let name = name.as_str();
        CLIENTS_OWN.contains(&name)
            || name.starts_with("x-forwarded-")
            || name.bytes().any(|byte| !byte.is_ascii_alphanumeric() && byte != b'-')
    };
    headers.keys().filter(unwanted).cloned().collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, ProxiesConfig};

    fn upstream(forward_authorization: bool) -> Upstream {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fedgate.toml");
        let secret = ("FEDGATE_ASSERTION_SECRET".to_owned(), "k".repeat(40));
        let mut config = Config::load_with(&example, [secret].into_iter()).unwrap().upstreams.remove(0);
        config.forward_authorization = forward_authorization;
        Upstream::new(0, &config, Arc::new(Connector(Connections::new()))).unwrap()
    }

    fn forwarded(upstream: &Upstream, sent: &[(&'static str, &str)], assertion: Option<&str>) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/people?x", None).unwrap();
        for (name, value) in sent {
            request.append_header(*name, *value).unwrap();
        }
        let proxies = ProxiesConfig::default();
        let origin = Origin::of(&request.headers, Some("192.0.2.7".parse().unwrap()), true, &proxies);
        upstream
            .rewrite(&mut request, &Told { target: "/people", origin: &origin, request_id: "r1", assertion })
            .unwrap();
        request
    }

    #[test]
    fn what_a_client_says_of_itself_has_no_effect() {
        let mut sent: Vec<(&'static str, &str)> = CLIENTS_OWN.iter().map(|name| (*name, "forged")).collect();
        sent.extend([
            ("Fedgate_Assertion", "forged"),
            ("fedgate.assertion", "forged"),
            ("X-Forwarded-User", "forged"),
            ("X-Forwarded-For", "forged"),
        ]);
        sent.extend([
            ("FEDGATE-ASSERTION", "forged"),
            ("Accept", "kept"),
            ("Host", "hospital.example"),
            ("Authorization", "Basic forged"),
        ]);
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
