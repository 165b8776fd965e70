//! Guesses beside a signed-in person, the store that they do not reach, and the times of their answers.

use super::super::proof::PasswordProof;
use super::*;
use fedgate_base::db::Database;

const HOME: [u8; 4] = [192, 0, 2, 1];
const STEP: Duration = Duration::from_millis(500);

impl Fixture {
    async fn login_from(&self, ip: [u8; 4], id: &str, password: &str) -> Result<Arc<Principal>, AuthnError> {
        let header = format!("Basic {}", STANDARD.encode(format!("{id}:{password}")));
        self.authenticator.authenticate(Some(header.as_bytes()), address(ip), &self.policy).await
    }

    /// How many guesses of one address were compared before it had to wait.
    async fn guess_until_waiting(&self, ip: [u8; 4], id: &str, guesses: impl Iterator<Item = String>) -> usize {
        let mut looked_at = 0;
        for guess in guesses {
            match self.login_from(ip, id, &guess).await {
                Err(AuthnError::Rejected { .. }) => looked_at += 1,
                Err(AuthnError::Throttled { .. }) => return looked_at,
                other => panic!("{other:?}"),
            }
        }
        panic!("never had to wait")
    }

    /// Causes the longest wait, without the time that guessing takes.
    fn make_wait(&self, ip: [u8; 4], id: &str) {
        (0..30).for_each(|n| self.authenticator.throttle.failed(id, source(ip), n, Instant::now()));
    }

    /// Forgets verified passwords, as time does.
    fn forget_proofs(&self) {
        self.authenticator.proofs.invalidate_all();
        self.authenticator
            .principals
            .confirm(BootMoment::now(), &AccountChanges { epoch: 0, accounts: ChangedAccounts::Everything });
    }

    /// The same accounts, answered in steps.
    fn spaced(&self) -> Authenticator {
        let settings = AuthenticationConfig { rejection_step: STEP, ..self.authenticator.settings.clone() };
        let (accounts, routes) = (self.authenticator.accounts.clone(), Arc::clone(&self.authenticator.routes));
        let spaced = Authenticator::new(accounts, routes, settings).unwrap();
        spaced.standing.send_replace(LeaseStanding::Confirmed);
        spaced
    }
}

fn guesses() -> impl Iterator<Item = String> {
    (0..40).map(|n| format!("guess{n}"))
}

fn is_throttled(outcome: &Result<Arc<Principal>, AuthnError>) -> bool {
    matches!(outcome, Err(AuthnError::Throttled { .. }))
}

#[tokio::test]
async fn a_proved_password_never_waits_at_its_address_and_guesses_there_do() {
    let fixture = Fixture::new().await;
    fixture.add("ANA", cheap_hash("right")).await;
    fixture.login_from(HOME, "ANA", "right").await.unwrap();
    for leased in [false, true] {
        if leased {
            fixture.confirm(None).await;
            fixture.login_from(HOME, "ANA", "right").await.unwrap();
        }
        let looked_at = fixture.guess_until_waiting(HOME, "ANA", guesses()).await;
        assert!(looked_at <= 6, "{looked_at} guesses were looked at, leased: {leased}");
        fixture.make_wait(HOME, "ANA");
        // A verification is remembered for minutes, and the fact that it was proved for days.
        for _ in 0..3 {
            fixture.forget_proofs();
            fixture.login_from(HOME, "ANA", "right").await.unwrap();
            assert!(is_throttled(&fixture.login_from(HOME, "ANA", "guess").await), "what failed is not taken back");
        }
    }
    fixture.make_wait([192, 0, 2, 2], "ANA");
    let elsewhere = fixture.login_from([192, 0, 2, 2], "ANA", "right").await;
    assert!(is_throttled(&elsewhere), "what was proved here skips no wait there: {elsewhere:?}");
}

