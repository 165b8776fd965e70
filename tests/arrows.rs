//! Compares documents with the code: the module map of docs/ARCHITECTURE.md with its picture, the members and
//! reasons of records, and the tests that documents name.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test panics to fail"
)]

#[path = "arrows/circles.rs"]
mod circles;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use fedgate_core::codes::{AnswerCode, AnsweringProgram};

/// The map: a module, and the modules that it may name. A module without a row may name none.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string("docs/ARCHITECTURE.md").unwrap();
    let table = text.split("<!-- arrows -->").nth(1).expect("the table stands between two `<!-- arrows -->` marks");
    let mut arrows = BTreeMap::new();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        let name = cells.next().unwrap().trim_matches('`').to_owned();
        let names: BTreeSet<String> = cells
            .next()
            .unwrap()
            .split(", ")
            .filter(|cell| *cell != "-")
            .map(|cell| cell.trim_matches('`').to_owned())
            .collect();
        arrows.insert(name, names);
    }
    assert!(arrows.len() > 10, "the table was found");
    arrows
}

/// The packages and their folders. Their manifests say which may name which, and the compiler enforces that.
const PACKAGES: [(&str, &str); 3] =
    [("fedgate", "src"), ("fedgate_base", "crates/base/src"), ("fedgate_core", "crates/core/src")];

/// Packages that are one module of the map, with their folders. Their inner modules are their own affair.
const WHOLE: [(&str, &str, &str); 3] = [
    ("his", "fedgate_his", "crates/his/src"),
    ("index", "fedgate_index", "crates/index/src"),
    ("fhir", "fedgate_fhir", "crates/fhir/src"),
];

fn is_whole(folder: &Path) -> bool {
    WHOLE.iter().any(|(_, _, whole)| folder == Path::new(whole))
}

/// All modules that a module reaches, directly and through others.
fn reached(arrows: &BTreeMap<String, BTreeSet<String>>, module: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&String> = arrows[module].iter().collect();
    while let Some(name) = open.pop() {
        if reached.insert(name.clone()) {
            open.extend(&arrows[name]);
        }
    }
    reached
}

/// The map as a mermaid diagram: a box for each package, and the arrows that do not follow from others.
fn picture(arrows: &BTreeMap<String, BTreeSet<String>>) -> String {
    let mut lines = vec!["flowchart LR".to_owned()];
    let modules = modules();
    let folders = PACKAGES.iter().copied().chain(WHOLE.map(|(_, package, folder)| (package, folder)));
    for (package, folder) in folders {
        lines.push(format!("    subgraph {package}[\"{}\"]", package.replace('_', "-")));
        let folder = Path::new(folder);
        let of_package = |at: &Path| at == folder || (!is_whole(folder) && at.parent() == Some(folder));
        lines.extend(modules.iter().filter(|(_, at)| of_package(at)).map(|(module, _)| format!("        {module}")));
        lines.push("    end".to_owned());
    }
    for (module, named) in arrows {
        let follows = |name: &&String| named.iter().any(|other| reached(arrows, other).contains(*name));
        lines.extend(named.iter().filter(|name| !follows(name)).map(|name| format!("    {module} --> {name}")));
    }
    lines.join("\n")
}

/// Each module of the map and its folder.
fn modules() -> BTreeMap<String, PathBuf> {
    fn declared(line: &str) -> Option<&str> {
        line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ")?.strip_suffix(';')
    }
    let mut modules: BTreeMap<_, _> =
        WHOLE.iter().map(|(module, _, folder)| ((*module).to_owned(), PathBuf::from(folder))).collect();
    for (_, folder) in PACKAGES {
        let lib = std::fs::read_to_string(Path::new(folder).join("lib.rs")).unwrap();
        for module in lib.lines().filter_map(declared) {
            let earlier = modules.insert(module.to_owned(), Path::new(folder).join(module));
            assert!(earlier.is_none(), "two packages have a module `{module}`");
        }
    }
    modules
}

/// The modules that the files of a module name, without tests.
fn named(module: &Path) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for file in files(module) {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let code = code.join("\n");
        let own = if is_whole(module) { None } else { Some("crate") };
        for package in PACKAGES.iter().map(|(package, _)| *package).chain(own) {
            for part in code.split(&format!("{package}::")).skip(1) {
                let group = part.strip_prefix('{').and_then(|part| part.split('}').next());
                for name in group.unwrap_or(part).split(',').take(if group.is_some() { usize::MAX } else { 1 }) {
                    let name = name.trim_start().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                    named.insert(name);
                }
            }
        }
        let whole = WHOLE.iter().filter(|(_, package, _)| code.contains(package));
        named.extend(whole.map(|(module, _, _)| (*module).to_owned()));
    }
    named
}

