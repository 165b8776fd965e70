//! The arguments of a program, parsed; what is wrong with them is told as any text from outside is.
//!
//! The one rule: an argument that is shown is shown whole on one line, whatever characters it has.

use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextValue, Error};

use fedgate_core::escape;

/// The arguments of this process.
///
/// # Errors
/// How the process ends where there is nothing to be done: help and version were asked for, or something is wrong, which was
/// told.
pub fn parse<T: Parser>() -> Result<T, ExitCode> {
    T::try_parse().map_err(|error| {
        let code = u8::try_from(error.exit_code()).unwrap_or(2);
        match error.use_stderr() {
            // Help and version are words of ours.
            false => drop(error.print()),
            true => told(error).lines().for_each(|line| eprintln!("{}", escape::shown(line))),
        }
        ExitCode::from(code)
    })
}

/// What is wrong, in lines that are ours: what was written in an argument begins none.
fn told(mut error: Error) -> String {
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
