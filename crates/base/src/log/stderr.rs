//! stderr, written on a separate thread.
//!
//! The one rule: a stalled reader of the log holds up nothing. Lines that it does not accept in time are lost and
//! counted, and the log itself reports them once it is read again.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use fedgate_core::escape;

/// The most bytes that wait for the reader.
const MOST_UNWRITTEN: usize = 256 * 1024;
/// How long the end of the program waits for the reader.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Lines of the log that were lost since the start.
static LOST: AtomicU64 = AtomicU64::new(0);

/// How many lines of the log were lost since the start.
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// The queue of lines for the thread; clones share it.
#[derive(Clone)]
pub(super) struct LogLines(Arc<LineQueue>);

#[derive(Default)]
struct LineQueue {
    waiting: Mutex<WaitingLines>,
    changed: Condvar,
}

#[derive(Default)]
struct WaitingLines {
    bytes: Vec<u8>,
    lost: u64,
    is_writing: bool,
}

impl LineQueue {
    fn waiting(&self) -> MutexGuard<'_, WaitingLines> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogLines {
    /// Starts the thread that writes the lines to `out`.
    ///
    /// # Errors
    /// The operating system provides no thread.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Arc::new(LineQueue::default());
        let lines = Self(Arc::clone(&queue));
        thread::Builder::new().name("log".into()).spawn(move || write_out(&queue, out))?;
        Ok(lines)
    }

    /// Waits until the lines are written, for a bounded time.
    pub(super) fn flush(&self) {
        let is_busy = |waiting: &mut WaitingLines| waiting.is_writing || !waiting.bytes.is_empty();
        drop(self.0.changed.wait_timeout_while(self.0.waiting(), LAST_WORDS, is_busy));
    }
}

fn write_out(queue: &LineQueue, mut out: impl Write) {
    loop {
        let waiting = queue.changed.wait_while(queue.waiting(), |waiting| waiting.bytes.is_empty());
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        let (bytes, lost) = (std::mem::take(&mut waiting.bytes), std::mem::take(&mut waiting.lost));
        waiting.is_writing = true;
        drop(waiting);
        // If nobody will ever read stderr, there is nowhere to report it.
        if out.write_all(&bytes).and_then(|()| out.flush()).is_err() {
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
            LOST.fetch_add(lines as u64, Ordering::Relaxed);
        } else if lost > 0 {
            tracing::error!(lost, "lines of this log were lost: stderr was not read in time");
        }
        queue.waiting().is_writing = false;
        queue.changed.notify_all();
    }
}

impl Write for LogLines {
    /// Accepts a whole line or nothing. Each write is one line, whatever it contains, because names, paths and other
    /// foreign text occur in it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let shown = escape::shown(text.strip_suffix('\n').unwrap_or(&text));
        let mut waiting = self.0.waiting();
        // Never blocks: if the queue is full, this line is lost instead.
        if waiting.bytes.len() + shown.len() + 1 > MOST_UNWRITTEN {
            waiting.lost += 1;
            LOST.fetch_add(1, Ordering::Relaxed);
        } else {
            waiting.bytes.extend_from_slice(shown.as_bytes());
            waiting.bytes.push(b'\n');
            self.0.changed.notify_all();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_stalled_or_vanished_reader_holds_up_no_writer_and_each_line_is_whole() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut lines = LogLines::start(writer).unwrap();
        let line = [vec![b'x'; 999], b"\n".to_vec()].concat();
        let before = lost();
        for _ in 0..4000 {
            lines.write_all(&line).unwrap();
        }
        let lost = usize::try_from(lost() - before).unwrap();
        assert!(lost > 1000, "{lost}");
        lines.flush();
        let mut bytes = vec![0; (4000 - lost) * line.len()];
        reader.read_exact(&mut bytes).unwrap();
        assert!(bytes.chunks(line.len()).all(|read| read == line), "what is not lost is whole");
        // A reader that returns receives everything from then on, and the end of the program.
        lines.write_all(b"last\n").unwrap();
        lines.flush();
        let mut last = [0; 5];
        reader.read_exact(&mut last).unwrap();
        assert_eq!(&last, b"last\n");
        // A reader that goes away causes no fault.
        drop(reader);
        let before = super::lost();
        for _ in 0..3 {
            lines.write_all(b"nobody hears it\n").unwrap();
            lines.flush();
        }
        assert_eq!((super::lost() - before, lines.0.waiting().bytes.len()), (3, 0));
    }
}
