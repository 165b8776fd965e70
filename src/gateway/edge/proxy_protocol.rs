//! The PROXY protocol, versions 1 and 2: a trusted balancer names the client's address before the first byte of
//! TLS.
//!
//! The one rule: the header is read only from trusted peers, and where it is expected it is required. An address
//! that anybody may claim is no address. Source: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The first bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest line of version 1, with its end.
const LONGEST_LINE: usize = 107;
/// Longest rest of version 2 that is read: addresses and extensions of the balancer.
const LONGEST_REST: usize = 2048;

/// Why a connection that must begin with a PROXY header is closed.
#[derive(Debug, Error)]
pub(crate) enum ProxyHeaderError {
    /// The first bytes are no PROXY header, or one without a reading.
    #[error("no PROXY header")]
    Malformed,
    /// The header exceeds a bound: that of the protocol in version 1, our own in version 2.
    #[error(
        "a PROXY header that is too long (at most {LONGEST_LINE} bytes in version 1, and {LONGEST_REST} after the \
         first 16 in version 2)"
    )]
    TooLong,
    /// The connection ended first.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Reads a PROXY header and not a byte more. Returns the client's address, or none if the balancer speaks for
/// itself.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    Ok(read_as_told(stream).await?.map(canonical))
}

/// An IPv4 address in its own form. A socket or a balancer of both families writes it as IPv6 (`::ffff:192.0.2.9`).
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

async fn read_as_told(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let mut start = [0; 12];
    stream.read_exact(&mut start).await?;
    if &start == SIGNATURE {
        let mut head = [0; 4];
        stream.read_exact(&mut head).await?;
        let [version_and_command, family, high, low] = head;
        let length = usize::from(u16::from_be_bytes([high, low]));
        // Checked before the allocation: the length comes from the wire.
        if length > LONGEST_REST {
            return Err(ProxyHeaderError::TooLong);
        }
        let mut rest = vec![0; length];
        stream.read_exact(&mut rest).await?;
        return binary(version_and_command, family, &rest);
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        // Byte by byte, because the TLS handshake behind the line must stay in the socket.
        if !line.starts_with(b"PROXY ") {
            return Err(ProxyHeaderError::Malformed);
        }
        if line.len() >= LONGEST_LINE {
            return Err(ProxyHeaderError::TooLong);
        }
        line.push(stream.read_u8().await?);
    }
    let line = std::str::from_utf8(&line).ok().and_then(|line| line.strip_suffix("\r\n"));
    text(line.ok_or(ProxyHeaderError::Malformed)?)
}

/// Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 51234 443`.
fn text(line: &str) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let mut words = line.split(' ');
    let mut word = || words.next().unwrap_or_default();
    if word() != "PROXY" {
        return Err(ProxyHeaderError::Malformed);
    }
    let family = word();
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let (source, _destination, port) = (word(), word(), word());
    let (destination_port, end) = (word(), words.next());
    let source: IpAddr = source.parse().map_err(|_| ProxyHeaderError::Malformed)?;
    let is_family = match source {
        IpAddr::V4(_) => family == "TCP4",
        IpAddr::V6(_) => family == "TCP6",
    };
    let ports = (port.parse::<u16>(), destination_port.parse::<u16>());
    match (is_family, ports, end) {
        (true, (Ok(port), Ok(_)), None) => Ok(Some(SocketAddr::new(source, port))),
        _ => Err(ProxyHeaderError::Malformed),
    }
}

/// Version 2, after its signature and length.
fn binary(version_and_command: u8, family: u8, rest: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    match version_and_command {
        // LOCAL: the balancer's own connection, such as a health check.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(ProxyHeaderError::Malformed),
    }
    let address = match family {
        0x11 => address::<4>(rest, |bytes| IpAddr::from(Ipv4Addr::from(bytes))),
        0x21 => address::<16>(rest, |bytes| IpAddr::from(Ipv6Addr::from(bytes))),
        // UNSPEC, datagrams and Unix sockets: no TCP client has such an address.
        _ => return Ok(None),
    };
    address.map(Some).ok_or(ProxyHeaderError::Malformed)
}

