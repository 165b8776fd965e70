//! Files of certificates that are read once, when the gateway starts: those that TLS with upstreams and with PostgreSQL needs.
//!
//! The one rule: what was read is in force until the next start, so its dates are followed, whatever the file holds by now.

use std::sync::Arc;
use std::time::Duration;

use crate::gateway::edge::tls::{AlarmBoard, AlarmTone, CertificateFinding, CertificateUse, HeldFile, now};
use crate::gateway::upstream::UpstreamSet;
use fedgate_base::config::{Config, StoreConfig};
use fedgate_base::pem::{self, HeldCertificate};

/// How often dates are compared with the clock.
const COMPARE: Duration = Duration::from_secs(2);

/// The files, and what their dates have come to.
pub(crate) struct FixedFiles {
    files: Vec<HeldFile>,
    warning: Duration,
    faults: AlarmBoard<usize>,
    ahead: AlarmBoard<usize>,
}

impl FixedFiles {
    /// Of upstreams that were opened, and of the store.
    pub(crate) fn new(config: &Config, upstreams: &UpstreamSet) -> Self {
        let of_upstreams = upstreams.all().flat_map(|upstream| upstream.servers.held().iter().cloned());
        Self {
            files: of_upstreams.chain(of_store(&config.store)).collect(),
            warning: config.tls.expiry_warning,
            faults: AlarmBoard::new(AlarmTone::Fault),
            ahead: AlarmBoard::new(AlarmTone::Ahead),
        }
    }

    pub(crate) fn files(&self) -> &[HeldFile] {
        &self.files
    }

    /// What is wrong, and what soon will be.
    pub(crate) fn findings(&self, now: i64) -> Vec<CertificateFinding> {
        let ahead = self.files.iter().flat_map(|file| file.ahead(self.warning, now));
        let ahead = ahead.map(|text| CertificateFinding { text, is_fault: false });
        self.files.iter().flat_map(|file| file.stale(now)).chain(ahead).collect()
    }

    /// What is wrong now, as it was found last.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.faults.all()
    }

    /// What soon will be.
    pub(crate) fn ahead(&self) -> Vec<String> {
        self.ahead.all()
    }

    /// Tells what time does to them; runs until it is dropped.
    pub(crate) async fn keep_watch(self: Arc<Self>) {
        loop {
            let now = now();
            for (at, file) in self.files.iter().enumerate() {
                self.faults.sound(at, file.stale(now).into_iter().map(|finding| finding.text).collect());
                self.ahead.sound(at, file.ahead(self.warning, now));
            }
            tokio::time::sleep(COMPARE).await;
        }
    }
}

/// The authorities of PostgreSQL. The store was opened with them, so a file that cannot be read by now is no fault here.
fn of_store(store: &StoreConfig) -> Option<HeldFile> {
    let StoreConfig::Postgres(store) = store else { return None };
    let path = store.ca_file.clone()?;
    let certificates = HeldCertificate::all(&pem::certificates(&path).ok()?);
    Some(HeldFile { key: "store.ca_file".into(), path, holding: CertificateUse::Authorities, certificates })
}
