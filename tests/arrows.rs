//! Holds documents against the code: the module map of docs/ARCHITECTURE.md, which module names which; and the tests that
//! documents name.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test panics to fail"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The map: a module, and the modules it may name. What is missing here may name none.
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

/// The modules that the files of one module name, tests left out.
fn named(module: &Path) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for file in files(module) {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for part in line.split("crate::").skip(1) {
                let name: String = part.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                named.insert(name);
            }
        }
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

#[test]
fn every_module_names_only_what_the_map_allows() {
    let arrows = arrows();
    let lib = std::fs::read_to_string("src/lib.rs").unwrap();
    let declared = |line| str::strip_prefix(str::strip_prefix(line, "pub ").unwrap_or(line), "mod ")?.strip_suffix(';');
    let modules: Vec<&str> = lib.lines().filter_map(declared).collect();
    assert_eq!(
        modules.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(),
        arrows.keys().cloned().collect(),
        "the map has every module, and no other"
    );
    for module in modules {
        let mut named = named(&Path::new("src").join(module));
        named.remove(module);
        let allowed = &arrows[module];
        assert!(
            named.is_subset(allowed),
            "`{module}` names {:?}, which the map does not allow",
            named.difference(allowed)
        );
        assert!(
            allowed.is_subset(&named),
            "the map allows `{module}` to name {:?}, which it does not",
            allowed.difference(&named)
        );
    }
    assert!(!arrows["gateway"].contains("his") && !arrows["his"].contains("gateway"), "the trust boundary");
}

/// Whether a line names a crate, and not one whose name only ends alike.
fn names(line: &str, vendor: &str) -> bool {
    let before = |at: usize| line.get(..at).and_then(|text| text.chars().next_back());
    line.match_indices(vendor).any(|(at, _)| before(at).is_none_or(|c| !c.is_alphanumeric() && c != '_'))
}

#[test]
fn each_vendor_lives_in_one_module() {
    for (vendor, homes) in [
        ("pingora_", &["gateway"][..]),
        ("axum::", &["his"]),
        ("argon2::", &["password.rs"]),
        ("bcrypt::", &["password.rs"]),
        ("notify::", &["reload"]),
        ("moka::", &["authn"]),
        ("rusqlite::", &["db", "accounts", "his/store"]),
        ("tokio_postgres::", &["db", "accounts", "his/store", "config"]),
    ] {
        let mut users = 0;
        for file in files(Path::new("src")) {
            let text = std::fs::read_to_string(&file).unwrap();
            let uses = text
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && names(line, vendor) && !line.contains('"'));
            users += usize::from(uses);
            let at_home = homes.iter().any(|home| file.starts_with(Path::new("src").join(home)));
            assert!(!uses || at_home, "{vendor} in {}", file.display());
        }
        assert!(users > 0, "nobody uses {vendor}: the walk found no files");
    }
}

/// Every `file::test` that a document names is a test of that file; `::test` is one of the file named before it.
#[test]
fn every_test_that_a_document_names_is_there() {
    for (document, least) in [("docs/DEPENDENCIES.md", 20), ("docs/SECURITY.md", 60)] {
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
