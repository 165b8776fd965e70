//! The name of a server: in `Host`, and in the addresses of its answers.
//!
//! The one rule: a server that is asked by its own name is asked by no other, so that no client chooses another
//! virtual host of it. Addresses under that name lead clients back to the gateway, the only name that they know.

use std::net::IpAddr;

use http::header;
use pingora_core::Result;
use pingora_http::ResponseHeader;

use fedgate_base::config::{Address, ServerConfig, ServerPlace};

/// A server's name in TLS, and in `Host`.
pub(super) struct ServerName {
    /// Without a port.
    pub(super) host: String,
    /// With the port, unless it is the usual one.
    pub(super) authority: String,
}

impl ServerName {
    /// The name of one address of a server; `certified` is the name in its certificate, if that is another.
    pub(super) fn of(server: &ServerConfig, address: &Address, certified: Option<&str>) -> Self {
        let (host, port) = match (&server.place, address) {
            (ServerPlace::Name { host, port }, _) => (host.clone(), Some(*port)),
            (ServerPlace::Address(_), Address::Tcp(address)) => (address.ip().to_string(), Some(address.port())),
            (ServerPlace::Address(_), Address::Unix(_)) => ("localhost".to_owned(), None),
        };
        let host = certified.filter(|_| server.tls).map_or(host, str::to_owned);
        let shown = match host.parse() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            Ok(IpAddr::V4(_)) | Err(_) => host.clone(),
        };
        let usual = if server.tls { 443 } else { 80 };
        let authority = match port.filter(|port| *port != usual) {
            Some(port) => format!("{shown}:{port}"),
            None => shown,
        };
        Self { host, authority }
    }
}

/// Makes addresses under the server's own name relative.
pub(super) fn lead_back(response: &mut ResponseHeader, authority: &str) -> Result<()> {
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let sent = response.headers.get(&name).and_then(|address| address.to_str().ok());
        if let Some(path) = sent.and_then(|address| path_of(address, authority)).map(str::to_owned) {
            response.insert_header(name, path)?;
        }
    }
    Ok(())
}

/// The path of an address at this server; none if it would name another host once it stands alone.
///
/// Open redirect: browsers read `//other` and `/\other` as another host, and `/<TAB>/other` too, because they drop
/// TAB, CR and LF wherever they stand, and blanks and other control characters at the ends (WHATWG URL, 4.4). No URI
/// has such bytes (RFC 3986, 2), so an address with any of them stays as it is.
fn path_of<'a>(address: &'a str, authority: &str) -> Option<&'a str> {
    if address.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return None;
    }
    let rest = address.strip_prefix("http://").or_else(|| address.strip_prefix("https://"))?;
    match rest.strip_prefix(authority)? {
        "" => Some("/"),
        path => Some(path).filter(|path| path.starts_with('/') && !path.starts_with("//") && !path.starts_with("/\\")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_called_by_its_place_and_the_port_that_is_not_the_usual_one() {
        let name = |host: &str, port| ServerPlace::Name { host: host.into(), port };
        let at = |address: &str| ServerPlace::Address(Address::Tcp(address.parse().unwrap()));
        let unix = Address::Unix("/run/his.sock".into());
        #[rustfmt::skip]
        let cases = [
            (name("his.example", 8081), false, None,              "his.example",  "his.example:8081"),
            (name("his.example", 80),   false, None,              "his.example",  "his.example"),
            (name("his.example", 443),  true,  None,              "his.example",  "his.example"),
            (name("his.example", 443),  true,  Some("certified"), "certified",    "certified"),
            (name("his.example", 8443), true,  Some("certified"), "certified",    "certified:8443"),
            (at("127.0.0.1:8081"),      false, None,              "127.0.0.1",    "127.0.0.1:8081"),
            (at("[2001:db8::1]:80"),    false, None,              "2001:db8::1",  "[2001:db8::1]"),
            (ServerPlace::Address(unix.clone()), false, None,           "localhost",    "localhost"),
        ];
        for (place, tls, certified, host, authority) in cases {
            let address = match &place {
                ServerPlace::Address(address) => address.clone(),
                ServerPlace::Name { port, .. } => Address::Tcp(([192, 0, 2, 1], *port).into()),
            };
            let name = ServerName::of(&ServerConfig { name: String::new(), place, tls }, &address, certified);
            assert_eq!((&*name.host, &*name.authority), (host, authority));
        }
    }

    #[test]
    fn locations_under_a_servers_own_name_lead_back_and_nothing_else_is_changed() {
        #[rustfmt::skip]
        let cases = [
            ("http://his:8081/people/ANA?x=1", "/people/ANA?x=1"),
            ("https://his:8081/",              "/"),
            ("http://his:8081",                "/"),
            ("/people",                        "/people"),
            ("http://his:80810/",              "http://his:80810/"),
            ("http://his:8081.evil/",          "http://his:8081.evil/"),
            ("http://his:8081//evil/",         "http://his:8081//evil/"),
            ("http://his:8081/\\evil/",        "http://his:8081/\\evil/"),
            ("http://his:8081/\t/evil/",        "http://his:8081/\t/evil/"),
            ("http://his:8081\t//evil/",        "http://his:8081\t//evil/"),
            ("http://his:8081/\t\\evil/",       "http://his:8081/\t\\evil/"),
            ("http://his:8081/x?a\tb",          "http://his:8081/x?a\tb"),
            ("http://his:8081/ /evil/",         "http://his:8081/ /evil/"),
            ("http://his:8081/x ",              "http://his:8081/x "),
            ("http://his:8081@evil/",          "http://his:8081@evil/"),
            ("https://elsewhere/x",            "https://elsewhere/x"),
        ];
        for (sent, expected) in cases {
            let mut response = ResponseHeader::build(302, None).unwrap();
            response.insert_header("location", sent).unwrap();
            lead_back(&mut response, "his:8081").unwrap();
            assert_eq!(response.headers["location"], expected, "{sent}");
        }
    }
}
