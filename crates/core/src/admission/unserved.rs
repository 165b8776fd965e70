//! Requests that demand something of their connection that this gateway does not serve: another protocol, or a
//! credential that authenticates the whole connection.
//!
//! The one rule: such a request is refused, and never forwarded without the demand. A client that asked for another
//! protocol would misread the answer. A service that authenticates connections would attribute every later request
//! on one to its first caller.
//!
//! Called once per admitted request, so that other callers learn nothing from it. Knows nothing of the proxy library.

use http::{HeaderMap, Method, Version, header};

use super::websocket::{BadHandshake, WebSocketOffer};
use crate::codes::AnswerCode;

/// Schemes that authenticate a connection instead of a request (RFC 4559, 5; MS-NTHT): upstream connections are
/// shared.
const OF_CONNECTIONS: &[&str] = &["ntlm", "negotiate", "nego2", "kerberos"];

/// A demand that is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnservedDemand {
    /// Another protocol on this connection (RFC 9110, 7.8).
    Upgrade,
    /// A WebSocket, by a request that is no handshake (RFC 6455, 4.2.1).
    Handshake,
    /// A credential of a scheme that authenticates connections, where it would be forwarded.
    ConnectionCredential,
}

/// Checks the head of an admitted request. A route may serve WebSockets.
///
/// # Errors
/// The request has such a demand.
pub fn check_served(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
    forwards_authorization: bool,
    serves_websockets: bool,
) -> Result<(), UnservedDemand> {
    // HTTP/2 has no Upgrade (RFC 9113, 8.2.2), and in HTTP/1.0 it is ignored (RFC 9110, 7.8).
    if version == Version::HTTP_11 && headers.get_all(header::UPGRADE).iter().any(|value| asks(value.as_bytes())) {
        match WebSocketOffer::of(method, headers).filter(|_| serves_websockets) {
            Some(Ok(_)) => {}
            Some(Err(BadHandshake)) => return Err(UnservedDemand::Handshake),
            None => return Err(UnservedDemand::Upgrade),
        }
    }
    // Requests of many callers share an upstream connection. One that is signed in would serve all of them as its
    // first caller.
    let mut credentials = headers.get_all(header::AUTHORIZATION).iter();
    match forwards_authorization && credentials.any(|credential| is_of_connections(credential.as_bytes())) {
        true => Err(UnservedDemand::ConnectionCredential),
        false => Ok(()),
    }
}

/// Whether an `Upgrade` asks for a protocol in which the request means something else. `h2c` offers the same
/// request over HTTP/2, as Java's client and `curl --http2` do on each plain connection: they accept an answer over
/// HTTP/1.1 (RFC 9110, 7.8; RFC 9113, 3.1).
fn asks(upgrade: &[u8]) -> bool {
    let mut protocols = upgrade.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    protocols.any(|protocol| !protocol.is_empty() && !protocol.eq_ignore_ascii_case(b"h2c"))
}

fn is_of_connections(credential: &[u8]) -> bool {
    let scheme = credential.trim_ascii_start().split(|byte| matches!(byte, b' ' | b'\t')).next().unwrap_or_default();
    OF_CONNECTIONS.iter().any(|known| scheme.eq_ignore_ascii_case(known.as_bytes()))
}

impl UnservedDemand {
    /// The answer to the client.
    pub fn answer(self) -> AnswerCode {
        match self {
            Self::Upgrade => AnswerCode::UpgradeNotServed,
            Self::Handshake => AnswerCode::BadWebSocket,
            Self::ConnectionCredential => AnswerCode::ConnectionCredential,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_part_of_the_request_itself_is_refused_and_not_left_out() {
        use UnservedDemand::{ConnectionCredential, Upgrade};
        #[rustfmt::skip]
        let cases = [
            // header, value, version, forwards authorization, outcome
            ("upgrade", "websocket",              Version::HTTP_11, false, Err(Upgrade)),
            ("upgrade", "WebSocket, h2c",         Version::HTTP_11, false, Err(Upgrade)),
            ("upgrade", "x",                      Version::HTTP_11, false, Err(Upgrade)),
            ("upgrade", "TLS/1.2",                Version::HTTP_11, false, Err(Upgrade)),
            ("upgrade", "h2c",                    Version::HTTP_11, false, Ok(())),
            ("upgrade", "H2C ,",                  Version::HTTP_11, false, Ok(())),
            // HTTP/1.0 has no upgrade, and ignores the header.
            ("upgrade", "websocket",              Version::HTTP_10, false, Ok(())),
            ("authorization", "NTLM TlRMTVNTUAAB", Version::HTTP_11, true,  Err(ConnectionCredential)),
            ("authorization", "Negotiate YII=",   Version::HTTP_2,  true,  Err(ConnectionCredential)),
            ("authorization", "nEGOTIATE\tYII=",  Version::HTTP_11, true,  Err(ConnectionCredential)),
            ("authorization", "ntlm",             Version::HTTP_11, true,  Err(ConnectionCredential)),
            ("authorization", "Negotiate YII=",   Version::HTTP_11, false, Ok(())),
            ("authorization", "Basic QTpi",       Version::HTTP_11, true,  Ok(())),
            ("authorization", "Bearer NTLM",      Version::HTTP_11, true,  Ok(())),
            ("authorization", "",                 Version::HTTP_11, true,  Ok(())),
        ];
        for (name, value, version, forwards, outcome) in cases {
            let mut headers = HeaderMap::new();
            headers.append(header::AUTHORIZATION, "Basic QTpi".parse().unwrap());
            headers.append(name, value.parse().unwrap());
            let checked = check_served(&Method::GET, version, &headers, forwards, false);
            assert_eq!(checked, outcome, "{name}: {value} over {version:?}");
        }
    }

    #[test]
    fn a_route_of_streams_serves_whole_handshakes_and_no_other_protocol() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let check =
            |headers: &HeaderMap, streams| check_served(&Method::GET, Version::HTTP_11, headers, false, streams);
        assert_eq!(check(&headers, true), Ok(()));
        assert_eq!(check(&headers, false), Err(UnservedDemand::Upgrade));
        headers.insert("upgrade", "websocket, x".parse().unwrap());
        assert_eq!(check(&headers, true), Err(UnservedDemand::Upgrade));
        headers.insert("upgrade", "websocket".parse().unwrap());
        headers.remove("sec-websocket-key");
        assert_eq!(check(&headers, true), Err(UnservedDemand::Handshake));
    }
}
