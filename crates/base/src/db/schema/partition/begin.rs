//! The begin of a move: the empty copy with its partitions, and the trigger that notes what is written from now on.
//!
//! The one rule: all of it comes with one transaction, and goes with one.

use super::super::super::DbError;
use super::table::MovedTable;
use super::{Mover, PartitionError};

/// Properties of the table that the copy takes over.
struct Source {
    /// The storage options, as a clause.
    options: String,
    owner: String,
    bytes: i64,
    id_type: String,
    person_type: String,
}

impl Mover<'_> {
    /// Makes the copy, and tells what room it takes.
    pub(super) async fn begin(&mut self, table: &MovedTable) -> Result<(), PartitionError> {
        let (name, person, ids, copy) = (table.name, table.person, table.ids, table.copy());
        let Source { options, owner, bytes, id_type, person_type } = self.source(table).await?;
        let words = self.count.in_words();
        (self.report)(&format!(
            "moving `{name}` to {words}: this takes {} MiB of the server's disk beside the table, and as much of its log \
             (WAL), until the former table is dropped",
            bytes.unsigned_abs() / (1024 * 1024) + 1
        ));
        let is_one = self.count.is_one_table();
        let by = if is_one { String::new() } else { format!(" PARTITION BY HASH ({person})") };
        let key = if is_one { "id".to_owned() } else { format!("id, {person}") };
        let like = "INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE INCLUDING COMPRESSION \
                    INCLUDING COMMENTS INCLUDING STATISTICS";
        let options_of_one = if is_one { options.as_str() } else { "" };
        let mut statements = vec![
            format!("CREATE TABLE {copy} (LIKE {name} {like}){by}{options_of_one}"),
            format!("ALTER TABLE {copy} ADD CONSTRAINT {copy}_pkey PRIMARY KEY ({key})"),
        ];
        if is_one {
            // As Thalamus made it.
            statements.push(format!("ALTER TABLE {copy} ALTER COLUMN {person} DROP NOT NULL"));
        }
        let mut made = vec![copy.clone()];
        for at in 0..self.count.0 {
            let (part, count) = (table.part(self.count, at), self.count.0);
            statements.push(format!(
                "CREATE TABLE {part} PARTITION OF {copy} FOR VALUES WITH (MODULUS {count}, REMAINDER {at}){options}"
            ));
            made.push(part);
        }
        if table.count(self.session).await?.is_one_table() {
            // The foreign key of documents goes to it, so it is one table.
            statements.push(format!("CREATE TABLE {ids} (id {id_type} PRIMARY KEY, {person} {person_type} NOT NULL)"));
            made.push(ids.to_owned());
        }
        for new in made {
            statements.push(format!("ALTER TABLE {new} OWNER TO {owner}"));
            // Default privileges may give roles a right to it that they do not have to the table.
            statements.push(REVOKE_ALL.replace("{new}", &new));
        }
        statements.extend([
            format!(
                "CREATE TRIGGER fedgate_row_moved AFTER INSERT OR UPDATE OR DELETE ON {name} FOR EACH ROW EXECUTE \
                 FUNCTION fedgate_row_moved('{name}')"
            ),
            format!(
                "CREATE TRIGGER fedgate_rows_moved AFTER TRUNCATE ON {name} FOR EACH STATEMENT EXECUTE FUNCTION \
                 fedgate_row_moved('{name}')"
            ),
            format!(
                "ALTER TABLE {name} ENABLE ALWAYS TRIGGER fedgate_row_moved, ENABLE ALWAYS TRIGGER fedgate_rows_moved"
            ),
            format!("INSERT INTO fedgate_partition_moves (moved, parts) VALUES ('{name}', {})", self.count.0),
        ]);
        self.in_turn(&statements, &format!("the move of `{name}` begins, and")).await
    }

    async fn source(&self, table: &MovedTable) -> Result<Source, DbError> {
        let row = self.session.query_one(SOURCE, &[&table.name, &table.person]).await?;
        Ok(Source {
            options: row.try_get(0)?,
            owner: row.try_get(1)?,
            bytes: row.try_get(2)?,
            id_type: row.try_get(3)?,
            person_type: row.try_get(4)?,
        })
    }

    /// Ends a move that has not come to its swap.
    pub(super) async fn abandon(&mut self, table: &MovedTable) -> Result<(), PartitionError> {
        let (name, ids, copy) = (table.name, table.ids, table.copy());
        (self.report)(&format!("the unfinished move of `{name}` is given up"));
        let mut statements = vec![
            format!("DROP TRIGGER IF EXISTS fedgate_row_moved ON {name}"),
            format!("DROP TRIGGER IF EXISTS fedgate_rows_moved ON {name}"),
            format!("DROP TABLE IF EXISTS {copy}"),
            format!("DELETE FROM fedgate_moved_rows WHERE moved = '{name}'"),
            format!("DELETE FROM fedgate_partition_moves WHERE moved = '{name}'"),
        ];
        if table.count(self.session).await?.is_one_table() {
            statements.push(format!("DROP TABLE IF EXISTS {ids}"));
        }
        self.in_turn(&statements, &format!("the move of `{name}` ends, and")).await
    }
}

/// The storage options of a table or of its partitions, its owner, its bytes, and the types of two columns.
const SOURCE: &str = "
    WITH stored AS (
        SELECT to_regclass($1::text)::oid AS relid
        UNION SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass($1::text)
    )
    SELECT coalesce((
        SELECT ' WITH (' || array_to_string(reloptions, ', ') || ')' FROM stored JOIN pg_class ON pg_class.oid = relid
        WHERE reloptions IS NOT NULL LIMIT 1
    ), ''), (
        SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = to_regclass($1::text)
    ), (
        SELECT sum(pg_total_relation_size(relid))::bigint FROM stored
    ), max(format_type(atttypid, atttypmod)) FILTER (WHERE attname = 'id'),
    max(format_type(atttypid, atttypmod)) FILTER (WHERE attname = $2::text)
    FROM pg_attribute WHERE attrelid = to_regclass($1::text) AND attnum > 0";
const REVOKE_ALL: &str = "DO $$
    DECLARE
        holder text;
    BEGIN
        FOR holder IN
            SELECT DISTINCT coalesce(quote_ident(rolname), 'PUBLIC')
            FROM pg_class CROSS JOIN LATERAL aclexplode(relacl) AS acl LEFT JOIN pg_roles ON pg_roles.oid = grantee
            WHERE pg_class.oid = '{new}'::regclass AND grantee <> relowner
        LOOP
            EXECUTE format('REVOKE ALL ON {new} FROM %s', holder);
        END LOOP;
    END
    $$";
