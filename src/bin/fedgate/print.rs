//! What the commands print: lines for a reader, one JSON object for a program, and words for who runs them.
//!
//! The one rule: nothing reaches a terminal but through here, so that no name of a policy, id or path controls it, or hides
//! what it says (`fedgate::escape`).

use std::io::{Error, ErrorKind, Write};

use fedgate_core::escape;
use serde_json::{Map, Value};

use crate::CommandFailure;

/// What a command finds out: told line by line to a reader, at the end and as one object to a program.
pub(crate) struct CommandReport {
    as_json: bool,
    members: Map<String, Value>,
    warnings: Vec<Value>,
}

impl CommandReport {
    /// Nothing is found out yet.
    pub(crate) fn new(as_json: bool) -> Self {
        Self { as_json, members: Map::new(), warnings: Vec::new() }
    }

    /// A part of it, with members of its own; its lines are told as they come.
    pub(crate) fn part(&self) -> Self {
        Self::new(self.as_json)
    }

    /// What a part has kept.
    pub(crate) fn into_members(self) -> Map<String, Value> {
        self.members
    }

    /// Whether a program reads it: members are told to nobody else.
    pub(crate) fn is_json(&self) -> bool {
        self.as_json
    }

    /// Tells a reader.
    pub(crate) fn line(&self, line: &str) -> Result<(), Error> {
        if self.as_json { Ok(()) } else { print_line(line) }
    }

    /// Keeps a member of the object.
    pub(crate) fn note(&mut self, member: &str, value: impl Into<Value>) {
        self.members.insert(member.to_owned(), value.into());
    }

    /// Tells either what is no failure.
    pub(crate) fn warn(&mut self, text: String) {
        match self.as_json {
            true => self.warnings.push(text.into()),
            false => warn(&text),
        }
    }

    /// Tells a program all of it, and why the command failed, if it did.
    pub(crate) fn end(mut self, outcome: Result<(), CommandFailure>) -> Result<(), CommandFailure> {
        if !self.as_json {
            return outcome;
        }
        if let Err(failure) = &outcome {
            self.note("error", failure.in_words());
        }
        if !self.warnings.is_empty() {
            let warnings = std::mem::take(&mut self.warnings);
            self.note("warnings", warnings);
        }
        print_json(&Value::Object(self.members))?;
        outcome
    }
}

/// Prints one line to stdout; a reader that went away has read enough, and changes nothing about how a command ends.
pub(crate) fn print_line(line: &str) -> Result<(), Error> {
    print(&escape::shown(line))
}

/// Prints one JSON value to stdout, on one line.
pub(crate) fn print_json(value: &Value) -> Result<(), Error> {
    print(&escape::json(&value.to_string()))
}

/// Tells on stderr why a command failed, or what is worth a word.
pub(crate) fn complain(text: &str) {
    eprintln!("fedgate: {}", escape::shown(text));
}

/// Tells on stderr what is no failure.
pub(crate) fn warn(text: &str) {
    complain(&format!("warning: {text}"));
}

/// A number with its noun.
pub(crate) fn count(number: usize, one: &str, several: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { several })
}

fn print(line: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    let printed = writeln!(out, "{line}").and_then(|()| out.flush());
    if printed.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) { Ok(()) } else { printed }
}