fn files(module: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let file = module.with_extension("rs");
    if file.exists() {
        found.push(file);
    }
    if module.is_dir() {
        for entry in std::fs::read_dir(module).unwrap() {
            let path = entry.unwrap().path();
            if path.file_stem().is_some_and(|stem| stem == "tests") {
                continue;
            }
            if path.is_dir() {
                found.extend(files(&path));
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                found.push(path);
            }
        }
    }
    found
}

fn all_files() -> Vec<PathBuf> {
    let folders = PACKAGES.iter().map(|(_, folder)| *folder).chain(WHOLE.map(|(_, _, folder)| folder));
    folders.flat_map(|folder| files(Path::new(folder))).collect()
}

#[test]
fn every_module_names_only_what_the_map_allows() {
    let arrows = arrows();
    let modules = modules();
    assert_eq!(
        modules.keys().collect::<BTreeSet<_>>(),
        arrows.keys().collect(),
        "the map has every module, and no other"
    );
    let mut faults = Vec::new();
    for (module, folder) in &modules {
        let mut named = named(folder);
        named.remove(module);
        let allowed = &arrows[module];
        faults.extend(
            named.difference(allowed).map(|name| format!("`{module}` names `{name}`, which the map does not allow")),
        );
        faults.extend(
            allowed
                .difference(&named)
                .map(|name| format!("the map allows `{module}` to name `{name}`, which it does not")),
        );
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(!arrows["gateway"].contains("his") && !arrows["his"].contains("gateway"), "the trust boundary");
}

#[test]
fn the_picture_of_the_modules_is_that_of_the_map() {
    let text = std::fs::read_to_string("docs/ARCHITECTURE.md").unwrap();
    let drawn = text.split("<!-- picture -->").nth(1).expect("the picture is between two `<!-- picture -->` marks");
    let picture = format!("```mermaid\n{}\n```", picture(&arrows()));
    assert!(drawn.trim() == picture, "the map has changed; its picture in docs/ARCHITECTURE.md is now\n\n{picture}\n");
}

/// Whether a line names a crate, and not another crate whose name has the same end.
fn names(line: &str, vendor: &str) -> bool {
    let before = |at: usize| line.get(..at).and_then(|text| text.chars().next_back());
    line.match_indices(vendor).any(|(at, _)| before(at).is_none_or(|c| !c.is_alphanumeric() && c != '_'))
}

#[test]
fn each_vendor_lives_in_one_module() {
    for (vendor, homes) in [
        ("pingora_", &["src/gateway"][..]),
        ("axum::", &["crates/his/src"]),
        ("argon2::", &["crates/core/src/password.rs"]),
        ("bcrypt::", &["crates/core/src/password.rs"]),
        ("quick_xml::", &["crates/fhir/src/read/xml.rs"]),
        ("notify::", &["src/reload"]),
        ("moka::", &["src/authn"]),
        ("rusqlite::", &["crates/base/src/db", "src/accounts/sqlite", "crates/his/src/store"]),
        (
            "tokio_postgres::",
            &["crates/base/src/db", "src/accounts/postgres", "crates/his/src/store", "crates/base/src/config"],
        ),
    ] {
        let mut users = 0;
        for file in all_files() {
            let text = std::fs::read_to_string(&file).unwrap();
            let uses = text
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && names(line, vendor) && !line.contains('"'));
            users += usize::from(uses);
            let at_home = homes.iter().any(|home| file.starts_with(home));
            assert!(!uses || at_home, "{vendor} in {}", file.display());
        }
        assert!(users > 0, "nobody uses {vendor}: the walk found no files");
    }
}

/// Every `file::test` that a document names is a test of that file. `::test` belongs to the file named before it.
#[test]
fn every_test_that_a_document_names_is_there() {
    for (document, least) in [("docs/DEPENDENCIES.md", 20), ("docs/ATTACKS.md", 60)] {
        let text = std::fs::read_to_string(document).unwrap();
        let (mut file, mut named) = (String::new(), 0);
        for word in text.split('`').filter(|word| word.contains("::") && !word.contains([' ', '"'])) {
            let (at, test) = word.split_once("::").unwrap();
            if !at.is_empty() {
                let places = ["", "tests/", "tests/gateway/"].map(|place| format!("{place}{at}"));
                let found = places.iter().find(|place| Path::new(place).is_file());
                file = std::fs::read_to_string(found.unwrap_or_else(|| panic!("{document}: no file {at}"))).unwrap();
            }
            assert!(file.contains(&format!("fn {test}(")), "{document}: {word}");
            named += 1;
        }
        assert!(named >= least, "{document} names {named}");
    }
}

