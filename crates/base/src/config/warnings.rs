//! Warnings about a valid configuration, for the operator.
//!
//! The one rule: a warning is one line that names its subject, key and remedy, and prevents nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::exposure::is_loose;
use super::{Address, Config};
use fedgate_core::origins::AllowedOrigins;
use fedgate_core::request_headers::AddedHeaders;

impl Config {
    /// Warnings about a valid configuration: one line each, with file, key and remedy.
    pub fn warnings(&self) -> Vec<String> {
        let own = self
            .tls
            .certificates
            .iter()
            .map(|pair| ("tls", &pair.key))
            .filter(|_| !self.gateway.listen.is_empty() || self.gateway.beside.has_tls());
        let identities = self.upstreams.iter().filter_map(|upstream| upstream.tls.identity.as_ref());
        let keys = own.chain(identities.map(|identity| ("upstream.tls", &identity.key)));
        let open = self.loose_secrets().into_iter().chain(keys.filter_map(|(key, path)| loose(key, path)));
        let undefended = (!self.cors.refuses_foreign).then(|| {
            "`cors.refuse_foreign_writes` is false: any web page can write with the password that a browser holds; \
             leave the key out, and name in `cors.own_origins` what is yours"
                .to_owned()
        });
        let counted = self.authentication.hasher_queue_is_counted.then(|| {
            let file = self.file.display();
            format!(
                "{file}: `authentication.hasher_queue` counts verifications, of which one may cost as much as thirty \
                 others; it is taken for {} ms of work; write `authentication.hasher_queue_ms` instead",
                self.authentication.hasher_queue.as_millis()
            )
        });
        open.chain(self.writable_by_all())
            .chain(self.unknown_names())
            .chain(undefended)
            .chain(counted)
            .chain(self.identity_headers())
            .chain(self.unreadable_portals())
            .collect()
    }

    /// Environment variables without a meaning.
    pub fn unknown_names(&self) -> Vec<String> {
        let warnings = self.unknown_variables.iter().map(|variable| {
            format!(
                "environment: `{variable}` means nothing to fedgate: it overrides no section of the configuration; \
                 correct its name, or unset it"
            )
        });
        warnings.collect()
    }

    /// This program's secrets that others may write, or that everybody may read. Secrets of the gateway alone are not
    /// included.
    pub fn loose_secrets(&self) -> Vec<String> {
        self.secret_files.iter().filter_map(|(key, path)| loose(key, path)).collect()
    }

    /// Files that decide about rights and that every user of the machine may write.
    fn writable_by_all(&self) -> impl Iterator<Item = String> {
        const WRITABLE_BY_ALL: u32 = 0o002;
        let files = [("policy.roles", &self.policy.roles), ("--config", &self.file)];
        files.into_iter().filter_map(|(key, path)| {
            let mode = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?.permissions().mode();
            (mode & WRITABLE_BY_ALL != 0).then(|| {
                let path = path.display();
                format!("{path} (`{key}`) may be written by every user of this machine; run `chmod o-w {path}`")
            })
        })
    }

    /// Added header names that services believe, and that an operator lets clients send.
    fn identity_headers(&self) -> impl Iterator<Item = String> {
        self.upstreams.iter().flat_map(|upstream| {
            let warn = |added: &AddedHeaders| {
                let identity = added.identity()?;
                let key = format!("{}: `upstream.{}.request_headers`", self.file.display(), upstream.name);
                Some(match added {
                    AddedHeaders::Name(_) => format!(
                        "{key} lets clients send `{identity}`, a header in which some services expect the identity, \
                         address or purpose of the caller: any client can set it; leave it out unless this upstream \
                         treats it as a claim of the client"
                    ),
                    AddedHeaders::Prefix(prefix) => format!(
                        "{key} has `{prefix}*`, which reaches names such as `{identity}`, in which some services \
                         expect the identity, address or purpose of the caller; fedgate holds back the names that it \
                         knows, and no others: write out the names that are needed"
                    ),
                })
            };
            upstream.request_headers.iter().filter_map(warn)
        })
    }

