//! The listener without TLS that redirects to HTTPS (RFC 9110, 15.4.9), and does nothing else.
//!
//! The one rule: nothing in the request has an effect. A client that has sent its password here has exposed it
//! already. The answer does not reveal whether it was right, and the next request comes over TLS.

use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;

use crate::gateway::headers::REQUEST_ID;
use fedgate_core::host::HostList;
use fedgate_core::methods::ALL_METHODS;

/// Answers every request with the same address over HTTPS.
pub(crate) struct HttpsRedirect {
    /// The port of HTTPS, unless it is the usual one.
    pub(crate) port: Option<u16>,
    /// The hosts that it redirects to.
    pub(crate) hosts: HostList,
}

#[async_trait]
impl ServeHttp for HttpsRedirect {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        // Also for HTTP/1.0 and for clients that would send more: there is nothing more to get here.
        session.set_keepalive(None);
        let head = session.req_header();
        if head.method == Method::OPTIONS && head.uri.path() == "*" {
            return whole_server();
        }
        let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        // Open redirect: an unlisted or malformed `Host` becomes no address.
        let host = host.filter(|host| self.hosts.serves(host)).and_then(name);
        let location = host.map(|name| {
            let port = self.port.map_or(String::new(), |port| format!(":{port}"));
            let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
            format!("https://{name}{port}{path}")
        });
        let response = Response::builder().header(header::CONTENT_LENGTH, 0).header(header::CONNECTION, "close");
        let response = match location {
            Some(location) => response.status(StatusCode::PERMANENT_REDIRECT).header(header::LOCATION, location),
            None => response.status(StatusCode::BAD_REQUEST),
        };
        response.body(vec![]).unwrap_or_default()
    }
}

/// The answer to `OPTIONS *`, as the other listeners give it: it names no page that could be elsewhere.
fn whole_server() -> Response<Vec<u8>> {
    let request_id = format!("{:032x}", rand::random::<u128>());
    let response = Response::builder()
        .header(header::ALLOW, ALL_METHODS)
        .header(header::CONTENT_LENGTH, 0)
        .header(header::CACHE_CONTROL, "no-store")
        .header(REQUEST_ID, request_id)
        .header(header::CONNECTION, "close");
    response.body(vec![]).unwrap_or_default()
}

/// The name or address in a `Host` header, without its port, if valid.
fn name(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let length = rest.find(']')? + 2;
            (host.get(..length)?, host.get(length..)?)
        }
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
    let is_name = match name.strip_prefix('[') {
        Some(address) => address.trim_end_matches(']').parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        }
    };
    (is_port && is_name).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_nothing_else() {
        for (host, expected) in [
            ("clinic.example", Some("clinic.example")),
            ("clinic.example:80", Some("clinic.example")),
            ("192.0.2.1:8080", Some("192.0.2.1")),
            ("[::1]", Some("[::1]")),
            ("[2001:db8::1]:80", Some("[2001:db8::1]")),
            ("", None),
            (":80", None),
            ("clinic.example/evil", None),
            ("user@evil.example", None),
            ("clinic.example:80@evil.example", None),
            ("[::1", None),
            ("[evil]", None),
            ("[::1]evil", None),
        ] {
            assert_eq!(name(host), expected, "{host}");
        }
    }
}
