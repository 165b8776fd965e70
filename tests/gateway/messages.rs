//! Messages for operators: they name the path, the key and the remedy, and begin with the name of the program.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Instant;

use crate::fixture::{Gateway, PATIENCE, Place, Setup, read_request};
use crate::gateway::certificate_checks::check;

fn run(program: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let out = Command::new(program).args(arguments).output().unwrap();
    (out.status.code(), format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
}

#[test]
fn a_program_has_its_own_name_and_takes_its_configuration_before_and_after_the_command() {
    let place = Place::prepare(&Setup::default());
    let config = place.dir.join("fedgate.toml").display().to_string();
    for (program, name, command) in
        [(env!("CARGO_BIN_EXE_fedgate"), "fedgate", "status"), (crate::support::programs::fedhis(), "fedhis", "seed")]
    {
        let (code, text) = run(program, &["--version"]);
        assert_eq!((code, text), (Some(0), format!("{name} {}\n", env!("CARGO_PKG_VERSION"))));
        assert!(run(program, &["--help"]).1.contains(&format!("Usage: {name} ")), "{name}");
        for arguments in [["--config", &config, command], [command, "--config", &config], ["-c", &config, command]] {
            assert_eq!(run(program, &arguments).0, Some(0), "{name} {arguments:?}");
        }
    }
    let (code, text) = run(env!("CARGO_BIN_EXE_fedgate"), &["--config", &config, "demo"]);
    assert!(code == Some(2) && text.contains("takes no --config"), "{text}");
    std::fs::remove_dir_all(&place.dir).unwrap();
}

#[test]
fn a_key_that_is_encrypted_and_a_file_that_is_cut_off_are_called_that() {
    let place = Place::prepare(&Setup::default());
    let (certificate, key) = (place.dir.join("cert.pem"), place.dir.join("cert.key"));
    let good = [std::fs::read_to_string(&certificate).unwrap(), std::fs::read_to_string(&key).unwrap()];
    let half = |text: &str| text[..text.len() / 2].to_owned();
    // Without the file's end, and with its end but not all before it.
    let shorter = |text: &str| {
        let lines: Vec<&str> = text.lines().collect();
        [&lines[..2], &lines[lines.len() - 1..]].concat().join("\n")
    };
    let encrypted = good[1].replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    for (file, text, words) in [
        (&certificate, half(&good[0]), "has no end: the file is cut off"),
        (&certificate, shorter(&good[0]), "holds a certificate that is cut off or damaged (number 1 of 1)"),
        (&key, half(&good[1]), "has no end: the file is cut off"),
        (&key, shorter(&good[1]), "holds a key that is cut off, damaged"),
        (&key, encrypted, "holds a key that is encrypted; store it without a passphrase"),
    ] {
        std::fs::write(file, text).unwrap();
        let (code, told) = check(&place, &[]);
        let path = file.display().to_string();
        assert!(code == 2 && told.lines().any(|line| line.contains(&path) && line.contains(words)), "{words}: {told}");
        std::fs::write(&certificate, &good[0]).unwrap();
        std::fs::write(&key, &good[1]).unwrap();
    }
    // The key that signs assertions.
    let file = place.dir.join("ed25519.pem").display().to_string();
    std::fs::write(&file, good[1].replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let keys = [("FEDGATE_ASSERTION_ALGORITHM", "EdDSA"), ("FEDGATE_ASSERTION_PRIVATE_KEY_FILE", file.as_str())];
    let (code, told) = check(&place, &keys);
    assert!(code == 2 && told.contains("holds a key that is encrypted") && told.contains(&file), "{told}");
    std::fs::remove_dir_all(&place.dir).unwrap();
}

#[test]
fn a_port_that_needs_a_right_is_reported_with_what_grants_it() {
    // In a namespace of its own, where this user has no rights over the machine's network.
    let under = ["unshare", "--user", "--map-current-user"];
    if !Command::new(under[0]).args(&under[1..]).arg("true").status().is_ok_and(|status| status.success()) {
        println!("not run: this machine lets nobody make a user namespace");
        return;
    }
    let place = Place::prepare(&Setup::default());
    let config = place.dir.join("fedgate.toml");
    for (program, key) in
        [(env!("CARGO_BIN_EXE_fedgate"), "GATEWAY_LISTEN_PLAIN"), (crate::support::programs::fedhis(), "HIS_LISTEN")]
    {
        let mut command = Command::new(under[0]);
        command.args(&under[1..]).arg(program).args(["serve", "--config"]).arg(&config);
        let out = command.env(format!("FEDGATE_{key}"), "127.0.0.1:443").output().unwrap();
        let told = String::from_utf8_lossy(&out.stderr);
        for words in
            ["127.0.0.1:443", "CAP_NET_BIND_SERVICE", "ip_unprivileged_port_start to 443", &format!("FEDGATE_{key}")]
        {
            assert!(told.contains(words), "{words}: {told}");
        }
    }
    std::fs::remove_dir_all(&place.dir).unwrap();
}

#[test]
fn what_libraries_warn_of_is_in_the_log_and_no_more_of_what_they_say() {
    let began = Instant::now();
    // An upstream that sends bytes too many, which only pingora notices.
    let service = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let more = format!(
        "[[upstream]]\nname = \"lab\"\nservers = [\"{}\"]\n\
         [[route]]\npath = \"/lab\"\nmethods = [\"GET\"]\nupstream = \"lab\"\npublic = true\n",
        service.local_addr().unwrap()
    );
    std::thread::spawn(move || {
        for stream in service.incoming().flatten() {
            let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
            let _ = read_request(&mut reader);
            let _ = (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue, and more");
        }
    });
    let environment = &[("FEDGATE_LOG", "info,pingora_core=trace,pingora_proxy=trace")];
    let gateway = Gateway::start_as(&Setup { environment, configuration: &more, ..Setup::default() });
    assert_eq!(gateway.get("/lab", "ANA").status, 200);
    let words = "pingora_core::protocols::http::v1::body: Peer sent more data than expected";
    gateway.logged(words, began, PATIENCE).expect("pingora is heard");
    // Its detailed messages contain passwords, for which the fixture searches.
    assert!(gateway.whole_log().iter().all(|line| !line.contains("TRACE") && !line.contains("DEBUG")));
}
