//! The accounts of a store, as `fedgate policy explain` and `fedgate account` show them.

use std::io::Write;
use std::process::{Command, Stdio};

use fedgate::accounts::{AccountChange, AccountStore, NewAccount};
use fedgate_base::config::Config;
use fedgate_base::db::schema;
use fedgate_core::password;
use serde_json::{Value, json};

use crate::policy_tools::{Files, fedgate, policy};

/// A bcrypt hash of some password.
const HASH: &str = "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW";

/// A configuration whose store is a file of this name, with the stock policy.
fn configuration(files: &Files, store: &str, more: &str) -> String {
    files.write("secret", &"k".repeat(40));
    let roles = std::env::current_dir().unwrap().join(crate::policy_tools::STOCK);
    files.write(
        "fedgate.toml",
        &format!(
            "[assertion]\nsecret_file = \"secret\"\n[policy]\nroles = \"{}\"\n[store]\npath = \"{store}\"\n{more}",
            roles.display()
        ),
    )
}

/// Works on the accounts of a configuration, whose schema exists.
fn with_accounts(config: &str, work: impl AsyncFnOnce(AccountStore)) {
    let config = Config::load(config.as_ref()).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let accounts = AccountStore::open(&config.store).await.unwrap();
        schema::migrate(accounts.database()).await.unwrap();
        work(accounts).await;
    });
}

/// A store with `ANA`, who is a patient and has this password hash.
fn store_with_ana(config: &str, password_hash: &str) {
    let roles = vec!["end_user".to_owned()];
    let new = NewAccount { id: "ANA".into(), roles, password_hash: password_hash.into(), name: None, lastname: None };
    with_accounts(config, async |accounts| assert!(accounts.add(&new).await.unwrap()));
}

#[test]
fn roles_are_replaced_by_those_that_are_named_and_by_none_only_if_that_is_said() {
    let files = Files::new();
    let config = configuration(&files, "store.db", "");
    store_with_ana(&config, HASH);
    let roles = |arguments: &[&str]| {
        let (code, ..) = fedgate(&[&["account", "--config", &config, "roles", "ANA"], arguments].concat());
        let (_, shown, _) = fedgate(&["account", "--config", &config, "show", "ANA"]);
        let shown = shown.lines().find_map(|line| line.strip_prefix("roles ")).unwrap().trim().to_owned();
        (code, shown)
    };
    assert_eq!(roles(&[]), (2, "end_user".to_owned()), "nothing is not none");
    assert_eq!(roles(&["end_user,root"]), (0, "end_user, root".to_owned()));
    assert_eq!(roles(&["--wait"]), (2, "end_user, root".to_owned()));
    assert_eq!(roles(&[""]), (2, "end_user, root".to_owned()), "a variable of a shell that is not set is not none");
    assert_eq!(roles(&[" ,"]), (2, "end_user, root".to_owned()));
    assert_eq!(roles(&["end_user", "--none"]), (2, "end_user, root".to_owned()));
    assert_eq!(roles(&["--none"]), (0, "(none)".to_owned()));
}

