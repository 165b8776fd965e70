//! Request targets in absolute form, `http://host/path` (RFC 9112, 3.2.2). Clients send them to proxies, and a server
//! must accept them too.
//!
//! The one rule: such a target names a host beside `Host`. Both must be the same, or the host of the target must be
//! listed as served. Then the target is rewritten to origin form, and nothing behind this module sees another form.

use std::borrow::Cow;

use super::FramingError;
use crate::host::{HostList, HostPort};

/// A target in absolute form.
#[derive(Debug, Clone, Copy)]
pub struct AbsoluteTarget<'a> {
    /// Host and port, as written.
    authority: &'a str,
    /// The port that the scheme implies.
    usual_port: u16,
    /// Path and query, as written.
    rest: &'a str,
}

impl<'a> AbsoluteTarget<'a> {
    /// Reads `http://` or `https://`, host and port, path and query. The scheme decides nothing: behind a proxy that
    /// ends TLS, an `https` target comes without TLS.
    pub fn parse(target: &'a str) -> Option<Self> {
        let (scheme, rest) = target.split_once("://")?;
        let usual_port = match scheme {
            _ if scheme.eq_ignore_ascii_case("http") => 80,
            _ if scheme.eq_ignore_ascii_case("https") => 443,
            _ => return None,
        };
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        HostPort::parse(authority)?;
        Some(Self { authority, usual_port, rest })
    }

    /// The host that the target names, with its port where one is written.
    pub fn authority(&self) -> &'a str {
        self.authority
    }

    /// The target in origin form, or `*` for the server as a whole (RFC 9112, 3.2.1 and 3.2.4).
    pub fn origin(&self, method: &str) -> Cow<'a, str> {
        match self.rest {
            "" if method == "OPTIONS" => Cow::Borrowed("*"),
            "" => Cow::Borrowed("/"),
            rest if rest.starts_with('/') => Cow::Borrowed(rest),
            rest => Cow::Owned(format!("/{rest}")),
        }
    }

    /// Whether `Host` names the same host, where the usual port may be left out.
    fn is_of(&self, host: HostPort<'_>) -> bool {
        HostPort::parse(self.authority).is_some_and(|own| own.is_same(host, self.usual_port))
    }
}

/// Rewrites a head whose target is in absolute form to origin form; `Host` becomes the host of the target. None for
/// any other head, which [`super::check_head`] judges unchanged.
///
/// # Errors
/// [`FramingError::Host`] without exactly one `Host`. [`FramingError::OtherHost`] if `Host` names another host, and
/// `served` does not list the host of the target.
pub fn in_origin_form(head: &[u8], served: &HostList) -> Result<Option<Vec<u8>>, FramingError> {
    let Some((line, lines)) = split_line(head) else { return Ok(None) };
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Ok(None);
    };
    let (Ok(method), Ok(target)) = (std::str::from_utf8(method), std::str::from_utf8(target)) else { return Ok(None) };
    let Some(target) = AbsoluteTarget::parse(target) else { return Ok(None) };
    let host = HostPort::parse(one_host(lines)?).ok_or(FramingError::Host)?;
    let is_same = target.is_of(host);
    // An empty list serves every host, but only a host that is listed by name may overrule `Host`.
    let is_listed = served.names_some() && served.serves(target.authority);
    if !(is_same || is_listed) {
        return Err(FramingError::OtherHost);
    }
    let mut out = Vec::with_capacity(head.len() + 1);
    for part in [method.as_bytes(), b" ", target.origin(method).as_bytes(), b" ", version, b"\r\n"] {
        out.extend_from_slice(part);
    }
    let mut rest = lines;
    while let Some((line, next)) = split_line(rest) {
        match is_host(line) {
            // The target wins over `Host` (RFC 9112, 3.2.2).
            true if !is_same => out.extend_from_slice(format!("Host: {}", target.authority).as_bytes()),
            _ => out.extend_from_slice(line),
        }
        out.extend_from_slice(b"\r\n");
        rest = next;
    }
    out.extend_from_slice(rest);
    Ok(Some(out))
}

/// A line, and the bytes after its end.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.windows(2).position(|two| two == b"\r\n")?;
    Some((bytes.get(..at)?, bytes.get(at + 2..)?))
}

