//! `fedhis relay`: the state of the relay, webhooks of all accounts, and dead letters.
//!
//! The one rule: it works on the store, as the services do, so it needs none of them; a service heeds a change within
//! seconds.

use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use fedgate_base::command::{CommandFailure, print_json, print_line};
use fedgate_base::config::Config;
use fedgate_his::desk::{self, DeskFault, IssuedKeys, WebhookDesk};
use fedgate_his::store::webhooks::{StoredWebhook, WebhookKeyKind};
use fedgate_his::store::{MessageReach, RecordKey, RecordReach, RecordStore};

/// The relay.
#[derive(Args)]
pub(crate) struct RelayArguments {
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: RelayCommand,
}

#[derive(Subcommand)]
enum RelayCommand {
    /// Show positions, messages without one, and how far each webhook is. The exit code is 1 if something is wrong.
    Status,
    /// List, add, change and remove webhooks.
    #[command(subcommand)]
    Endpoints(EndpointsCommand),
    /// List dead letters: messages that could not be sent.
    Dead {
        /// Only those of this webhook.
        endpoint: Option<String>,
        /// The most lines.
        #[arg(long, default_value_t = 1000, allow_negative_numbers = true, value_parser = whole)]
        limit: u64,
    },
    /// Send dead letters again. Later messages about the same person may have been sent before them.
    Replay {
        /// The webhook.
        endpoint: String,
        /// The positions of the messages.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        positions: Vec<u64>,
        /// All of them.
        #[arg(long)]
        all: bool,
    },
}

#[derive(Subcommand)]
enum EndpointsCommand {
    /// List webhooks, of one account or of all.
    List {
        /// The account.
        account: Option<String>,
    },
    /// Add a webhook, and show its keys, once.
    Add(AddedEndpoint),
    /// Remove a webhook, with everything that waits for it and its dead letters.
    Remove {
        /// The webhook.
        endpoint: String,
    },
    /// Let a webhook that has ended go on from where it was.
    Resume {
        /// The webhook.
        endpoint: String,
    },
    /// Give a webhook new keys, and show them, once.
    Rotate {
        /// The webhook.
        endpoint: String,
        /// How long the former keys sign beside the new ones.
        #[arg(long, value_name = "HOURS", default_value_t = 24, allow_negative_numbers = true, value_parser = whole)]
        kept_hours: u64,
        #[command(flatten)]
        keys: ShownKeys,
    },
}

#[derive(Args)]
struct ShownKeys {
    /// How messages are signed: v1 (HMAC-SHA256) or v1a (Ed25519); given twice, both.
    #[arg(long = "signature", value_name = "KIND", value_parser = kind)]
    signatures: Vec<WebhookKeyKind>,
    /// Show the private keys of v1a, too. A receiver needs none.
    #[arg(long)]
    show_private: bool,
}

#[derive(Args)]
struct AddedEndpoint {
    /// The account whose rights apply.
    account: String,
    /// The address, https://….
    url: String,
    /// The form of messages: json or cloudevents.
    #[arg(long)]
    form: Option<String>,
    /// Only messages about this person.
    #[arg(long)]
    person: Option<String>,
    /// Only messages about this kind of record.
    #[arg(long)]
    resource: Option<String>,
    /// Only messages of writes by this account.
    #[arg(long)]
    node: Option<String>,
    /// Only messages of this method.
    #[arg(long)]
    method: Option<String>,
    /// Only messages of this type.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Begin after this position, instead of with the next message.
    #[arg(long, value_name = "POSITION", allow_negative_numbers = true, value_parser = whole)]
    after: Option<u64>,
    #[command(flatten)]
    keys: ShownKeys,
}

fn kind(word: &str) -> Result<WebhookKeyKind, String> {
    WebhookKeyKind::parse(word).ok_or_else(|| "write v1 or v1a".to_owned())
}

/// Runs a command on a store.
pub(crate) async fn run(config: &Config, store: &RecordStore, asked: RelayArguments) -> Result<(), CommandFailure> {
    let desk = WebhookDesk::new(&config.his.webhooks);
    let as_json = asked.json;
    match asked.command {
        RelayCommand::Status => status(config, store, as_json).await,
        RelayCommand::Endpoints(command) => endpoints(store, &desk, command, as_json).await,
        RelayCommand::Dead { endpoint, limit } => dead(store, endpoint.as_deref(), limit, as_json).await,
        RelayCommand::Replay { endpoint, positions, all } => {
            known(store, &endpoint).await?;
            let count = store.replay_dead_letters(&endpoint, (!all).then_some(positions.as_slice())).await?;
            if count == 0 && !all {
                let text = format!(
                    "{endpoint} has no dead letters of these positions; `fedhis relay dead {endpoint}` lists them"
                );
                return Err(CommandFailure::Failed(anyhow!(text)));
            }
            match as_json {
                true => print_json(&json!({ "endpoint": endpoint, "replayed": count }).to_string())?,
                false => print_line(&format!("{count} dead letters of {endpoint} are sent again"))?,
            }
            Ok(())
        }
    }
}

