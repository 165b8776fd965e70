use std::path::Path;

use super::*;

fn config(extra: &str) -> Config {
    let dir = std::env::temp_dir().join(format!("fedgate-routes-{}-{:x}", std::process::id(), rand::random::<u64>()));
    std::fs::create_dir_all(&dir).unwrap();
    fedgate_base::regular::write(&dir.join("secret"), 0o600, &[b'k'; 40]).unwrap();
    let text = format!(
        "{extra}\n[assertion]\nsecret_file = \"secret\"\n[[upstream]]\nname = \"fhir\"\naddress = \"127.0.0.1:1\"\n"
    );
    std::fs::write(dir.join("fedgate.toml"), text).unwrap();
    let config = Config::load_with(Path::new(&dir.join("fedgate.toml")), std::iter::empty()).unwrap();
    std::fs::remove_dir_all(dir).unwrap();
    config
}

fn route(path: &str, methods: &str, subject: &str) -> String {
    let subject = if subject.is_empty() { String::new() } else { format!("subject = \"{subject}\"\n") };
    let methods: Vec<_> = methods.split_whitespace().collect();
    format!("[[route]]\npath = \"{path}\"\nmethods = {methods:?}\nendpoint = \"e\"\nupstream = \"fhir\"\n{subject}")
}

fn build(routes: &[String]) -> Result<RouteTable, RouteError> {
    RouteTable::from_config(&config(&routes.concat()))
}

fn found(routes: &RouteTable, method: &str, path: &str) -> String {
    match routes.resolve(method, &CanonicalPath::parse(path).unwrap(), None) {
        RouteResolution::Found(target) => {
            let endpoint = target.action.endpoint.map_or("public", |endpoint| routes.endpoints().name(endpoint));
            format!("{endpoint} {}", target.subject.id().unwrap_or_default())
        }
        RouteResolution::MethodNotAllowed(allow) => format!("405 {allow}"),
        RouteResolution::NotFound => "404".into(),
    }
}

#[test]
fn the_built_in_routes_are_those_of_the_contract() {
    let routes = build(&[]).unwrap();
    #[rustfmt::skip]
    let cases = [
        ("GET", "/", "public "), ("HEAD", "/", "public "), ("POST", "/", "405 GET, HEAD, OPTIONS"),
        ("GET", "/static/style.css", "public "), ("GET", "/static", "404"),
        ("GET", "/login", "login "), ("POST", "/login", "405 GET, HEAD, OPTIONS"),
        ("GET", "/people", "people "), ("HEAD", "/people/ANA", "person ANA"), ("POST", "/people/ANA", "person ANA"),
        ("PUT", "/people/ANA", "405 GET, HEAD, POST, PATCH, DELETE, OPTIONS"),
        ("GET", "/pols/ANA", "book ANA"), ("DELETE", "/pols/ANA/1", "page ANA"),
        ("GET", "/personal_docs/ANA", "personaldocs ANA"), ("GET", "/personal_docs/ANA/1", "poldocs ANA"),
        ("POST", "/personal_docs/ANA/1/2", "poldocs ANA"), ("GET", "/domiciliary-units", "domiciliaryunits "),
        ("PATCH", "/institutions/1", "institutions "), ("POST", "/password/ANA", "password ANA"),
        ("GET", "/PEOPLE", "404"), ("GET", "/people/ANA/x", "404"), ("GET", "/x", "404"), ("FOO", "/people", "405 GET, HEAD, OPTIONS"),
        ("GET", "/people/M%C3%BCller%20A", "person Müller A"),
        ("POST", "/fhir/Patient/$match", "match "), ("GET", "/fhir/Patient/$match", "405 POST, OPTIONS"),
        ("POST", "/fhir/Patient/_search", "people "), ("GET", "/fhir/Patient/a.B-1", "person "),
        ("GET", "/fhir/Patient", "people "), ("GET", "/fhir/metadata", "public "),
        ("GET", "/fhir/Patient/a_b", "404"), ("GET", "/fhir/Patient/%24match", "404"), ("GET", "/fhir/Observation", "404"),
    ];
    for (method, path, expected) in cases {
        assert_eq!(found(&routes, method, path), expected, "{method} {path}");
    }
}

