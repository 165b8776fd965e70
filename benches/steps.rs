//! Measures each step of an admitted request, in ns and allocations, and the whole path on a cache hit.
//!
//! `cargo bench` prints the median of each step and its ratio to the baseline, which is a SHA-256 of 64 bytes
//! measured in the same run. So figures of different machines can be compared.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark prints, and may end on anything odd"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use fedgate::accounts::{AccountStore, EpochWatch, NewAccount};
use fedgate::assertion_signer::AssertionSigner;
use fedgate::authn::{Authenticator, keyed_mac, with_credential};
use fedgate::balance::ServerPool;
use fedgate::pipeline::{AuthorizationHeaders, Pipeline, RequestHead};
use fedgate::routes::RouteTable;
use fedgate_base::config::Config;
use fedgate_base::db::schema;
use fedgate_base::moment::BootMoment;
use fedgate_core::fields::{BodyCheck, FoldedNames, FreeValue, GuardedMember, GuardedMembers, MemberRemover};
use fedgate_core::password::{HashArena, HashCost, hash_with};
use fedgate_core::path::{CanonicalPath, parse_target};
use fedgate_core::policy::{Method, PolicyQuestion, PolicySet, RoleRights};
use fedgate_core::request_headers::{HeaderPassage, PassList};
use futures_util::FutureExt;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TARGET: &[u8] = b"/pols/ESPGNU777ORG/119b352e-8e4f-4847-9f05-53462cf94f10";
/// `ESPGNU777ORG:gnusolidario`
const CLIENT: Option<std::net::IpAddr> = Some(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));
const HEADER: &[u8] = b"Basic RVNQR05VNzc3T1JHOmdudXNvbGlkYXJpbw==";
/// Timed batches per step; the median counts.
const BATCHES: usize = 31;
const BATCH: Duration = Duration::from_millis(20);

