//! Secrets: masked when printed, wiped when dropped.
//!
//! The one rule: bytes that grant something are held in a [`Secret`] from the moment they are read.

use std::fmt;

use zeroize::Zeroizing;

/// Secret bytes: masked in `Debug`, zeroized on drop.
///
/// ```
/// use fedgate_core::secret::Secret;
///
/// let secret = Secret::new(b"open sesame".to_vec());
/// assert_eq!(format!("{secret:?}"), "Secret(***)");
/// assert_eq!(secret.expose(), b"open sesame");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of secret bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves. Keep them no longer than needed.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
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