#[test]
fn an_account_that_cannot_log_in_is_not_reported_as_allowed() {
    let files = Files::new();
    let config = configuration(&files, "store.db", "");
    store_with_ana(&config, HASH);
    let ask = |request: [&str; 2]| {
        let arguments = [&["explain", "--config", &config, "--as", "ANA"][..], &request].concat();
        let (code, text, _) = policy(&arguments);
        let found = crate::policy_tools::json(&[&arguments[..], &["--json"]].concat());
        assert_eq!(code, 0);
        (text, found["decision"].as_str().map(str::to_owned), found["reason"].as_str().map(str::to_owned))
    };
    let own = ["GET", "/people/ANA"];
    let (text, decision, _) = ask(own);
    assert!(text.contains("allowed, own records") && decision.as_deref() == Some("allow own"), "{text}");

    let barred = |why: &str| {
        let (text, decision, reason) = ask(own);
        assert_eq!(text, format!("GET /people/ANA as ANA: {why}: the gateway answers 401\n"));
        assert_eq!((decision, reason), (None, Some(format!("{why}: the gateway answers 401"))));
        assert!(ask(["PUT", "/people/ANA"]).0.contains("(405)") && ask(["GET", "/"]).0.contains("public"));
        assert!(
            ask(["GET", "/nowhere"]).0.ends_with("401\n") && ask(["FOO", "/nowhere"]).0.contains("404 for everybody")
        );
    };
    let change =
        |change| with_accounts(&config, async |accounts| assert!(accounts.change("ANA", &change).await.unwrap()));
    change(AccountChange::Active(false));
    barred("the account is inactive");
    change(AccountChange::Active(true));
    assert!(!password::is_acceptable_hash("!"));
    for unusable in ["!", ""] {
        change(AccountChange::PasswordHash(unusable.into()));
        barred("the account has no usable password and cannot log in");
    }
    // A certificate needs no password.
    let clients = |clients: &str| {
        let tls = format!("[tls]\nclient_certificates = \"optional\"\nclient_ca = \"ca.pem\"\n{clients}");
        configuration(&files, "store.db", &tls);
        ask(own).1
    };
    assert_eq!(clients(""), None);
    assert_eq!(clients("client_common_name = true").as_deref(), Some("allow own"));
    let of = |account: &str| format!("client = [{{ account = \"{account}\", sha256 = \"{}\" }}]", "0a".repeat(32));
    assert_eq!(clients(&of("ANA")).as_deref(), Some("allow own"));
    assert_eq!(clients(&of("BOB")), None);
    change(AccountChange::Active(false));
    assert_eq!(clients(&of("ANA")), None);
}

#[test]
fn a_look_at_a_store_that_is_not_there_makes_none() {
    let files = Files::new();
    let config = configuration(&files, "stroe.db", "");
    let commands: [&[&str]; 3] =
        [&["status"], &["account", "show", "ANA"], &["policy", "explain", "--as", "ANA", "GET", "/people/ANA"]];
    let refused = |problem: &str| {
        for command in commands {
            let (code, _, complaint) = fedgate(&[command, &["--config", &config]].concat());
            assert!(code == 2 && complaint.contains("fedgate.toml: `store.path`: "), "{command:?}: {complaint}");
            assert!(complaint.contains(problem) && complaint.contains("`fedhis migrate`"), "{command:?}: {complaint}");
        }
    };
    refused("stroe.db does not exist");
    assert_eq!(std::fs::read_dir(&files.0).unwrap().count(), 2, "configuration and secret");
    // A database, but not one of fedgate.
    files.write("stroe.db", "");
    refused("the database has schema version 0, 7 is needed; run `fedhis migrate`");
    let arguments = ["explain", "--json", "--as", "ANA", "--config", &config, "GET", "/people/ANA"];
    let found = crate::policy_tools::json(&arguments);
    assert!(found["file"].is_null() && found["error"].as_str().unwrap().contains("`store.path`"), "{found}");
}

/// Exit code and output of a command, as one object. `input` is its standard input.
fn account(config: &str, input: &str, arguments: &[&str]) -> (i32, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedgate"));
    command.args(["account", "--config", config, "--json"]).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
    (out.status.code().unwrap(), serde_json::from_str(&text).unwrap())
}

