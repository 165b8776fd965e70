//! Things that an operator has added to a table, or its rows have, and a move cannot take along.
//!
//! The one rule: it is refused before anything is done, with its name and the remedy. Nothing is dropped silently.

use super::super::super::{Database, DbError};
use super::super::loose_columns;
use super::table::MovedTable;
use super::{Mover, PartitionError};

/// The most obstacles that are named.
const NAMED: usize = 10;

impl Mover<'_> {
    /// Refuses a move that would lose something.
    pub(super) async fn refuse_what_is_in_the_way(
        &self,
        table: &MovedTable,
        database: &Database,
    ) -> Result<(), PartitionError> {
        let mut found = self.in_the_way(table).await?;
        let loose = loose_columns(database).await?.into_iter().map(|column| column.to_string());
        found.extend(loose.filter(|column| column.starts_with(&format!("`{}.", table.name))));
        if found.is_empty() {
            return Ok(());
        }
        let more = found.len().saturating_sub(NAMED);
        found.truncate(NAMED);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        Err(PartitionError::Refused(format!(
            "`{}` is not moved to {}: {}{more}",
            table.name,
            self.count.in_words(),
            found.join("; ")
        )))
    }

    async fn in_the_way(&self, table: &MovedTable) -> Result<Vec<String>, DbError> {
        let indexes: Vec<String> =
            super::super::indexes::large_indexes_of(table.name).into_iter().map(|(name, _)| name).collect();
        let rows = self.session.query(IN_THE_WAY, &[&table.name, &indexes, &table.ids]).await?;
        let mut found = rows.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<Vec<String>, DbError>>()?;
        let (name, person) = (table.name, table.person);
        if !self.count.is_one_table() {
            let nobodys =
                format!("SELECT count(*) FROM (SELECT FROM {name} WHERE {person} IS NULL LIMIT 1000) AS nobodys");
            let count: i64 = self.session.query_one(&nobodys, &[]).await?.try_get(0)?;
            if count > 0 {
                let many = if count == 1000 { "1000 or more".to_owned() } else { count.to_string() };
                found.push(format!(
                    "{many} of its rows have no `{person}`, and nobody can read them; delete them, or give them one"
                ));
            }
        }
        Ok(found)
    }
}

// `$1` the table, `$2` its indexes, `$3` its table of ids.
const IN_THE_WAY: &str = "
    WITH source AS (SELECT * FROM pg_class WHERE oid = to_regclass($1::text)),
    stored AS (SELECT oid FROM source UNION SELECT inhrelid FROM pg_inherits, source WHERE inhparent = source.oid)
    SELECT 'it is no ordinary table' FROM source WHERE relkind NOT IN ('r', 'p') OR relpersistence <> 'p'
    UNION ALL
    SELECT 'its primary key is not that of Thalamus (`id`)' FROM source WHERE NOT EXISTS (
        SELECT FROM pg_index WHERE indrelid = source.oid AND indisprimary AND indisvalid
        AND 'id' = (SELECT attname FROM pg_attribute WHERE attrelid = source.oid AND attnum = indkey[0])
        AND indnkeyatts = CASE relkind WHEN 'r' THEN 1 ELSE 2 END
    )
    UNION ALL
    SELECT format('the table `%s` inherits from it; end that', inhrelid::regclass) FROM pg_inherits JOIN source ON inhparent = source.oid
    WHERE relkind = 'r'
    UNION ALL
    SELECT 'it inherits from another table, or is a partition of it' FROM pg_inherits JOIN source ON inhrelid = source.oid
    UNION ALL
    SELECT 'it has row level security; drop its policies, and disable it' FROM source
    WHERE relrowsecurity OR EXISTS (SELECT FROM pg_policy WHERE polrelid = source.oid)
    UNION ALL
    SELECT DISTINCT format('%s `%s` reads it; drop it, and create it again afterwards',
        CASE view.relkind WHEN 'm' THEN 'the materialized view' ELSE 'the view or rule of' END, ev_class::regclass)
    FROM pg_depend JOIN source ON refobjid = source.oid JOIN pg_rewrite ON pg_rewrite.oid = objid AND classid = 'pg_rewrite'::regclass
    JOIN pg_class AS view ON view.oid = ev_class
    UNION ALL
    SELECT DISTINCT format('the function `%s` depends on it; drop it, and create it again afterwards', objid::regprocedure)
    FROM pg_depend JOIN source ON refobjid IN (source.oid, source.reltype) WHERE classid = 'pg_proc'::regclass
    UNION ALL
    SELECT format('the foreign key `%s` of `%s` refers to it; drop it (the primary key of partitions is another one)', conname, conrelid::regclass)
    FROM pg_constraint, source WHERE contype = 'f' AND confrelid IN (source.oid, to_regclass($3::text)) AND conparentid = 0
    AND (conrelid IS DISTINCT FROM to_regclass('personal_docs') OR $1::text <> 'pols')
    UNION ALL
    SELECT format('the index `%s` is not one of fedgate; note its definition (\\d), drop it, and create it again afterwards', indexrelid::regclass)
    FROM pg_index JOIN stored ON indrelid = stored.oid JOIN pg_class AS named ON named.oid = indexrelid
    WHERE NOT indisprimary AND named.relname <> ALL ($2::text[]) AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = indexrelid)
    UNION ALL
    SELECT format('the trigger `%s` cannot be one of a partitioned table; drop it, and create it again afterwards', tgname)
    FROM pg_trigger JOIN source ON tgrelid = source.oid
    WHERE NOT tgisinternal AND (tgconstraint <> 0 OR tgtype::int & 1 = 1 AND (tgoldtable IS NOT NULL OR tgnewtable IS NOT NULL))
    UNION ALL
    SELECT format('its column `%s` counts by itself (identity), which partitions cannot', attname)
    FROM pg_attribute JOIN source ON attrelid = source.oid WHERE attnum > 0 AND attidentity <> ''
    UNION ALL
    SELECT DISTINCT format('the publication `%s` sends it; drop it there, and add it again afterwards with a new copy at the subscriber', pubname)
    FROM pg_publication_tables JOIN pg_namespace ON nspname = schemaname JOIN pg_class AS sent ON sent.relnamespace = pg_namespace.oid AND sent.relname = tablename
    JOIN stored ON stored.oid = sent.oid
    UNION ALL
    SELECT 'a subscription writes it; drop that, and make it again afterwards' FROM pg_subscription_rel JOIN stored ON srrelid = stored.oid";
