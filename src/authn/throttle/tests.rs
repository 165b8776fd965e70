use super::failures::WAIT;
use super::*;
use crate::authn::client::{ClientAddress, ForeignOrigin};

const FREE: FreeFailures = FreeFailures { of_pair: 5, of_account: 20, accounts_of_source: 20 };

const RIGHT: ProvedPassword = proved(u64::MAX - 1);

const fn proved(fingerprint: u64) -> ProvedPassword {
    ProvedPassword { fingerprint, stored: 0 }
}

fn ip(text: &str) -> Option<ClientSource> {
    ClientAddress::from(Some(text.parse().unwrap())).source()
}

fn host(address: [u8; 4]) -> Option<ClientSource> {
    ClientAddress::from(Some(address.into())).source()
}

/// A page of an unnamed foreign origin in a browser at 192.0.2.1.
fn page(origin: &str) -> Option<ClientSource> {
    let client = ClientAddress::from(Some([192, 0, 2, 1].into()));
    client.on_page_of(origin.as_bytes(), ForeignOrigin::Unnamed).source()
}

/// Whether one more password would be compared.
fn check(
    throttle: &GuessThrottle,
    account: &str,
    client: Option<ClientSource>,
    now: Instant,
) -> Result<(), ThrottleWait> {
    throttle.begin(account, client, u64::MAX, now).map(drop)
}

#[test]
fn mistyping_is_free_and_then_waits_double_up_to_an_hour() {
    let (throttle, now) = (GuessThrottle::new(FREE, 100_000), Instant::now());
    for attempt in 0..u64::from(FREE.of_pair) {
        assert_eq!(check(&throttle, "ANA", ip("192.0.2.1"), now), Ok(()));
        throttle.failed("ANA", ip("192.0.2.1"), attempt, now);
    }
    assert_eq!(check(&throttle, "ANA", ip("192.0.2.1"), now), Ok(()));
    for (attempt, seconds) in [1, 2, 4, 8].into_iter().enumerate() {
        throttle.failed("ANA", ip("192.0.2.1"), 100 + attempt as u64, now);
        assert_eq!(check(&throttle, "ANA", ip("192.0.2.1"), now), Err(ThrottleWait(Duration::from_secs(seconds))));
        assert_eq!(check(&throttle, "ANA", ip("192.0.2.1"), now + Duration::from_secs(seconds)), Ok(()));
    }
    (0..50).for_each(|attempt| throttle.failed("ANA", ip("192.0.2.1"), 200 + attempt, now));
    assert_eq!(check(&throttle, "ANA", ip("192.0.2.1"), now), Err(ThrottleWait(WAIT.1)));
    assert_eq!(check(&throttle, "BOB", ip("192.0.2.1"), now), Ok(()), "another account of that source");
    throttle.succeeded("ANA", ip("192.0.2.1"), RIGHT, now);
    assert_eq!(check(&throttle, "ANA", ip("192.0.2.1"), now), Ok(()));
}

#[test]
fn a_device_that_repeats_an_old_password_is_one_failure() {
    let (throttle, now) = (GuessThrottle::new(FREE, 100_000), Instant::now());
    (0..1000).for_each(|_| throttle.failed("ANA", ip("192.0.2.1"), 7, now));
    assert_eq!(check(&throttle, "ANA", ip("192.0.2.1"), now), Ok(()));
}

