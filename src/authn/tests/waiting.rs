//! Waits end with a changed password, and when the account is unlocked.

use super::*;
use fedgate_base::db::Database;

impl Fixture {
    /// Enough wrong passwords that the account has to wait for an hour.
    fn lock(&self, account: &str, host: u8) {
        let failed = |n| self.authenticator.throttle.failed(account, source([192, 0, 2, host]), n, Instant::now());
        (0..60).for_each(failed);
    }

    async fn login_there(&self, id: &str, password: &str, host: u8) -> Result<Arc<Principal>, AuthnError> {
        let header = format!("Basic {}", STANDARD.encode(format!("{id}:{password}")));
        self.authenticator.authenticate(Some(header.as_bytes()), address([192, 0, 2, host]), &self.policy).await
    }

    async fn sql(&self, sql: &'static str) {
        let Database::Sqlite(sqlite) = self.authenticator.accounts.database() else { unreachable!() };
        sqlite.write(move |transaction| transaction.execute_batch(sql)).await.unwrap();
    }
}

#[tokio::test]
async fn a_changed_password_ends_the_wait_whoever_stored_it_and_so_does_unlocking() {
    let fixture = Fixture::new().await;
    fixture.add("ANA", cheap_hash("right")).await;
    fixture.add("BOB", cheap_hash("right")).await;
    fixture.lock("BOB", 100);
    let mut epoch = fixture.confirm(None).await;
    let accounts = fixture.authenticator.accounts.clone();
    // Each at its own address: a password that an address has proved waits there no more.
    for (host, way) in (1..).zip(["command", "another program", "unlock", "a gap"]) {
        fixture.lock("ANA", host);
        let waiting = fixture.authenticator.waiting();
        assert_eq!((waiting.named.len(), waiting.left_off), (2, 0), "{way}: {waiting:?}");
        assert!(matches!(fixture.login_there("ANA", "right", host).await, Err(AuthnError::Throttled { .. })), "{way}");
        match way {
            "command" | "a gap" => {
                let change = AccountChange::PasswordHash(cheap_hash("right"));
                assert!(accounts.change("ANA", &change).await.unwrap());
            }
            "unlock" => accounts.unlock("ANA").await.unwrap(),
            _ => fixture.sql("UPDATE people SET data = json_set(data, '$.password', '!') WHERE id = 'ANA'").await,
        }
        // A watch that lost its session knows no earlier epoch, and asks for everything.
        epoch = fixture.confirm((way != "a gap").then_some(epoch)).await;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match fixture.login_there("ANA", "right", host).await {
                Ok(_) => break assert_ne!(way, "another program"),
                Err(AuthnError::Rejected { .. }) => break assert_eq!(way, "another program"),
                Err(error) => assert!(way == "a gap" && Instant::now() < deadline, "{way}: {error}"),
            }
            tokio::task::yield_now().await;
        }
        fixture.sql("UPDATE people SET data = (SELECT data FROM people WHERE id = 'BOB') WHERE id = 'ANA'").await;
        epoch = fixture.confirm(Some(epoch)).await;
        assert!(matches!(fixture.login_there("BOB", "right", 100).await, Err(AuthnError::Throttled { .. })), "{way}");
    }
}

#[tokio::test]
async fn a_report_names_the_accounts_that_wait_the_longest_and_how_many_it_leaves_off() {
    let fixture = Fixture::new().await;
    for number in 0..105 {
        let failed = |n| {
            fixture.authenticator.throttle.failed(
                &format!("P{number}"),
                source([192, 0, 2, number]),
                n,
                Instant::now(),
            );
        };
        (0..10).for_each(failed);
    }
    fixture.lock("ANA", 200);
    fixture.lock(&"x".repeat(1000), 201);
    let waiting = fixture.authenticator.waiting();
    assert_eq!((waiting.named.len(), waiting.left_off), (100, 7));
    assert_eq!(waiting.named[0].account, "ANA");
    assert!((3_500_000..=3_600_000).contains(&waiting.named[0].wait_ms), "{:?}", waiting.named[0]);
}

#[tokio::test]
async fn a_report_names_the_addresses_that_wait_at_every_account_that_does_not_know_them() {
    let fixture = Fixture::new().await;
    for (host, accounts) in [(1, 25), (2, 90), (3, 2)] {
        for number in 0..accounts {
            let (account, from) = (format!("P{number}"), source([192, 0, 2, host]));
            fixture.authenticator.throttle.failed(&account, from, 0, Instant::now());
        }
    }
    let waiting = fixture.authenticator.waiting();
    let addresses: Vec<_> = waiting.addresses.iter().map(|waiting| waiting.address.as_str()).collect();
    assert_eq!((addresses, waiting.addresses_left_off), (vec!["192.0.2.2", "192.0.2.1"], 0));
    assert!(waiting.addresses[0].wait_ms > 3_500_000 && waiting.addresses[1].wait_ms <= 16_000, "{waiting:?}");
    assert!(waiting.let_past.is_empty(), "{waiting:?}");
    let change = AccountChanges { epoch: 2, accounts: ChangedAccounts::These(vec!["ANA".into()]) };
    fixture.authenticator.end_waits(1, &change);
    assert_eq!(fixture.authenticator.waiting().let_past, ["ANA"], "it was unlocked, and a report is not of before");
}
