//! The database roles of the programs: each may do what its program does, and nothing else.
//!
//! The one rule: a right that is not listed here is taken away. So the list is complete, or a program fails at once, in
//! the tests, which run both programs under these roles.
//!
//! `fedhis migrate --roles` calls it. Every later migration grants the same roles what it has added.

use std::fmt;
use std::str::FromStr;

use fedgate_core::escape;

use super::super::{Database, DbError, PooledSession};

/// What a role is for, with the rights of its work.
struct RolePurpose {
    name: &'static str,
    /// Rights and the tables or views that they are on.
    rights: &'static [(&'static str, &'static str)],
    /// Functions that not everybody may call.
    functions: &'static str,
}

/// The HIS: records, and people without their hashes.
const HIS: RolePurpose = RolePurpose {
    name: "his",
    rights: &[
        ("SELECT, INSERT, UPDATE, DELETE", "pols, personal_docs, dus, institutions, fedgate_pieces"),
        // The id alone can be read: documents are read from the view, and changed by functions.
        ("SELECT (id), INSERT (id, data), DELETE", "people"),
        // UPDATE to lock rows: this column cannot be written.
        ("SELECT, UPDATE (data)", "fedgate_people"),
        ("SELECT", "fedgate_schema, fedgate_store, fedgate_roles, fedgate_page_waits, fedgate_change_times"),
        ("SELECT", "fedgate_messages, fedgate_positions, fedgate_relay, fedgate_sent, fedgate_waiting"),
        ("SELECT", "fedgate_ended_histories, fedgate_former_accounts"),
        ("SELECT, INSERT, UPDATE, DELETE", "fedgate_cursors, fedgate_replica_marks"),
        ("SELECT, INSERT, UPDATE, DELETE", "fedgate_webhooks, fedgate_webhook_keys, fedgate_deliveries"),
        ("SELECT, INSERT, UPDATE, DELETE", "fedgate_person_keys, fedgate_compared_persons, fedgate_person_dedupe"),
        ("SELECT, INSERT, UPDATE, DELETE", "fedgate_person_pairs, fedgate_person_pairs_due, fedgate_same_persons"),
        ("SELECT, INSERT, DELETE", "fedgate_search_words, fedgate_search_deletions, fedgate_person_keys_due"),
        ("SELECT, INSERT, UPDATE", "fedgate_merges"),
        ("SELECT, UPDATE", "fedgate_person_index"),
    ],
    functions: "fedgate_give_positions(bigint), fedgate_add_partitions(), fedgate_drop_messages(bigint, bigint), \
                fedgate_clean_messages(bigint), fedgate_send(varchar, varchar, varchar, varchar, jsonb), \
                fedgate_whole_person(varchar), fedgate_account_rights(varchar), \
                fedgate_patch_person(varchar, text[], text, bigint, text, text), fedgate_put_person(varchar, text), \
                fedgate_store_pages(varchar[], varchar[], text[], varchar[], text[]), fedgate_changes_until()",
};
/// The gateway: accounts, their changes, and its own report; no record.
const GATEWAY: RolePurpose = RolePurpose {
    name: "gateway",
    rights: &[
        ("SELECT", "fedgate_schema, fedgate_store, fedgate_roles, fedgate_epoch, fedgate_account_changes"),
        ("SELECT", "fedgate_account_events, fedgate_page_waits"),
        ("SELECT, INSERT, UPDATE, DELETE", "fedgate_instances"),
    ],
    functions: "fedgate_account(varchar, bigint), fedgate_account_links(varchar), \
                fedgate_replace_hash(varchar, varchar, varchar, varchar)",
};
/// The operator: `fedgate account`, `fedgate status`.
const OPERATOR: RolePurpose = RolePurpose {
    name: "operator",
    rights: &[
        ("SELECT, INSERT, UPDATE, DELETE", "people, fedgate_links, fedgate_relations"),
        // To count what a person has.
        ("SELECT (book)", "pols"),
        ("SELECT (fedacct)", "personal_docs"),
        (
            "SELECT",
            "fedgate_schema, fedgate_store, fedgate_roles, fedgate_epoch, fedgate_account_changes, fedgate_logins",
        ),
        ("SELECT", "fedgate_account_events, fedgate_page_waits, fedgate_instances, fedgate_same_persons"),
    ],
    functions: "fedgate_account(varchar, bigint), fedgate_account_links(varchar)",
};
const PURPOSES: [&RolePurpose; 3] = [&HIS, &GATEWAY, &OPERATOR];

/// The names of the roles: of the HIS, of the gateway, and of the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleNames([String; 3]);

