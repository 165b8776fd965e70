//! stdout, as what keeps records where no file does; and as a copy beside a file.
//!
//! The one rule: alone, it is held to what a file is held to ([`super::journal`]): a record that was taken is written, what
//! cannot be written is kept up to a bound and tried again, and what is over the bound is refused and counted. Beside a
//! file it keeps nobody waiting.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

use tokio::sync::oneshot;

/// Most bytes that wait while stdout cannot be written.
const MOST_UNWRITTEN: usize = 8 * 1024 * 1024;
/// Batches that may wait to be printed beside a file.
const PRINT_QUEUE: usize = 16;
/// Most bytes that wait for a reader of stdout, where a file has them too.
const MOST_UNPRINTED: usize = 64 * 1024;

/// stdout, where it alone has the records.
pub(super) struct Stdout {
    out: File,
    unwritten: Vec<u8>,
    dropped: usize,
}

impl Stdout {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self::to(io::stdout().as_fd().try_clone_to_owned()?.into()))
    }

    fn to(out: File) -> Self {
        Self { out, unwritten: vec![], dropped: 0 }
    }

    /// How many lines were dropped since this was asked last.
    pub(super) fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.dropped)
    }

    /// Writes whole lines, behind what is still to be written; waits for a reader that is slow.
    ///
    /// # Errors
    /// What could not be written is kept for the next time. Lines for which there is no room are dropped.
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

fn count(lines: &[u8]) -> usize {
    lines.iter().filter(|byte| **byte == b'\n').count()
}

/// What is printed at once, and who is told of it.
type Printed = (Vec<u8>, Option<oneshot::Sender<()>>);

/// Writes to stdout what a file has too, by a thread of its own: its reader may be slow, or gone.
pub(super) struct Printer {
    queue: SyncSender<Printed>,
    is_skipping: bool,
    /// What the reader has not taken yet.
    waiting: Vec<u8>,
}

impl Printer {
    pub(super) fn start() -> io::Result<Self> {
        let (queue, entries) = sync_channel::<Printed>(PRINT_QUEUE);
        let print = move || {
            let mut failing = false;
            for (lines, flush) in entries {
                let mut stdout = io::stdout().lock();
                let printed = stdout.write_all(&lines).and_then(|()| stdout.flush());
                if let Err(error) = &printed
                    && !failing
                {
                    tracing::error!(%error, "records cannot be written to stdout: they go to the file alone");
                }
                failing = printed.is_err();
                if let Some(flushed) = flush {
                    let _ = flushed.send(());
                }
            }
        };
        thread::Builder::new().name("stdout".into()).spawn(print)?;
        Ok(Self { queue, is_skipping: false, waiting: vec![] })
    }

    /// Prints lines, or leaves them to the file when the reader does not take them.
    pub(super) fn print(&mut self, lines: &[u8], flush: Option<oneshot::Sender<()>>) {
        if self.waiting.len() + lines.len() <= MOST_UNPRINTED {
            self.waiting.extend_from_slice(lines);
        } else if !self.is_skipping {
            self.is_skipping = true;
            tracing::error!("stdout is not read: records go to the file alone");
        }
        if let Err(TrySendError::Full((lines, _))) = self.queue.try_send((std::mem::take(&mut self.waiting), flush)) {
            self.waiting = lines;
        } else {
            self.is_skipping = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_no_reader_takes_is_kept_within_bounds_and_the_rest_counted() {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut out = Stdout::to(std::os::fd::OwnedFd::from(writer).into());
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
}