async fn endpoints(
    store: &RecordStore,
    desk: &WebhookDesk,
    command: EndpointsCommand,
    as_json: bool,
) -> Result<(), CommandFailure> {
    match command {
        EndpointsCommand::List { account } => {
            let webhooks = store.webhooks(account.as_deref()).await?;
            if as_json {
                print_json(&Value::Array(webhooks.iter().map(desk::operators_view).collect()).to_string())?;
            } else {
                webhooks.iter().try_for_each(|webhook| print_line(&line(webhook)))?;
            }
            Ok(())
        }
        EndpointsCommand::Add(added) => add(store, desk, added, as_json).await,
        EndpointsCommand::Remove { endpoint } => match store.remove_webhook(&endpoint).await? {
            true => done(&format!("{endpoint} is removed"), as_json),
            false => Err(missing(&endpoint)),
        },
        EndpointsCommand::Resume { endpoint } => {
            let resume = |webhook: &mut StoredWebhook| {
                webhook.ended = None;
                Ok(())
            };
            desk.change(store, &endpoint, None, resume).await.map_err(failure)?;
            done(&format!("{endpoint} is active"), as_json)
        }
        EndpointsCommand::Rotate { endpoint, kept_hours, keys } => {
            let kinds = Some(keys.signatures.as_slice()).filter(|kinds| !kinds.is_empty());
            let kept = Duration::from_secs(kept_hours.min(24 * 365).saturating_mul(3600));
            let issued = desk.rotate(store, &endpoint, None, kinds, kept).await.map_err(failure)?;
            show(&issued, keys.show_private, as_json)
        }
    }
}

async fn add(
    store: &RecordStore,
    desk: &WebhookDesk,
    added: AddedEndpoint,
    as_json: bool,
) -> Result<(), CommandFailure> {
    let person = RecordKey::Person(added.account.clone());
    if store.record(&person, 0, &RecordReach::Global).await?.is_none() {
        return Err(CommandFailure::Failed(anyhow!("there is no account {}", added.account)));
    }
    let terms = WebhookDesk::terms(&[
        ("url", Some(&added.url)),
        ("form", added.form.as_deref()),
        ("person", added.person.as_deref()),
        ("resource", added.resource.as_deref()),
        ("node", added.node.as_deref()),
        ("method", added.method.as_deref()),
        ("type", added.kind.as_deref()),
    ]);
    let terms = terms.map_err(failure)?;
    let kinds = if added.keys.signatures.is_empty() { &[WebhookKeyKind::V1] } else { added.keys.signatures.as_slice() };
    let issued = desk.add(store, &added.account, &terms, added.after, kinds).await.map_err(failure)?;
    show(&issued, added.keys.show_private, as_json)
}

/// Shows new keys.
fn show(issued: &IssuedKeys, with_private: bool, as_json: bool) -> Result<(), CommandFailure> {
    let private = issued.keys.iter().filter_map(|key| key.signing.as_ref()).filter(|_| with_private);
    let keys: Vec<&str> = issued.keys.iter().map(|key| &key.verifying).chain(private).map(|key| key.as_str()).collect();
    if as_json {
        return Ok(print_json(&json!({ "id": issued.id, "keys": keys }).to_string())?);
    }
    print_line(&issued.id)?;
    keys.iter().try_for_each(|key| print_line(key))?;
    Ok(())
}

async fn dead(store: &RecordStore, endpoint: Option<&str>, limit: u64, as_json: bool) -> Result<(), CommandFailure> {
    if let Some(endpoint) = endpoint {
        known(store, endpoint).await?;
    }
    let letters = store.dead_letters(endpoint, limit).await?;
    if as_json {
        let letter = |letter: &fedgate_his::store::webhooks::DeadLetter| {
            json!({
                "endpoint": letter.webhook, "position": letter.position, "about": letter.lane,
                "attempts": letter.attempts, "since": desk::time(letter.since), "problem": letter.problem,
            })
        };
        return Ok(print_json(&Value::Array(letters.iter().map(letter).collect()).to_string())?);
    }
    for letter in letters {
        let since = desk::time(letter.since).unwrap_or_default();
        print_line(&format!(
            "{} {} ({}): {} attempts, since {since}: {}",
            letter.webhook, letter.position, letter.lane, letter.attempts, letter.problem
        ))?;
    }
    Ok(())
}