impl RoleNames {
    /// The names of docs/INSTALL.md.
    pub const USUAL: &str = "fedhis,fedgate,fedgate_operator";
}

impl FromStr for RoleNames {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        let is_name = |name: &String| {
            !name.is_empty() && name.len() < 64 && !name.starts_with("pg_") && name != "public" && !name.contains('$')
        };
        match <[String; 3]>::try_from(names) {
            Ok(names)
                if names.iter().all(is_name)
                    && names[0] != names[1]
                    && names[1] != names[2]
                    && names[0] != names[2] =>
            {
                Ok(Self(names))
            }
            _ => Err("give three different names of roles: of the HIS, of the gateway, of the operator".to_owned()),
        }
    }
}

impl fmt::Display for RoleNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [his, gateway, operator] = self.0.each_ref().map(|name| escape::name(name));
        write!(f, "`{his}` serves records, `{gateway}` reads accounts, `{operator}` changes accounts")
    }
}

/// Why the roles were not set up.
#[derive(Debug, thiserror::Error)]
pub enum RolesError {
    /// The store is no PostgreSQL.
    #[error("`--roles` is for PostgreSQL; in an embedded store the file's modes decide who may do what")]
    Embedded,
    /// Roles are missing, and this one may not create any.
    #[error(
        "the database has no role {}, and `{by}` may create none; run `{}` as a superuser, then this again",
        named(.missing),
        created(.missing)
    )]
    Missing {
        /// The missing roles.
        missing: Vec<String>,
        /// The role of this session.
        by: String,
    },
    /// A role can do more than what is listed here, by other ways than a grant.
    #[error("{}", .0.join("; "))]
    TooMuch(Vec<String>),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

impl From<tokio_postgres::Error> for RolesError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

fn named(roles: &[String]) -> String {
    roles.iter().map(|role| format!("`{}`", escape::name(role))).collect::<Vec<_>>().join(", ")
}

fn created(roles: &[String]) -> String {
    roles.iter().map(|role| format!("CREATE ROLE {} LOGIN;", quoted(role))).collect::<Vec<_>>().join(" ")
}

fn quoted(name: &str) -> String {
    let is_plain = |name: &str| name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if is_plain(name) { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Creates the roles that are missing, gives each its rights, takes all others away, and remembers their names.
///
/// # Errors
/// See [`RolesError`]. Nothing is changed then.
pub async fn set_up(database: &Database, names: &RoleNames) -> Result<(), RolesError> {
    let Database::Postgres(pool) = database else { return Err(RolesError::Embedded) };
    let mut session = pool.get().await?.without_limit();
    let transaction = session.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&super::LOCK]).await?;
    let wanted: Vec<&str> = names.0.iter().map(String::as_str).collect();
    let row = transaction.query_one(MISSING, &[&wanted]).await?;
    let (missing, may_create): (Vec<String>, bool) = (row.try_get(0)?, row.try_get(1)?);
    if !missing.is_empty() && !may_create {
        return Err(RolesError::Missing { missing, by: row.try_get(2)? });
    }
    for role in &missing {
        transaction.batch_execute(&CREATED.replace("{role}", &quoted(role))).await?;
    }
    transaction.batch_execute("DELETE FROM fedgate_roles").await?;
    for (purpose, role) in PURPOSES.iter().zip(&names.0) {
        transaction
            .execute("INSERT INTO fedgate_roles (purpose, role) VALUES ($1, $2::text::name)", &[&purpose.name, role])
            .await?;
        transaction.batch_execute(&granted(purpose, role)).await?;
    }
    let [roles, tables, rights, columns] = listed(names);
    let rows = transaction.query(TOO_MUCH, &[&wanted, &roles, &tables, &rights, &columns]).await?;
    let too_much = rows.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<Vec<String>, DbError>>()?;
    if !too_much.is_empty() {
        return Err(RolesError::TooMuch(too_much));
    }
    Ok(transaction.commit().await?)
}

/// Gives the roles that were set up before their rights again, because the schema may have grown.
///
/// # Errors
/// The database is away, or refuses.
pub(super) async fn grant_again(session: &mut PooledSession) -> Result<(), DbError> {
    let transaction = session.transaction().await?;
    // A role may have been dropped since.
    let known = "SELECT purpose, role::text FROM fedgate_roles WHERE role IN (SELECT rolname FROM pg_roles)";
    let rows = transaction.query(known, &[]).await?;
    for row in &rows {
        let (purpose, role): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        if let Some(purpose) = PURPOSES.iter().find(|known| known.name == purpose) {
            transaction.batch_execute(&granted(purpose, role)).await?;
        }
    }
    transaction.commit().await
}

