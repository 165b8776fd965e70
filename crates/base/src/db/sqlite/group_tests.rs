//! Writes that share a commit.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::JoinSet;

use super::super::WaitReason;
use super::*;

const LONG: Duration = Duration::from_secs(60);
const COUNT: &str = "SELECT count(*) FROM fedgate_t";

/// A store in a directory of its own, whose commits are counted.
struct Place {
    directory: PathBuf,
    sqlite: SqliteFile,
    commits: Arc<AtomicUsize>,
    /// The next commit fails.
    refuses: Arc<AtomicBool>,
}

impl Place {
    async fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("fedgate-group-{:x}", rand::random::<u128>()));
        std::fs::create_dir(&directory).unwrap();
        let mut sqlite = SqliteFile::open(&directory.join("his.db"), LONG).await.unwrap();
        // On a busy machine, the time of a group would end some of them early.
        Arc::get_mut(&mut sqlite.0).unwrap().group_time = LONG;
        sqlite.write(|tx| tx.execute_batch("CREATE TABLE fedgate_t (n INTEGER PRIMARY KEY, of TEXT)")).await.unwrap();
        let (commits, refuses) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, refused) = (Arc::clone(&commits), Arc::clone(&refuses));
        let hook = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            refused.swap(false, Ordering::SeqCst)
        };
        sqlite.0.writer.lock().await.as_mut().unwrap().commit_hook(Some(hook)).unwrap();
        Self { directory, sqlite, commits, refuses }
    }

    /// Puts writes into the queue of a busy store, lets go, and returns their results in their order.
    async fn at_once(&self, writes: Vec<QueuedTest>) -> Vec<Result<usize, DbError>> {
        let held = Arc::clone(&self.sqlite.0.writer).lock_owned().await;
        let callers = writes.into_iter().map(|(company, work)| self.sqlite.0.queue.put(company, (), work).unwrap());
        let callers: Vec<_> = callers.collect();
        let mut all = JoinSet::new();
        let count = callers.len();
        for (at, caller) in callers.into_iter().enumerate() {
            let sqlite = self.sqlite.clone();
            all.spawn(async move { (at, sqlite.wait_for(caller).await) });
        }
        drop(held);
        let mut results: Vec<_> = all.join_all().await;
        results.sort_by_key(|(at, _)| *at);
        assert_eq!(results.len(), count);
        results.into_iter().map(|(_, result)| result).collect()
    }

    async fn count(&self) -> i64 {
        self.sqlite.read(|db| db.query_row(COUNT, [], |row| row.get(0))).await.unwrap()
    }

    fn take_commits(&self) -> usize {
        self.commits.swap(0, Ordering::SeqCst)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

type Work = Box<dyn FnOnce(&Transaction<'_>) -> Result<usize, rusqlite::Error> + Send>;
type QueuedTest = (WriteCompany, Work);

fn shared(
    lane: u64,
    work: impl FnOnce(&Transaction<'_>) -> Result<usize, rusqlite::Error> + Send + 'static,
) -> QueuedTest {
    (WriteCompany::Shared { lane, bytes: 100 }, Box::new(work))
}

fn insert(n: i64) -> QueuedTest {
    shared(1, move |tx| tx.execute("INSERT INTO fedgate_t (n) VALUES (?1)", [n]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_wait_share_a_commit_and_each_fails_alone() {
    let place = Place::new().await;
    let half = |tx: &Transaction<'_>| {
        tx.execute("INSERT INTO fedgate_t (n) VALUES (100)", [])?;
        tx.execute("INSERT INTO nothing VALUES (1)", [])
    };
    let panics = |tx: &Transaction<'_>| {
        tx.execute("INSERT INTO fedgate_t (n) VALUES (101)", []).unwrap();
        panic!("as a fault of the program would")
    };
    let writes = vec![insert(1), insert(1), insert(2), shared(1, half), insert(3), insert(4)];
    let results = place.at_once(writes).await;
    let are_done: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(are_done, [true, false, true, false, true, true]);
    assert!(!results[1].as_ref().unwrap_err().is_unavailable(), "a constraint is the caller's");
    assert_eq!((place.count().await, place.take_commits()), (4, 1));
    // A panic is printed, which may take longer than a group does.
    let results = place.at_once(vec![insert(10), shared(1, panics), insert(11)]).await;
    assert!(results[0].is_ok() && results[1].is_err() && results[2].is_ok(), "{results:?}");
    assert_eq!(place.count().await, 6);
    place.take_commits();
    // Without any success there is nothing to commit.
    assert!(place.at_once(vec![insert(1), insert(2)]).await.iter().all(Result::is_err));
    assert_eq!((place.count().await, place.take_commits()), (6, 0));
    // A write without company has a commit of its own, and so has one that must be alone.
    let alone: QueuedTest = (WriteCompany::Alone { lane: 1 }, insert(6).1);
    let results = place.at_once(vec![insert(5), alone, insert(7), insert(8)]).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!((place.count().await, place.take_commits()), (10, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_bounded_in_writes_bytes_and_time() {
    let mut place = Place::new().await;
    assert!(place.at_once((0..130).map(insert).collect()).await.iter().all(Result::is_ok));
    assert_eq!((place.count().await, place.take_commits()), (130, 3), "64, 64 and 2");
    let large = |n| (WriteCompany::Shared { lane: 1, bytes: 3 * 1024 * 1024 }, insert(n).1);
    assert!(place.at_once((200..203).map(large).collect()).await.iter().all(Result::is_ok));
    assert_eq!(place.take_commits(), 3);
    // The turn of the last write may still end.
    let began = std::time::Instant::now();
    while Arc::get_mut(&mut place.sqlite.0).is_none() && began.elapsed() < Duration::from_secs(30) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Arc::get_mut(&mut place.sqlite.0).unwrap().group_time = GROUP_TIME;
    let slow = |n: i64| {
        shared(1, move |tx| {
            std::thread::sleep(Duration::from_millis(25));
            tx.execute("INSERT INTO fedgate_t (n) VALUES (?1)", [n])
        })
    };
    assert!(place.at_once((300..303).map(slow).collect()).await.iter().all(Result::is_ok));
    assert_eq!(place.take_commits(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_told_of_a_commit_that_fails() {
    let place = Place::new().await;
    place.refuses.store(true, Ordering::SeqCst);
    let results = place.at_once((0..5).map(insert).collect()).await;
    assert!(results.iter().all(Result::is_err), "{results:?}");
    assert_eq!((place.count().await, place.take_commits()), (0, 1));
    assert!(place.at_once((0..5).map(insert).collect()).await.iter().all(Result::is_ok));
    assert_eq!((place.count().await, place.take_commits()), (5, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_full_acknowledges_what_it_holds_and_nothing_else() {
    let place = Place::new().await;
    let pages = {
        let writer = place.sqlite.0.writer.lock().await;
        let writer = writer.as_ref().unwrap();
        let pages: i64 = writer.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        writer.query_row("PRAGMA max_page_count = 40", [], |row| row.get::<_, i64>(0)).unwrap();
        pages
    };
    assert!(pages < 10, "{pages}");
    let (mut acknowledged, mut refused) = (vec![], 0);
    for round in 0..8 {
        let fills = |n: i64| {
            shared(1, move |tx| {
                tx.execute("INSERT INTO fedgate_t VALUES (?1, printf('%.*c', ?2, 'x'))", [n, 2000 + 3000 * (n % 3)])
            })
        };
        let ids: Vec<i64> = (round * 10..round * 10 + 10).collect();
        for (n, result) in ids.iter().zip(place.at_once(ids.iter().copied().map(fills).collect()).await) {
            match result {
                Ok(_) => acknowledged.push(*n),
                Err(error) => {
                    assert!(error.is_unavailable(), "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 0 && !acknowledged.is_empty(), "{refused} {acknowledged:?}");
    let stored = place.sqlite.read(|db| {
        db.prepare("SELECT n FROM fedgate_t ORDER BY n")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<Vec<i64>, _>>()
    });
    assert_eq!(stored.await.unwrap(), acknowledged);
    // Once there is room again, it goes on.
    place.sqlite.0.writer.lock().await.as_ref().unwrap().execute_batch("PRAGMA max_page_count = 10000").unwrap();
    assert!(place.at_once((500..520).map(insert).collect()).await.iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_take_turns_however_many_writes_one_has() {
    let place = Place::new().await;
    let order = Arc::new(Mutex::new(vec![]));
    let noted = |lane: u64, n: i64| {
        let order = Arc::clone(&order);
        shared(lane, move |tx| {
            order.lock().unwrap().push(lane);
            tx.execute("INSERT INTO fedgate_t (n) VALUES (?1)", [n])
        })
    };
    let mut writes: Vec<QueuedTest> = (0..30).map(|n| noted(1, n)).collect();
    writes.extend([noted(2, 100), noted(2, 101), noted(3, 102)]);
    assert!(place.at_once(writes).await.iter().all(Result::is_ok));
    assert_eq!(order.lock().unwrap()[..7], [1, 2, 3, 1, 2, 1, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_has_gone_concerns_nobody_else() {
    let place = Place::new().await;
    // Before it began.
    let ran = Arc::new(AtomicBool::new(false));
    let held = Arc::clone(&place.sqlite.0.writer).lock_owned().await;
    let gone = {
        let (sqlite, ran) = (place.sqlite.clone(), Arc::clone(&ran));
        tokio::spawn(async move {
            sqlite
                .write_with(WriteCompany::Shared { lane: 1, bytes: 1 }, (), move |_| {
                    ran.store(true, Ordering::SeqCst);
                    Ok(())
                })
                .await
        })
    };
    while place.sqlite.0.queue.len() == 0 {
        tokio::task::yield_now().await;
    }
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    drop(held);
    assert!(place.at_once(vec![insert(1), insert(2)]).await.iter().all(Result::is_ok));
    assert!(!ran.load(Ordering::SeqCst));

    // While it runs: the first one of a group is interrupted, and a later one is undone at its end.
    let (begun, is_begun) = std::sync::mpsc::channel();
    let (leave, may_end) = std::sync::mpsc::channel::<()>();
    let endless = {
        let sqlite = place.sqlite.clone();
        let begun = begun.clone();
        tokio::spawn(async move {
            let work = move |tx: &Transaction<'_>| {
                begun.send(()).unwrap();
                tx.execute(
                    "WITH RECURSIVE c(n) AS (SELECT 1000 UNION ALL SELECT n + 1 FROM c) \
                     INSERT INTO fedgate_t (n) SELECT n FROM c",
                    [],
                )
            };
            sqlite.write_with(WriteCompany::Shared { lane: 1, bytes: 1 }, (), work).await
        })
    };
    is_begun.recv().unwrap();
    let after = {
        let sqlite = place.sqlite.clone();
        let (company, work) = insert(3);
        tokio::spawn(async move { sqlite.write_with(company, (), work).await })
    };
    endless.abort();
    after.await.unwrap().unwrap();
    assert_eq!(place.count().await, 3);

    let held = Arc::clone(&place.sqlite.0.writer).lock_owned().await;
    let first = place.sqlite.0.queue.put(WriteCompany::Shared { lane: 1, bytes: 1 }, (), insert(4).1).unwrap();
    let work = move |tx: &Transaction<'_>| {
        tx.execute("INSERT INTO fedgate_t (n) VALUES (5)", [])?;
        begun.send(()).unwrap();
        may_end.recv().unwrap();
        Ok(1)
    };
    let second = place.sqlite.0.queue.put(WriteCompany::Shared { lane: 1, bytes: 1 }, (), work).unwrap();
    drop(held);
    let first = {
        let sqlite = place.sqlite.clone();
        tokio::spawn(async move { sqlite.wait_for(first).await })
    };
    is_begun.recv().unwrap();
    drop(second);
    leave.send(()).unwrap();
    assert_eq!(first.await.unwrap().unwrap(), 1);
    let kept =
        place.sqlite.read(|db| db.query_row("SELECT max(n) FROM fedgate_t", [], |row| row.get::<_, i64>(0))).await;
    assert_eq!(kept.unwrap(), 4, "what nobody waits for is undone");
}

#[tokio::test]
async fn an_actor_is_that_of_its_own_write_alone() {
    use super::super::actor::ChangeActor;
    let place = Place::new().await;
    let actor_table =
        "CREATE TABLE fedgate_actor (\"only\" INTEGER PRIMARY KEY, via TEXT, actor TEXT, request_id TEXT)";
    place.sqlite.write(move |tx| tx.execute_batch(actor_table)).await.unwrap();
    place.take_commits();
    let note = "INSERT INTO fedgate_t (n, of) VALUES (?1, (SELECT actor FROM fedgate_actor))";
    let acting = move |name: Option<&'static str>, n: i64, fails: bool| {
        shared(1, move |tx| {
            let actor = name.map(|name| ChangeActor::caller(name, "r1"));
            ChangeActor::write(actor.as_ref(), tx, |tx| {
                let done = tx.execute(note, [n])?;
                if fails { tx.execute("INSERT INTO nothing VALUES (1)", []) } else { Ok(done) }
            })
        })
    };
    let writes = vec![
        acting(Some("ANA"), 1, false),
        acting(None, 2, false),
        acting(Some("BOB"), 3, true),
        acting(None, 4, false),
        acting(Some("EVA"), 5, false),
    ];
    let results = place.at_once(writes).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 4);
    let by = |db: &Connection| {
        db.query_row("SELECT group_concat(n || coalesce(of, '-'), ' ') FROM fedgate_t", [], |row| {
            row.get::<_, String>(0)
        })
    };
    assert_eq!(place.sqlite.read(by).await.unwrap(), "1ANA 2- 4- 5EVA");
    assert_eq!(place.take_commits(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_writes_in_groups_is_one_group_ahead_of_another_at_most() {
    let place = Place::new().await;
    let is_over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..32)
        .map(|lane| {
            let (sqlite, is_over) = (place.sqlite.clone(), Arc::clone(&is_over));
            tokio::spawn(async move {
                while !is_over.load(Ordering::SeqCst) {
                    let replace = |tx: &Transaction<'_>| tx.execute("REPLACE INTO fedgate_t (n) VALUES (1)", []);
                    sqlite.write_with(WriteCompany::Shared { lane, bytes: 1 }, (), replace).await.unwrap();
                }
            })
        })
        .collect();
    let path = place.directory.join("his.db");
    let (other, turn) =
        (Connection::open(&path).unwrap(), std::fs::File::open(path.with_extension("db-turn")).unwrap());
    other.busy_timeout(Duration::ZERO).unwrap();
    while place.commits.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        turn.lock().unwrap();
        let before = place.commits.load(Ordering::SeqCst);
        while other.execute_batch("BEGIN IMMEDIATE").is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let ahead = place.commits.load(Ordering::SeqCst) - before;
        other.execute_batch("ROLLBACK").unwrap();
        turn.unlock().unwrap();
        assert!(ahead <= 1, "{ahead} groups went ahead");
    }
    is_over.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn those_who_wait_for_a_lock_of_another_process_are_told_in_time() {
    let place = Place::new().await;
    let impatient = SqliteFile::open(&place.directory.join("his.db"), Duration::from_millis(20)).await.unwrap();
    let other = Connection::open(place.directory.join("his.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut all = JoinSet::new();
    for lane in 0..5 {
        let sqlite = impatient.clone();
        all.spawn(async move { sqlite.write_with(WriteCompany::Shared { lane, bytes: 1 }, (), |_| Ok(())).await });
    }
    for result in all.join_all().await {
        assert_eq!(result.unwrap_err().waited_for(), Some(WaitReason::Lock));
    }
    other.execute_batch("ROLLBACK").unwrap();
    impatient.write(|_| Ok(())).await.unwrap();
    // Nobody is left behind when the store is closed.
    impatient.close();
    let late = impatient.write_with(WriteCompany::Shared { lane: 1, bytes: 1 }, (), |_| Ok(())).await;
    assert!(late.unwrap_err().is_unavailable());
}
