//! The frame of every command of both programs: start-up, failures with their exit codes, output to a terminal.
//!
//! The one rule: a command prints through this module only. A name from a policy, an id or a path is escaped here, so
//! that it cannot control a terminal or disguise a message.

use std::io::{Error, ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::dumps::{self, ForbiddenDumps};
use crate::{arguments, descriptors, log, parent};
use fedgate_core::escape;

/// Why a command failed, with its exit code.
pub enum CommandFailure {
    /// The command could not do what was requested: exit 1.
    Failed(anyhow::Error),
    /// Usage or configuration is wrong: exit 2.
    Usage(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for CommandFailure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl CommandFailure {
    /// Failure and causes, in one line.
    pub fn in_words(&self) -> String {
        let (Self::Failed(error) | Self::Usage(error)) = self;
        log::with_causes(error.as_ref())
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
        }
    }
}

/// Runs a program: parses its arguments, opens the log, forbids core dumps and reports a failure.
///
/// The name of the program precedes the report of a failure.
pub fn run<T: Parser>(program: &str, run: impl FnOnce(T, ForbiddenDumps) -> Result<(), CommandFailure>) -> ExitCode {
    let arguments = match arguments::parse::<T>() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    // `start` drops the log, so that the report of a failure is the last line.
    match start(arguments, run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(program, &failure.in_words());
            ExitCode::from(failure.exit_code())
        }
    }
}

fn start<T>(
    arguments: T,
    run: impl FnOnce(T, ForbiddenDumps) -> Result<(), CommandFailure>,
) -> Result<(), CommandFailure> {
    descriptors::can_start()?;
    let _log = log::log_to_stderr().map_err(|error| CommandFailure::Usage(error.into()))?;
    // A dump of this process would hold passwords and records of persons.
    let dumps = dumps::forbid()?;
    parent::follow()?;
    run(arguments, dumps)
}

/// Prints one line to stdout.
///
/// # Errors
/// stdout takes no bytes. A reader that closed its end has read enough, and is no error.
pub fn print_line(line: &str) -> Result<(), Error> {
    print(&escape::shown(line))
}

/// Prints JSON to stdout, on one line.
///
/// # Errors
/// As [`print_line`].
pub fn print_json(json: &str) -> Result<(), Error> {
    print(&escape::json(json))
}

/// Prints to stderr why a command failed, or a warning.
pub fn complain(program: &str, text: &str) {
    eprintln!("{program}: {}", escape::shown(text));
}

fn print(line: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    let printed = writeln!(out, "{line}").and_then(|()| out.flush());
    if printed.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) { Ok(()) } else { printed }
}