#[test]
fn guesses_at_the_same_time_are_no_more_than_guesses_in_turn() {
    let (throttle, now) = (GuessThrottle::new(FREE, 100_000), Instant::now());
    let of_source = |source: &str, guesses: std::ops::Range<u64>| {
        guesses.filter_map(|guess| throttle.begin("ANA", ip(source), guess, now).ok()).collect::<Vec<_>>()
    };
    // Six wrong passwords cause a wait, so the sixth is the last that is compared.
    let attempts = of_source("192.0.2.1", 0..50);
    assert_eq!(attempts.len(), 6);
    assert_eq!(check(&throttle, "ANA", ip("192.0.2.1"), now), Err(ThrottleWait(WAIT.0)));
    assert!(throttle.begin("ANA", ip("192.0.2.1"), 3, now).is_ok(), "the same password once more is the same guess");
    assert_eq!(check(&throttle, "BOB", ip("192.0.2.1"), now), Ok(()), "a hospital signs in from one address");
    let elsewhere: Vec<_> =
        (2..50).flat_map(|host| of_source(&format!("192.0.2.{host}"), host * 100..host * 100 + 50)).collect();
    assert_eq!(attempts.len() + elsewhere.len(), 21, "all unknown sources of an account together");
    let joined = throttle.begin("ANA", ip("192.0.2.99"), 3, now);
    assert!(joined.is_err(), "what another source sends at the same time is a guess like any");
    throttle.succeeded("ANA", ip("203.0.113.9"), RIGHT, now);
    assert_eq!(check(&throttle, "ANA", ip("203.0.113.9"), now), Ok(()), "who is known does not wait for them");

    drop((attempts, elsewhere));
    assert_eq!(of_source("192.0.2.1", 0..50).len(), 6, "what came to no end is no failure");
    (0..6).for_each(|guess| throttle.failed("ANA", ip("192.0.2.1"), guess, now));
    let later = now + WAIT.0;
    let alone = throttle.begin("ANA", ip("192.0.2.1"), 7, later);
    assert!(alone.is_ok(), "after the wait");
    assert_eq!(check(&throttle, "ANA", ip("192.0.2.1"), later), Err(ThrottleWait(WAIT.0)), "one at a time");
    drop(alone);
    assert!(lock(&throttle.underway).is_empty(), "nothing is kept of what has ended");
    assert_eq!(check(&throttle, "ANA", ip("192.0.2.1"), later), Ok(()));
}

#[test]
fn an_attack_from_everywhere_does_not_lock_out_known_callers() {
    let (throttle, now) = (GuessThrottle::new(FREE, 100_000), Instant::now());
    throttle.succeeded("DOC", ip("2001:db8::1"), RIGHT, now);
    for attacker in 0..200u64 {
        let source = host([198, 51, 100, attacker as u8]);
        throttle.failed("DOC", source, attacker, now);
    }
    assert_eq!(check(&throttle, "DOC", ip("2001:db8::2"), now), Ok(()), "the same network of 64 bits");
    assert!(check(&throttle, "DOC", ip("203.0.113.9"), now).is_err(), "unknown sources wait");
    assert_eq!(check(&throttle, "ANA", ip("203.0.113.9"), now), Ok(()), "for this account alone");
    // The doctor mistypes, at the same cost as for anybody.
    throttle.failed("DOC", ip("2001:db8::1"), 1, now);
    assert_eq!(check(&throttle, "DOC", ip("2001:db8::1"), now), Ok(()));
}

#[test]
fn a_source_has_proved_the_password_that_it_sent_itself_and_lately() {
    let (throttle, now, lately) = (GuessThrottle::new(FREE, 100_000), Instant::now(), Duration::from_secs(900));
    let has_proved = |account, client, fingerprint, after| {
        throttle.has_proved(account, ip(client), fingerprint, lately, now + Duration::from_secs(after))
    };
    throttle.succeeded("DOC", ip("192.0.2.1"), RIGHT, now);
    assert!(has_proved("DOC", "192.0.2.1", RIGHT.fingerprint, 899));
    assert!(!has_proved("DOC", "192.0.2.1", RIGHT.fingerprint, 900), "lately");
    assert!(!has_proved("DOC", "192.0.2.1", 1, 0), "this very one");
    assert!(
        !has_proved("ANA", "192.0.2.1", RIGHT.fingerprint, 0) && !has_proved("DOC", "192.0.2.2", RIGHT.fingerprint, 0)
    );
    throttle.succeeded("DOC", ip("192.0.2.1"), proved(1), now);
    assert!(!has_proved("DOC", "192.0.2.1", RIGHT.fingerprint, 0), "it has changed since");
    throttle.remember("DOC", ip("192.0.2.1"), proved(1), now + lately);
    assert!(has_proved("DOC", "192.0.2.1", 1, 1799), "from when it was last used");
    assert!(throttle.has_proved("DOC", None, RIGHT.fingerprint, lately, now));
}

