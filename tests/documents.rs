//! Compares documents with each other and with the code: links, lengths, chapters, metrics, keys, and quoted
//! messages.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test panics to fail"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The most words of a paragraph, and of a table cell.
const MOST_IN_A_PARAGRAPH: usize = 90;
const MOST_IN_A_CELL: usize = 30;
/// Folders that hold no documents of this project.
const OTHERS: [&str; 5] = ["target", "third_party", ".git", "demo", "node_modules"];

fn files(folder: &Path, kind: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let (path, name) = (entry.path(), entry.file_name());
        let is_folder = entry.file_type().unwrap().is_dir();
        match is_folder {
            true if !OTHERS.contains(&name.to_str().unwrap()) || path.starts_with("./examples") => {
                files(&path, kind, found);
            }
            false if path.extension().is_some_and(|known| known == kind) => found.push(path),
            _ => {}
        }
    }
}

/// All documents, by their path from the root.
fn documents() -> BTreeMap<PathBuf, String> {
    let mut found = Vec::new();
    files(Path::new("."), "md", &mut found);
    assert!(found.len() > 15, "documents were found");
    found.into_iter().map(|path| (plain(&path), fs::read_to_string(path).unwrap())).collect()
}

fn document(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(plain.pop(), "{} leads out of the tree", path.display()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// The lines of a document outside of fenced code, with their numbers.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut is_code = false;
    let lines = text.lines().enumerate().filter(|(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    lines.map(|(at, line)| (at + 1, line)).collect()
}

/// A text in pieces, outside and inside of code spans in turn. A span ends with as many backticks as it begins
/// with.
fn spans(text: &str) -> Vec<&str> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some(begin) = rest.find('`') {
        let ticks = rest[begin..].chars().take_while(|sign| *sign == '`').count();
        let after = &rest[begin + ticks..];
        let Some(end) = after.find(&"`".repeat(ticks)) else { break };
        pieces.extend([&rest[..begin], &after[..end]]);
        rest = &after[end + ticks..];
    }
    pieces.push(rest);
    pieces
}

fn code_spans(text: &str) -> Vec<String> {
    spans(text).into_iter().skip(1).step_by(2).map(|span| span.replace('\n', " ")).collect()
}

/// The targets of links `[words](target)`. Documents here have no links of words in brackets alone.
fn links(line: &str) -> Vec<String> {
    let outside: String = spans(line).into_iter().step_by(2).collect::<Vec<_>>().join("code");
    let targets = outside.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(|target| target.split(' ').next().unwrap().to_owned()).collect()
}

/// The anchor of a heading, as renderers of Markdown make it.
fn anchor(heading: &str) -> String {
    let mut words = String::new();
    let mut rest = heading;
    // The words of a link count.
    while let Some((before, link)) = rest.split_once("](") {
        words.push_str(&before.replacen('[', "", 1));
        rest = link.split_once(')').map_or("", |(_, after)| after);
    }
    words.push_str(rest);
    let kept = words.to_lowercase();
    let kept = kept.chars().filter(|sign| sign.is_alphanumeric() || matches!(sign, ' ' | '-' | '_'));
    kept.map(|sign| if sign == ' ' { '-' } else { sign }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, line) in prose(text) {
        if let Some(heading) = line.strip_prefix('#') {
            let name = anchor(heading.trim_start_matches('#').trim());
            let again = (1..).map(|number| format!("{name}-{number}"));
            let free = std::iter::once(name.clone()).chain(again).find(|name| !found.contains(name));
            found.insert(free.unwrap());
        }
        let ids = line.split("id=\"").skip(1).filter_map(|rest| rest.split('"').next());
        found.extend(ids.map(str::to_owned));
    }
    found
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let documents = documents();
    let (mut broken, mut seen) = (Vec::new(), 0);
    for (path, text) in &documents {
        for (number, line) in prose(text) {
            for target in links(line).iter().filter(|target| !target.contains(':')) {
                seen += 1;
                let (file, fragment) = target.split_once('#').map_or((target.as_str(), None), |(f, a)| (f, Some(a)));
                let to = match file {
                    "" => path.clone(),
                    _ => plain(&path.parent().unwrap().join(file)),
                };
                let has_heading = match (fragment, documents.get(&to)) {
                    (None, _) => true,
                    (Some(fragment), Some(text)) => anchors(text).contains(fragment),
                    (Some(_), None) => false,
                };
                if !to.exists() || !has_heading {
                    broken.push(format!("{}:{number}: {target}", path.display()));
                }
            }
        }
    }
    assert!(seen > 50, "links were found");
    assert!(broken.is_empty(), "these lead nowhere:\n{}", broken.join("\n"));
}

/// The paragraphs of a document, each with the number of its first line. List items are paragraphs of their own.
/// Tables and headings are none.
fn paragraphs(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut last = 0;
    for (number, line) in prose(text) {
        let words = line.trim_start();
        let is_item = words.starts_with("- ")
            || words
                .split_once(". ")
                .is_some_and(|(at, _)| !at.is_empty() && at.chars().all(|sign| sign.is_ascii_digit()));
        let is_none = words.is_empty() || words.starts_with(['|', '#']) || words.starts_with("<!--");
        match found.last_mut() {
            _ if is_none => {}
            Some((_, paragraph)) if last + 1 == number && !is_item => *paragraph += &format!("\n{words}"),
            _ => found.push((number, words.to_owned())),
        }
        last = if is_none { 0 } else { number };
    }
    found
}

/// The cells of a row of a table.
fn cells(line: &str) -> Vec<String> {
    let line = line.replace("\\|", "\u{1}");
    let row = line.trim().trim_start_matches('|').trim_end_matches('|');
    row.split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect()
}

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

#[test]
fn no_paragraph_and_no_cell_is_too_long_to_be_read() {
    let mut long = Vec::new();
    for (path, text) in documents() {
        for (number, paragraph) in paragraphs(&text) {
            let count = words(&paragraph);
            if count > MOST_IN_A_PARAGRAPH {
                long.push(format!("{}:{number}: a paragraph of {count} words", path.display()));
            }
        }
        // The table of arrows between its marks is no prose: a cell is a list of modules, which a test compares with
        // the code.
        let map = text.split_inclusive("<!-- arrows -->").scan(0, |before, part| {
            *before += part.matches('\n').count();
            Some(*before)
        });
        let map: Vec<usize> = map.collect();
        let is_of_the_map = |number: usize| map.len() == 3 && map[0] < number && number <= map[1];
        let rows = prose(&text).into_iter().filter(|(_, line)| line.trim_start().starts_with('|'));
        for (number, line) in rows.filter(|(number, _)| !is_of_the_map(*number)) {
            for cell in cells(line).iter().filter(|cell| words(cell) > MOST_IN_A_CELL) {
                long.push(format!("{}:{number}: a cell of {} words", path.display(), words(cell)));
            }
        }
    }
    assert!(long.is_empty(), "{} are too long:\n{}", long.len(), long.join("\n"));
}

#[test]
fn every_document_of_the_book_is_one_of_its_chapters() {
    let summary = document("docs/SUMMARY.md");
    let chapters: BTreeSet<PathBuf> =
        summary.lines().flat_map(links).map(|target| Path::new("docs").join(target)).collect();
    let documents = documents().into_keys().filter(|path| path.starts_with("docs") && !path.ends_with("SUMMARY.md"));
    assert!(chapters.len() > 10, "chapters were found");
    let documents: BTreeSet<PathBuf> = documents.collect();
    let apart: Vec<_> = documents.symmetric_difference(&chapters).collect();
    assert!(apart.is_empty(), "in docs/ or in docs/SUMMARY.md alone: {apart:?}");
}

/// The words of a text that have this beginning, followed by letters, digits and `_`.
fn names(text: &str, begin: &str) -> BTreeSet<String> {
    let at = text.match_indices(begin).map(|(at, _)| &text[at..]);
    let is_of_a_name = |sign: char| sign.is_ascii_alphanumeric() || sign == '_';
    at.map(|rest| rest.split(|sign| !is_of_a_name(sign)).next().unwrap().to_owned()).collect()
}

#[test]
fn every_metric_is_explained_and_none_besides() {
    let page = document("docs/OPERATE.md");
    let mut metrics = BTreeSet::new();
    for (home, begin, least) in [("src/observe", "fedgate_", 30), ("crates/his/src/metrics.rs", "fedhis_", 10)] {
        let mut sources = Vec::new();
        match Path::new(home).is_dir() {
            true => files(Path::new(home), "rs", &mut sources),
            false => sources.push(home.into()),
        }
        if begin == "fedhis_" {
            sources.push("crates/base/src/db/replicas/figures.rs".into());
        }
        let text = |path: &PathBuf| fs::read_to_string(path).unwrap();
        // Tests name lines of the metrics, too.
        let source: String =
            sources.iter().map(text).map(|text| text.split("#[cfg(test)]").next().unwrap().to_owned()).collect();
        let quoted = source.split('"').filter(|text| text.starts_with(begin) && !text.contains([' ', '{', '\n']));
        let found: BTreeSet<String> = quoted.map(str::to_owned).collect();
        assert!(found.len() > least, "metrics were found: {found:?}");
        let rows = page.lines().filter(|line| line.starts_with(&format!("| `{begin}")));
        let explained: BTreeSet<String> = rows.flat_map(|row| names(&cells(row)[0], begin)).collect();
        let apart: Vec<_> = explained.symmetric_difference(&found).collect();
        assert!(apart.is_empty(), "in docs/OPERATE.md or in the source alone: {apart:?}");
        metrics.extend(found);
    }
    // Alarms name the parts of a histogram.
    let part_of =
        |name: &str| ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end).map(str::to_owned));
    for (path, text) in documents() {
        let known = |name: &String| metrics.contains(name) || part_of(name).is_some_and(|of| metrics.contains(&of));
        // Names of tables, triggers and functions begin in the same way.
        let ends = ["_total", "_bytes", "_seconds", "_bucket", "_valid", "_failing", "_scarce", "_faulty"];
        let told = ["fedgate_", "fedhis_"].iter().flat_map(|begin| names(&text, begin));
        let told = told.filter(|name| ends.iter().any(|end| name.ends_with(end)));
        let unknown: Vec<_> = told.filter(|name| !known(name)).collect();
        assert!(unknown.is_empty() || path.ends_with("CHANGELOG.md"), "{}: {unknown:?}", path.display());
    }
}

