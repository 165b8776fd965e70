use super::*;
use fedgate_core::password::HashArena;

const CHEAP: HashCost = HashCost { memory_kib: 64, passes: 1 };

const LONGEST_WAIT: Duration = Duration::from_millis(2000);

fn owner(account: &str) -> JobOwner {
    JobOwner { account: account.into(), source: None }
}

fn secret(text: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text.as_bytes().to_vec())
}

#[tokio::test]
async fn hashes_and_verifies_off_the_callers_thread() {
    let hasher = PasswordHasher::start(2, LONGEST_WAIT, CHEAP).unwrap();
    let stored = hasher.hash(secret("freedom"), owner("ANA")).await.unwrap().unwrap();
    assert_eq!(hasher.verify(stored.clone(), secret("freedom"), HasherLane::Known, owner("ANA")).await, Ok(true));
    assert_eq!(hasher.verify(stored, secret("Freedom"), HasherLane::Unknown, owner("ANA")).await, Ok(false));
}

/// Lanes with room for two jobs of the least work.
const SHORTEST: Duration = Duration::from_millis(2);

/// A hasher whose only thread works on a hash that takes long.
async fn occupied(longest: Duration) -> (PasswordHasher, tokio::task::JoinHandle<Result<Option<String>, HasherBusy>>) {
    let hasher = PasswordHasher::start(1, longest, HashCost { memory_kib: 65_536, passes: 8 }).unwrap();
    let first = hasher.clone();
    let running = tokio::spawn(async move { first.hash(secret("a"), owner("ANA")).await });
    tokio::task::yield_now().await;
    while hasher.waiting() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    (hasher, running)
}

#[tokio::test]
async fn a_full_lane_refuses_at_once_and_a_caller_that_left_makes_room() {
    let nobody_hashes = PasswordHasher::start(0, LONGEST_WAIT, CHEAP).unwrap();
    assert_eq!(nobody_hashes.hash(secret("a"), owner("ANA")).await, Err(HasherBusy));

    let (hasher, running) = occupied(SHORTEST).await;
    let verify = |account| {
        let hasher = hasher.clone();
        tokio::spawn(
            async move { hasher.verify(String::new(), secret("a"), HasherLane::Unknown, owner(account)).await },
        )
    };
    let waiting = [verify("BOB"), verify("CAT")];
    tokio::task::yield_now().await;
    assert_eq!(hasher.verify(String::new(), secret("a"), HasherLane::Unknown, owner("DOC")).await, Err(HasherBusy));
    assert_eq!(hasher.waiting(), 2);
    for gone in &waiting {
        gone.abort();
    }
    tokio::task::yield_now().await;
    assert_eq!(hasher.verify(String::new(), secret("a"), HasherLane::Unknown, owner("DOC")).await, Ok(false));
    assert!(running.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_known_caller_is_served_before_earlier_strangers() {
    let (hasher, running) = occupied(SHORTEST).await;
    let order = Arc::new(Mutex::new(vec![]));
    let jobs = [("flood", HasherLane::Unknown), ("doctor", HasherLane::Known)].map(|(name, lane)| {
        let (hasher, order) = (hasher.clone(), Arc::clone(&order));
        tokio::spawn(async move {
            let stored = password::hash_with(b"a", CHEAP, &mut HashArena::default()).unwrap();
            assert_eq!(hasher.verify(stored, secret("a"), lane, owner(name)).await, Ok(true));
            order.lock().unwrap().push(name);
        })
    });
    for job in jobs {
        job.await.unwrap();
    }
    assert!(running.await.unwrap().is_ok());
    assert_eq!(*order.lock().unwrap(), ["doctor", "flood"]);
}

#[tokio::test]
async fn dear_hashes_of_ten_accounts_are_refused_at_once_and_keep_no_known_caller_out() {
    let (hasher, running) = occupied(LONGEST_WAIT).await;
    let dear = format!("$2b$15${}", "a".repeat(53));
    let first = tokio::spawn({
        let (hasher, dear) = (hasher.clone(), dear.clone());
        async move { hasher.verify(dear, secret("a"), HasherLane::Unknown, owner("A0")).await }
    });
    tokio::task::yield_now().await;
    for n in 1..10 {
        let account = format!("A{n}");
        assert_eq!(
            hasher.verify(dear.clone(), secret("a"), HasherLane::Unknown, owner(&account)).await,
            Err(HasherBusy)
        );
    }
    assert_eq!(hasher.waiting(), 1);
    let stored = password::hash_with(b"a", CHEAP, &mut HashArena::default()).unwrap();
    let known = tokio::spawn({
        let hasher = hasher.clone();
        async move { hasher.verify(stored, secret("a"), HasherLane::Known, owner("DOC")).await }
    });
    assert_eq!(known.await.unwrap(), Ok(true), "before the dear one");
    first.abort();
    assert!(running.await.unwrap().is_ok());
}

#[tokio::test]
async fn the_threads_end_with_the_last_handle() {
    let hasher = PasswordHasher::start(2, LONGEST_WAIT, CHEAP).unwrap();
    assert_eq!(hasher.cost(), CHEAP);
    let queues = Arc::downgrade(&hasher.shared.queues);
    let other = hasher.clone();
    drop(hasher);
    assert!(other.hash(secret("freedom"), owner("ANA")).await.is_ok(), "one handle is left");
    drop(other);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while queues.strong_count() > 0 {
        assert!(std::time::Instant::now() < deadline, "a thread still waits for jobs");
        thread::yield_now();
    }
}
