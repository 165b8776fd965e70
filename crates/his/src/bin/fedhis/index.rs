//! `fedhis index`: merges two records of one person, ends merges, and lists them. `review.rs` has the commands that find
//! such records.
//!
//! The one rule: it works on the store, as the services do, so it needs none of them.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::review;
use fedgate_base::command::{CommandFailure, print_json, print_line};
use fedgate_base::config::Config;
use fedgate_his::shown_merge;
use fedgate_his::store::{MOST_IDS, MergeOrder, MergeResult, PersonMerge, RecordStore, UnmergeResult};

/// Merges that are read at a time.
const PAGE: u64 = 1000;

/// The index of persons.
#[derive(Args)]
pub(crate) struct IndexArguments {
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: IndexCommand,
}

#[derive(Subcommand)]
enum IndexCommand {
    /// List pairs of persons who may be one, the likeliest first.
    Review(review::ReviewArguments),
    /// Decide whether a pair is one person. This merges nobody.
    Decide(review::DecideArguments),
    /// Compare all persons with each other, and put pairs that are alike on the review list.
    ///
    /// Services may run meanwhile. A run that was ended goes on where it was.
    Dedupe,
    /// Learn a model from all persons, and show what has changed.
    Train(review::TrainArguments),
    /// Merge two records of one person, and show the number of the merge.
    ///
    /// The survivor's members win, and those that it lacks come from the old record. Both accounts stay, and each may
    /// then read the records of both.
    Merge {
        /// The id that becomes old: readers of it are sent to the survivor.
        old: String,
        /// The id that stays.
        survivor: String,
        /// Why, for whoever looks at the merge later.
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// End a merge: both records are as if it had never been.
    Unmerge {
        /// The number of the merge.
        merge: u64,
    },
    /// List merges, also those that have ended.
    Merges {
        /// Only those of this person.
        person: Option<String>,
    },
}

/// Runs a command on a store, in the name of the operator.
pub(crate) async fn run(
    config: &Config,
    store: &RecordStore,
    operator: &str,
    asked: IndexArguments,
) -> Result<(), CommandFailure> {
    let as_json = asked.json;
    if matches!(asked.command, IndexCommand::Merge { .. } | IndexCommand::Unmerge { .. }) {
        // An embedded store may be a copy, and the message of a merge has no place among the messages that it lacks.
        store.take_history().await?;
    }
    match asked.command {
        IndexCommand::Review(asked) => review::review(store, asked, as_json).await,
        IndexCommand::Decide(asked) => review::decide(store, operator, asked, as_json).await,
        IndexCommand::Dedupe => review::dedupe(config, store, as_json).await,
        IndexCommand::Train(asked) => review::train(config, store, asked, as_json).await,
        IndexCommand::Merge { old, survivor, why } => {
            merge(config, store, operator, (old, survivor, why), as_json).await
        }
        IndexCommand::Unmerge { merge } => match store.unmerge(merge, operator).await? {
            UnmergeResult::Done if as_json => Ok(print_json(&json!({ "merge": merge, "undone": true }).to_string())?),
            UnmergeResult::Done => Ok(print_line(&format!("merge {merge} has ended"))?),
            UnmergeResult::Missing => {
                Err(failed(format!("there is no merge {merge}; `fedhis index merges` shows all")))
            }
            UnmergeResult::Later(later) => Err(failed(format!(
                "merge {later} must end first, because it came later: `fedhis index unmerge {later}`"
            ))),
            UnmergeResult::NotAnObject => Err(failed(NOT_AN_OBJECT.to_owned())),
        },
        IndexCommand::Merges { person } => list(store, person.as_deref(), as_json).await,
    }
}

const NOT_AN_OBJECT: &str = "the stored record of one of the persons is no JSON object; repair that first";

async fn merge(
    config: &Config,
    store: &RecordStore,
    operator: &str,
    (old, survivor, why): (String, String, Option<String>),
    as_json: bool,
) -> Result<(), CommandFailure> {
    let order = MergeOrder {
        old: old.clone(),
        survivor: survivor.clone(),
        why,
        members: Default::default(),
        by: operator.to_owned(),
        most: Some(config.his.max_record_bytes).filter(|most| *most > 0),
    };
    let problem = match store.merge(order).await? {
        MergeResult::Done(number) if as_json => {
            let told = json!({ "merge": number, "old": old, "survivor": survivor });
            return Ok(print_json(&told.to_string())?);
        }
        MergeResult::Done(number) => return Ok(print_line(&format!("merge {number}: {old} is now {survivor}"))?),
        MergeResult::Missing => format!("there is no person {old}, or no person {survivor}"),
        MergeResult::Itself => return Err(CommandFailure::Usage(anyhow!("a person cannot be merged with itself"))),
        MergeResult::Merged(root) => format!("one of the two is merged already; the id that stays is {root}"),
        MergeResult::TooManyIds => format!("the person would have more than {MOST_IDS} ids"),
        MergeResult::TooLarge => "the merged record would exceed `his.max_record_bytes`".to_owned(),
        MergeResult::NotAnObject => NOT_AN_OBJECT.to_owned(),
    };
    Err(failed(problem))
}

async fn list(store: &RecordStore, person: Option<&str>, as_json: bool) -> Result<(), CommandFailure> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let page = store.person_merges(after, PAGE, person).await?;
        let Some(last) = page.last() else { break };
        after = last.number;
        match as_json {
            true => all.extend(page.iter().map(shown_merge)),
            false => page.iter().try_for_each(|merge| print_line(&line(merge)))?,
        }
    }
    match as_json {
        true => Ok(print_json(&Value::Array(all).to_string())?),
        false => Ok(()),
    }
}

/// A merge in one line.
fn line(merge: &PersonMerge) -> String {
    let PersonMerge { number, old, survivor, at, why, undone_at, undone_by, by: _ } = merge;
    let by = |name: &Option<String>| name.as_ref().map_or_else(String::new, |name| format!(" by {name:?}"));
    let why = why.as_ref().map_or_else(String::new, |why| format!(", because {why:?}"));
    let undone = undone_at.as_ref().map_or_else(String::new, |at| format!("; ended {at}{}", by(undone_by)));
    format!("{number}: {old} into {survivor}, {at}{}{why}{undone}", by(&merge.by))
}

fn failed(problem: String) -> CommandFailure {
    CommandFailure::Failed(anyhow!(problem))
}