#[test]
fn each_command_for_accounts_is_one_object_for_machines() {
    let files = Files::new();
    let config = configuration(&files, "store.db", "");
    with_accounts(&config, async |_| ());
    let ask = |input: &str, arguments: &[&str]| account(&config, input, arguments);
    let (code, added) = ask("a good password\n", &["add", "bob", "--roles", "end_user,Root", "--force"]);
    let epoch = added["epoch"].as_u64().unwrap();
    let warnings = added["warnings"].as_array().unwrap();
    assert!(warnings.len() == 1 && warnings[0].as_str().unwrap().contains("defines no role `Root`"), "{added}");
    assert!(warnings[0].as_str().unwrap().contains("did you mean `root`? names are compared exactly"), "{added}");
    let expected =
        json!({ "id": "BOB", "done": "added", "roles": ["end_user", "Root"], "epoch": epoch, "warnings": warnings });
    assert_eq!((code, added.clone()), (0, expected));

    let shown = |active: bool, roles: Value| json!({ "id": "BOB", "active": active, "roles": roles, "password": "argon2id", "same_person": [], "waits": [], "waiting_addresses": [], "page_wait_ms": null, "links": [], "related_to": [], "related_from": [] });
    assert_eq!(ask("", &["show", "BOB"]), (0, shown(true, json!(["end_user", "Root"]))));
    for (input, arguments, done, more) in [
        ("", &["roles", "BOB", "root"][..], "roles", json!({ "roles": ["root"] })),
        ("", &["disable", "BOB"], "disabled", json!({})),
        ("", &["enable", "BOB"], "enabled", json!({})),
        ("another password\n", &["passwd", "BOB"], "password", json!({})),
        ("", &["unlock", "BOB"], "unlocked", json!({})),
        ("", &["disable", "BOB", "--wait"], "disabled", json!({ "applied": [], "silent": [] })),
    ] {
        let (code, told) = ask(input, arguments);
        let epoch_now = told["epoch"].as_u64().unwrap();
        assert!(code == 0 && epoch_now > epoch, "{told}");
        let mut expected = json!({ "id": "BOB", "done": done, "epoch": epoch_now });
        expected.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        if arguments.contains(&"--wait") {
            expected["after_ms"] = told["after_ms"].as_u64().unwrap().into();
        }
        assert_eq!(told, expected);
    }
    assert_eq!(ask("", &["show", "BOB"]), (0, shown(false, json!(["root"]))));

    for (input, arguments, exit, problem) in [
        ("x\n", &["add", "bob"][..], 1, "less than 6 characters"),
        ("", &["unlock", "bob"], 1, "did you mean `BOB`?"),
        ("", &["delete", "bob"], 1, "did you mean `BOB`?"),
        ("a good password\n", &["add", "BOB"], 1, "`BOB` exists"),
        ("", &["add", "a/b"], 2, "`a/b`: "),
        ("", &["show", "bob"], 1, "there is no person `bob` (did you mean `BOB`? names are compared exactly)"),
        ("", &["enable", "EVE"], 1, "there is no person `EVE` (ids are compared exactly, capitals count)"),
        ("", &["passwd", "bob"], 1, "did you mean `BOB`?"),
    ] {
        let (code, told) = ask(input, arguments);
        assert!(code == exit && told["error"].as_str().unwrap().contains(problem), "{arguments:?}: {told}");
        assert!(told.get("done").is_none(), "{told}");
    }
    let (code, told) = account("/nowhere/fedgate.toml", "", &["show", "BOB"]);
    assert!(code == 2 && told["error"].as_str().unwrap().contains("/nowhere/fedgate.toml"), "{told}");
    let explain = ["explain", "--config", &config, "--as", "bob", "GET", "/people/BOB"];
    assert!(
        policy(&explain).2.contains("did you mean `BOB`? names are compared exactly); name the roles with --roles")
    );
}