/// The statements that leave a role with the rights of its purpose.
fn granted(purpose: &RolePurpose, role: &str) -> String {
    let (literal, role) = (role.replace('\'', "''"), quoted(role));
    let mut sql = TAKEN_AWAY.replace("{role}", &literal);
    for (rights, tables) in purpose.rights {
        sql.push_str(&format!("GRANT {rights} ON {tables} TO {role};\n"));
    }
    sql.push_str(&format!("GRANT EXECUTE ON FUNCTION {} TO {role};\n", purpose.functions));
    sql
}

/// The rights of all purposes, as the columns role, table, right, and column (empty for the whole table).
fn listed(names: &RoleNames) -> [Vec<String>; 4] {
    let mut all = [const { vec![] }; 4];
    for (purpose, role) in PURPOSES.iter().zip(&names.0) {
        for (rights, tables) in purpose.rights {
            for table in tables.split(", ") {
                // A right and its columns: `SELECT`, or `INSERT (id, data)`.
                for part in rights.split_inclusive(')').flat_map(with_columns) {
                    for (into, value) in all.iter_mut().zip([role.as_str(), table, part.0, part.1]) {
                        into.push(value.to_owned());
                    }
                }
            }
        }
    }
    all
}

/// The rights of a part of a list that has columns at most at its end, each with a column or none.
fn with_columns(part: &str) -> Vec<(&str, &str)> {
    let (rights, columns) = part.split_once(" (").map_or((part, ""), |(rights, columns)| (rights, columns));
    let mut rights: Vec<&str> = rights.split(", ").map(str::trim).filter(|right| !right.is_empty()).collect();
    let columns = columns.trim_end_matches(')');
    let last = if columns.is_empty() { None } else { rights.pop() };
    let whole = rights.into_iter().map(|right| (right, ""));
    whole.chain(last.into_iter().flat_map(|right| columns.split(", ").map(move |column| (right, column)))).collect()
}

/// Takes everything of ours from a role, and lets it reach the schema.
const TAKEN_AWAY: &str = "
    DO $$
    DECLARE
        home oid := (SELECT relnamespace FROM pg_class WHERE oid = 'people'::regclass);
        held oid := (SELECT oid FROM pg_roles WHERE rolname = '{role}');
        ours record;
    BEGIN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', (SELECT nspname FROM pg_namespace WHERE oid = home), '{role}');
        IF NOT has_database_privilege('{role}', current_database(), 'CONNECT') THEN
            EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), '{role}');
        END IF;
        FOR ours IN
            SELECT pg_class.oid::regclass AS name FROM pg_class
            WHERE relnamespace = home AND relkind IN ('r', 'p', 'v')
              AND (relname IN ('people', 'pols', 'personal_docs', 'dus', 'institutions') OR starts_with(relname, 'fedgate_'))
              AND (EXISTS (SELECT FROM aclexplode(relacl) WHERE grantee = held)
                OR EXISTS (SELECT FROM pg_attribute CROSS JOIN LATERAL aclexplode(attacl) AS acl
                    WHERE attrelid = pg_class.oid AND acl.grantee = held))
        LOOP
            EXECUTE format('REVOKE ALL ON %s FROM %I', ours.name, '{role}');
        END LOOP;
        FOR ours IN
            SELECT pg_proc.oid::regprocedure AS name FROM pg_proc
            WHERE pronamespace = home AND starts_with(proname, 'fedgate_')
              AND EXISTS (SELECT FROM aclexplode(proacl) WHERE grantee = held)
        LOOP
            EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %I', ours.name, '{role}');
        END LOOP;
    END
    $$;
";
/// Roles belong to all databases of a server. Another migration may create this one meanwhile, in another database.
const CREATED: &str = "
    DO $$
    BEGIN
        CREATE ROLE {role} LOGIN;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
    END
    $$";
/// The roles that do not exist, and whether this one may create them.
const MISSING: &str = "
    SELECT ARRAY(SELECT name FROM unnest($1::text[]) AS name WHERE name NOT IN (SELECT rolname FROM pg_roles)),
        rolsuper OR rolcreaterole, rolname::text
    FROM pg_roles WHERE rolname = current_user";
