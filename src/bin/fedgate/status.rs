//! `fedgate status`: the gateways that run on the configured store.

use std::time::Duration;

use fedgate::accounts::{Instance, Report};
use fedgate::config::Config;
use fedgate::escape;
use serde_json::json;

use crate::print::print_json;
use crate::{Failure, open_store, print_line, store_fault};

/// How long what an instance says of its lease is news: it reports each second, and a lease may end between two reports.
const NEWS: Duration = Duration::from_millis(1500);

/// Most characters of what another process says that are told.
const MOST_OF_A_FAULT: usize = 400;

pub(crate) async fn run(config: &Config, as_json: bool) -> Result<(), Failure> {
    let accounts = open_store(config).await?;
    let epoch = accounts.changes_since(None).await.map_err(|error| store_fault(config, error))?.epoch;
    let instances = accounts.instances().await.map_err(|error| store_fault(config, error))?;
    if as_json {
        let list: Vec<_> = instances
            .iter()
            .map(|instance| json!({ "report": instance.report, "seen_ms_ago": instance.seen.as_millis(), "live": instance.is_live(), "lease": lease(instance), "may_admit": instance.may_admit() }))
            .collect();
        return Ok(print_json(&json!({ "account_epoch": epoch, "instances": list }))?);
    }
    print_line(&format!("account epoch {epoch}"))?;
    if instances.is_empty() {
        return Ok(print_line("no gateway has reported within the last hour")?);
    }
    print_line(&row(["instance", "place", "seen", "policy", "lag", "lease", "cached", "hits", "misses", "hashed"]))?;
    for instance in &instances {
        print_line(&line(instance, epoch))?;
    }
    for Report { id, policy, policy_fault: fault, .. } in instances.iter().map(|instance| &instance.report) {
        if let Some(fault) = fault {
            let fault = escape::start(fault, MOST_OF_A_FAULT);
            print_line(&format!("{id}: its policy file {fault}; the last good policy {policy} stays in force"))?;
        }
    }
    let live = || instances.iter().filter(|instance| instance.is_live());
    let mut policies: Vec<&str> = live().map(|instance| instance.report.policy.as_str()).collect();
    policies.sort_unstable();
    policies.dedup();
    match policies.len() {
        0 => print_line("none of them runs now")?,
        1 if live().count() == 1 => print_line(&format!("1 runs, under policy {}", policies.concat()))?,
        1 => print_line(&format!("{} run, all under policy {}", live().count(), policies.concat()))?,
        drift => {
            print_line(&format!("{} run under {drift} different policies: {}", live().count(), policies.join(", ")))?
        }
    }
    Ok(())
}

fn line(instance: &Instance, epoch: u64) -> String {
    let Instance { report, seen } = instance;
    row([
        &escape::name(&report.id),
        &escape::name(&report.place),
        &format!("{:.1} s ago", seen.as_secs_f64()),
        &escape::name(&report.policy),
        &epoch.saturating_sub(report.epoch).to_string(),
        lease(instance),
        &report.caches.principals.to_string(),
        &report.caches.hits.to_string(),
        &report.caches.misses.to_string(),
        &report.caches.hashed.to_string(),
    ])
}

/// Whether it may admit by a cached right, for all that is known: by what it says itself, as long as that is news.
fn lease(instance: &Instance) -> &'static str {
    match instance.seen <= NEWS {
        true if instance.report.lease_valid => "valid",
        true => "none",
        false if instance.may_admit() => "unknown",
        false => "ended",
    }
}

fn row(cells: [&str; 10]) -> String {
    let widths = [8, 28, 10, 16, 4, 7, 8, 10, 8, 8];
    let cells: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    cells.join("  ").trim_end().to_owned()
}