fn main() {
    let dir = std::env::temp_dir().join(format!("fedgate-bench-{:x}", rand::random::<u128>()));
    std::fs::create_dir_all(&dir).expect("a temporary directory");
    let parts = Parts::new(&dir);
    let target = std::str::from_utf8(TARGET).expect("ASCII");
    let path = CanonicalPath::parse(target).expect("canonical");
    let stored = parts.stored.clone();
    let roles = ["end_user".to_owned()];
    let policy = parts.policy.load_full();
    let rights = RoleRights::compile(&policy, &roles, parts.routes.endpoints());
    let page = parts.routes.endpoints().find("page").expect("a route leads to it");
    let request = RequestHead {
        method: "GET",
        target: TARGET,
        authorization: AuthorizationHeaders::One(HEADER),
        client: CLIENT.into(),
        certified: None,
    };
    let admit =
        || parts.pipeline.admit(black_box(request)).now_or_never().expect("a hit never waits").expect("allowed");
    let permit = admit();

    let mut table = Table::new();
    table.step("path: parse the target", || parse_target(black_box(TARGET)));
    table.step("routes: find endpoint and subject", || parts.routes.resolve("GET", black_box(&path), None));
    table.step("Basic: decode the credential", || {
        with_credential(black_box(HEADER), |credential| credential.password.len())
    });
    table.step("MAC: account, stored hash, password", || {
        keyed_mac(&[7; 32], "ESPGNU777ORG", black_box(&stored), b"gnusolidario")
    });
    table.step("policy: decide by compiled rights", || {
        rights.decide("ESPGNU777ORG", Method::Get, black_box(page), Some("ESPGNU777ORG"))
    });
    let question = PolicyQuestion {
        principal: "ESPGNU777ORG".into(),
        roles: &roles,
        method: Method::Get,
        endpoint: "page",
        subject: Some("ESPGNU777ORG"),
    };
    table.step("policy: decide from the definitions", || policy.decide(black_box(question)));
    table.step("policy: compile rights", || RoleRights::compile(&policy, black_box(&roles), parts.routes.endpoints()));
    table.step("authenticate on a hit", || {
        parts
            .authenticator
            .authenticate(Some(black_box(HEADER)), CLIENT, &policy)
            .now_or_never()
            .expect("a hit never waits")
    });
    let servers =
        ServerPool::new(Config::load(&dir.join("fedgate.toml")).expect("valid").upstreams[0].ejection.clone());
    servers.replace((0..4).map(|number| (format!("10.0.0.{number}:8081"), ())));
    let at = Instant::now();
    table.step("balance: whose turn of 4 servers", || servers.choose(None, None, black_box(at)));
    table.step("balance: by subject among 4 servers", || servers.choose(Some(black_box("ESPGNU777ORG")), None, at));
    let (passed, sent) = (PassList::new(&[]), browsers_headers());
    table.step("headers: 13 of a browser", || {
        sent.iter().filter(|name| passed.judge(black_box(name)) == HeaderPassage::Passes).count()
    });
    let now = SystemTime::now();
    table.step("assertion: mint, HS256", || {
        parts.pipeline.assertion(black_box(&permit), "GET", "r1", &parts.signer, now)
    });
    let person = person();
    table.step("fields: judge a body of 1 KiB", || {
        let mut check = BodyCheck::new(Arc::clone(&parts.guarded), u64::MAX, None);
        check.feed(black_box(&person)).and_then(|()| check.finish()).expect("nothing is guarded in it")
    });
    let mut answer = Vec::with_capacity(2048);
    table.step("fields: an answer of 1 KiB, filtered", || {
        let mut remover = MemberRemover::new(Arc::clone(&parts.guarded.names));
        answer.clear();
        remover.feed(black_box(&person), &mut answer).and_then(|()| remover.finish()).expect("JSON")
    });
    table.step("the same parsed by serde_json", || {
        serde_json::from_slice::<serde_json::Value>(black_box(&person)).expect("JSON")
    });
    table.step("the whole admitted path on a hit", admit);
    table.step("the same with its assertion", || parts.pipeline.assertion(&admit(), "GET", "r1", &parts.signer, now));
    let _ = std::fs::remove_dir_all(&dir);
}

/// The names of the headers that a browser sends with a form.
fn browsers_headers() -> Vec<http::HeaderName> {
    let names = "user-agent accept accept-encoding accept-language content-type content-length cookie origin referer \
                 sec-fetch-site sec-fetch-mode sec-ch-ua x-csrf-token";
    names.split_whitespace().map(|name| name.parse().expect("a name")).collect()
}

/// A person of 1 KiB, as Thalamus stores them.
fn person() -> Vec<u8> {
    let mut person = String::from("{");
    for n in 0.. {
        let member =
            format!("\"member_{n}\": {{\"name\": \"some text of {n}\", \"value\": {n}.5, \"list\": [true, null]}}, ");
        if person.len() + member.len() > 1000 {
            break;
        }
        person.push_str(&member);
    }
    person.push_str("\"id\": \"ESPGNU777ORG\"}");
    person.extend(std::iter::repeat_n(' ', 1024 - person.len()));
    person.into_bytes()
}

/// The parts of a gateway, over an embedded store with one account.
struct Parts {
    pipeline: Pipeline,
    authenticator: Arc<Authenticator>,
    routes: Arc<RouteTable>,
    policy: Arc<ArcSwap<PolicySet>>,
    signer: AssertionSigner,
    stored: String,
    guarded: Arc<GuardedMembers>,
}