#[test]
fn what_was_mistyped_before_the_right_password_is_taken_back() {
    let (throttle, now) = (GuessThrottle::new(FREE, 100_000), Instant::now());
    // A hospital behind one address: everybody mistypes now and then, and signs in.
    for person in 0..1000 {
        let account = format!("P{person}");
        throttle.failed(&account, ip("192.0.2.1"), 1, now);
        assert_eq!(check(&throttle, &account, ip("192.0.2.1"), now), Ok(()), "{person}");
        throttle.succeeded(&account, ip("192.0.2.1"), RIGHT, now);
    }
    // A person on the way, who mistypes and signs in from one address after another.
    for last in 0..200 {
        let client = host([203, 0, 113, last]);
        for mistyped in 0..3 {
            throttle.failed("DOC", client, u64::from(last) * 3 + mistyped, now);
        }
        assert_eq!(check(&throttle, "DOC", client, now), Ok(()), "{last}");
        throttle.succeeded("DOC", client, RIGHT, now);
    }
    // A wait that came from mistyping goes with it, and no other wait does.
    for (account, failed_elsewhere) in [("BOB", FREE.of_account), ("CAT", FREE.of_account + 2)] {
        for guess in 0..u64::from(failed_elsewhere) {
            throttle.failed(account, host([198, 18, 0, guess as u8]), guess, now);
        }
        throttle.failed(account, ip("192.0.2.7"), 100, now);
        assert!(check(&throttle, account, ip("192.0.2.8"), now).is_err());
        throttle.succeeded(account, ip("192.0.2.7"), RIGHT, now);
        assert_eq!(check(&throttle, account, ip("192.0.2.8"), now).is_ok(), account == "BOB");
    }
    // A guesser at many accounts gains nothing by signing in to his own.
    let mut refused = 0;
    for account in 0..100 {
        let account = format!("A{account}");
        match check(&throttle, &account, ip("198.51.100.7"), now) {
            Ok(()) => throttle.failed(&account, ip("198.51.100.7"), 1, now),
            Err(_) => refused += 1,
        }
        throttle.failed("EVE", ip("198.51.100.7"), 1, now);
        throttle.succeeded("EVE", ip("198.51.100.7"), RIGHT, now);
    }
    assert_eq!(refused, 100 - FREE.accounts_of_source - 1);
    throttle.succeeded("FAY", ip("198.51.100.7"), RIGHT, now);
    assert!(check(&throttle, "NEW", ip("198.51.100.7"), now).is_err(), "who mistyped nothing takes nothing back");
}

#[test]
fn a_source_that_fails_on_many_accounts_waits_but_not_for_accounts_that_know_it() {
    let (throttle, now) = (GuessThrottle::new(FREE, 100_000), Instant::now());
    throttle.succeeded("DOC", ip("192.0.2.1"), RIGHT, now);
    for account in 0..=FREE.accounts_of_source {
        throttle.failed(&format!("A{account}"), ip("192.0.2.1"), 1, now);
    }
    assert!(check(&throttle, "NEW", ip("192.0.2.1"), now).is_err());
    assert_eq!(check(&throttle, "DOC", ip("192.0.2.1"), now), Ok(()));
    assert_eq!(check(&throttle, "NEW", ip("192.0.2.2"), now), Ok(()));
}

#[test]
fn an_account_knows_its_latest_sources_and_those_of_others_are_not_pushed_out() {
    let (throttle, now) = (GuessThrottle::new(FREE, 100_000), Instant::now());
    let source = |n: u32| host(n.to_be_bytes());
    throttle.succeeded("DOC", source(1), RIGHT, now);
    (0..1000).for_each(|n| throttle.succeeded("EVE", source(n), RIGHT, now));
    assert!(throttle.knows("DOC", source(1), now));
    assert!((1000 - KNOWN as u32..1000).all(|n| throttle.knows("EVE", source(n), now)));
    assert!(!throttle.knows("EVE", source(999 - KNOWN as u32), now));
}

#[test]
fn a_source_is_known_to_whom_it_proved_a_password_for_thirty_days() {
    let (throttle, now) = (GuessThrottle::new(FREE, 100_000), Instant::now());
    throttle.succeeded("DOC", ip("192.0.2.1"), RIGHT, now);
    assert!(throttle.knows("DOC", ip("192.0.2.1"), now));
    assert!(!throttle.knows("ANA", ip("192.0.2.1"), now) && !throttle.knows("DOC", ip("192.0.2.2"), now));
    assert!(!throttle.knows("DOC", None, now));
    let days = |days: u64| now + Duration::from_secs(days * 24 * 3600);
    assert!(throttle.knows("DOC", ip("192.0.2.1"), days(30) - Duration::from_millis(1)));
    assert!(!throttle.knows("DOC", ip("192.0.2.1"), days(30)));
    throttle.remember("DOC", ip("192.0.2.1"), RIGHT, days(29));
    assert!(throttle.knows("DOC", ip("192.0.2.1"), days(58)), "since it was last heard");
}

