//! Whether an address in use is held by the gateway of this configuration, or by another program.
//!
//! The one rule: a listener counts as this gateway's only if the system shows the socket among the files of its
//! process, or if its admin listener names this configuration, or names the process that holds `gateway.pid_file` and
//! the address. A fedgate that answers there may be a different one.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use fedgate_base::config::{Config, GatewayConfig};
use serde::Deserialize;

/// How long an admin listener may take to answer, and how much of its answer is read.
const ADMIN_PATIENCE: Duration = Duration::from_secs(2);
const MOST_ANSWER: u64 = 4096;

/// Whether a process listens on an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressHolder {
    /// That process does.
    Process,
    /// Another process does, or none.
    Other,
    /// Unknown: this user may not inspect that process.
    Unseen,
}

/// Distinguishes the gateway of one configuration from others: a digest of the file's path and of the listening
/// addresses.
pub(crate) fn digest(config: &Config) -> String {
    let file = std::path::absolute(&config.file).unwrap_or_else(|_| config.file.clone());
    // The file itself may be a link that leads elsewhere after each change, as Kubernetes lays it.
    let directory = file.parent().and_then(|directory| directory.canonicalize().ok()).unwrap_or_default();
    let mut hasher = blake3::Hasher::new();
    hasher.update(directory.join(file.file_name().unwrap_or_default()).as_os_str().as_encoded_bytes());
    for (kind, addresses) in addresses(&config.gateway).iter().enumerate() {
        let mut addresses: Vec<String> = addresses.iter().map(|address| format!("\n{kind} {address}")).collect();
        addresses.sort();
        hasher.update(addresses.concat().as_bytes());
    }
    hasher.finalize().to_hex().get(..16).unwrap_or_default().to_owned()
}

/// The addresses of a gateway, of one kind after the other.
fn addresses(gateway: &GatewayConfig) -> [Vec<SocketAddr>; 5] {
    let GatewayConfig { listen, listen_plain, redirect, admin, beside, .. } = gateway;
    [listen.clone(), listen_plain.clone(), redirect.clone(), admin.clone(), beside.addresses()]
}

/// Every address of a gateway, for its answer at `/version`.
pub(crate) fn all_addresses(gateway: &GatewayConfig) -> Vec<SocketAddr> {
    addresses(gateway).concat()
}

/// The answer of a running gateway at `/version`.
#[derive(Debug, Deserialize)]
pub(crate) struct RunningVersion {
    configuration: String,
    process: i32,
    listens: Vec<SocketAddr>,
}

impl RunningVersion {
    /// Asks at the admin addresses of a configuration.
    pub(crate) fn ask(config: &Config) -> Option<Self> {
        config.gateway.admin.iter().find_map(|address| serde_json::from_str(&version_at(*address).ok()?).ok())
    }

    /// Whether it listens on an address; `own` is the digest of this configuration, and `pid` the process that holds
    /// `gateway.pid_file`. `None` if this is another gateway.
    pub(crate) fn holder(&self, own: &str, pid: Option<i32>, address: SocketAddr) -> Option<AddressHolder> {
        let is_same = self.configuration == own;
        if !is_same && pid != Some(self.process) {
            return None;
        }
        // Its addresses may differ from those of the file, if the file has changed since it started.
        let listens = is_same || self.listens.contains(&address);
        Some(if listens { AddressHolder::Process } else { AddressHolder::Other })
    }
}

fn version_at(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ADMIN_PATIENCE)?;
    stream.set_read_timeout(Some(ADMIN_PATIENCE))?;
    stream.set_write_timeout(Some(ADMIN_PATIENCE))?;
    stream.write_all(b"GET /version HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MOST_ANSWER).read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// Whether a process listens on an address, as far as this user may see.
pub(crate) fn holder(pid: i32, address: SocketAddr) -> AddressHolder {
    let sockets = listening_sockets(address);
    match std::fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(open) => {
            let links = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
            let is_own = |link: &Path| link.to_str().is_some_and(|link| sockets.iter().any(|one| one.link == link));
            if links.into_iter().any(|link| is_own(&link)) { AddressHolder::Process } else { AddressHolder::Other }
        }
        // Only root may see the open files of a process that writes no dumps. Everybody may see the user of a socket.
        Err(_) => {
            let user = user_of(pid);
            let may_be = sockets.iter().any(|socket| user.is_none_or(|user| socket.user == user));
            if may_be { AddressHolder::Unseen } else { AddressHolder::Other }
        }
    }
}

/// The effective user of a process (proc(5), `/proc/PID/status`).
fn user_of(pid: i32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_whitespace().nth(1)?.parse().ok()
}

/// A socket that listens.
struct ListeningSocket {
    /// As `/proc/PID/fd` names it.
    link: String,
    user: u32,
}

/// The sockets that listen on an address (proc(5), `/proc/net/tcp`).
fn listening_sockets(address: SocketAddr) -> Vec<ListeningSocket> {
    const LISTENS: &str = "0A";
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| std::fs::read_to_string(table).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines());
    let sockets = lines.filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, state) = (words.next()?, words.nth(1)?);
        let (user, inode) = (words.nth(3)?.parse().ok()?, words.nth(1)?);
        let is_it = state == LISTENS && local_address(local)? == address;
        is_it.then(|| ListeningSocket { link: format!("socket:[{inode}]"), user })
    });
    sockets.collect()
}

/// An address as those tables write it: words of 32 bits in the order of this machine, then the port.
fn local_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.rsplit_once(':')?;
    let mut bytes = vec![];
    for at in (0..address.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => IpAddr::V4(Ipv4Addr::from(v4)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_gateway_that_runs_with_other_addresses_is_known_by_its_process_and_says_which_it_holds() {
        let [held, new] = ["127.0.0.1:8442", "127.0.0.1:8080"].map(|address| address.parse().unwrap());
        let answer = RunningVersion { configuration: "0".into(), process: 7, listens: vec![held] };
        assert_eq!(answer.holder("own", Some(7), held), Some(AddressHolder::Process));
        assert_eq!(answer.holder("own", Some(7), new), Some(AddressHolder::Other));
        assert_eq!(answer.holder("own", Some(8), held), None, "another gateway answers there");
        assert_eq!(answer.holder("own", None, held), None);
        let same = RunningVersion { configuration: "own".into(), ..answer };
        assert_eq!(same.holder("own", None, new), Some(AddressHolder::Process));
    }

    #[test]
    fn a_process_holds_the_addresses_that_it_listens_on_and_no_other_of_the_same_port() {
        let own = i32::try_from(std::process::id()).unwrap();
        for place in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(place).unwrap();
            let address = listener.local_addr().unwrap();
            assert_eq!(holder(own, address), AddressHolder::Process, "{address}");
            assert_ne!(holder(1, address), AddressHolder::Process, "{address}");
            for other in ["127.0.0.2", "0.0.0.0", "::"] {
                let other = SocketAddr::new(other.parse().unwrap(), address.port());
                assert_eq!(holder(own, other), AddressHolder::Other, "{other}");
            }
        }
    }
}
