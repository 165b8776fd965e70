use super::*;

fn policy(text: &str) -> PolicySet {
    PolicySet::parse(text.as_bytes()).unwrap()
}

const SMALL: &str = r#"[
  {"role": "end_user", "permissions": {"GET": ["login", "person"], "PATCH": ["person"], "global": "False"}},
  {"role": "doctor",
   "permissions": {
     "GET": ["login", "people",
             "person"],
     "POST": ["person"],
     "global": "True"
   }},
  {"role": "silent", "permissions": {}},
  {"role": "odd", "permissions": {"HEAD": ["person"], "get": ["person"], "OPTIONS": ["person"], "global": true}}
]"#;

#[test]
fn decides_by_role_method_endpoint_and_subject() {
    use DenyReason::*;
    use Method::*;
    use PolicyDecision::{Allow, Deny};
    let policy = policy(SMALL);
    type Row<'a> = (&'a str, &'a [&'a str], Method, &'a str, Option<&'a str>, PolicyDecision);
    #[rustfmt::skip]
    let cases: &[Row<'_>] = &[
        // principal, roles, method, endpoint, subject, decision
        ("ANA", &["end_user"],           Get,    "login",  None,        Allow(PolicyReach::Own)),
        ("ANA", &["end_user"],           Get,    "person", Some("ANA"), Allow(PolicyReach::Own)),
        ("ANA", &["end_user"],           Get,    "person", Some("BOB"), Deny(NotOwn)),
        ("ANA", &["end_user"],           Get,    "person", Some("AN"),  Deny(NotOwn)),
        ("ANA", &["end_user"],           Get,    "person", Some("ana"), Deny(NotOwn)),
        ("ANA", &["end_user"],           Get,    "people", None,        Deny(NotGranted)),
        ("ANA", &["end_user"],           Delete, "person", Some("ANA"), Deny(NotGranted)),
        ("ANA", &["end_user", "doctor"], Get,    "person", Some("BOB"), Allow(PolicyReach::Global)),
        ("ANA", &["doctor", "end_user"], Patch,  "person", Some("BOB"), Deny(NotOwn)),
        ("ANA", &["doctor", "end_user"], Patch,  "person", Some("ANA"), Allow(PolicyReach::Own)),
        ("ANA", &["doctor"],             Get,    "people", None,        Allow(PolicyReach::Global)),
        ("ANA", &["silent"],             Get,    "login",  None,        Deny(NotGranted)),
        ("ANA", &["odd"],                Get,    "person", Some("ANA"), Deny(NotGranted)),
        ("ANA", &[],                     Get,    "login",  None,        Deny(NoRole)),
        ("ANA", &["unknown"],            Get,    "login",  None,        Deny(NoRole)),
        ("ANA", &["unknown", "doctor"],  Get,    "login",  None,        Allow(PolicyReach::Global)),
        ("ANA", &["End_user"],           Get,    "login",  None,        Deny(NoRole)),
    ];
    let mut endpoints = EndpointTable::default();
    for name in ["login", "person", "people"] {
        endpoints.intern(name).unwrap();
    }
    for (principal, roles, method, endpoint, subject, expected) in cases {
        let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        let question = PolicyQuestion {
            principal: (*principal).into(),
            roles: &roles,
            method: *method,
            endpoint,
            subject: *subject,
        };
        assert_eq!(policy.decide(question), *expected, "{question:?}");
        let rights = RoleRights::compile(&policy, &roles, &endpoints);
        let compiled = rights.decide(*principal, *method, endpoints.find(endpoint).unwrap(), *subject);
        assert_eq!(compiled, *expected, "compiled: {question:?}");
    }
}

#[test]
fn endpoints_are_numbered_once_and_named_by_their_numbers() {
    let mut endpoints = EndpointTable::default();
    let (login, person) = (endpoints.intern("login").unwrap(), endpoints.intern("person").unwrap());
    assert_eq!((endpoints.intern("login"), endpoints.find("person")), (Some(login), Some(person)));
    assert_eq!((endpoints.name(login), endpoints.name(person)), ("login", "person"));
    assert_eq!(endpoints.names(), ["login", "person"]);
}

#[test]
fn duplicate_role_names_each_count() {
    let policy = policy(
        r#"[{"role": "r", "permissions": {"GET": ["person"]}}, {"role": "r", "permissions": {"POST": ["person"], "global": "True"}}]"#,
    );
    assert_eq!(policy.role_names().collect::<Vec<_>>(), ["r"]);
    let roles = ["r".to_owned()];
    let ask = |method| {
        policy.decide(PolicyQuestion {
            principal: "A".into(),
            roles: &roles,
            method,
            endpoint: "person",
            subject: Some("B"),
        })
    };
    assert_eq!(ask(Method::Get), PolicyDecision::Deny(DenyReason::NotOwn), "the other entry's global is its own");
    assert_eq!(ask(Method::Post), PolicyDecision::Allow(PolicyReach::Global));
}

