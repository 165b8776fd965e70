//! The operator's log on stderr, and its level: `FEDGATE_LOG`.
//!
//! The one rule: an unreadable setting is refused. Otherwise a misspelt one could silence errors, and that would be
//! noticed only when they are needed.

mod cause;
mod libraries;
mod stderr;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::env::VarError;

use thiserror::Error;
use tracing_subscriber::EnvFilter;

use fedgate_core::escape;

pub use cause::with_causes;
use stderr::LogLines;
pub use stderr::lost;

/// Only warnings of these libraries, because their details include what passes through them, also secrets.
const LIBRARIES: &str = "pingora=warn,pingora_proxy=error,h2=warn,hyper=warn,hyper_util=warn,\
                         axum=warn,tower=warn,rustls=warn,tokio_rustls=warn,tokio_postgres=warn,deadpool_postgres=warn,\
                         mio=warn,notify=warn,moka=warn,hickory_proto=warn,hickory_resolver=warn";

/// Our own programs, which may be logged in any detail. Other targets log no details, which could include a caller's
/// password.
const OWN: [&str; 2] = ["fedgate", "fedhis"];
/// The packages of the programs, as targets name them. A directive for `fedgate` covers them by its prefix.
const PACKAGES: &str = "fedgate_";

/// The default setting.
const DEFAULT: &str = "info";

/// Why the log of `FEDGATE_LOG` cannot be started.
#[derive(Debug, Error)]
pub enum LogError {
    /// The variable holds something other than levels and `target=level`.
    #[error(
        "FEDGATE_LOG: `{0}` is neither a level nor `target=level`; it takes error, warn, info, debug, trace or off, \
         for all or for one target (`fedgate=debug`), several separated by commas"
    )]
    Setting(String),
    /// The operating system provides no thread to write it.
    #[error("there is no thread for the log ({0})")]
    Thread(#[from] std::io::Error),
}

/// The log, until the program ends. Then it waits up to a second for lines that are still to be written.
#[must_use]
pub struct OperatorLog(LogLines);

impl Drop for OperatorLog {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Sends the operator's log to stderr, as `FEDGATE_LOG` says.
///
/// # Errors
/// See [`LogError`].
pub fn log_to_stderr() -> Result<OperatorLog, LogError> {
    let wanted = match std::env::var("FEDGATE_LOG") {
        Ok(wanted) => wanted,
        Err(VarError::NotPresent) => String::new(),
        Err(VarError::NotUnicode(wanted)) => return Err(LogError::Setting(wanted.to_string_lossy().into_owned())),
    };
    let wanted = match wanted.trim() {
        "" => DEFAULT.to_owned(),
        wanted => directives(wanted)?,
    };
    // Later directives win: a library is logged in detail only if the setting names it.
    let filter = EnvFilter::new(format!("{LIBRARIES},{wanted}"));
    let lines = LogLines::start(std::io::stderr())?;
    let log = OperatorLog(lines.clone());
    let log_lines = tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(move || lines.clone())
        .with_target(false)
        .finish();
    let _ = tracing::subscriber::set_global_default(log_lines);
    libraries::listen();
    // Like every other line: the reader of stderr may be stalled, and the process continues after a panic
    // (`gateway/lifecycle/supervise.rs`).
    std::panic::set_hook(Box::new(|fault| {
        let backtrace = Backtrace::capture();
        let place = fault.location().map(ToString::to_string).unwrap_or_default();
        let fault = fault.payload_as_str().unwrap_or("no text");
        match backtrace.status() {
            BacktraceStatus::Captured => {
                tracing::error!("panicked at {place}: {fault}");
                backtrace.to_string().lines().for_each(|line| tracing::error!("{line}"));
            }
            _ => tracing::error!("panicked at {place}: {fault}"),
        }
    }));
    Ok(log)
}

/// The directives in the filter's spelling.
fn directives(wanted: &str) -> Result<String, LogError> {
    let directives = wanted.split(',').map(|directive| {
        let read = match directive.split_once('=') {
            None => level(directive).map(|level| match bounded(level) {
                same if same == level => level.to_owned(),
                less => OWN.iter().fold(less.to_owned(), |all, own| format!("{all},{own}={level}")),
            }),
            Some((target, name)) => level(name).filter(|_| is_target(target.trim())).map(|level| {
                let target = target.trim();
                // By the crate of the target: `fedgate::authn` is our own, `pingora_core` is not.
                let package = target.split("::").next().unwrap_or_default();
                let is_own = OWN.contains(&package) || package.starts_with(PACKAGES);
                format!("{target}={}", if is_own { level } else { bounded(level) })
            }),
        };
        read.ok_or_else(|| LogError::Setting(escape::shown(directive.trim()).into_owned()))
    });
    Ok(directives.collect::<Result<Vec<_>, _>>()?.join(","))
}

fn level(name: &str) -> Option<&'static str> {
    Some(match name.trim().to_ascii_lowercase().as_str() {
        "error" => "error",
        "warn" | "warning" => "warn",
        "info" => "info",
        "debug" => "debug",
        "trace" => "trace",
        "off" => "off",
        _ => return None,
    })
}

/// The level, without details.
fn bounded(level: &'static str) -> &'static str {
    match level {
        "debug" | "trace" => "info",
        level => level,
    }
}

/// Whether a text is the path of a module.
fn is_target(path: &str) -> bool {
    path.split("::")
        .all(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_targets_are_taken_and_nothing_else() {
        for (wanted, read) in [
            ("info", "info"),
            ("WARNING", "warn"),
            ("Warn, fedgate::his = Debug", "warn,fedgate::his=debug"),
            ("off,h2=trace", "off,h2=info"),
            ("h2::codec=debug,hyper=error", "h2::codec=info,hyper=error"),
            ("trace,fedgate=warn", "info,fedgate=trace,fedhis=trace,fedgate=warn"),
            ("fedgate_his=debug,fedgates=debug", "fedgate_his=debug,fedgates=info"),
        ] {
            assert_eq!(directives(wanted).unwrap(), read, "{wanted}");
        }
        for (wanted, culprit) in [
            ("wrn", "wrn"),
            ("fedgate", "fedgate"),
            ("bogus===", "bogus==="),
            ("fedgate=wrn", "fedgate=wrn"),
            ("=info", "=info"),
            ("fedgate::=info", "fedgate::=info"),
            ("info,,debug", ""),
            ("fedgate[span]=info", "fedgate[span]=info"),
            ("3", "3"),
            ("a\u{1b}[31m", "a\\u{1b}[31m"),
        ] {
            assert!(matches!(directives(wanted), Err(LogError::Setting(told)) if told == culprit), "{wanted}");
        }
    }
}
