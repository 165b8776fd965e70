//! Cases: the questions that they may ask. The shipped cases cover each cell of the shipped policy.

use fedgate::routes::RouteTable;
use fedgate_core::policy::{CaseQuestion, Method, parse_cases};
use serde_json::{Value, json};

use crate::policy_tools::{Files, STOCK, policy};

/// The cases beside the policy.
const SHIPPED: &str = "policies/roles.cases.toml";

#[test]
fn the_shipped_cases_hold_and_an_unmet_case_is_reported() {
    let files = Files::new();
    let (code, text, _) = policy(&["test", STOCK]);
    assert_eq!((code, text.as_str()), (0, "236 passed, 0 failed\n"));
    let cases = |request: &str, expect: &str| {
        files.write("c.toml", &format!("[[case]]\nname = \"n\"\nas = \"ANA\"\nroles = [\"end_user\"]\nrequest = \"{request}\"\nexpect = \"{expect}\"\n"))
    };
    let run = |file: &str| policy(&["test", STOCK, "--cases", file]);
    let (code, text, _) = run(&cases("GET /people/BOB", "allow"));
    assert!(code == 1 && text.contains("not met  n: GET /people/BOB as ANA expects allow, is deny not_own"), "{text}");
    for (request, expect) in [
        ("GET /people/ANA", "deny"),
        ("GET /people/ANA", "allow global"),
        ("GET /people/BOB", "deny no_role"),
        ("GET /nowhere", "deny"),
        ("PUT /people/ANA", "deny"),
        ("OPTIONS /people/ANA", "allow"),
        ("GET /people/../x", "deny"),
        ("GET", "deny"),
    ] {
        assert_eq!(run(&cases(request, expect)).0, 1, "{request} {expect}");
    }
    let (code, _, complaint) = run(&cases("GET /people/ANA", "perhaps"));
    assert!(code == 2 && complaint.contains("c.toml: line 6: `perhaps` is none of"), "{complaint}");
    assert_eq!(run(&files.write("empty.toml", "case = []")).0, 2, "no cases prove nothing");
    assert_eq!(run("/nowhere.toml").0, 2);
}

#[test]
fn the_help_shows_each_form_of_a_case() {
    let (_, help, _) = policy(&["test", "--help"]);
    let (_, examples) = help.split_once("one of these:").unwrap();
    let examples: Vec<&str> = examples.lines().filter(|line| line.starts_with("  ")).collect();
    let asks: Vec<CaseQuestion> =
        parse_cases(&examples.join("\n")).unwrap().into_iter().map(|case| case.asks).collect();
    assert!(
        matches!(asks[..], [CaseQuestion::Request(_), CaseQuestion::Cell { .. }, CaseQuestion::Only(_)]),
        "{asks:?}"
    );
}

#[test]
fn a_case_may_ask_for_what_no_route_leads_to() {
    let files = Files::new();
    let run = |role: &str, asks: &str, expect: &str| {
        let text =
            format!("[[case]]\nname = \"n\"\nas = \"ANA\"\nroles = [\"{role}\"]\n{asks}\nexpect = \"{expect}\"\n");
        policy(&["test", STOCK, "--cases", &files.write("c.toml", &text)])
    };
    let account = "method = \"PATCH\"\nendpoint = \"account\"";
    assert_eq!(run("root", account, "allow global").0, 0);
    assert_eq!(run("end_user", account, "deny not_granted").0, 0);
    let person = "method = \"GET\"\nendpoint = \"person\"";
    assert_eq!(run("end_user", person, "allow own").0, 0);
    let of_another = format!("{person}\nsubject = \"BOB\"");
    assert_eq!(run("end_user", &of_another, "deny not_own").0, 0);
    let (code, text, _) = run("end_user", &of_another, "allow");
    assert!(code == 1 && text.contains("n: GET person of BOB as ANA expects allow, is deny not_own"), "{text}");
}

#[test]
fn only_holds_what_is_listed_and_denies_whatever_else_a_policy_grants() {
    let files = Files::new();
    let file = files.write("p.cfg", r#"[{"role": "r", "permissions": {"GET": ["person", "labs"], "PUT": ["labs"]}}]"#);
    let run = |only: &str| {
        let case = "[[case]]\nname = \"n\"\nas = \"ANA\"\nroles = [\"r\"]\nexpect = \"allow own\"\n[case.only]\n";
        let (code, text, _) = policy(&["test", &file, "--cases", &files.write("c.toml", &format!("{case}{only}"))]);
        let unmet = text.lines().filter_map(|line| line.strip_prefix("not met  n: "));
        (code, unmet.map(str::to_owned).collect::<Vec<_>>())
    };
    assert_eq!(run("person = [\"GET\"]\nlabs = [\"GET\", \"PUT\"]"), (0, vec![]));
    let (code, unmet) = run("person = [\"GET\"]\nlabs = [\"PUT\"]\nwards = [\"GET\"]");
    assert_eq!(code, 1);
    let expected =
        ["GET labs as ANA expects deny, is allow own", "GET wards as ANA expects allow own, is deny not_granted"];
    assert_eq!(unmet, expected);
}

/// The stock policy with one cell more or less, or another reach; and a cell that is then judged differently.
fn mutants() -> Vec<(String, Value)> {
    let stock: Value = serde_json::from_slice(&std::fs::read(STOCK).unwrap()).unwrap();
    let routes = RouteTable::built_in().unwrap();
    let mut mutants = Vec::new();
    for at in 0..stock.as_array().unwrap().len() {
        for (endpoint, method) in
            routes.endpoints().names().iter().flat_map(|endpoint| Method::ALL.map(|method| (endpoint, method.as_str())))
        {
            let mut mutant = stock.clone();
            let permissions = mutant[at]["permissions"].as_object_mut().unwrap();
            let granted = permissions.entry(method).or_insert_with(|| json!([])).as_array_mut().unwrap();
            let before = granted.len();
            granted.retain(|known| known != endpoint);
            if granted.len() == before {
                granted.push(json!(endpoint));
            }
            mutants.push((format!("{method} {endpoint} as "), mutant));
        }
        let mut mutant = stock.clone();
        let global = &mut mutant[at]["permissions"]["global"];
        *global = json!(if global == "True" { "False" } else { "True" });
        mutants.push(("GET login as ".to_owned(), mutant));
    }
    mutants
}

#[test]
fn the_shipped_cases_notice_every_grant_that_goes_or_comes_and_every_other_reach() {
    let files = Files::new();
    let mutants = mutants();
    assert_eq!(mutants.len(), 3 * (14 * 5 + 1));
    for (cell, mutant) in mutants {
        let file = files.write("mutant.cfg", &mutant.to_string());
        let (code, text, _) = policy(&["test", &file, "--cases", SHIPPED]);
        assert!(code == 1 && text.contains(&cell), "{cell}: {text}\n{mutant}");
    }
}
