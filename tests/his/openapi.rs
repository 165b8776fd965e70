//! docs/openapi.yaml: the document that the HIS serves, with every route and every code, and nothing besides.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use fedgate::routes::{RouteResolution, RouteTable};
use fedgate_core::codes::AnswerCode;
use fedgate_core::methods::Method;
use fedgate_core::path::CanonicalPath;
use serde_json::Value;

use crate::support::{His, root};

fn document() -> Value {
    serde_yaml::from_str(&fs::read_to_string("docs/openapi.yaml").unwrap()).unwrap()
}

/// Each path of the document with a value for each parameter, and its operations by method.
fn paths(document: &Value) -> BTreeMap<String, BTreeMap<Method, Value>> {
    let paths = document["paths"].as_object().unwrap();
    let operations = |item: &Value| {
        let item = item.as_object().unwrap().iter();
        item.filter_map(|(name, operation)| Some((Method::of_key(&name.to_uppercase())?, operation.clone()))).collect()
    };
    paths.iter().map(|(path, item)| (path.clone(), operations(item))).collect()
}

/// The path with each parameter replaced by a value.
fn filled(path: &str) -> String {
    path.split('/').map(|part| if part.starts_with('{') { "7" } else { part }).collect::<Vec<_>>().join("/")
}

#[test]
fn the_service_serves_the_document_that_is_written() {
    let served: Value = serde_json::from_str(&fs::read_to_string("crates/his/src/site/openapi.json").unwrap()).unwrap();
    assert_eq!(served, document(), "`tests/openapi --json` writes the second from the first");
    assert_eq!(served["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn every_route_of_the_gateway_is_an_operation_of_the_document_and_the_other_way_round() {
    let (document, routes) = (document(), RouteTable::built_in().unwrap());
    let paths = paths(&document);
    // One route of the gateway may lead to several paths of the document. Together they have its methods.
    let mut by_route: BTreeMap<*const u8, (BTreeSet<Method>, BTreeSet<Method>)> = BTreeMap::new();
    for (path, operations) in &paths {
        let target = filled(path);
        let canonical = CanonicalPath::parse(&target).unwrap();
        let allowed = routes.allowed_methods(&canonical).unwrap_or_else(|| panic!("no route leads to {path}"));
        let served: BTreeSet<Method> = allowed.split(", ").filter_map(Method::of_key).collect();
        let methods: BTreeSet<Method> = operations.keys().copied().collect();
        assert!(methods.is_subset(&served), "{path}");
        by_route.entry(allowed.as_ptr()).or_insert((served, BTreeSet::new())).1.extend(methods);
        for (method, operation) in operations {
            let RouteResolution::Found(found) = routes.resolve(method.as_str(), &canonical, None) else {
                panic!("{path}")
            };
            let endpoint = found.endpoint.map(|endpoint| routes.endpoints().name(endpoint));
            assert_eq!(operation["x-endpoint"].as_str(), endpoint, "{} {path}", method.as_str());
            assert_eq!(operation["security"].is_array(), endpoint.is_none(), "{} {path}", method.as_str());
        }
    }
    for (served, written) in by_route.values() {
        assert_eq!(served, written);
    }
    let written: BTreeSet<String> = paths.keys().map(|path| filled(path)).collect();
    // FHIR describes itself, at /fhir/metadata.
    for pattern in routes.patterns().filter(|pattern| !pattern.starts_with("/fhir/")) {
        assert!(written.contains(&filled(pattern)), "{pattern}");
    }
}

#[test]
fn the_document_has_every_code_under_its_status_and_no_other() {
    let document = document();
    let responses = document["components"]["responses"].as_object().unwrap();
    let mut written = BTreeSet::new();
    for (name, response) in responses {
        let Some(status) = name.strip_prefix("Error") else { continue };
        let codes = &response["content"]["application/json"]["schema"]["allOf"][1]["properties"]["code"]["enum"];
        for code in codes.as_array().unwrap() {
            assert!(written.insert((status.parse::<u16>().unwrap(), code.as_str().unwrap().to_owned())), "{code}");
        }
    }
    // Calls of gRPC have routes of the operator's own.
    let of_the_document = AnswerCode::ALL.iter().filter(|answer| **answer != AnswerCode::Http2Needed);
    let known: BTreeSet<_> = of_the_document.map(|answer| (answer.status(), answer.code().to_owned())).collect();
    assert_eq!(written, known);
}

#[test]
fn every_operation_names_its_errors_and_every_reference_leads_somewhere() {
    let document = document();
    let mut ids = BTreeSet::new();
    let mut named = BTreeSet::new();
    for (path, operations) in paths(&document) {
        for (method, operation) in operations {
            let at = format!("{} {path}", method.as_str());
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{at}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let number: u16 = status.parse().unwrap();
                if number >= 400 {
                    assert_eq!(response["$ref"], format!("#/components/responses/Error{number}"), "{at}");
                    named.insert(format!("Error{number}"));
                }
            }
            let parameters = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
            let item = &document["paths"][&path]["parameters"];
            let declared: Vec<&Value> =
                item.as_array().into_iter().flatten().map(|parameter| target(&document, parameter)).collect();
            assert_eq!(
                parameters.collect::<Vec<_>>(),
                declared.iter().map(|parameter| parameter["name"].as_str().unwrap()).collect::<Vec<_>>(),
                "{at}"
            );
        }
    }
    let errors =
        document["components"]["responses"].as_object().unwrap().keys().filter(|name| name.starts_with("Error"));
    assert_eq!(errors.cloned().collect::<BTreeSet<_>>(), named, "each error belongs to an operation");
    references(&document, &document);
}

/// The value that a reference leads to.
fn target<'a>(document: &'a Value, reference: &'a Value) -> &'a Value {
    let place = reference["$ref"].as_str().unwrap().strip_prefix('#').unwrap();
    document.pointer(place).unwrap_or_else(|| panic!("{place} leads nowhere"))
}

fn references(document: &Value, value: &Value) {
    match value {
        Value::Object(members) => {
            if members.contains_key("$ref") {
                target(document, value);
            }
            members.values().for_each(|member| references(document, member));
        }
        Value::Array(items) => items.iter().for_each(|item| references(document, item)),
        _ => {}
    }
}

/// The HIS itself: what it says that a path serves, by `Allow`, is what the document has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_has_the_routes_of_the_document_and_no_others() {
    let his = His::on_sqlite().await;
    let document = document();
    let paths = paths(&document);
    for (path, operations) in &paths {
        let target = filled(path);
        let reply = his.request(&root(), "TRACE", &target).send().await;
        assert_eq!(reply.status, 405, "{path}: {reply:?}");
        let served: BTreeSet<Method> = reply.header("allow").unwrap().split(',').filter_map(Method::of_key).collect();
        assert_eq!(operations.keys().copied().collect::<BTreeSet<_>>(), served, "{path}");
    }
    let source = fs::read_to_string("crates/his/src/lib.rs").unwrap();
    let routes = source.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let routes = routes.filter(|path| !path.starts_with("/fhir/"));
    let written: BTreeSet<String> = paths.keys().map(|path| filled(path)).collect();
    assert_eq!(routes.map(filled).collect::<BTreeSet<_>>(), written);
}

/// Public, without data, and the same bytes for everybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_is_served_to_anybody_and_can_be_kept() {
    let his = His::on_sqlite().await;
    let reply = his.get(&root(), "/openapi.json").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    assert_eq!(reply.json(), document());
    let tag = reply.header("etag").unwrap();
    let again = his.request(&root(), "GET", "/openapi.json").header("if-none-match", tag).send().await;
    assert_eq!((again.status, again.text()), (304, ""));
}
