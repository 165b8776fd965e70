use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::throttle::ProvedPassword;
use super::*;
use crate::accounts::{AccountChange, AccountChanges, AccountsError, ChangedAccounts, EpochWatch, NewAccount, watch};
use fedgate_base::config::{Config, StoreConfig};
use fedgate_base::db::schema;
use fedgate_base::moment::BootMoment;
use fedgate_core::password::{self, HashArena, HashCost, hash_with};
use fedgate_core::policy::PolicySet;

const CHEAP: HashCost = HashCost { memory_kib: 64, passes: 1 };
const POLICY: &str = r#"[{"role": "end_user", "permissions": {"GET": ["login", "person"]}}]"#;

/// An authenticator on its own embedded store.
struct Fixture {
    authenticator: Arc<Authenticator>,
    policy: Arc<PolicySet>,
    store: StoreConfig,
    dir: PathBuf,
}

/// How long the fixture's instance is listed.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Fixture {
    async fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("fedgate-authn-{:x}", rand::random::<u128>()));
        std::fs::create_dir_all(&dir).unwrap();
        fedgate_base::regular::write(&dir.join("secret"), 0o600, &[b'k'; 40]).unwrap();
        std::fs::write(dir.join("fedgate.toml"), "[assertion]\nsecret_file = \"secret\"\n").unwrap();
        let mut config = Config::load_with(&dir.join("fedgate.toml"), std::iter::empty()).unwrap();
        config.authentication.hashes.cost = CHEAP;
        config.authentication.rejection_step = Duration::ZERO;
        let accounts = AccountStore::open(&config.store).await.unwrap();
        schema::migrate(accounts.database()).await.unwrap();
        let routes = Arc::new(RouteTable::from_config(&config).unwrap());
        let authenticator = Arc::new(Authenticator::new(accounts, routes, config.authentication).unwrap());
        // As after a first confirmation whose lease has ended.
        authenticator.standing.send_replace(LeaseStanding::Confirmed);
        authenticator.reported(BootMoment::now() + DAY, Ok(()));
        let policy = Arc::new(PolicySet::parse(POLICY.as_bytes()).unwrap());
        Self { authenticator, policy, store: config.store, dir }
    }

    async fn add(&self, id: &str, password_hash: String) {
        let account =
            NewAccount { id: id.into(), roles: vec!["end_user".into()], password_hash, name: None, lastname: None };
        assert!(self.authenticator.accounts.add(&account).await.unwrap());
    }

    /// Passes the primary's present answer to the authenticator, as the watch would.
    async fn confirm(&self, since: Option<u64>) -> u64 {
        let asked = BootMoment::now();
        let changes = self.authenticator.accounts.changes_since(since).await.unwrap();
        self.authenticator.confirmed(asked, &changes);
        changes.epoch
    }

    async fn login(&self, id: &str, password: &str) -> Result<Arc<Principal>, AuthnError> {
        let header = format!("Basic {}", STANDARD.encode(format!("{id}:{password}")));
        self.authenticator.authenticate(Some(header.as_bytes()), ClientAddress::default(), &self.policy).await
    }

    async fn rejection(&self, id: &str, password: &str) -> RejectReason {
        match self.login(id, password).await {
            Err(AuthnError::Rejected { reason, account }) if account == id => reason,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("{id} was let in"),
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn address(ip: [u8; 4]) -> ClientAddress {
    Some(ip.into()).into()
}

fn source(ip: [u8; 4]) -> Option<ClientSource> {
    address(ip).source()
}

fn cheap_hash(password: &str) -> String {
    hash_with(password.as_bytes(), CHEAP, &mut HashArena::default()).unwrap()
}

#[tokio::test]
async fn only_the_right_password_of_an_active_account_makes_a_principal() {
    let fixture = Fixture::new().await;
    fixture.add("ANA", cheap_hash("right")).await;
    fixture.add("OFF", cheap_hash("right")).await;
    assert!(fixture.authenticator.accounts.change("OFF", &AccountChange::Active(false)).await.unwrap());
    for confirmed in [false, true] {
        if confirmed {
            fixture.confirm(None).await;
        }
        for _ in 0..2 {
            let principal = fixture.login("ANA", "right").await.unwrap();
            assert_eq!((principal.account(), principal.roles()), ("ANA", &["end_user".to_owned()][..]));
            assert_eq!(fixture.rejection("ANA", "wrong").await, RejectReason::WrongPassword);
            assert_eq!(fixture.rejection("OFF", "right").await, RejectReason::Inactive);
            assert_eq!(fixture.rejection("OFF", "wrong").await, RejectReason::WrongPassword);
            assert_eq!(fixture.rejection("ana", "right").await, RejectReason::UnknownAccount);
            assert_eq!(fixture.rejection("NOBODY", "right").await, RejectReason::UnknownAccount);
        }
    }
    let none = fixture.authenticator.authenticate(None, ClientAddress::default(), &fixture.policy).await;
    assert!(matches!(none, Err(AuthnError::NoCredential)));
}

#[tokio::test]
async fn a_change_is_seen_once_confirmed_and_nothing_is_cached_without_a_lease() {
    let fixture = Fixture::new().await;
    fixture.add("ANA", cheap_hash("right")).await;
    fixture.login("ANA", "right").await.unwrap();
    assert!(fixture.authenticator.principals.find("ANA", BootMoment::now()).is_none(), "no lease, no cached principal");

    let epoch = fixture.confirm(None).await;
    fixture.login("ANA", "right").await.unwrap();
    let cached = fixture.authenticator.principals.find("ANA", BootMoment::now()).expect("cached under a lease");
    assert!(Arc::ptr_eq(&cached, &fixture.login("ANA", "right").await.unwrap()), "the hit path answers");

    let accounts = &fixture.authenticator.accounts;
    accounts.change("ANA", &AccountChange::Roles(vec!["root".into()])).await.unwrap();
    let epoch = fixture.confirm(Some(epoch)).await;
    assert_eq!(fixture.login("ANA", "right").await.unwrap().roles(), ["root"]);

    accounts.change("ANA", &AccountChange::PasswordHash(cheap_hash("other"))).await.unwrap();
    let epoch = fixture.confirm(Some(epoch)).await;
    assert_eq!(fixture.rejection("ANA", "right").await, RejectReason::WrongPassword);
    fixture.login("ANA", "other").await.unwrap();

    accounts.change("ANA", &AccountChange::Active(false)).await.unwrap();
    fixture.confirm(Some(epoch)).await;
    assert_eq!(fixture.rejection("ANA", "other").await, RejectReason::Inactive);
}

#[tokio::test]
async fn what_was_read_before_a_change_is_not_kept_after_it() {
    let fixture = Fixture::new().await;
    fixture.add("ANA", cheap_hash("right")).await;
    let epoch = fixture.confirm(None).await;
    let stale = fixture.login("ANA", "right").await.unwrap();
    fixture.authenticator.accounts.change("ANA", &AccountChange::Roles(vec![])).await.unwrap();
    let epoch = fixture.confirm(Some(epoch)).await;
    // A slow reader arrives late with its state from before the change.
    fixture.authenticator.principals.insert(&stale);
    assert!(fixture.authenticator.principals.find("ANA", BootMoment::now()).is_none());
    // The same across histories: an epoch that went back makes everything suspect, however high its own number.
    fixture.login("ANA", "right").await.unwrap();
    let current = fixture.login("ANA", "right").await.unwrap();
    let went_back = AccountChanges { epoch: epoch - 1, accounts: ChangedAccounts::Everything };
    fixture.authenticator.confirmed(BootMoment::now(), &went_back);
    assert!(fixture.authenticator.principals.find("ANA", BootMoment::now()).is_none());
    fixture.authenticator.principals.insert(&current);
    assert!(fixture.authenticator.principals.find("ANA", BootMoment::now()).is_none());
}

#[tokio::test]
async fn a_lease_ends_a_bound_after_the_question_not_the_answer() {
    let principals = PrincipalCache::new(10, Duration::from_secs(60), Duration::from_millis(1000));
    let asked = BootMoment::now() + Duration::from_secs(5);
    principals.listed(asked, asked);
    principals.confirm(asked, &AccountChanges { epoch: 1, accounts: ChangedAccounts::Everything });
    assert!(principals.lease_is_valid(asked + Duration::from_millis(999)));
    assert!(!principals.lease_is_valid(asked + Duration::from_millis(1000)));
    // A confirmation that was asked for earlier and arrives later does not shorten the lease.
    principals.confirm(
        asked - Duration::from_millis(500),
        &AccountChanges { epoch: 1, accounts: ChangedAccounts::These(vec![]) },
    );
    assert!(principals.lease_is_valid(asked + Duration::from_millis(999)));
}

#[tokio::test]
async fn a_cached_principal_keeps_no_old_policy_in_memory() {
    let fixture = Fixture::new().await;
    fixture.add("ANA", cheap_hash("right")).await;
    fixture.confirm(None).await;
    let replaced = Arc::new(PolicySet::parse(POLICY.replace("end_user", "other").as_bytes()).unwrap());
    let header = format!("Basic {}", STANDARD.encode("ANA:right"));
    let principal =
        fixture.authenticator.authenticate(Some(header.as_bytes()), ClientAddress::default(), &replaced).await.unwrap();
    assert_eq!((principal.policy(), Arc::strong_count(&replaced)), (replaced.fingerprint(), 1));
}

#[tokio::test]
async fn a_busy_hasher_is_no_wrong_password() {
    let fixture = Fixture::new().await;
    fixture.add("ANA", cheap_hash("right")).await;
    let settings = AuthenticationConfig { hasher_threads: 0, ..fixture.authenticator.settings.clone() };
    let accounts = fixture.authenticator.accounts.clone();
    let busy = Authenticator::new(accounts, Arc::clone(&fixture.authenticator.routes), settings).unwrap();
    busy.standing.send_replace(LeaseStanding::Confirmed);
    let header = format!("Basic {}", STANDARD.encode("ANA:right"));
    assert!(matches!(
        busy.authenticate(Some(header.as_bytes()), ClientAddress::default(), &fixture.policy).await,
        Err(AuthnError::Busy(_))
    ));
}

#[tokio::test]
async fn the_rights_of_a_cached_principal_follow_the_policy() {
    let fixture = Fixture::new().await;
    fixture.add("ANA", cheap_hash("right")).await;
    fixture.confirm(None).await;
    let before = fixture.login("ANA", "right").await.unwrap();
    let wider = Arc::new(PolicySet::parse(POLICY.replace("\"person\"", "\"people\"").as_bytes()).unwrap());
    let header = format!("Basic {}", STANDARD.encode("ANA:right"));
    let after =
        fixture.authenticator.authenticate(Some(header.as_bytes()), ClientAddress::default(), &wider).await.unwrap();
    let endpoints = fixture.authenticator.routes.endpoints();
    let reach = |principal: &Principal, name| {
        principal.rights().reach(fedgate_core::policy::Method::Get, endpoints.find(name).unwrap()).is_some()
    };
    let proof = |principal: &Arc<Principal>| Arc::clone(&principal.password.as_ref().unwrap().proof);
    assert_eq!((reach(&before, "person"), reach(&before, "people")), (true, false));
    assert_eq!((reach(&after, "person"), reach(&after, "people")), (false, true));
    assert!(Arc::ptr_eq(&proof(&before), &proof(&after)), "nothing was hashed again");
    // Compiled once, also if another account has changed since this one was read.
    fixture.add("BOB", cheap_hash("right")).await;
    fixture.authenticator.accounts.change("BOB", &AccountChange::Active(false)).await.unwrap();
    let epoch = fixture.confirm(Some(1)).await;
    assert!(epoch > after.epoch);
    let third = Arc::new(PolicySet::parse(POLICY.as_bytes()).unwrap());
    let again = || fixture.authenticator.authenticate(Some(header.as_bytes()), ClientAddress::default(), &third);
    assert!(Arc::ptr_eq(&again().await.unwrap(), &again().await.unwrap()), "compiled anew for each request");
}

#[tokio::test]
async fn the_watch_confirms_by_itself() {
    let fixture = Fixture::new().await;
    fixture.add("ANA", cheap_hash("right")).await;
    let authenticator = Arc::clone(&fixture.authenticator);
    let watching = tokio::spawn(async move {
        watch(authenticator.accounts.clone(), Duration::from_millis(400), &*authenticator).await;
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    while !fixture.authenticator.lease_is_valid(BootMoment::now()) {
        assert!(Instant::now() < deadline, "the lease never became valid");
        tokio::task::yield_now().await;
    }
    fixture.login("ANA", "right").await.unwrap();
    fixture.authenticator.accounts.change("ANA", &AccountChange::Active(false)).await.unwrap();
    while fixture.login("ANA", "right").await.is_ok() {
        assert!(Instant::now() < deadline, "the change was never seen");
        tokio::task::yield_now().await;
    }
    watching.abort();
}

#[test]
fn the_mac_covers_every_part_and_where_each_ends() {
    let key = [7; 32];
    let of = |account: &str, stored: &str, password: &str| keyed_mac(&key, account, stored, password.as_bytes());
    let all = [
        of("ANA", "hash", "pass"),
        of("ANB", "hash", "pass"),
        of("ANA", "hasi", "pass"),
        of("ANA", "hash", "past"),
        of("ANAh", "ash", "pass"),
        of("ANA", "hashp", "ass"),
        of("", "ANAhash", "pass"),
        of("ANA", "", "hashpass"),
        keyed_mac(&[8; 32], "ANA", "hash", b"pass"),
    ];
    for (i, a) in all.iter().enumerate() {
        assert!(all.iter().skip(i + 1).all(|b| a != b), "{i}");
    }
}

#[tokio::test]
async fn a_guesser_waits_and_a_caller_that_proved_the_password_does_not() {
    let fixture = Fixture::new().await;
    fixture.add("ANA", cheap_hash("right")).await;
    let from = |client: &str, password: &str| {
        let header = format!("Basic {}", STANDARD.encode(format!("ANA:{password}")));
        let client: ClientAddress = Some(client.parse().unwrap()).into();
        let (authenticator, policy) = (Arc::clone(&fixture.authenticator), Arc::clone(&fixture.policy));
        async move { authenticator.authenticate(Some(header.as_bytes()), client, &policy).await }
    };
    from("192.0.2.1", "right").await.unwrap();
    for guess in 0..40 {
        let found = from("198.51.100.7", &format!("guess{guess}")).await;
        match found {
            Err(AuthnError::Rejected { .. }) => assert!(guess < 7, "guess {guess} was looked at"),
            Err(AuthnError::Throttled { account, wait }) => {
                assert!(guess >= 5 && account == "ANA" && wait <= Duration::from_secs(1), "{guess} {wait:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    // Even the right password is not compared there now, though it is cached. Where it was proved it still works,
    // without any lease, and from other addresses too.
    let guesses = 100..112;
    guesses.for_each(|n| fixture.authenticator.throttle.failed("ANA", source([198, 51, 100, 7]), n, Instant::now()));
    for leased in [false, true, true] {
        if leased {
            fixture.confirm(None).await;
        }
        from("192.0.2.1", "right").await.unwrap();
        for _ in 0..2 {
            let found = from("198.51.100.7", "right").await;
            assert!(matches!(found, Err(AuthnError::Throttled { .. })), "leased: {leased}");
        }
        from("203.0.113.1", "right").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn guesses_sent_at_once_are_not_looked_at_beyond_what_is_free() {
    let fixture = Fixture::new().await;
    fixture.add("ANA", cheap_hash("right")).await;
    let guesses = (0..50).map(|guess| {
        let header = format!("Basic {}", STANDARD.encode(format!("ANA:guess{guess}")));
        let (authenticator, policy) = (Arc::clone(&fixture.authenticator), Arc::clone(&fixture.policy));
        tokio::spawn(async move {
            authenticator.authenticate(Some(header.as_bytes()), address([192, 0, 2, 1]), &policy).await.map(drop)
        })
    });
    let guesses: Vec<_> = guesses.collect();
    let mut looked_at = 0;
    for guess in guesses {
        match guess.await.unwrap() {
            Err(AuthnError::Rejected { .. }) => looked_at += 1,
            Err(AuthnError::Throttled { .. } | AuthnError::Busy(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    let free = u64::from(fixture.authenticator.settings.free.of_pair);
    assert!((1..=free + 1).contains(&looked_at), "{looked_at} of 50");
    assert_eq!(fixture.authenticator.figures().hashed, looked_at);
}

/// Otherwise a right guess would differ from a wrong one whenever wrong ones are answered differently: by a full
/// queue, by a store that does not answer, by a wait.
#[tokio::test]
async fn what_a_source_has_proved_answers_no_other() {
    let fixture = Fixture::new().await;
    fixture.add("ANA", cheap_hash("right")).await;
    let header = |password| format!("Basic {}", STANDARD.encode(format!("ANA:{password}")));
    let from = async |host: u8, password| {
        let (header, client) = (header(password), address([192, 0, 2, host]));
        fixture.authenticator.authenticate(Some(header.as_bytes()), client, &fixture.policy).await
    };
    let hashed = async || fixture.authenticator.figures().hashed;
    for leased in [false, true] {
        if leased {
            fixture.confirm(None).await;
        }
        let hosts = if leased { 1..=3 } else { 4..=6 };
        for (round, host) in (0..3).flat_map(|round| hosts.clone().map(move |host| (round, host))) {
            let before = hashed().await;
            from(host, "right").await.unwrap();
            assert_eq!(hashed().await - before, u64::from(round == 0), "{host}, round {round}, leased: {leased}");
            assert!(fixture.authenticator.throttle.knows("ANA", source([192, 0, 2, host]), Instant::now()));
        }
    }
    for host in [1, 2] {
        let before = hashed().await;
        assert!(matches!(from(host, "wrong").await, Err(AuthnError::Rejected { .. })));
        assert_eq!(hashed().await, before + 1, "nor what another was refused");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_let_in_before_the_accounts_are_confirmed_for_the_first_time() {
    let fixture = Fixture::new().await;
    fixture.add("ANA", cheap_hash("right")).await;
    fixture.authenticator.standing.send_replace(LeaseStanding::Unknown);
    assert!(fixture.authenticator.fault().is_some());
    assert!(matches!(fixture.login("ANA", "right").await, Err(AuthnError::Unavailable(AccountsError::Away))));
    let (login, ()) = tokio::join!(fixture.login("ANA", "right"), async {
        fixture.confirm(None).await;
    });
    assert!(login.is_ok(), "who waits meanwhile is let in by the confirmation");
    assert_eq!(fixture.authenticator.fault(), None);
    fixture.authenticator.lost(&AccountsError::Standby);
    assert!(fixture.authenticator.fault().is_some_and(|why| why.contains("standby")));
    assert!(matches!(fixture.login("BOB", "x").await, Err(AuthnError::Unavailable(AccountsError::Away))));
}

/// The runtime's clock stops here and jumps to the next timer, whatever the machine's clock does.
#[tokio::test(start_paused = true)]
async fn the_time_of_a_rejection_reveals_nothing_of_the_account() {
    const STEP: Duration = Duration::from_secs(10);
    let fixture = Fixture::new().await;
    let bcrypt = bcrypt::hash("right", 4).unwrap();
    for (id, hash) in [("NEW", cheap_hash("right")), ("OLD", bcrypt), ("OFF", cheap_hash("right"))] {
        fixture.add(id, hash).await;
    }
    fixture.authenticator.accounts.change("OFF", &AccountChange::Active(false)).await.unwrap();
    let settings = AuthenticationConfig { rejection_step: STEP, ..fixture.authenticator.settings.clone() };
    let accounts = fixture.authenticator.accounts.clone();
    let padded = Authenticator::new(accounts, Arc::clone(&fixture.authenticator.routes), settings).unwrap();
    padded.standing.send_replace(LeaseStanding::Confirmed);
    let login = async |id, password| {
        let header = format!("Basic {}", STANDARD.encode(format!("{id}:{password}")));
        let began = tokio::time::Instant::now();
        let outcome = padded.authenticate(Some(header.as_bytes()), ClientAddress::default(), &fixture.policy).await;
        (outcome, began.elapsed())
    };
    let (outcome, took) = login("NEW", "right").await;
    assert!(outcome.is_ok() && took < STEP, "who is let in does not wait");
    for (id, password) in [("NEW", "wrong"), ("NEW", "wrong"), ("OLD", "wrong"), ("OFF", "right"), ("NONE", "wrong")] {
        let (outcome, took) = login(id, password).await;
        assert!(matches!(outcome, Err(AuthnError::Rejected { .. })), "{id}");
        assert!(took >= STEP, "{id}: answered after {took:?}");
    }
    let began = tokio::time::Instant::now();
    padded.settle(began).await;
    let steps = began.elapsed().as_millis();
    assert!(steps > 0);
    assert_eq!((steps % STEP.as_millis()) / 2, 0, "a whole multiple, to the resolution of timers: {steps} ms");
}

#[test]
fn nobodys_hash_is_one_that_is_verified_at_full_cost() {
    let hash = nobodys_hash(HashCost::DEFAULT);
    assert!(password::is_acceptable_hash(&hash) && !password::needs_upgrade(&hash, b"", HashCost::DEFAULT), "{hash}");
}

mod bounds;
mod cached;
mod guessing;
mod listing;
mod pages;
mod upgrading;
mod waiting;
