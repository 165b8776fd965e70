//! The files of certificates, followed: each part by itself, so that a fault of one holds up no other.
//!
//! The one rule: a part is replaced by content that was read, parsed and checked whole, or it stays what it was. Files that
//! are being written (emptied first, or one of two so far) look like faulty ones for a moment, so a fault is told when it is
//! found twice.
//!
//! The disk is asked on threads that may wait: a file system that hangs is told, and holds up nothing else.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use zeroize::Zeroizing;

use super::authorities::AuthorityFile;
use super::{ServedTls, TlsError, TlsPart, TlsParts, chain, now};
use fedgate_base::disk::{FileSignature, on_disk};
use fedgate_base::pem;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How soon new content is looked at again: it counts once it was found twice, because a part of a file may be a valid one, too.
const SETTLE: Duration = Duration::from_millis(100);
/// How long after a change the files are read at every look: two writes within one tick of a coarse clock leave the same
/// times.
const COARSEST: Duration = Duration::from_millis(2500);
/// How often a faulty file is read again that has not changed: what kept it may have been of the moment.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// How often dates are compared with the clock.
const COMPARE: Duration = Duration::from_secs(2);

/// What the files of a part were when they were read.
#[derive(Clone, PartialEq)]
pub(super) struct SeenFiles {
    files: Vec<Option<FileSignature>>,
    digest: [u8; 32],
}

/// What the files of a part hold, or which of them cannot be read, and why.
type PartContents = Result<(SeenFiles, Vec<Zeroizing<Vec<u8>>>), (usize, String)>;

impl SeenFiles {
    /// Reads the files of a part.
    ///
    /// # Errors
    /// Which of them cannot be read, and why.
    pub(super) fn read(files: &[&Path]) -> PartContents {
        // Before the content: what is written meanwhile shows at the next look.
        let signatures = signatures(files);
        let read = files.iter().enumerate().map(|(at, file)| pem::read(file).map_err(|problem| (at, problem)));
        let contents = read.collect::<Result<Vec<_>, _>>()?;
        let mut hasher = blake3::Hasher::new();
        for content in &contents {
            hasher.update(&(content.len() as u64).to_be_bytes()).update(content);
        }
        Ok((Self { files: signatures, digest: hasher.finalize().into() }, contents))
    }
}

fn signatures(files: &[&Path]) -> Vec<Option<FileSignature>> {
    files.iter().map(|file| FileSignature::of(file)).collect()
}

/// Follows one part.
#[derive(Clone)]
struct PartFollower {
    part: TlsPart,
    /// What was seen last, whether it could be used or not.
    files: Vec<Option<FileSignature>>,
    /// The content in force, and the new one that was found at the last look.
    digest: [u8; 32],
    found: Option<[u8; 32]>,
    /// What the lists were verified with.
    authorities: Weak<AuthorityFile>,
    changed: Instant,
    read: Instant,
    compared: Instant,
    /// What the last look found wrong, and what of it was found twice.
    fault: Option<String>,
    lasting: Option<String>,
}

/// What a look has found.
enum LookOutcome {
    /// Nothing new.
    Same,
    /// The files hold what is in force.
    Good,
    /// Something new, which may be a write under way.
    New,
    /// Something new that is in force now.
    Taken,
    /// They cannot be used.
    Faulty(String),
}

impl ServedTls {
    /// Follows the files; runs until it is dropped.
    pub(crate) async fn keep_current(self: Arc<Self>) {
        join_all(self.read.iter().map(|(part, seen)| Arc::clone(&self).follow(PartFollower::new(*part, seen, &self))))
            .await;
    }

    async fn follow(self: Arc<Self>, mut follower: PartFollower) {
        let part = follower.part;
        self.compare(part, None);
        loop {
            tokio::time::sleep(if follower.found.is_some() { SETTLE } else { LOOK }).await;
            let (tls, mut looking) = (Arc::clone(&self), follower.clone());
            let look = move || {
                let found = looking.look(&tls);
                (looking, found)
            };
            let file = part.files(&self.config).first().map(|file| file.display().to_string()).unwrap_or_default();
            let hangs = || self.faults.sound(part, vec![format!("{file}: does not answer, its file system hangs")]);
            match on_disk(look, hangs).await {
                Ok((looked, found)) => {
                    follower = looked;
                    self.tell(&mut follower, found, &file);
                }
                // It is told where it happened.
                Err(_panicked) => {}
            }
        }
    }