/// What roles may do beyond the list, by whatever way: a grant of somebody else, PUBLIC, or a role of which they are a
/// member, also if they have to take it first.
const TOO_MUCH: &str = "
    WITH wanted AS (
        SELECT pg_roles.* FROM unnest($1::text[]) AS name JOIN pg_roles ON rolname = name
    ), acting AS (
        SELECT wanted.rolname AS role, pg_roles.* FROM wanted JOIN pg_roles ON pg_has_role(wanted.oid, pg_roles.oid, 'MEMBER')
    ), home AS (
        SELECT relowner, relnamespace FROM pg_class WHERE pg_class.oid = 'people'::regclass
    ), ours AS (
        SELECT pg_class.oid, relname::text FROM home JOIN pg_class ON pg_class.relnamespace = home.relnamespace
        WHERE relkind IN ('r', 'p', 'v')
          AND (relname IN ('people', 'pols', 'personal_docs', 'dus', 'institutions') OR starts_with(relname, 'fedgate_'))
    ), listed AS (
        SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) AS listed (role, of, privilege, part)
    ), bypassing AS (
        SELECT DISTINCT role FROM acting CROSS JOIN home
        WHERE rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolreplication OR acting.oid = relowner
           OR acting.rolname IN ('pg_read_all_data', 'pg_write_all_data', 'pg_read_server_files', 'pg_write_server_files',
                'pg_execute_server_program')
    )
    SELECT format('the role `%s` is more than a program needs, or a member of a role that is (a superuser; CREATEROLE, CREATEDB, '
        'BYPASSRLS or REPLICATION; the owner of the tables; a role of PostgreSQL that reads or writes everything); end that with '
        '`ALTER ROLE %I NOSUPERUSER NOCREATEROLE NOCREATEDB NOBYPASSRLS NOREPLICATION`, or with `REVOKE … FROM %I`', role, role, role)
    FROM bypassing
    UNION ALL
    SELECT DISTINCT format('the role `%s` may create objects in the schema `%s`, and so have functions of the owner call its own; run '
        '`REVOKE CREATE ON SCHEMA %I FROM PUBLIC, %I` as the owner of the schema, and there `GRANT ALL ON SCHEMA %I TO %I`', role, nspname,
        nspname, role, nspname, pg_get_userbyid(relowner))
    FROM acting CROSS JOIN home JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE role NOT IN (SELECT role FROM bypassing) AND has_schema_privilege(acting.oid, relnamespace, 'CREATE')
    UNION ALL
    (SELECT format('the role `%s` may %s `%s`, by a grant of another role, by PUBLIC, or as a member; revoke it there',
        role, string_agg(DISTINCT privilege, ', '), relname)
    FROM (
        SELECT role, relname, privilege FROM acting CROSS JOIN ours CROSS JOIN unnest(ARRAY['DELETE', 'TRUNCATE', 'TRIGGER']) AS privilege
        WHERE has_table_privilege(acting.oid, ours.oid, privilege)
          AND (role, relname, privilege) NOT IN (SELECT listed.role, of, listed.privilege FROM listed)
        UNION
        SELECT role, relname, privilege FROM acting CROSS JOIN ours
        JOIN pg_attribute ON attrelid = ours.oid AND attnum > 0 AND NOT attisdropped
        CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) AS asked (privilege)
        WHERE has_column_privilege(acting.oid, ours.oid, attnum, asked.privilege) AND NOT EXISTS (
            SELECT FROM listed WHERE listed.role = acting.role AND of = relname AND listed.privilege = asked.privilege
            AND part IN ('', attname)
        )
    ) AS beyond
    WHERE role NOT IN (SELECT role FROM bypassing)
    GROUP BY role, relname ORDER BY role, relname LIMIT 8)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_names_are_given_and_written_into_statements_as_names() {
        assert!(RoleNames::USUAL.parse::<RoleNames>().is_ok());
        for wrong in ["", "a,b", "a,b,a", "a,,c", "a,b,c,d", "a,b,pg_monitor", "a,public,c"] {
            assert!(wrong.parse::<RoleNames>().is_err(), "{wrong}");
        }
        assert_eq!([quoted("fedhis"), quoted("A\"b")], ["fedhis", "\"A\"\"b\""]);
        let sql = granted(&GATEWAY, "o'neil");
        assert!(sql.contains("rolname = 'o''neil'") && sql.contains("TO \"o'neil\";"), "{sql}");
        let parts = |text: &'static str| text.split_inclusive(')').flat_map(with_columns).collect::<Vec<_>>();
        assert_eq!(parts("SELECT, UPDATE"), [("SELECT", ""), ("UPDATE", "")]);
        let of_people = [("SELECT", "id"), ("INSERT", "id"), ("INSERT", "data"), ("DELETE", "")];
        assert_eq!(parts("SELECT (id), INSERT (id, data), DELETE"), of_people);
    }
}
