//! The origin of a request: claims of a client are ignored, those of a trusted proxy are accepted.
//!
//! The one rule: the chain is read from its end, one proxy at a time, as far as the proxies are trusted. The first
//! address that is not trusted is the client; anybody could have written the ones before it. Sources: RFC 7239
//! (`Forwarded`), W3C Trace Context (`traceparent`).

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::header::InvalidHeaderValue;
use http::{HeaderMap, HeaderValue, header};

use crate::gateway::headers::REQUEST_ID;
use crate::gateway::plain_text;
use fedgate_base::config::{ForwardedHeader, ProxiesConfig};

/// Most proxies in a row that are followed.
const MOST_HOPS: usize = 32;
/// Longest request id that is kept.
const MOST_ID_BYTES: usize = 256;
const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
const X_FORWARDED_HOST: &str = "x-forwarded-host";
const X_FORWARDED_PORT: &str = "x-forwarded-port";
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// The believed origin of a request.
#[derive(Debug, Default)]
pub(crate) struct RequestOrigin {
    /// The client's address; none on a Unix socket.
    pub(crate) client: Option<IpAddr>,
    /// The request id that the client, or a proxy before the gateway, has chosen. It is reported and never used as
    /// a key: no client chooses which records an id leads to.
    pub(crate) request_id: Option<String>,
    secure: bool,
    /// The hosts that trusted proxies were asked for, as they report them.
    hosts: Vec<String>,
    /// The port that the nearest of them was asked for, if it reports one.
    port: Option<u16>,
    /// Trace id and flags of a well-formed `traceparent`.
    trace: Option<([u8; 32], [u8; 2])>,
}

impl RequestOrigin {
    /// Judges the headers of a request that came from `peer`, over TLS or not.
    pub(crate) fn of(headers: &HeaderMap, peer: Option<IpAddr>, secure: bool, proxies: &ProxiesConfig) -> Self {
        let mut origin = Self {
            client: peer,
            request_id: chosen_id(headers),
            secure,
            hosts: Vec::new(),
            port: None,
            trace: headers.get(TRACEPARENT).and_then(|value| trace(value.as_bytes())),
        };
        // Several values have no single reading, so none counts.
        if headers.get_all(TRACEPARENT).iter().nth(1).is_some() {
            origin.trace = None;
        }
        // With the PROXY protocol, `peer` is the client that the balancer named. The client itself wrote the
        // request's headers, even if its address is one of a trusted network.
        if !proxies.proxy_protocol && peer.is_some_and(|peer| proxies.trusts(peer)) {
            origin.believe(headers, proxies, proxies.header);
        }
        origin
    }

    /// The origin of a request that another proxy holds, as that proxy tells it in `X-Forwarded-For`.
    pub(crate) fn told(headers: &HeaderMap, secure: bool, proxies: &ProxiesConfig) -> Self {
        let mut origin = Self::of(headers, None, secure, &ProxiesConfig::default());
        origin.believe(headers, proxies, ForwardedHeader::XForwardedFor);
        origin
    }

    /// Takes over what a trusted proxy tells.
    fn believe(&mut self, headers: &HeaderMap, proxies: &ProxiesConfig, header: ForwardedHeader) {
        let origin = self;
        let hops = match header {
            ForwardedHeader::XForwardedFor => list(headers, X_FORWARDED_FOR).map(address).collect::<Vec<_>>(),
            ForwardedHeader::Forwarded => {
                list(headers, "forwarded").map(|hop| address(parameter(hop, "for")?)).collect()
            }
        };
        for hop in hops.into_iter().rev().take(MOST_HOPS) {
            // An unreadable hop ends the walk: addresses before it could be forged.
            let Some(hop) = hop else { break };
            origin.client = Some(hop);
            if !proxies.trusts(hop) {
                break;
            }
        }
        let protocol = match header {
            ForwardedHeader::XForwardedFor => list(headers, X_FORWARDED_PROTO).last(),
            ForwardedHeader::Forwarded => list(headers, "forwarded").last().and_then(|hop| parameter(hop, "proto")),
        };
        if let Some(protocol) = protocol {
            origin.secure = protocol.eq_ignore_ascii_case("https");
        }
        match header {
            ForwardedHeader::XForwardedFor => {
                origin.hosts = list(headers, X_FORWARDED_HOST)
                    .take(MOST_HOPS)
                    .filter(|host| !host.is_empty())
                    .map(str::to_owned)
                    .collect();
                origin.port = list(headers, X_FORWARDED_PORT).last().and_then(|port| port.parse().ok());
            }
            ForwardedHeader::Forwarded => {
                let hosts = list(headers, "forwarded").take(MOST_HOPS).filter_map(|hop| parameter(hop, "host"));
                origin.hosts = hosts.map(str::to_owned).collect();
            }
        }
    }