#[test]
fn a_document_may_be_larger_than_other_bodies() {
    let routes = build(&[]).unwrap();
    let limit = |path| match routes.resolve("POST", &CanonicalPath::parse(path).unwrap(), None) {
        RouteResolution::Found(target) => target.action.max_body_bytes,
        other => panic!("{other:?}"),
    };
    assert_eq!(limit("/pols/A/1"), 1024 * 1024);
    assert!(limit("/personal_docs/A/1/2") > 16 * 1024 * 1024);
}

#[test]
fn two_routes_that_could_both_match_are_an_error() {
    #[rustfmt::skip]
    let cases = [
        // two patterns, do they overlap
        ("/fhir/{id}",     "/fhir/Patient",     true),
        ("/fhir/{id}",     "/fhir/{other}",     true),
        ("/{a}/Patient",   "/fhir/{b}",         true),
        ("/fhir/{*rest}",  "/fhir/Patient/{id}", true),
        ("/{*rest}",       "/fhir",             true),
        ("/fhir/{id}",     "/fhir/{id}/x",      false),
        ("/fhir/a/{id}",   "/fhir/b/{id}",      false),
        ("/fhir/{*rest}",  "/fhir",             false),
        ("/x",             "/people",           true), // stands among the built-in ones
        ("/a/{x:plain}",   "/a/$match",         false),
        ("/a/{x:plain}",   "/a/match",          true),
        ("/a/{x:plain}",   "/a/{y}",            true),
        ("/a/{x:plain}/c", "/{*rest}",          true),
        ("/people/{x}",    "/x",                true), // overlaps the built-in one
        ("/people/me",     "/x",                true),
    ];
    for (a, b, overlap) in cases {
        let built = build(&[route(a, "GET", ""), route(b, "GET", "")]);
        let ambiguous = matches!(built, Err(RouteError::Ambiguous(..)));
        assert_eq!(ambiguous, overlap, "{a} {b}: {built:?}");
    }
}

#[test]
fn routes_that_fedgate_added_yield_to_the_operators_own() {
    let served = |own: &[&str], asked: &str| {
        let own: Vec<_> = own.iter().map(|path| route(path, "GET POST", "")).collect();
        let routes = build(&own).unwrap();
        (found(&routes, "POST", asked), routes.yielded().iter().map(|(what, _)| *what).collect::<Vec<_>>())
    };
    let fhir = vec!["FHIR"];
    assert_eq!(served(&[], "/fhir/Patient/$match"), ("match ".into(), vec![]));
    // All of FHIR, so that no built-in answer stands beside the operator's.
    assert_eq!(served(&["/fhir/{*rest}"], "/fhir/Patient/$match"), ("e ".into(), fhir.clone()));
    assert_eq!(served(&["/fhir/Patient/{id}"], "/fhir/Patient/_search"), ("e ".into(), fhir.clone()));
    assert_eq!(served(&["/fhir/metadata"], "/fhir/Patient/$match"), ("404".into(), fhir));
    assert_eq!(served(&["/fhir/Observation"], "/fhir/Patient/$match"), ("match ".into(), vec![]));
    assert_eq!(served(&["/index/match"], "/index/match"), ("e ".into(), vec!["the index of persons"]));
    assert_eq!(served(&["/messages/{id}"], "/messages"), ("404".into(), vec!["messages"]));
}

#[test]
fn fhir_can_be_switched_off() {
    let routes = RouteTable::from_config(&config("[fhir]\nenabled = false\n")).unwrap();
    assert_eq!(found(&routes, "GET", "/fhir/metadata"), "404");
}

