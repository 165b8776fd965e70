//! The members that a new person may have under the field guard, in front of a stand-in for Thalamus.

use serde_json::json;

use crate::gateway::fields::{chunked, code, guarded, send};

#[test]
fn a_new_person_comes_with_the_defaults_of_an_account_from_whoever_may_post_one() {
    let (gateway, thalamus) = guarded();
    // As the Federation Portal sends it.
    let portal = br#"{"gender":"f","name":"Ann","lastname":"B","password":"gnusolidario","roles":["end_user"],"dob":"","active":true,"deceased":false}"#;
    assert_eq!(send(&gateway, "POST", "/people/NEW1", "DOC", "", portal).status, 200);
    let stored = thalamus.person("NEW1").unwrap();
    assert_eq!((&stored["roles"], &stored["active"]), (&json!(["end_user"]), &json!(true)));
    for (number, body) in [
        r#"{"roles" : [ "end\u005fuser" ] , "active":true}"#,
        r#"{"active":true,"roles":["end_user"]}"#,
        r#"{"password":null}"#,
        r#"{"password":""}"#,
        r#"{"password":"$ecret"}"#,
    ]
    .iter()
    .enumerate()
    {
        let parts: Vec<_> = body.as_bytes().chunks(1).collect();
        let answer = chunked(&gateway, "POST", &format!("/people/OTHER{number}"), "DOC", &parts);
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
    }
    let before = thalamus.state().people.clone();
    for body in [
        r#"{"roles":[]}"#,
        r#"{"roles":"end_user"}"#,
        r#"{"roles":null}"#,
        r#"{"roles":["end_user","end_user"]}"#,
        r#"{"roles":["end_user","root"]}"#,
        r#"{"roles":[["end_user"]]}"#,
        r#"{"roles":[{"end_user":1}]}"#,
        r#"{"roles":["End_user"]}"#,
        r#"{"roles":["end_user"],"roles":["root"]}"#,
        r#"{"roles":["root"],"roles":["end_user"]}"#,
        r#"{"active":"true"}"#,
        r#"{"active":1}"#,
        r#"{"active":null}"#,
        r#"{"active":[true]}"#,
        r#"{"password":"\u00242y$04$x"}"#,
        r#"{"password":["x"]}"#,
        r#"{"password":{"x":1}}"#,
    ] {
        let answer = send(&gateway, "POST", "/people/NEW2", "DOC", "", body.as_bytes());
        assert_eq!(code(&answer), (403, "member_not_permitted".into()), "{body}");
    }
    // An existing person keeps its members: the defaults are for creation alone.
    for body in [r#"{"roles":["end_user"]}"#, r#"{"active":true}"#, r#"{"password":"gnusolidario"}"#] {
        let answer = send(&gateway, "PATCH", "/people/BOB", "DOC", "", body.as_bytes());
        assert_eq!(code(&answer), (403, "member_not_permitted".into()), "{body}");
    }
    assert_eq!(thalamus.state().people, before);
    assert_eq!(send(&gateway, "POST", "/people/NEW3", "ANA", "", portal).status, 403);
}