    /// Whether the client spoke TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }

    /// The hosts that the client may have asked for: those that trusted proxies report, otherwise `host`, which is
    /// the gateway's own. No page can make a browser send the headers of proxies, so each of them counts.
    pub(crate) fn hosts<'a>(&'a self, host: &'a str) -> impl Iterator<Item = Cow<'a, str>> + Clone {
        let reported = self.hosts.iter().map(String::as_str);
        let own = self.hosts.is_empty().then_some(host);
        reported.chain(own).map(move |host| match self.port {
            // nginx's `$host`, for one, has no port.
            Some(port) if !names_port(host) => Cow::Owned(format!("{host}:{port}")),
            _ => Cow::Borrowed(host),
        })
    }

    /// Sets the origin headers of the upstream's request, in place of the client's; `request_id` names the trace if
    /// the client began none.
    ///
    /// # Errors
    /// A text that is no value of a header; there is none.
    pub(crate) fn tell(&self, headers: &mut HeaderMap, request_id: &str) -> Result<(), InvalidHeaderValue> {
        if let Some(host) = headers.get(header::HOST).cloned() {
            headers.insert(X_FORWARDED_HOST, host);
        }
        let protocol = if self.secure { "https" } else { "http" };
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(protocol));
        if let Some(client) = self.client {
            let client_text = plain_text::address(client);
            let (begin, end) = if client.is_ipv4() { ("for=", ";proto=") } else { ("for=\"[", "]\";proto=") };
            headers.insert(header::FORWARDED, [begin, &client_text, end, protocol].concat().try_into()?);
            headers.insert(X_FORWARDED_FOR, client_text.try_into()?);
        }
        if self.trace.is_none() {
            headers.remove(TRACESTATE);
        }
        let trace = self.trace_id().map_or_else(|| trace_of(request_id), Cow::Borrowed);
        let flags = self.trace.as_ref().and_then(|(_, flags)| std::str::from_utf8(flags).ok()).unwrap_or("00");
        // A span id of zero is invalid (W3C Trace Context, 3.2.2.4).
        let span = rand::random::<u64>() | 1;
        let mut parent = String::with_capacity(55);
        parent.push_str("00-");
        parent.push_str(&trace);
        parent.push('-');
        plain_text::push_hexadecimal(&mut parent, &span.to_be_bytes());
        parent.push('-');
        parent.push_str(flags);
        headers.insert(TRACEPARENT, parent.try_into()?);
        Ok(())
    }

    /// The trace that the client has begun, if any.
    pub(crate) fn trace_id(&self) -> Option<&str> {
        self.trace.as_ref().and_then(|(id, _)| std::str::from_utf8(id).ok())
    }
}

/// The id that a client chose: one line of visible ASCII, of 256 bytes at most. Any other id is ignored.
fn chosen_id(headers: &HeaderMap) -> Option<String> {
    let mut lines = headers.get_all(REQUEST_ID).iter();
    let line = lines.next().filter(|_| lines.next().is_none())?.as_bytes();
    let is_id = (1..=MOST_ID_BYTES).contains(&line.len()) && line.iter().all(u8::is_ascii_graphic);
    std::str::from_utf8(line).ok().filter(|_| is_id).map(str::to_owned)
}

/// Whether an authority names a port; the colons of an IPv6 address do not.
fn names_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'))
}

/// The trace of a request whose client began none: its request id, if that has the form of a trace id.
fn trace_of(request_id: &str) -> Cow<'_, str> {
    match request_id.len() == 32 && request_id.bytes().all(is_lower_hex) {
        true => Cow::Borrowed(request_id),
        false => Cow::Owned(format!("{:032x}", rand::random::<u128>() | 1)),
    }
}

/// The elements of a header, over all its lines.
fn list<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    // A line that is not ASCII becomes one unreadable element, which ends the chain.
    headers.get_all(name).into_iter().flat_map(|line| line.to_str().unwrap_or("-").split(',')).map(str::trim)
}

