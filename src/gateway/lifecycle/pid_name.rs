//! The name that a gateway holds beside its file of the process id: a file may be deleted, and with it the lock on it.
//!
//! The one rule: the name is a socket of the abstract namespace (unix(7)), which nobody can delete and which ends with its process.
//! It is made of the directory, by device and number, and of the name of the file. A name that another user holds counts for
//! nothing, because anybody may take any.
//!
//! Called by [`super::pid_file`]. A system that gives no such sockets gives no name, and the file alone counts.

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
pub(crate) struct HeldName {
    name: Vec<u8>,
    _socket: UnixListener,
}

/// What became of an attempt to hold a name.
pub(crate) enum NameClaim {
    Held(HeldName),
    /// Another process of this user holds it; its process id, or 0 where that is of no process that is seen from here.
    Taken(i32),
    /// Nobody can tell.
    Unknown,
}

impl HeldName {
    /// Holds the name of a file, if nobody does.
    pub(crate) fn claim(path: &Path) -> NameClaim {
        let bound = name_of(path).and_then(|name| {
            let socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
            Ok(Self { name, _socket: socket })
        });
        match bound {
            Ok(held) => NameClaim::Held(held),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                holder(path).map_or(NameClaim::Unknown, NameClaim::Taken)
            }
            Err(_) => NameClaim::Unknown,
        }
    }

    /// Whether it is still that of the file, whose directory may be another by now.
    pub(crate) fn is_of(&self, path: &Path) -> bool {
        name_of(path).is_ok_and(|name| name == self.name)
    }
}

/// The process of this user that holds the name of a file.
pub(crate) fn holder(path: &Path) -> Option<i32> {
    let name = SocketAddrUnix::new_abstract_name(&name_of(path).ok()?).ok()?;
    // Whoever fills the queue of a holder is not waited for.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    rustix::net::connect(&socket, &name).ok()?;
    // The user is the one who has listened, as the system knows it (SO_PEERCRED, socket(7)).
    let holder = getsockopt(&socket, PeerCredentials).ok()?;
    (holder.uid() == geteuid().as_raw()).then(|| holder.pid())
}

fn name_of(path: &Path) -> io::Result<Vec<u8>> {
    let directory = directory_of(path).metadata()?;
    let file = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
    let hash = blake3::hash(file).to_hex();
    // Within the 107 bytes that a name may have.
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
        let NameClaim::Held(held) = HeldName::claim(&path) else { panic!("nobody holds it") };
        assert!(held.is_of(&path) && !held.is_of(&path.with_extension("other")));
        assert_eq!(holder(&path), Some(own));
        assert!(matches!(HeldName::claim(&path), NameClaim::Taken(pid) if pid == own));
        assert!(matches!(HeldName::claim(&path.with_extension("other")), NameClaim::Held(_)));
        assert!(matches!(HeldName::claim(&path.join("in/no/directory")), NameClaim::Unknown));
        drop(held);
        assert_eq!(holder(&path), None);
        assert!(matches!(HeldName::claim(&path), NameClaim::Held(_)));
    }
}
