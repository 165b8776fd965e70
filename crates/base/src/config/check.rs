//! The checks that sections share: paths, addresses, bounded numbers, files with secrets.
//!
//! The one rule: a fault names the file, the key and the remedy.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::Address;
use super::error::ConfigError;
use super::exposure::SecretExposure;
use crate::regular;
use fedgate_core::secret::Secret;

/// The largest file with a secret.
const MOST_SECRET_BYTES: u64 = 64 * 1024;

/// Which of the configured secrets are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WantedSecrets {
    /// Those of the gateway; they must exist.
    OfGateway,
    /// Those of the HIS; they must exist.
    OfHis,
    /// Only those of the store: the fault of the signing key was reported already.
    OfStore,
    /// They are left where they are, if they are.
    LeaveUnread,
}

/// Checks the values of one file.
pub(super) struct ValueCheck<'a> {
    file: &'a Path,
    pub(super) secrets: WantedSecrets,
    base: &'a Path,
    /// How to treat secrets that everybody can read.
    pub(super) exposure: SecretExposure,
}

impl<'a> ValueCheck<'a> {
    /// Checks the values of this file for a program that needs these secrets.
    pub(super) fn of(file: &'a Path, secrets: WantedSecrets) -> Self {
        Self { file, secrets, base: file.parent().unwrap_or(Path::new("")), exposure: SecretExposure::Refused }
    }

    pub(super) fn fault(&self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) -> ConfigError {
        ConfigError::key(self.file, key, problem, remedy)
    }

    /// Relative paths start at the configuration file. They are made absolute, so that messages say which file is meant.
    pub(super) fn path(&self, path: PathBuf) -> PathBuf {
        let path = self.base.join(path);
        std::path::absolute(&path).unwrap_or(path)
    }

    /// As [`path`](Self::path); an empty text means none.
    pub(super) fn optional_path(&self, path: &str) -> Option<PathBuf> {
        (!path.is_empty()).then(|| self.path(path.into()))
    }

    pub(super) fn address(&self, key: &str, text: &str) -> Result<Address, ConfigError> {
        if let Some(path) = text.strip_prefix("unix:") {
            // The path is used as written, because the system accepts only short paths of sockets.
            let path = self.base.join(path);
            return match path.as_os_str().len() {
                // The bound of `sun_path` in unix(7), with its final NUL.
                ..108 => Ok(Address::Unix(path)),
                length => {
                    Err(self.fault(key, format!("is a socket path of {length} bytes"), "use one of at most 107 bytes"))
                }
            };
        }
        let remedy = "write an address and port such as 127.0.0.1:8081, or unix:/path/to/socket";
        text.strip_prefix("http://")
            .unwrap_or(text)
            .parse()
            .map(Address::Tcp)
            .map_err(|_| self.fault(key, format!("is `{text}`"), remedy))
    }

    pub(super) fn sockets(&self, key: &str, texts: &[String]) -> Result<Vec<SocketAddr>, ConfigError> {
        let parse = |text: &String| {
            text.parse().map_err(|_| {
                self.fault(key, format!("holds `{text}`"), "write addresses such as 0.0.0.0:8443 or [::]:8443")
            })
        };
        texts.iter().map(parse).collect()
    }

    pub(super) fn at_least(&self, key: &str, value: u64, least: u64) -> Result<u64, ConfigError> {
        if value < least {
            return Err(self.fault(key, format!("is {value}"), format!("write at least {least}")));
        }
        Ok(value)
    }

    /// A time in seconds, at most a year, so that no clock overflows.
    pub(super) fn seconds(&self, key: &str, value: u64, least: u64) -> Result<Duration, ConfigError> {
        self.within(key, value, least, YEAR_SECONDS).map(Duration::from_secs)
    }

    /// A time in milliseconds, with the same limit.
    pub(super) fn milliseconds(&self, key: &str, value: u64, least: u64) -> Result<Duration, ConfigError> {
        self.within(key, value, least, YEAR_SECONDS * 1000).map(Duration::from_millis)
    }

    /// A number within bounds.
    pub(super) fn within(&self, key: &str, value: u64, least: u64, most: u64) -> Result<u64, ConfigError> {
        if value > most {
            return Err(self.fault(key, format!("is {value}"), format!("write at most {most}")));
        }
        self.at_least(key, value, least)
    }

    /// A percentage above zero.
    pub(super) fn percent(&self, key: &str, value: u64) -> Result<u8, ConfigError> {
        Ok(u8::try_from(self.within(key, value, 1, 100)?).unwrap_or(100))
    }

    /// The content of a file with a secret.
    pub(super) fn secret(&self, key: &str, path: PathBuf) -> Result<Secret, ConfigError> {
        let path = self.path(path);
        // Before it is read: a secret that everybody can read may be known to anybody.
        if let Some(fault) = self.exposure.fault(&path) {
            let (problem, remedy) = fault.split_once("; ").unwrap_or((&fault, ""));
            return Err(self.fault(key, format!("names `{}`, which {problem}", path.display()), remedy));
        }
        self.content(key, &path)
    }

    /// The content of a file, without one line end at its end.
    pub(super) fn content(&self, key: &str, path: &Path) -> Result<Secret, ConfigError> {
        let mut bytes = regular::read(path, MOST_SECRET_BYTES).map_err(|e| {
            let problem = format!("names `{}`, which cannot be read ({e})", path.display());
            self.fault(key, problem, "name an existing file that this user may read")
        })?;
        for line_end in [b'\n', b'\r'] {
            bytes.pop_if(|last| *last == line_end);
        }
        Ok(Secret::new(bytes))
    }
}

const YEAR_SECONDS: u64 = 365 * 24 * 3600;

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
