//! Roles belong to all databases of a server: two migrations may make the same ones.

use std::time::{Duration, Instant};

use fedgate_base::config::{PostgresConfig, StoreConfig};
use fedgate_base::db::Database;
use fedgate_base::db::schema::roles;

use crate::support::His;

async fn session(config: &PostgresConfig) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&config.uri, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_another_database_makes_meanwhile_is_no_error() {
    let his = His::on_postgres().await;
    let StoreConfig::Postgres(config) = &his.config else { unreachable!() };
    let [other, watch] = [session(config).await, session(config).await];
    let names = ["a", "b", "c"].map(|end| format!("race_{:x}_{end}", rand::random::<u64>()));
    other.batch_execute(&format!("BEGIN; CREATE ROLE {} LOGIN", names[1])).await.unwrap();
    let (database, wanted) = (Database::open(&his.config).await.unwrap(), names.join(",").parse().unwrap());
    let setting_up = tokio::spawn(async move { roles::set_up(&database, &wanted).await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
        AND query LIKE '%CREATE ROLE%' AND pid <> pg_backend_pid()";
    let deadline = Instant::now() + Duration::from_secs(60);
    while watch.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        assert!(Instant::now() < deadline && !setting_up.is_finished(), "it does not wait for the other migration");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    other.batch_execute("COMMIT").await.unwrap();
    setting_up.await.unwrap().unwrap();
    for name in names {
        other.batch_execute(&format!("DROP OWNED BY {name}; DROP ROLE {name}")).await.unwrap();
    }
}
