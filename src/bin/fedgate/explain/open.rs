//! Opens files of records: plain, compressed (gzip, zstd), or piped.
//!
//! The one rule: the first bytes of a file decide its format, not its name; and no line takes more memory than a
//! record may have.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Error, Read};
use std::path::Path;

use fedgate_base::regular;
use flate2::bufread::MultiGzDecoder;

/// Most bytes of a line; a record has 16 KiB at most.
const MOST_OF_A_LINE: u64 = 64 * 1024;
/// The name of standard input.
const STDIN: &str = "-";
/// The directory in which a shell names pipes for commands that want a file name.
const PIPES: [&str; 3] = ["/dev/fd/", "/proc/self/fd/", "/dev/stdin"];

/// First bytes of files whose compression is not supported.
const UNREAD: [(&[u8], &str); 4] =
    [(b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"), (b"\x04\x22\x4d\x18", "lz4"), (b"PK\x03\x04", "zip")];

/// The lines of a file.
pub(super) struct RecordLines(Box<dyn BufRead>);

impl RecordLines {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    /// It cannot be opened, or its compression is not supported.
    pub(super) fn open(file: &Path) -> io::Result<Self> {
        let is_pipe = PIPES.iter().any(|pipe| file.to_str().is_some_and(|file| file.starts_with(pipe)));
        let plain: Box<dyn Read> = match file {
            _ if file == Path::new(STDIN) => Box::new(io::stdin()),
            // A pipe is open already; `regular::open` would refuse it.
            _ if is_pipe => Box::new(File::open(file)?),
            _ => Box::new(regular::open(file)?),
        };
        Self::of(plain)
    }

    fn of(plain: impl Read + 'static) -> io::Result<Self> {
        let mut plain = BufReader::new(plain);
        let begin = plain.fill_buf()?;
        if let Some((_, name)) = UNREAD.iter().find(|(magic, _)| begin.starts_with(magic)) {
            return Err(Error::other(format!(
                "it is compressed by {name}, which is not supported; pipe it to --records -"
            )));
        }
        Ok(match begin {
            [0x1f, 0x8b, ..] => Self(Box::new(BufReader::new(MultiGzDecoder::new(plain)))),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self(Box::new(BufReader::new(zstd::Decoder::with_buffer(plain)?))),
            _ => Self(Box::new(plain)),
        })
    }

    /// The next line, without its end; lines longer than any record are skipped.
    ///
    /// # Errors
    /// It cannot be read, or the compressed data breaks off.
    pub(super) fn next(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            line.clear();
            if Read::take(&mut self.0, MOST_OF_A_LINE).read_until(b'\n', line)? == 0 {
                return Ok(false);
            }
            if line.last() == Some(&b'\n') || (line.len() as u64) < MOST_OF_A_LINE {
                line.pop_if(|last| *last == b'\n');
                return Ok(true);
            }
            while line.last() != Some(&b'\n') {
                line.clear();
                if Read::take(&mut self.0, MOST_OF_A_LINE).read_until(b'\n', line)? == 0 {
                    return Ok(false);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;

    fn read(bytes: Vec<u8>) -> io::Result<Vec<String>> {
        let (mut lines, mut line, mut read) = (RecordLines::of(Cursor::new(bytes))?, vec![], vec![]);
        while lines.next(&mut line)? {
            read.push(String::from_utf8(line.clone()).unwrap());
        }
        Ok(read)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_file_is_read_by_what_it_holds_and_a_line_that_is_no_record_is_passed_over() {
        let long = "x".repeat(200_000);
        let text = format!("one\n{long}\ntwo\n\nthree");
        let lines = ["one", "two", "", "three"];
        let zstd = |text: &[u8]| zstd::encode_all(text, 1).unwrap();
        assert_eq!(read(text.clone().into_bytes()).unwrap(), lines);
        assert_eq!(read(gzip(text.as_bytes())).unwrap(), lines);
        assert_eq!(read(zstd(text.as_bytes())).unwrap(), lines);
        // Two concatenated files.
        assert_eq!(read([gzip(b"a\n"), gzip(b"b\n")].concat()).unwrap(), ["a", "b"]);
        assert_eq!(read([zstd(b"a\n"), zstd(b"b\n")].concat()).unwrap(), ["a", "b"]);
        assert_eq!(read(vec![]).unwrap(), Vec::<String>::new());
        let mut broken = gzip(text.as_bytes());
        broken.truncate(broken.len() / 2);
        assert!(read(broken).is_err());
        assert!(read(b"\xfd7zXZ\0...".to_vec()).unwrap_err().to_string().contains("compressed by xz"));
        assert_eq!(read(long.into_bytes()).unwrap(), Vec::<String>::new(), "nor does one without an end take more");
    }
}
