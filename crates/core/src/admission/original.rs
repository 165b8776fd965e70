//! The request that another proxy holds while it asks whether the request may pass (forward auth).
//!
//! The one rule: each part of that request comes from the one place where a proxy of this style tells it, and is told
//! exactly once. A missing part refuses, and every other header about a request's origin is dropped: the client may
//! have written it.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Method, header};

use super::head::content_length;
use crate::codes::AnswerCode;

/// How a proxy tells the request that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyStyle {
    /// `auth_request` of nginx.
    Nginx,
    /// `forwardAuth` of Traefik.
    Traefik,
    /// `forward_auth` of Caddy.
    Caddy,
    /// A Lua action of HAProxy.
    Haproxy,
    /// `ext_authz` of Envoy over HTTP: it sends the method and the target of the request as its own.
    Envoy,
}

/// The headers of one style; none where the question itself has the part.
struct ToldParts {
    method: Option<HeaderName>,
    target: Option<HeaderName>,
    host: HeaderName,
    client: HeaderName,
}

const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The beginnings of names in which proxies tell where a request comes from.
const OF_PROXIES: &[&str] = &["x-forwarded-", "x-original-", "x-real-ip", "x-envoy-", "x-rewrite-url", "fedgate-"];

impl ProxyStyle {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Nginx, Self::Traefik, Self::Caddy, Self::Haproxy, Self::Envoy];

    /// Its name, which is its key in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }

    fn parts(self) -> ToldParts {
        match self {
            Self::Nginx | Self::Haproxy => ToldParts {
                method: Some(ORIGINAL_METHOD),
                target: Some(ORIGINAL_URI),
                host: header::HOST,
                client: REAL_IP,
            },
            Self::Traefik | Self::Caddy => ToldParts {
                method: Some(FORWARDED_METHOD),
                target: Some(FORWARDED_URI),
                host: FORWARDED_HOST,
                client: FORWARDED_FOR,
            },
            // Envoy appends its own address to the `X-Forwarded-For` of its question.
            Self::Envoy => ToldParts { method: None, target: None, host: header::HOST, client: REAL_IP },
        }
    }
}

/// The question of a proxy, as an HTTP library has parsed it.
#[derive(Debug, Clone, Copy)]
pub struct ProxyQuestion<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its target, byte for byte.
    pub target: &'a [u8],
    /// The host that it asks for: `:authority` of HTTP/2, or `Host`.
    pub authority: &'a str,
    /// Its header lines.
    pub headers: &'a HeaderMap,
}

/// The request that a proxy holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginalRequest {
    /// Its method.
    pub method: Method,
    /// Its target, byte for byte; judged like any other.
    pub target: Vec<u8>,
    /// Its header lines, `Host` among them, with the chain of addresses in `X-Forwarded-For`.
    pub headers: HeaderMap,
    /// Whether the client spoke TLS.
    pub is_secure: bool,
}

