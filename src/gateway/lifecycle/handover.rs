//! Listening sockets that outlive the process: opened, inherited from a predecessor or from systemd, and handed
//! over.
//!
//! The one rule: a socket that is handed over is never closed in between, so no connection is refused. A
//! predecessor serves until its successor reports that it listens; a failed successor leaves it serving. So a
//! successor accepts nothing before everything that can fail has succeeded.
//!
//! The successor is started with one end of a socket pair as its standard input. The listening sockets come through
//! it (`SCM_RIGHTS`, unix(7)), verified passwords if it asks for them ([`handed_proofs`]), and the word `ready` goes back.
//! systemd passes sockets as in `sd_listen_fds(3)`.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::handed_proofs::{self, Word};
use super::pid_file::StartOrigin;
use crate::authn::{Authenticator, HandedProofs};
use fedgate_base::parent;

/// The variable that marks a process as a successor.
const SUCCESSOR: &str = "FEDGATE_SUCCESSOR";
/// Its value, from a predecessor that hands over its verified passwords.
const WITH_PROOFS: &str = "proofs";
/// The message of a successor that listens.
const READY: Word = *b"ready\n";
/// How long a successor may take until then.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Most sockets that are handed over.
const MOST_SOCKETS: usize = 64;
/// Most connections that wait to be accepted; the system may have a lower limit.
const BACKLOG: i32 = 4096;

/// The sockets that a process receives at its start.
pub(crate) struct InheritedSockets {
    listeners: Vec<(SocketAddr, TcpListener)>,
    predecessor: Option<UnixStream>,
    /// Whether the predecessor hands over its verified passwords.
    offers_proofs: bool,
}

/// What a process hands to its successor.
#[derive(Clone)]
pub(crate) struct HandedOver {
    /// The listening sockets.
    pub(crate) sockets: Arc<Vec<TcpListener>>,
    /// Whose verified passwords are handed over.
    pub(crate) authenticator: Arc<Authenticator>,
}

impl InheritedSockets {
    /// Takes the sockets of a predecessor or of systemd; usually there are none.
    ///
    /// # Errors
    /// Announced sockets do not arrive.
    pub(crate) fn take() -> io::Result<Self> {
        let mut found = vec![];
        let mut activated = listenfd::ListenFd::from_env();
        for index in 0..activated.len() {
            found.extend(activated.take_tcp_listener(index)?);
        }
        let (mut predecessor, mark) = (None, std::env::var_os(SUCCESSOR));
        if mark.is_some() {
            let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
            found.extend(receive(&stream)?.into_iter().map(TcpListener::from));
            predecessor = Some(stream);
        }
        let addressed = |listener: TcpListener| Ok((listener.local_addr()?, listener));
        let offers_proofs = mark.is_some_and(|mark| mark == WITH_PROOFS);
        Ok(Self { listeners: found.into_iter().map(addressed).collect::<io::Result<_>>()?, predecessor, offers_proofs })
    }

    /// Whether a predecessor hands over; systemd's sockets have none.
    pub(crate) fn origin(&self) -> StartOrigin {
        match self.predecessor {
            Some(_) => StartOrigin::Successor,
            None => StartOrigin::First,
        }
    }

    /// The verified passwords of a predecessor that offers them. Blocks for some seconds at most.
    pub(crate) fn proofs(&self) -> Option<HandedProofs> {
        handed_proofs::ask(self.predecessor.as_ref().filter(|_| self.offers_proofs)?)
    }

    /// The socket that listens on an address: an inherited one, or a new one.
    ///
    /// # Errors
    /// The address is in use, or not one of this machine.
    pub(crate) fn open(&mut self, address: SocketAddr) -> io::Result<TcpListener> {
        match self.listeners.iter().position(|(known, _)| *known == address) {
            Some(index) => Ok(self.listeners.swap_remove(index).1),
            None => listen(address),
        }
    }

