//! This instance's report of itself: once a second, and at once when it has applied a new account epoch.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use crate::accounts::REPORT_EVERY;
use crate::authn::Authenticator;
use crate::instances::InstanceReport;
use crate::reload::FileState;
use fedgate_base::config::GatewayConfig;
use fedgate_base::moment::BootMoment;
use fedgate_core::policy::PolicySet;

/// The pause after a failed report: until the next one succeeds, this instance may have no lease.
const RETRY: Duration = Duration::from_millis(250);
/// How long the withdrawal of a stopping instance may take.
const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(1);

/// Reports one instance.
#[derive(Clone)]
pub(crate) struct InstanceReporter {
    id: String,
    place: String,
    authenticator: Arc<Authenticator>,
    policy: Arc<ArcSwap<PolicySet>>,
    file: Arc<FileState>,
    /// Whether this instance has left the list for good; held while it reports.
    withdrawn: Arc<Mutex<bool>>,
}

impl InstanceReporter {
    pub(crate) fn new(
        listen: &GatewayConfig,
        authenticator: Arc<Authenticator>,
        policy: Arc<ArcSwap<PolicySet>>,
        file: Arc<FileState>,
    ) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let address = listen.listen.iter().chain(&listen.listen_plain).next();
        let place = address.map_or(host.clone(), |address| format!("{host} {address}"));
        Self {
            id: format!("{:08x}", rand::random::<u32>()),
            place,
            authenticator,
            policy,
            file,
            withdrawn: Arc::default(),
        }
    }

    /// Reports for ever.
    pub(crate) async fn run(self) {
        let mut epoch = self.authenticator.epoch();
        loop {
            let mut pause = REPORT_EVERY;
            let applied = *epoch.borrow_and_update();
            // An instance that has confirmed no epoch yet admits no caller by a cached right, so no change waits
            // for it.
            let withdrawn = self.withdrawn.lock().await;
            if applied > 0 && !*withdrawn {
                let now = BootMoment::now();
                let outcome = self.report(applied).await.write(self.authenticator.accounts()).await;
                pause = if outcome.is_ok() { REPORT_EVERY } else { RETRY };
                self.authenticator.reported(now, outcome);
            }
            drop(withdrawn);
            tokio::select! {
                _ = epoch.changed() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Removes this instance from the list.
    pub(crate) async fn withdraw(self) {
        let withdraw = async {
            *self.withdrawn.lock().await = true;
            self.authenticator.accounts().withdraw(&self.id).await
        };
        let _ = timeout(WITHDRAW_TIMEOUT, withdraw).await;
    }

    async fn report(&self, epoch: u64) -> InstanceReport {
        let bound = self.authenticator.longest_use();
        InstanceReport {
            id: self.id.clone(),
            place: self.place.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            policy: self.policy.load().fingerprint().to_owned(),
            policy_fault: self.file.fault(),
            epoch,
            bound_ms: u64::try_from(bound.as_millis()).unwrap_or(u64::MAX),
            // Being listed is the other condition of a lease, and this report itself fulfils it.
            lease_valid: self.authenticator.is_confirmed(BootMoment::now()),
            caches: self.authenticator.figures(),
            waiting: self.authenticator.waiting(),
        }
    }
}