impl OriginalRequest {
    /// Reads the request that a proxy of this style asks about.
    ///
    /// # Errors
    /// [`AnswerCode::OriginalUnclear`]: a part is missing, told twice, or unreadable.
    /// [`AnswerCode::BodyNotExpected`]: the question has a body.
    pub fn read(style: ProxyStyle, question: &ProxyQuestion<'_>) -> Result<Self, AnswerCode> {
        let told = question.headers;
        if content_length(told).is_some_and(|length| length > 0) || told.contains_key(header::TRANSFER_ENCODING) {
            return Err(AnswerCode::BodyNotExpected);
        }
        let parts = style.parts();
        let method = match &parts.method {
            Some(name) => Method::from_bytes(one(told, name)?).map_err(|_| AnswerCode::OriginalUnclear)?,
            None => question.method.clone(),
        };
        let target = match &parts.target {
            Some(name) => one(told, name)?,
            None => question.target,
        };
        let host = match parts.host == header::HOST {
            true if told.get_all(header::HOST).iter().nth(1).is_some() => return Err(AnswerCode::BadHost),
            true => question.authority.as_bytes(),
            false => one(told, &parts.host)?,
        };
        let host = host.try_into().map_err(|_| AnswerCode::BadHost)?;
        let client = one(told, &parts.client)?;
        check_client(&parts.client, client)?;
        let client = client.try_into().map_err(|_| AnswerCode::OriginalUnclear)?;
        let is_secure = match one(told, &FORWARDED_PROTO)? {
            scheme if scheme.eq_ignore_ascii_case(b"https") => true,
            scheme if scheme.eq_ignore_ascii_case(b"http") => false,
            // Traefik says `wss` of a handshake whose `Upgrade` it does not show.
            _ => return Err(AnswerCode::OriginalUnclear),
        };
        let mut headers = told.clone();
        let dropped: Vec<HeaderName> = told.keys().filter(|name| !is_kept(name)).cloned().collect();
        for name in dropped {
            headers.remove(name);
        }
        headers.insert(header::HOST, host);
        headers.insert(FORWARDED_FOR, client);
        Ok(Self { method, target: target.to_vec(), headers, is_secure })
    }
}

/// The one value of a header.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], AnswerCode> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if !value.is_empty() => Ok(value.as_bytes()),
        _ => Err(AnswerCode::OriginalUnclear),
    }
}

/// Checks that the client has an address: the only one of `X-Real-IP`, the last one of a chain.
fn check_client(name: &HeaderName, value: &[u8]) -> Result<(), AnswerCode> {
    let text = std::str::from_utf8(value).map_err(|_| AnswerCode::OriginalUnclear)?;
    let nearest = if *name == REAL_IP { text } else { text.rsplit(',').next().unwrap_or_default().trim() };
    nearest.parse::<IpAddr>().map(drop).map_err(|_| AnswerCode::OriginalUnclear)
}