#[tokio::test]
async fn a_skipped_wait_that_admits_nobody_is_a_wait() {
    let fixture = Fixture::new().await;
    let accounts = &fixture.authenticator.accounts;
    for (id, change) in [
        ("OFF", AccountChange::Active(false)),
        ("NEW", AccountChange::PasswordHash(cheap_hash("other"))),
        ("BAD", AccountChange::PasswordHash("none".into())),
    ] {
        fixture.add(id, cheap_hash("right")).await;
        fixture.login_from(HOME, id, "right").await.unwrap();
        fixture.make_wait(HOME, id);
        fixture.login_from(HOME, id, "right").await.unwrap();
        accounts.change(id, &change).await.unwrap();
        for _ in 0..2 {
            let outcome = fixture.login_from(HOME, id, "right").await;
            assert!(is_throttled(&outcome), "{id}: {outcome:?}");
        }
        let proved = fixture.authenticator.throttle.proved_lately(id, source(HOME), Instant::now());
        assert!(proved.is_none(), "{id}: a second time the store is not even asked");
    }
    // Also without a wait, it is answered like any wrong one, and skips none later.
    fixture.add("BOB", cheap_hash("right")).await;
    fixture.login_from(HOME, "BOB", "right").await.unwrap();
    accounts.change("BOB", &AccountChange::Active(false)).await.unwrap();
    let outcome = fixture.login_from(HOME, "BOB", "right").await;
    assert!(matches!(outcome, Err(AuthnError::Rejected { reason: RejectReason::Inactive, .. })), "{outcome:?}");
    fixture.make_wait(HOME, "BOB");
    accounts.change("BOB", &AccountChange::Active(true)).await.unwrap();
    assert!(is_throttled(&fixture.login_from(HOME, "BOB", "right").await));
}

/// Otherwise the free failures after it would reveal the right password of an inactive account.
#[tokio::test]
async fn the_right_password_of_an_account_that_is_switched_off_counts_as_a_wrong_one() {
    let fixture = Fixture::new().await;
    fixture.add("OFF", cheap_hash("right")).await;
    fixture.authenticator.accounts.change("OFF", &AccountChange::Active(false)).await.unwrap();
    let wrong = fixture.guess_until_waiting(HOME, "OFF", guesses()).await;
    let with_the_right_one =
        ["guess0", "guess1", "guess2", "right"].map(str::to_owned).into_iter().chain(guesses().skip(3));
    let right = fixture.guess_until_waiting([192, 0, 2, 2], "OFF", with_the_right_one).await;
    assert_eq!(wrong, right);
    assert!(!fixture.authenticator.throttle.knows("OFF", source([192, 0, 2, 2]), Instant::now()));
    // It is remembered as long as a wrong one.
    let stored = fixture.authenticator.accounts.read("OFF").await.unwrap().unwrap().password_hash.unwrap();
    let hashed = async || fixture.authenticator.figures().hashed;
    let from = [192, 0, 2, 3];
    fixture.login_from(from, "OFF", "right").await.unwrap_err();
    let (mac, before) = (fixture.authenticator.mac("OFF", &stored, b"right"), hashed().await);
    fixture.login_from(from, "OFF", "right").await.unwrap_err();
    assert_eq!(hashed().await, before);
    let old = fixture.authenticator.proof(mac, source(from), true, None);
    let start = old.start - Duration::from_secs(11);
    let old = PasswordProof {
        start,
        until: start + Duration::from_secs(900),
        ..PasswordProof::new(mac, source(from), true, Duration::ZERO)
    };
    fixture.authenticator.proofs.insert((mac, source(from)), Arc::new(old));
    fixture.login_from(from, "OFF", "right").await.unwrap_err();
    assert_eq!(hashed().await, before + 1);
}

