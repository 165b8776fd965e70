//! The most common passwords, which attackers try first (NIST SP 800-63B, 5.1.1.2).
//!
//! The list is that of Django 5.2 (BSD, by Royce Williams): its first 10,000 entries of six characters or more.
//! Shorter ones are refused anyway. It is in `third_party/common-passwords`, with its licence.

/// In lower case, one a line, the most common first.
const LIST: &str = include_str!("../../../../third_party/common-passwords/list.txt");

/// Whether a password is on the list, in any case.
pub(super) fn is_common(password: &str) -> bool {
    let lower = password.to_lowercase();
    // A scan of the list is little beside the hash that follows.
    LIST.lines().any(|common| common == lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_whole_and_asked_without_regard_to_case() {
        assert_eq!(LIST.lines().count(), 10_000);
        assert!(LIST.lines().all(|common| common.chars().count() >= 6 && common.to_lowercase() == common));
        for common in ["123456", "password", "PassWord", "QWERTY", "jennifer", "iloveyou"] {
            assert!(is_common(common), "{common}");
        }
        for other in ["", "gnusolidario-3f", "password\n", "contraseña de Ana"] {
            assert!(!is_common(other), "{other}");
        }
    }
}
