//! The embedded store in the hands of several users.

use super::*;

const LOCK_TIMEOUT: Duration = Duration::from_millis(20);

#[tokio::test(start_paused = true)]
async fn a_caller_that_waits_too_long_for_a_turn_gets_retry_after() {
    let path = std::env::temp_dir().join(format!("fedgate-sqlite-{:x}", rand::random::<u128>()));
    let sqlite = SqliteFile::open(&path, LOCK_TIMEOUT).await.unwrap();
    let writer = Arc::clone(&sqlite.0.writer).lock_owned().await;
    let readers = Arc::clone(&sqlite.0.readers).acquire_many_owned(4).await.unwrap();
    assert!(sqlite.write(|_| Ok(())).await.unwrap_err().is_unavailable());
    assert!(sqlite.read(|_| Ok(())).await.unwrap_err().is_unavailable());
    // The watch, on which every lease depends, waits for none of them.
    sqlite.read_apart(|_| Ok(())).await.unwrap();
    drop((writer, readers));
    sqlite.write(|_| Ok(())).await.unwrap();
    sqlite.read(|_| Ok(())).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(format!("{}-turn", path.display())).unwrap();
}

#[tokio::test]
async fn a_follower_reads_after_every_commit_of_anybody_and_not_without_one() {
    let path = std::env::temp_dir().join(format!("fedgate-sqlite-{:x}", rand::random::<u128>()));
    let sqlite = SqliteFile::open(&path, LOCK_TIMEOUT).await.unwrap();
    sqlite.write(|tx| tx.execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (0)")).await.unwrap();
    let count = |db: &Connection| db.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
    let (mut one, mut two) = (sqlite.follower(), sqlite.follower());
    for follower in [&mut one, &mut two] {
        assert_eq!(follower.read_news(count).await.unwrap(), Some(1), "the first reading is always made");
        assert_eq!(follower.read_news(count).await.unwrap(), None);
    }
    // Another process, and this one: changes of rows, of the schema, and a checkpoint that moves rows alone.
    let other = Connection::open(&path).unwrap();
    for (at, change) in
        ["INSERT INTO t VALUES (1)", "UPDATE t SET n = 7", "CREATE TABLE u (n)", "DELETE FROM t"].iter().enumerate()
    {
        if at % 2 == 0 {
            other.execute_batch(change).unwrap();
        } else {
            sqlite.write(move |tx| tx.execute_batch(change)).await.unwrap();
        }
        for follower in [&mut one, &mut two] {
            assert!(follower.read_news(count).await.unwrap().is_some(), "{change}");
            assert_eq!(follower.read_news(count).await.unwrap(), None, "{change}");
        }
    }
    // A commit while it reads is news the next time.
    let during = move |db: &Connection| {
        let before = count(db)?;
        other.execute_batch("INSERT INTO t VALUES (2)")?;
        Ok(before)
    };
    sqlite.write(|tx| tx.execute_batch("INSERT INTO t VALUES (1)")).await.unwrap();
    assert_eq!(one.read_news(during).await.unwrap(), Some(1));
    assert_eq!(one.read_news(count).await.unwrap(), Some(2));
    // After a failure it reads, whatever the other follower has read meanwhile.
    sqlite.write(|tx| tx.execute_batch("INSERT INTO t VALUES (3)")).await.unwrap();
    assert!(one.read_news(|db| db.execute_batch("SELECT * FROM nothing")).await.is_err());
    assert_eq!(two.read_news(count).await.unwrap(), Some(3));
    assert_eq!(one.read_news(count).await.unwrap(), Some(3));
    sqlite.close();
    assert!(one.read_news(count).await.unwrap_err().is_unavailable());
    assert!(!Path::new(&format!("{}-wal", path.display())).exists(), "it holds no connection open");
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(format!("{}-turn", path.display())).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_closed_is_in_its_file_alone_whoever_has_a_handle_still() {
    let path = std::env::temp_dir().join(format!("fedgate-sqlite-{:x}", rand::random::<u128>()));
    let (sqlite, beside) = (SqliteFile::open(&path, LOCK_TIMEOUT).await.unwrap(), format!("{}-wal", path.display()));
    sqlite.write(|tx| tx.execute_batch("CREATE TABLE fedgate_t (n); INSERT INTO fedgate_t VALUES (1)")).await.unwrap();
    let count = |db: &Connection| db.query_row("SELECT count(*) FROM fedgate_t", [], |row| row.get::<_, i64>(0));
    // Work that runs when the store is closed ends first.
    let (begun, is_begun) = std::sync::mpsc::channel();
    let reads = {
        let sqlite = sqlite.clone();
        tokio::spawn(async move {
            sqlite
                .read(move |db| {
                    begun.send(()).unwrap();
                    std::thread::sleep(Duration::from_millis(50));
                    count(db)
                })
                .await
        })
    };
    is_begun.recv().unwrap();
    let handle = sqlite.clone();
    spawn_blocking(move || handle.close()).await.unwrap();
    assert_eq!(reads.await.unwrap().unwrap(), 1);
    assert!(!Path::new(&beside).exists());
    assert!(sqlite.read(count).await.unwrap_err().is_unavailable());
    assert!(sqlite.write(|tx| tx.execute("INSERT INTO fedgate_t VALUES (2)", [])).await.unwrap_err().is_unavailable());
    // Another process still has it open: the file holds everything anyway, and the last process removes the rest.
    let (one, other) =
        (SqliteFile::open(&path, LOCK_TIMEOUT).await.unwrap(), SqliteFile::open(&path, LOCK_TIMEOUT).await.unwrap());
    one.write(|tx| tx.execute("INSERT INTO fedgate_t VALUES (3)", [])).await.unwrap();
    one.close();
    let alone = path.with_extension("alone");
    std::fs::copy(&path, &alone).unwrap();
    assert_eq!(count(&Connection::open(&alone).unwrap()).unwrap(), 2);
    other.close();
    assert!(!Path::new(&beside).exists());
    [path.clone(), alone, format!("{}-turn", path.display()).into()]
        .iter()
        .for_each(|file| std::fs::remove_file(file).unwrap());
}

#[tokio::test]
async fn nothing_is_read_from_a_file_that_lost_its_name_and_no_write_to_it_is_acknowledged() {
    let path = std::env::temp_dir().join(format!("fedgate-sqlite-{:x}", rand::random::<u128>()));
    let backup = path.with_extension("backup");
    let sqlite = SqliteFile::open(&path, LOCK_TIMEOUT).await.unwrap();
    sqlite.write(|tx| tx.execute_batch("CREATE TABLE t (n)")).await.unwrap();
    sqlite.read(|db| db.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))).await.unwrap();
    let (from, to) = (path.clone(), backup.clone());
    let moves = move |tx: &Transaction<'_>| {
        tx.execute("INSERT INTO t VALUES (1)", [])?;
        std::fs::rename(&from, &to).unwrap();
        std::fs::copy(&to, &from).unwrap();
        Ok(())
    };
    let told = |error: DbError| {
        assert!(error.is_unavailable(), "{error}");
        error.to_string()
    };
    let during = told(sqlite.write(moves).await.unwrap_err());
    assert!(during.contains("was replaced while it was open"), "{during}");
    let count = |db: &Connection| db.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
    told(sqlite.read(count).await.unwrap_err());
    told(sqlite.write(|tx| tx.execute("INSERT INTO t VALUES (2)", [])).await.unwrap_err());
    std::fs::remove_file(&path).unwrap();
    assert!(told(sqlite.read(count).await.unwrap_err()).contains("can no longer be found"));
    // Once the name is back, it continues as before.
    std::fs::rename(&backup, &path).unwrap();
    assert_eq!(sqlite.read(count).await.unwrap(), 1);
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(format!("{}-turn", path.display())).unwrap();
}