    /// Defaults that leave open what Thalamus leaves open, and that an operator may want to close: one line each. A
    /// starting program should not repeat that nothing was changed, so only `fedgate check` reports them.
    pub fn open_defaults(&self) -> Vec<String> {
        let is_open = self.cors.allowed == AllowedOrigins::Any && self.cors.credentials == AllowedOrigins::Any;
        let any_page = is_open.then(|| {
            let file = self.file.display();
            format!(
                "{file}: `cors.allowed_origins` holds \"*\": any web page that a user here opens can try passwords, \
                 and read the answers to a right one; name your portals in it, or in `cors.credential_origins` those \
                 that may send passwords (`[]`: none)"
            )
        });
        any_page.into_iter().chain(self.open_listeners()).collect()
    }

    /// Listeners without TLS that others than this machine can reach. The redirecting ones are left out: they are
    /// meant for everybody, and answer nothing else. A socket in the file system is protected by its mode.
    fn open_listeners(&self) -> impl Iterator<Item = String> {
        let his = match &self.his.listen {
            Address::Tcp(address) => Some(address),
            Address::Unix(_) => None,
        };
        let plain_beside = if self.gateway.beside.has_tls() { vec![] } else { self.gateway.beside.addresses() };
        let listeners = [
            (
                "gateway.listen_plain",
                self.gateway.listen_plain.iter().collect::<Vec<_>>(),
                "requests to it, passwords included, are not encrypted; let only a balancer that ends TLS reach it",
            ),
            (
                "beside",
                plain_beside.iter().collect(),
                "requests to it, passwords included, are not encrypted; let only the proxies reach it, or name their \
                 `beside.certificates`",
            ),
            (
                "gateway.admin",
                self.gateway.admin.iter().collect(),
                "it needs no login, and shows upstreams and certificates; let only your monitoring reach it",
            ),
            (
                "his.listen",
                his.into_iter().collect(),
                "it answers only the gateways, but records pass unencrypted; let only the gateways reach it",
            ),
            (
                "his.admin",
                self.his.admin.iter().collect(),
                "it needs no login, and shows how the service works; let only your monitoring reach it",
            ),
        ];
        let file = self.file.display();
        let warnings = listeners.into_iter().flat_map(|(key, addresses, why)| {
            let open = addresses.into_iter().filter(|address| !address.ip().to_canonical().is_loopback());
            let warnings = open.map(|address| {
                format!(
                    "{file}: `{key}` holds {address}, which other machines can reach: {why}, or listen on \
                     {}; in a container, do not publish this port",
                    if address.is_ipv6() { "[::1]" } else { "127.0.0.1" }
                )
            });
            warnings.collect::<Vec<_>>()
        });
        warnings.collect::<Vec<_>>().into_iter()
    }

    /// Origins whose pages may send passwords but cannot read any answer.
    fn unreadable_portals(&self) -> impl Iterator<Item = String> {
        let AllowedOrigins::Only(credentials) = &self.cors.credentials else { return Vec::new().into_iter() };
        let unreadable = credentials.iter().filter(|origin| !self.cors.allowed.allows(origin));
        let warnings: Vec<_> = unreadable
            .map(|origin| {
                format!(
                    "{}: `cors.credential_origins` holds `{origin}`, whose pages may read nothing; name it in \
                     `cors.allowed_origins`, too",
                    self.file.display()
                )
            })
            .collect();
        warnings.into_iter()
    }
}

fn loose(key: &str, path: &Path) -> Option<String> {
    let path = is_loose(path).then(|| path.display())?;
    Some(format!(
        "{path}: others than its owner may write this secret of `{key}`, or everybody may read it; give it to the \
         user that runs this, and chmod 600 {path} (640, where a group shares it)"
    ))
}
