//! Views of a policy: explanations, tables, warnings, cases, and their texts.

use std::collections::BTreeSet;

use super::*;

fn ask<'a>(roles: &'a [String], method: Method, subject: Option<&'a str>) -> PolicyQuestion<'a> {
    PolicyQuestion { principal: "ANA".into(), roles, method, endpoint: "person", subject }
}

fn cells(policy: &PolicySet) -> Vec<(String, PolicyReach)> {
    let cells = policy.matrix().into_iter();
    cells.map(|((role, endpoint, method), reach)| (format!("{role} {endpoint} {method}"), reach)).collect()
}

#[test]
fn an_explanation_names_what_each_role_says_and_where() {
    let policy = policy(SMALL);
    let roles = ["doctor", "end_user", "silent", "unknown"].map(str::to_owned);
    let says = |question| policy.explain(question).roles.into_iter().map(|role| role.says).collect::<Vec<_>>();
    let undefined = [RoleStatement::Silent { line: 10 }, RoleStatement::Undefined];
    let of_another = [
        RoleStatement::Grants { line: 6, reach: PolicyReach::Global },
        RoleStatement::OwnOnly { line: 2, reach: PolicyReach::Own },
    ];
    assert_eq!(says(ask(&roles, Method::Get, Some("BOB"))), [&of_another[..], &undefined].concat());
    let own = [of_another[0], RoleStatement::Grants { line: 2, reach: PolicyReach::Own }];
    assert_eq!(says(ask(&roles, Method::Get, Some("ANA"))), [&own[..], &undefined].concat());
    assert_eq!(says(ask(&roles, Method::Get, None)), [&own[..], &undefined].concat());
    let patch = [RoleStatement::Silent { line: 3 }, RoleStatement::OwnOnly { line: 2, reach: PolicyReach::Own }];
    assert_eq!(says(ask(&roles, Method::Patch, Some("BOB"))), [&patch[..], &undefined].concat());
    let delete = [RoleStatement::Silent { line: 3 }, RoleStatement::Silent { line: 2 }];
    assert_eq!(says(ask(&roles, Method::Delete, Some("ANA"))), [&delete[..], &undefined].concat());
    let found = policy.explain(ask(&roles, Method::Get, Some("BOB")));
    assert_eq!(found.decision, PolicyDecision::Allow(PolicyReach::Global));
    assert_eq!(found.roles.iter().map(|role| role.role.as_str()).collect::<Vec<_>>(), roles);
}

#[test]
fn the_matrix_has_one_cell_for_each_grant_and_the_widest_reach_of_a_name() {
    use PolicyReach::{Global, Own};
    let policy = policy(
        r#"[{"role": "r", "permissions": {"GET": ["person"], "POST": ["person"], "global": "True"}},
            {"role": "r", "permissions": {"GET": ["person", "people"], "HEAD": ["login"]}}]"#,
    );
    let expected = [("r people GET", Own), ("r person GET", Global), ("r person POST", Global)];
    assert_eq!(cells(&policy), expected.map(|(cell, reach)| (cell.to_owned(), reach)));
}