#[test]
fn head_is_judged_as_get() {
    assert_eq!(Method::parse("HEAD"), Some(Method::Get));
    for none in ["OPTIONS", "TRACE", "CONNECT", "get", "GETX", "", "head"] {
        assert_eq!(Method::parse(none), None);
    }
}

#[test]
fn grants_know_their_lines() {
    let policy = policy(SMALL);
    let doctor = policy.definitions("doctor").next().unwrap();
    assert_eq!(doctor.line, 3);
    let lines: Vec<_> = doctor.grants.iter().map(|grant| (grant.endpoint.as_str(), grant.line)).collect();
    assert_eq!(lines, [("login", 5), ("people", 5), ("person", 6), ("person", 7)]);
}

#[test]
fn a_file_that_could_be_misread_is_refused_whole_with_its_line() {
    #[rustfmt::skip]
    let cases: &[(&str, &str)] = &[
        ("", "file is empty; write the roles into it"),
        (" \n\t\r\n", "file is empty"),
        ("[", "line 1: EOF while parsing"),
        ("{}", "line 1: invalid type: map"),
        ("\n{}", "line 2: invalid type: map"),
        ("[]", "defines no role"),
        ("[\n{\"role\": \"r\", \"permissions\": {\"GET\": [\"person\"]", "line 2: EOF"),
        ("[{\"role\": \"r\"}]", "missing field `permissions`"),
        ("[{\"permissions\": {}}]", "missing field `role`"),
        ("[[\"r\", {}]]", "an entry is not an object"),
        ("[{\"role\": \"r\", \"permissions\": []}]", "expected an object of methods"),
        ("[{\"role\": 1, \"permissions\": {}}]", "invalid type: integer `1`"),
        ("[{\"role\": \"\", \"permissions\": {}}]", "1 to 256 bytes"),
        ("[{\"role\": \"r\", \"permissions\": {}, \"comment\": 1}]", "unknown field `comment`"),
        ("[{\"role\": \"r\", \"role\": \"s\", \"permissions\": {}}]", "duplicate field `role`"),
        ("[{\"role\": \"r\", \"permissions\": {\"GET\": [\"a\"],\n\"GET\": [\"b\"]}}]", "line 2: duplicate key `GET`"),
        ("[{\"role\": \"r\", \"permissions\": {\n\"GET\": \"person\"}}]", "line 2: invalid type: string"),
        ("[{\"role\": \"r\", \"permissions\": {\"GET\": [1]}}]", "`GET` of role `r` must be a list of endpoint names"),
        ("[{\"role\": \"r\", \"permissions\": {\"GET\": null}}]", "`GET` of role `r` must be a list"),
        ("[{\"role\": \"r\", \"permissions\": {\n\n\"global\": \"true\"}}]", "line 3: `global` is \"true\""),
        ("[{\"role\": \"r\", \"permissions\": {\"global\": 1}}]", "`global` is 1"),
        ("[{\"role\": \"r\", \"permissions\": {\"global\": null}}]", "`global` is null"),
        ("[{\"role\": \"r\", \"permissions\": {}}] x", "trailing characters"),
        ("\u{feff}[]", "not plain UTF-8"),
        ("[\"\0\"]", "not plain UTF-8"),
    ];
    for (text, expected) in cases {
        let error = PolicySet::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert!(cases.iter().all(|(text, _)| PolicySet::faults(text.as_bytes(), 20).len() == 1));
    assert_eq!(PolicySet::parse(b"\xff\xfe[\0]\0").unwrap_err(), PolicyError::Encoding);
    assert_eq!(MAX_POLICY_BYTES, 8_388_608);
    let mut longest = SMALL.as_bytes().to_vec();
    longest.resize(MAX_POLICY_BYTES, b' ');
    assert!(PolicySet::parse(&longest).is_ok());
    assert_eq!(PolicySet::parse(&vec![b' '; roles_cfg::MAX_POLICY_BYTES + 1]).unwrap_err(), PolicyError::TooLarge);
}

#[test]
fn all_faults_of_a_file_are_reported_line_by_line_up_to_a_bound() {
    let text = r#"[
        {"role": "a", "permissions": {"GET": "person",
            "POST": ["person", 7],
            "global": "yes"}},
        {"role": "b", "permissions": {"GET": ["person"]}},
        {"roll": "c", "permissions": {}},
        {"role": "", "permissions": {}},
        7
    ]"#;
    let told = |most| PolicySet::faults(text.as_bytes(), most).iter().map(ToString::to_string).collect::<Vec<_>>();
    let lines: Vec<_> = told(20).iter().map(|fault| fault.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(lines, ["line 2", "line 3", "line 4", "line 6", "line 7", "line 8"], "{:#?}", told(20));
    for most in 1..6 {
        assert_eq!(told(most), told(20)[..most]);
    }
    assert_eq!(PolicySet::parse(text.as_bytes()).unwrap_err().to_string(), told(1)[0]);
}

#[test]
fn global_is_read_in_its_four_spellings() {
    for (spelling, reach) in [
        ("\"True\"", PolicyReach::Global),
        ("\"\\u0054rue\"", PolicyReach::Global),
        ("true", PolicyReach::Global),
        ("\"False\"", PolicyReach::Own),
        ("false", PolicyReach::Own),
    ] {
        let policy = policy(&format!(r#"[{{"role": "r", "permissions": {{"global": {spelling}}}}}]"#));
        assert_eq!(policy.roles()[0].reach, reach);
    }
}

#[test]
fn the_shipped_policy_decides_as_the_contract_says() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/roles.cfg");
    let policy = PolicySet::parse(&std::fs::read(file).unwrap()).unwrap();
    let reach = |role: &str, endpoint: &str, method| {
        let roles = [role.to_owned()];
        match policy.decide(PolicyQuestion { principal: "A".into(), roles: &roles, method, endpoint, subject: None }) {
            PolicyDecision::Allow(PolicyReach::Global) => 'X',
            PolicyDecision::Allow(PolicyReach::Own) => 'x',
            PolicyDecision::Allow(PolicyReach::Related) => 'r',
            PolicyDecision::Deny(_) => '-',
        }
    };
    use Method::*;
    #[rustfmt::skip]
    let table = [
        // endpoint     method    end_user, health_professional, root
        ("login",        Get,    "xXX"), ("people",       Get,    "-XX"),
        ("person",       Get,    "xXX"), ("person",       Patch,  "xXX"),
        ("person",       Post,   "-XX"), ("person",       Delete, "--X"),
        ("book",         Get,    "xXX"),
        ("page",         Get,    "xXX"), ("page",         Post,   "xXX"), ("page", Patch, "xXX"), ("page", Delete, "--X"),
        ("password",     Get,    "x-X"), ("password",     Post,   "x-X"),
        ("account",      Patch,  "--X"), ("account",      Post,   "--X"),
    ];
    for (endpoint, method, expected) in table {
        let found: String =
            ["end_user", "health_professional", "root"].map(|role| reach(role, endpoint, method)).iter().collect();
        assert_eq!(found, expected, "{endpoint} {method:?}");
    }
}

#[test]
fn a_policy_is_named_by_its_bytes_and_keeps_them() {
    let (one, other) = (policy(SMALL), policy(&format!("{SMALL} ")));
    assert_eq!(one.source(), SMALL.as_bytes());
    assert_eq!(one.fingerprint(), blake3::hash(SMALL.as_bytes()).to_hex().get(..16).unwrap());
    assert_ne!(one.fingerprint(), other.fingerprint(), "one byte more is another policy");
}

#[test]
fn decisions_have_stable_words() {
    let words = [
        PolicyDecision::Allow(PolicyReach::Own),
        PolicyDecision::Allow(PolicyReach::Related),
        PolicyDecision::Allow(PolicyReach::Global),
        PolicyDecision::Deny(DenyReason::NoRole),
        PolicyDecision::Deny(DenyReason::NotGranted),
        PolicyDecision::Deny(DenyReason::NotOwn),
    ]
    .map(|decision| decision.to_string());
    assert_eq!(
        words,
        ["allow own", "allow related", "allow global", "deny no_role", "deny not_granted", "deny not_own"]
    );
}

#[test]
fn the_table_names_what_it_numbers_in_order() {
    let mut endpoints = EndpointTable::default();
    let numbers = ["person", "page", "person"].map(|name| endpoints.intern(name).unwrap());
    assert_eq!(numbers[0], numbers[2], "once for each name");
    assert_eq!(endpoints.names(), ["person", "page"]);
    assert_eq!(numbers.map(|number| endpoints.name(number)), ["person", "page", "person"]);
    assert_eq!((endpoints.find("page"), endpoints.find("book")), (Some(numbers[1]), None));
}

#[test]
fn a_check_sees_whether_global_was_a_truth_value_and_a_list_of_methods_gets_a_remedy() {
    let of = |global: &str| {
        let text = format!(r#"[{{"role": "a", "permissions": {{"global": {global}}}}}]"#);
        policy(&text).roles()[0].global_is_boolean
    };
    assert_eq!(["true", "false", "\"True\"", "\"False\""].map(of), [true, true, false, false]);
    let fault = PolicySet::parse(br#"[{"role": "a", "permissions": []}]"#).unwrap_err().to_string();
    assert!(fault.contains("expected an object of methods"), "{fault}");
}
mod related;
mod views;

#[test]
fn a_complaint_quotes_a_name_and_no_more() {
    let complaint = |characters: usize| {
        let text = format!(r#"[{{"role": "r", "permissions": {{"GET": "{}"}}}}]"#, "x".repeat(characters));
        PolicySet::parse(text.as_bytes()).unwrap_err().to_string()
    };
    assert!(complaint(64).contains(&format!("\"{}\"", "x".repeat(64))), "{}", complaint(64));
    for characters in [100, 10_000] {
        assert!(!complaint(characters).contains(&"x".repeat(100)), "{}", complaint(characters));
    }
}