impl Parts {
    fn new(dir: &std::path::Path) -> Self {
        std::fs::write(dir.join("secret"), [b'k'; 40]).expect("written");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(dir.join("secret"), private).expect("its owner's");
        std::fs::write(dir.join("fedgate.toml"), "[assertion]\nsecret_file = \"secret\"\n").expect("written");
        let mut config = Config::load(&dir.join("fedgate.toml")).expect("valid");
        config.authentication.freshness_bound = Duration::from_secs(3600);
        config.authentication.hashes.upgraded = Some(false);
        let text = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/policies/roles.cfg")).expect("shipped");
        let policy = Arc::new(ArcSwap::from_pointee(PolicySet::parse(&text).expect("valid")));
        let routes = Arc::new(RouteTable::from_config(&config).expect("valid"));
        let stored = hash_with(b"gnusolidario", HashCost { memory_kib: 64, passes: 1 }, &mut HashArena::default())
            .expect("hashed");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let authenticator = runtime.block_on(async {
            let accounts = AccountStore::open(&config.store).await.expect("opened");
            schema::migrate(accounts.database()).await.expect("migrated");
            let roles = vec!["end_user".to_owned()];
            let account = NewAccount {
                id: "ESPGNU777ORG".into(),
                roles,
                password_hash: stored.clone(),
                name: None,
                lastname: None,
            };
            accounts.add(&account).await.expect("added");
            let authenticator = Arc::new(
                Authenticator::new(accounts, Arc::clone(&routes), config.authentication.clone()).expect("started"),
            );
            let changes = authenticator.accounts().changes_since(None).await.expect("answered");
            authenticator.reported(BootMoment::now() + Duration::from_secs(3600), Ok(()));
            authenticator.confirmed(BootMoment::now(), &changes);
            authenticator.authenticate(Some(HEADER), CLIENT, &policy.load_full()).await.expect("the right password");
            authenticator
        });
        let pipeline = Pipeline::new(Arc::clone(&authenticator), Arc::clone(&routes), Arc::clone(&policy));
        let signer = AssertionSigner::from_config(&config.assertion).expect("a secret");
        let names = FoldedNames::new(["roles", "active", "password"]).expect("few");
        let member = GuardedMember { free: FreeValue::None, anywhere: false };
        let guarded =
            Arc::new(GuardedMembers { names: Arc::new(names), members: Box::new([member; 3]), only_object: false });
        Self { pipeline, authenticator, routes, policy, signer, stored, guarded }
    }
}

struct Table {
    baseline: f64,
}

impl Table {
    fn new() -> Self {
        println!("{:<40} {:>9} {:>8} {:>12}", "step", "ns", "ratio", "allocations");
        let mut table = Self { baseline: 1.0 };
        table.baseline = table
            .step("baseline: SHA-256 of 64 bytes", || ring::digest::digest(&ring::digest::SHA256, black_box(&[7; 64])));
        table
    }

    fn step<T>(&mut self, name: &str, mut step: impl FnMut() -> T) -> f64 {
        let mut rounds = 1u32;
        loop {
            let start = Instant::now();
            (0..rounds).for_each(|_| drop(black_box(step())));
            if start.elapsed() >= BATCH {
                break;
            }
            rounds *= 2;
        }
        let mut times: Vec<f64> = (0..BATCHES)
            .map(|_| {
                let start = Instant::now();
                (0..rounds).for_each(|_| drop(black_box(step())));
                start.elapsed().as_nanos() as f64 / f64::from(rounds)
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let median = times[BATCHES / 2];
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        (0..1000).for_each(|_| drop(black_box(step())));
        let allocations = (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / 1000.0;
        let ratio = if self.baseline == 1.0 { 1.0 } else { median / self.baseline };
        println!("{name:<40} {median:>9.0} {ratio:>8.2} {allocations:>12.1}");
        median
    }
}

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// The allocator of the programs, with a counter.
struct Counting;

#[expect(unsafe_code, reason = "an allocator cannot be wrapped otherwise; it only counts and passes on")]
unsafe impl std::alloc::GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: std::alloc::Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { mimalloc::MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: std::alloc::Layout) {
        unsafe { mimalloc::MiMalloc.dealloc(pointer, layout) }
    }
}