#[test]
fn one_path_may_have_several_methods_in_several_entries() {
    let routes = build(&[route("/fhir/{id}", "GET", "id"), route("/fhir/{id}", "PUT PATCH", "id")]).unwrap();
    assert_eq!(found(&routes, "PUT", "/fhir/A"), "e A");
    assert_eq!(found(&routes, "POST", "/fhir/A"), "405 GET, HEAD, PUT, PATCH, OPTIONS");
    assert!(build(&[route("/fhir/{id}", "GET", "id"), route("/fhir/{id}", "GET", "id")]).is_err());
    assert!(build(&[route("/fhir/{id}", "GET", "id"), route("/fhir/{id}", "PUT", "")]).is_err());
}

#[test]
fn a_rest_parameter_takes_all_that_follows_but_not_nothing() {
    let routes = build(&[route("/fhir/{id}/{*rest}", "GET", "id")]).unwrap();
    assert_eq!(found(&routes, "GET", "/fhir/A/b/c"), "e A");
    assert_eq!(found(&routes, "GET", "/fhir/A/b"), "e A");
    assert_eq!(found(&routes, "GET", "/fhir/A"), "404");
}

#[test]
fn malformed_patterns_are_named() {
    for path in ["fhir", "/a//b", "/a/", "/a/..", "/a/{}", "/a/{b", "/a/{*r}/x", "/{a}/{a}", "/a%20b", "/{a-b}", "/a;b"]
    {
        let error = build(&[route(path, "GET", "")]).unwrap_err().to_string();
        assert!(error.contains(path), "{error}");
    }
    for (methods, subject) in [("FOO", ""), ("HEAD", ""), ("", ""), ("GET", "nobody")] {
        assert!(build(&[route("/a/{b}", methods, subject)]).is_err(), "{methods} {subject}");
    }
}

#[test]
fn a_policy_is_asked_for_what_routes_lead_to_and_for_what_they_guard() {
    let asked = |routes: &RouteTable| -> Vec<String> {
        let words = |(endpoint, methods): (&str, std::collections::BTreeSet<Method>)| {
            let methods: Vec<_> = methods.into_iter().map(Method::as_str).collect();
            format!("{endpoint} {}", methods.join(" "))
        };
        routes.asked().into_iter().map(words).collect()
    };
    let built_in = [
        "account POST PATCH",
        "book GET",
        "domiciliaryunits GET POST PATCH DELETE",
        "institutions GET POST PATCH DELETE",
        "login GET",
        "match GET POST PATCH",
        "merge GET POST DELETE",
        "messages GET POST PUT PATCH DELETE",
        "page GET POST PATCH DELETE",
        "password GET POST",
        "people GET POST",
        "person GET POST PATCH DELETE",
        "personaldocs GET",
        "poldocs GET POST DELETE",
    ];
    assert_eq!(asked(&build(&[]).unwrap()), built_in);
    let guarded = "[[route.guard]]\nmembers = [\"roles\"]\npermission = \"vip\"\n".to_owned();
    let own = [
        "[gateway]\nthalamus_routes = false\n".to_owned(),
        route("/a/{id}", "GET PUT", "id"),
        route("/b", "GET POST", ""),
        guarded,
    ];
    assert_eq!(asked(&build(&own).unwrap()), ["e GET POST PUT", "vip POST"]);
}

#[test]
fn an_unknown_method_is_reported_of_a_route_with_other_faults() {
    let dir = std::env::temp_dir().join(format!("fedgate-examined-{:x}", rand::random::<u128>()));
    std::fs::create_dir_all(&dir).unwrap();
    let text =
        "[[route]]\npath = \"/x/{a}\"\nmethods = [\"GTE\", \"GET\", \"PSOT\"]\nupstream = \"c\"\nhide = [\"\"]\n";
    std::fs::write(dir.join("fedgate.toml"), text).unwrap();
    let examined = Config::examine(&dir.join("fedgate.toml"));
    std::fs::remove_dir_all(dir).unwrap();
    let (_, faults) = RouteTable::examine(&examined.config.unwrap());
    assert!(faults.len() == 1 && faults[0].to_string().contains("`GTE`, `PSOT` are no methods"), "{faults:?}");
}

