//! The import, as the operator runs it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use fedgate_his::import::{ClearPasswords, ImportKind, ImportRun, ImportSummary};
use serde_json::json;

use crate::support::{HASHES, His, professional};

const HASH: &str = "$2b$12$cjrzjdZJGA6ARGr5Z1HVpOIyvhVrHAO3TN6t39r4X5rLrhRDlNUmi";

async fn run(his: &His, kind: ImportKind, file: &Path) -> Result<ImportSummary, fedgate_his::import::ImportError> {
    let clear_passwords = ClearPasswords::Refuse;
    let import = ImportRun {
        store: &his.store,
        kind,
        clear_passwords,
        hashes: HASHES,
        path: Some(file.to_owned()),
        progress: &|_| {},
    };
    import.run(|| fs::File::open(file).map(std::io::BufReader::new)).await
}

async fn count(his: &His) -> String {
    his.sql_text("SELECT CAST(count(*) AS text) FROM people").await.unwrap()
}

/// Imports `text`, and is interrupted while the second batch is read: the first one is committed all the same.
async fn interrupt(his: &His, file: &Path, text: &str) {
    struct Interrupted<'a>(&'a [u8]);
    impl std::io::Read for Interrupted<'_> {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            unreachable!("read through its buffer")
        }
    }
    impl std::io::BufRead for Interrupted<'_> {
        fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
            match self.0 {
                [] => Err(std::io::Error::other("interrupted")),
                rest => Ok(rest),
            }
        }
        fn consume(&mut self, count: usize) {
            self.0 = &self.0[count..];
        }
    }
    fs::write(file, text).unwrap();
    let most = text.len() / 10 * 9;
    let (clear_passwords, path) = (ClearPasswords::Refuse, Some(file.to_owned()));
    let import = ImportRun {
        store: &his.store,
        kind: ImportKind::People,
        clear_passwords,
        hashes: HASHES,
        path,
        progress: &|_| {},
    };
    let interrupted = import.run(|| Ok(Interrupted(&text.as_bytes()[..most]))).await.unwrap_err();
    assert!(interrupted.to_string().contains("interrupted"), "{interrupted}");
    let state = fs::read_to_string(format!("{}.import-state", file.display())).unwrap();
    assert!(state.contains("\"records\":500"), "{state}");
}

fn summary(created: u64, unchanged: u64, refused: u64) -> ImportSummary {
    ImportSummary { created, unchanged, refused, resumed: 0 }
}

