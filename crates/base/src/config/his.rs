//! The section `[his]`: the listener of the HIS, and the limits for callers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::address::Address;
use super::authentication::HashesConfig;
use super::check::ValueCheck;
use super::error::ConfigError;
use super::fhir::FhirConfig;
use super::index::IndexConfig;
use super::section::section;
use super::webhooks::{WebhooksConfig, WrittenWebhooks};

/// The address on which the HIS listens.
pub type HisListen = Address;

/// The HIS's listener and limits.
#[derive(Debug, Clone)]
pub struct HisConfig {
    /// The address on which it listens.
    pub listen: HisListen,
    /// The addresses of the admin listener, without TLS.
    pub admin: Vec<SocketAddr>,
    /// The kind of new password hashes (`authentication.upgrade_hashes`, `authentication.argon2_*`).
    pub hashes: HashesConfig,
    /// The largest JSON body, in bytes.
    pub max_body_bytes: usize,
    /// The largest personal document, in bytes.
    pub max_document_bytes: usize,
    /// The largest record (person, page, unit) that a write may leave, in bytes; 0 means no limit.
    pub max_record_bytes: usize,
    /// The most bytes of documents and lists that are held at a time; 0 means no limit.
    pub max_bytes_in_flight: usize,
    /// The most pages of a person; 0 means no limit.
    pub max_pages_per_person: usize,
    /// The most personal documents of a person; 0 means no limit.
    pub max_documents_per_person: usize,
    /// The most messages of an account that are kept; 0 means no limit.
    pub max_messages_per_account: usize,
    /// Whether the password page asks for the caller's own current password.
    pub ask_current_password: bool,
    /// Whether the password page refuses the commonest passwords.
    pub refuse_common_passwords: bool,
    /// How long the HIS keeps serving after a stop was requested, while probes are answered 503.
    pub stop_delay: Duration,
    /// How long messages are kept, and how many.
    pub messages: MessagesConfig,
    /// How nodes are told of messages.
    pub webhooks: WebhooksConfig,
    /// The index of persons.
    pub index: IndexConfig,
    /// The settings of FHIR.
    pub fhir: FhirConfig,
    /// The shares of callers in the connections to the store.
    pub shares: SharesConfig,
    /// The limits for connections and their heads.
    pub connections: ConnectionsConfig,
}

/// The messages that are kept for nodes; without a bound, all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessagesConfig {
    /// The age from which on messages are deleted.
    pub age: Option<Duration>,
    /// The number beyond which the oldest are deleted.
    pub most: Option<u64>,
    /// How long a committed message may wait for its position before that is reported.
    pub stall: Option<Duration>,
}

/// The connections of the HIS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionsConfig {
    /// The most connections at a time; none means no limit.
    pub most: Option<usize>,
    /// The time limits for heads.
    pub heads: HeadsConfig,
}

/// The time limits for heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadsConfig {
    /// From the first byte of a head to its last.
    pub timeout: Duration,
    /// From the end of a request to the first byte of the next head.
    pub idle: Duration,
}

/// The shares of callers in the HIS's connections to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharesConfig {
    /// The percentage for one caller; at least two connections, if there are two.
    pub caller_percent: u8,
    /// The percentage for all writes, and within each caller's share for that caller's writes; at least one
    /// connection.
    pub write_percent: u8,
}

section!(HisSection {
    listen: String = "127.0.0.1:8081".into(),
    admin: Vec<String> = Vec::new(),
    max_body_bytes: usize = 1024 * 1024,
    max_document_bytes: usize = 16 * 1024 * 1024,
    max_record_bytes: usize = 4 * 1024 * 1024,
    max_bytes_in_flight: usize = 32 * 1024 * 1024,
    max_pages_per_person: usize = 100_000,
    max_documents_per_person: usize = 10_000,
    max_messages_per_account: usize = 100_000,
    ask_current_password: bool = true,
    refuse_common_passwords: bool = true,
    stop_delay_seconds: u64 = 0,
    messages_kept_days: u64 = 400,
    messages_kept: u64 = 0,
    messages_stall_seconds: u64 = 10,
    webhook_key_file: String = String::new(),
    webhook_roles: String = String::new(),
    webhook_ca_file: String = String::new(),
    webhook_allowed_networks: Vec<String> = Vec::new(),
    webhook_refused_networks: Vec<String> = Vec::new(),
    webhook_behind_seconds: u64 = 300,
    connections: usize = 4096,
    head_timeout_seconds: u64 = 10,
    idle_timeout_seconds: u64 = 600,
    caller_share_percent: u64 = 50,
    write_share_percent: u64 = 75,
});

impl HisSection {
    /// Checks the section; `hashes` comes from the section `[authentication]`, and `roles` from `[policy]`.
    pub(super) fn check(
        self,
        check: &ValueCheck<'_>,
        hashes: HashesConfig,
        roles: PathBuf,
        index: IndexConfig,
    ) -> Result<HisConfig, ConfigError> {
        let webhooks = WrittenWebhooks {
            key_file: &self.webhook_key_file,
            roles: &self.webhook_roles,
            ca_file: &self.webhook_ca_file,
            allowed_networks: &self.webhook_allowed_networks,
            refused_networks: &self.webhook_refused_networks,
            behind_seconds: self.webhook_behind_seconds,
        };
        Ok(HisConfig {
            index,
            fhir: FhirConfig::default(),
            webhooks: WebhooksConfig::check(&webhooks, check, roles)?,
            listen: check.address("his.listen", &self.listen)?,
            admin: check.sockets("his.admin", &self.admin)?,
            hashes,
            max_body_bytes: self.max_body_bytes,
            max_document_bytes: self.max_document_bytes,
            max_record_bytes: self.max_record_bytes,
            max_bytes_in_flight: self.max_bytes_in_flight,
            max_pages_per_person: self.max_pages_per_person,
            max_documents_per_person: self.max_documents_per_person,
            max_messages_per_account: self.max_messages_per_account,
            ask_current_password: self.ask_current_password,
            refuse_common_passwords: self.refuse_common_passwords,
            stop_delay: check.seconds("his.stop_delay_seconds", self.stop_delay_seconds, 0)?,
            messages: MessagesConfig {
                age: Some(self.messages_kept_days)
                    .filter(|days| *days > 0)
                    .map(|days| Duration::from_secs(days.saturating_mul(86_400))),
                most: Some(self.messages_kept).filter(|most| *most > 0),
                stall: Some(check.seconds("his.messages_stall_seconds", self.messages_stall_seconds, 0)?)
                    .filter(|stall| !stall.is_zero()),
            },
            connections: ConnectionsConfig {
                most: Some(self.connections).filter(|most| *most > 0),
                heads: HeadsConfig {
                    timeout: check.seconds("his.head_timeout_seconds", self.head_timeout_seconds, 1)?,
                    idle: check.seconds("his.idle_timeout_seconds", self.idle_timeout_seconds, 1)?,
                },
            },
            shares: SharesConfig {
                caller_percent: check.percent("his.caller_share_percent", self.caller_share_percent)?,
                write_percent: check.percent("his.write_share_percent", self.write_share_percent)?,
            },
        })
    }
}
