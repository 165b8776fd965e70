//! Older hashes, replaced after a login.

use super::*;

impl Fixture {
    /// Holds the store's lock, as another process does, until dropped.
    fn lock_store(&self) -> rusqlite::Connection {
        let StoreConfig::Sqlite(config) = &self.store else { panic!("the default store is the embedded one") };
        let writer = rusqlite::Connection::open(&config.path).unwrap();
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        writer
    }
}

#[tokio::test]
async fn a_bcrypt_hash_is_replaced_silently_and_only_by_a_right_password() {
    let fixture = Fixture::new().await;
    let bcrypt = bcrypt::hash_with_salt(b"right", 4, [3; 16]).unwrap().to_string();
    fixture.add("ANA", bcrypt.clone()).await;
    fixture.confirm(None).await;
    assert_eq!(fixture.rejection("ANA", "wrong").await, RejectReason::WrongPassword);
    let stored = || async { fixture.authenticator.accounts.read("ANA").await.unwrap().unwrap().password_hash.unwrap() };
    assert_eq!(stored().await, bcrypt);
    fixture.login("ANA", "right").await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while stored().await == bcrypt {
        assert!(Instant::now() < deadline, "the hash was not replaced");
        tokio::task::yield_now().await;
    }
    assert!(password::verify(&stored().await, b"right"));
    fixture.confirm(None).await;
    fixture.login("ANA", "right").await.unwrap();
    // Compare-and-set: a hash that was changed meanwhile is left alone.
    assert!(!fixture.authenticator.accounts.replace_hash("ANA", &bcrypt, "x").await.unwrap());
}

#[tokio::test]
async fn a_hash_that_could_not_be_replaced_because_the_store_was_busy_is_with_the_next_login() {
    let fixture = Fixture::new().await;
    let bcrypt = bcrypt::hash_with_salt(b"right", 4, [3; 16]).unwrap().to_string();
    fixture.add("ANA", bcrypt.clone()).await;
    let writer = fixture.lock_store();
    fixture.login("ANA", "right").await.unwrap();
    let Authenticator { accounts, proofs, .. } = &*fixture.authenticator;
    let stored = || async { accounts.read("ANA").await.unwrap().unwrap().password_hash.unwrap() };
    let proof = (fixture.authenticator.mac("ANA", &bcrypt, b"right"), None);
    let deadline = Instant::now() + Duration::from_secs(30);
    while proofs.get(&proof).is_some() {
        assert!(Instant::now() < deadline, "the hash is still being replaced");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(stored().await, bcrypt);
    drop(writer);
    fixture.login("ANA", "right").await.unwrap();
    while stored().await == bcrypt {
        assert!(Instant::now() < deadline, "the hash was not replaced");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_password_longer_than_bcrypt_reads_leaves_its_hash_so_that_no_wrong_end_locks_out_the_right_one() {
    let fixture = Fixture::new().await;
    let right = "a long password ".repeat(8);
    let bcrypt = bcrypt::hash_with_salt(&right.as_bytes()[..password::BCRYPT_MAX_BYTES], 4, [3; 16]).unwrap();
    let bcrypt = bcrypt.to_string();
    fixture.add("ANA", bcrypt.clone()).await;
    fixture.add("BEA", bcrypt::hash_with_salt(b"short", 4, [3; 16]).unwrap().to_string()).await;
    fixture.login("ANA", &format!("{right}wrong end")).await.unwrap();
    fixture.login("ANA", &right[..password::BCRYPT_MAX_BYTES]).await.unwrap();
    // A hash whose turn came later is replaced by then.
    fixture.login("BEA", "short").await.unwrap();
    let accounts = &fixture.authenticator.accounts;
    let stored = async |id: &str| accounts.read(id).await.unwrap().unwrap().password_hash.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while password::is_bcrypt(&stored("BEA").await) {
        assert!(Instant::now() < deadline, "the hash was not replaced");
        tokio::task::yield_now().await;
    }
    assert_eq!(stored("ANA").await, bcrypt);
    fixture.confirm(None).await;
    fixture.login("ANA", &right).await.unwrap();
}
