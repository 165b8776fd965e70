//! Records on stdout: as the only output if there is no file, and as a copy beside a file.
//!
//! The one rule: as the only output, stdout follows the same rule as a file ([`super::journal`]). A record that was
//! accepted is written, records that cannot be written are held up to a bound and tried again, and records over the
//! bound are refused and counted. As a copy, it delays no answer.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::line::count;

/// The most bytes that wait while stdout cannot be written.
const MOST_UNWRITTEN: usize = 8 * 1024 * 1024;
/// How many bytes are printed at once beside a file. The parts are small, to notice whether a reader accepts any.
const PART: usize = 16 * 1024;
/// How many bytes may wait beside a file: for a reader that has accepted nothing for [`STILL`], and for a slow one.
const MOST_STANDING: usize = 64 * 1024;
const MOST_UNPRINTED: usize = 8 * 1024 * 1024;
/// After this time without progress, a reader counts as stalled.
const STILL: Duration = Duration::from_millis(500);

/// stdout as the only output.
pub(super) struct RecordStdout {
    out: File,
    unwritten: Vec<u8>,
    dropped: usize,
}

impl RecordStdout {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self::to(io::stdout().as_fd().try_clone_to_owned()?.into()))
    }

    fn to(out: File) -> Self {
        Self { out, unwritten: vec![], dropped: 0 }
    }

    /// How many lines were dropped since the last call.
    pub(super) fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.dropped)
    }

    /// Writes whole lines after those that wait, and waits for a slow reader.
    ///
    /// # Errors
    /// Lines that could not be written are held for the next attempt. Lines without room are dropped.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.unwritten.len() + lines.len() > MOST_UNWRITTEN
            && let Err(error) = self.write()
        {
            self.dropped += count(lines);
            return Err(error);
        }
        self.unwritten.extend_from_slice(lines);
        self.write()
    }

    /// How many lines wait to be written.
    pub(super) fn waiting(&self) -> usize {
        count(&self.unwritten)
    }

    fn write(&mut self) -> io::Result<()> {
        let mut written = 0;
        let outcome = loop {
            match self.unwritten.get(written..).unwrap_or_default() {
                [] => break Ok(()),
                rest => match self.out.write(rest) {
                    Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => written += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => break Err(error),
                },
            }
        };
        self.unwritten.drain(..written);
        outcome
    }
}

/// Lines to print, and the sender to notify afterwards.
type PrintedLines = (Vec<u8>, Option<oneshot::Sender<()>>);

/// Copies the file's records to stdout on a separate thread, because the reader may be slow or gone.
///
/// A batch may exceed the bound of waiting bytes: a reader that keeps up receives all of it.
pub(super) struct StdoutPrinter {
    queue: Sender<PrintedLines>,
    /// How many bytes were handed over, and how many of them were printed.
    handed: usize,
    printed: Arc<AtomicUsize>,
    /// How many bytes were printed at the last look, and since when there was no progress.
    seen: (usize, Instant),
    is_skipping: bool,
}

impl StdoutPrinter {
    pub(super) fn start() -> io::Result<Self> {
        // In unit tests the copy goes nowhere, so that the tests' output shows only failures.
        let out =
            if cfg!(test) { File::create("/dev/null")? } else { io::stdout().as_fd().try_clone_to_owned()?.into() };
        Self::to(out)
    }