/// A parameter of one element of `Forwarded`, without its quotes.
fn parameter<'a>(element: &'a str, wanted: &str) -> Option<&'a str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case(wanted).then(|| value.trim_matches('"'))
    })
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let found = bare.parse().ok().or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()));
    found.map(|address: IpAddr| address.to_canonical())
}

/// Trace id and flags of a `traceparent` of version 00 (W3C Trace Context, 3.2.2).
fn trace(value: &[u8]) -> Option<([u8; 32], [u8; 2])> {
    let mut parts = value.split(|byte| *byte == b'-');
    let (version, id, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |part: &[u8]| part.iter().copied().all(is_lower_hex);
    let is_zero = |part: &[u8]| part.iter().all(|digit| *digit == b'0');
    let well_formed = version == b"00"
        && parts.next().is_none()
        && span.len() == 16
        && [id, span, flags].into_iter().all(is_hex)
        && !is_zero(id)
        && !is_zero(span);
    if !well_formed {
        return None;
    }
    Some((id.try_into().ok()?, flags.try_into().ok()?))
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect::<HeaderMap>()
    }

    fn proxies(header: ForwardedHeader) -> ProxiesConfig {
        let trusted = ["10.0.0.0/8", "2001:db8:1::/48"].map(|network| network.parse().unwrap()).to_vec();
        ProxiesConfig { trusted, header, proxy_protocol: false }
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn the_client_is_the_first_address_from_the_end_that_is_not_trusted() {
        #[rustfmt::skip]
        let cases = [
            // peer, X-Forwarded-For, client
            ("192.0.2.1", "198.51.100.1",                        "192.0.2.1"),     // nobody whom we trust
            ("10.0.0.1",  "",                                    "10.0.0.1"),
            ("10.0.0.1",  "198.51.100.1",                        "198.51.100.1"),
            ("::ffff:10.0.0.1", "198.51.100.1",                  "198.51.100.1"),
            ("10.0.0.1",  "6.6.6.6, 198.51.100.1",               "198.51.100.1"),  // what the client wrote itself
            ("10.0.0.1",  "6.6.6.6, 198.51.100.1, 10.0.0.2",     "198.51.100.1"),
            ("10.0.0.1",  "10.0.0.3, 10.0.0.2",                  "10.0.0.3"),
            ("10.0.0.1",  "198.51.100.1:4711",                   "198.51.100.1"),
            ("10.0.0.1",  "[2001:db8::7]:4711",                  "2001:db8::7"),
            ("10.0.0.1",  "[2001:db8::7]",                       "2001:db8::7"),
            ("10.0.0.1",  "198.51.100.1, unknown, 10.0.0.2",     "10.0.0.2"),      // what cannot be read ends the chain
            ("10.0.0.1",  "198.51.100.1, ",                      "10.0.0.1"),
            ("10.0.0.1",  "evil",                                "10.0.0.1"),
            ("2001:db8:1::1", "198.51.100.1",                    "198.51.100.1"),
        ];
        for (peer, chain, client) in cases {
            let lines = headers(&[(X_FORWARDED_FOR, chain), ("forwarded", "for=7.7.7.7")]);
            let origin = RequestOrigin::of(&lines, ip(peer), false, &proxies(ForwardedHeader::XForwardedFor));
            assert_eq!(origin.client.map(|client| client.to_canonical()), ip(client), "{peer}: {chain}");
        }
        let two_lines = headers(&[(X_FORWARDED_FOR, "6.6.6.6"), (X_FORWARDED_FOR, "198.51.100.1")]);
        let origin = RequestOrigin::of(&two_lines, ip("10.0.0.1"), false, &proxies(ForwardedHeader::XForwardedFor));
        assert_eq!(origin.client, ip("198.51.100.1"));
    }

    #[test]
    fn after_a_proxy_header_forwarding_headers_count_for_nothing() {
        let lines = headers(&[(X_FORWARDED_FOR, "6.6.6.6"), (X_FORWARDED_PROTO, "https"), (X_FORWARDED_HOST, "evil")]);
        let told = ProxiesConfig { proxy_protocol: true, ..proxies(ForwardedHeader::XForwardedFor) };
        for peer in ["10.0.0.9", "192.0.2.1", "0.0.0.0"] {
            let origin = RequestOrigin::of(&lines, ip(peer), false, &told);
            assert_eq!((origin.client, origin.secure), (ip(peer), false), "{peer}");
            assert_eq!(origin.hosts("asked").collect::<Vec<_>>(), ["asked"], "{peer}");
        }
    }

    #[test]
    fn forwarded_is_read_where_it_is_the_header_that_proxies_set() {
        for (line, client, secure) in [
            ("for=198.51.100.1;proto=https", "198.51.100.1", true),
            ("For=\"[2001:db8::7]:4711\";Proto=http", "2001:db8::7", false),
            ("for=6.6.6.6, for=198.51.100.1;proto=https;by=10.0.0.1", "198.51.100.1", true),
            ("for=_hidden", "10.0.0.1", false),
            ("proto=https", "10.0.0.1", true),
        ] {
            let lines = headers(&[("forwarded", line), (X_FORWARDED_FOR, "7.7.7.7"), (X_FORWARDED_PROTO, "https")]);
            let origin = RequestOrigin::of(&lines, ip("10.0.0.1"), false, &proxies(ForwardedHeader::Forwarded));
            assert_eq!((origin.client, origin.secure), (ip(client), secure), "{line}");
        }
    }

    #[test]
    fn the_protocol_is_believed_of_trusted_proxies_alone_and_a_chosen_id_is_kept_of_anybody() {
        let lines = headers(&[("x-request-id", "0123abcd-XY_z"), (X_FORWARDED_PROTO, "https")]);
        let of = |peer| RequestOrigin::of(&lines, ip(peer), false, &proxies(ForwardedHeader::XForwardedFor));
        assert!(of("10.0.0.1").secure && !of("192.0.2.1").secure);
        for peer in ["10.0.0.1", "192.0.2.1"] {
            assert_eq!(of(peer).request_id.as_deref(), Some("0123abcd-XY_z"));
        }
        let chosen = |lines: &[(&'static str, &str)]| {
            RequestOrigin::of(&headers(lines), ip("192.0.2.1"), false, &ProxiesConfig::default()).request_id
        };
        for id in ["x", "Root=1-67891233-abcdef012345678912345678", "\"quoted\"", &"a".repeat(256)] {
            assert_eq!(chosen(&[("x-request-id", id)]).as_deref(), Some(id));
        }
        for none in ["", "with space", "tab\there", &"a".repeat(257)] {
            assert_eq!(chosen(&[("x-request-id", none)]), None, "{none}");
        }
        assert_eq!(chosen(&[("x-request-id", "one"), ("x-request-id", "two")]), None, "several are none");
    }

    #[test]
    fn a_valid_trace_is_continued_and_any_other_begins_again() {
        const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let told = |lines: &[(&'static str, &str)]| {
            let lines = headers(lines);
            let mut request = headers(&[(TRACESTATE, "vendor=1")]);
            let origin = RequestOrigin::of(&lines, ip("192.0.2.1"), true, &ProxiesConfig::default());
            origin.tell(&mut request, "0af7651916cd43dd8448eb211c80319c").unwrap();
            let parent = request[TRACEPARENT].to_str().unwrap().to_owned();
            (parent, request.contains_key(TRACESTATE))
        };
        let good = format!("00-{ID}-00f067aa0ba902b7-01");
        let (parent, has_state) = told(&[(TRACEPARENT, &good)]);
        assert!(parent.starts_with(&format!("00-{ID}-")) && parent.ends_with("-01") && has_state, "{parent}");
        assert_ne!(parent, good, "the gateway is a span of its own");
        let several = [(TRACEPARENT, good.as_str()), (TRACEPARENT, good.as_str())];
        let bad = [
            "",
            "00",
            &good.to_uppercase(),
            &format!("ff-{ID}-00f067aa0ba902b7-01"),
            &format!("{good}-x"),
            &good.replace(ID, &"0".repeat(32)),
        ];
        for lines in bad.iter().map(|&value| vec![(TRACEPARENT, value)]).chain([several.to_vec(), vec![]]) {
            let (parent, has_state) = told(&lines);
            assert!(
                parent.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && parent.ends_with("-00"),
                "{lines:?}: {parent}"
            );
            assert!(!has_state, "{lines:?}");
        }
    }
}