#[test]
fn roles_are_trimmed_and_those_that_the_policy_does_not_define_are_stored_only_by_force() {
    let files = Files::new();
    let config = configuration(&files, "store.db", "");
    store_with_ana(&config, HASH);
    let ask = |arguments: &[&str]| account(&config, "", arguments);
    let (code, told) = ask(&["roles", "ANA", " root, end_user ,, root"]);
    assert_eq!((code, &told["roles"]), (0, &json!(["root", "end_user"])), "{told}");
    for (roles, problem) in [
        ("Root", "defines no role `Root` (did you mean `root`? names are compared exactly); nothing was changed"),
        ("end_usr", "defines no role `end_usr` (did you mean `end_user`?); nothing was changed"),
        ("root,astronaut", "defines no role `astronaut`; nothing was changed (`--force` stores it all the same)"),
    ] {
        for arguments in [&["roles", "ANA", roles][..], &["add", "EVE", "--roles", roles]] {
            let (code, told) = ask(arguments);
            assert!(code == 2 && told["error"].as_str().unwrap().contains(problem), "{arguments:?}: {told}");
        }
    }
    assert_eq!(ask(&["show", "ANA"]).1["roles"], json!(["root", "end_user"]));
    assert_eq!(ask(&["show", "EVE"]).0, 1, "nobody was added");
    let (code, told) = ask(&["roles", "ANA", "astronaut", "--force"]);
    assert!(code == 0 && told["warnings"][0].as_str().unwrap().ends_with("it grants nothing"), "{told}");
    let (code, told) = ask(&["roles", "ANA", &"r".repeat(9000), "--force"]);
    assert!(code == 2 && told["error"].as_str().unwrap().contains("8192 bytes"), "{told}");
}

#[test]
fn accounts_are_listed_in_pages_and_deleted_once_they_are_disabled_and_empty() {
    let files = Files::new();
    let config = configuration(&files, "store.db", "");
    store_with_ana(&config, HASH);
    with_accounts(&config, async |accounts| {
        for id in ["BOB", "CAT"] {
            let new =
                NewAccount { id: id.into(), roles: vec![], password_hash: "!".into(), name: None, lastname: None };
            assert!(accounts.add(&new).await.unwrap());
        }
    });
    let ask = |arguments: &[&str]| account(&config, "", arguments);
    let listed = |arguments: &[&str]| {
        let (code, told) = ask(arguments);
        let ids = told["accounts"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned());
        (code, ids.collect::<Vec<_>>().join(" "), told["next"].as_str().map(str::to_owned))
    };
    assert_eq!(listed(&["list", "--limit", "2"]), (0, "ANA BOB".into(), Some("BOB".into())));
    assert_eq!(listed(&["list", "--limit", "2", "--after", "BOB"]), (0, "CAT".into(), None));
    assert_eq!(listed(&["list", "--limit", "3"]), (0, "ANA BOB CAT".into(), None));
    assert_eq!(listed(&["list", "--after", "CAT"]), (0, String::new(), None));
    let first = &ask(&["list"]).1["accounts"][0];
    assert_eq!(first, &json!({ "id": "ANA", "active": true, "roles": ["end_user"], "password": "bcrypt" }));
    let (code, text, _) = fedgate(&["account", "list", "--limit", "1", "--config", &config]);
    assert!(code == 0 && text.contains("bcrypt    end_user\n") && text.ends_with("`--after=ANA`\n"), "{text}");
    assert_eq!(fedgate(&["account", "list", "--limit", "0", "--config", &config]).0, 2);

    let (code, told) = ask(&["delete", "BOB"]);
    assert!(code == 1 && told["error"].as_str().unwrap().contains("`BOB` is active; disable it first"), "{told}");
    assert_eq!(ask(&["disable", "BOB"]).0, 0);
    let (code, told) = ask(&["delete", "BOB", "--wait"]);
    assert_eq!((code, &told["done"], &told["applied"]), (0, &json!("deleted"), &json!([])), "{told}");
    assert_eq!(listed(&["list"]).1, "ANA CAT");
}

