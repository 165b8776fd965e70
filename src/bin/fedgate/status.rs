//! `fedgate status`: the gateways that run on the configured store.

use fedgate::accounts::{Instance, Report};
use fedgate::config::Config;
use serde_json::json;

use crate::{Failure, open_store, print_line, store_fault};

pub(crate) async fn run(config: &Config, as_json: bool) -> Result<(), Failure> {
    let accounts = open_store(config).await?;
    let epoch = accounts.changes_since(None).await.map_err(|error| store_fault(config, error))?.epoch;
    let instances = accounts.instances().await.map_err(|error| store_fault(config, error))?;
    if as_json {
        let list: Vec<_> = instances
            .iter()
            .map(|instance| json!({ "report": instance.report, "seen_ms_ago": instance.seen.as_millis(), "live": instance.is_live(), "may_admit": instance.may_admit() }))
            .collect();
        return Ok(print_line(&json!({ "account_epoch": epoch, "instances": list }).to_string())?);
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
            print_line(&format!("{id}: its policy file {fault}; the last good policy {policy} stays in force"))?;
        }
    }
    let live = || instances.iter().filter(|instance| instance.is_live());
    let mut policies: Vec<&str> = live().map(|instance| instance.report.policy.as_str()).collect();
    policies.sort_unstable();
    policies.dedup();
    match policies.len() {
        0 => print_line("none of them runs now")?,
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
        &report.id,
        &report.place,
        &format!("{:.1} s ago", seen.as_secs_f64()),
        &report.policy,
        &epoch.saturating_sub(report.epoch).to_string(),
        match (instance.is_live(), report.lease_valid) {
            (true, true) => "valid",
            (true, false) => "none",
            (false, _) if instance.may_admit() => "may hold",
            (false, _) => "ended",
        },
        &report.caches.principals.to_string(),
        &report.caches.hits.to_string(),
        &report.caches.misses.to_string(),
        &report.caches.hashed.to_string(),
    ])
}

fn row(cells: [&str; 10]) -> String {
    let widths = [8, 28, 10, 16, 4, 5, 8, 10, 8, 8];
    let cells: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    cells.join("  ").trim_end().to_owned()
}
