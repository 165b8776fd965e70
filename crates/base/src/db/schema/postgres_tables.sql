-- Everything is created beside `people`, in the schema where the search path finds it.
SELECT set_config('search_path', quote_ident(nspname) || ', pg_temp', true)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = to_regclass('people');

-- The identity of this store, because an interrupted import continues only in the store where it began. And its
-- origin, which only the first migration can see: a Thalamus that made it may still use it, so new password hashes
-- stay readable for Thalamus. For a database that was migrated before this mark existed, its hashes reveal the origin.
CREATE TABLE IF NOT EXISTS fedgate_store ("only" boolean PRIMARY KEY DEFAULT true CHECK ("only"), id varchar NOT NULL);
DO $$
DECLARE
    found varchar := 'thalamus';
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'fedgate_store'::regclass AND attname = 'origin') THEN
        ALTER TABLE fedgate_store ADD COLUMN origin varchar;
    END IF;
    IF EXISTS (SELECT FROM fedgate_store WHERE origin IS NOT NULL) THEN
        RETURN;
    END IF;
    IF to_regclass('people') IS NULL THEN
        found := 'fedgate';
    ELSIF to_regclass('fedgate_schema') IS NOT NULL THEN
        IF EXISTS (SELECT FROM people WHERE data ->> 'password' LIKE '$argon2id$%') THEN
            found := 'upgraded';
        END IF;
    END IF;
    INSERT INTO fedgate_store (id, origin) VALUES (gen_random_uuid()::text, found)
    ON CONFLICT ("only") DO UPDATE SET origin = excluded.origin;
END
$$;

-- Thalamus's tables, as it creates them.
CREATE TABLE IF NOT EXISTS people (id varchar PRIMARY KEY, data jsonb);
CREATE TABLE IF NOT EXISTS pols (id varchar PRIMARY KEY, book varchar REFERENCES people (id), data jsonb);
CREATE TABLE IF NOT EXISTS personal_docs (
    id varchar PRIMARY KEY,
    fedacct varchar REFERENCES people (id),
    pol varchar REFERENCES pols (id),
    document bytea,
    data jsonb
);
CREATE TABLE IF NOT EXISTS dus (id varchar PRIMARY KEY, data jsonb);
CREATE TABLE IF NOT EXISTS institutions (id varchar PRIMARY KEY, data jsonb);

-- The type of the ids of people. A value of the column's own type finds the row by its index, whatever the type compares.
CREATE OR REPLACE FUNCTION fedgate_id_type() RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT format('%I.%I', nspname, typname)
    FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid JOIN pg_namespace ON pg_namespace.oid = typnamespace
    WHERE attrelid = 'people'::regclass AND attname = 'id';
$$;
REVOKE ALL ON FUNCTION fedgate_id_type() FROM PUBLIC;

-- New documents are stored uncompressed, so that a piece can be read without the rest; a compressed value must be read
-- from its beginning. Existing rows are not changed. An ALTER that has nothing to do would still lock the table.
DO $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = 'personal_docs'::regclass AND attname = 'document' AND attstorage = 'x'
    ) THEN
        ALTER TABLE personal_docs ALTER COLUMN document SET STORAGE EXTERNAL;
    END IF;
END
$$;

-- Grants rights to every role that has a privilege on a table: whoever may read it may then read what belongs to it, and
-- nobody has to follow a list.
CREATE OR REPLACE FUNCTION fedgate_grant_like(known regclass, privilege text, VARIADIC rights text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    holder text;
    granted text;
BEGIN
    FOR holder, granted IN
        SELECT DISTINCT coalesce(quote_ident(rolname), 'PUBLIC'), wanted
        FROM pg_class CROSS JOIN LATERAL aclexplode(relacl) AS acl LEFT JOIN pg_roles ON pg_roles.oid = grantee
        CROSS JOIN unnest(rights) AS wanted
        WHERE pg_class.oid = known AND privilege_type = privilege AND (grantee = 0 OR rolname IS NOT NULL)
    LOOP
        EXECUTE format('GRANT %s TO %s', granted, holder);
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION fedgate_grant_like(regclass, text, text[]) FROM PUBLIC;
