//! The address of a webhook, as an account names it.
//!
//! The one rule: it is `https`, with a host in its one syntax, and carries no credential.

use std::fmt;

use http::uri::{PathAndQuery, Scheme, Uri};

use fedgate_core::host::HostPort;

/// The longest address.
const MOST_BYTES: usize = 2048;

/// A parsed address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WebhookUrl {
    /// The host, without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    /// The value of `Host`.
    pub(super) authority: String,
    pub(super) target: PathAndQuery,
}

/// The text is no address of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotWebhookUrl;

impl fmt::Display for NotWebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "write an address such as https://node.example.org/messages, without user and fragment, of at most {MOST_BYTES} bytes"
        )
    }
}

impl std::error::Error for NotWebhookUrl {}

impl WebhookUrl {
    /// Parses an address.
    ///
    /// # Errors
    /// It is none, or not `https`, or has a user or a fragment.
    pub(super) fn parse(text: &str) -> Result<Self, NotWebhookUrl> {
        let is_plain = text.len() <= MOST_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        let uri: Uri = text.parse().ok().filter(|_| is_plain).ok_or(NotWebhookUrl)?;
        let authority = uri.authority().ok_or(NotWebhookUrl)?.as_str().to_owned();
        let HostPort { host, port } = HostPort::parse(&authority).ok_or(NotWebhookUrl)?;
        // A name with an escape means something else to each library.
        if uri.scheme() != Some(&Scheme::HTTPS) || host.contains('%') {
            return Err(NotWebhookUrl);
        }
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        let target = uri.path_and_query().cloned().ok_or(NotWebhookUrl)?;
        Ok(Self { host, port: port.filter(|port| *port > 0).unwrap_or(443), authority, target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_and_carries_no_credential() {
        let parsed = WebhookUrl::parse("https://Node.example.org:8443/a/b?c=d").unwrap();
        assert_eq!(
            (parsed.host.as_str(), parsed.port, parsed.authority.as_str()),
            ("Node.example.org", 8443, "Node.example.org:8443")
        );
        assert_eq!(parsed.target, "/a/b?c=d");
        let parsed = WebhookUrl::parse("https://[2606:4700::1]").unwrap();
        assert_eq!((parsed.host.as_str(), parsed.port, parsed.target.as_str()), ("2606:4700::1", 443, "/"));
        let long = format!("https://a/{}", "x".repeat(MOST_BYTES));
        for text in [
            "",
            "a",
            "http://a/",
            "HTTP://a",
            "ftp://a/",
            "https:///a",
            "https://",
            "https://u@a/",
            "https://u:p@a/",
            "https://a/#b",
            "https://a /",
            "https://a/\n",
            "https://é/",
            "https://a:99999/",
            "https://a:x/",
            "//a/",
            "/a",
            "https://%31/",
            "https:a",
            &long,
        ] {
            assert_eq!(WebhookUrl::parse(text), Err(NotWebhookUrl), "{text}");
        }
    }
}
