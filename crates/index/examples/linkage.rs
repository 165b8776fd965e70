//! Finds the pairs of one person in a file, and prints them: the program that `benches/index.py` measures.
//!
//! `linkage FILE [--defaults] [--model OUT]`. The file is CSV with the columns `source`, `id`, `given`, `family`,
//! `birth_date`, `gender`, `city`, `postal_code`, `phone`. If there are two sources, only pairs across them count. The
//! model is learned from the file itself, without labels, unless `--defaults` is given. The output is CSV: two ids,
//! score, grade. Figures go to stderr.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::collections::HashMap;
use std::error::Error;
use std::io::Write;
use std::time::Instant;

use fedgate_index::assess::{Grade, assess};
use fedgate_index::compare::compare;
use fedgate_index::fields::Demographics;
use fedgate_index::fold::FoldedPerson;
use fedgate_index::keys::blocking_keys;
use fedgate_index::model::Model;
use fedgate_index::train::{Examples, NameCounts, SAMPLE, random_pairs, train};

struct Row {
    id: String,
    source: u32,
    person: FoldedPerson,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let file = arguments.first().ok_or("which file?")?;
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let begin = Instant::now();
    let rows = read(file)?;
    let pairs = candidates(&rows);
    eprintln!("{} records, {} candidate pairs, {:?}", rows.len(), pairs.len(), begin.elapsed());
    let model = if has("--defaults") { Model::default() } else { learned(&rows, &pairs) };
    eprintln!("model after {:?}", begin.elapsed());
    if let Some(at) = arguments.iter().position(|argument| argument == "--model") {
        std::fs::write(arguments.get(at + 1).ok_or("--model needs a file")?, model.to_text())?;
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for (one, other) in &pairs {
        let (Some(one), Some(other)) = (rows.get(*one as usize), rows.get(*other as usize)) else { continue };
        let assessment = assess(&model, &one.person, &other.person);
        if assessment.grade > Grade::CertainlyNot {
            writeln!(out, "{},{},{:.6},{}", one.id, other.id, assessment.score, assessment.grade.as_str())?;
        }
    }
    out.flush()?;
    eprintln!("seconds {:.3}", begin.elapsed().as_secs_f64());
    Ok(())
}

fn read(file: &str) -> Result<Vec<Row>, Box<dyn Error>> {
    let mut rows = Vec::new();
    let mut sources: Vec<String> = Vec::new();
    let mut reader = csv::Reader::from_path(file)?;
    let columns = reader.headers()?.clone();
    for record in reader.records() {
        let record = record?;
        let value = |name: &str| {
            let at = columns.iter().position(|column| column == name)?;
            record.get(at).filter(|value| !value.is_empty()).map(str::to_owned)
        };
        let source = value("source").unwrap_or_default();
        let known = sources.iter().position(|known| *known == source);
        let place = known.unwrap_or_else(|| {
            sources.push(source);
            sources.len() - 1
        });
        let person = Demographics {
            given: value("given"),
            family: value("family"),
            birth_date: value("birth_date"),
            gender: value("gender"),
            city: value("city"),
            postal_code: value("postal_code"),
            phones: value("phone").into_iter().collect(),
            identifiers: Vec::new(),
        };
        let id = value("id").ok_or("a row has no id")?;
        rows.push(Row { id, source: u32::try_from(place)?, person: FoldedPerson::of(&person) });
    }
    Ok(rows)
}

/// Whether only pairs across two sources count.
fn is_linkage(rows: &[Row]) -> bool {
    rows.iter().any(|row| row.source != 0)
}

fn candidates(rows: &[Row]) -> Vec<(u32, u32)> {
    let mut blocks: HashMap<u64, Vec<u32>> = HashMap::new();
    for (at, row) in (0_u32..).zip(rows) {
        for key in blocking_keys(&row.person) {
            blocks.entry(key).or_default().push(at);
        }
    }
    let is_linkage = is_linkage(rows);
    let mut pairs = Vec::new();
    for block in blocks.values() {
        for (place, one) in block.iter().enumerate() {
            let later = block.iter().skip(place + 1).map(|other| (*one, *other));
            let source = |at: &u32| rows.get(*at as usize).map(|row| row.source);
            pairs.extend(later.filter(|(one, other)| !is_linkage || source(one) != source(other)));
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

fn learned(rows: &[Row], pairs: &[(u32, u32)]) -> Model {
    let mut examples = Examples::default();
    let mut names = NameCounts::default();
    let person = |at: u32| rows.get(at as usize).map(|row| &row.person);
    for row in rows {
        names.count(&row.person);
    }
    examples.frequencies = names.frequencies();
    for (one, other) in pairs {
        if let (Some(one), Some(other)) = (person(*one), person(*other)) {
            examples.blocked.count(compare(one, other));
        }
    }
    let is_linkage = is_linkage(rows);
    let mut counted = 0_u64;
    for (one, other) in random_pairs(rows.len()) {
        let (Some(first), Some(second)) = (rows.get(one), rows.get(other)) else { continue };
        if one != other && (!is_linkage || first.source != second.source) {
            examples.random.count(compare(&first.person, &second.person));
            counted += 1;
        }
    }
    // Of all ordered pairs the sample shows which part counts.
    let all = (rows.len() as f64).powi(2) / 2.0;
    examples.all_pairs = (all * counted as f64 / SAMPLE as f64) as u64;
    let trained = train(&Model::default(), &examples);
    let (matches, relatives) = (trained.matches, trained.relatives);
    eprintln!("{matches:.0} pairs of one person expected, {relatives:.0} of relatives, {} rounds", trained.rounds);
    for change in &trained.changes {
        let bits = |weight: i32| f64::from(weight) / 1000.0;
        let (table, level) = (change.table.as_str(), change.level.as_str());
        eprintln!("{table}.{level}: {:+.1} bits, before {:+.1}", bits(change.after), bits(change.before));
    }
    trained.model
}