#[tokio::test]
async fn a_guess_that_has_to_wait_does_not_reach_the_store() {
    let fixture = Fixture::new().await;
    fixture.add("ANA", cheap_hash("right")).await;
    fixture.login_from(HOME, "ANA", "right").await.unwrap();
    fixture.make_wait(HOME, "ANA");
    let Database::Sqlite(sqlite) = fixture.authenticator.accounts.database() else { panic!() };
    sqlite.write(|tx| tx.execute("ALTER TABLE people RENAME TO gone", [])).await.unwrap();
    let guess = fixture.login_from(HOME, "ANA", "guess").await;
    assert!(is_throttled(&guess), "{guess:?}");
    // A proved password does, and so does a guess that need not wait.
    for (id, password) in [("ANA", "right"), ("BOB", "guess")] {
        let outcome = fixture.login_from(HOME, id, password).await;
        assert!(matches!(outcome, Err(AuthnError::Unavailable(_))), "{id}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_replaced_hash_leaves_a_proved_password_proved_at_every_address() {
    let fixture = Fixture::new().await;
    let bcrypt = bcrypt::hash_with_salt(b"right", 4, [3; 16]).unwrap().to_string();
    fixture.add("ANA", bcrypt.clone()).await;
    let addresses = [HOME, [192, 0, 2, 2], [192, 0, 2, 3]];
    // Proved before its hash is replaced, from whatever address it was sent.
    let password = |stored: &str| ProvedPassword {
        fingerprint: fixture.authenticator.fingerprint("ANA", b"right"),
        stored: fixture.authenticator.stored_mark("ANA", stored),
    };
    for ip in addresses {
        fixture.authenticator.throttle.succeeded("ANA", source(ip), password(&bcrypt), Instant::now());
    }
    fixture.login_from(HOME, "ANA", "right").await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let is_replaced = || {
        let proved = |ip| fixture.authenticator.throttle.proved_lately("ANA", source(ip), Instant::now()).unwrap();
        addresses.into_iter().all(|ip| proved(ip).stored != password(&bcrypt).stored)
    };
    while !is_replaced() {
        assert!(Instant::now() < deadline, "the hash was not replaced");
        tokio::task::yield_now().await;
    }
    for ip in addresses {
        fixture.make_wait(ip, "ANA");
        fixture.login_from(ip, "ANA", "right").await.unwrap();
    }
}

/// The runtime's clock stops, and jumps to the next timer when nothing else is left to do.
#[tokio::test(start_paused = true)]
async fn guesses_beside_a_signed_in_person_are_answered_one_step_apart_and_the_person_at_once() {
    let fixture = Fixture::new().await;
    fixture.add("ANA", cheap_hash("right")).await;
    let authenticator = Arc::new(fixture.spaced());
    authenticator.reported(BootMoment::now() + DAY, Ok(()));
    let changes = fixture.authenticator.accounts.changes_since(None).await.unwrap();
    authenticator.confirmed(BootMoment::now() + DAY, &changes);
    let login = |ip, password: String| {
        let (authenticator, policy) = (Arc::clone(&authenticator), Arc::clone(&fixture.policy));
        let header = format!("Basic {}", STANDARD.encode(format!("ANA:{password}")));
        async move {
            let came = tokio::time::Instant::now();
            let outcome = authenticator.authenticate(Some(header.as_bytes()), address(ip), &policy).await;
            (outcome, came.elapsed())
        }
    };
    login(HOME, "right".into()).await.0.unwrap();
    (0..30).for_each(|n| authenticator.throttle.failed("ANA", source(HOME), n, Instant::now()));
    let guesses: Vec<_> = (0..25).map(|n| tokio::spawn(login(HOME, format!("guess{n}")))).collect();
    tokio::task::yield_now().await;
    for _ in 0..3 {
        let (outcome, took) = login(HOME, "right".into()).await;
        assert!(outcome.is_ok() && took.is_zero(), "{outcome:?} after {took:?}");
    }
    for (k, guess) in (1..).zip(guesses) {
        let (outcome, took) = guess.await.unwrap();
        assert!(is_throttled(&outcome), "{outcome:?}");
        assert_eq!(took, (STEP * k).min(Duration::from_secs(10)), "{k}");
    }
    // If nobody is signed in, the answer reveals nothing and comes at once.
    (0..30).for_each(|n| authenticator.throttle.failed("ANA", source([192, 0, 2, 2]), n, Instant::now()));
    let (outcome, took) = login([192, 0, 2, 2], "right".into()).await;
    assert!(is_throttled(&outcome) && took.is_zero(), "{outcome:?} after {took:?}");
    // Of a thousand passwords sent at once, none is compared.
    let guesses: Vec<_> = (0..1000).map(|n| tokio::spawn(login(HOME, format!("guess{n}")))).collect();
    while !authenticator.compares_no_more("ANA", source(HOME), LineUse::Unknown) {
        tokio::task::yield_now().await;
    }
    let compares_no_more = |id, source, line| authenticator.compares_no_more(id, source, line);
    assert!(
        !compares_no_more("BOB", source(HOME), LineUse::Unknown) && !compares_no_more("ANA", None, LineUse::Unknown)
    );
    // A caller on a connection of its own is compared, whether it is new or kept. A guesser's further guesses are not,
    // even if one is right.
    let [owner, guesser] = [ClientLine::default(), ClientLine::default()];
    let over = async |line: LineUse<'_>| {
        let came = tokio::time::Instant::now();
        let header = format!("Basic {}", STANDARD.encode("ANA:right"));
        let client = AskingClient { address: address(HOME), line };
        let outcome = authenticator.authenticate(Some(header.as_bytes()), client, &fixture.policy).await;
        (outcome, came.elapsed())
    };
    let held: Vec<_> = (0..2).map(|_| LineUse::Own(&guesser).hold()).collect();
    for line in [LineUse::Own(&guesser), LineUse::Shared(&guesser)] {
        let (outcome, took) = over(line).await;
        assert!(is_throttled(&outcome) && took.is_zero(), "{outcome:?} after {took:?}");
    }
    for _ in 0..2 {
        let (outcome, took) = over(LineUse::Own(&owner)).await;
        assert!(outcome.is_ok() && took.is_zero(), "{outcome:?} after {took:?}");
    }
    // It has proved the password, so nothing that is held back on it counts.
    let own: Vec<_> = (0..30).map(|_| LineUse::Own(&owner).hold()).collect();
    assert!(over(LineUse::Own(&owner)).await.0.is_ok());
    drop((held, own));
    let (outcome, took) = login(HOME, "right".into()).await;
    assert!(is_throttled(&outcome) && took.is_zero(), "{outcome:?} after {took:?}");
    for guess in guesses {
        assert!(is_throttled(&guess.await.unwrap().0));
    }
    login(HOME, "right".into()).await.0.unwrap();
}

/// Six guesses at once at bcrypt, argon2id and an unknown account.
#[tokio::test(start_paused = true)]
async fn six_guesses_at_once_are_answered_at_the_same_times_whatever_hash_there_is() {
    let fixture = Fixture::new().await;
    // So cheap that no verification suggests a slow machine, on which steps are longer.
    fixture.add("OLD", bcrypt::hash("right", 6).unwrap()).await;
    fixture.add("NEW", cheap_hash("right")).await;
    for (id, ip) in [("OLD", HOME), ("NEW", [192, 0, 2, 2]), ("NONE", [192, 0, 2, 3])] {
        let authenticator = Arc::new(fixture.spaced());
        let mut guesses = Vec::new();
        for n in 0..6 {
            let header = format!("Basic {}", STANDARD.encode(format!("{id}:guess{n}")));
            let (asked, policy) = (Arc::clone(&authenticator), Arc::clone(&fixture.policy));
            guesses.push(tokio::spawn(async move {
                let came = tokio::time::Instant::now();
                let outcome = asked.authenticate(Some(header.as_bytes()), address(ip), &policy).await;
                (outcome.map(drop), came.elapsed())
            }));
            // In this order. While this task is busy, the clock stops, so all are verified in no time on the clock.
            while authenticator.figures().hashed <= n {
                tokio::task::yield_now().await;
            }
        }
        while authenticator.figures().proofs < 6 {
            tokio::task::yield_now().await;
        }
        let mut times = Vec::new();
        for guess in guesses {
            let (outcome, took) = guess.await.unwrap();
            assert!(matches!(outcome, Err(AuthnError::Rejected { .. })), "{id}: {outcome:?}");
            times.push(took);
        }
        assert!(times.iter().copied().eq((1..=6).map(|k| STEP * k)), "{id}: {times:?}");
    }
}

/// Guesses from this many addresses at once at one account, and one guess at another account: their outcomes and times
/// on the clock.
async fn guessed_from_many_addresses(fixture: &Fixture, id: &'static str, addresses: u8) -> Vec<(String, Duration)> {
    let mut authenticator = fixture.spaced();
    authenticator.hasher = PasswordHasher::without_threads(authenticator.settings.hasher_queue, CHEAP);
    let authenticator = Arc::new(authenticator);
    let decided = Arc::new(AtomicU64::new(0));
    let guess = |id: &'static str, ip: [u8; 4]| {
        let header = format!("Basic {}", STANDARD.encode(format!("{id}:guess{ip:?}")));
        let (authenticator, policy, decided) =
            (Arc::clone(&authenticator), Arc::clone(&fixture.policy), decided.clone());
        tokio::spawn(async move {
            let came = tokio::time::Instant::now();
            let outcome = authenticator.authenticate(Some(header.as_bytes()), address(ip), &policy).await.map(drop);
            decided.fetch_add(1, Ordering::Relaxed);
            (outcome.unwrap_err().to_string(), came.elapsed())
        })
    };
    let mut guesses = Vec::new();
    for n in 0..=addresses {
        let id = if n == addresses { "ELSEWHERE" } else { id };
        guesses.push(guess(id, [192, 0, 2, n]));
        // In this order and at one moment: while this task is busy, the clock stops.
        while authenticator.hasher.waiting() as u64 + decided.load(Ordering::Relaxed) <= u64::from(n) {
            tokio::task::yield_now().await;
        }
    }
    authenticator.hasher.work_through().await;
    let mut answers = Vec::new();
    for guess in guesses {
        let (outcome, took) = guess.await.unwrap();
        let outcome = outcome.replace(RejectReason::UnknownAccount.as_str(), RejectReason::WrongPassword.as_str());
        answers.push((outcome, took));
    }
    answers
}