#[test]
fn the_hint_that_ends_a_page_can_be_followed_whatever_the_last_id_is() {
    let files = Files::new();
    let config = configuration(&files, "store.db", "");
    store_with_ana(&config, HASH);
    let store = rusqlite::Connection::open(files.0.join("store.db")).unwrap();
    let ids = ["", "-x", "--limit", "it's $HOME", "nl\nx"];
    ids.iter().for_each(|id| _ = store.execute("INSERT INTO people (id, data) VALUES (?1, '{}')", [id]).unwrap());
    let (mut hint, mut pages) = (String::new(), 0);
    loop {
        let program = env!("CARGO_BIN_EXE_fedgate");
        let line = format!("{program} account list --limit 1 --config '{config}' {hint}");
        let out = Command::new("bash").args(["-c", &line]).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
        pages += 1;
        let Some((_, next)) = text.split_once("go on with `") else { break };
        hint = next.trim_end().strip_suffix('`').unwrap().to_owned();
    }
    assert_eq!(pages, ids.len() + 1);
    // As two words, too.
    let (code, told) = account(&config, "", &["list", "--after", "-x", "--limit", "1"]);
    assert_eq!((code, &told["accounts"][0]["id"]), (0, &json!("ANA")), "{told}");
}

#[test]
fn check_reports_a_column_that_equates_ids_and_logins_that_read_documents() {
    let files = Files::new();
    let plain = "[gateway]\nlisten = []\nlisten_plain = [\"127.0.0.1:0\"]\nadmin = []\n";
    let config = configuration(&files, "store.db", plain);
    let open = || rusqlite::Connection::open(files.0.join("store.db")).unwrap();
    let loose = "CREATE TABLE people (id TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, data TEXT)";
    open().execute_batch(loose).unwrap();
    store_with_ana(&config, HASH);
    let told = || {
        let (code, text, warnings) = fedgate(&["check", "--config", &config]);
        assert_eq!(code, 0, "{text}{warnings}");
        warnings
    };
    let warnings = told();
    assert!(warnings.contains("`people.id` is TEXT COLLATE NOCASE, which may take one id for another"), "{warnings}");
    assert!(!warnings.contains("people that were looked at"), "{warnings}");
    std::fs::remove_file(files.0.join("store.db")).unwrap();
    store_with_ana(&config, HASH);
    assert!(!told().contains("may take one id"), "{}", told());
    // Another program deleted the row and left the triggers.
    open().execute_batch("DELETE FROM fedgate_logins").unwrap();
    assert!(told().contains("of 1 people that were looked at, 1 are not in the table"), "{}", told());
    with_accounts(&config, async |_| {});
    assert!(!told().contains("people that were looked at"), "{}", told());
}

#[test]
fn commands_on_policies_need_no_secret_and_those_on_the_store_do() {
    let files = Files::new();
    let route = "[[route]]\npath = \"/labs/{id}\"\nmethods = [\"GET\"]\nendpoint = \"labs\"\nupstream = \"his\"\n";
    let config = configuration(&files, "store.db", route);
    store_with_ana(&config, HASH);
    let labs = files.write("labs.cfg", r#"[{"role": "r", "permissions": {"GET": ["labs"]}}]"#);
    let cases = files.write(
        "c.toml",
        "[[case]]\nname = \"n\"\nas = \"A\"\nroles = [\"r\"]\nrequest = \"GET /labs/A\"\nexpect = \"allow\"\n",
    );
    std::fs::remove_file(files.0.join("secret")).unwrap();
    let explain = ["explain", "--as", "A", "--policy", &labs, "GET", "/labs/A"];
    for arguments in [
        &["check", "--strict", &labs][..],
        &["test", &labs, "--cases", &cases],
        &["matrix", &labs],
        &["diff", &labs, &labs],
        &[&explain[..], &["--roles", "r"]].concat(),
    ] {
        let (code, text, complaint) = policy(&[arguments, &["--config", &config]].concat());
        assert!(code == 0 && !text.contains("no route"), "{arguments:?}: {text}{complaint}");
    }
    for arguments in [&[&["policy"][..], &explain].concat()[..], &["status"], &["check", "--json"]] {
        // `check` reports more that is missing here.
        let (code, text, complaint) = fedgate(&[arguments, &["--config", &config]].concat());
        let complaint = text + &complaint;
        assert!(code == 2 && complaint.contains("`assertion.secret_file` names `"), "{arguments:?}: {complaint}");
    }
}
