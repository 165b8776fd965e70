//! `fedgate status`: the gateways that run on the configured store.

use std::path::Path;
use std::time::Duration;

use fedgate::instances::{self, GatewayInstance, InstanceReport};
use fedgate_core::escape;
use serde_json::json;

use crate::print::{CommandReport, print_json};
use crate::{load, open_store, print_line, store_fault};
use fedgate_base::command::CommandFailure;

/// How long the lease in an instance's report counts as current: it reports each second, and a lease may end
/// between two reports.
const NEWS: Duration = Duration::from_millis(1500);

/// The assumed width of a terminal.
const COLUMNS: usize = 80;
const INDENT: &str = "          ";
/// Most characters that are printed of a text from another process.
const MOST_OF_A_FAULT: usize = 400;

pub(crate) async fn run(file: &Path, as_json: bool) -> Result<(), CommandFailure> {
    match (tell(file, as_json).await, as_json) {
        // A program that reads JSON also gets the reason for a failure.
        (Err(failure), true) => CommandReport::new(true).end(Err(failure)),
        (text, _) => text,
    }
}

async fn tell(file: &Path, as_json: bool) -> Result<(), CommandFailure> {
    let config = &load(file, "fedgate status")?;
    let accounts = open_store(config).await?;
    let epoch = accounts.changes_since(None).await.map_err(|error| store_fault(config, error))?.epoch;
    let instances = instances::listed(&accounts).await.map_err(|error| store_fault(config, error))?;
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
    print_line(&row(["instance", "seen", "policy", "lag", "lease", "place"]))?;
    for instance in &instances {
        lines(instance, epoch).iter().try_for_each(|line| print_line(line))?;
    }
    for InstanceReport { id, policy, policy_fault: fault, .. } in instances.iter().map(|instance| &instance.report) {
        if let Some(fault) = fault {
            let fault = escape::start(fault, MOST_OF_A_FAULT);
            let text = format!("{id}: its policy file {fault}; the last good policy {policy} stays in force");
            wrapped(&text).iter().try_for_each(|line| print_line(line))?;
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
            let text = format!("{} run under {drift} different policies: {}", live().count(), policies.join(", "));
            wrapped(&text).iter().try_for_each(|line| print_line(line))?;
        }
    }
    Ok(())
}

/// The lines about one instance, which fit a terminal.
fn lines(instance: &GatewayInstance, epoch: u64) -> Vec<String> {
    let GatewayInstance { report, seen } = instance;
    // The tenths matter beside a lease of one second, and have no room later.
    let decimals = if seen.as_secs() < 100 { 1 } else { 0 };
    let (seen, lag) =
        (format!("{:.decimals$} s ago", seen.as_secs_f64()), epoch.saturating_sub(report.epoch).to_string());
    let (id, place, policy) = (escape::name(&report.id), escape::name(&report.place), escape::name(&report.policy));
    let caches = &report.caches;
    let figures = format!(
        "cached {}, hits {}, misses {}, hashed {}",
        caches.principals, caches.hits, caches.misses, caches.hashed
    );
    let whole = row([&id, &seen, &policy, &lag, lease(instance), &place]);
    if whole.chars().count() <= COLUMNS {
        return vec![whole, format!("{INDENT}{figures}")];
    }
    let without_place = row([&id, &seen, &policy, &lag, lease(instance), ""]);
    let below = format!("{INDENT}{place}");
    [without_place, below, format!("{INDENT}{figures}")].iter().flat_map(|line| wrapped(line)).collect()
}

/// Whether it may admit by a cached right, as far as is known: by its own report, while that is current.
fn lease(instance: &GatewayInstance) -> &'static str {
    match instance.seen <= NEWS {
        true if instance.report.lease_valid => "valid",
        true => "none",
        false if instance.may_admit() => "unknown",
        false => "ended",
    }
}

fn row(cells: [&str; 6]) -> String {
    let widths = [8, 10, 16, 4, 7, 0];
    let cells: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    cells.join("  ").trim_end().to_owned()
}

/// A text in lines that fit a terminal, the later ones indented; a longer word is cut only at its end.
fn wrapped(text: &str) -> Vec<String> {
    if text.chars().count() <= COLUMNS {
        return vec![text.to_owned()];
    }
    let mut lines: Vec<String> = vec![];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) => lines.push(format!("{INDENT}{word}")),
            None => lines.push(word.to_owned()),
        }
    }
    let letters = |line: &String| line.chars().collect::<Vec<_>>();
    let fit = |line: &String| letters(line).chunks(COLUMNS).map(|part| part.iter().collect()).collect::<Vec<String>>();
    lines.iter().flat_map(fit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_about_an_instance_fits_eighty_columns_whatever_it_holds() {
        let mut report = InstanceReport {
            id: "1a2b3c4d".into(),
            place: "gw1 127.0.0.1:8443".into(),
            policy: "9fa2feb5d32f4d98".into(),
            ..InstanceReport::default()
        };
        let text = |report: &InstanceReport| {
            lines(&GatewayInstance { report: report.clone(), seen: Duration::from_millis(300) }, 7).join("\n")
        };
        let fits = |text: &str| text.lines().all(|line| line.chars().count() <= COLUMNS);
        let short = text(&report);
        assert!(fits(&short) && short.lines().count() == 2 && short.contains("gw1 127.0.0.1:8443"), "{short}");
        let old = GatewayInstance { report: report.clone(), seen: Duration::from_secs(3599) };
        let column = |text: &str| text.find("9fa2feb5d32f4d98");
        assert_eq!(column(&lines(&old, 7).join("\n")), column(&short), "columns stay below each other");
        report.place = "a-host-with-a-long-name.clinic.example.org 192.0.2.1:8443".into();
        let long = text(&report);
        assert!(fits(&long) && long.contains(&report.place), "{long}");
        (report.place, report.policy, report.id) = ("x".repeat(900), "y".repeat(900), "z".repeat(900));
        (report.caches.hits, report.caches.misses, report.caches.hashed) = (u64::MAX, u64::MAX, u64::MAX);
        assert!(fits(&text(&report)), "{}", text(&report));
        assert!(fits(&wrapped(&format!("id: {} {}", "word ".repeat(50), "w".repeat(300))).join("\n")));
    }
}
