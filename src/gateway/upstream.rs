//! The upstream side: peers, and the hygiene of what is forwarded.
//!
//! The one rule: the upstream is told by the gateway who calls, from where and how, and by nobody else. Whatever a client
//! says on these matters is removed, in every spelling that services are known to listen to.

use http::{HeaderMap, header};
use pingora_core::Result;
use pingora_core::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora_http::RequestHeader;

use super::forwarded::Origin;
use super::respond::REQUEST_ID;
use crate::assertion;
use crate::config::{Address, UpstreamConfig};

/// Names that say who calls, or override what was asked; of a client's own they have no effect.
const CLIENTS_OWN: &[&str] = &[
    assertion::HEADER,
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

/// One upstream, ready to be connected to.
pub(super) struct Upstream {
    peer: HttpPeer,
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

impl Upstream {
    /// Prepares the peer of one configured upstream.
    pub(super) fn new(config: &UpstreamConfig) -> Result<Self> {
        let mut peer = match &config.address {
            Address::Tcp(address) => HttpPeer::new(address, false, String::new()),
            Address::Unix(path) => HttpPeer::new_uds(&path.display().to_string(), false, String::new())?,
        };
        peer.options.connection_timeout = Some(config.connect_timeout);
        peer.options.total_connection_timeout = Some(config.connect_timeout);
        peer.options.read_timeout = Some(config.read_timeout);
        peer.options.write_timeout = Some(config.write_timeout);
        peer.options.idle_timeout = Some(config.idle_timeout);
        peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::deny_upgrades();
        Ok(Self { peer, assertion: config.assertion, forward_authorization: config.forward_authorization })
    }

    /// The peer of one request.
    pub(super) fn peer(&self) -> Box<HttpPeer> {
        Box::new(self.peer.clone())
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
        told.origin.tell(request, told.request_id)?;
        request.insert_header(REQUEST_ID, told.request_id)?;
        if let Some(assertion) = told.assertion {
            request.insert_header(assertion::HEADER, assertion)?;
        }
        Ok(())
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
    use std::time::Duration;

    use super::*;
    use crate::config::ProxiesConfig;

    fn upstream(forward_authorization: bool) -> Upstream {
        let second = Duration::from_secs(1);
        Upstream::new(&UpstreamConfig {
            name: "his".into(),
            address: Address::Tcp("127.0.0.1:1".parse().unwrap()),
            assertion: true,
            forward_authorization,
            connect_timeout: second,
            read_timeout: second,
            write_timeout: second,
            idle_timeout: second,
        })
        .unwrap()
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
