-- Merges: two records that are of one person. Everything is created beside `people`, in the schema where the search path
-- finds it.
SELECT set_config('search_path', quote_ident(nspname) || ', pg_temp', true)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = 'people'::regclass;

-- Every id of a merged person, also the surviving one, with the surviving one. An id without a row stands alone.
CREATE TABLE IF NOT EXISTS fedgate_same_persons (
    id varchar COLLATE "C" PRIMARY KEY,
    person varchar COLLATE "C" NOT NULL
);
CREATE INDEX IF NOT EXISTS fedgate_same_persons_person ON fedgate_same_persons (person);

-- Each merge. `kept` is the survivor's record as it would be without this merge, without the values of the members of the
-- account (`id`, `password`, `roles`, `active`), which a merge leaves alone. Null once it is undone.
CREATE TABLE IF NOT EXISTS fedgate_merges (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    old varchar COLLATE "C" NOT NULL,
    survivor varchar COLLATE "C" NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    by varchar,
    why varchar,
    kept jsonb,
    undone_at timestamptz,
    undone_by varchar
);
-- An id is merged into one other at most.
CREATE UNIQUE INDEX IF NOT EXISTS fedgate_merges_old ON fedgate_merges (old) WHERE undone_at IS NULL;
CREATE INDEX IF NOT EXISTS fedgate_merges_survivor ON fedgate_merges (survivor) WHERE undone_at IS NULL;

-- One message for each merge and for its end, whoever writes them.
CREATE OR REPLACE FUNCTION fedgate_merge_message() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM fedgate_append(
        'person', NEW.survivor, NEW.survivor, CASE TG_OP WHEN 'INSERT' THEN 'MERGE' ELSE 'UNMERGE' END, NULL,
        jsonb_build_object('old', NEW.old, 'survivor', NEW.survivor, 'merge', NEW.id)
    );
    RETURN NULL;
END
$$;

-- What merges need of a change of a person by any program. `fedgate.merging` says who writes: `merge` and `through` are
-- statements that keep `kept` themselves, and `alone` is one that took the person for unmerged. That is refused if a merge
-- has come first, and the writer tries again.
CREATE OR REPLACE FUNCTION fedgate_merges_follow() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    mode text COLLATE "C" := coalesce(current_setting('fedgate.merging', true), '');
    changed jsonb;
    root varchar COLLATE "C";
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM fedgate_same_persons;
        UPDATE fedgate_merges SET undone_at = clock_timestamp(), kept = NULL WHERE undone_at IS NULL;
        RETURN NULL;
    END IF;
    IF mode IN ('merge', 'through') THEN
        RETURN NULL;
    END IF;
    SELECT same.person INTO root FROM fedgate_same_persons AS same WHERE same.id = OLD.id::varchar COLLATE "C";
    IF root IS NULL THEN
        RETURN NULL;
    END IF;
    -- The person has ended: whoever gets the id next is somebody else, so nobody of the group stays joined by it.
    IF TG_OP = 'DELETE' OR OLD.id::varchar COLLATE "C" <> NEW.id::varchar COLLATE "C" THEN
        UPDATE fedgate_merges SET undone_at = clock_timestamp(), kept = NULL
        WHERE undone_at IS NULL AND fedgate_merges.old IN (SELECT same.id FROM fedgate_same_persons AS same WHERE same.person = root);
        DELETE FROM fedgate_same_persons WHERE person = root;
        RETURN NULL;
    END IF;
    IF mode = 'alone' THEN
        RAISE EXCEPTION 'the person was merged meanwhile' USING ERRCODE = 'FG001';
    END IF;
    -- A login that replaces its own hash changes nothing that is merged.
    IF starts_with(coalesce(current_setting('fedgate.actor', true), ''), 'login ')
        OR jsonb_typeof(OLD.data) IS DISTINCT FROM 'object' OR jsonb_typeof(NEW.data) IS DISTINCT FROM 'object' THEN
        RETURN NULL;
    END IF;
    changed := (
        SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(NEW.data)
        WHERE OLD.data -> key IS DISTINCT FROM value AND key NOT IN ('id', 'password', 'roles', 'active')
    );
    UPDATE fedgate_merges SET kept = (kept - ARRAY(
        SELECT key FROM jsonb_object_keys(OLD.data) AS key WHERE NOT NEW.data ? key
    )) || changed
    WHERE survivor = NEW.id::varchar COLLATE "C" AND undone_at IS NULL;
    RETURN NULL;
END
$$;

-- For all sessions: logical replication fires no others. A trigger that is in place is left alone, since replacing it would
-- lock the table.
DO $$
BEGIN
    IF 2 > (
        SELECT count(*) FROM pg_trigger WHERE tgrelid = 'people'::regclass
        AND tgname IN ('fedgate_merges_follow', 'fedgate_merges_emptied') AND tgenabled = 'A'
    ) THEN
        CREATE OR REPLACE TRIGGER fedgate_merges_follow AFTER UPDATE OR DELETE ON people
        FOR EACH ROW EXECUTE FUNCTION fedgate_merges_follow();
        CREATE OR REPLACE TRIGGER fedgate_merges_emptied AFTER TRUNCATE ON people
        FOR EACH STATEMENT EXECUTE FUNCTION fedgate_merges_follow();
        ALTER TABLE people ENABLE ALWAYS TRIGGER fedgate_merges_follow, ENABLE ALWAYS TRIGGER fedgate_merges_emptied;
    END IF;
END
$$;
CREATE OR REPLACE TRIGGER fedgate_merge_made AFTER INSERT ON fedgate_merges
FOR EACH ROW EXECUTE FUNCTION fedgate_merge_message();
CREATE OR REPLACE TRIGGER fedgate_merge_undone AFTER UPDATE ON fedgate_merges
FOR EACH ROW WHEN (OLD.undone_at IS NULL AND NEW.undone_at IS NOT NULL) EXECUTE FUNCTION fedgate_merge_message();

-- Roles that may read people may know which ids are one person; those that may read pages may read merges, and those that
-- may write pages may merge.
SELECT fedgate_grant_like('people', 'SELECT', 'SELECT ON fedgate_same_persons');
SELECT fedgate_grant_like('pols', 'SELECT', 'SELECT ON fedgate_merges');
SELECT fedgate_grant_like(
    'pols', 'INSERT',
    'INSERT, UPDATE, DELETE ON fedgate_same_persons',
    'INSERT, UPDATE ON fedgate_merges'
);