crate::on_both_stores! {
    async fn people_and_pages_come_in_every_form_and_again_as_unchanged(his) {
        let file = his.scratch.0.join("people.json");
        let thalamus = json!([[{"id": "ANA", "name": "Ana", "password": HASH}], [{"id": "BOB", "roles": ["root"]}]]);
        fs::write(&file, serde_json::to_string_pretty(&thalamus).unwrap()).unwrap();
        assert_eq!(run(&his, ImportKind::People, &file).await.unwrap(), summary(2, 0, 0));
        assert_eq!(run(&his, ImportKind::People, &file).await.unwrap(), summary(0, 2, 0));
        fs::write(&file, "{\"id\":\"ANA\",\"name\":\"Ana\"}\n\n{\"id\":\"EVE\"}").unwrap();
        assert_eq!(run(&his, ImportKind::People, &file).await.unwrap(), summary(1, 1, 0));
        let pages = his.scratch.0.join("pages.jsonl");
        fs::write(&pages, "[{\"id\":\"p1\",\"book\":\"ANA\"},\n{\"id\":\"p2\",\"book\":\"EVE\",\"n\":1e2}]").unwrap();
        assert_eq!(run(&his, ImportKind::Pages, &pages).await.unwrap(), summary(2, 0, 0));
        assert_eq!(run(&his, ImportKind::Pages, &pages).await.unwrap(), summary(0, 2, 0));
        assert_eq!(his.get(&professional(), "/people/EVE").await.json(), json!({"id": "EVE", "roles": ["end_user"]}));
        assert_eq!(his.get(&professional(), "/pols/ANA/p1").await.json(), json!({"id": "p1", "book": "ANA"}));
        let stored = his.sql_text("SELECT data ->> 'password' FROM people WHERE id = 'ANA'").await;
        assert_eq!(stored.as_deref(), Some(HASH));
        assert!(fs::read_dir(&his.scratch.0).unwrap().all(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            !name.contains("import-state") && !name.contains("refused")
        }));
    }

    async fn what_cannot_be_stored_is_written_down_with_line_and_reason_and_the_rest_goes_on(his) {
        his.person("ANA", r#"{"name":"Ana"}"#).await;
        let file = his.scratch.0.join("people.jsonl");
        let lines = [
            r#"{"id":"OK1"}"#, r#"{"id":"ANA","name":"Other"}"#, r#"{"name":"nobody"}"#, r#"{"id":"X","password":"clear"}"#,
            r#"not json"#, r#"{"id":"Y","roles":"root"}"#, r#"{"id":"a/b"}"#, r#"{"id":"a:b"}"#, r#"{"id":"OK2","password":""}"#, r#"[1]"#,
            r#"{"id":"N","n":[1e1000]}"#,
        ];
        // The byte order mark of some editors does not belong to the first record.
        fs::write(&file, format!("\u{feff}{}", lines.join("\n"))).unwrap();
        assert_eq!(run(&his, ImportKind::People, &file).await.unwrap(), summary(2, 0, 9));
        let refused = fs::read_to_string(his.scratch.0.join("people.jsonl.refused.jsonl")).unwrap();
        let refused: Vec<serde_json::Value> = refused.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(refused.iter().map(|line| line["line"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7, 8, 10, 11]);
        assert_eq!(refused[0]["reason"], "another record has this id");
        assert_eq!(refused[3]["record"], "not json");
        assert_eq!(refused[6]["reason"], "`id`: the id has a colon");
        let pages = his.scratch.0.join("pages.jsonl");
        fs::write(&pages, "{\"id\":\"p\",\"book\":\"NOBODY\"}\n{\"id\":\"q\",\"book\":\"ANA\"}\n{\"id\":\"q\",\"book\":\"OK1\"}\n{\"id\":\"n\",\"book\":\"ANA\",\"n\":[1e1000]}").unwrap();
        assert_eq!(run(&his, ImportKind::Pages, &pages).await.unwrap(), summary(1, 0, 3));
        let refused = fs::read_to_string(his.scratch.0.join("pages.jsonl.refused.jsonl")).unwrap();
        assert!(refused.lines().any(|line| line.contains("1e1000") && line.contains("\"line\":4")), "{refused}");
    }

    async fn records_of_one_batch_that_concern_each_other_are_settled_in_their_order(his) {
        his.person("ANA", r#"{"name":"Ana"}"#).await;
        his.sql("INSERT INTO people (id, data) VALUES ('old1', '{\"id\":\"old1\"}')").await;
        let file = his.scratch.0.join("people.jsonl");
        let lines = [
            r#"{"id":"NEW","n":1}"#, r#"{"id":"NEW","n":1}"#, r#"{"id":"NEW","n":2}"#, r#"{"id":"OLD1"}"#, r#"{"id":"old1"}"#,
            r#"{"id":"ANA","name":"Ana"}"#, r#"{"id":"ana","name":"Other"}"#, r#"{"id":"LAST"}"#,
        ];
        fs::write(&file, lines.join("\n")).unwrap();
        assert_eq!(run(&his, ImportKind::People, &file).await.unwrap(), summary(2, 2, 4));
        let reasons = |name: &str| -> Vec<(u64, String)> {
            let text = fs::read_to_string(his.scratch.0.join(name)).unwrap();
            let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
            let told = text.lines().map(line);
            told.map(|line| (line["line"].as_u64().unwrap(), line["reason"].as_str().unwrap().to_owned())).collect()
        };
        let (taken, twin) = ("another record has this id", "a person exists whose id differs only in case");
        let expected = [(3, taken), (4, twin), (5, twin), (7, taken)].map(|(line, reason)| (line, reason.to_owned()));
        assert_eq!(reasons("people.jsonl.refused.jsonl"), expected);
        // Ids beyond ASCII have spellings that one statement for all would not see in each other.
        let lines = [r#"{"id":"STRASSE"}"#, r#"{"id":"straße"}"#, r#"{"id":"ÑANDÚ"}"#, r#"{"id":"ñandú"}"#, r#"{"id":"NEXT"}"#];
        fs::write(&file, lines.join("\n")).unwrap();
        let done = run(&his, ImportKind::People, &file).await.unwrap();
        assert_eq!((done.created, done.unchanged + done.refused), (3, 2), "{done:?}");
        let pages = his.scratch.0.join("pages.jsonl");
        let lines = [
            r#"{"id":"p","book":"ANA","n":1}"#, r#"{"id":"p","book":"ANA","n":1.0}"#, r#"{"id":"p","book":"NEW"}"#,
            r#"{"id":"q","book":"NOBODY"}"#, r#"{"id":"q","book":"NEW"}"#, r#"{"id":"r","book":"old1"}"#, r#"{"id":"s","book":"OLD1"}"#,
        ];
        fs::write(&pages, lines.join("\n")).unwrap();
        let done = run(&his, ImportKind::Pages, &pages).await.unwrap();
        assert_eq!((done.created, done.unchanged, done.refused), (3, 1, 3));
        let nobody = "the person of the book does not exist";
        let expected = [(3, taken), (4, nobody), (7, nobody)].map(|(line, reason)| (line, reason.to_owned()));
        assert_eq!(reasons("pages.jsonl.refused.jsonl"), expected);
    }

    async fn what_is_stored_already_is_not_written_again(his) {
        his.person("ANA", "{}").await;
        let (file, other) = (his.scratch.0.join("people.jsonl"), his.scratch.0.join("others.jsonl"));
        let people = |at: usize| format!("{{\"id\":\"P{at}\",\"password\":\"{HASH}\"}}\n");
        fs::write(&file, (0..700).map(people).collect::<String>()).unwrap();
        assert_eq!(run(&his, ImportKind::People, &file).await.unwrap(), summary(700, 0, 0));
        let messages = "SELECT CAST(count(*) AS text) FROM fedgate_messages";
        let before = his.sql_text(messages).await;
        let versions = match &his.database {
            fedgate_base::db::Database::Postgres(_) => "SELECT md5(string_agg(xmin::text || ctid::text, ' ' ORDER BY id)) FROM people",
            fedgate_base::db::Database::Sqlite(_) => "SELECT 'no versions'",
        };
        let rows = his.sql_text(versions).await;
        assert_eq!(run(&his, ImportKind::People, &file).await.unwrap(), summary(0, 700, 0));
        // The same with another password, which may have been changed since.
        fs::write(&other, (0..700).map(people).collect::<String>().replace(HASH, "")).unwrap();
        assert_eq!(run(&his, ImportKind::People, &other).await.unwrap(), summary(0, 700, 0));
        assert_eq!((his.sql_text(messages).await, his.sql_text(versions).await), (before, rows));
    }

    async fn an_interrupted_import_goes_on_where_it_was(his) {
        let file = his.scratch.0.join("people.json");
        let people: Vec<String> = (0..1200).map(|at| format!("{{\"id\":\"P{at}\"}}")).collect();
        // The file ends early, like one that is still being written.
        let whole = format!("[{}]", people.join(",\n"));
        fs::write(&file, format!("{} ", &whole[..whole.len() - 1])).unwrap();
        assert!(run(&his, ImportKind::People, &file).await.is_err());
        let state: serde_json::Value =
            serde_json::from_slice(&fs::read(his.scratch.0.join("people.json.import-state")).unwrap()).unwrap();
        assert_eq!(state["records"], 1000, "two batches are committed");
        // The same size, now complete.
        fs::write(&file, &whole).unwrap();
        let done = run(&his, ImportKind::People, &file).await.unwrap();
        assert_eq!((done.resumed, done.created, done.unchanged, done.refused), (1000, 1200, 0, 0));
        assert!(!his.scratch.0.join("people.json.import-state").exists());
        assert_eq!(count(&his).await, "1200");
    }

    async fn a_record_that_is_refused_twice_by_a_repeated_batch_is_written_down_once(his) {
        let (file, refused) = (his.scratch.0.join("people.jsonl"), his.scratch.0.join("people.jsonl.refused.jsonl"));
        let of = |at: usize| if at.is_multiple_of(100) { format!("no person {at}\n") } else { format!("{{\"id\":\"P{at}\"}}\n") };
        let people: String = (0..700).map(of).collect();
        interrupt(&his, &file, &people).await;
        // The second batch broke off between its refused records and its progress.
        let mut written = fs::read_to_string(&refused).unwrap();
        assert_eq!(written.lines().count(), 5);
        written.push_str("{\"line\":501,\"reason\":\"it is no JSON object\",\"record\":\"no person 500\"}\n{\"line\":601,");
        fs::write(&refused, written).unwrap();
        let done = run(&his, ImportKind::People, &file).await.unwrap();
        assert_eq!((done.resumed, done.created, done.refused), (500, 693, 7));
        let written = fs::read_to_string(&refused).unwrap();
        let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["line"].as_u64().unwrap();
        assert_eq!(written.lines().map(line).collect::<Vec<_>>(), [1, 101, 201, 301, 401, 501, 601]);
    }

    async fn an_import_that_could_not_write_beside_its_input_stores_nothing(his) {
        let file = his.scratch.0.join("people.jsonl");
        fs::write(&file, "{\"id\":\"ONE\"}\n").unwrap();
        for name in ["people.jsonl.import-state.new", "people.jsonl.refused.jsonl"] {
            let beside = his.scratch.0.join(name);
            fs::create_dir(&beside).unwrap();
            let error = run(&his, ImportKind::People, &file).await.unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("must be able") && error.contains("files beside it"), "{error}");
            assert_eq!(count(&his).await, "0", "{name}");
            fs::remove_dir(&beside).unwrap();
        }
        assert_eq!(run(&his, ImportKind::People, &file).await.unwrap().created, 1);
        let left = fs::read_dir(&his.scratch.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(left.filter(|name| name.starts_with("people.jsonl.")).count(), 0);
    }

    async fn a_batch_is_bounded_by_its_bytes_too(his) {
        his.person("ANA", "{}").await;
        let file = his.scratch.0.join("pages.jsonl");
        let page = |at: usize| format!("{{\"id\":\"p{at}\",\"book\":\"ANA\",\"x\":\"{}\"}}\n", "x".repeat(1_000_000));
        fs::write(&file, (0..11).map(page).collect::<String>()).unwrap();
        let committed = std::sync::Mutex::new(vec![0]);
        let progress = |bytes| committed.lock().unwrap().push(bytes);
        let (clear_passwords, path) = (ClearPasswords::Refuse, Some(file.clone()));
        let import = ImportRun { store: &his.store, kind: ImportKind::Pages, clear_passwords, hashes: HASHES, path, progress: &progress };
        let done = import.run(|| fs::File::open(&file).map(std::io::BufReader::new)).await.unwrap();
        assert_eq!(done, summary(11, 0, 0));
        let committed = committed.into_inner().unwrap();
        let batches: Vec<u64> = committed.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(batches.len() == 3 && batches.iter().all(|bytes| *bytes < 6_000_000), "{batches:?}");
    }

    async fn progress_counts_for_the_same_bytes_alone(his) {
        let file = his.scratch.0.join("people.jsonl");
        let people = |renamed: &str| (0..600).map(|at| format!("{{\"id\":\"P{at}\"}}\n")).collect::<String>().replace("P7\"", renamed);
        let edits: [(&str, String); 4] = [
            ("of the same size", people("Q7\"")),
            ("by a record less", people("P7\"").replace("{\"id\":\"P8\"}\n", "")),
            ("by its form", format!("[{}]", people("X7\"").trim_end().replace('\n', ","))),
            ("by almost everything", "{\"id\":\"Z\"}\n".to_owned()),
        ];
        for (how, edited) in edits {
            interrupt(&his, &file, &people("P7\"")).await;
            fs::write(&file, &edited).unwrap();
            let done = run(&his, ImportKind::People, &file).await.unwrap();
            assert_eq!(done.resumed, 0, "{how}");
            let records = edited.matches("id").count() as u64;
            assert_eq!((done.created + done.unchanged, done.refused), (records, 0), "{how}");
        }
        for id in ["Q7", "X7", "Z"] {
            assert_eq!(his.get(&professional(), &format!("/people/{id}")).await.status, 200, "{id}");
        }
    }

    async fn progress_counts_for_the_same_store_alone(his) {
        let file = his.scratch.0.join("people.jsonl");
        let people: String = (0..600).map(|at| format!("{{\"id\":\"P{at}\"}}\n")).collect();
        let other = His::on_sqlite().await;
        interrupt(&other, &file, &people).await;
        let done = run(&his, ImportKind::People, &file).await.unwrap();
        assert_eq!(done, summary(600, 0, 0));
        assert_eq!(count(&his).await, "600");
        // Another migration leaves the store's id as it is.
        interrupt(&his, &file, &people).await;
        fedgate_base::db::schema::migrate(&his.database).await.unwrap();
        assert_eq!(run(&his, ImportKind::People, &file).await.unwrap().resumed, 500);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_reports_and_exits_with_one_when_records_were_refused() {
    let his = His::on_sqlite().await;
    let config = super::program::configuration(&his.scratch.0);
    let import = |arguments: &[&str], input: &str| -> Output {
        let mut command = Command::new(crate::support::programs::fedhis());
        command.current_dir(&his.scratch.0).args(["import", "--config"]).arg(&config).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let clear = "{\"id\":\"ANA\",\"password\":\"clear-1\"}\n";
    let refused = import(&["people", "-"], clear);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert_eq!(String::from_utf8_lossy(&refused.stdout), "0 created, 0 unchanged, 1 refused\n");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("1 record was refused"), "{refused:?}");
    let empty = import(&["people", "-"], "\n");
    assert_eq!(
        String::from_utf8_lossy(&empty.stdout),
        "0 created, 0 unchanged, 0 refused (the input has no records)\n"
    );
    let hashed = import(&["people", "-", "--hash-passwords"], clear);
    assert_eq!(hashed.status.code(), Some(0), "{hashed:?}");
    let stored = his.sql_text("SELECT data ->> 'password' FROM people").await.unwrap();
    assert!(stored.starts_with("$argon2id$"));
    assert_eq!(import(&["people", "missing.json"], "").status.code(), Some(2));
    assert_eq!(import(&["animals", "-"], "").status.code(), Some(2));
}
