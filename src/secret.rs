//! Secrets: masked when printed, wiped when dropped.
//!
//! The one rule: bytes that grant something are held in a [`Secret`] from the moment they are read.

use std::fmt;

use zeroize::Zeroizing;

/// Bytes that must not be seen: masked in `Debug`, zeroized on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of secret bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves; keep them no longer than needed.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Writes a file as a secret is kept: for its owner alone.
#[cfg(test)]
pub(crate) fn write_private(path: &std::path::Path, bytes: impl AsRef<[u8]>) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_hides_the_bytes() {
        let secret = Secret::new(b"canary".to_vec());
        assert!(!format!("{secret:?}").contains("canary"));
    }
}
