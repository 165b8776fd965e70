//! `fedhis index review`, `decide`, `dedupe` and `train`: pairs of persons who may be one, and the model that judges them.
//!
//! The one rule: a command shows or writes the list, and never merges anybody.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::{Value, json};

use fedgate_base::command::{CommandFailure, print_json, print_line};
use fedgate_base::config::Config;
use fedgate_his::register::{self, DedupeOutcome, RegisterError, RegisterProgress};
use fedgate_his::shown_pair;
use fedgate_his::store::{PairFilter, PairState, RecordStore, ReviewedPair};

/// How often a long command says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Which pairs are shown.
#[derive(Args)]
pub(crate) struct ReviewArguments {
    /// Only pairs with this person.
    person: Option<String>,
    /// open, same, different or all.
    #[arg(long, default_value = "open", value_parser = ["open", "same", "different", "all"])]
    state: String,
    /// Only certain or only probable pairs.
    #[arg(long, value_parser = ["certain", "probable"])]
    grade: Option<String>,
    /// The most lines.
    #[arg(long, default_value_t = 100)]
    limit: u64,
}

/// A decision.
#[derive(Args)]
pub(crate) struct DecideArguments {
    /// The number of the pair.
    pair: i64,
    /// same, different, or open again.
    #[arg(value_parser = ["same", "different", "open"])]
    state: String,
}

/// Where a model is written.
#[derive(Args)]
pub(crate) struct TrainArguments {
    /// The file to create. An existing file is never overwritten.
    #[arg(value_name = "FILE")]
    target: PathBuf,
}

/// `fedhis index review`
pub(crate) async fn review(store: &RecordStore, asked: ReviewArguments, as_json: bool) -> Result<(), CommandFailure> {
    let ReviewArguments { person, state, grade, limit } = asked;
    let filter = PairFilter { state: PairState::parse(&state), grade, person, after: None };
    let pairs = store.pairs(&filter, limit).await?;
    if as_json {
        return Ok(print_json(&Value::Array(pairs.iter().map(shown_pair).collect()).to_string())?);
    }
    if pairs.is_empty() {
        return Ok(print_line("there are no such pairs")?);
    }
    pairs.iter().try_for_each(|pair| print_line(&line(pair)))?;
    Ok(())
}

fn line(pair: &ReviewedPair) -> String {
    let ReviewedPair { number, persons: [one, other], grade, score, state, decided, .. } = pair;
    let score = *score as f64 / 10_000.0;
    let by = decided.as_ref().map(|(_, by)| format!(" by {by}")).unwrap_or_default();
    format!("{number}  {grade} {score:.4}  {one}  {other}  {}{by}", state.as_str())
}

/// `fedhis index decide`
pub(crate) async fn decide(
    store: &RecordStore,
    operator: &str,
    asked: DecideArguments,
    as_json: bool,
) -> Result<(), CommandFailure> {
    let DecideArguments { pair, state } = asked;
    let state = PairState::parse(&state).unwrap_or(PairState::Open);
    let decided = store.decide_pair(pair, state, operator).await?;
    let Some(decided) = decided else {
        return Err(failed(format!("there is no pair {pair}; `fedhis index review --state all` shows them")));
    };
    match as_json {
        true => print_json(&shown_pair(&decided).to_string())?,
        false => print_line(&line(&decided))?,
    }
    Ok(())
}

/// `fedhis index dedupe`
pub(crate) async fn dedupe(config: &Config, store: &RecordStore, as_json: bool) -> Result<(), CommandFailure> {
    let began = Instant::now();
    let outcome = register::dedupe(store, &config.his.index, teller()).await.map_err(failure)?;
    let DedupeOutcome { persons, earlier, judged, found, left_out } = outcome;
    let seconds = began.elapsed().as_secs_f64();
    if as_json {
        let told = json!({
            "persons": persons, "compared_earlier": earlier, "judged": judged, "found": found,
            "keys_left_out": left_out, "seconds": (seconds * 10.0).round() / 10.0,
        });
        return Ok(print_json(&told.to_string())?);
    }
    let again = if earlier > 0 { format!(" ({earlier} of them by an earlier run)") } else { String::new() };
    print_line(&format!(
        "{persons} persons are compared{again}: {judged} pairs judged, {found} of them on the review list, in {seconds:.1} s"
    ))?;
    if left_out > 0 {
        let most = register::MOST_OF_A_KEY;
        print_line(&format!("{left_out} keys were left out, because more than {most} persons share each"))?;
    }
    Ok(())
}

/// `fedhis index train`
pub(crate) async fn train(
    config: &Config,
    store: &RecordStore,
    asked: TrainArguments,
    as_json: bool,
) -> Result<(), CommandFailure> {
    let target = asked.target;
    if target.exists() {
        return Err(failed(format!("{} exists; name another file", target.display())));
    }
    let (trained, persons) = register::learn(store, &config.his.index, teller()).await.map_err(failure)?;
    write_new(&target, &trained.model.to_text()).with_context(|| format!("{}", target.display()))?;
    let bits = |weight: i32| f64::from(weight) / 1000.0;
    if as_json {
        let changes: Vec<Value> = trained
            .changes
            .iter()
            .map(|change| {
                json!({
                    "field": change.table.as_str(), "level": change.level.as_str(),
                    "before": bits(change.before), "after": bits(change.after),
                })
            })
            .collect();
        let told = json!({
            "persons": persons, "pairs_of_one_person": trained.matches.round(), "pairs_of_relatives": trained.relatives.round(),
            "rounds": trained.rounds, "changes": changes, "file": target.display().to_string(),
        });
        return Ok(print_json(&told.to_string())?);
    }
    print_line(&format!(
        "{persons} persons: about {:.0} pairs of one person and {:.0} of relatives are expected",
        trained.matches, trained.relatives
    ))?;
    for change in &trained.changes {
        let (field, level) = (change.table.as_str(), change.level.as_str());
        print_line(&format!("{field}.{level}: {:+.1} bits, before {:+.1}", bits(change.after), bits(change.before)))?;
    }
    print_line(&format!(
        "the model is in {}; look at what changed, then name the file in `index.model`",
        target.display()
    ))?;
    Ok(())
}

fn write_new(target: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(target)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Says on stderr how far it is, every few seconds.
fn teller() -> impl FnMut(RegisterProgress) + Send {
    let mut told = Instant::now();
    move |progress| {
        if told.elapsed() < TELL_EVERY {
            return;
        }
        told = Instant::now();
        match progress {
            RegisterProgress::Read(persons) => tracing::info!("{persons} persons are read"),
            RegisterProgress::Compared { of, persons, found } => {
                tracing::info!("{persons} of {of} persons are compared; {found} pairs are alike");
            }
        }
    }
}

fn failure(error: RegisterError) -> CommandFailure {
    match error {
        RegisterError::Store(error) => error.into(),
        RegisterError::Index(error) => CommandFailure::Usage(error.into()),
        other => failed(other.to_string()),
    }
}

fn failed(text: String) -> CommandFailure {
    CommandFailure::Failed(anyhow!(text))
}
