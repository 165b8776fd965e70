//! Shows that the history checker can fail: it finds gateways in which one law is disabled.
//!
//! Three pipelines in this process represent the gateways. Each is kept current by the same watch that the gateway
//! runs. The law is disabled between that watch and the authenticator, or by a configuration that promises less.
//! The program contains nothing of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use fedgate::accounts::{AccountChanges, AccountStore, AccountsError, ChangedAccounts, EpochWatch, watch};
use fedgate::authn::{Authenticator, ClientAddress};
use fedgate::pipeline::{AuthorizationHeaders, Pipeline, RequestHead};
use fedgate::reload::read_policy;
use fedgate::routes::RouteTable;
use fedgate_base::config::Config;
use fedgate_base::moment::BootMoment;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Runtime;

use crate::fixture::{CANARY, Place, Setup, basic};
use crate::revocation::faults::{ACCOUNTS, flip};
use crate::revocation::federation::{BOUND, CONFIGURATION, Federation, INSTANCES, TARGET, ask_until};
use crate::revocation::history::{Findings, History, Outcome, State};
use crate::support::proxy::Proxy;

/// The disabled law.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mutant {
    Nothing,
    /// After a gap in the listening session, the cache is kept.
    Flush,
    /// Cached principals are used long after the last confirmation.
    Lease,
}

// Three tests, because each mostly waits: together they take as long as one.
#[test]
fn the_checker_finds_nothing_in_gateways_that_keep_every_law() {
    assert!(!is_found(Mutant::Nothing));
}

#[test]
fn the_checker_finds_a_gateway_that_keeps_its_cache_over_a_gap() {
    assert!(is_found(Mutant::Flush));
}

#[test]
fn the_checker_finds_a_gateway_without_lease() {
    assert!(is_found(Mutant::Lease));
}

/// Whether some gateway allowed a request by a right that it should have forgotten.
fn is_found(mutant: Mutant) -> bool {
    let findings = run(mutant);
    println!(
        "revocation, in process, {mutant:?} switched off: {} violations, {} allowed, latest allow began {} ms after its revocation; first {:?}",
        findings.violations.len(),
        findings.allowed,
        findings.latest_allow.as_millis(),
        findings.violations.first()
    );
    findings.violations.iter().any(|answer| answer.outcome == Outcome::Tells(State::Entitled))
}

/// Flips under load while sessions are cut and held up.
fn run(mutant: Mutant) -> Findings {
    let federation = Federation::with_accounts(ACCOUNTS);
    let runtime = Runtime::new().unwrap();
    let pipelines: Vec<_> =
        federation.proxies.iter().map(|proxy| start(&runtime, &federation, proxy, mutant)).collect();
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let history = thread::scope(|scope| {
        let client = |instance: usize| {
            let (stop, pipeline, runtime) = (&stop, Arc::clone(&pipelines[instance]), &runtime);
            move || {
                let header = |account| basic(&format!("P{account}"), CANARY);
                let headers: Vec<_> = (0..ACCOUNTS).map(header).collect();
                let mut random = StdRng::seed_from_u64(instance as u64);
                let pick = || random.random_range(0..ACCOUNTS);
                ask_until(stop, instance, Duration::from_micros(500), pick, |account| {
                    let authorization = AuthorizationHeaders::One(headers[account].as_bytes());
                    let head = RequestHead {
                        method: "GET",
                        target: TARGET.as_bytes(),
                        authorization,
                        client: ClientAddress::default().into(),
                        certified: None,
                    };
                    let admitted = runtime.block_on(pipeline.admit(head));
                    Outcome::of_status(admitted.map_or_else(|refusal| refusal.answer().status(), |_| 200))
                })
            }
        };
        let clients: Vec<_> = (0..INSTANCES).map(|instance| scope.spawn(client(instance))).collect();
        scope.spawn(|| {
            let mut instances = (0..INSTANCES).cycle();
            while let (false, Some(instance)) = (stop.load(Ordering::SeqCst), instances.next()) {
                // Time to fill the cache, to lose the lease, and to ask for stale rights.
                thread::sleep(Duration::from_millis(600));
                federation.proxies[instance].hold(true);
                thread::sleep(Duration::from_millis(3200));
                federation.proxies[instance].hold(false);
                federation.proxies[instance].cut();
            }
        });
        let flips = flip(&federation.controller(), began, 650, StdRng::seed_from_u64(9));
        stop.store(true, Ordering::SeqCst);
        History { answers: clients.into_iter().flat_map(|client| client.join().unwrap()).collect(), flips }
    });
    history.check(BOUND)
}

/// A pipeline as the gateway builds it, and the watch that keeps it current.
fn start(runtime: &Runtime, federation: &Federation, proxy: &Proxy, mutant: Mutant) -> Arc<Pipeline> {
    let uri = proxy.uri(&federation.database);
    let place = Place::prepare(&Setup { configuration: CONFIGURATION, database: Some(&uri), ..Setup::default() });
    let mut config = Config::load_with(&place.dir.join("fedgate.toml"), std::iter::empty()).unwrap();
    if mutant == Mutant::Lease {
        config.authentication.serve_cached_for = Duration::from_secs(600);
    }
    let policy = Arc::new(ArcSwap::from_pointee(read_policy(&config.policy.roles).unwrap()));
    let routes = Arc::new(RouteTable::from_config(&config).unwrap());
    let _entered = runtime.enter();
    let accounts = runtime.block_on(AccountStore::open(&config.store)).unwrap();
    let authenticator =
        Arc::new(Authenticator::new(accounts.clone(), Arc::clone(&routes), config.authentication).unwrap());
    authenticator.reported(BootMoment::now() + Duration::from_secs(24 * 60 * 60), Ok(()));
    let told = Arc::clone(&authenticator);
    match mutant {
        Mutant::Flush => runtime.spawn(async move { watch(accounts, BOUND, &Keeping(told)).await }),
        Mutant::Nothing | Mutant::Lease => runtime.spawn(async move { watch(accounts, BOUND, &*told).await }),
    };
    std::fs::remove_dir_all(place.dir).unwrap();
    Arc::new(Pipeline::new(authenticator, routes, policy))
}

/// Takes "anything may have changed" for "nothing has".
struct Keeping(Arc<Authenticator>);

impl EpochWatch for Keeping {
    fn confirmed(&self, asked: BootMoment, changes: &AccountChanges) {
        let accounts = match &changes.accounts {
            ChangedAccounts::Everything => ChangedAccounts::These(vec![]),
            these @ ChangedAccounts::These(_) => these.clone(),
        };
        self.0.confirmed(asked, &AccountChanges { epoch: changes.epoch, accounts });
    }

    fn lost(&self, error: &AccountsError) {
        self.0.lost(error);
    }
}
