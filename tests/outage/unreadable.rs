//! A database that answers the watch over the accounts, but refuses to read them.

use std::thread;
use std::time::{Duration, Instant};

use fedgate_base::config::{PostgresConfig, StoreConfig};
use fedgate_base::db::{Database, schema};
use tokio::runtime::Runtime;

use crate::fixture::{Gateway, PATIENCE, password_hash};
use crate::outage::{served, start, status};
use crate::support::postgres::Cluster;
use crate::support::postgres_text;

/// Waits until the operator's probe reports ready or not, with this reason.
fn ready(gateway: &Gateway, status: u16, why: &str) {
    let began = Instant::now();
    loop {
        let told = gateway.admin_get("/readyz");
        if told.status == status && told.body.contains(why) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{status} {why}: {}", told.body);
        thread::sleep(Duration::from_millis(20));
    }
}

/// The line about unreadable accounts that names this cause, which each case has for itself. Other lines name it, too: the report of the instance meets
/// the same refusal, and often before the accounts do.
fn reported(gateway: &Gateway, cause: &str) -> String {
    let began = Instant::now();
    loop {
        let names_both = |line: &String| line.contains("accounts cannot be read") && line.contains(cause);
        if let Some(line) = gateway.whole_log().into_iter().find(names_both) {
            return line;
        }
        assert!(began.elapsed() < PATIENCE, "no line about the accounts names {cause}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn unreadable_accounts_beside_a_running_watch_are_reported_with_the_cause_and_end_readiness() {
    let cluster = Cluster::start();
    let runtime = Runtime::new().unwrap();
    let owned = runtime.block_on(cluster.database_with_accounts(40, &password_hash()));
    let sql = |statement: &str| runtime.block_on(postgres_text(&owned, statement));
    let grants = "GRANT ALL ON ALL TABLES IN SCHEMA public TO gateway; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO gateway; \
                  GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO gateway";
    sql(&format!("CREATE ROLE gateway LOGIN; {grants}"));
    // The session of the watch stays; it is the one that asks for changes.
    let end_others = "SELECT count(pg_terminate_backend(pid))::text FROM pg_stat_activity WHERE usename = 'gateway' \
                      AND query NOT LIKE '%fedgate_account_changes c ON%'";
    let limited = PostgresConfig { uri: owned.uri.replace("user=postgres", "user=gateway"), ..owned.clone() };
    let gateway = start(&limited, "");
    served(&gateway, 0, PATIENCE);
    ready(&gateway, 200, "\"fault\":null");
    let restored = || {
        let database = runtime.block_on(Database::open(&StoreConfig::Postgres(owned.clone()))).unwrap();
        runtime.block_on(schema::migrate(&database)).unwrap();
        sql(grants);
    };
    #[rustfmt::skip]
    let cases: [(&str, &str, &dyn Fn(), bool); 4] = [
        ("REVOKE EXECUTE ON FUNCTION fedgate_account FROM gateway", "permission denied for function fedgate_account", &|| _ = sql(grants), false),
        ("ALTER ROLE gateway CONNECTION LIMIT 0", "too many connections for role", &|| _ = sql("ALTER ROLE gateway CONNECTION LIMIT -1"), true),
        ("ALTER ROLE gateway NOLOGIN", "is not permitted to log in", &|| _ = sql("ALTER ROLE gateway LOGIN"), true),
        ("DROP TABLE fedgate_logins", "the database lacks the tables or triggers of fedgate", &restored, false),
    ];
    for (account, (broken, cause, mended, ends_sessions)) in cases.into_iter().enumerate() {
        let began = Instant::now();
        sql(broken);
        if ends_sessions {
            sql(end_others);
        }
        // Found without a request, or earlier by one; then logged once, however many requests meet it.
        if account > 0 {
            assert_eq!(status(&gateway, 30 + account), 503, "{broken}");
        }
        ready(&gateway, 503, cause);
        (0..20).for_each(|turn| assert_eq!(status(&gateway, 10 + account + turn % 10), 503, "{broken}"));
        let line = reported(&gateway, cause);
        assert!(line.contains("is not ready"), "{line}");
        // A request may meet the end of its session first, which is another reason, and is logged once, too.
        let told = gateway.log_lines("accounts cannot be read", began);
        assert!(told == 1 || ends_sessions && told == 2, "{broken}: {told}");
        assert_eq!(gateway.log_lines("cached rights are used no longer", began), 0, "{broken}: the watch goes on");
        mended();
        ready(&gateway, 200, "\"ready\":true");
        gateway.logged("accounts can be read again", began, PATIENCE).expect("its end is told");
        served(&gateway, account + 1, PATIENCE);
    }
}
