//! Related persons: a role that says so reaches their records, and no other role does.

use super::*;

const WITH_RELATED: &str = r#"[
    {"role": "guardian", "permissions": {"GET": ["person", "page"], "PATCH": ["account"], "global": "False", "related": "True"}},
    {"role": "patient", "permissions": {"GET": ["person", "login"], "global": "False"}},
    {"role": "doctor", "permissions": {"GET": ["person"], "global": "True", "related": true}}
]"#;

#[test]
fn a_role_that_is_related_reaches_related_persons_and_nobody_else() {
    let policy = policy(WITH_RELATED);
    let (same, related) = (["ANA-OLD".to_owned()], ["CHILD".to_owned()]);
    let own = OwnIds::new("ANA", &same).with_related(&related);
    let mut endpoints = EndpointTable::default();
    let ids = ["person", "page", "login", "account"].map(|name| endpoints.intern(name).unwrap());
    use PolicyReach::{Global, Own, Related};
    let (not_own, not_granted) = (Err(DenyReason::NotOwn), Err(DenyReason::NotGranted));
    #[rustfmt::skip]
    let cases = [
        (&["guardian"][..],        0, Some("ANA"),     Ok(Related)),
        (&["guardian"],            0, Some("ANA-OLD"), Ok(Related)),
        (&["guardian"],            0, Some("CHILD"),   Ok(Related)),
        (&["guardian"],            0, Some("child"),   not_own),
        (&["guardian"],            0, Some("BOB"),     not_own),
        (&["guardian"],            0, None,            Ok(Related)),
        (&["patient"],             0, Some("CHILD"),   not_own),
        (&["patient"],             0, Some("ANA"),     Ok(Own)),
        (&["patient", "guardian"], 0, Some("CHILD"),   Ok(Related)),
        (&["patient", "guardian"], 2, None,            Ok(Own)),
        (&["guardian"],            2, None,            not_granted),
        (&["doctor", "guardian"],  0, Some("BOB"),     Ok(Global)),
    ];
    for (roles, endpoint, subject, expected) in cases {
        let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        let name = endpoints.name(ids[endpoint]);
        let question = PolicyQuestion { principal: own, roles: &roles, method: Method::Get, endpoint: name, subject };
        let expected = expected.map_or_else(PolicyDecision::Deny, PolicyDecision::Allow);
        assert_eq!(policy.decide(question), expected, "{roles:?} {name} {subject:?}");
        let rights = RoleRights::compile(&policy, &roles, &endpoints);
        assert_eq!(rights.decide(own, Method::Get, ids[endpoint], subject), expected, "{roles:?} {name} {subject:?}");
        assert_eq!(policy.explain(question).decision, expected);
    }
    // What belongs to an account is never a related person's.
    let roles = ["guardian".to_owned()];
    let rights = RoleRights::compile(&policy, &roles, &endpoints);
    let account = |subject| rights.decide(own.of_account(), Method::Patch, ids[3], Some(subject));
    assert_eq!(account("ANA"), PolicyDecision::Allow(Related));
    assert_eq!([account("ANA-OLD"), account("CHILD")], [PolicyDecision::Deny(DenyReason::NotOwn); 2]);
}

#[test]
fn in_another_system_linked_ids_count_and_the_accounts_own_does_not() {
    let (linked, of_child) = (["Patient/1".to_owned()], ["Patient/2".to_owned()]);
    let own = OwnIds::in_system("ANA", &linked, &of_child);
    assert!(own.holds("Patient/1") && !own.holds("Patient/2") && !own.holds("ANA"));
    assert!(own.reaches("Patient/2", PolicyReach::Related) && !own.reaches("Patient/2", PolicyReach::Own));
    for subject in ["ANA", "Patient/1", "Patient/2"] {
        assert!(!own.of_account().reaches(subject, PolicyReach::Related), "{subject}");
    }
    assert_eq!((own.related_as("Patient/2"), own.related_as("Patient/1")), (&of_child[..], &[][..]));
}

#[test]
fn related_is_read_as_global_is_and_beside_it_has_no_effect() {
    use PolicyReach::{Global, Own, Related};
    for (flags, reach, is_void) in [
        (r#""related": "True""#, Related, false),
        (r#""related": true, "global": "False""#, Related, false),
        (r#""global": "False", "related": "\u0054rue""#, Related, false),
        (r#""related": "False""#, Own, false),
        (r#""related": false, "global": true"#, Global, false),
        (r#""related": "True", "global": "True""#, Global, true),
    ] {
        let policy = policy(&format!(r#"[{{"role": "r", "permissions": {{{flags}}}}}]"#));
        let role = &policy.roles()[0];
        assert_eq!((role.reach, role.is_related_void), (reach, is_void), "{flags}");
    }
    let fault = PolicySet::parse(br#"[{"role": "r", "permissions": {"related": "yes"}}]"#).unwrap_err().to_string();
    assert!(fault.contains("`related` is \"yes\""), "{fault}");
    let doctor = policy(WITH_RELATED).warnings(&ReviewedQuestion::new());
    assert!(
        doctor.iter().any(|warning| warning.text.contains("`related` of role `doctor` has no effect")),
        "{doctor:?}"
    );
}

#[test]
fn an_edit_that_adds_related_widens_and_a_case_may_expect_it() {
    let before = policy(r#"[{"role": "r", "permissions": {"GET": ["person"], "global": "False"}}]"#);
    let after = policy(r#"[{"role": "r", "permissions": {"GET": ["person"], "global": "False", "related": "True"}}]"#);
    let global = policy(r#"[{"role": "r", "permissions": {"GET": ["person"], "global": "True"}}]"#);
    let widens =
        |old: &PolicySet, new: &PolicySet| old.changes_to(new).iter().map(CellChange::widens).collect::<Vec<_>>();
    assert_eq!([widens(&before, &after), widens(&after, &global)], [[true], [true]]);
    assert_eq!([widens(&after, &before), widens(&global, &after)], [[false], [false]]);
    assert_eq!(before.thalamus_warnings().len(), after.thalamus_warnings().len());
    let expect = ExpectedDecision::try_from("allow related".to_owned()).unwrap();
    assert!(expect.is_met_by(PolicyDecision::Allow(PolicyReach::Related)));
    assert!(!expect.is_met_by(PolicyDecision::Allow(PolicyReach::Own)));
    assert_eq!(expect.to_string(), "allow related");
}