#[tokio::test]
async fn a_store_is_its_owners_alone_unless_a_group_shares_its_directory() {
    for (directory, expected) in [(0o700, 0o600), (0o770, 0o600), (0o2750, 0o600), (0o2770, 0o660)] {
        let place = std::env::temp_dir().join(format!("fedgate-sqlite-{:x}", rand::random::<u128>()));
        std::fs::create_dir(&place).unwrap();
        std::fs::set_permissions(&place, Permissions::from_mode(directory)).unwrap();
        let sqlite = SqliteFile::open(&place.join("db"), LOCK_TIMEOUT).await.unwrap();
        sqlite.write(|tx| tx.execute_batch("CREATE TABLE t (n)")).await.unwrap();
        let files = std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().metadata().unwrap().mode() & 0o777);
        let modes: Vec<u32> = files.collect();
        assert!(modes.len() >= 3 && modes.iter().all(|mode| *mode == expected), "{directory:o}: {modes:?}");
        std::fs::remove_dir_all(&place).unwrap();
    }
}

#[tokio::test]
async fn a_checkpoint_that_a_reader_of_another_process_holds_up_says_so() {
    let path = std::env::temp_dir().join(format!("fedgate-sqlite-{:x}", rand::random::<u128>()));
    let sqlite = SqliteFile::open(&path, LOCK_TIMEOUT).await.unwrap();
    sqlite.write(|tx| tx.execute_batch("CREATE TABLE fedgate_t (n)")).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN; SELECT count(*) FROM fedgate_t").unwrap();
    sqlite.write(|tx| tx.execute("INSERT INTO fedgate_t VALUES (1)", [])).await.unwrap();
    let writer = sqlite.0.writer.lock().await.take().unwrap();
    assert_eq!(checkpoint(&writer).unwrap(), WalRest::Held);
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(checkpoint(&writer).unwrap(), WalRest::Nothing);
    drop((writer, other));
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(format!("{}-turn", path.display())).unwrap();
}
