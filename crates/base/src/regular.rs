//! Opens regular files without waiting, and nothing else.
//!
//! A path from an operator may lead to a FIFO, whose opening waits for a writer, or to a device that never ends. So
//! the one rule: only regular files are read, and no more of them than the reader can use.
//!
//! Everything that reads a file named by an operator calls it. It knows nothing of the content.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a regular file for reading.
///
/// # Errors
/// It cannot be opened, or is a directory, a FIFO, a socket or a device.
pub fn open(path: &Path) -> Result<File> {
    // Without this flag, opening a FIFO waits for a writer.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    // Checked on the open file, so that nothing can be exchanged between check and use.
    if file.metadata()?.is_file() { Ok(file) } else { Err(Error::other("it is not a regular file")) }
}

/// Reads a regular file of at most `most` bytes into one buffer, which is not moved meanwhile.
///
/// # Errors
/// As [`open`]; or the file is larger.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let file = open(path)?;
    let size = file.metadata()?.len().min(most);
    // With room for one more byte, the read that finds the end needs no other buffer.
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1);
    if file.take(most + 1).read_to_end(&mut bytes)? as u64 > most {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("it is larger than {most} bytes")));
    }
    Ok(bytes)
}

/// Reads a regular file of at most `most` bytes as text.
///
/// # Errors
/// As [`read`]; or the file is not UTF-8.
pub fn read_to_string(path: &Path, most: u64) -> Result<String> {
    String::from_utf8(read(path, most)?).map_err(|error| Error::new(ErrorKind::InvalidData, error))
}

/// Creates or overwrites a file with this mode.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once_and_what_is_too_large_too() {
        let dir = std::env::temp_dir().join(format!("fedgate-regular-{:x}", rand::random::<u128>()));
        std::fs::create_dir_all(&dir).unwrap();
        let (fifo, file) = (dir.join("fifo"), dir.join("file"));
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        std::fs::write(&file, "text").unwrap();
        for path in [fifo.as_path(), &dir, Path::new("/dev/zero"), Path::new("/dev/null")] {
            assert!(open(path).unwrap_err().to_string().contains("not a regular file"), "{}", path.display());
        }
        assert_eq!(read_to_string(&file, 4).unwrap(), "text");
        assert!(read_to_string(&file, 3).unwrap_err().to_string().contains("larger than 3 bytes"));
        std::fs::write(&file, [0xff]).unwrap();
        assert!(read_to_string(&file, 3).is_err());
        assert!(open(&dir.join("none")).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
