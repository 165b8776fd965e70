//! Modules never name each other in a circle, in any package, however long the circle is.
//!
//! A module and its inner modules count as one step of the tree, and may name each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The packages and the folders of their libraries.
const LIBRARIES: [(&str, &str); 5] = [
    ("fedgate", "src"),
    ("fedgate_base", "crates/base/src"),
    ("fedgate_core", "crates/core/src"),
    ("fedgate_his", "crates/his/src"),
    ("fedgate_index", "crates/index/src"),
];

/// A module by its path: the package first.
type ModulePath = Vec<String>;

/// Each module and its file, without unit tests and programs.
fn modules() -> BTreeMap<ModulePath, PathBuf> {
    let mut modules = BTreeMap::new();
    for (package, folder) in LIBRARIES {
        collect(Path::new(folder), &vec![package.to_owned()], &mut modules);
    }
    modules
}

fn collect(folder: &Path, within: &ModulePath, modules: &mut BTreeMap<ModulePath, PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let module = || within.iter().cloned().chain([name.clone()]).collect();
        match (path.is_dir(), name.as_str()) {
            (_, "tests" | "bin") => {}
            (true, _) => collect(&path, &module(), modules),
            (false, "lib" | "mod") => drop(modules.insert(within.clone(), path)),
            (false, _) if path.extension().is_some_and(|kind| kind == "rs") => drop(modules.insert(module(), path)),
            (false, _) => {}
        }
    }
}

/// The paths that a file names, in segments. Groups are expanded.
fn named_paths(file: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut paths = Vec::new();
    let starts = LIBRARIES.map(|(package, _)| package).into_iter().chain(["crate", "super", "self"]);
    for start in starts {
        for (at, _) in code.match_indices(&format!("{start}::")) {
            let before = code.get(..at).and_then(|text| text.chars().next_back());
            if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':') {
                spread(&code[at..], vec![], &mut paths);
            }
        }
    }
    paths
}

/// Follows a path from its first segment. `{` begins several paths with the same start.
fn spread(text: &str, mut path: Vec<String>, paths: &mut Vec<Vec<String>>) {
    let mut rest = text.trim_start();
    loop {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if end == 0 {
            break;
        }
        path.push(rest[..end].to_owned());
        match rest[end..].strip_prefix("::") {
            Some(next) => rest = next,
            None => break,
        }
    }
    let Some(group) = rest.strip_prefix('{') else { return paths.push(path) };
    let (mut depth, mut begin) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return spread(&group[begin..at], path, paths),
            '}' => depth -= 1,
            ',' if depth == 0 => {
                spread(&group[begin..at], path.clone(), paths);
                begin = at + 1;
            }
            _ => {}
        }
    }
}

/// The module to which a path leads, as far as it leads through modules.
fn resolve(of: &ModulePath, path: &[String], modules: &BTreeMap<ModulePath, PathBuf>) -> Option<ModulePath> {
    let supers = path.iter().take_while(|segment| *segment == "super").count();
    let mut found = match path.first()?.as_str() {
        "crate" => of[..1].to_vec(),
        "self" => of.clone(),
        "super" => of[..of.len().checked_sub(supers)?].to_vec(),
        package => vec![package.to_owned()],
    };
    for segment in &path[supers.max(1)..] {
        found.push(segment.clone());
        if !modules.contains_key(&found) {
            found.pop();
            break;
        }
    }
    modules.contains_key(&found).then_some(found)
}

fn names() -> BTreeMap<ModulePath, BTreeSet<ModulePath>> {
    let modules = modules();
    let is_within = |one: &ModulePath, other: &ModulePath| one.starts_with(other) || other.starts_with(one);
    let named = |module: &ModulePath, file: &Path| {
        let paths = named_paths(file).into_iter();
        paths.filter_map(|path| resolve(module, &path, &modules)).filter(|named| !is_within(named, module)).collect()
    };
    modules.iter().map(|(module, file)| (module.clone(), named(module, file))).collect()
}

/// Whether one module leads to another.
fn leads_to(from: &ModulePath, to: &ModulePath, names: &BTreeMap<ModulePath, BTreeSet<ModulePath>>) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(module) = next.pop() {
        for named in &names[module] {
            if named == to {
                return true;
            }
            if seen.insert(named) {
                next.push(named);
            }
        }
    }
    false
}

#[test]
fn no_modules_name_each_other_in_a_circle() {
    let names = names();
    assert!(names.len() > 200 && names.values().map(BTreeSet::len).sum::<usize>() > 500, "the walk found the imports");
    let circle: Vec<_> = names.keys().filter(|module| leads_to(module, module, &names)).map(|m| m.join("::")).collect();
    assert!(circle.is_empty(), "modules that name each other, over whichever others: {circle:#?}");
}

/// A higher folder of the gateway may name a lower one, and never the reverse.
#[test]
fn the_folders_of_the_gateway_name_each_other_downwards() {
    let rank = |module: &ModulePath| {
        let order = ["headers", "edge", "upstream", "exchange", "lifecycle"];
        (module.get(1)? == "gateway")
            .then(|| order.iter().position(|folder| Some(*folder) == module.get(2).map(String::as_str)))?
    };
    let mut arrows = 0;
    for (module, named) in names() {
        for other in named {
            if let (Some(from), Some(to)) = (rank(&module), rank(&other)) {
                arrows += 1;
                assert!(from >= to, "{} names {}, which lies higher", module.join("::"), other.join("::"));
            }
        }
    }
    assert!(arrows > 100, "{arrows}");
}