    fn to(mut out: File) -> io::Result<Self> {
        let (queue, entries) = channel::<PrintedLines>();
        let printed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&printed);
        let print = move || {
            let mut failing = false;
            for (lines, flush) in entries {
                let mut outcome = Ok(());
                for part in lines.chunks(PART) {
                    outcome = outcome.and_then(|()| out.write_all(part));
                    // Failed parts count too, because they no longer wait.
                    count.fetch_add(part.len(), Ordering::Release);
                }
                if let Err(error) = &outcome
                    && !failing
                {
                    tracing::error!(%error, "records cannot be written to stdout: they go only to the file");
                }
                failing = outcome.is_err();
                if let Some(flushed) = flush {
                    let _ = flushed.send(());
                }
            }
        };
        thread::Builder::new().name("stdout".into()).spawn(print)?;
        Ok(Self { queue, handed: 0, printed, seen: (0, Instant::now()), is_skipping: false })
    }

    /// Prints lines, or leaves them to the file if the reader does not accept them.
    pub(super) fn print(&mut self, lines: &[u8], flush: Option<oneshot::Sender<()>>) {
        if self.has_room(lines.len()) {
            self.handed += lines.len();
            let _ = self.queue.send((lines.to_vec(), flush));
        } else if !self.is_skipping {
            self.is_skipping = true;
            tracing::error!("stdout is not read: records go only to the file");
        }
    }

    fn has_room(&mut self, more: usize) -> bool {
        let printed = self.printed.load(Ordering::Acquire);
        let waiting = self.handed - printed;
        if waiting == 0 || printed != self.seen.0 {
            self.seen = (printed, Instant::now());
        }
        if waiting == 0 {
            self.is_skipping = false;
            return true;
        }
        waiting + more <= MOST_STANDING || waiting + more <= MOST_UNPRINTED && self.seen.1.elapsed() < STILL
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_no_reader_takes_is_kept_within_bounds_and_the_rest_counted() {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut out = RecordStdout::to(std::os::fd::OwnedFd::from(writer).into());
        out.append(b"one\n").unwrap();
        drop(reader);
        assert_eq!(out.append(b"two\n").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(out.append(b"").is_err() && out.waiting() == 1, "nothing new does not make it well");
        let large = [vec![b'x'; MOST_UNWRITTEN - 10], b"\n".to_vec()].concat();
        assert!(out.append(&large).is_err() && out.append(b"a\nb\nover the bound\n").is_err());
        assert_eq!((out.take_dropped(), out.take_dropped()), (3, 0));
        let (mut reader, writer) = std::io::pipe().unwrap();
        out.out = std::os::fd::OwnedFd::from(writer).into();
        let read = thread::spawn(move || {
            let mut lines = String::new();
            reader.read_to_string(&mut lines).unwrap();
            lines
        });
        out.append(b"three\n").unwrap();
        drop(out);
        let lines = read.join().unwrap();
        assert!(lines.starts_with("two\nxxx") && lines.ends_with("x\nthree\n"), "each is written once");
    }

    /// Lines of this many bytes together.
    fn batch(bytes: usize) -> Vec<u8> {
        [vec![b'x'; 99], b"\n".to_vec()].concat().repeat(bytes / 100)
    }

    #[test]
    fn a_reader_that_keeps_up_is_given_batches_of_any_size() {
        const BATCH: usize = 1_300_000;
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut printer = StdoutPrinter::to(std::os::fd::OwnedFd::from(writer).into()).unwrap();
        let read = thread::spawn(move || {
            let mut lines = vec![];
            reader.read_to_end(&mut lines).unwrap();
            lines
        });
        (0..5).for_each(|_| printer.print(&batch(BATCH), None));
        assert!(!printer.is_skipping);
        drop(printer);
        assert!(read.join().unwrap() == batch(5 * BATCH), "all of it, in its order");
    }

    #[test]
    fn a_reader_that_takes_nothing_costs_bounded_memory_and_is_served_again() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut printer = StdoutPrinter::to(std::os::fd::OwnedFd::from(writer).into()).unwrap();
        let large = batch(1_000_000);
        (0..20).for_each(|_| printer.print(&large, None));
        assert!(printer.is_skipping && printer.handed <= MOST_UNPRINTED);
        // A reader that was stalled for some time is left with little.
        printer.seen.1 = Instant::now().checked_sub(STILL).unwrap();
        printer.seen.0 = printer.printed.load(Ordering::Acquire);
        assert!(!printer.has_room(1));
        let mut lines = vec![0; printer.handed];
        reader.read_exact(&mut lines).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while printer.printed.load(Ordering::Acquire) < printer.handed {
            assert!(Instant::now() < deadline, "all of it was read");
            thread::yield_now();
        }
        printer.print(b"once more\n", None);
        assert!(!printer.is_skipping);
        drop(printer);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "once more\n");
    }
}
