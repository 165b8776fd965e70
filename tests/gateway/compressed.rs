//! Records that were rotated, compressed or piped, and records of which stdout has no copy.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use rustix::process::Signal;

use crate::fixture::{Gateway, PATIENCE, Setup};

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn explain(gateway: &Gateway, id: &str, options: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedgate"));
    command.args(["explain", id, "--config"]).arg(gateway.dir.join("fedgate.toml")).args(options);
    command.env("FEDGATE_RECORDS_FILE", "records.jsonl").stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The program may end without reading.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

#[test]
fn records_are_found_in_files_that_were_compressed_and_in_what_is_piped() {
    let environment = &[("FEDGATE_RECORDS_FILE", "records.jsonl")];
    let gateway = Gateway::start_as(&Setup { environment, ..Setup::default() });
    let ask = || gateway.get("/people/ANA", "ANA").header("x-request-id").unwrap();
    let ids = [ask(), ask(), ask()];
    ids.iter().for_each(|_| drop(gateway.record()));
    let file = gateway.dir.join("records.jsonl");
    let deadline = Instant::now() + PATIENCE;
    let records = loop {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if text.lines().count() == 3 {
            break text;
        }
        assert!(Instant::now() < deadline, "the records are not written");
    };
    let of = |id: &str| format!("{}\n", records.lines().find(|line| line.contains(id)).unwrap());
    std::fs::write(gateway.dir.join("records.jsonl.3.gz"), gzip(of(&ids[0]).as_bytes())).unwrap();
    std::fs::write(gateway.dir.join("records.jsonl.2.zst"), zstd::encode_all(of(&ids[1]).as_bytes(), 1).unwrap())
        .unwrap();
    std::fs::write(&file, of(&ids[2])).unwrap();
    for id in &ids {
        let out = explain(&gateway, id, &[], b"");
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && text.contains("GET /people/ANA by ANA: allow"), "{id}: {out:?}");
    }
    for input in
        [records.clone().into_bytes(), gzip(records.as_bytes()), zstd::encode_all(records.as_bytes(), 1).unwrap()]
    {
        for name in ["-", "/dev/stdin", "/dev/fd/0"] {
            let out = explain(&gateway, &ids[1], &["--records", name], &input);
            assert!(out.status.success(), "{name}: {out:?}");
        }
    }
    // A truncated file is reported, and the records before its end are found.
    let whole = gzip(records.as_bytes());
    std::fs::write(gateway.dir.join("records.jsonl.4.gz"), &whole[..whole.len() - 9]).unwrap();
    let out = explain(&gateway, &ids[2], &[], b"");
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && told.contains("records.jsonl.4.gz"), "{out:?}");
    let out = explain(&gateway, &ids[2], &["--records", "/nowhere/r.gz"], b"");
    assert!(out.status.code() == Some(1) && String::from_utf8_lossy(&out.stderr).contains("/nowhere/r.gz"), "{out:?}");
}

#[test]
fn where_a_file_keeps_them_stdout_may_have_no_copy() {
    let environment = &[("FEDGATE_RECORDS_FILE", "records.jsonl"), ("FEDGATE_RECORDS_STDOUT", "false")];
    let mut gateway = Gateway::start_as(&Setup { environment, ..Setup::default() });
    let id = gateway.get("/people/DOC", "ANA").header("x-request-id").unwrap();
    // A refusal is on disk before its answer.
    let records = std::fs::read_to_string(gateway.dir.join("records.jsonl")).unwrap();
    assert!(records.contains(&id), "{records}");
    gateway.signal(Signal::TERM);
    assert!(gateway.child.wait().unwrap().success(), "the end waits for no copy");
    assert!(gateway.no_record_waits());
    let out = Command::new(env!("CARGO_BIN_EXE_fedgate"))
        .args(["check", "--config"])
        .arg(gateway.dir.join("fedgate.toml"))
        .env("FEDGATE_RECORDS_STDOUT", "false")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(2) && told.contains("nothing else keeps records"), "{told}");
}