    /// Tells what a look has found, and what time has done to what is in force.
    fn tell(&self, follower: &mut PartFollower, found: LookOutcome, file: &str) {
        match found {
            LookOutcome::Same | LookOutcome::New if follower.compared.elapsed() < COMPARE => return,
            LookOutcome::Same | LookOutcome::New => {}
            LookOutcome::Good => (follower.fault, follower.lasting) = (None, None),
            LookOutcome::Taken => {
                (follower.fault, follower.lasting) = (None, None);
                tracing::info!("{file}: the renewed content serves new connections");
            }
            LookOutcome::Faulty(fault) => {
                // Found once, it may be a write under way.
                if follower.fault.as_ref() == Some(&fault) {
                    follower.lasting = Some(fault.clone());
                }
                follower.fault = Some(fault);
            }
        }
        follower.compared = Instant::now();
        self.compare(follower.part, follower.lasting.clone());
    }

    /// Compares the dates of a part with the clock, and tells what of it is wrong, beside a fault of its files.
    fn compare(&self, part: TlsPart, lasting: Option<String>) {
        let now = now();
        self.faults.sound(part, lasting.into_iter().chain(self.wrong(part, now)).collect());
        self.ahead.sound(part, self.coming(part, now));
    }

    /// Puts new content of a part in force.
    fn take(&self, part: TlsPart, contents: &[Zeroizing<Vec<u8>>]) -> Result<(), TlsError> {
        // Whatever takes long is done beside what is served, and beside the other parts.
        let mut parts = self.parts().clone();
        let stale_before = part.stale(&parts, now());
        part.load(&self.config, &mut parts, contents)?;
        // Clients refuse it, and accept what is in force. Where that is no better, the clock may be what is wrong.
        if let (Some(problem), true) = (part.stale(&parts, now()).pop(), stale_before.is_empty()) {
            return Err(part.fault(&self.config, 0, problem));
        }
        let mut current = self.parts();
        let mut next = current.clone();
        next.replace(part, parts);
        self.current.store(Arc::new(next.together(&self.config)?));
        *current = next;
        Ok(())
    }
}

impl TlsPart {
    /// What clients refuse of it for its dates at a moment; authorities and lists are judged by keys of their own.
    fn stale(self, parts: &TlsParts, now: i64) -> Vec<String> {
        match self {
            Self::Pair(at) => parts.pairs.get(at).map(|pair| chain::stale(&pair.cert, now)).unwrap_or_default(),
            Self::Authorities | Self::Lists => vec![],
        }
    }
}

impl PartFollower {
    fn new(part: TlsPart, seen: &SeenFiles, tls: &ServedTls) -> Self {
        let now = Instant::now();
        Self {
            part,
            files: seen.files.clone(),
            digest: seen.digest,
            found: None,
            authorities: tls.authorities(),
            changed: now,
            read: now,
            compared: now,
            fault: None,
            lasting: None,
        }
    }

    /// Looks at the files, and puts in force what is new in them.
    fn look(&mut self, tls: &ServedTls) -> LookOutcome {
        let now = Instant::now();
        let files = self.part.files(&tls.config);
        let signatures = signatures(&files);
        if signatures != self.files {
            (self.files, self.changed) = (signatures, now);
        }
        // Lists are verified with the authorities that are there.
        let authorities = tls.authorities();
        let is_other = self.part == TlsPart::Lists && !authorities.ptr_eq(&self.authorities);
        let age = now.saturating_duration_since(self.changed);
        let is_again = self.fault.is_some() && now.saturating_duration_since(self.read) >= READ_AGAIN;
        if age >= COARSEST && !is_again && !is_other && self.found.is_none() {
            return LookOutcome::Same;
        }
        self.read = now;
        let found = self.found.take();
        let taken = SeenFiles::read(&files)
            .map_err(|(at, problem)| self.part.fault(&tls.config, at, problem))
            .and_then(|(seen, contents)| {
                if seen.digest == self.digest && !is_other {
                    return Ok(LookOutcome::Good);
                }
                if found != Some(seen.digest) {
                    self.found = Some(seen.digest);
                    return Ok(LookOutcome::New);
                }
                tls.take(self.part, &contents)?;
                (self.digest, self.authorities) = (seen.digest, authorities);
                Ok(LookOutcome::Taken)
            });
        taken.unwrap_or_else(|fault| LookOutcome::Faulty(format!("{fault}; what was good last stays in force")))
    }
}