/// Whether a header of the question is one of the request itself.
fn is_kept(name: &HeaderName) -> bool {
    let is_of_question = [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::TE,
        header::TRAILER,
        header::EXPECT,
        header::FORWARDED,
        header::HOST,
    ]
    .contains(name);
    !is_of_question && !OF_PROXIES.iter().any(|begin| name.as_str().starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NGINX: &[(&str, &str)] = &[
        ("host", "h.example"),
        ("x-original-method", "PUT"),
        ("x-original-uri", "/people/A%20B?x=1#f"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "192.0.2.7"),
    ];
    const TRAEFIK: &[(&str, &str)] = &[
        ("host", "fedgate:8446"),
        ("x-forwarded-method", "PUT"),
        ("x-forwarded-uri", "/people/A%20B?x=1#f"),
        ("x-forwarded-host", "h.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "6.6.6.6, 192.0.2.7"),
    ];
    const ENVOY: &[(&str, &str)] = &[("host", "h.example"), ("x-forwarded-proto", "https"), ("x-real-ip", "192.0.2.7")];

    fn told(style: ProxyStyle) -> &'static [(&'static str, &'static str)] {
        match style {
            ProxyStyle::Nginx | ProxyStyle::Haproxy => NGINX,
            ProxyStyle::Traefik | ProxyStyle::Caddy => TRAEFIK,
            ProxyStyle::Envoy => ENVOY,
        }
    }

    fn read<'a>(
        style: ProxyStyle,
        lines: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<OriginalRequest, AnswerCode> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let (method, target): (_, &[u8]) = match style {
            ProxyStyle::Envoy => (Method::PUT, b"/people/A%20B?x=1#f"),
            _ => (Method::GET, b"/ask"),
        };
        let authority = headers.get(header::HOST).map_or("", |host| host.to_str().unwrap()).to_owned();
        OriginalRequest::read(
            style,
            &ProxyQuestion { method: &method, target, authority: &authority, headers: &headers },
        )
    }

    #[test]
    fn each_style_tells_the_same_request_and_its_target_stays_byte_for_byte() {
        for style in ProxyStyle::ALL {
            let original = read(style, told(style).iter().copied().chain([("accept", "x")])).unwrap();
            assert_eq!((&original.method, original.is_secure), (&Method::PUT, true), "{style:?}");
            assert_eq!(original.target, b"/people/A%20B?x=1#f", "{style:?}");
            let client = original.headers.get("x-forwarded-for").unwrap().to_str().unwrap();
            assert!(client.ends_with("192.0.2.7"), "{style:?}");
            assert_eq!(original.headers.get("host").unwrap(), "h.example", "{style:?}");
            assert_eq!(original.headers.len(), 3, "{style:?}: {:?}", original.headers);
        }
    }

    #[test]
    fn a_part_that_is_missing_twice_empty_or_of_another_style_refuses() {
        for style in ProxyStyle::ALL {
            for (name, value) in told(style).iter().filter(|(name, _)| *name != "host" || style == ProxyStyle::Envoy) {
                let rest = || told(style).iter().copied().filter(|(other, _)| other != name);
                if *name != "host" {
                    assert_eq!(read(style, rest()), Err(AnswerCode::OriginalUnclear), "{style:?} without {name}");
                    assert_eq!(read(style, rest().chain([(*name, "")])), Err(AnswerCode::OriginalUnclear), "{name}");
                }
                let twice = read(style, rest().chain([(*name, *value), (*name, *value)]));
                assert!(twice.is_err(), "{style:?} with {name} twice: {twice:?}");
            }
            for other in ProxyStyle::ALL.into_iter().filter(|other| told(*other) != told(style)) {
                if style != ProxyStyle::Envoy {
                    assert!(read(style, told(other).iter().copied()).is_err(), "{style:?} told by {other:?}");
                }
            }
        }
    }

    #[test]
    fn headers_of_another_style_never_count_and_go() {
        let forged = [
            ("x-original-url", "/adm"),
            ("x-forwarded-uri", "/adm"),
            ("x-forwarded-method", "GET"),
            ("x-forwarded-host", "evil"),
            ("x-envoy-original-path", "/adm"),
            ("x-rewrite-url", "/adm"),
            ("forwarded", "for=6.6.6.6"),
            ("fedgate-account", "ADMIN"),
            ("expect", "100-continue"),
        ];
        let original = read(ProxyStyle::Nginx, NGINX.iter().copied().chain(forged)).unwrap();
        assert_eq!(original, read(ProxyStyle::Nginx, NGINX.iter().copied()).unwrap());
    }

    #[test]
    fn an_unreadable_client_scheme_or_method_and_a_body_refuse() {
        let with = |style: ProxyStyle, name: &'static str, value: &'static str| {
            let rest = told(style).iter().copied().filter(move |(other, _)| *other != name);
            read(style, rest.chain([(name, value)]))
        };
        for (name, value) in [
            ("x-real-ip", "unknown"),
            ("x-real-ip", "192.0.2.7, 192.0.2.8"),
            ("x-real-ip", "192.0.2.7:80"),
            ("x-forwarded-proto", "wss"),
            ("x-original-method", "GET /adm"),
        ] {
            assert_eq!(with(ProxyStyle::Nginx, name, value), Err(AnswerCode::OriginalUnclear), "{name}: {value}");
        }
        for chain in ["192.0.2.7, ", "192.0.2.7, unknown", "-"] {
            let refused = with(ProxyStyle::Traefik, "x-forwarded-for", chain);
            assert_eq!(refused, Err(AnswerCode::OriginalUnclear), "{chain}");
        }
        for (name, value) in [("content-length", "5"), ("transfer-encoding", "chunked")] {
            let refused = with(ProxyStyle::Envoy, name, value);
            assert_eq!(refused, Err(AnswerCode::BodyNotExpected), "{name}");
        }
        assert!(with(ProxyStyle::Envoy, "content-length", "0").is_ok());
    }
}