/// Source and destination of `N` bytes each, then their ports.
fn address<const N: usize>(rest: &[u8], ip: impl Fn([u8; N]) -> IpAddr) -> Option<SocketAddr> {
    let source = *rest.first_chunk::<N>()?;
    let ports = rest.get(2 * N..)?.first_chunk::<4>()?;
    Some(SocketAddr::new(ip(source), u16::from_be_bytes([ports[0], ports[1]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<(Option<SocketAddr>, Vec<u8>), ProxyHeaderError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut input = bytes;
        let found = runtime.block_on(read(&mut input))?;
        Ok((found, input.to_vec()))
    }

    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, rest, b"\x16\x03\x01"].concat()
    }

    #[test]
    fn both_versions_tell_the_client_and_not_a_byte_more_is_read() {
        let v4: Vec<u8> =
            [&[192, 0, 2, 1, 198, 51, 100, 1][..], &51234u16.to_be_bytes(), &443u16.to_be_bytes()].concat();
        let v6 = [&Ipv6Addr::LOCALHOST.octets()[..], &[0; 16], &7u16.to_be_bytes(), &443u16.to_be_bytes(), b"\x04\0\0"]
            .concat();
        #[rustfmt::skip]
        let cases = [
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 51234 443\r\n\x16\x03\x01".to_vec(), Some("192.0.2.1:51234")),
            (b"PROXY TCP6 2001:db8::1 ::1 1 443\r\n\x16\x03\x01".to_vec(), Some("[2001:db8::1]:1")),
            (b"PROXY UNKNOWN\r\n\x16\x03\x01".to_vec(), None),
            (b"PROXY UNKNOWN ffff:f::1 ::2 1 2\r\n\x16\x03\x01".to_vec(), None),
            (version_2(0x21, 0x11, &v4), Some("192.0.2.1:51234")),
            (version_2(0x21, 0x21, &v6), Some("[::1]:7")),
            (version_2(0x20, 0x00, b""), None),
            (version_2(0x21, 0x31, &[0; 216]), None),
        ];
        for (bytes, expected) in cases {
            let (found, rest) = parse(&bytes).unwrap();
            assert_eq!(found, expected.map(|text| text.parse().unwrap()), "{}", bytes.escape_ascii());
            assert_eq!(rest, b"\x16\x03\x01");
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        #[rustfmt::skip]
        let cases: &[&[u8]] = &[
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaa",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 51234\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 51234 443 7\r\n",
            b"PROXY TCP4 2001:db8::1 ::1 51234 443\r\n",
            b"PROXY TCP6 192.0.2.1 ::1 51234 443\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 99999 443\r\n",
            b"PROXY TCP4 192.0.2.1  198.51.100.1 1 443\r\n",
            b"PROXY TCP4 evil 198.51.100.1 1 443\r\n",
            b"PROXY TCP4 \xff 198.51.100.1 1 443\r\n",
            b"PROXY UNKNOWN",
            b"",
        ];
        for bytes in cases {
            assert!(parse(bytes).is_err(), "{}", bytes.escape_ascii());
        }
        for bytes in [
            version_2(0x31, 0x11, &[0; 12]),
            version_2(0x22, 0x11, &[0; 12]),
            version_2(0x21, 0x11, &[0; 11]),
            version_2(0x21, 0x21, &[0; 35]),
        ] {
            assert!(parse(&bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }
    #[test]
    fn what_is_too_long_says_so() {
        let endless = [b"PROXY ".as_slice(), &[b'x'; 200]].concat();
        for bytes in [endless, [SIGNATURE.as_slice(), &[0x21, 0x11, 0xff, 0xff]].concat()] {
            let refused = parse(&bytes).unwrap_err();
            assert!(
                refused.to_string().starts_with("a PROXY header that is too long (at most 107 bytes in"),
                "{refused}"
            );
        }
    }

    #[test]
    fn an_address_of_ipv4_is_one_however_it_is_written() {
        let mapped = Ipv4Addr::new(192, 0, 2, 9).to_ipv6_mapped();
        let binary = version_2(0x21, 0x21, &[&mapped.octets()[..], &[0; 16], &[0, 7, 0, 8]].concat());
        for bytes in [b"PROXY TCP6 ::ffff:192.0.2.9 ::1 7 8\r\n\x16\x03\x01".to_vec(), binary] {
            assert_eq!(parse(&bytes).unwrap().0, Some("192.0.2.9:7".parse().unwrap()));
        }
    }
}
