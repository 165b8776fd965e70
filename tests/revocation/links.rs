//! Relations and links that are taken away, by a command, by SQL or by their date, with three gateways under the roles of
//! least privilege.

use std::time::{Duration, Instant, SystemTime};

use crate::fixture::{CANARY, Gateway, PATIENCE, basic};
use crate::revocation::commands::fedgate;
use crate::revocation::federation::{BOUND, Controller, Federation};

/// Adds a role for guardians to the policy of each gateway.
fn with_guardians(gateways: &[Gateway]) {
    for gateway in gateways {
        let file = gateway.dir.join("roles.cfg");
        let mut policy: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let role = serde_json::json!({
            "role": "guardian", "permissions": { "GET": ["person"], "global": "False", "related": "True" },
        });
        policy.as_array_mut().unwrap().push(role);
        std::fs::write(&file, policy.to_string()).unwrap();
    }
}

fn ask(gateway: &Gateway) -> u16 {
    let authorization = format!("Authorization: {}\r\n", basic("P0", CANARY));
    gateway.request("GET", "/people/P1", "", &authorization).status
}

fn becomes(gateways: &[Gateway], status: u16, context: &str) {
    let deadline = Instant::now() + PATIENCE;
    for (at, gateway) in gateways.iter().enumerate() {
        while ask(gateway) != status {
            assert!(Instant::now() < deadline, "{context}: gateway {at} never answers {status}");
        }
    }
}

/// Asks every gateway in turn until each refuses. No request that starts later than the bound after `ended` is admitted.
fn is_refused_within_the_bound(gateways: &[Gateway], ended: SystemTime, context: &str) {
    let deadline = Instant::now() + PATIENCE;
    let mut refused = vec![false; gateways.len()];
    while refused.contains(&false) {
        for (at, gateway) in gateways.iter().enumerate() {
            let start = SystemTime::now();
            match ask(gateway) {
                403 => {
                    assert!(SystemTime::now() >= ended, "{context}: gateway {at} refused too early");
                    refused[at] = true;
                }
                200 => {
                    assert!(!refused[at], "{context}: gateway {at} admitted again");
                    assert!(
                        start < ended + BOUND,
                        "{context}: gateway {at} admitted {:?} after",
                        start.duration_since(ended)
                    );
                }
                503 => {}
                status => panic!("{context}: {status}"),
            }
        }
        assert!(Instant::now() < deadline, "{context}: {refused:?}");
    }
}

fn sql(controller: &Controller, statement: &str) -> SystemTime {
    controller.run(statement);
    SystemTime::now()
}

#[test]
fn a_relation_that_ends_by_command_by_sql_or_by_its_date_is_refused_everywhere_within_the_bound() {
    let federation = Federation::with_accounts(2);
    let gateways = federation.gateways();
    let controller = federation.controller();
    sql(&controller, r#"UPDATE people SET data = data || '{"roles": ["guardian"]}'"#);
    with_guardians(&gateways);
    becomes(&gateways, 403, "before");
    let relate = ["account", "relate", "P0", "P1", "--kind", "guardian", "--wait"];
    let by_command = || {
        let (text, warnings) = fedgate(&gateways[0], &relate);
        assert!(text.contains("3 gateways have applied it") && warnings.is_empty(), "{text}{warnings}");
        becomes(&gateways, 200, "related");
    };

    by_command();
    let (text, _) = fedgate(&gateways[0], &["account", "unrelate", "P0", "P1", "--wait"]);
    assert!(text.contains("3 gateways have applied it"), "{text}");
    assert!(gateways.iter().all(|gateway| ask(gateway) == 403), "it returned when all had applied it");

    for gone in [
        "DELETE FROM fedgate_relations",
        "TRUNCATE fedgate_relations",
        "UPDATE fedgate_relations SET valid_until = now()",
        "UPDATE fedgate_relations SET subject = 'P0', account = 'P1'",
        "UPDATE people SET id = 'P2' WHERE id = 'P1'; UPDATE people SET id = 'P1' WHERE id = 'P2'",
    ] {
        by_command();
        let ended = sql(&controller, gone);
        is_refused_within_the_bound(&gateways, ended, gone);
        sql(&controller, "DELETE FROM fedgate_relations");
    }

    // By the calendar alone, which raises no epoch.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs() + 4);
    let until_text = chrono::DateTime::<chrono::Utc>::from(until).to_rfc3339();
    fedgate(&gateways[0], &[&relate[..], &["--until", &until_text]].concat());
    is_refused_within_the_bound(&gateways, until, "by its date");
    // And it begins by the calendar.
    let from = chrono::DateTime::<chrono::Utc>::from(SystemTime::now() + Duration::from_secs(3)).to_rfc3339();
    fedgate(&gateways[0], &[&relate[..], &["--from", &from]].concat());
    becomes(&gateways, 200, "from its date");

    // The person gets another id, and loses it.
    sql(&controller, "DELETE FROM fedgate_relations");
    becomes(&gateways, 403, "before the other id");
    sql(&controller, r#"INSERT INTO people (id, data) VALUES ('OLD', '{}')"#);
    fedgate(&gateways[0], &["account", "relate", "P0", "OLD", "--kind", "team", "--wait"]);
    sql(&controller, "INSERT INTO fedgate_same_persons (id, person) VALUES ('OLD', 'P1'), ('P1', 'P1')");
    becomes(&gateways, 200, "another id of the related person");
    let ended = sql(&controller, "DELETE FROM fedgate_same_persons");
    is_refused_within_the_bound(&gateways, ended, "no longer the same person");

    // Who made whom what.
    let (history, _) = fedgate(&gateways[0], &["account", "history", "P0"]);
    assert!(
        history.contains("P0 related: guardian of P1 from ") && history.contains("P0 unrelated: guardian of P1"),
        "{history}"
    );
}
