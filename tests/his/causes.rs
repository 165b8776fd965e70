//! A store that answers but cannot do what is asked: the service logs the reason, and clients do not learn it.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::support::{His, root};

/// A log that the test reads.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn a_failing_statement_is_reported(his: His, cause: &str) {
    let heard = Heard::default();
    let writer = heard.clone();
    let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    // The log of this thread, which runs the whole service here.
    let _log = tracing::subscriber::set_default(log);
    his.person("ANA", "{}").await;
    his.sql("ALTER TABLE pols RENAME TO pols_away").await;
    let reply = his.get(&root(), "/pols/ANA").await;
    his.sql("ALTER TABLE pols_away RENAME TO pols").await;
    let told = String::from_utf8(heard.0.lock().unwrap().clone()).unwrap();
    assert_eq!(reply.status, 500);
    assert!(!reply.text().contains("pols"), "{}", reply.text());
    assert!(told.contains("ERROR") && told.contains(cause), "{told}");
    assert_eq!(his.get(&root(), "/pols/ANA").await.status, 200);
}

#[tokio::test]
async fn sqlite_reports_why_a_read_fails() {
    a_failing_statement_is_reported(His::on_sqlite().await, "no such table").await;
}

#[tokio::test]
async fn postgres_reports_why_a_read_fails() {
    a_failing_statement_is_reported(His::on_postgres().await, "does not exist").await;
}

#[tokio::test]
async fn assertions_that_fail_by_the_clock_are_logged_by_the_service_and_not_once_a_request() {
    let his = His::on_sqlite().await;
    let heard = Heard::default();
    let writer = heard.clone();
    let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let _log = tracing::subscriber::set_default(log);
    let lines = || {
        let told = String::from_utf8(heard.0.lock().unwrap().clone()).unwrap();
        told.lines().filter(|line| line.contains("ERROR") && line.contains("by the clock of this machine")).count()
    };
    let mut expired = his.claims(&root(), "GET", "/login");
    (expired.iat, expired.exp) = his.signer.validity(SystemTime::now() - Duration::from_secs(120));
    for _ in 0..3 {
        // An assertion of another key says nothing about the clocks.
        let forged = format!("{}x", his.signer.sign(&expired));
        assert_eq!(his.request(&root(), "GET", "/login").token(Some(forged)).send().await.status, 401);
    }
    assert_eq!(lines(), 0);
    for _ in 0..3 {
        let token = his.signer.sign(&expired);
        assert_eq!(his.request(&root(), "GET", "/login").token(Some(token)).send().await.status, 401);
    }
    assert_eq!(lines(), 1);
}
