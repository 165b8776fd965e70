//! The connection string of a PostgreSQL database, read as PostgreSQL's own programs read it.
//!
//! The one rule: whatever libpq accepts for reaching a server and verifying its certificate is accepted here with the
//! same meaning, or refused by name. A word that would weaken the verification is never ignored.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// The socket directories for a string without a host, as in Debian and in PostgreSQL itself.
const SOCKET_DIRECTORIES: [&str; 2] = ["/run/postgresql", "/tmp"];

/// How far a server's certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateTrust {
    /// Issuer and host name. A certificate that the operator has named itself is accepted for any host that presents
    /// it.
    Usual,
    /// Only the issuer (`sslmode=verify-ca`).
    Authority,
    /// Issuer and host name, also for a certificate that the operator has named (`sslmode=verify-full`).
    Full,
}

/// A parsed connection string.
#[derive(Debug, Clone)]
pub struct ConnectionString {
    /// The settings that `tokio_postgres` understands.
    pub settings: Config,
    /// How far the server's certificate is verified.
    pub trust: CertificateTrust,
    /// The file of authorities (`sslrootcert`).
    pub authorities: Option<PathBuf>,
}

impl ConnectionString {
    /// Reads a `postgres://` URI or `key=value` pairs.
    ///
    /// # Errors
    /// The fault, in words that continue a sentence after the string's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (rest, own) = if is_uri(text) { split_uri(text)? } else { split_pairs(text)? };
        let mut settings: Config = rest.parse().map_err(|error: tokio_postgres::Error| {
            let error = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            format!("is no connection string ({error})")
        })?;
        let (mut trust, mut authorities) = (CertificateTrust::Usual, None);
        for (key, value) in own {
            match (key, value.as_ref()) {
                ("sslrootcert", "" | "system") => {}
                ("sslrootcert", file) => authorities = Some(Path::new(file).to_owned()),
                (_, "disable") => _ = settings.ssl_mode(SslMode::Disable),
                (_, "prefer") => _ = settings.ssl_mode(SslMode::Prefer),
                (_, "require") => _ = settings.ssl_mode(SslMode::Require),
                (_, verified @ ("verify-ca" | "verify-full")) => {
                    // The driver only knows that TLS is required; `trust` says what is verified.
                    settings.ssl_mode(SslMode::Require);
                    trust = if verified == "verify-ca" { CertificateTrust::Authority } else { CertificateTrust::Full };
                }
                (_, other) => {
                    let known = "disable, prefer, require, verify-ca and verify-full";
                    return Err(format!("has `sslmode={other}`, of which there are {known}"));
                }
            }
        }
        if settings.get_hosts().is_empty() && settings.get_hostaddrs().is_empty() {
            settings.host_path(socket_directory());
        }
        // No one can listen on a socket, and it has no name for a certificate.
        if settings.get_hosts().iter().all(|host| matches!(host, Host::Unix(_))) && settings.get_hostaddrs().is_empty()
        {
            settings.ssl_mode(SslMode::Disable);
        }
        Ok(Self { settings, trust, authorities })
    }
}

/// The directory of the server's socket, if the connection string names no host.
pub fn socket_directory() -> &'static Path {
    let there = SOCKET_DIRECTORIES.iter().map(Path::new).find(|directory| directory.is_dir());
    there.unwrap_or(Path::new(SOCKET_DIRECTORIES[0]))
}

fn is_uri(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

/// A parameter that this module reads, and its value.
type OwnParameter<'a> = (&'static str, Cow<'a, str>);

fn own(key: &str) -> Option<&'static str> {
    ["sslmode", "sslrootcert"].into_iter().find(|own| *own == key)
}

/// Separates the parameters that this module reads.
fn split_uri(text: &str) -> Result<(String, Vec<OwnParameter<'_>>), String> {
    let Some((rest, query)) = text.split_once('?') else { return Ok((text.to_owned(), Vec::new())) };
    let (mut kept, mut taken) = (Vec::new(), Vec::new());
    for parameter in query.split('&') {
        let decoded =
            |text| percent_decode_str(text).decode_utf8().map_err(|_| "is not UTF-8 once it is decoded".to_owned());
        match parameter.split_once('=') {
            Some((key, value)) => match own(&decoded(key)?) {
                Some(own) => taken.push((own, decoded(value)?)),
                None => kept.push(parameter),
            },
            None => kept.push(parameter),
        }
    }
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    Ok((format!("{rest}{query}"), taken))
}