/// The string literals in the code of some files, without tests.
fn texts(files: &[&str]) -> BTreeSet<String> {
    let mut texts = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let lines: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        texts.extend(lines.join("\n").split('"').skip(1).step_by(2).map(str::to_owned));
    }
    texts
}

/// Each member of a record, and each reason, occurs as a word of its own in docs/RECORDS.md.
#[test]
fn every_field_and_every_reason_of_a_record_is_in_its_chapter() {
    let chapter = std::fs::read_to_string("docs/RECORDS.md").unwrap();
    let fields = texts(&["src/observe/record.rs", "src/observe/run.rs", "src/observe/account_change.rs"]);
    let mut reasons =
        texts(&["crates/core/src/reasons.rs", "crates/core/src/path.rs", "crates/core/src/policy/mod.rs"]);
    let of_the_gateway = AnswerCode::ALL.iter().filter(|answer| answer.program() != AnsweringProgram::His);
    reasons.extend(of_the_gateway.map(|answer| answer.code().to_owned()));
    let is_word = |text: &&String| {
        let mut parts = text.split(['_', '.']);
        parts.all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase()))
    };
    // Codes for clients whose records give a more exact reason, and one member of answers.
    let others = ["bad_request_target", "not_permitted", "request_id"];
    let is_reason = |text: &&String| text.contains('_') && is_word(text) && !others.contains(&text.as_str());
    let words: BTreeSet<&String> = fields.iter().filter(is_word).chain(reasons.iter().filter(is_reason)).collect();
    assert!(words.len() > 80, "{words:?}");
    let missing: Vec<_> = words.into_iter().filter(|word| !chapter.contains(&format!("`{word}`"))).collect();
    assert!(missing.is_empty(), "docs/RECORDS.md does not have {missing:?}");
}

/// Cargo is given each binary of tests by name, so it would silently skip a file that no binary names.
#[test]
fn every_file_of_tests_is_part_of_a_binary() {
    let roots = ["arrows", "documents", "fast", "process", "long"];
    let text = |path: String| std::fs::read_to_string(path).unwrap();
    let named: String = roots.iter().map(|root| text(format!("tests/{root}.rs"))).collect();
    let manifests = text("Cargo.toml".into()) + &text("crates/core/Cargo.toml".into());
    let mut files = 0;
    for entry in std::fs::read_dir("tests").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|kind| kind != "rs") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        let is_root = manifests.contains(&format!("[[test]]\nname = \"{name}\"\n"));
        assert!(is_root || named.contains(&format!("\nmod {name};\n")), "no binary has tests/{name}.rs");
        files += 1;
    }
    assert!(files > roots.len(), "{files} files of tests were found");
}

/// The packages that a package is built of, without itself and without test dependencies.
fn dependencies(package: &str) -> BTreeSet<String> {
    let arguments = ["tree", "--offline", "--locked", "--prefix", "none", "--edges", "normal", "--package", package];
    let out = Command::new(env!("CARGO")).args(arguments).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let names: BTreeSet<String> = text.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect();
    assert!(names.contains("serde"), "{}", String::from_utf8_lossy(&out.stderr));
    names
}

#[test]
fn no_package_is_built_of_what_its_side_of_the_trust_boundary_has_no_use_for() {
    for (package, absent) in [
        ("fedgate-core", &["tokio", "tokio-postgres", "rusqlite", "hyper", "fedgate-base"][..]),
        ("fedgate-base", &["hyper", "axum", "pingora-core", "moka", "notify"]),
        ("fedgate-his", &["pingora-core", "pingora-proxy", "pingora-http", "moka", "notify", "fedgate"]),
        ("fedgate-index", &["tokio", "tokio-postgres", "rusqlite", "hyper", "fedgate-base", "fedgate-core"]),
        ("fedgate-fhir", &["tokio", "tokio-postgres", "rusqlite", "hyper", "fedgate-base", "fedgate-core"]),
        ("fedgate", &["axum", "fedgate-his", "fedgate-index", "fedgate-fhir"]),
    ] {
        let built_of = dependencies(package);
        for dependency in absent {
            assert!(!built_of.contains(*dependency), "{package} is built of {dependency}");
        }
    }
}
