//! Parses the arguments of a program, and reports faults in them like any text from outside.
//!
//! The one rule: an argument is shown whole and on one line, whatever characters it has.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextValue, Error};

use fedgate_core::escape;

/// The arguments of this process.
///
/// # Errors
/// The exit code, if there is nothing to run: help or version was requested, or a fault was reported.
pub fn parse<T: Parser>() -> Result<T, ExitCode> {
    T::try_parse().map_err(|error| {
        let code = u8::try_from(error.exit_code()).unwrap_or(2);
        if error.use_stderr() {
            in_words(error).lines().for_each(|line| eprintln!("{}", escape::shown(line)));
            return ExitCode::from(code);
        }
        // Help and version are our own texts. A reader that has closed its end has read enough.
        match error.print().and_then(|()| std::io::stdout().flush()) {
            Err(problem) if problem.kind() != ErrorKind::BrokenPipe => {
                eprintln!("stdout: {problem}");
                ExitCode::FAILURE
            }
            Ok(()) | Err(_) => ExitCode::from(code),
        }
    })
}

/// The fault in our own lines: an argument cannot start a line of its own.
fn in_words(mut error: Error) -> String {
    let shown = |text: &String| escape::shown(text).into_owned();
    let context: Vec<_> = error.context().map(|(kind, value)| (kind, value.clone())).collect();
    for (kind, value) in context {
        let value = match value {
            ContextValue::String(text) => ContextValue::String(shown(&text)),
            ContextValue::Strings(texts) => ContextValue::Strings(texts.iter().map(shown).collect()),
            other => other,
        };
        error.insert(kind, value);
    }
    error.render().to_string()
}
