//! One kind of error: a line that names file, key and remedy.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// A fault in the configuration; its text is one line for the operator.
#[derive(Debug, Error)]
#[error("{}{}: {key}{problem}; {remedy}", .file.display(), .line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct ConfigError {
    file: PathBuf,
    line: Option<usize>,
    key: String,
    problem: String,
    remedy: String,
}

impl ConfigError {
    /// A fault of one key.
    pub(super) fn key(file: &Path, key: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        let key = format!("`{key}` ");
        Self { file: file.to_owned(), line: None, key, problem: problem.into(), remedy: remedy.into() }
    }

    /// The file itself cannot be read.
    pub(super) fn unreadable(file: &Path, source: &std::io::Error) -> Self {
        Self {
            file: file.to_owned(),
            line: None,
            key: String::new(),
            problem: format!("cannot be read ({source})"),
            remedy: "name an existing file with --config".into(),
        }
    }

    /// The TOML parser's complaint, with the line it is about and the key on that line.
    pub(super) fn toml(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        let line = error.span().map(|span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        let source = line.and_then(|line| text.lines().nth(line - 1)).unwrap_or_default();
        let key = source.split_once('=').map_or(String::new(), |(key, _)| format!("`{}`: ", key.trim()));
        Self {
            file: file.to_owned(),
            line,
            key,
            problem: error.message().replace('\n', " "),
            remedy: "examples/fedgate.toml states every key".into(),
        }
    }
}
