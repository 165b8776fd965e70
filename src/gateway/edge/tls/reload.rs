//! Follows the certificate files, each part by itself, so that a fault of one delays no other.
//!
//! The one rule: a part is replaced only by content that was read, parsed and checked whole. Files that are being
//! written (emptied first, or one of two so far) look faulty for a moment, so a fault is reported when it is found
//! twice.
//!
//! Threads that may wait read the disk: a file system that hangs is reported, and delays nothing else.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use zeroize::Zeroizing;

use super::authorities::AuthorityFile;
use super::{ServedTls, TlsError, TlsPart, TlsParts, now, server_chain};
use fedgate_base::config::TlsConfig;
use fedgate_base::disk::{FileSignature, on_disk};
use fedgate_base::pem;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How soon new content is read again: it counts when it is found twice, because a part of a file may be a valid
/// file, too.
const SETTLE: Duration = Duration::from_millis(100);
/// How long after a change the files are read at every look: two writes within one tick of a coarse clock leave the
/// same file times.
const COARSEST: Duration = Duration::from_millis(2500);
/// How often an unchanged faulty file is read again: the cause may have been momentary.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// How often dates are compared with the clock.
const COMPARE: Duration = Duration::from_secs(2);

/// The state of a part's files when they were read.
#[derive(Clone, PartialEq)]
pub(super) struct SeenFiles {
    files: Vec<Option<FileSignature>>,
    digest: [u8; 32],
}

/// The content of a part's files, or which of them cannot be read, and why.
type PartContents = Result<(SeenFiles, Vec<Zeroizing<Vec<u8>>>), (usize, String)>;

impl SeenFiles {
    /// Reads the files of a part.
    ///
    /// # Errors
    /// Which file cannot be read, and why.
    pub(super) fn read(files: &[&Path]) -> PartContents {
        // Taken before the content: a write in between shows at the next look.
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
    /// The state at the last look, usable or not.
    files: Vec<Option<FileSignature>>,
    /// The content in force, and the new content of the last look.
    digest: [u8; 32],
    found: Option<[u8; 32]>,
    /// The authorities that verified the lists.
    authorities: Weak<AuthorityFile>,
    changed: Instant,
    read: Instant,
    compared: Instant,
    /// The fault of the last look, and the fault that was found twice.
    fault: Option<String>,
    lasting: Option<String>,
}

/// The result of one look.
enum LookOutcome {
    /// Nothing new.
    Same,
    /// The files hold the content in force.
    Good,
    /// New content, which may be a write under way.
    New,
    /// New content that is now in force.
    Taken,
    /// The files cannot be used.
    Faulty(String),
}

impl ServedTls {
    /// Follows the files; runs until dropped.
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
                // The panic was logged where it happened.
                Err(_panicked) => {}
            }
        }
    }

    /// Logs the result of a look, and faults that time has brought to the content in force.
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
                // Once may be a write under way; twice is a fault.
                if follower.fault.as_ref() == Some(&fault) {
                    follower.lasting = Some(fault.clone());
                }
                follower.fault = Some(fault);
            }
        }
        follower.compared = Instant::now();
        self.compare(follower.part, follower.lasting.clone());
    }

    /// Compares the dates of a part with the clock, and reports its faults beside that of its files.
    fn compare(&self, part: TlsPart, lasting: Option<String>) {
        let now = now();
        self.faults.sound(part, lasting.into_iter().chain(self.wrong(part, now)).collect());
        self.ahead.sound(part, self.coming(part, now));
    }

    /// Puts new content of a part in force.
    fn take(&self, part: TlsPart, contents: &[Zeroizing<Vec<u8>>]) -> Result<(), TlsError> {
        // Slow work happens on a copy, beside the parts that are served.
        let mut parts = self.parts().clone();
        let stale_before = part.stale(&parts, now());
        part.load(&self.config, &mut parts, contents)?;
        // Clients refuse an expired renewal and accept the certificate in force. If that one is no better, the
        // clock may be wrong, and the new one is taken.
        if let (Some(problem), true) = (part.stale(&parts, now()).pop(), stale_before.is_empty()) {
            return Err(part.fault(&self.config, 0, problem));
        }
        let mut current = self.parts();
        // Under the lock and from the current parts: two parts that change together do not undo each other.
        let mut next = current.clone();
        next.replace(part, parts);
        self.current.store(Arc::new(next.together(&self.config)?));
        *current = next;
        Ok(())
    }
}

impl TlsPart {
    /// The fault of its key file's permissions.
    fn exposed(self, config: &TlsConfig) -> Option<TlsError> {
        let Self::Pair(at) = self else { return None };
        let pair = config.certificates.get(at)?;
        Some(self.fault(config, 1, pair.exposure.fault(&pair.key)?))
    }

    /// The faults for which clients refuse it at a moment because of its dates. Other keys decide about authorities
    /// and lists.
    fn stale(self, parts: &TlsParts, now: i64) -> Vec<String> {
        match self {
            Self::Pair(at) => parts.pairs.get(at).map(|pair| server_chain::stale(&pair.cert, now)).unwrap_or_default(),
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

    /// Looks at the files, and puts new content in force.
    fn look(&mut self, tls: &ServedTls) -> LookOutcome {
        let now = Instant::now();
        let files = self.part.files(&tls.config);
        let signatures = signatures(&files);
        if signatures != self.files {
            (self.files, self.changed) = (signatures, now);
        }
        // Other authorities can change which lists verify, so the lists are read again.
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
                    // A key that everybody may now read is reported, although its earlier content stays in force.
                    return self.part.exposed(&tls.config).map_or(Ok(LookOutcome::Good), Err);
                }
                if found != Some(seen.digest) {
                    self.found = Some(seen.digest);
                    return Ok(LookOutcome::New);
                }
                tls.take(self.part, &contents)?;
                (self.digest, self.authorities) = (seen.digest, authorities);
                Ok(LookOutcome::Taken)
            });
        taken.unwrap_or_else(|fault| LookOutcome::Faulty(format!("{fault}; the last good content stays in force")))
    }
}