/// The keys of the configuration as `section.key`: all that the example names, also in comments.
fn keys() -> BTreeSet<String> {
    let (mut section, mut keys) = (String::new(), BTreeSet::new());
    for line in document("examples/fedgate.toml").lines() {
        let line = line.trim_start_matches("# ").trim_start_matches('(');
        let name = line.trim_start_matches('[').trim_end_matches(']');
        if line.starts_with('[') && line.ends_with(']') && !name.contains([' ', '"']) && !name.is_empty() {
            section = name.to_owned();
        } else if let Some((key, _)) = line.split_once(" = ") {
            keys.insert(format!("{section}.{key}"));
        }
    }
    assert!(keys.len() > 80 && keys.contains("upstream.health.path"), "keys were found: {keys:?}");
    keys
}

#[test]
fn every_key_that_a_document_names_is_one_of_the_configuration() {
    // Members of `/readyz`.
    const OTHERS: [&str; 2] = ["records.scarce", "records.fault"];
    let keys = keys();
    let sections: BTreeSet<&str> = keys.iter().filter_map(|key| Some(key.rsplit_once('.')?.0)).collect();
    let is_known = |name: &str| {
        let end = format!(".{name}");
        OTHERS.contains(&name) || keys.iter().any(|key| key == name || key.ends_with(&end))
    };
    let mut unknown = Vec::new();
    for (path, text) in documents().into_iter().filter(|(path, _)| !path.ends_with("CHANGELOG.md")) {
        for (number, line) in prose(&text) {
            for span in code_spans(line) {
                let name = span.split(" = ").next().unwrap().trim();
                let is_key = name.rsplit_once('.').is_some_and(|(section, key)| {
                    sections.contains(section) && key.len() > 2 && names(key, key).contains(key)
                });
                if is_key && !is_known(name) && !sections.contains(name) {
                    unknown.push(format!("{}:{number}: `{name}`", path.display()));
                }
            }
        }
    }
    assert!(unknown.is_empty(), "no such keys:\n{}", unknown.join("\n"));
}

