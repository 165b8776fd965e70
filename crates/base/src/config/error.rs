//! The configuration's only error: one line with file, key and remedy.

use std::fmt::{Display, Formatter, Result};
use std::path::{Path, PathBuf};

use super::overrides::KeyOverride;
use fedgate_core::escape;

/// A fault in the configuration. Its text is one line for the operator.
#[derive(Debug, Clone)]
pub struct ConfigError(Box<FaultText>);

/// The parts of a fault's text.
#[derive(Debug, Clone)]
struct FaultText {
    place: FaultPlace,
    /// The key with its section; empty if the fault concerns no key.
    key: String,
    /// The key as shown.
    name: String,
    problem: String,
    remedy: String,
}

/// The place of a fault.
#[derive(Debug, Clone)]
enum FaultPlace {
    File(PathBuf, Option<usize>),
    Environment,
}

impl Display for ConfigError {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let FaultText { place, key: _, name, problem, remedy } = &*self.0;
        let place = match place {
            FaultPlace::File(file, None) => file.display().to_string(),
            FaultPlace::File(file, Some(line)) => format!("{}:{line}", file.display()),
            FaultPlace::Environment => "environment".to_owned(),
        };
        // The text contains values from the file and the environment, so it is escaped.
        f.write_str(&escape::shown(&format!("{place}: {name}{problem}; {remedy}")))
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    fn new(place: FaultPlace, key: &str, name: String, problem: String, remedy: String) -> Self {
        Self(Box::new(FaultText { place, key: key.to_owned(), name, problem, remedy }))
    }

    /// A fault of one key.
    pub(super) fn key(file: &Path, key: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(FaultPlace::File(file.to_owned(), None), key, format!("`{key}` "), problem.into(), remedy.into())
    }

    /// A fault in a variable, with the key that it overrides.
    pub(super) fn variable(variable: &str, key: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(FaultPlace::Environment, key, format!("`{variable}` "), problem.into(), remedy.into())
    }

    /// The file itself cannot be read.
    pub(super) fn unreadable(file: &Path, source: &std::io::Error) -> Self {
        let place = FaultPlace::File(file.to_owned(), None);
        if source.kind() == std::io::ErrorKind::InvalidData {
            return Self::new(place, "", String::new(), "is not UTF-8".into(), "save it as UTF-8".into());
        }
        let problem = format!("cannot be read ({source})");
        Self::new(
            place,
            "",
            String::new(),
            problem,
            "name an existing file that this user may read with --config".into(),
        )
    }

    /// The TOML parser's complaint, with its line and the key on that line.
    pub(super) fn toml(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        let line = error.span().map(|span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        let source = line.and_then(|line| text.lines().nth(line - 1)).unwrap_or_default();
        let key = source.split_once('=').map_or("", |(key, _)| key.trim());
        Self::complaint(file, line, key, error)
    }

    /// The TOML parser's complaint about a key whose line is known.
    pub(super) fn complaint(file: &Path, line: Option<usize>, key: &str, error: &toml::de::Error) -> Self {
        let name = if key.is_empty() { String::new() } else { format!("`{key}`: ") };
        let (problem, remedy) = (in_words(error), "examples/fedgate.toml states every key".into());
        Self::new(FaultPlace::File(file.to_owned(), line), key, name, problem, remedy)
    }

    /// The fault as that of the overriding variable, if a variable set the key.
    pub(super) fn by(self, overrides: &[KeyOverride]) -> Self {
        match overrides.iter().find(|over| over.is_of(&self.0.key)) {
            Some(over) => Self::variable(over.variable(), &self.0.key, self.0.problem, self.0.remedy),
            None => self,
        }
    }

    /// The key that the fault concerns, with its section.
    pub(super) fn about(&self) -> &str {
        &self.0.key
    }
}

/// The complaint of the TOML parser in one line, without the names that types have in a program.
pub(super) fn in_words(error: &toml::de::Error) -> String {
    const TYPES: [(&str, &str); 9] = [
        ("usize", "a whole number from 0 on"),
        ("u64", "a whole number from 0 on"),
        ("u32", "a whole number from 0 to 4294967295"),
        ("u16", "a whole number from 0 to 65535"),
        ("u8", "a whole number from 0 to 255"),
        ("i64", "a whole number"),
        ("a boolean", "true or false"),
        ("a sequence", "a list in brackets"),
        ("a string", "a text in quotes"),
    ];
    let text = error.message().replace('\n', " ");
    match text.rsplit_once("expected ") {
        Some((said, wanted)) => {
            let plain = TYPES.iter().find(|(name, _)| *name == wanted).map_or(wanted, |(_, plain)| plain);
            format!("{said}expected {plain}")
        }
        None => text,
    }
}
