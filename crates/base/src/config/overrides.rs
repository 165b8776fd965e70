//! A variable that overrides a key.

/// One override with its variable.
pub(super) struct KeyOverride {
    pub(super) variable: String,
    pub(super) section: &'static str,
    pub(super) key: String,
    pub(super) value: String,
}

impl KeyOverride {
    /// Whether it overrides this key.
    pub(super) fn names(&self, section: &str, key: &str) -> bool {
        self.section == section && self.key == key
    }

    /// Whether it overrides this key, which includes its section.
    pub(super) fn is_of(&self, key: &str) -> bool {
        key.split_once('.').is_some_and(|(section, key)| self.names(section, key))
    }

    pub(super) fn variable(&self) -> &str {
        &self.variable
    }

    /// The overridden key with its section.
    pub(super) fn key(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }
}
