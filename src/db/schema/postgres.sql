-- Everything is made beside `people`, wherever the search path found it, and the functions remember that place: they mean
-- the same tables whoever fires them.
SELECT set_config('search_path', quote_ident(nspname) || ', pg_temp', true)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = 'people'::regclass;

-- Before all that readers of accounts need: who waits here makes none of them wait. And what changes while a trigger is away
-- has no epoch.
LOCK TABLE people IN SHARE ROW EXCLUSIVE MODE;

CREATE TABLE IF NOT EXISTS fedgate_schema (version bigint NOT NULL);

-- The gateways that run; who waits for a change counts on finding them here, also after a crash.
CREATE TABLE IF NOT EXISTS fedgate_instances (
    id varchar PRIMARY KEY,
    seen timestamptz NOT NULL,
    epoch bigint NOT NULL,
    report text NOT NULL
);
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_class WHERE oid = 'fedgate_instances'::regclass AND relpersistence = 'u') THEN
        ALTER TABLE fedgate_instances SET LOGGED;
    END IF;
END
$$;

-- The account epoch: one row, so that writers of accounts queue for it and commit in the order of their epochs.
CREATE TABLE IF NOT EXISTS fedgate_epoch (
    "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"),
    epoch bigint NOT NULL
);
INSERT INTO fedgate_epoch (epoch) VALUES (1) ON CONFLICT DO NOTHING;
-- An ALTER that finds nothing to do locks the table all the same.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'fedgate_epoch'::regclass AND attname = 'raised_by') THEN
        ALTER TABLE fedgate_epoch ADD COLUMN raised_by xid8;
    END IF;
END
$$;

-- Which account changed at which epoch; a NULL account says that any may have.
CREATE TABLE IF NOT EXISTS fedgate_account_changes (epoch bigint NOT NULL, account varchar);
CREATE INDEX IF NOT EXISTS fedgate_account_changes_epoch ON fedgate_account_changes (epoch);

