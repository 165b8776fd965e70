//! Exact bounds of proofs and leases, certificates, and the words in records.

use super::super::cache::DropCause;
use super::super::proof::{PasswordProof, REJECTED_FOR};
use super::*;

fn a_proof(start: BootMoment) -> PasswordProof {
    PasswordProof {
        until: start + Duration::from_secs(100),
        start,
        ..PasswordProof::new([0; 32], None, true, Duration::ZERO)
    }
}

#[test]
fn a_proof_counts_until_it_is_too_old_or_was_not_used_for_too_long() {
    let (start, idle) = (BootMoment::now(), Duration::from_secs(10));
    let proof = a_proof(start);
    let at = |milliseconds| start + Duration::from_millis(milliseconds);
    assert!(proof.counts(start, idle) && proof.counts(at(9_999), idle));
    assert!(!proof.counts(at(10_000), idle));
    proof.touch(at(95_000));
    assert!(proof.counts(at(99_999), idle));
    assert!(!proof.counts(at(100_000), idle));
}

#[test]
fn a_proof_distinguishes_the_address_that_used_it_last() {
    let clients = ["192.0.2.1", "192.0.2.2", "2001:db8:0:1::5", "2001:db8:0:2::5", "::1", "0:0:c000:201::1"];
    let of = |text: &str| ClientAddress::from(Some(text.parse().unwrap()));
    let page = of("192.0.2.1").on_page_of(b"https://a.example", ForeignOrigin::Unnamed);
    let clients = clients.iter().map(|text| of(text)).chain([page, ClientAddress::default()]);
    let clients: Vec<Option<ClientSource>> = clients.map(ClientAddress::source).collect();
    for (i, client) in clients.iter().enumerate() {
        let proof = PasswordProof::new([0; 32], *client, true, Duration::ZERO);
        for (j, other) in clients.iter().enumerate() {
            assert_eq!(proof.is_strange_to(*other), i != j, "{client:?} {other:?}");
            proof.used_from(*other);
            assert!(!proof.is_strange_to(*other) && (i == j || proof.is_strange_to(*client)), "{client:?} {other:?}");
            proof.used_from(*client);
        }
    }
    let proof = PasswordProof::new([0; 32], clients[2], true, Duration::ZERO);
    assert!(!proof.is_strange_to(of("2001:db8:0:1::6").source()), "one network of 64 bits");
}

#[tokio::test]
async fn a_right_proof_lasts_as_configured_and_a_wrong_one_seconds() {
    let fixture = Fixture::new().await;
    let lasts = |right| {
        let proof = fixture.authenticator.proof([0; 32], None, right, None);
        (proof.right, proof.until.since(proof.start))
    };
    assert_eq!(lasts(true), (true, fixture.authenticator.settings.verified_for));
    assert_eq!(lasts(false), (false, REJECTED_FOR));
}

#[tokio::test]
async fn the_longest_use_is_the_bound_and_what_is_served_beyond_it() {
    let fixture = Fixture::new().await;
    let settings = AuthenticationConfig {
        freshness_bound: Duration::from_secs(2),
        serve_cached_for: Duration::from_secs(30),
        ..fixture.authenticator.settings.clone()
    };
    let accounts = fixture.authenticator.accounts.clone();
    let lenient = Authenticator::new(accounts, Arc::clone(&fixture.authenticator.routes), settings).unwrap();
    assert_eq!((lenient.freshness_bound(), lenient.longest_use()), (Duration::from_secs(2), Duration::from_secs(32)));
    let asked = BootMoment::now();
    lenient.principals.listed(asked, asked);
    lenient.confirmed(asked, &AccountChanges { epoch: 1, accounts: ChangedAccounts::Everything });
    assert!(lenient.lease_is_valid(asked + Duration::from_millis(31_999)));
    assert!(!lenient.lease_is_valid(asked + Duration::from_secs(32)));
}

