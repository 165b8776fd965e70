//! The messages of libraries through the crate `log` (pingora, rustls, the PostgreSQL driver), passed to the
//! operator's log.
//!
//! The one rule: they are bounded in number, and never include details, whatever the operator asks for. Clients cause
//! most of them, and their requests have records. Detailed messages of pingora contain passwords.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::{LevelFilter, Log, Metadata, Record};
use tracing_log::{AsLog, LogTracer};

/// The most detailed level that passes.
const MOST_DETAILED: LevelFilter = LevelFilter::Info;
/// The most lines in a window, and the length of the window.
const MOST_LINES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);

/// Receives the libraries' messages from now on. The log's filter judges them like any other.
pub(super) fn listen() {
    let libraries = LibraryLog { tracer: LogTracer::new(), window: Mutex::default() };
    // A second log in the same process leaves them to the first.
    if log::set_boxed_logger(Box::new(libraries)).is_ok() {
        log::set_max_level(MOST_DETAILED.min(tracing::level_filters::LevelFilter::current().as_log()));
    }
}

struct LibraryLog {
    tracer: LogTracer,
    window: Mutex<LineWindow>,
}

impl Log for LibraryLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= MOST_DETAILED && self.tracer.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) || is_no_fault(record) {
            return;
        }
        let place = self.window.lock().unwrap_or_else(PoisonError::into_inner).place(Instant::now());
        match place {
            LinePlace::Left => {}
            LinePlace::None => return,
            LinePlace::After(count) => tracing::warn!("{count} more lines of libraries were left out of this log"),
        }
        let metadata = record.metadata().clone();
        // The log's lines show no target, but for libraries it is useful.
        let (target, args) = (record.target(), record.args());
        self.tracer.log(&Record::builder().metadata(metadata).args(format_args!("{target}: {args}")).build());
    }

    fn flush(&self) {}
}

/// Whether a line tells of something that is no fault of anybody here. A client has ended its connection before it
/// began to speak HTTP/2; or an idle connection to a service was still being watched when a request took it, so that
/// pingora makes another one.
fn is_no_fault(record: &Record<'_>) -> bool {
    const USUAL: [(&str, &str); 2] = [
        ("pingora_core::apps", "H2 handshake error"),
        ("pingora_core::connectors", "failed to acquire reusable stream"),
    ];
    let text = record.args().to_string();
    USUAL.iter().any(|(target, start)| record.target().starts_with(target) && text.starts_with(start))
}

/// The lines within the current window of time.
#[derive(Default)]
struct LineWindow {
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
}

/// Whether there is room for one more line.
#[derive(Debug, PartialEq, Eq)]
enum LinePlace {
    Left,
    None,
    /// There is, after this many lines were left out.
    After(u64),
}

impl LineWindow {
    fn place(&mut self, now: Instant) -> LinePlace {
        let is_over = self.began.is_none_or(|began| now.saturating_duration_since(began) >= WINDOW);
        if is_over {
            let left_out = self.left_out;
            *self = Self { began: Some(now), lines: 1, left_out: 0 };
            return if left_out > 0 { LinePlace::After(left_out) } else { LinePlace::Left };
        }
        if self.lines >= MOST_LINES {
            self.left_out += 1;
            return LinePlace::None;
        }
        self.lines += 1;
        LinePlace::Left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_heard_as_the_filter_says_with_its_name_and_never_in_detail() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new("pingora=warn,pingora_core=trace"))
            .with_writer(move || writer.try_clone().unwrap())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let libraries = LibraryLog { tracer: LogTracer::new(), window: Mutex::default() };
            for (level, target) in [
                (log::Level::Warn, "pingora_core::a"),
                (log::Level::Trace, "pingora_core::b"),
                (log::Level::Info, "pingora_pool::c"),
                (log::Level::Error, "pingora_pool::d"),
            ] {
                libraries.log(&Record::builder().level(level).target(target).args(format_args!("said")).build());
            }
        });
        let mut told = String::new();
        std::io::Read::read_to_string(&mut reader, &mut told).unwrap();
        assert!(told.contains("pingora_core::a: said") && told.contains("pingora_pool::d: said"), "{told}");
        assert_eq!(told.lines().count(), 2, "{told}");
    }

    #[test]
    fn what_is_no_fault_is_no_line_and_what_looks_like_it_is_one() {
        let is_left_out = |target: &str, text: &str| {
            is_no_fault(&Record::builder().level(log::Level::Error).target(target).args(format_args!("{text}")).build())
        };
        assert!(is_left_out("pingora_core::connectors", "failed to acquire reusable stream"));
        assert!(is_left_out("pingora_core::apps", "H2 handshake error: broken pipe"));
        assert!(!is_left_out("pingora_core::connectors", "unexpected data in a reused stream"));
        assert!(!is_left_out("pingora_pool", "failed to acquire reusable stream"));
    }

    #[test]
    fn libraries_have_a_bounded_number_of_lines_and_what_was_left_out_is_counted() {
        let (mut window, began) = (LineWindow::default(), Instant::now());
        let taken = (0..100).filter(|_| window.place(began) == LinePlace::Left).count();
        assert_eq!(taken, MOST_LINES as usize);
        assert_eq!(window.place(began + WINDOW / 2), LinePlace::None);
        assert_eq!(window.place(began + WINDOW), LinePlace::After(81));
        assert_eq!(window.place(began + WINDOW), LinePlace::Left);
    }
}