#[test]
fn a_hostile_page_uses_up_its_own_allowance_and_that_of_all_foreign_pages_there() {
    let (throttle, now) = (GuessThrottle::new(FREE, 100_000), Instant::now());
    let (home, named) = (ip("192.0.2.1"), {
        let client = ClientAddress::from(Some([192, 0, 2, 1].into()));
        client.on_page_of(b"https://portal.example", ForeignOrigin::Named).source()
    });
    let guesses = |origin: &str, guesses: std::ops::Range<u64>| {
        guesses
            .filter(|guess| {
                let attempt = throttle.begin("ANA", page(origin), *guess, now);
                attempt.is_ok_and(|_| {
                    throttle.failed("ANA", page(origin), *guess, now);
                    true
                })
            })
            .count()
    };
    assert_eq!(guesses("https://evil.example", 0..50), FREE.of_pair as usize + 1);
    for origin in ["https://a.evil.example", "https://b.evil.example", "null"] {
        assert_eq!(guesses(origin, 100..150), 0, "{origin}: another origin is no other allowance");
    }
    for source in [home, named] {
        assert_eq!(check(&throttle, "ANA", source, now), Ok(()), "people there, and the portal, do not wait for it");
    }
    // The same for passwords at the same time.
    let attempts: Vec<_> =
        (0..50).filter_map(|n| throttle.begin("BOB", page(&format!("https://{n}.example")), n, now).ok()).collect();
    assert_eq!(attempts.len(), FREE.of_pair as usize + 1);
    assert_eq!(check(&throttle, "BOB", home, now), Ok(()));
    drop(attempts);
    // The same across accounts.
    let accounts = (0..100).filter(|n| {
        let (account, page) = (format!("A{n}"), page(&format!("https://{n}.example")));
        check(&throttle, &account, page, now).is_ok_and(|()| {
            throttle.failed(&account, page, 1, now);
            true
        })
    });
    // ANA is one of them.
    assert_eq!(accounts.count(), FREE.accounts_of_source as usize);
    for source in [home, named] {
        assert_eq!(check(&throttle, "NEW", source, now), Ok(()));
    }
    // A person signs in through a page: the mistyped passwords are also taken back from the pages' shared count.
    let (throttle, portal) = (GuessThrottle::new(FREE, 100_000), page("https://portal.example"));
    (0..5).for_each(|guess| throttle.failed("ANA", portal, guess, now));
    throttle.succeeded("ANA", portal, RIGHT, now);
    throttle.failed("ANA", page("https://evil.example"), 7, now);
    assert_eq!(check(&throttle, "ANA", page("https://evil.example"), now), Ok(()));
    (10..30).for_each(|guess| throttle.failed("ANA", page("https://evil.example"), guess, now));
    assert_eq!(check(&throttle, "ANA", portal, now), Ok(()), "a page that is known does not wait for others");
}

#[test]
fn a_proved_password_is_remembered_for_a_week_with_the_hash_it_was_proved_against() {
    let (throttle, now) = (GuessThrottle::new(FREE, 100_000), Instant::now());
    let proved = |stored| ProvedPassword { fingerprint: 7, stored };
    let days = |days: u64| now + Duration::from_secs(days * 24 * 3600);
    let at = |source: &str, now| throttle.proved_lately("DOC", ip(source), now);
    throttle.succeeded("DOC", ip("192.0.2.1"), proved(1), now);
    throttle.succeeded("DOC", ip("192.0.2.3"), proved(5), now);
    assert_eq!(at("192.0.2.1", days(7) - Duration::from_millis(1)), Some(proved(1)));
    assert_eq!(at("192.0.2.1", days(7)), None);
    assert_eq!(at("192.0.2.2", now), None, "for the address alone that proved it");
    assert_eq!(throttle.proved_lately("ANA", ip("192.0.2.1"), now), None);
    assert_eq!(throttle.proved_lately("DOC", None, now), None);
    throttle.rehashed("DOC", 1, 2);
    assert_eq!((at("192.0.2.1", now), at("192.0.2.3", now)), (Some(proved(2)), Some(proved(5))));
    throttle.disprove("DOC", ip("192.0.2.1"), 8);
    assert_eq!(at("192.0.2.1", now), Some(proved(2)), "another password says nothing of it");
    throttle.disprove("DOC", ip("192.0.2.1"), 7);
    assert_eq!((at("192.0.2.1", now), at("192.0.2.3", now)), (None, Some(proved(5))));
    assert!(throttle.knows("DOC", ip("192.0.2.1"), now), "the address stays known");
}

