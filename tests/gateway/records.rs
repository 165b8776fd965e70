//! One record for each request, whatever became of it.

use crate::fixture::{CANARY, Gateway, basic};

#[test]
fn each_request_leaves_one_record_that_tells_who_what_and_why() {
    let gateway = Gateway::start();
    #[rustfmt::skip]
    let cases = [
        // target, account, extra, decision, reason, status, account of the record, endpoint, subject
        ("/people/ANA",      "ANA", "",                              "allow",  "own",             200, Some("ANA"), Some("person"), Some("ANA")),
        ("/people/ANA",      "DOC", "",                              "allow",  "global",          200, Some("DOC"), Some("person"), Some("ANA")),
        ("/people",          "DOC", "",                              "allow",  "global",          200, Some("DOC"), Some("people"), None),
        ("/",                "",    "",                              "allow",  "public",          200, None,        None,           None),
        ("/people/DOC",      "ANA", "",                              "deny",   "not_own",         403, Some("ANA"), Some("person"), Some("DOC")),
        ("/people",          "ANA", "",                              "deny",   "not_granted",     403, Some("ANA"), Some("people"), None),
        ("/people/ANA",      "",    "",                              "refuse", "no_credential",  401, None,        None,           None),
        ("/people/ANA",      "OFF", "",                              "refuse", "inactive_account", 401, Some("OFF"), None,          None),
        ("/people/ANA",      "NO1", "",                              "refuse", "unknown_account", 401, Some("NO1"), None,           None),
        ("/people/../x",     "ANA", "",                              "refuse", "dot_segment", 400, None, None,           None),
        ("/nowhere",         "ANA", "",                              "refuse", "not_found", 404, Some("ANA"), None,          None),
        ("/pols/ANA/hang",   "ANA", "",                              "fail",   "upstream_timeout", 504, Some("ANA"), Some("page"),  Some("ANA")),
    ];
    for (target, account, extra, decision, reason, status, recorded, endpoint, subject) in cases {
        let answer = gateway.request("GET", target, account, extra);
        let record = gateway.record();
        assert_eq!(
            (record["decision"].as_str(), record["reason"].as_str()),
            (Some(decision), Some(reason)),
            "{target}: {record}"
        );
        assert_eq!((answer.status, record["status"].as_u64()), (status, Some(status.into())), "{record}");
        assert_eq!(
            (record["account"].as_str(), record["endpoint"].as_str(), record["subject.id"].as_str()),
            (recorded, endpoint, subject)
        );
        assert_eq!(record["request.id"].as_str(), answer.header("x-request-id").as_deref());
        assert_eq!((record["client.ip"].as_str(), record["method"].as_str()), (Some("127.0.0.1"), Some("GET")));
        assert_eq!(record["path"].as_str(), target.split('?').next());
        assert_eq!(record["policy"].as_str().map(str::len), Some(16));
        assert!(record["time"].is_string() && record["duration_us"].is_u64());
    }
    assert!(gateway.no_record());
}

#[test]
fn a_wrong_password_and_untrusted_text_stay_out_of_the_records_or_in_their_place() {
    let gateway = Gateway::start();
    gateway.request("GET", "/people/ANA", "", &format!("Authorization: {}\r\n", basic("ANA", &format!("x{CANARY}"))));
    assert_eq!(gateway.record()["reason"], "wrong_password");
    gateway.request("GET", "/people?token=canary-b1rd", "ANA", "");
    assert_eq!(gateway.record()["path"], "/people", "queries may hold names, and are not recorded");
    gateway.request("GET", "/%0aDENY%20user=bob", "ANA", "");
    assert_eq!(gateway.record()["path"], "/%0aDENY%20user=bob");
    gateway.request("GET", "/people/ANA", "", &format!("Authorization: {}\r\n", basic("A\u{2028}B", "x")));
    assert_eq!(gateway.record()["account"], "A\u{2028}B");
    gateway.request("OPTIONS", "/people", "", "");
    let options = gateway.record();
    assert_eq!((options["decision"].as_str(), options["reason"].as_str()), (Some("answer"), Some("options")));
    gateway.request("TRACE", "/people", "", "");
    assert_eq!(gateway.record()["reason"], "method_not_allowed");
}

#[test]
fn a_recorded_decision_is_explained_under_the_policy_that_made_it() {
    let policy = std::fs::read_to_string("policies/roles.cfg").unwrap();
    let gateway = Gateway::start_in(&[("FEDGATE_RECORDS_FILE", "records.jsonl")], "", &policy);
    let denied = gateway.get("/people/DOC", "ANA").header("x-request-id").unwrap();
    let refused = gateway.get("/people/DOC", "").header("x-request-id").unwrap();
    // The policy changes; the decision of before is still explained by the one of before.
    let old = gateway.record()["policy"].as_str().unwrap().to_owned();
    let kept = gateway.dir.join("policy-history").join(format!("{old}.cfg"));
    let deadline = std::time::Instant::now() + crate::fixture::PATIENCE;
    while !kept.exists() {
        assert!(std::time::Instant::now() < deadline, "the policy is not kept");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    std::fs::write(gateway.dir.join("roles.cfg"), policy.replace("\"False\"", "\"True\"")).unwrap();
    let explain = |id: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fedgate"));
        command
            .args(["explain", id, "--config"])
            .arg(gateway.dir.join("fedgate.toml"))
            .env("FEDGATE_RECORDS_FILE", "records.jsonl");
        let out = command.output().unwrap();
        (out.status.code().unwrap(), String::from_utf8(out.stdout).unwrap() + &String::from_utf8(out.stderr).unwrap())
    };
    let (code, text) = explain(&denied);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("GET /people/DOC by ANA: deny (not_own), status 403"), "{text}");
    assert!(
        text.contains("end_user") && text.contains("for one's own record alone (line 5)") && text.contains(&old),
        "{text}"
    );
    assert!(explain(&refused).1.contains("the policy was not asked"));
    assert_eq!(explain("00000000000000000000000000000000").0, 1);
}
