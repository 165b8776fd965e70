//! `fedgate policy explain`: how a request is decided, or answered without the policy.

use crate::policy_tools::{STOCK, json, policy};

#[test]
fn explain_names_the_deciding_role_and_line_or_what_each_role_lacks() {
    let ask = |roles: &str, method: &str, path: &str| {
        policy(&["explain", "--as", "DOC", "--roles", roles, "--policy", STOCK, method, path])
    };
    let (code, text, _) = ask("end_user,health_professional,nurse", "POST", "/password/ANA");
    assert_eq!(code, 0);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(lines[0], "POST /password/ANA as DOC: denied, the role grants it only for the caller's own record");
    assert!(lines[2].starts_with("end_user") && lines[2].ends_with("own record (line 7)"), "{text}");
    assert!(lines[3].ends_with("does not list `password` under POST (role on line 13)"), "{text}");
    assert!(lines[4].ends_with("is not defined in the policy"), "{text}");
    assert!(ask("health_professional", "GET", "/people/X").1.contains("grants it for any record (line 16)"));
    assert!(ask("root", "PUT", "/people/X").1.contains("does not serve PUT (405)"));
    assert!(ask("root", "GET", "/").1.contains("public"));
    assert!(
        ask("root", "OPTIONS", "/people/X").1.contains("without asking the policy (200); the path serves GET, HEAD, ")
    );
    assert!(ask("root", "OPTIONS", "/nowhere").1.contains("404 for everybody"));
    assert!(ask("", "GET", "/people/X").1.ends_with("\n  the account has no roles\n"));
    assert!(!ask("root,", "GET", "/people/X").1.contains("not defined"));
    assert!(ask("root", "GET", "/nowhere").1.contains("no route has this path"));
    assert!(ask("Root", "GET", "/people/X").1.contains("is not defined in the policy (did you mean `root`? names are"));
    let found =
        json(&["explain", "--json", "--as", "ANA", "--roles", "end_user", "--policy", STOCK, "GET", "/people/ANA"]);
    assert_eq!((found["decision"].as_str(), found["roles"][0]["line"].as_u64()), (Some("allow own"), Some(5)));
    assert_eq!(policy(&["explain", "--as", "ANA", "--roles", "x", "GET", "/"]).0, 2, "no policy is named");
}

#[test]
fn explain_shows_the_gateways_answer_for_each_role_in_stable_words() {
    let ask = |roles: &str, method: &str, path: &str| {
        let arguments = ["explain", "--as", "ANA", "--roles", roles, "--policy", STOCK, method, path];
        let (code, text, complaint) = policy(&arguments);
        assert!(code == 0 && complaint.is_empty(), "an answer is no failure: {method} {path}: {complaint}");
        (text, json(&[&arguments[..], &["--json"]].concat()))
    };
    let long = format!("/{}", "x".repeat(2048));
    #[rustfmt::skip]
    let cases = [
        // method, path, status, what is said
        ("GET",     "/people/ANA",   None,      "allowed, own records"),
        ("GET",     "/people/BOB",   Some(403), "denied, the role grants it only for the caller's own record"),
        ("GET",     "/people",       Some(403), "denied, no role grants it"),
        ("GET",     "/",             None,      "public"),
        ("GET",     "/nowhere",      Some(404), "as ANA: no route has this path: 404 for authenticated callers"),
        ("FOO",     "/nowhere",      Some(404), "404 for everybody"),
        ("OPTIONS", "/nowhere",      Some(404), "404 for everybody"),
        ("OPTIONS", "/people/ANA",   Some(200), "without asking the policy (200)"),
        ("PUT",     "/people/ANA",   Some(405), "does not serve PUT (405); it serves GET, HEAD, "),
        ("TRACE",   "/people/ANA",   Some(405), "does not serve TRACE (405)"),
        ("get",     "/people/ANA",   Some(405), "does not serve get (405)"),
        ("CONNECT", "/people/ANA",   Some(405), "the method is not allowed for the requested URL: the gateway answers 405"),
        ("OPTIONS", "*",             Some(200), "without asking the policy (200)"),
        ("FOO",     "/people/../x",  Some(405), "no path serves FOO: the gateway answers 405"),
        ("GET",     "/people/../x",  Some(400), "path has a dot segment: the gateway answers 400"),
        ("GET",     "people",        Some(400), "the request line is malformed: the gateway answers 400"),
        ("G ET",    "/people",       Some(400), "the request line is malformed: the gateway answers 400"),
        ("GET",     "/people?<",     Some(400), "the request line is malformed: the gateway answers 400 over HTTP/1; over HTTP/2 the stream is reset, without an answer and a record"),
        ("FOO",     "",              Some(400), "the request line is malformed: the gateway answers 400"),
        ("FOO",     "/é",            Some(400), "the request line is malformed: the gateway answers 400"),
        ("GET",     "/ HTTP/1.1\r\nA: b", Some(400), "the request line is malformed: the gateway answers 400"),
        ("GET",     long.as_str(),   Some(414), "path or target is too long: the gateway answers 414"),
    ];
    for (method, path, status, says) in cases {
        let (text, found) = ask("end_user", method, path);
        assert!(text.contains(says), "{method} {path}: {text}");
        assert_eq!(found["status"].as_u64(), status, "{method} {path}: {found}");
        let is_judged = status.is_none_or(|status| status == 403) && path != "/";
        assert_eq!(found["decision"].is_string(), is_judged, "{found}");
    }
    let findings = |path: &str| {
        let (_, found) = ask("end_user,health_professional,none", "GET", path);
        let roles = found["roles"].as_array().unwrap().clone();
        roles.iter().map(|role| role["finding"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(findings("/people/ANA"), ["grants_own", "grants_any", "undefined"]);
    assert_eq!(findings("/people/BOB"), ["own_only", "grants_any", "undefined"]);
    assert_eq!(findings("/password/ANA"), ["grants_own", "silent", "undefined"]);
}
