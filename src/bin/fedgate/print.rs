//! What the commands print: lines for a reader, one JSON object for a program, and words for who runs them.
//!
//! The one rule: nothing reaches a terminal but through here, so that no name of a policy, id or path controls it, or hides
//! what it says (`fedgate::escape`).

use std::io::{Error, ErrorKind, Write};

use fedgate::escape;
use serde_json::Value;

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
