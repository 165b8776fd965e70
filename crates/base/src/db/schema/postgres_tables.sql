-- Beside `people`, wherever the search path finds it.
SELECT set_config('search_path', quote_ident(nspname) || ', pg_temp', true)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = to_regclass('people');

-- Which store this is: an interrupted import goes on in the one it began in. And who made it, which only the first migration
-- sees: where that was a Thalamus, it may go on beside, and new hashes of passwords stay such as it reads. A database that was
-- migrated before there was this mark is told by the hashes in it.
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

-- Thalamus' tables, as it creates them.
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

-- New documents are kept as they are, so that a piece of one is read without the rest: what is compressed must be read from its
-- beginning. Rows of before stay as they are. An ALTER that finds nothing to do locks the table all the same.
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

-- They take long where there is much, and nobody who writes accounts waits for them. Making one that is there would lock its
-- table all the same.
DO $$
BEGIN
    IF to_regclass('fedgate_pols_book') IS NULL THEN
        CREATE INDEX fedgate_pols_book ON pols (book, id);
    END IF;
    IF to_regclass('fedgate_personal_docs_fedacct') IS NULL THEN
        CREATE INDEX fedgate_personal_docs_fedacct ON personal_docs (fedacct, id);
    END IF;
    -- By what ids are compared but for case; the statements have the same expression.
    IF to_regclass('fedgate_people_spelling') IS NULL THEN
        CREATE INDEX fedgate_people_spelling ON people (upper(replace(CAST(id AS text) COLLATE "default", 'ß', 'ss')));
    END IF;
    IF to_regclass('fedgate_personal_docs_pol') IS NULL THEN
        CREATE INDEX fedgate_personal_docs_pol ON personal_docs (pol);
    END IF;
END
$$;
