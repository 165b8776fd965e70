//! The section `[his]`, as it was checked: the listener of the HIS, and what callers may take of it.

use std::time::Duration;

use super::{Address, HashesConfig};

/// Where the HIS listens.
pub type HisListen = Address;

/// The HIS's listener and limits.
#[derive(Debug, Clone)]
pub struct HisConfig {
    /// Where it listens.
    pub listen: HisListen,
    /// Which hashes of passwords are written (`authentication.upgrade_hashes`, `authentication.argon2_*`).
    pub hashes: HashesConfig,
    /// Largest JSON body, in bytes.
    pub max_body_bytes: usize,
    /// Largest personal document, in bytes.
    pub max_document_bytes: usize,
    /// Largest record (person, page, unit) that a write may leave, in bytes; 0: without bound.
    pub max_record_bytes: usize,
    /// Most bytes of documents and lists that are held at a time; 0: without bound.
    pub max_bytes_in_flight: usize,
    /// Most pages of a person; 0: without bound.
    pub max_pages_per_person: usize,
    /// Most personal documents of a person; 0: without bound.
    pub max_documents_per_person: usize,
    /// Whether the page of passwords asks for the caller's own current one.
    pub ask_current_password: bool,
    /// Whether that page refuses the commonest passwords.
    pub refuse_common_passwords: bool,
    /// How long a stop goes on serving, and answers probes that it stops.
    pub stop_delay: Duration,
    /// Who may use how many of the connections to the store.
    pub shares: SharesConfig,
    /// How many connections there may be, and what of their heads.
    pub connections: ConnectionsConfig,
}

/// The connections of the HIS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionsConfig {
    /// Most at a time; none: without bound.
    pub most: Option<usize>,
    /// How long heads may take.
    pub heads: HeadsConfig,
}

/// How long the HIS waits for heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadsConfig {
    /// From the first byte of a head to its last.
    pub timeout: Duration,
    /// From the end of a request to the first byte of the next head.
    pub idle: Duration,
}

/// Who may use how many of the HIS's connections to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharesConfig {
    /// Percent of them for one caller; two at least, if there are two.
    pub caller_percent: u8,
    /// Percent of them for writes, and of each caller's for that caller's writes; one at least.
    pub write_percent: u8,
}
