//! A proxy between a gateway and PostgreSQL that fails on command. It cuts sessions, holds them up, drops notices
//! and nothing else, or leads new sessions to another server while open ones go on.
//!
//! It reads the server's messages one by one (PostgreSQL manual, "Message Formats": a type byte, then a length that
//! counts itself). They are in clear text with `sslmode=disable`.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use fedgate_base::config::PostgresConfig;

/// Type byte of NotificationResponse.
const NOTIFICATION: u8 = b'A';

pub struct Proxy {
    port: u16,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    /// The socket to which new sessions lead.
    server: Mutex<PathBuf>,
    sessions: Mutex<Vec<(TcpStream, UnixStream)>>,
    holding: Mutex<bool>,
    released: Condvar,
    swallowing: AtomicBool,
    swallowed: AtomicUsize,
    answered: AtomicUsize,
}

impl Proxy {
    /// Listens on a free port of loopback, in front of a server's Unix socket.
    pub fn before(server: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { port: listener.local_addr().unwrap().port(), faults: Arc::default() };
        proxy.lead_to(server);
        let faults = Arc::clone(&proxy.faults);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is down refuses connections. So does its proxy: the client's connection ends.
                let server = faults.server.lock().unwrap().clone();
                if let Ok(server) = UnixStream::connect(server) {
                    open(client, server, &faults).unwrap();
                }
            }
        });
        proxy
    }

    /// The connection string that leads to a database through this proxy.
    pub fn uri(&self, database: &PostgresConfig) -> String {
        let name = database.uri.split("dbname=").nth(1).unwrap();
        format!("host=127.0.0.1 port={} user=postgres sslmode=disable dbname={name}", self.port)
    }

    /// The port on which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Leads new sessions to another server's socket. Open sessions are not moved.
    pub fn lead_to(&self, server: PathBuf) {
        *self.faults.server.lock().unwrap() = server;
    }

    /// Ends every session.
    pub fn cut(&self) {
        for (client, server) in self.faults.sessions.lock().unwrap().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    /// Holds back every byte in both directions from now on, or releases them.
    pub fn hold(&self, is_holding: bool) {
        *self.faults.holding.lock().unwrap() = is_holding;
        self.faults.released.notify_all();
    }

    /// Starts or stops dropping notices.
    pub fn swallow_notices(&self, is_swallowing: bool) {
        self.faults.swallowing.store(is_swallowing, Ordering::SeqCst);
    }

    /// How many bytes the server has sent through here.
    pub fn answered(&self) -> usize {
        self.faults.answered.load(Ordering::SeqCst)
    }

    /// The number of dropped notices.
    pub fn swallowed(&self) -> usize {
        self.faults.swallowed.load(Ordering::SeqCst)
    }
}

impl Faults {
    fn pass(&self) {
        let holding = self.holding.lock().unwrap();
        drop(self.released.wait_while(holding, |holding| *holding).unwrap());
    }
}

/// Forwards in one direction until either side ends.
type Forward = fn(&TcpStream, &UnixStream, &Faults) -> io::Result<()>;

fn open(client: TcpStream, server: UnixStream, faults: &Arc<Faults>) -> io::Result<()> {
    client.set_nodelay(true)?;
    faults.sessions.lock().unwrap().push((client.try_clone()?, server.try_clone()?));
    for forward in [questions as Forward, answers] {
        let (client, server, faults) = (client.try_clone()?, server.try_clone()?, Arc::clone(faults));
        std::thread::spawn(move || {
            let _ = forward(&client, &server, &faults);
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

fn questions(mut client: &TcpStream, mut server: &UnixStream, faults: &Faults) -> io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let count = client.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        faults.pass();
        server.write_all(&bytes[..count])?;
    }
}

fn answers(mut client: &TcpStream, server: &UnixStream, faults: &Faults) -> io::Result<()> {
    let mut server = BufReader::new(server);
    let mut passed = Vec::new();
    loop {
        let mut head = [0; 5];
        server.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let mut body = vec![0; u32::from_be_bytes(length) as usize - length.len()];
        server.read_exact(&mut body)?;
        faults.pass();
        if kind == NOTIFICATION && faults.swallowing.load(Ordering::SeqCst) {
            faults.swallowed.fetch_add(1, Ordering::SeqCst);
        } else {
            passed.extend_from_slice(&head);
            passed.extend_from_slice(&body);
        }
        faults.answered.fetch_add(head.len() + body.len(), Ordering::SeqCst);
        if server.buffer().is_empty() {
            client.write_all(&passed)?;
            passed.clear();
        }
    }
}