/// As [`split_uri`], for `key = 'value'` pairs. Quotes and backslashes are read as libpq reads them.
fn split_pairs(text: &str) -> Result<(String, Vec<OwnParameter<'_>>), String> {
    let (mut kept, mut taken, mut rest) = (String::new(), Vec::new(), text.trim_start());
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or("is no connection string (a word has no `=`)")?;
        let after = after.trim_start();
        let (value, length) = pair_value(after)?;
        let source = after.get(..length).unwrap_or_default();
        match own(key.trim()) {
            Some(own) => taken.push((own, Cow::Owned(value))),
            None => kept.push_str(&format!("{} = {source} ", key.trim())),
        }
        rest = after.get(length..).unwrap_or_default().trim_start();
    }
    Ok((kept, taken))
}

/// The value at the beginning of a text, and its length as written.
fn pair_value(text: &str) -> Result<(String, usize), String> {
    let is_quoted = text.starts_with('\'');
    let (mut value, mut characters) = (String::new(), text.char_indices().skip(usize::from(is_quoted)));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if is_quoted => return Ok((value, at + 1)),
            blank if blank.is_whitespace() && !is_quoted => return Ok((value, at)),
            other => value.push(other),
        }
    }
    if is_quoted { Err("is no connection string (a quote is not closed)".to_owned()) } else { Ok((value, text.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_verified_is_what_the_words_of_libpq_say() {
        use CertificateTrust::{Authority, Full, Usual};
        #[rustfmt::skip]
        let cases = [
            ("postgres://u@h/d",                                                  SslMode::Prefer,  Usual,     None),
            ("postgres://u@h/d?sslmode=disable",                                  SslMode::Disable, Usual,     None),
            ("postgres://u@h/d?sslmode=require",                                  SslMode::Require, Usual,     None),
            ("postgres://u@h/d?connect_timeout=3&sslmode=verify-ca",              SslMode::Require, Authority, None),
            ("postgresql://u@h/d?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem", SslMode::Require, Full,     Some("/etc/ca.pem")),
            ("postgresql://u@h/d?sslrootcert=ca.pem&connect_timeout=3",           SslMode::Prefer,  Usual,     Some("ca.pem")),
            ("postgresql://u@h/d?%73slmode=verify-full&sslrootcert=system",       SslMode::Require, Full,      None),
            ("host=h user=u sslmode=verify-ca sslrootcert='/etc/my ca\\'s.pem' dbname=d", SslMode::Require, Authority, Some("/etc/my ca's.pem")),
            ("host = h sslmode = 'verify-full'",                                  SslMode::Require, Full,      None),
            ("host=/run/postgresql sslmode=verify-full",                          SslMode::Disable, Full,      None),
        ];
        for (text, mode, trust, authorities) in cases {
            let read = ConnectionString::parse(text).unwrap();
            assert_eq!((read.settings.get_ssl_mode(), read.trust), (mode, trust), "{text}");
            assert_eq!(read.authorities.as_deref(), authorities.map(Path::new), "{text}");
            assert!(text.contains("/run") || read.settings.get_hosts() == [Host::Tcp("h".into())], "{text}");
        }
        for (text, problem) in [
            ("postgres://u@h/d?sslmode=verify-fulll", "has `sslmode=verify-fulll`, of which there are disable"),
            ("postgres://u@h/d?sslcert=x", "`sslcert`"),
            ("host=h sslmode='verify", "a quote is not closed"),
            ("federation", "a word has no `=`"),
            ("postgres://u@h/d?sslmode=%ff", "is not UTF-8"),
        ] {
            let error = ConnectionString::parse(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn without_a_host_the_servers_socket_on_this_machine_is_meant() {
        for text in ["postgresql:///federation", "postgresql://u@/federation?port=5433", "dbname=federation user='a b'"]
        {
            let settings = ConnectionString::parse(text).unwrap().settings;
            assert_eq!(settings.get_hosts(), [Host::Unix(socket_directory().into())], "{text}");
            assert_eq!(settings.get_dbname(), Some("federation"), "{text}");
        }
        let named = ConnectionString::parse("postgresql:///d?host=/elsewhere").unwrap().settings;
        assert_eq!(named.get_hosts(), [Host::Unix("/elsewhere".into())]);
    }
}