    /// Tells the predecessor that this process listens; closes inherited sockets that nothing has opened.
    pub(crate) fn ready(mut self) {
        for (address, _) in self.listeners.drain(..) {
            tracing::warn!("an inherited socket on {address} is not in the configuration and is closed");
        }
        if let Some(mut predecessor) = self.predecessor
            && let Err(error) = predecessor.write_all(&READY)
        {
            tracing::warn!(%error, "the predecessor ended before it learned that this process is ready");
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// A bound socket that does not listen: it neither keeps another program from listening there, nor takes a
/// connection.
///
/// # Errors
/// Another program listens there, or the address is not this machine's, or not for this user.
pub(crate) fn bind(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Lingering connections of an earlier process must not keep the address in use (socket(7)).
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` are listeners of their own, so each address is listened on once.
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

fn receive(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    stream.set_read_timeout(Some(READY_TIMEOUT))?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut slices = [IoSliceMut::new(&mut byte)];
    let received = rustix::net::recvmsg(stream, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the predecessor handed over no sockets"));
    }
    let mut sockets = vec![];
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            sockets.extend(rights);
        }
    }
    Ok(sockets)
}

fn send(stream: &UnixStream, listeners: &[TcpListener]) -> io::Result<()> {
    let sockets: Vec<_> = listeners.iter().take(MOST_SOCKETS).map(AsFd::as_fd).collect();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&sockets));
    rustix::net::sendmsg(stream, &[IoSlice::new(b"s")], &mut ancillary, SendFlags::empty())?;
    Ok(())
}

/// A process that is to take over.
pub(crate) struct SuccessorProcess {
    child: Child,
    answered: JoinHandle<io::Result<bool>>,
}

impl SuccessorProcess {
    /// Starts the program on disk, with the same arguments, and hands over.
    ///
    /// # Errors
    /// It does not start, or nothing would follow its life: the parent of this process would take this process's
    /// end for the end of the gateway.
    pub(crate) fn start(handed: HandedOver) -> io::Result<Self> {
        if parent::is_followed() {
            return Err(io::Error::other(
                "this gateway belongs to another program (`fedgate demo`), which ends with it; restart that program \
                 instead",
            ));
        }
        let (ours, theirs) = UnixStream::pair()?;
        handed_proofs::offer(&ours)?;
        let mut words = std::env::args_os();
        let program: OsString =
            words.next().ok_or_else(|| io::Error::other("this program does not know its own name"))?;
        let mut command = tokio::process::Command::new(&program);
        // systemd's variables name descriptors of this process, which the successor does not have.
        command.args(words).env(SUCCESSOR, WITH_PROOFS).env_remove("LISTEN_FDS").env_remove("LISTEN_PID");
        let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
        // The command holds its end of the pair, too. Without this, a child that has ended would not close the
        // pair.
        drop(command);
        let answered = tokio::task::spawn_blocking(move || {
            send(&ours, &handed.sockets)?;
            ours.set_read_timeout(Some(READY_TIMEOUT))?;
            let (mut word, is_of_this_user) = handed_proofs::hear(&ours)?;
            if word == handed_proofs::ASKS {
                handed_proofs::hand(&ours, is_of_this_user, || handed.authenticator.proofs_to_hand());
                (word, _) = handed_proofs::hear(&ours)?;
            }
            Ok(word == READY)
        });
        Ok(Self { child, answered })
    }

    /// Waits until it listens; returns its process id. May be cancelled and called again.
    ///
    /// # Errors
    /// It ended before it listened, or was too slow; then it is gone, and nothing has changed.
    pub(crate) async fn listens(&mut self) -> io::Result<u32> {
        let answer = (&mut self.answered).await.map_err(io::Error::other)?;
        match (answer, self.child.id()) {
            (Ok(true), Some(pid)) => Ok(pid),
            (answer, _) => {
                // A successor that was too slow must not take over later, when it is no longer expected.
                let _ = self.child.start_kill();
                let status = self.child.wait().await?;
                let why = answer.err().map_or_else(String::new, |error| format!("{error}; "));
                Err(io::Error::other(format!("{why}{status}; its own log is above")))
            }
        }
    }

    /// Lets it live on, beyond the end of this process.
    pub(crate) fn release(mut self) {
        tokio::spawn(async move { self.child.wait().await });
    }

    /// Ends it within a time. It gets SIGTERM first: if it already serves, it finishes its requests in flight.
    pub(crate) async fn end(mut self, within: Duration) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, Signal::TERM)
        {
            tracing::warn!(%error, "the successor could not be signalled to stop");
        }
        if timeout(within, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// Reports a state to systemd, if that has started this process (`sd_notify(3)`).
pub(crate) fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "this process's state could not be reported to systemd");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_pass_through_a_pair_and_still_listen() {
        let listeners = [(); 3].map(|()| listen("127.0.0.1:0".parse().unwrap()).unwrap());
        let (ours, theirs) = UnixStream::pair().unwrap();
        send(&ours, &listeners).unwrap();
        let received: Vec<_> = receive(&theirs).unwrap().into_iter().map(TcpListener::from).collect();
        for (sent, received) in listeners.iter().zip(&received) {
            let address = sent.local_addr().unwrap();
            assert_eq!(received.local_addr().unwrap(), address);
            let _client = std::net::TcpStream::connect(address).unwrap();
            received.accept().unwrap();
        }
        assert_eq!(received.len(), 3);
        drop(ours);
        assert!(receive(&theirs).is_err(), "a predecessor that went away");
    }
}