#[tokio::test(start_paused = true)]
async fn guesses_from_many_addresses_at_once_are_answered_alike_whatever_hash_there_is() {
    let fixture = Fixture::new().await;
    fixture.add("OLD", format!("$2b$12${}", "a".repeat(53))).await;
    fixture.add("NEW", nobodys_hash(HashCost::DEFAULT)).await;
    for addresses in [1, 3, 20, 30] {
        let nobody = guessed_from_many_addresses(&fixture, "NONE", addresses).await;
        for id in ["OLD", "NEW"] {
            assert_eq!(guessed_from_many_addresses(&fixture, id, addresses).await, nobody, "{id}, {addresses}");
        }
        let rejected = nobody.iter().filter(|(outcome, _)| *outcome == RejectReason::WrongPassword.as_str());
        assert_eq!(rejected.count(), usize::from(addresses.min(20)) + 1, "one account has half of a lane");
        assert!(nobody.iter().all(|(_, took)| *took <= Duration::from_secs(10)), "{nobody:?}");
    }
}

/// The runtime's clock stops, and jumps to the next timer when nothing else is left to do.
#[tokio::test(start_paused = true)]
async fn a_connection_holds_twenty_answers_back_and_compares_no_more_until_one_is_given() {
    let fixture = Fixture::new().await;
    fixture.add("ANA", cheap_hash("right")).await;
    let authenticator = Arc::new(fixture.spaced());
    let line = Arc::new(ClientLine::default());
    let login = |password: String| {
        let (authenticator, policy, line) = (Arc::clone(&authenticator), Arc::clone(&fixture.policy), line.clone());
        let header = format!("Basic {}", STANDARD.encode(format!("ANA:{password}")));
        tokio::spawn(async move {
            let came = tokio::time::Instant::now();
            let client = AskingClient { address: address(HOME), line: LineUse::Own(&line) };
            let outcome = authenticator.authenticate(Some(header.as_bytes()), client, &policy).await;
            (outcome, came.elapsed())
        })
    };
    (0..30).for_each(|n| authenticator.throttle.failed("ANA", source(HOME), n, Instant::now()));
    let proved = ProvedPassword { fingerprint: authenticator.fingerprint("ANA", b"right"), stored: 0 };
    authenticator.throttle.remember("ANA", source(HOME), proved, Instant::now());
    let guesses: Vec<_> = (0..40).map(|n| login(format!("guess{n}"))).collect();
    let mut at_once = 0;
    for guess in guesses {
        let (outcome, took) = guess.await.unwrap();
        assert!(is_throttled(&outcome), "{outcome:?}");
        at_once += usize::from(took.is_zero());
    }
    assert_eq!(at_once, 20);
    // The right one is not compared either, until fewer answers are held back.
    let held: Vec<_> = (0..20).map(|_| LineUse::Own(&line).hold()).collect();
    let (outcome, took) = login("right".into()).await.unwrap();
    assert!(is_throttled(&outcome) && took.is_zero(), "{outcome:?} after {took:?}");
    drop(held);
    assert!(LineUse::Own(&line).holds_none());
}