#[tokio::test]
async fn a_certificate_proves_its_account_while_that_is_active_and_no_other() {
    let fixture = Fixture::new().await;
    fixture.add("ANA", cheap_hash("right")).await;
    let mut epoch = fixture.confirm(None).await;
    let authenticator = &fixture.authenticator;
    let enter = async |account: &str| authenticator.authenticate_certificate(account, &fixture.policy).await;
    let first = enter("ANA").await.unwrap();
    assert_eq!((first.account(), first.roles()), ("ANA", &["end_user".to_owned()][..]));
    assert!(Arc::ptr_eq(&first, &enter("ANA").await.unwrap()), "cached");
    for password in ["", "wrong"] {
        assert!(fixture.login("ANA", password).await.is_err(), "a certificate proves no password");
    }
    let proved = fixture.login("ANA", "right").await.unwrap();
    assert!(Arc::ptr_eq(&proved, &enter("ANA").await.unwrap()), "both ways in share the account's principal");
    assert!(Arc::ptr_eq(&proved, &fixture.login("ANA", "right").await.unwrap()), "and neither puts the other out");
    assert!(format!("{first:?}").contains("account: \"ANA\", roles: [\"end_user\"]"));
    let reason = async |account: &str| match enter(account).await {
        Err(AuthnError::Rejected { reason, account: named }) if named == account => reason.as_str(),
        other => panic!("{other:?}"),
    };
    assert_eq!(reason("BOB").await, "unknown_account");
    authenticator.accounts.change("ANA", &AccountChange::Active(false)).await.unwrap();
    let known = authenticator.epoch();
    epoch = fixture.confirm(Some(epoch)).await;
    assert_eq!(*known.borrow(), epoch);
    assert_eq!(reason("ANA").await, "inactive_account");
    assert_eq!(RejectReason::WrongPassword.as_str(), "wrong_password");
}

#[tokio::test]
async fn an_epoch_and_a_standing_are_reported_only_when_they_change() {
    let fixture = Fixture::new().await;
    let authenticator = &fixture.authenticator;
    let (mut epoch, mut standing) = (authenticator.epoch(), authenticator.standing.subscribe());
    let mut told = |tell: &dyn Fn()| {
        epoch.mark_unchanged();
        standing.mark_unchanged();
        tell();
        (epoch.has_changed().unwrap(), standing.has_changed().unwrap())
    };
    let confirm = |epoch| {
        authenticator.confirmed(BootMoment::now(), &AccountChanges { epoch, accounts: ChangedAccounts::These(vec![]) });
    };
    assert_eq!(told(&|| confirm(7)), (true, false));
    assert_eq!(told(&|| confirm(7)), (false, false));
    assert_eq!(told(&|| authenticator.lost(&AccountsError::Away)), (false, true));
    assert_eq!(told(&|| authenticator.lost(&AccountsError::Away)), (false, false));
    assert_eq!(told(&|| authenticator.lost(&AccountsError::Standby)), (false, true));
    assert_eq!(told(&|| confirm(8)), (true, true));
}

#[tokio::test]
async fn what_is_hashed_and_found_is_counted() {
    let fixture = Fixture::new().await;
    fixture.add("ANA", cheap_hash("right")).await;
    fixture.confirm(None).await;
    for _ in 0..3 {
        fixture.login("ANA", "right").await.unwrap();
    }
    let figures = fixture.authenticator.figures();
    assert_eq!((figures.hashed, figures.hits, figures.misses, figures.proof_hits), (1, 2, 1, 0));
    assert_eq!(figures.principals, 1);
    // Everything may have changed: the account is read again, but the password is not hashed again.
    fixture.confirm(None).await;
    fixture.login("ANA", "right").await.unwrap();
    let figures = fixture.authenticator.figures();
    assert_eq!((figures.hashed, figures.misses, figures.proof_hits, figures.proofs), (1, 2, 1, 1));
    assert_eq!((figures.recompiled, figures.proofs_evicted), (0, 0));
    // Under another policy, the same principal's rights are compiled again, once.
    let other = Arc::new(PolicySet::parse(br#"[{"role": "x", "permissions": {}}]"#).unwrap());
    let header = format!("Basic {}", STANDARD.encode("ANA:right"));
    for _ in 0..2 {
        fixture.authenticator.authenticate(Some(header.as_bytes()), ClientAddress::default(), &other).await.unwrap();
    }
    // The same policy read again is not another policy.
    let again = Arc::new(PolicySet::parse(other.source()).unwrap());
    fixture.authenticator.authenticate(Some(header.as_bytes()), ClientAddress::default(), &again).await.unwrap();
    fixture.authenticator.proofs.invalidate_all();
    let figures = fixture.authenticator.figures();
    assert_eq!((figures.recompiled, figures.proofs_evicted), (1, 1));
    // One was found unused for too long when it was asked for; with one more that had to make room, they are three.
    for (seconds, cause) in [(10, DropCause::Change), (20, DropCause::Room)] {
        fixture.authenticator.proofs.dropped().note(BootMoment::now() - Duration::from_secs(seconds), cause);
    }
    let figures = fixture.authenticator.figures();
    assert_eq!((figures.proofs_evicted, figures.proofs_mean_age_seconds), (3, 10));
}
