//! The keys `his.webhook_…`: the messages that fedhis sends to nodes.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::check::{ValueCheck, WantedSecrets};
use super::error::ConfigError;
use fedgate_core::secret::Secret;

/// The fewest bytes of a secret from which keys are derived.
const LEAST_SECRET: usize = 32;
/// The most messages that wait for one webhook. No further ones are taken from the store then.
const MOST_WAITING: usize = 5000;

/// How nodes are told of messages.
#[derive(Debug, Clone)]
pub struct WebhooksConfig {
    /// The secrets from which the keys of webhooks are derived; new keys from the first. Without any, no webhooks.
    pub secrets: Vec<Secret>,
    /// The policy by which an account's rights are judged.
    pub roles: PathBuf,
    /// The file of the authorities of nodes; without it, the system's count.
    pub ca_file: Option<PathBuf>,
    /// Networks that are allowed although they are of special use.
    pub allowed: Vec<IpNet>,
    /// Public networks that are refused.
    pub refused: Vec<IpNet>,
    /// The age of an undelivered message from which a webhook counts as behind.
    pub behind: Option<Duration>,
    /// The most messages that wait for one webhook in a process.
    pub waiting: usize,
}

/// The keys as written.
pub(super) struct WrittenWebhooks<'a> {
    pub(super) key_file: &'a str,
    pub(super) roles: &'a str,
    pub(super) ca_file: &'a str,
    pub(super) allowed_networks: &'a [String],
    pub(super) refused_networks: &'a [String],
    pub(super) behind_seconds: u64,
}

impl WebhooksConfig {
    pub(super) fn check(
        written: &WrittenWebhooks<'_>,
        check: &ValueCheck<'_>,
        roles: PathBuf,
    ) -> Result<Self, ConfigError> {
        const KEY: &str = "his.webhook_key_file";
        let is_read = check.secrets == WantedSecrets::OfHis && !written.key_file.is_empty();
        let secrets = if is_read { secrets(check, KEY, written.key_file)? } else { Vec::new() };
        let behind = check.seconds("his.webhook_behind_seconds", written.behind_seconds, 0)?;
        Ok(Self {
            secrets,
            roles: check.path(if written.roles.is_empty() { roles } else { written.roles.into() }),
            ca_file: check.optional_path(written.ca_file),
            allowed: networks(check, "his.webhook_allowed_networks", written.allowed_networks)?,
            refused: networks(check, "his.webhook_refused_networks", written.refused_networks)?,
            behind: Some(behind).filter(|behind| !behind.is_zero()),
            waiting: MOST_WAITING,
        })
    }
}

/// One secret a line.
fn secrets(check: &ValueCheck<'_>, key: &str, file: &str) -> Result<Vec<Secret>, ConfigError> {
    let content = check.secret(key, file.into())?;
    let lines = content.expose().split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let secrets: Vec<Secret> = lines.map(|line| Secret::new(line.to_vec())).collect();
    if secrets.is_empty() || secrets.iter().any(|secret| secret.expose().len() < LEAST_SECRET) {
        let remedy = "write at least 32 random bytes a line (umask 077; openssl rand -base64 48 > FILE)";
        return Err(check.fault(key, "holds a line of less than 32 bytes, or none", remedy));
    }
    Ok(secrets)
}

/// Networks, or single addresses.
fn networks(check: &ValueCheck<'_>, key: &str, texts: &[String]) -> Result<Vec<IpNet>, ConfigError> {
    let parse = |text: &String| {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map_err(|_| {
            check.fault(key, format!("holds `{text}`"), "write networks such as 10.20.0.0/16 or fd00:1::/64")
        })
    };
    texts.iter().map(parse).collect()
}