#[test]
fn what_is_forgotten_waits_nowhere_and_nothing_else_is_forgotten() {
    let (throttle, now) = (GuessThrottle::new(FREE, 100_000), Instant::now());
    throttle.succeeded("ANA", ip("203.0.113.1"), RIGHT, now);
    let fail = |account: &str, client: &str, most: u64| {
        (0..most).for_each(|attempt| throttle.failed(account, ip(client), attempt, now));
    };
    fail("ANA", "192.0.2.1", 30);
    fail("ANA", "192.0.2.2", 30);
    fail("BOB", "192.0.2.1", 10);
    // This client address fails on one account more than it may.
    (0..20).for_each(|other| fail(&format!("P{other}"), "192.0.2.3", 1));
    fail("ANA", "192.0.2.3", 1);
    assert!(check(&throttle, "EVE", ip("192.0.2.3"), now).is_err());
    let waiting = throttle.waiting(now);
    assert_eq!((waiting.len(), waiting.get("ANA")), (2, Some(&WAIT.1)), "{waiting:?}");

    throttle.forget(["ANA", "NOBODY"], now);
    for client in ["192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.9"] {
        assert_eq!(check(&throttle, "ANA", ip(client), now), Ok(()), "{client}");
    }
    assert_eq!(check(&throttle, "EVE", ip("192.0.2.3"), now), Ok(()), "of its accounts one is taken back");
    assert!(check(&throttle, "BOB", ip("192.0.2.1"), now).is_err());
    assert!(throttle.knows("ANA", ip("203.0.113.1"), now) && !throttle.knows("ANA", ip("192.0.2.1"), now));
    assert_eq!(throttle.waiting(now).into_keys().collect::<Vec<_>>(), ["BOB".into()]);
    throttle.forget([], now);
    assert!(check(&throttle, "BOB", ip("192.0.2.1"), now).is_err());
}

#[test]
fn an_unlocked_account_waits_for_its_own_failures_alone_and_many_at_once_are_not_vouched_for() {
    let (throttle, start) = (GuessThrottle::new(FREE, 100_000), Instant::now());
    let there = ip("192.0.2.1");
    let guess = |account: &str, guesses: std::ops::Range<u64>, now| {
        guesses.for_each(|guess| throttle.failed(account, there, guess, now));
    };
    (0..60).for_each(|account| guess(&format!("P{account}"), 0..1, start));
    assert_eq!(check(&throttle, "ANA", there, start), Err(ThrottleWait(WAIT.1)), "the address waits at every account");
    throttle.forget(["ANA"], start);
    assert_eq!(check(&throttle, "ANA", there, start), Ok(()));
    assert!(check(&throttle, "BOB", there, start).is_err(), "nobody has vouched for another account");
    // What the address guesses at the account itself counts as ever.
    guess("ANA", 0..u64::from(FREE.of_pair), start);
    assert_eq!(check(&throttle, "ANA", there, start), Ok(()));
    guess("ANA", 100..101, start);
    assert_eq!(check(&throttle, "ANA", there, start), Err(ThrottleWait(WAIT.0)));
    throttle.forget(["EVE"], start);
    let later = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(check(&throttle, "EVE", there, later(599)), Ok(()));
    assert!(check(&throttle, "EVE", there, later(600)).is_err(), "it ends");
    let many: Vec<String> = (0..17).map(|account| format!("Q{account}")).collect();
    throttle.forget(many.iter().map(String::as_str), start);
    assert!(
        many.iter().all(|account| check(&throttle, account, there, start).is_err()),
        "an import vouches for nobody"
    );
}
