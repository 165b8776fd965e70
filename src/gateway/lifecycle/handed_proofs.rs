//! The verified passwords of a gateway on their way to its successor, over the socket pair of [`super::handover`].
//!
//! The one rule: they pass between two processes of one user, as the kernel says at both ends, and never through a file.
//! Whatever fails, the successor begins without them, and serves.
//!
//! A successor that is offered them sends the word `proof` and receives them before it says `ready`. Programs of earlier
//! versions neither offer nor ask. What the transfer holds, and why it admits nobody by itself, is in `authn/handed.rs`.

use std::io::{self, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, sockopt};
use rustix::process::{Uid, geteuid, getuid};

use crate::authn::HandedProofs;

/// The word of a successor that asks.
pub(super) const ASKS: Word = *b"proof\n";
/// How long the transfer may take. Without it, passwords are hashed again, which is slower but not wrong.
const LONGEST: Duration = Duration::from_secs(5);

/// A word of a successor. All have the same length, so that one can be read before it is known which.
pub(super) type Word = [u8; 6];

/// Makes the kernel name the user of each process that writes to this end; before another process can.
pub(super) fn offer(ours: &UnixStream) -> io::Result<()> {
    Ok(sockopt::set_socket_passcred(ours, true)?)
}

/// The next word of the successor, and whether a process of this user has sent it.
pub(super) fn hear(ours: &UnixStream) -> io::Result<(Word, bool)> {
    let mut word = Word::default();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut word)];
    // Bytes of two senders never come in one message, so the user is that of the whole word.
    let received = rustix::net::recvmsg(ours, &mut slices, &mut ancillary, RecvFlags::WAITALL)?;
    if received.bytes < word.len() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended before it listened"));
    }
    let is_of_this_user = ancillary
        .drain()
        .any(|message| matches!(message, RecvAncillaryMessage::ScmCredentials(sender) if is_this_user(sender.uid)));
    Ok((word, is_of_this_user))
}

/// Hands the proofs to a successor that has asked. Never fails: the successor then begins without.
pub(super) fn hand(ours: &UnixStream, is_of_this_user: bool, proofs: impl FnOnce() -> HandedProofs) {
    let handed = if is_of_this_user {
        let proofs = proofs();
        let written = ours.set_write_timeout(Some(LONGEST)).and_then(|()| proofs.write(ours));
        written.map(|()| tracing::info!(count = proofs.count(), "verified passwords were handed to the successor"))
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "it runs as another user"))
    };
    if let Err(error) = handed {
        tracing::warn!(%error, "verified passwords were not handed to the successor, which hashes them again");
        // The successor must not wait for the rest.
        let _ = ours.shutdown(Shutdown::Write);
    }
}

/// Asks a predecessor that offers its proofs. None, with a warning, if they do not come.
pub(super) fn ask(predecessor: &UnixStream) -> Option<HandedProofs> {
    let asked = || {
        if !is_this_user(sockopt::socket_peercred(predecessor)?.uid) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the predecessor runs as another user"));
        }
        { predecessor }.write_all(&ASKS)?;
        HandedProofs::read(Hurried { from: predecessor, until: Instant::now() + LONGEST })
    };
    match asked() {
        Ok(proofs) => Some(proofs),
        Err(error) => {
            tracing::warn!(%error, "verified passwords were not taken over, and are hashed again");
            // A predecessor that still writes must not wait.
            let _ = predecessor.shutdown(Shutdown::Read);
            None
        }
    }
}

fn is_this_user(user: Uid) -> bool {
    // Both: a program that was given another user's rights trusts neither.
    user == getuid() && user == geteuid()
}

/// Reads until a moment.
struct Hurried<'a> {
    from: &'a UnixStream,
    until: Instant,
}

impl Read for Hurried<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.from.set_read_timeout(Some(left))?;
        self.from.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::thread;

    use super::*;

    fn none() -> HandedProofs {
        let mut bytes = vec![];
        bytes.extend_from_slice(b"fedgate proofs 1\n");
        bytes.extend_from_slice(&[7; 36]);
        bytes.splice(49..53, [0; 4]);
        let sum = blake3::keyed_hash(&[7; 32], &bytes);
        bytes.extend_from_slice(sum.as_bytes());
        HandedProofs::read(&*bytes).unwrap()
    }

    #[test]
    fn a_successor_asks_is_given_and_goes_on() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        offer(&ours).unwrap();
        let successor = thread::spawn(move || {
            let proofs = ask(&theirs);
            (&theirs).write_all(b"ready\n").unwrap();
            proofs.map(|proofs| proofs.count())
        });
        let (word, is_of_this_user) = hear(&ours).unwrap();
        assert_eq!((word, is_of_this_user), (ASKS, true));
        hand(&ours, is_of_this_user, none);
        assert_eq!(hear(&ours).unwrap(), (*b"ready\n", true));
        assert_eq!(successor.join().unwrap(), Some(0));
    }

    #[test]
    fn a_predecessor_that_gives_half_or_something_else_leaves_its_successor_without() {
        for given in [&b""[..], b"fedgate proofs 1\n", b"fedgate proofs 9\n and what version 9 says", &[0; 100_000]] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            offer(&ours).unwrap();
            let successor = thread::spawn(move || {
                let is_without = ask(&theirs).is_none();
                (&theirs).write_all(b"ready\n").unwrap();
                is_without
            });
            assert_eq!(hear(&ours).unwrap().0, ASKS);
            // It fails where the successor has stopped reading.
            let _ = (&ours).write_all(given);
            let _ = ours.shutdown(Shutdown::Write);
            assert_eq!(hear(&ours).unwrap().0, *b"ready\n");
            assert!(successor.join().unwrap());
        }
    }

    #[test]
    fn a_process_of_another_user_is_given_nothing() {
        // Only the superuser can start one.
        if !geteuid().is_root() {
            println!("not shown: this test does not run as root");
            return;
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        offer(&ours).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "printf 'proof\\n' >&0; cat >&2"]).uid(65_534).gid(65_534);
        let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).stderr(Stdio::piped()).spawn().unwrap();
        drop(command);
        let (word, is_of_this_user) = hear(&ours).unwrap();
        assert_eq!((word, is_of_this_user), (ASKS, false));
        hand(&ours, is_of_this_user, || panic!("nothing is collected for another user"));
        assert_eq!(child.wait_with_output().unwrap().stderr, b"");
        assert!(!is_this_user(Uid::from_raw(65_534)));
    }
}