CREATE OR REPLACE FUNCTION fedgate_record_changes(changed varchar[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    now_at bigint;
BEGIN
    IF changed IS NULL THEN
        RETURN;
    END IF;
    IF cardinality(changed) > 1000 THEN
        changed := ARRAY[NULL]::varchar[];
    END IF;
    -- Once in a transaction, however many rows are replicated in it; in a subtransaction, which leaves another `xmin`, each
    -- time, and nothing but numbers is lost by that. Neither mark tells alone: `xmin` comes round again, and a dump carries
    -- `raised_by` to where other transactions have that number.
    SELECT epoch INTO now_at FROM fedgate_epoch
    WHERE raised_by = pg_current_xact_id() AND xmin = pg_current_xact_id()::xid;
    IF NOT FOUND THEN
        UPDATE fedgate_epoch SET epoch = epoch + 1, raised_by = pg_current_xact_id() RETURNING epoch INTO STRICT now_at;
        DELETE FROM fedgate_account_changes WHERE epoch < now_at - 10000;
        -- A transaction that is prepared may send none, and logical replication may apply such.
        IF current_setting('session_replication_role') <> 'replica' THEN
            PERFORM pg_notify('fedgate_accounts', now_at::text);
        END IF;
    END IF;
    INSERT INTO fedgate_account_changes SELECT now_at, account FROM unnest(changed) AS account;
END
$$;
REVOKE ALL ON FUNCTION fedgate_record_changes(varchar[]) FROM PUBLIC;

CREATE OR REPLACE FUNCTION fedgate_people_updated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM fedgate_record_changes(array_agg(id)) FROM (
        SELECT coalesce(before.id, after.id) AS id
        FROM before FULL JOIN after ON before.id = after.id
        WHERE before.id IS NULL
           OR after.id IS NULL
           OR before.data -> 'password' IS DISTINCT FROM after.data -> 'password'
           OR before.data -> 'roles' IS DISTINCT FROM after.data -> 'roles'
           OR before.data -> 'active' IS DISTINCT FROM after.data -> 'active'
        LIMIT 1001
    ) AS changed;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION fedgate_people_deleted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM fedgate_record_changes(array_agg(id)) FROM (SELECT id FROM before LIMIT 1001) AS changed;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION fedgate_people_truncated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM fedgate_record_changes(ARRAY[NULL]::varchar[]);
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION fedgate_people_replicated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.id <> OLD.id THEN
        PERFORM fedgate_record_changes(ARRAY[OLD.id, NEW.id]);
    ELSE
        PERFORM fedgate_record_changes(ARRAY[OLD.id]);
    END IF;
    RETURN NULL;
END
$$;

-- Whether every trigger of the table is there and fires for whom it is meant, and their version: a trigger that was switched
-- off and on has another `xmin`.
CREATE OR REPLACE FUNCTION fedgate_triggers(people regclass, OUT fire boolean, OUT version text)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT count(*) = 5, string_agg(pg_trigger.xmin::text, ' ' ORDER BY tgname)
    FROM pg_trigger JOIN (VALUES
        ('fedgate_people_updated', 'O'), ('fedgate_people_updated_by_replica', 'R'),
        ('fedgate_people_deleted', 'O'), ('fedgate_people_deleted_by_replica', 'R'),
        ('fedgate_people_truncated', 'A')
    ) AS expected (name, enabled) ON tgname = name AND tgenabled = enabled::"char"
    WHERE tgrelid = people
$$;
GRANT EXECUTE ON FUNCTION fedgate_triggers(regclass) TO PUBLIC;

-- What changed while a trigger was away is told now.
DO $$
BEGIN
    IF EXISTS (SELECT FROM people) AND NOT (SELECT fire FROM fedgate_triggers('people')) THEN
        PERFORM fedgate_record_changes(ARRAY[NULL]::varchar[]);
    END IF;
END
$$;

-- An inserted person needs no notice: an account that was not there is never cached.
CREATE OR REPLACE TRIGGER fedgate_people_updated AFTER UPDATE ON people
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION fedgate_people_updated();
CREATE OR REPLACE TRIGGER fedgate_people_deleted AFTER DELETE ON people
    REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION fedgate_people_deleted();
ALTER TABLE people ENABLE TRIGGER fedgate_people_updated;
ALTER TABLE people ENABLE TRIGGER fedgate_people_deleted;

-- The process that applies logical replication fires triggers of rows alone. These fire for it, and for every other session
-- whose `session_replication_role` is `replica`; those above fire for all others.
CREATE OR REPLACE TRIGGER fedgate_people_updated_by_replica AFTER UPDATE ON people
    FOR EACH ROW WHEN (
        OLD.id <> NEW.id
        OR OLD.data -> 'password' IS DISTINCT FROM NEW.data -> 'password'
        OR OLD.data -> 'roles' IS DISTINCT FROM NEW.data -> 'roles'
        OR OLD.data -> 'active' IS DISTINCT FROM NEW.data -> 'active'
    ) EXECUTE FUNCTION fedgate_people_replicated();
CREATE OR REPLACE TRIGGER fedgate_people_deleted_by_replica AFTER DELETE ON people
    FOR EACH ROW EXECUTE FUNCTION fedgate_people_replicated();
ALTER TABLE people ENABLE REPLICA TRIGGER fedgate_people_updated_by_replica;
ALTER TABLE people ENABLE REPLICA TRIGGER fedgate_people_deleted_by_replica;

CREATE OR REPLACE TRIGGER fedgate_people_truncated AFTER TRUNCATE ON people
    FOR EACH STATEMENT EXECUTE FUNCTION fedgate_people_truncated();
ALTER TABLE people ENABLE ALWAYS TRIGGER fedgate_people_truncated;

-- Which store this is: an interrupted import goes on in the one it began in.
CREATE TABLE IF NOT EXISTS fedgate_store ("only" boolean PRIMARY KEY DEFAULT true CHECK ("only"), id varchar NOT NULL);
INSERT INTO fedgate_store (id) VALUES (gen_random_uuid()::text) ON CONFLICT DO NOTHING;

DELETE FROM fedgate_schema;
INSERT INTO fedgate_schema (version) VALUES (5);
