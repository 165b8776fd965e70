//! An embedded store that cannot be read: the log of the program that reads it says why.

use std::time::{Duration, Instant};

use crate::fixture::{Gateway, PATIENCE};

#[test]
fn an_unreadable_account_is_reported_with_the_cause_and_keeps_no_other_out() {
    let gateway = Gateway::start();
    let store = rusqlite::Connection::open(gateway.dir.join("test.db")).unwrap();
    store.busy_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(gateway.get("/people/ANA", "ANA").status, 200);
    let began = Instant::now();
    // Only a damaged file, or another program, leaves such a row.
    store.execute_batch("UPDATE fedgate_logins SET roles = x'00ff' WHERE id = 'DOC'").unwrap();
    assert_eq!(gateway.get("/people/DOC", "DOC").status, 503);
    gateway.logged("an account could not be read, others can", began, PATIENCE).expect("it is told");
    let line = gateway.log_line("an account could not be read", began).unwrap();
    assert!(line.contains("`DOC`: ") && line.contains("Invalid column type Blob"), "{line}");
    for _ in 0..5 {
        assert_eq!(gateway.get("/people/DOC", "DOC").status, 503);
    }
    assert_eq!(gateway.log_lines("an account could not be read", began), 1, "once, however many requests meet it");
    assert_eq!((gateway.get("/people/ANA", "ANA").status, gateway.admin_get("/readyz").status), (200, 200));
}

#[test]
fn a_damaged_store_is_reported_with_the_cause_and_ends_readiness() {
    let gateway = Gateway::start();
    assert_eq!(gateway.get("/people/ANA", "ANA").status, 200);
    let file = gateway.dir.join("test.db");
    let store = rusqlite::Connection::open(&file).unwrap();
    store.busy_timeout(Duration::from_secs(5)).unwrap();
    let began = Instant::now();
    // The pages after the first are damaged, and no connection has them in memory.
    let pages: i64 = store.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    let size: i64 = store.query_row("PRAGMA page_size", [], |row| row.get(0)).unwrap();
    store.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let garbage = vec![0xa5; usize::try_from((pages - 1) * size).unwrap()];
    use std::os::unix::fs::FileExt;
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().write_all_at(&garbage, size.cast_unsigned()).unwrap();
    // A commit makes the other connections read again.
    let _ = store.execute_batch("PRAGMA user_version = 7");
    let deadline = Instant::now() + PATIENCE;
    while gateway.admin_get("/readyz").status != 503 {
        let _ = gateway.get("/people/DOC", "DOC");
        assert!(Instant::now() < deadline, "it stays ready");
    }
    gateway.logged("malformed", began, PATIENCE).expect("the log tells the cause");
    let told = gateway.admin_get("/readyz").json()["accounts"]["fault"].to_string();
    assert!(told.contains("malformed"), "{told}");
}