#[test]
fn a_subject_that_could_be_missed_is_refused_with_key_and_remedy() {
    let dir = std::env::temp_dir().join(format!("fedgate-subjects-{:x}", rand::random::<u128>()));
    std::fs::create_dir_all(&dir).unwrap();
    fedgate_base::regular::write(&dir.join("secret"), 0o600, &[b'k'; 40]).unwrap();
    let faults = |methods: &str, subject: &str| {
        let text = format!(
            "[assertion]\nsecret_file = \"secret\"\n[[upstream]]\nname = \"c\"\naddress = \"127.0.0.1:1\"\n\
             [[route]]\npath = \"/x/{{a}}\"\nmethods = {methods}\nendpoint = \"e\"\nupstream = \"c\"\n{subject}\n"
        );
        std::fs::write(dir.join("fedgate.toml"), text).unwrap();
        let examined = Config::examine(&dir.join("fedgate.toml"));
        let faults: Vec<_> = examined.faults.iter().map(ToString::to_string).collect();
        faults.join("; ")
    };
    let read = "[\"GET\"]";
    for (methods, subject, said) in [
        (read, "subject = { querry = [\"p\"] }", "unknown field `querry`"),
        (read, "subject = { query = \"p\" }", "expected a list in brackets"),
        (read, "subject = { query = [\"p\"], missing = \"owner\" }", "`everybody` or `own`"),
        (read, "subject = 7", "a parameter of the path, or a table"),
        (read, "subject = {}", "names no place"),
        (read, "subject = { answer = [\"/a\"], missing = \"own\" }", "without `query`"),
        (read, "subject = { query = [\"p%71\"] }", "in this spelling"),
        (read, "subject = { query = [\"p\\r\\nX: y\"] }", "in this spelling"),
        (read, "subject = { query = [\"*\"] }", "in this spelling"),
        (read, "subject = { query = [\"p\"], beside = [\"P\"] }", "holds `P`"),
        (read, "subject = { query = [\"p\"], beside = [\"p:not\"] }", "holds `p:not`"),
        (read, "subject = { answer = [\"/x\", \"/a\", \"/a/b\"] }", "holds `/a/b`"),
        (read, "subject = { answer = [\"/a\", \"/A\"] }", "holds `/A`"),
        (read, "subject = { answer = [\"a\"] }", "holds `a`"),
        (read, "subject = { answer = [\"/a\"], forms = [\"Patient/\"] }", "holds `Patient/`"),
        (read, "subject = { body = [\"/a\"] }", "a route without bodies"),
        (read, "subject = { query = [\"p\"], empty = { \"/a\" = \"b\" } }", "no `answer` beside it"),
        (read, "subject = { answer = [\"/a\"], if_match = true }", "no stored record"),
        (read, "stream = true\nsubject = { answer = [\"/a\"] }", "beside `stream = true`"),
        ("[\"POST\"]", "subject = { query = [\"p\"] }", "could be about anybody"),
        ("[\"PUT\"]", "subject = { body = [\"/a\"] }", "could be anybody's"),
        ("[\"PUT\"]", "subject = { answer = [\"/a\"] }", "could be about anybody"),
        ("[\"DELETE\"]", "subject = { body = [\"/a\"] }", "could be anybody's"),
    ] {
        let found = faults(methods, subject);
        assert!(found.contains(said), "{subject}: {found}");
    }
    assert_eq!(faults("[\"GET\", \"PUT\"]", "subject = { body = [\"/a\"], answer = [\"/a\"], if_match = true }"), "");
    std::fs::remove_dir_all(&dir).unwrap();
    let table = |methods: &str, subject: &str| {
        format!("[[route]]\npath = \"/m\"\nmethods = {methods}\nendpoint = \"e\"\nupstream = \"fhir\"\n{subject}\n")
    };
    let own = [table("[\"GET\"]", "subject = { answer = [\"/a\"] }"), table("[\"DELETE\"]", "")];
    assert!(matches!(build(&own), Err(RouteError::Pattern(..))), "the method must not decide whether anybody looks");
}