/// The texts that the programs can print: their sources, with the lines of a literal joined.
fn sources() -> String {
    let mut found = Vec::new();
    ["src", "crates/base/src", "crates/core/src", "crates/his/src"]
        .iter()
        .for_each(|at| files(Path::new(at), "rs", &mut found));
    let mut all = String::new();
    for path in found.iter().filter(|path| !path.to_str().unwrap().contains("tests")) {
        for line in fs::read_to_string(path).unwrap().lines() {
            match line.strip_suffix('\\') {
                Some(part) => all.push_str(part.trim_start()),
                None => all.push_str(&format!("{}\n", line.trim_start())),
            }
        }
    }
    all
}

#[test]
fn every_message_that_troubleshooting_quotes_is_one_of_the_programs() {
    const COMMANDS: [&str; 14] = [
        "ss",
        "fedgate",
        "fedgate-operator",
        "fedgate-owner",
        "fedgate-unit",
        "fedhis",
        "account",
        "curl",
        "chmod",
        "chown",
        "iostat",
        "openssl",
        "systemctl",
        "chronyc",
    ];
    let (page, sources) = (document("docs/TROUBLESHOOTING.md"), sources());
    let (mut seen, mut unknown) = (0, Vec::new());
    for (number, line) in prose(&page) {
        let first = if line.starts_with('|') { code_spans(&cells(line)[0]) } else { Vec::new() };
        for span in code_spans(line) {
            let begin = span.split(' ').next().unwrap();
            // A message contains blanks, and is neither a command nor a setting.
            let is_message =
                span.contains(' ') && !span.contains(" = ") && !COMMANDS.contains(&begin) && !begin.starts_with('-');
            if !is_message && !first.contains(&span) {
                continue;
            }
            seen += 1;
            let parts = span.split('…').map(str::trim).filter(|part| !part.is_empty());
            unknown.extend(parts.filter(|part| !sources.contains(part)).map(|part| format!("{number}: `{part}`")));
        }
    }
    assert!(seen > 40, "{seen} messages");
    assert!(unknown.is_empty(), "no program says, docs/TROUBLESHOOTING.md:\n{}", unknown.join("\n"));
}

#[test]
fn the_configuration_for_a_try_beside_a_thalamus_loads() {
    let page = document("docs/THALAMUS.md");
    let text = page.split("<<'TOML'\n").nth(1).unwrap().split("   TOML\n").next().unwrap();
    let file = std::env::temp_dir().join(format!("fedgate-beside-{:x}.toml", rand::random::<u64>()));
    fs::write(&file, text).unwrap();
    let loaded = fedgate_base::config::Config::load_without_secrets(&file);
    fs::remove_file(file).unwrap();
    loaded.unwrap();
}

#[test]
fn the_node_in_the_document_is_the_one_that_is_tested_and_has_forty_lines() {
    let program = document("examples/node/follow.py");
    let fenced = format!("```python\n{program}```\n");
    assert!(document("docs/RELAY.md").contains(&fenced), "copy examples/node/follow.py into docs/RELAY.md");
    assert!(program.lines().filter(|line| !line.is_empty()).count() <= 40);
}
