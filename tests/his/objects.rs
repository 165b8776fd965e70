//! A database that answers, has the right version, and lacks something that the programs use.

use fedgate_base::db::{Database, schema};

use crate::on_both_stores;
use crate::support::His;

/// What the migration made, each with the statement that drops it and the words that must report it missing.
const POSTGRES_MADE: &str = "
    SELECT format('ALTER TABLE %s DISABLE TRIGGER %I', tgrelid::regclass, tgname), format('trigger `%s`', tgname)
    FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL
    SELECT format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass), format('trigger `%s`', tgname)
    FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL
    SELECT format('DROP FUNCTION IF EXISTS %s CASCADE', pg_proc.oid::regprocedure), format('function `%s(', proname)
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT format('DROP TABLE IF EXISTS %I CASCADE', relname), format('table `%s`', relname)
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
    AND relname !~ '^fedgate_(messages|positions)_[0-9]+$'";
const SQLITE_MADE: &str = "
    SELECT format('DROP %s IF EXISTS %s', type, name), format('%s `%s`', replace(type, 'view', 'table'), name)
    FROM sqlite_schema WHERE type <> 'index' AND name NOT LIKE 'sqlite_%'
    ORDER BY type = 'table', type = 'view', name IN ('pols', 'people'), name = 'people'";

async fn made(his: &His) -> Vec<(String, String)> {
    match &his.database {
        Database::Postgres(pool) => {
            let rows = pool.get().await.unwrap().query(POSTGRES_MADE, &[]).await.unwrap();
            rows.iter().map(|row| (row.get(0), row.get(1))).collect()
        }
        Database::Sqlite(sqlite) => sqlite
            .read(|connection| {
                let mut statement = connection.prepare(SQLITE_MADE)?;
                statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            })
            .await
            .unwrap(),
    }
}

on_both_stores! {
    async fn whatever_the_migration_makes_is_missed_when_it_is_gone_and_made_again(his) {
        assert_eq!(schema::missing_objects(&his.database).await.unwrap(), None);
        let made = made(&his).await;
        assert!(made.len() > 20, "{made:?}");
        for (drop, words) in &made {
            his.sql(drop).await;
            let missing = schema::missing_objects(&his.database).await.unwrap();
            assert!(format!("{missing:?}").contains(words), "{drop}: {missing:?}");
        }
        // Not even the version is left; each object alone is missed under the right version, too.
        schema::migrate(&his.database).await.unwrap();
        assert_eq!(schema::missing_objects(&his.database).await.unwrap(), None);
        his.sql("DROP TABLE fedgate_page_waits").await;
        assert_eq!(schema::version(&his.database).await.unwrap(), schema::VERSION);
        let told = schema::missing_objects(&his.database).await.unwrap().unwrap().to_string();
        assert!(told.starts_with("the database lacks the table `fedgate_page_waits` (") && told.ends_with("run `fedhis migrate` again"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_only_a_newer_build_adds_is_missed_too() {
    let his = His::on_postgres().await;
    for (table, column) in [("fedgate_epoch", "raised_by"), ("fedgate_store", "origin")] {
        his.sql(&format!("ALTER TABLE {table} DROP COLUMN {column}")).await;
        let told = schema::missing_objects(&his.database).await.unwrap().unwrap().to_string();
        assert!(told.contains(&format!("the column `{table}.{column}`")), "{told}");
        schema::migrate(&his.database).await.unwrap();
        assert_eq!(schema::missing_objects(&his.database).await.unwrap(), None);
    }
}
