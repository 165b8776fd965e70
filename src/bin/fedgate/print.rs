//! The output of the commands: lines for a reader, one JSON object for a program, and messages for the operator.
//!
//! The one rule: all output to a terminal passes through here, so that no name, id or path from a file can control
//! the terminal, or hide its content (`fedgate_core::escape`).

use std::io::Error;

pub(crate) use fedgate_base::command::print_line;
use fedgate_base::command::{self, CommandFailure};
use serde_json::{Map, Value};

/// The findings of a command: printed line by line for a reader, or as one object at the end for a program.
pub(crate) struct CommandReport {
    as_json: bool,
    members: Map<String, Value>,
    warnings: Vec<Value>,
}

impl CommandReport {
    /// An empty report.
    pub(crate) fn new(as_json: bool) -> Self {
        Self { as_json, members: Map::new(), warnings: Vec::new() }
    }

    /// A part of the report with its own members; its lines are printed at once.
    pub(crate) fn part(&self) -> Self {
        Self::new(self.as_json)
    }

    /// The members of a part.
    pub(crate) fn into_members(self) -> Map<String, Value> {
        self.members
    }

    /// Whether a program reads the output; only then are members printed.
    pub(crate) fn is_json(&self) -> bool {
        self.as_json
    }

    /// Prints a line for a reader.
    pub(crate) fn line(&self, line: &str) -> Result<(), Error> {
        if self.as_json { Ok(()) } else { print_line(line) }
    }

    /// Adds a member to the object.
    pub(crate) fn note(&mut self, member: &str, value: impl Into<Value>) {
        self.members.insert(member.to_owned(), value.into());
    }

    /// Reports a warning, in either form.
    pub(crate) fn warn(&mut self, text: String) {
        match self.as_json {
            true => self.warnings.push(text.into()),
            false => warn(&text),
        }
    }

    /// Prints the object for a program, with the error if the command failed.
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

/// Prints one JSON value to stdout, on one line.
pub(crate) fn print_json(value: &Value) -> Result<(), Error> {
    command::print_json(&value.to_string())
}

/// Prints a failure or a warning to stderr.
pub(crate) fn complain(text: &str) {
    command::complain("fedgate", text);
}

/// Prints a warning to stderr.
pub(crate) fn warn(text: &str) {
    complain(&format!("warning: {text}"));
}

/// A number with its noun.
pub(crate) fn count(number: usize, one: &str, several: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { several })
}
