//! Pages of other origins behind a client address: what they use up, and what they cannot multiply.

use super::*;

const HOME: [u8; 4] = [192, 0, 2, 1];

impl Fixture {
    async fn login_by(&self, client: ClientAddress, id: &str, password: &str) -> Result<Arc<Principal>, AuthnError> {
        let header = format!("Basic {}", STANDARD.encode(format!("{id}:{password}")));
        self.authenticator.authenticate(Some(header.as_bytes()), client, &self.policy).await
    }
}

fn page(origin: &str, named: ForeignOrigin) -> ClientAddress {
    address(HOME).on_page_of(origin.as_bytes(), named)
}

fn invented(n: usize) -> ClientAddress {
    page(&format!("https://{n}.evil.example"), ForeignOrigin::Unnamed)
}

#[tokio::test]
async fn invented_origins_spend_one_allowance_and_nobody_elses() {
    let fixture = Fixture::new().await;
    fixture.add("ANA", cheap_hash("right")).await;
    fixture.login_by(address(HOME), "ANA", "right").await.unwrap();
    let mut looked_at = 0;
    for n in 0..100 {
        match fixture.login_by(invented(n), "ANA", &format!("guess{n}")).await {
            Err(AuthnError::Rejected { .. }) => looked_at += 1,
            Err(AuthnError::Throttled { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    // Six, or one more if the first second has passed meanwhile.
    assert!((6..=7).contains(&looked_at), "{looked_at}");
    // The longest wait that the account as a whole does not notice.
    (0..10).for_each(|n| fixture.authenticator.throttle.failed("ANA", invented(0).source(), n, Instant::now()));
    for client in [address(HOME), page("https://portal.example", ForeignOrigin::Named)] {
        for mistyped in ["wrong1", "wrong2", "wrong3"] {
            let outcome = fixture.login_by(client, "ANA", mistyped).await;
            assert!(matches!(outcome, Err(AuthnError::Rejected { .. })), "{client:?}: {outcome:?}");
        }
        fixture.login_by(client, "ANA", "right").await.unwrap();
    }
    // Not even the right password reveals anything to a page.
    let outcome = fixture.login_by(invented(200), "ANA", "right").await;
    assert!(matches!(outcome, Err(AuthnError::Throttled { .. })), "{outcome:?}");
}

/// If each origin had its own clock, one address could have as many guesses answered at a time as it invents origins.
/// The runtime's clock stops, and jumps to the next timer when nothing else is left to do.
#[tokio::test(start_paused = true)]
async fn rejections_of_pages_are_spaced_on_the_clock_of_their_address() {
    const STEP: Duration = Duration::from_secs(1);
    let fixture = Fixture::new().await;
    let settings = AuthenticationConfig { rejection_step: STEP, ..fixture.authenticator.settings.clone() };
    let (accounts, routes) = (fixture.authenticator.accounts.clone(), Arc::clone(&fixture.authenticator.routes));
    let spaced = Arc::new(Authenticator::new(accounts, routes, settings).unwrap());
    spaced.standing.send_replace(LeaseStanding::Confirmed);
    let portal = page("https://portal.example", ForeignOrigin::Named);
    let clients = [invented(1), address(HOME), invented(2), portal, invented(3)];
    let guesses: Vec<_> = (0..)
        .zip(clients)
        .map(|(n, client)| {
            let (spaced, policy) = (Arc::clone(&spaced), Arc::clone(&fixture.policy));
            let header = format!("Basic {}", STANDARD.encode(format!("A{n}:guess")));
            tokio::spawn(async move {
                let came = tokio::time::Instant::now();
                let outcome = spaced.authenticate(Some(header.as_bytes()), client, &policy).await;
                assert!(matches!(outcome, Err(AuthnError::Rejected { .. })), "{outcome:?}");
                came.elapsed()
            })
        })
        .collect();
    // While this task is busy, the clock stops, so all are verified in no time on the clock.
    while spaced.figures().proofs < 5 {
        tokio::task::yield_now().await;
    }
    let mut times = Vec::new();
    for guess in guesses {
        times.push(guess.await.unwrap());
    }
    // A step is longer if this machine verifies slowly.
    let (first, most) = (times[0], STEP * 2 * 5);
    assert!(times.iter().zip(1..).all(|(time, k)| *time >= STEP * k) && first < most, "{times:?}");
    assert!(times.windows(2).all(|two| two[1] - two[0] >= STEP), "{times:?}");
}