#[test]
fn an_edit_is_shown_as_the_cells_it_changes_and_only_what_gives_more_widens() {
    let before = policy(r#"[{"role": "r", "permissions": {"GET": ["login", "person"], "POST": ["person"]}}]"#);
    let after =
        policy(r#"[{"role": "r", "permissions": {"GET": ["people", "person"], "POST": ["person"], "global": true}}]"#);
    let changes = |from: &PolicySet, to: &PolicySet| -> Vec<_> {
        let changes = from.changes_to(to).into_iter();
        changes.map(|change| (format!("{} {}", change.endpoint, change.method), change.widens())).collect()
    };
    let expected = |list: [(&str, bool); 4]| list.map(|(cell, widens)| (cell.to_owned(), widens));
    let widened = [("login GET", false), ("people GET", true), ("person GET", true), ("person POST", true)];
    assert_eq!(changes(&before, &after), expected(widened));
    assert_eq!(changes(&after, &before), expected(widened.map(|(cell, widens)| (cell, !widens))));
    assert_eq!(changes(&before, &before), []);
    let same = CellChange {
        role: "r".into(),
        endpoint: "login".into(),
        method: "GET",
        before: Some(PolicyReach::Own),
        after: Some(PolicyReach::Own),
    };
    assert!(!same.widens());
}

#[test]
fn what_is_hardly_meant_is_warned_of_and_nothing_else() {
    let asked = || {
        let writes = BTreeSet::from([Method::Post, Method::Patch]);
        ReviewedQuestion::from([
            ("person", [Method::Get].into_iter().chain(writes.clone()).collect()),
            ("people", [Method::Get].into()),
            ("account", writes.clone()),
            ("institutions", writes),
        ])
    };
    let warnings = |text: &str| -> Vec<(usize, String)> {
        let found = policy(text).warnings(&asked());
        found.into_iter().map(|warning| (warning.line, warning.text)).collect()
    };
    assert_eq!(warnings(r#"[{"role": "r", "permissions": {"GET": ["person"], "global": "True"}}]"#), []);
    assert_eq!(warnings(r#"[{"role": "r", "permissions": {"GET": ["person"], "global": false}}]"#), []);
    assert_eq!(warnings(r#"[{"role": "r", "permissions": {"PATCH": ["account"], "global": "True"}}]"#), []);
    assert_eq!(warnings(r#"[{"role": "r", "permissions": {"GET": ["people"], "global": "True"}}]"#), []);
    assert_eq!(
        policy(r#"[{"role": "r", "permissions": {"PATCH": ["account"]}}]"#).notes(&asked()),
        Vec::<String>::new()
    );
    let notes = policy(r#"[{"role": "r", "permissions": {"GET": ["person"]}}]"#).notes(&asked());
    assert!(notes.len() == 1 && notes[0].starts_with("no role is granted `account`"), "{notes:?}");
    let found = warnings(
        r#"[
{"role": "r", "permissions": {"GET": ["person"], "global": true}},
{"role": "r", "permissions": {"GET": ["nowhere", "person",
    "person"], "HEAD": ["person"]}},
{"role": "s", "permissions": {"PATCH": ["account"], "POST": ["person"]}},
{"role": "t", "permissions": {"POST": ["account"],
    "GET": ["account", "people"], "PUT": ["person"],
    "DELETE": ["people"]}},
{"role": "u", "permissions": {"PATCH": ["institutions"]}},
{"role": "v", "permissions": {"PATCH": ["institutions"], "global": "True"}}]"#,
    );
    let expected = [
        (2, "Thalamus would read it as own records only"),
        (3, "no route leads to endpoint `nowhere`; role `r`"),
        (3, "role `r` is also on line 2"),
        (4, "`HEAD` of role `r` is no method that is judged"),
        (4, "`person` occurs twice under `GET` of role `r`"),
        (5, "role `s` may write its own roles"),
        (6, "role `t` may write its own roles"),
        (7, "no route asks for `account` under `GET`, but under POST, PATCH; role `t` gains nothing by it"),
        (7, "role `t` is not global, so that `people` shows it only its own record; Thalamus would show everybody's"),
        (7, "no route asks for `person` under `PUT`, but under GET, POST, PATCH"),
        (8, "no route asks for `people` under `DELETE`, but under GET"),
        (9, "role `u` is not global, but `institutions` belong to no person: it may PATCH every one of them"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (line, text) in expected {
        assert!(found.iter().any(|(on, found)| *on == line && found.contains(text)), "{line}: {text}: {found:?}");
    }
}

#[test]
fn faults_in_thalamus_are_distinct_from_likely_mistakes() {
    let found = policy(
        r#"[
{"role": "whole", "permissions": {"GET": ["person"], "POST": [], "PATCH": [], "DELETE": [], "global": "False"}},
{"role": "few", "permissions": {"GET": ["person"], "PATCH": [], "global": "True"}},
{"role": "nowhere", "permissions": {"GET": ["person"], "POST": [], "PATCH": [], "DELETE": []}},
{"role": "nothing", "permissions": {"GET": [], "POST": [], "PATCH": [], "DELETE": []}},
{"role": "put", "permissions": {"GET": [], "POST": [], "PATCH": [], "DELETE": [], "PUT": ["person"]}}]"#,
    );
    let warnings = found.thalamus_warnings();
    let lines: Vec<_> = warnings.iter().map(|warning| warning.line).collect();
    assert_eq!(lines, [3, 4], "{warnings:?}");
    assert!(
        warnings[0].text.starts_with("role `few` has no `POST`, `DELETE`: Thalamus would answer 500"),
        "{warnings:?}"
    );
    assert!(warnings[1].text.starts_with("role `nowhere` has no `global`: Thalamus would answer 500"), "{warnings:?}");
    let asked = ReviewedQuestion::from([("person", [Method::Get, Method::Put].into())]);
    assert_eq!(found.warnings(&asked), [], "a policy that comes into force is not told of");
}

#[test]
fn a_hint_names_what_differs_by_case_alone() {
    let known = ["End_User", "end_user", "root"];
    assert_eq!(hint("END_USER", known), " (did you mean `End_User`? names are compared exactly)");
    assert_eq!(hint("ROOT", known), " (did you mean `root`? names are compared exactly)");
    assert_eq!((hint("enduser", known), hint("root", [])), (String::new(), String::new()));
    let asked = ReviewedQuestion::from([("person", [Method::Get].into())]);
    let found = policy(r#"[{"role": "r", "permissions": {"GET": ["Person"]}}]"#).warnings(&asked);
    assert!(found[0].text.contains("`Person` (did you mean `person`? names are compared exactly);"), "{found:?}");
}

#[test]
fn a_case_expects_what_its_words_say_and_nothing_else_meets_it() {
    use PolicyDecision::{Allow, Deny};
    let all = [
        Allow(PolicyReach::Own),
        Allow(PolicyReach::Global),
        Deny(DenyReason::NoRole),
        Deny(DenyReason::NotGranted),
        Deny(DenyReason::NotOwn),
    ];
    let words = ["allow own", "allow global", "deny no_role", "deny not_granted", "deny not_own"];
    for (word, met) in [("allow", &all[..2]), ("deny", &all[2..])]
        .into_iter()
        .chain(words.into_iter().zip(&all).map(|(word, one)| (word, std::slice::from_ref(one))))
    {
        let expectation = ExpectedDecision::try_from(word.to_owned()).unwrap();
        assert_eq!(expectation.to_string(), word);
        let found: Vec<_> = all.into_iter().filter(|decision| expectation.is_met_by(*decision)).collect();
        assert_eq!(found, met, "{word}");
    }
    assert_eq!(all.map(|decision| decision.to_string()), words);
    assert!(
        ExpectedDecision::try_from("Allow".to_owned()).unwrap_err().contains("`Allow` is none of allow, allow own")
    );
}

#[test]
fn a_case_file_is_read_whole_or_refused_with_its_line() {
    let text = "[[case]]\nname = \"n\"\nas = \"ANA\"\nroles = [\"r\"]\nrequest = \"GET /\"\nexpect = \"deny\"\n";
    let cases = parse_cases(&text.repeat(2)).unwrap();
    assert_eq!(cases.len(), 2);
    assert_eq!((cases[1].principal.as_str(), cases[1].expect), ("ANA", ExpectedDecision::Deny));
    assert_eq!(cases[1].asks, CaseQuestion::Request("GET /".to_owned()));
    for (wrong, line) in [("expect = \"maybe\"\n", 6), ("expects = 1\n", 6)] {
        let found = parse_cases(&text.replace("expect = \"deny\"\n", wrong)).unwrap_err().to_string();
        assert!(found.starts_with(&format!("line {line}: ")), "{found}");
    }
}

#[test]
fn a_case_asks_for_one_thing_and_only_what_is_allowed_is_listed() {
    let parse = |asks: &str, expect: &str| {
        let text = format!("[[case]]\nname = \"n\"\nas = \"A\"\nroles = []\nexpect = \"{expect}\"\n{asks}\n");
        parse_cases(&text).map(|mut cases| cases.remove(0).asks).map_err(|fault| fault.to_string())
    };
    let (method, endpoint) = (Method::Patch, "account".to_owned());
    let cell = "method = \"PATCH\"\nendpoint = \"account\"";
    let nobodys = CaseQuestion::Cell { method, endpoint: endpoint.clone(), subject: None };
    assert_eq!(parse(cell, "deny"), Ok(nobodys));
    let of_bob = CaseQuestion::Cell { method, endpoint, subject: Some("BOB".to_owned()) };
    assert_eq!(parse(&format!("{cell}\nsubject = \"BOB\""), "deny"), Ok(of_bob));
    let only = "[case.only]\npage = [\"GET\", \"PUT\"]\nbook = []";
    let cells = [("page".to_owned(), [Method::Get, Method::Put].into()), ("book".to_owned(), BTreeSet::new())];
    for expect in ["allow", "allow own", "allow global"] {
        assert_eq!(parse(only, expect), Ok(CaseQuestion::Only(cells.clone().into())));
    }
    for (asks, expect, problem) in [
        ("", "deny", "must ask one of `request`, `method` with `endpoint`"),
        ("method = \"GET\"", "deny", "must ask one of"),
        ("endpoint = \"page\"", "deny", "must ask one of"),
        ("request = \"GET /\"\nsubject = \"BOB\"", "deny", "must ask one of"),
        ("request = \"GET /\"\n[case.only]", "allow", "must ask one of"),
        ("method = \"HEAD\"\nendpoint = \"page\"", "deny", "`HEAD` is none of GET, POST, PUT, PATCH, DELETE"),
        ("[case.only]\npage = [\"get\"]", "allow", "`get` is none of"),
        ("[case.only]", "deny", "`only` lists allowed requests, but `expect` is `deny`"),
        ("[case.only]", "deny not_own", "`expect` is `deny not_own`"),
    ] {
        let found = parse(asks, expect).unwrap_err();
        assert!(found.starts_with("line ") && found.contains(problem), "{asks}: {found}");
    }
}

#[test]
fn a_policy_is_named_by_the_hash_of_the_bytes_it_keeps() {
    let policy = policy(SMALL);
    assert_eq!(policy.source(), SMALL.as_bytes());
    assert_eq!(policy.fingerprint(), &blake3::hash(SMALL.as_bytes()).to_hex()[..16]);
}
