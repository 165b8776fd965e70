//! roles.cfg: an accepted policy grants what a role lists, and nothing else.
#![no_main]

use std::collections::BTreeSet;

use fedgate_core::policy::{
    EndpointTable, Method, OwnIds, PolicyDecision, PolicyQuestion, PolicyReach, PolicySet, RoleRights,
};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(policy) = PolicySet::parse(bytes) else { return };
    let again = PolicySet::parse(bytes).expect("the same again");
    assert_eq!((policy.fingerprint(), policy.roles()), (again.fingerprint(), again.roles()));
    assert_eq!(policy.source(), bytes);

    // A generic JSON parser reads the same file.
    let file: Vec<Value> = serde_json::from_slice(bytes).expect("it is JSON");
    assert_eq!(file.len(), policy.roles().len());
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let mut names: BTreeSet<String> = file.iter().map(|entry| text(&entry["role"])).collect();
    let mut endpoints: BTreeSet<String> = BTreeSet::new();
    for (_, list) in file.iter().flat_map(|entry| entry["permissions"].as_object().expect("an object")) {
        endpoints.extend(list.as_array().into_iter().flatten().map(text));
    }
    names.insert("nobody".into());
    endpoints.insert("nothing".into());
    // A file with very many questions is asked only some of them.
    let endpoints: Vec<String> = endpoints.into_iter().take(12).collect();
    let names: Vec<String> = names.into_iter().take(6).collect();
    let mut table = EndpointTable::default();
    endpoints.iter().for_each(|name| assert!(table.intern(name).is_some()));

    let related = ["EVA".to_owned()];
    let principal = OwnIds::from("ANA").with_related(&related);
    let mut held: Vec<Vec<String>> = names.iter().map(|name| vec![name.clone()]).collect();
    held.push(names.clone());
    held.push(Vec::new());
    for roles in held {
        let rights = RoleRights::compile(&policy, &roles, &table);
        for endpoint in &endpoints {
            for method in Method::ALL {
                let lists = |reach: PolicyReach| {
                    file.iter().any(|entry| {
                        let permissions = &entry["permissions"];
                        let says = |key: &str| permissions[key] == "True" || permissions[key] == true;
                        let reaches = match reach {
                            PolicyReach::Global => says("global"),
                            PolicyReach::Related => says("global") || says("related"),
                            PolicyReach::Own => true,
                        };
                        let listed = permissions[method.as_str()].as_array();
                        roles.contains(&text(&entry["role"]))
                            && listed.is_some_and(|listed| listed.iter().any(|name| name == endpoint.as_str()))
                            && reaches
                    })
                };
                for subject in [None, Some("ANA"), Some("BOB"), Some("EVA")] {
                    let question = PolicyQuestion { principal, roles: &roles, method, endpoint, subject };
                    let decision = policy.decide(question);
                    let number = table.find(endpoint).expect("it was numbered");
                    assert_eq!(
                        decision,
                        rights.decide(principal, method, number, subject),
                        "compiled rights say the same"
                    );
                    let expected = match subject {
                        _ if lists(PolicyReach::Global) => Some(PolicyReach::Global),
                        Some("BOB") => None,
                        _ if lists(PolicyReach::Related) => Some(PolicyReach::Related),
                        Some("EVA") => None,
                        _ => lists(PolicyReach::Own).then_some(PolicyReach::Own),
                    };
                    let granted = match decision {
                        PolicyDecision::Allow(reach) => Some(reach),
                        PolicyDecision::Deny(_) => None,
                    };
                    assert_eq!(granted, expected, "{question:?}");
                }
            }
        }
    }
});
