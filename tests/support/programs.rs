//! The programs under test.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

/// The sources of the HIS's program.
const SOURCES: [&str; 3] = ["crates/his/src", "crates/base/src", "crates/core/src"];

/// The path of fedhis, which cargo builds beside the gateway.
///
/// It belongs to another package, so a run of one suite alone does not build it. A program older than its sources
/// is refused rather than tested.
pub fn fedhis() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = Path::new(env!("CARGO_BIN_EXE_fedgate")).with_file_name("fedhis");
        let built = modified(&program).expect("`cargo build` makes fedhis");
        for source in SOURCES.iter().flat_map(|folder| sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))) {
            let is_older = modified(&source).is_some_and(|written| written <= built);
            assert!(is_older, "{} was changed since fedhis was built: run `cargo build` first", source.display());
        }
        program.to_str().expect("a path of characters").to_owned()
    })
}

/// The files in a folder and its subfolders, without unit tests, which are part of no program.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder of sources");
    let paths = entries.map(|entry| entry.expect("a file of the folder").path());
    let paths = paths.filter(|path| path.file_stem().is_some_and(|name| name != "tests"));
    paths.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}
