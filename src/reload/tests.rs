use std::borrow::Borrow;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::history;
use fedgate_base::config::Config;

fn policy(role: &str) -> String {
    format!(r#"[{{"role": "{role}", "permissions": {{"GET": ["login"]}}}}]"#)
}

struct Fixture {
    dir: PathBuf,
    path: PathBuf,
    current: Arc<ArcSwap<PolicySet>>,
    history: PathBuf,
    state: Arc<FileState>,
    task: tokio::task::JoinHandle<()>,
}

impl Fixture {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("fedgate-reload-{:x}", rand::random::<u128>()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("roles.cfg");
        std::fs::write(&path, policy("first")).unwrap();
        let current = Arc::new(ArcSwap::from_pointee(read_policy(&path).unwrap()));
        fedgate_base::regular::write(&dir.join("secret"), 0o600, &[b'k'; 40]).unwrap();
        std::fs::write(dir.join("fedgate.toml"), "[assertion]\nsecret_file = \"secret\"\n").unwrap();
        let config = Config::load_with(&dir.join("fedgate.toml"), std::iter::empty()).unwrap();
        let routes = RouteTable::from_config(&config).unwrap();
        let (history, state) = (dir.join("history"), Arc::new(FileState::default()));
        let task = tokio::spawn(keep_current(
            path.clone(),
            Some(history.clone()),
            Arc::clone(&current),
            Arc::new(routes),
            Arc::clone(&state),
            Arc::default(),
        ));
        Self { dir, path, current, history, state, task }
    }

    async fn becomes(&self, role: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.current.load().definitions(role).next().is_none() {
            assert!(Instant::now() < deadline, "the policy of `{role}` never came into force");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[tokio::test]
async fn writes_renames_and_symlink_swaps_come_into_force() {
    let fixture = Fixture::new();
    std::fs::write(&fixture.path, policy("in_place")).unwrap();
    fixture.becomes("in_place").await;

    let beside = fixture.dir.join("roles.cfg.new");
    std::fs::write(&beside, policy("renamed")).unwrap();
    std::fs::rename(&beside, &fixture.path).unwrap();
    fixture.becomes("renamed").await;

    // A mounted ConfigMap: the file is a link through `..data`, and `..data` is swapped.
    for generation in ["one", "two"] {
        std::fs::create_dir(fixture.dir.join(generation)).unwrap();
        std::fs::write(fixture.dir.join(generation).join("roles.cfg"), policy(generation)).unwrap();
        std::os::unix::fs::symlink(generation, fixture.dir.join("..data_new")).unwrap();
        std::fs::rename(fixture.dir.join("..data_new"), fixture.dir.join("..data")).unwrap();
        if generation == "one" {
            std::fs::remove_file(&fixture.path).unwrap();
            std::os::unix::fs::symlink("..data/roles.cfg", &fixture.path).unwrap();
        }
        fixture.becomes(generation).await;
    }
}

#[tokio::test]
async fn a_policy_that_could_not_be_kept_is_tried_again_while_it_is_in_force_and_that_is_seen() {
    let fixture = Fixture::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !fixture.history.is_dir() || std::fs::read_dir(&fixture.history).unwrap().count() == 0 {
        assert!(Instant::now() < deadline, "the first is kept");
        sleep(Duration::from_millis(5)).await;
    }
    let away = fixture.dir.join("away");
    std::fs::rename(&fixture.history, &away).unwrap();
    std::fs::write(&fixture.history, "no directory").unwrap();
    std::fs::write(&fixture.path, policy("second")).unwrap();
    fixture.becomes("second").await;
    while !fixture.state.is_unkept() {
        assert!(Instant::now() < deadline, "it is seen");
        sleep(Duration::from_millis(5)).await;
    }
    std::fs::remove_file(&fixture.history).unwrap();
    std::fs::rename(&away, &fixture.history).unwrap();
    let kept = history::path_of(&fixture.history, fixture.current.load().fingerprint());
    while fixture.state.is_unkept() || !kept.exists() {
        assert!(Instant::now() < deadline, "it is kept once it can be");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn same_size_and_mtime_with_other_content_comes_into_force() {
    let fixture = Fixture::new();
    let modified = std::fs::metadata(&fixture.path).unwrap().modified().unwrap();
    std::fs::write(&fixture.path, policy("other")).unwrap();
    File::options().write(true).open(&fixture.path).unwrap().set_modified(modified).unwrap();
    fixture.becomes("other").await;
}

#[tokio::test]
async fn the_last_good_policy_survives_every_fault() {
    let fixture = Fixture::new();
    let path = &fixture.path;
    let write = |bytes: &[u8]| std::fs::write(path, bytes).unwrap();
    for step in 0..9 {
        match step {
            0 => write(b""),
            1 => write(b"{}"),
            2 => write(policy("truncated").as_bytes().split_last().unwrap().1),
            3 => write(b"\xff\xfe["),
            4 => std::fs::remove_file(path).unwrap(),
            5 => std::fs::create_dir(path).unwrap(),
            6 => {
                std::fs::remove_dir(path).unwrap();
                rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
                    .unwrap();
            }
            7 => {
                std::fs::remove_file(path).unwrap();
                File::create(path).unwrap().set_len(100 << 20).unwrap();
            }
            _ => {
                write(policy("unreadable").as_bytes());
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o000)).unwrap();
            }
        }
        assert!(step == 8 || read_policy(path).is_err(), "step {step} is a fault");
        sleep(LOOK + SETTLE).await;
        let current = fixture.current.load();
        // Root can read files without permission; then the last step is no fault.
        let good = current.definitions("first").next().is_some()
            || (step == 8 && current.definitions("unreadable").next().is_some());
        assert!(good, "step {step}");
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    write(policy("good_again").as_bytes());
    fixture.becomes("good_again").await;
}

#[tokio::test]
async fn reading_the_file_is_no_news_and_writing_it_is() {
    let dir = std::env::temp_dir().join(format!("fedgate-notices-{:x}", rand::random::<u128>()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("roles.cfg");
    std::fs::write(&path, policy("first")).unwrap();
    let (notice, mut notices) = mpsc::channel(1000);
    let _watcher = watch_directory(&path, notice).unwrap();
    for _ in 0..100 {
        read_policy(&path).unwrap();
    }
    std::fs::write(&path, policy("second")).unwrap();
    std::fs::rename(&path, dir.join("last")).unwrap();
    let mut count = 0;
    while let Ok(Some(())) = tokio::time::timeout(Duration::from_millis(500), notices.recv()).await {
        count += 1;
    }
    assert!((1..20).contains(&count), "{count} notices of one write and one rename");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_mixture_of_two_writes_is_not_taken_for_a_policy() {
    let [first, second, mixture] = ["first", "second", "mixture"].map(|role| policy(role).into_bytes());
    let in_force = PolicySet::parse(&first).unwrap();
    let of = |reads: [&Vec<u8>; 2]| {
        let mut reads = reads.into_iter().cloned();
        changed(|| Ok(reads.next().unwrap()), &in_force, &RouteTable::default())
    };
    assert!(matches!(of([&mixture, &second]), Err(ReloadError::Unsettled)));
    assert_eq!(of([&second, &second]).unwrap().unwrap().0.roles()[0].name, "second");
    assert!(of([&first, &second]).unwrap().is_none());
}

#[test]
fn a_fault_is_reported_when_the_file_is_at_rest_or_faulty_for_long() {
    let path = std::env::temp_dir().join(format!("fedgate-doubt-{:x}", rand::random::<u128>()));
    let mut doubt = FileDoubt::default();
    let began = Instant::now();
    let mut is_told_at = |ms: u64, file| doubt.is_settled("line 1", file, began + Duration::from_millis(ms));
    let written = |text: &str| {
        std::fs::write(&path, text).unwrap();
        FileSignature::of(&path)
    };
    let file = written("[");
    assert!(!is_told_at(0, file), "the rest of it may come");
    let file = written("[[");
    assert!(!is_told_at(240, file) && !is_told_at(480, file), "somebody writes");
    assert!(is_told_at(490, file), "left alone");
    for (ms, is_told) in [(1000, false), (1200, false), (1400, false), (1600, false), (1700, true)] {
        let file = written(&"[".repeat(ms as usize));
        assert_eq!(is_told_at(ms, file), is_told, "written all the time, {ms} ms");
    }
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn every_policy_that_was_in_force_is_kept_from_that_of_the_start_on_however_fast_they_come() {
    let fixture = Fixture::new();
    let policies: Vec<_> = ["first", "second", "third"].map(policy).into();
    for (role, policy) in ["second", "third"].iter().zip(&policies[1..]) {
        // The second replaces the first before anything has looked at the file.
        std::fs::write(&fixture.path, policy).unwrap();
        fixture.becomes(role).await;
    }
    are_kept(&fixture.history, policies.iter().map(|policy| PolicySet::parse(policy.as_bytes()).unwrap())).await;

    let queue = fixture.dir.join("queue");
    let policies: Vec<_> =
        (0..20).map(|n| Arc::new(PolicySet::parse(policy(&format!("role_{n}")).as_bytes()).unwrap())).collect();
    let mut kept = KeptPolicies::begin(queue.clone(), Arc::clone(&policies[0]), Arc::default());
    policies.iter().for_each(|policy| kept.keep(Arc::clone(policy)));
    are_kept(&queue, policies).await;
}

async fn are_kept(history: &Path, policies: impl IntoIterator<Item = impl Borrow<PolicySet>>) {
    let deadline = Instant::now() + Duration::from_secs(10);
    for policy in policies {
        while !history::path_of(history, policy.borrow().fingerprint()).exists() {
            assert!(Instant::now() < deadline, "a policy is not kept");
            sleep(Duration::from_millis(5)).await;
        }
    }
}