fn is_host(line: &[u8]) -> bool {
    line.split(|byte| *byte == b':').next().is_some_and(|name| name.eq_ignore_ascii_case(b"host"))
}

/// The value of the only `Host`.
fn one_host(mut lines: &[u8]) -> Result<&str, FramingError> {
    let mut found = None;
    while let Some((line, next)) = split_line(lines) {
        if is_host(line) && found.replace(line.get(b"host:".len()..).unwrap_or_default()).is_some() {
            return Err(FramingError::Host);
        }
        lines = next;
    }
    let value = std::str::from_utf8(found.ok_or(FramingError::Host)?).map_err(|_| FramingError::Host)?;
    Ok(value.trim_matches([' ', '\t']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::{BodyFraming, check_head};

    fn read(target: &str, host: &str, served: &[&str]) -> Result<String, FramingError> {
        let mut list = HostList::default();
        assert!(served.iter().all(|host| list.add(host)));
        let head = format!("GET {target} HTTP/1.1\r\nX-A: 1\r\n{host}Accept: */*\r\n\r\n");
        let read = in_origin_form(head.as_bytes(), &list)?.expect("absolute form");
        check_head(&read).map(|body| assert_eq!(body, BodyFraming::None))?;
        Ok(String::from_utf8(read).unwrap())
    }

    #[test]
    fn an_absolute_target_is_read_as_its_origin_form() {
        for (target, host, origin) in [
            ("http://h.example/people/ANA?x=1", "h.example", "/people/ANA?x=1"),
            ("HTTPS://H.Example/adm", "h.example", "/adm"),
            ("http://h.example:80/adm", "h.example", "/adm"),
            ("https://h.example/adm", "h.example:443", "/adm"),
            ("http://h.example:8080/adm", "h.example:8080", "/adm"),
            ("http://[::1]:7/adm", "[0:0::1]:7", "/adm"),
            ("http://h.example", "h.example", "/"),
            ("http://h.example?x", "h.example", "/?x"),
            ("http://h.example/people/../adm", "h.example", "/people/../adm"),
            ("http://h.example//adm", "h.example", "//adm"),
        ] {
            let expected = format!("GET {origin} HTTP/1.1\r\nX-A: 1\r\nhOST: \t{host} \r\nAccept: */*\r\n\r\n");
            assert_eq!(read(target, &format!("hOST: \t{host} \r\n"), &[]), Ok(expected), "{target}");
        }
    }

    #[test]
    fn a_second_host_is_read_only_where_it_is_listed_and_counts_then() {
        use FramingError::{Host, OtherHost};
        let host = "Host: h.example\r\n";
        for target in
            ["http://evil/adm", "http://h.example:81/adm", "https://h.example:80/adm", "http://h.example./adm"]
        {
            assert_eq!(read(target, host, &[]), Err(OtherHost), "{target}");
            assert_eq!(read(target, host, &["h.example:443"]), Err(OtherHost), "{target}");
        }
        let other = read("http://other.example/adm", host, &["h.example", "other.example"]).unwrap();
        assert_eq!(other, "GET /adm HTTP/1.1\r\nX-A: 1\r\nHost: other.example\r\nAccept: */*\r\n\r\n");
        for hosts in ["", "Host: h.example\r\nHost: h.example\r\n", "Host: u@h.example\r\n", "Host:\r\n"] {
            assert_eq!(read("http://h.example/adm", hosts, &[]), Err(Host), "{hosts:?}");
        }
    }

    #[test]
    fn whatever_else_a_target_is_stays_as_it_is() {
        for line in [
            "GET /adm",
            "GET /http://a/b",
            "GET adm",
            "OPTIONS *",
            "GET http://u@h/adm",
            "GET http:///adm",
            "FOO http://h:x/adm",
            "GET ftp://h/adm",
            "GET http:/a/b",
            "GET //h/a",
            "GET",
            "GET  http://h/",
        ] {
            let head = format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n");
            assert_eq!(in_origin_form(head.as_bytes(), &HostList::default()), Ok(None), "{line}");
        }
        let whole = in_origin_form(b"OPTIONS http://h HTTP/1.1\r\nHost: h\r\n\r\n", &HostList::default());
        assert_eq!(whole.unwrap().unwrap(), b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
    }
}
