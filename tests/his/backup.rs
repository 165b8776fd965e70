//! Copies of a store in use, and restores from them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fedgate_base::config::{SqliteConfig, StoreConfig};
use rusqlite::Connection;

use crate::his::program::{configuration, configuration_on, fedhis};
use crate::support::postgres::Cluster;
use crate::support::{His, Scratch, postgres_text, root};

/// A service on `fedgate.db` of a directory, and a configuration for commands on the same file.
async fn his_on(directory: &Path) -> (His, PathBuf) {
    let file = configuration(directory);
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("/his.db", "/fedgate.db")).unwrap();
    let path = directory.join("fedgate.db");
    let store = StoreConfig::Sqlite(SqliteConfig { path, lock_timeout: Duration::from_secs(2) });
    (His::start(store, Scratch::new()).await, file)
}

fn backup(to: &Path, config: &Path) -> Output {
    fedhis(&["backup", to.to_str().unwrap()], config)
}

/// The number of people in a file, which is opened alone, in another place.
fn people_in(file: &Path) -> usize {
    let elsewhere = Scratch::new();
    let copy = elsewhere.0.join("alone.db");
    fs::copy(file, &copy).unwrap();
    let alone = Connection::open(copy).unwrap();
    let whole: String = alone.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
    let count = "SELECT count(*) FROM people WHERE json_valid(data)";
    usize::try_from(alone.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_copy_that_is_made_while_others_write_is_whole_private_and_overwrites_nothing() {
    let scratch = Scratch::new();
    let (his, config) = his_on(&scratch.0).await;
    let (his, is_over, written) = (Arc::new(his), Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (his, is_over, written) = (Arc::clone(&his), Arc::clone(&is_over), Arc::clone(&written));
            tokio::spawn(async move {
                for turn in 0.. {
                    if is_over.load(Ordering::SeqCst) {
                        break;
                    }
                    his.person(&format!("P{writer}X{turn}"), &format!(r#"{{"name":"{}"}}"#, "n".repeat(2000))).await;
                    written.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    while written.load(Ordering::SeqCst) < 50 {
        tokio::task::yield_now().await;
    }
    let copy = scratch.0.join("copy.db");
    let acknowledged = written.load(Ordering::SeqCst);
    let made = tokio::task::spawn_blocking({
        let (copy, config) = (copy.clone(), config.clone());
        move || backup(&copy, &config)
    });
    let made = made.await.unwrap();
    assert!(made.status.success(), "{made:?}");
    let bytes = fs::metadata(&copy).unwrap().len();
    assert!(String::from_utf8_lossy(&made.stdout).contains(&format!("copy.db is a copy of the store, {bytes} bytes")));
    assert!(people_in(&copy) >= acknowledged);
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    is_over.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }

    let before = fs::read(&copy).unwrap();
    std::os::unix::fs::symlink(scratch.0.join("nowhere"), scratch.0.join("link.db")).unwrap();
    for (to, problem) in
        [("copy.db", "is there already"), ("link.db", "is there already"), ("none/copy.db", "cannot be written")]
    {
        let refused = backup(&scratch.0.join(to), &config);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(1) && told.contains(problem), "{to}: {told}");
    }
    assert_eq!(fs::read(&copy).unwrap(), before);
    let left: Vec<_> =
        fs::read_dir(&scratch.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.contains("unfinished") || name.starts_with("copy.db-")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_restored_as_its_page_says() {
    let scratch = Scratch::new();
    let (his, config) = his_on(&scratch.0).await;
    his.person("BEFORE", r#"{"name":"B"}"#).await;
    let copy = scratch.0.join("copy.db");
    assert!(backup(&copy, &config).status.success());
    his.person("AFTER", "{}").await;
    his.database.close();
    drop(his);
    // As after a kill: files of the replaced store lie beside it.
    fs::copy(scratch.0.join("fedgate.db"), scratch.0.join("fedgate.db-wal")).unwrap();
    let page = fs::read_to_string("docs/BACKUP.md").unwrap();
    let steps = page.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let steps = steps.replace("/backup/fedgate-2026-11-29.db", copy.to_str().unwrap());
    let done = Command::new("sh").args(["-e", "-c", &steps]).current_dir(&scratch.0).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let (his, _) = his_on(&scratch.0).await;
    assert_eq!(his.get(&root(), "/people/BEFORE").await.json()["name"], "B");
    assert_eq!(his.get(&root(), "/people/AFTER").await.status, 404);
    his.person("LATER", "{}").await;
    assert!(scratch.0.join("replaced/fedgate.db").exists());
}

#[test]
fn what_is_not_there_is_not_made_to_be_copied_and_a_strangers_file_is_not_copied() {
    let scratch = Scratch::new();
    let config = configuration(&scratch.0);
    let (copy, store) = (scratch.0.join("copy.db"), scratch.0.join("his.db"));
    let refused = backup(&copy, &config);
    assert!(refused.status.code() == Some(2) && !store.exists() && !copy.exists(), "{refused:?}");
    Connection::open(&store).unwrap().execute_batch("CREATE TABLE orders (n)").unwrap();
    let refused = backup(&copy, &config);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("tables of another program"), "{refused:?}");
    assert!(!copy.exists());
}

#[test]
fn only_a_store_is_copied_and_a_file_that_is_none_is_named_with_its_key() {
    let scratch = Scratch::new();
    let config = configuration(&scratch.0);
    let (copy, store) = (scratch.0.join("copy.db"), scratch.0.join("his.db"));
    let of_another = scratch.0.join("another.db");
    Connection::open(&of_another).unwrap().execute_batch("CREATE TABLE people (name, age)").unwrap();
    let garbage = "no database, but longer than the head of one would be".repeat(9).into_bytes();
    for (content, problem) in [
        (Vec::new(), "is no store of fedgate (it has no schema); name the file that `fedhis serve` uses"),
        (fs::read(of_another).unwrap(), "has tables of another program (`people`)"),
        (garbage, "is no SQLite database, and so no store of fedgate; name a file of its own, or restore a copy"),
    ] {
        fs::write(&store, &content).unwrap();
        let refused = backup(&copy, &config);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && told.contains(problem), "{problem}: {told}");
        let named = format!("fedgate.toml: `store.path` names `{}`, which ", store.display());
        assert!(told.contains(&named), "{told}");
        assert!(!copy.exists() && fs::read(&store).unwrap() == content, "{problem}");
    }
}

#[test]
fn a_full_disk_of_the_copy_is_not_blamed_on_the_store() {
    if !Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|status| status.success()) {
        println!("not run: this machine lets nobody mount");
        return;
    }
    let scratch = Scratch::new();
    let config = configuration(&scratch.0);
    assert!(fedhis(&["seed"], &config).status.success());
    let disk = scratch.0.join("disk");
    fs::create_dir(&disk).unwrap();
    // Too small for any store.
    let script = "mount -t tmpfs -o size=16k none \"$1\" && \"$2\" backup \"$1/copy.db\" --config \"$3\"; code=$?; ls -A \"$1\"; exit $code";
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", script, "sh"]).arg(&disk).arg(crate::support::programs::fedhis()).arg(&config);
    let refused = command.output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    let problem =
        format!("`{}` cannot be written, because its file system is full; make room", disk.join("copy.db").display());
    assert!(refused.status.code() == Some(1) && told.contains(&problem) && !told.contains("store.path"), "{told}");
    assert_eq!(String::from_utf8_lossy(&refused.stdout), "", "nothing is left of the copy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_postgres_is_restored_as_its_page_says_and_the_command_leads_there() {
    let cluster = Cluster::shared();
    let his = His::on_postgres().await;
    his.person("BEFORE", r#"{"name":"B","password":"gnusolidario"}"#).await;
    let StoreConfig::Postgres(config) = his.config.clone() else { unreachable!() };
    let scratch = Scratch::new();
    let refused = backup(&scratch.0.join("copy.db"), &configuration_on(&scratch.0, &config.uri));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && told.contains("`pg_dump -Fc -f FILE DATABASE`"), "{told}");
    let restored = cluster.dumped_and_restored(&config);
    assert!(fedhis(&["migrate"], &configuration_on(&scratch.0, &restored.uri)).status.success());
    let kept = "SELECT count(*) FROM people p JOIN fedgate_logins l ON l.row_writer = p.xmin AND l.row_place = p.ctid";
    assert_eq!(postgres_text(&restored, kept).await, "1", "logins read no documents");
    let his = His::on(restored).await;
    assert_eq!(his.get(&root(), "/people/BEFORE").await.json()["name"], "B");
}
