//! Sections of single keys as the file writes them, each key with its default.

/// One section: its keys with their types and defaults.
macro_rules! section {
    ($name:ident { $($key:ident: $type:ty = $default:expr),* $(,)? }) => {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $name { $(pub(super) $key: $type,)* }
        impl Default for $name {
            fn default() -> Self { Self { $($key: $default,)* } }
        }
        #[cfg(test)]
        impl $name {
            pub(super) const KEYS: &[&str] = &[$(stringify!($key)),*];
        }
    };
}
pub(super) use section;
