//! Files with secrets that everybody on the machine can read.
//!
//! The one rule: a group may read a secret, because programs that share one run as separate users; other users may
//! not. A secret that everybody could read may already be known to anybody, so it is refused wherever it is read, at
//! the start and when it is renewed.

use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Users other than owner and group may read or write.
const WORLD: u32 = 0o006;
/// The group may write.
const GROUP_WRITES: u32 = 0o020;

/// How to treat a secret that everybody on the machine can read or write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretExposure {
    /// Refuse it.
    Refused,
    /// Use it, and warn.
    Warned,
}

impl SecretExposure {
    /// Parses the value of the key.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "refuse" => Some(Self::Refused),
            "warn" => Some(Self::Warned),
            _ => None,
        }
    }

    /// Why a file with a secret must not be used, if so.
    pub fn fault(self, path: &Path) -> Option<String> {
        let is_refused = self == Self::Refused && mode(path) & WORLD != 0;
        is_refused.then(|| {
            let remedy = "give it to the user that runs this, or to a group, and take it from all others (chmod o=)";
            format!("can be read or written by everybody on this machine; {remedy}")
        })
    }
}

/// Whether users other than the owner may write a secret, or users other than owner and group may read it.
pub(super) fn is_loose(path: &Path) -> bool {
    mode(path) & (WORLD | GROUP_WRITES) != 0
}

/// The mode of a regular file; 0 if there is none, which its reader reports.
fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).ok().filter(Metadata::is_file).map_or(0, |file| file.permissions().mode())
}
