//! The name that a gateway holds beside its process id file: the file may be deleted, and its lock with it.
//!
//! The one rule: the name is a socket of the abstract namespace (unix(7)), which cannot be deleted and ends with
//! its process. It consists of the directory, by device and number, and of the name of the file. A name that
//! another user holds is ignored, because any user may take any name.
//!
//! Called by [`super::pid_file`]. If the system gives no such sockets, the file alone counts.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::geteuid;

use crate::gateway::directory_of;

/// A name that this process holds.
pub(crate) struct PidSocket {
    name: Vec<u8>,
    _socket: UnixListener,
}

/// The outcome of an attempt to hold a name.
pub(crate) enum PidSocketClaim {
    Held(PidSocket),
    /// Another process of this user holds it; its process id, or 0 if it is not visible from here.
    Taken(i32),
    /// The system cannot tell.
    Unknown,
}

impl PidSocket {
    /// Takes the name of a file, if it is free.
    pub(crate) fn claim(path: &Path) -> PidSocketClaim {
        let bound = name_of(path).and_then(|name| {
            let socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
            Ok(Self { name, _socket: socket })
        });
        match bound {
            Ok(held) => PidSocketClaim::Held(held),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                holder(path).map_or(PidSocketClaim::Unknown, PidSocketClaim::Taken)
            }
            Err(_) => PidSocketClaim::Unknown,
        }
    }

    /// Whether the name still belongs to the file, whose directory may have been replaced.
    pub(crate) fn is_of(&self, path: &Path) -> bool {
        name_of(path).is_ok_and(|name| name == self.name)
    }
}

/// The process of this user that holds the name of a file.
pub(crate) fn holder(path: &Path) -> Option<i32> {
    let name = SocketAddrUnix::new_abstract_name(&name_of(path).ok()?).ok()?;
    // Non-blocking: a holder whose queue is full must not make this wait.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    rustix::net::connect(&socket, &name).ok()?;
    // The kernel reports the user that called listen (SO_PEERCRED, socket(7)); a squatter cannot forge it.
    let holder = getsockopt(&socket, PeerCredentials).ok()?;
    (holder.uid() == geteuid().as_raw()).then(|| holder.pid())
}

fn name_of(path: &Path) -> io::Result<Vec<u8>> {
    let directory = directory_of(path).metadata()?;
    let file = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
    let hash = blake3::hash(file).to_hex();
    // Within the 107 bytes of such a name.
    Ok(format!("fedgate/{:x}/{:x}/{}", directory.dev(), directory.ino(), hash.get(..32).unwrap_or_default())
        .into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_held_once_and_ends_with_its_holder() {
        let path = std::env::temp_dir().join(format!("fedgate-name-{:x}", rand::random::<u128>()));
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(holder(&path), None);
        let PidSocketClaim::Held(held) = PidSocket::claim(&path) else { panic!("nobody holds it") };
        assert!(held.is_of(&path) && !held.is_of(&path.with_extension("other")));
        assert_eq!(holder(&path), Some(own));
        assert!(matches!(PidSocket::claim(&path), PidSocketClaim::Taken(pid) if pid == own));
        assert!(matches!(PidSocket::claim(&path.with_extension("other")), PidSocketClaim::Held(_)));
        assert!(matches!(PidSocket::claim(&path.join("in/no/directory")), PidSocketClaim::Unknown));
        drop(held);
        assert_eq!(holder(&path), None);
        assert!(matches!(PidSocket::claim(&path), PidSocketClaim::Held(_)));
    }
}