async fn status(config: &Config, store: &RecordStore, as_json: bool) -> Result<(), CommandFailure> {
    let nobody = MessageReach::new(RecordReach::Nobody, "", &[]);
    let places = store.message_places(0, 1, &Default::default(), &nobody).await?;
    // Two looks: a message that waits at both waits for longer than positions take.
    let before = store.unplaced_messages().await?;
    if before.is_some() {
        tokio::time::sleep(config.his.messages.stall.unwrap_or(Duration::from_secs(1)).min(Duration::from_secs(1)))
            .await;
    }
    let after = store.unplaced_messages().await?;
    let is_stalled = before.zip(after).is_some_and(|((before, _), (after, _))| before == after);
    let waiting = after.map_or(0, |(_, count)| count);
    let webhooks = store.webhooks(None).await?;
    let is_behind = |webhook: &&StoredWebhook| {
        webhook.ended.is_none() && config.his.webhooks.behind.is_some_and(|most| webhook.behind > most)
    };
    let behind = webhooks.iter().filter(is_behind).count();
    let unowned = webhooks.iter().filter(|webhook| webhook.ended.is_none() && webhook.owner.is_none()).count();
    let ended = webhooks.iter().filter(|webhook| webhook.ended.is_some()).count();
    let dead: u64 = webhooks.iter().map(|webhook| webhook.dead).sum();
    let outlook = [
        (is_stalled, "messages wait for their positions".to_owned()),
        (behind > 0, format!("{behind} webhooks are behind")),
        (unowned > 0, format!("{unowned} webhooks are served by no process")),
    ];
    let faults: Vec<String> = outlook.into_iter().filter_map(|(is_so, text)| is_so.then_some(text)).collect();
    if as_json {
        let told = json!({
            "first": places.first, "last": places.last, "without_position": waiting, "stalled": is_stalled,
            "endpoints": webhooks.iter().map(desk::operators_view).collect::<Vec<_>>(), "behind": behind,
            "unserved": unowned, "ended": ended, "dead": dead, "faults": faults,
        });
        print_json(&told.to_string())?;
    } else {
        print_line(&format!("messages {} to {} are kept; {waiting} have no position yet", places.first, places.last))?;
        print_line(&format!("{} webhooks, of which {ended} have ended; {dead} dead letters", webhooks.len()))?;
        webhooks.iter().try_for_each(|webhook| print_line(&line(webhook)))?;
    }
    match faults.is_empty() {
        true => Ok(()),
        false => Err(CommandFailure::Failed(anyhow!(faults.join("; ")))),
    }
}

/// A webhook in one line.
fn line(webhook: &StoredWebhook) -> String {
    let state = match (&webhook.ended, &webhook.detail) {
        (Some(reason), _) => format!("ended: {reason}"),
        (None, Some(problem)) => format!("active; {problem}"),
        (None, None) => "active".to_owned(),
    };
    format!(
        "{} {} {}: position {}, {} waiting, {} dead, {} s behind; {state}",
        webhook.id,
        webhook.account,
        webhook.terms.url,
        webhook.position,
        webhook.waiting,
        webhook.dead,
        webhook.behind.as_secs()
    )
}

fn done(text: &str, as_json: bool) -> Result<(), CommandFailure> {
    match as_json {
        true => print_json(&json!({ "done": text }).to_string())?,
        false => print_line(text)?,
    }
    Ok(())
}

async fn known(store: &RecordStore, endpoint: &str) -> Result<(), CommandFailure> {
    match store.webhook(endpoint, None).await? {
        Some(_) => Ok(()),
        None => Err(missing(endpoint)),
    }
}

fn missing(endpoint: &str) -> CommandFailure {
    CommandFailure::Failed(anyhow!("there is no webhook {endpoint}; `fedhis relay endpoints list` shows all"))
}

fn failure(fault: DeskFault) -> CommandFailure {
    match fault {
        DeskFault::Store(error) => error.into(),
        DeskFault::Off | DeskFault::Terms(_) => CommandFailure::Usage(fault.into()),
        fault => CommandFailure::Failed(fault.into()),
    }
}

/// A number that an option names.
fn whole(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a whole number from 0 on is wanted".to_owned())
}
