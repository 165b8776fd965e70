//! The syntax of hosts, and the list of served hosts. The check of a request's host is in `admission/host.rs`.
//!
//! The one rule: a host has one syntax in both versions (RFC 3986, 3.2.2 and 3.2.3; without a user, and never empty:
//! RFC 9110, 4.2). Any other syntax is refused, because services build links from this value and choose virtual hosts
//! by it.
//!
//! Called by [`crate::framing`] and [`crate::admission`] for each request, and by the configuration.

use std::net::Ipv6Addr;

/// A host and a port, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPort<'a> {
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    pub host: &'a str,
    /// The port, where one is written.
    pub port: Option<u16>,
}

impl<'a> HostPort<'a> {
    /// Reads `host [":" port]`.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let end = rest.find(']')?;
                rest.get(..end)?.parse::<Ipv6Addr>().ok()?;
                text.split_at(end + 2)
            }
            None => {
                let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                // A user part, a blank or a slash here would change which host a service puts into a link.
                if !is_name(host) {
                    return None;
                }
                (host, port)
            }
        };
        // A port that is empty (`host:`) counts as none (RFC 3986, 3.2.3).
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return None,
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
        };
        Some(Self { host, port })
    }

    /// Whether both name the same host and port, where a missing port is the usual one.
    pub fn is_same(self, other: HostPort<'_>, usual_port: u16) -> bool {
        let port = |of: HostPort<'_>| of.port.unwrap_or(usual_port);
        self.normal() == other.normal() && port(self) == port(other)
    }

    /// The host in one spelling: lower case, an IPv6 address in its shortest form (RFC 5952).
    fn normal(self) -> String {
        let address = self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match address.and_then(|address| address.parse::<Ipv6Addr>().ok()) {
            Some(address) => format!("[{address}]"),
            None => self.host.to_ascii_lowercase(),
        }
    }
}

/// Whether a text is a `reg-name`. IPv4 addresses are such names too.
fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let mut is_good = !text.is_empty();
    while let Some(byte) = bytes.next() {
        is_good &= match byte {
            b'%' => {
                [bytes.next(), bytes.next()].iter().all(|digit| digit.is_some_and(|digit| digit.is_ascii_hexdigit()))
            }
            byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte),
        };
    }
    is_good
}

/// The served hosts. An empty list serves every host.
///
/// ```
/// use fedgate_core::host::HostList;
///
/// let mut hosts = HostList::default();
/// assert!(hosts.add("his.example") && hosts.add("his.example.org:8443"));
/// assert!(hosts.serves("HIS.example:443"));
/// assert!(!hosts.serves("his.example.org:443"));
/// assert!(!hosts.add("user@his.example"), "a host has no user");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostList(Vec<(String, Option<u16>)>);

impl HostList {
    /// Adds a host; without a port it covers every port. False if the text is not a host.
    pub fn add(&mut self, text: &str) -> bool {
        let host = HostPort::parse(text);
        self.0.extend(host.map(|host| (host.normal(), host.port)));
        host.is_some()
    }

    /// Whether the list names any host.
    pub fn names_some(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether a client may ask for this host.
    pub fn serves(&self, text: &str) -> bool {
        if self.0.is_empty() {
            return true;
        }
        self.spelling(text).is_some()
    }

    /// A listed host in the one spelling of the list, with its port in plain digits; none if it is not listed.
    ///
    /// Services compare hosts by their bytes, so no client chooses among `HIS.example`, `his.example:` and
    /// `his.example:0443`.
    pub fn spelling(&self, text: &str) -> Option<String> {
        let asked = HostPort::parse(text)?;
        let normal = asked.normal();
        let is_listed = self.0.iter().any(|(host, port)| *host == normal && (port.is_none() || *port == asked.port));
        is_listed.then(|| match asked.port {
            Some(port) => format!("{normal}:{port}"),
            None => normal,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_syntax() {
        #[rustfmt::skip]
        let cases = [
            ("clinic.example",       Some(("clinic.example", None))),
            ("Clinic.Example.:8443", Some(("Clinic.Example.", Some(8443)))),
            ("clinic.example:",      Some(("clinic.example", None))),
            ("192.0.2.1:80",         Some(("192.0.2.1", Some(80)))),
            ("[2001:db8::1]",        Some(("[2001:db8::1]", None))),
            ("[::1]:8443",           Some(("[::1]", Some(8443)))),
            ("his_1",                Some(("his_1", None))),
            ("%c3%bc.example",       Some(("%c3%bc.example", None))),
            ("a,b",                  Some(("a,b", None))),
        ];
        for (text, expected) in cases {
            assert_eq!(HostPort::parse(text).map(|found| (found.host, found.port)), expected, "{text}");
        }
        #[rustfmt::skip]
        let refused = [
            "", ":80", "u@h", "u:p@h", "a b", "a/b", "a\\b", "a?b", "a#b", "a\"b", "a<b", "a:b", "a:80:80", "a:+80", "a:65536",
            "[::1", "::1", "[::1]x", "[::1]80", "[evil]", "[]", "[fe80::1%25eth0]", "%", "%4", "%zz", "a%", "\u{fc}.example",
            "a\tb", "a|b", "a^b", "{a}", "a`b",
        ];
        for text in refused {
            assert_eq!(HostPort::parse(text), None, "{text}");
        }
    }

    #[test]
    fn listed_hosts_are_served_in_every_spelling_and_no_others() {
        let mut list = HostList::default();
        assert!(list.serves("anything") && !list.names_some());
        assert!(
            list.add("Hospital.example")
                && list.add("his.example:8443")
                && list.add("[2001:DB8:0::1]")
                && !list.add("a b")
        );
        for served in ["hospital.example", "HOSPITAL.example:1", "his.example:8443", "[2001:db8::1]:7"] {
            assert!(list.serves(served), "{served}");
        }
        for (asked, spelling) in [
            ("HOSPITAL.Example", Some("hospital.example")),
            ("hospital.example:", Some("hospital.example")),
            ("hospital.example:00443", Some("hospital.example:443")),
            ("HIS.example:08443", Some("his.example:8443")),
            ("[2001:0db8::0001]:07", Some("[2001:db8::1]:7")),
            ("evil.example", None),
        ] {
            assert_eq!(list.spelling(asked).as_deref(), spelling, "{asked}");
        }
        for other in [
            "his.example",
            "his.example:443",
            "evil.hospital.example",
            "hospital.example.",
            "[2001:db8::2]",
            "",
            "u@hospital.example",
        ] {
            assert!(!list.serves(other), "{other}");
        }
    }
}
