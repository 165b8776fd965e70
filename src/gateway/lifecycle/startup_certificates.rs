//! Certificate files that are read once, at the start: those of TLS with upstreams and with PostgreSQL.
//!
//! The one rule: the content that was read is in force until the next start, so its dates are followed, whatever
//! the file holds by now.

use std::sync::Arc;
use std::time::Duration;

use crate::gateway::edge::tls::{AlarmBoard, AlarmTone, CertificateFinding, CertificateUse, LoadedCertificates, now};
use crate::gateway::upstream::UpstreamSet;
use fedgate_base::config::{Config, StoreConfig};
use fedgate_base::pem::{self, HeldCertificate};

/// How often dates are compared with the clock.
const COMPARE: Duration = Duration::from_secs(2);

/// The files, and the alarms about their dates.
pub(crate) struct StartupCertificates {
    files: Vec<LoadedCertificates>,
    warning: Duration,
    faults: AlarmBoard<usize>,
    ahead: AlarmBoard<usize>,
}

impl StartupCertificates {
    /// The files of opened upstreams, and of the store.
    pub(crate) fn new(config: &Config, upstreams: &UpstreamSet) -> Self {
        let of_upstreams = upstreams.all().flat_map(|upstream| upstream.servers.held().iter().cloned());
        Self {
            files: of_upstreams.chain(of_store(&config.store)).collect(),
            warning: config.tls.expiry_warning,
            faults: AlarmBoard::new(AlarmTone::Fault),
            ahead: AlarmBoard::new(AlarmTone::Ahead),
        }
    }

    pub(crate) fn files(&self) -> &[LoadedCertificates] {
        &self.files
    }

    /// Faults now, and faults that come soon.
    pub(crate) fn findings(&self, now: i64) -> Vec<CertificateFinding> {
        let ahead = self.files.iter().flat_map(|file| file.ahead(self.warning, now));
        let ahead = ahead.map(|text| CertificateFinding { text, is_fault: false });
        self.files.iter().flat_map(|file| file.stale(now)).chain(ahead).collect()
    }

    /// Faults of the last comparison.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.faults.all()
    }

    /// Faults that come soon.
    pub(crate) fn ahead(&self) -> Vec<String> {
        self.ahead.all()
    }

    /// Reports certificates that expire; runs until dropped.
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

/// The authorities of PostgreSQL. The store was opened with them already, so a file that can no longer be read is
/// no fault here.
fn of_store(store: &StoreConfig) -> Option<LoadedCertificates> {
    let StoreConfig::Postgres(store) = store else { return None };
    let path = store.ca_file.clone()?;
    let certificates = HeldCertificate::all(&pem::certificates(&path).ok()?);
    Some(LoadedCertificates { key: "store.ca_file".into(), path, holding: CertificateUse::Authorities, certificates })
}
