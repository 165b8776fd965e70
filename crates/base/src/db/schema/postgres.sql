-- Everything is created beside `people`, in the schema where the search path finds it. The functions remember that
-- schema, and use the same tables for every session that fires them.
SELECT set_config('search_path', quote_ident(nspname) || ', pg_temp', true)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = 'people'::regclass;

-- This comes before everything that readers of accounts need, so that no reader waits while this waits for a lock. A
-- change that is made while a trigger is missing has no epoch.
LOCK TABLE people IN SHARE ROW EXCLUSIVE MODE;

CREATE TABLE IF NOT EXISTS fedgate_schema (version bigint NOT NULL);

-- The running gateways. A caller that waits for a change relies on finding them here, also after a crash.
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

-- Pieces of arriving documents, until they are whole. Nothing here must survive a crash, so the write-ahead log has no
-- copy.
DO $$
BEGIN
    IF to_regclass('fedgate_pieces') IS NULL THEN
        CREATE UNLOGGED TABLE fedgate_pieces (
            upload varchar NOT NULL,
            place bigint NOT NULL,
            piece bytea NOT NULL,
            staged timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (upload, place)
        );
        ALTER TABLE fedgate_pieces ALTER COLUMN piece SET STORAGE EXTERNAL;
    END IF;
END
$$;

-- The account epoch: one row, so that writers of accounts queue for it and commit in the order of their epochs.
CREATE TABLE IF NOT EXISTS fedgate_epoch (
    "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"),
    epoch bigint NOT NULL
);
INSERT INTO fedgate_epoch (epoch) VALUES (1) ON CONFLICT DO NOTHING;
-- An ALTER that has nothing to do would still lock the table.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'fedgate_epoch'::regclass AND attname = 'raised_by') THEN
        ALTER TABLE fedgate_epoch ADD COLUMN raised_by xid8;
    END IF;
END
$$;

-- Which account changed at which epoch; a NULL account means that any may have changed.
CREATE TABLE IF NOT EXISTS fedgate_account_changes (epoch bigint NOT NULL, account varchar);
CREATE INDEX IF NOT EXISTS fedgate_account_changes_epoch ON fedgate_account_changes (epoch);

-- Accounts that must wait at the password page, because the current password was wrong too often: until when, and for
-- which stored password (a digest of its hash). Services count in memory, and start over when `unlocks` has grown.
CREATE TABLE IF NOT EXISTS fedgate_page_waits (
    account varchar PRIMARY KEY,
    unlocks bigint NOT NULL DEFAULT 0,
    waits_until timestamptz,
    password varchar
);

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
    -- Once per transaction, however many rows are replicated in it. A subtransaction leaves another `xmin`, so each
    -- one raises the epoch again, which only uses up numbers. Neither mark suffices alone: `xmin` wraps around, and a
    -- dump carries `raised_by` to a database where another transaction has that number.
    SELECT epoch INTO now_at FROM fedgate_epoch
    WHERE raised_by = pg_current_xact_id() AND xmin = pg_current_xact_id()::xid;
    IF NOT FOUND THEN
        UPDATE fedgate_epoch SET epoch = epoch + 1, raised_by = pg_current_xact_id() RETURNING epoch INTO STRICT now_at;
        DELETE FROM fedgate_account_changes WHERE epoch < now_at - 10000;
        -- A prepared transaction may send no notice, and logical replication may apply such transactions.
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
    -- Ids are compared by bytes: the column may equate `ana` with `ANA`, or `ANA` with `ANA `
    -- (`schema::loose_columns`).
    PERFORM fedgate_record_changes(array_agg(id)) FROM (
        SELECT coalesce(before.id, after.id)::varchar AS id
        FROM before FULL JOIN after ON before.id::varchar COLLATE "C" = after.id::varchar COLLATE "C"
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
    PERFORM fedgate_record_changes(array_agg(id)) FROM (SELECT id::varchar AS id FROM before LIMIT 1001) AS changed;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION fedgate_people_truncated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM fedgate_record_changes(ARRAY[NULL]::varchar[]);
    PERFORM fedgate_record_event('all_deleted', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
    DELETE FROM fedgate_logins;
    DELETE FROM fedgate_links;
    DELETE FROM fedgate_relations;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION fedgate_people_replicated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM fedgate_record_changes(ARRAY[OLD.id::varchar]);
    ELSIF OLD.id::varchar COLLATE "C" <> NEW.id::varchar COLLATE "C" THEN
        PERFORM fedgate_record_changes(ARRAY[OLD.id::varchar, NEW.id::varchar]);
    ELSIF OLD.data -> 'password' IS DISTINCT FROM NEW.data -> 'password'
        OR OLD.data -> 'roles' IS DISTINCT FROM NEW.data -> 'roles'
        OR OLD.data -> 'active' IS DISTINCT FROM NEW.data -> 'active'
    THEN
        PERFORM fedgate_record_changes(ARRAY[OLD.id::varchar]);
    END IF;
    RETURN NULL;
END
$$;

-- Which ids are one person decides whose records are an account's own. So a change concerns every id that shares the
-- person with the changed one, before or after, and every account to which one of them is related. The other rows of one
-- statement tell of themselves.
CREATE OR REPLACE FUNCTION fedgate_same_persons_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM fedgate_record_changes(ARRAY[NULL]::varchar[]);
        RETURN NULL;
    END IF;
    -- The turn first: whom it concerns is read after the last writer of a link or a relation has committed.
    PERFORM 1 FROM fedgate_epoch FOR UPDATE;
    PERFORM fedgate_record_changes(fedgate_concerned(array_agg(id))) FROM (
        SELECT id FROM unnest(ARRAY[OLD.id, OLD.person, NEW.id, NEW.person]) AS id WHERE id IS NOT NULL
        UNION SELECT same.id FROM fedgate_same_persons AS same WHERE same.person IN (OLD.person, NEW.person)
        LIMIT 1001
    ) AS changed;
    RETURN NULL;
END
$$;

-- The members of a person that a login needs, copied when the document is written, because reading a document costs as
-- much as it is long. Each copy belongs to one version of the person's row, identified by its writer and place. A
-- reader uses it for that version alone, and otherwise reads the document. So a copy that is missing, outdated by a
-- write that no trigger saw, or restored from a dump makes a login slower, but never wrong.
CREATE TABLE IF NOT EXISTS fedgate_logins (
    id varchar COLLATE "C" PRIMARY KEY,
    password varchar,
    roles varchar,
    active varchar,
    row_writer xid NOT NULL,
    row_place tid NOT NULL
);

-- The members of a document that a login needs, with bounded length. A hash has at most 512 bytes: a longer one
-- verifies nothing, and is stored as a value that verifies nothing. Roles over 16 KiB count as none.
CREATE OR REPLACE FUNCTION fedgate_login(data jsonb, OUT password varchar, OUT roles varchar, OUT active varchar)
LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT CASE WHEN octet_length(member.password #>> '{}') > 512 THEN '!' ELSE member.password #>> '{}' END,
           CASE WHEN octet_length(member.roles::text) <= 16384 THEN member.roles::text END,
           left(member.active::text, 16)
    FROM jsonb_to_record(CASE jsonb_typeof(data) WHEN 'object' THEN data ELSE '{}' END)
        AS member (password jsonb, roles jsonb, active jsonb)
$$;

GRANT EXECUTE ON FUNCTION fedgate_login(jsonb) TO PUBLIC;

-- The changes of accounts and their authors: one event for each account that was created or deleted, or whose
-- password, roles or `active` mark changed. The transaction of the change writes it, so neither exists without the
-- other. Nothing here can fail unless the change fails: there is no condition and no foreign key, and long values are
-- cut.
CREATE TABLE IF NOT EXISTS fedgate_account_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    what varchar NOT NULL,
    account varchar COLLATE "C",
    roles_before varchar,
    roles_after varchar,
    active_before varchar,
    active_after varchar,
    password varchar,
    via varchar NOT NULL,
    actor varchar,
    request_id varchar,
    database_user varchar NOT NULL DEFAULT session_user,
    application varchar NOT NULL DEFAULT left(current_setting('application_name'), 128),
    -- The link or the relation, as JSON.
    detail varchar,
    -- Until then, one gateway writes it to its records; `recorded` is set once that is done.
    taken_until timestamptz,
    recorded boolean NOT NULL DEFAULT false
);
-- An ALTER that has nothing to do would still lock the table.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'fedgate_account_events'::regclass AND attname = 'detail') THEN
        ALTER TABLE fedgate_account_events ADD COLUMN detail varchar;
    END IF;
END
$$;
CREATE INDEX IF NOT EXISTS fedgate_account_events_account ON fedgate_account_events (account, id);
CREATE INDEX IF NOT EXISTS fedgate_account_events_unrecorded ON fedgate_account_events (id) WHERE NOT recorded;

-- Writes one event. Our programs set author, way and request in `fedgate.actor`; any other session is `outside`. The
-- database user and the application name are stored in both cases. A password is only marked as set, changed or
-- removed, or as rehashed by a login, which changes no rights and goes into no record.
CREATE OR REPLACE FUNCTION fedgate_record_event(
    what varchar, account varchar,
    password_before varchar, password_after varchar, roles_before varchar, roles_after varchar,
    active_before varchar, active_after varchar
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    -- Some operations do not support every collation, and variables inherit that of the id column.
    acts text COLLATE "C" := coalesce(current_setting('fedgate.actor', true), '');
    via text COLLATE "C" := substring(acts FROM '^(http|command|import|login) ');
    gateway name := (SELECT role FROM fedgate_roles WHERE purpose = 'gateway');
    is_rights boolean := roles_before IS DISTINCT FROM roles_after OR active_before IS DISTINCT FROM active_after;
    password text := CASE
        WHEN password_before IS NOT DISTINCT FROM password_after OR what IN ('deleted', 'all_deleted') THEN NULL
        WHEN coalesce(password_before, '') = '' THEN 'set'
        WHEN coalesce(password_after, '') = '' THEN 'removed'
        WHEN via = 'login' AND NOT is_rights THEN 'rehashed'
        ELSE 'changed'
    END;
BEGIN
    -- What a login does goes into no record, so only the gateway's role is believed that it was one.
    IF via = 'login' AND session_user <> gateway THEN
        via := NULL;
        password := CASE WHEN password = 'rehashed' THEN 'changed' ELSE password END;
    END IF;
    INSERT INTO fedgate_account_events (
        what, account, roles_before, roles_after, active_before, active_after, password, via, actor, request_id, recorded
    ) VALUES (
        what, left(account, 256),
        CASE WHEN roles_before IS DISTINCT FROM roles_after THEN roles_before END,
        CASE WHEN roles_before IS DISTINCT FROM roles_after THEN roles_after END,
        CASE WHEN active_before IS DISTINCT FROM active_after THEN active_before END,
        CASE WHEN active_before IS DISTINCT FROM active_after THEN active_after END,
        password,
        coalesce(via, CASE current_setting('session_replication_role') WHEN 'replica' THEN 'replication' ELSE 'outside' END),
        CASE WHEN via IS NOT NULL THEN left(substring(acts FROM '^[a-z]+ [^ ]* (.*)$'), 512) END,
        CASE WHEN via IS NOT NULL THEN left(nullif(split_part(acts, ' ', 2), ''), 128) END,
        password = 'rehashed' IS TRUE
    );
END
$$;
REVOKE ALL ON FUNCTION
    fedgate_record_event(varchar, varchar, varchar, varchar, varchar, varchar, varchar, varchar) FROM PUBLIC;

-- Takes the oldest events that are in no record yet, for half a minute: if a gateway dies meanwhile, another one takes
-- them. For roles that may report as a gateway.
CREATE OR REPLACE FUNCTION fedgate_take_events(most bigint) RETURNS SETOF fedgate_account_events
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF NOT has_table_privilege(session_user, 'fedgate_instances', 'UPDATE') THEN
        RAISE insufficient_privilege USING MESSAGE = 'a gateway needs UPDATE on the table fedgate_instances';
    END IF;
    RETURN QUERY UPDATE fedgate_account_events SET taken_until = clock_timestamp() + interval '30 seconds'
    WHERE id IN (
        SELECT event.id FROM fedgate_account_events AS event
        WHERE NOT event.recorded AND (event.taken_until IS NULL OR event.taken_until < clock_timestamp())
        ORDER BY event.id LIMIT most FOR UPDATE SKIP LOCKED
    ) RETURNING *;
END
$$;

-- Marks events as recorded.
CREATE OR REPLACE FUNCTION fedgate_events_recorded(ids bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF NOT has_table_privilege(session_user, 'fedgate_instances', 'UPDATE') THEN
        RAISE insufficient_privilege USING MESSAGE = 'a gateway needs UPDATE on the table fedgate_instances';
    END IF;
    UPDATE fedgate_account_events SET recorded = true WHERE id = ANY (ids) AND NOT recorded;
END
$$;

CREATE OR REPLACE FUNCTION fedgate_login_kept() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    old_login record;
    new_login record;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM fedgate_logins
        WHERE id = OLD.id::varchar COLLATE "C" AND NOT EXISTS (
            SELECT FROM people WHERE people.id = OLD.id AND people.id::varchar COLLATE "C" = OLD.id::varchar COLLATE "C"
        );
        SELECT * INTO old_login FROM fedgate_login(OLD.data);
    END IF;
    IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND OLD.id::varchar COLLATE "C" <> NEW.id::varchar COLLATE "C" THEN
        PERFORM fedgate_forget_links(OLD.id::varchar);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO fedgate_logins (id, password, roles, active, row_writer, row_place)
        SELECT people.id, login.password, login.roles, login.active, people.xmin, people.ctid
        FROM people CROSS JOIN LATERAL fedgate_login(people.data) AS login
        WHERE people.id = NEW.id
        ON CONFLICT (id) DO UPDATE SET
            password = excluded.password, roles = excluded.roles, active = excluded.active,
            row_writer = excluded.row_writer, row_place = excluded.row_place
        RETURNING password, roles, active INTO new_login;
        IF NOT FOUND THEN
            SELECT * INTO new_login FROM fedgate_login(NEW.data);
        END IF;
    END IF;
    IF TG_OP = 'UPDATE' AND OLD.id::varchar COLLATE "C" = NEW.id::varchar COLLATE "C" THEN
        IF old_login IS DISTINCT FROM new_login THEN
            PERFORM fedgate_record_event(
                'changed', NEW.id::varchar COLLATE "C", old_login.password, new_login.password, old_login.roles, new_login.roles,
                old_login.active, new_login.active
            );
        END IF;
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        PERFORM fedgate_record_event(
            'deleted', OLD.id::varchar COLLATE "C", old_login.password, NULL, old_login.roles, NULL, old_login.active, NULL
        );
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM fedgate_record_event(
            'created', NEW.id::varchar COLLATE "C", NULL, new_login.password, NULL, new_login.roles, NULL, new_login.active
        );
    END IF;
    RETURN NULL;
END
$$;

-- Adds an account to the log of changes although nothing of it changed, so that every gateway forgets its failed
-- logins. For roles that may change accounts.
CREATE OR REPLACE FUNCTION fedgate_unlock(account varchar) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF NOT has_table_privilege(session_user, 'people', 'UPDATE') THEN
        RAISE insufficient_privilege USING MESSAGE = 'who unlocks an account needs UPDATE on the table people';
    END IF;
    PERFORM fedgate_record_changes(ARRAY[account]);
    INSERT INTO fedgate_page_waits AS known (account, unlocks) VALUES (fedgate_unlock.account, 1)
    ON CONFLICT ON CONSTRAINT fedgate_page_waits_pkey DO UPDATE SET unlocks = known.unlocks + 1, waits_until = NULL;
END
$$;

-- Stores a wait; of several services' waits, the longest.
CREATE OR REPLACE FUNCTION fedgate_note_page_wait(account varchar, seconds bigint, password varchar) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF NOT has_any_column_privilege(session_user, 'fedgate_people', 'UPDATE') THEN
        RAISE insufficient_privilege USING MESSAGE = 'who notes a wait needs UPDATE on the view fedgate_people';
    END IF;
    INSERT INTO fedgate_page_waits AS known (account, waits_until, password)
    VALUES (
        fedgate_note_page_wait.account, now() + make_interval(secs => seconds), fedgate_note_page_wait.password
    )
    ON CONFLICT ON CONSTRAINT fedgate_page_waits_pkey DO UPDATE SET
        waits_until = CASE WHEN known.password = excluded.password
                      THEN greatest(known.waits_until, excluded.waits_until) ELSE excluded.waits_until END,
        password = excluded.password;
END
$$;

-- Whether every trigger of the table exists and fires for the sessions that it is for, and the triggers' version: a
-- trigger that was disabled and enabled again has another `xmin`.
CREATE OR REPLACE FUNCTION fedgate_triggers(people regclass, OUT fire boolean, OUT version text)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT count(*) = 12, string_agg(pg_trigger.xmin::text, ' ' ORDER BY tgname)
    FROM pg_trigger JOIN (VALUES
        ('fedgate_people_updated', 'O'), ('fedgate_people_updated_by_replica', 'R'),
        ('fedgate_people_deleted', 'O'), ('fedgate_people_deleted_by_replica', 'R'),
        ('fedgate_people_truncated', 'A'), ('fedgate_login_kept', 'A'),
        ('fedgate_same_persons_changed', 'A'), ('fedgate_same_persons_emptied', 'A'),
        ('fedgate_links_changed', 'A'), ('fedgate_links_emptied', 'A'),
        ('fedgate_relations_changed', 'A'), ('fedgate_relations_emptied', 'A')
    ) AS expected (name, enabled) ON tgname = name AND tgenabled = enabled::"char"
    WHERE tgrelid IN (
        people, 'fedgate_same_persons'::regclass, 'fedgate_links'::regclass, 'fedgate_relations'::regclass
    )
$$;
GRANT EXECUTE ON FUNCTION fedgate_triggers(regclass) TO PUBLIC;

-- For every session: logical replication fires no others. What changed while one was missing may concern everybody.
DO $$
BEGIN
    IF EXISTS (SELECT FROM fedgate_same_persons) AND 2 > (
        SELECT count(*) FROM pg_trigger WHERE tgrelid = 'fedgate_same_persons'::regclass AND tgenabled = 'A'
        AND tgname IN ('fedgate_same_persons_changed', 'fedgate_same_persons_emptied')
    ) THEN
        PERFORM fedgate_record_changes(ARRAY[NULL]::varchar[]);
    END IF;
END
$$;
CREATE OR REPLACE TRIGGER fedgate_same_persons_changed AFTER INSERT OR UPDATE OR DELETE ON fedgate_same_persons
    FOR EACH ROW EXECUTE FUNCTION fedgate_same_persons_changed();
CREATE OR REPLACE TRIGGER fedgate_same_persons_emptied AFTER TRUNCATE ON fedgate_same_persons
    FOR EACH STATEMENT EXECUTE FUNCTION fedgate_same_persons_changed();
ALTER TABLE fedgate_same_persons
    ENABLE ALWAYS TRIGGER fedgate_same_persons_changed, ENABLE ALWAYS TRIGGER fedgate_same_persons_emptied;

-- Reports the changes from a time without a trigger: all accounts may have changed, and the authors are unknown.
DO $$
DECLARE
    fire boolean := (SELECT fire FROM fedgate_triggers('people'));
BEGIN
    IF NOT EXISTS (SELECT FROM people) THEN
        RETURN;
    END IF;
    IF NOT fire THEN
        PERFORM fedgate_record_changes(ARRAY[NULL]::varchar[]);
    END IF;
    IF NOT fire OR NOT EXISTS (SELECT FROM fedgate_account_events) THEN
        INSERT INTO fedgate_account_events (what, via) VALUES ('unwatched', 'migration');
    END IF;
END
$$;

-- An inserted person needs no notice, because a missing account is never cached.
CREATE OR REPLACE TRIGGER fedgate_people_updated AFTER UPDATE ON people
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION fedgate_people_updated();
CREATE OR REPLACE TRIGGER fedgate_people_deleted AFTER DELETE ON people
    REFERENCING OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION fedgate_people_deleted();
ALTER TABLE people ENABLE TRIGGER fedgate_people_updated;
ALTER TABLE people ENABLE TRIGGER fedgate_people_deleted;

-- The process that applies logical replication fires row triggers alone. These fire for it, and for every other
-- session whose `session_replication_role` is `replica`; those above fire for all others. No trigger has a condition
-- in its definition, because that would prevent changes of a column's type.
CREATE OR REPLACE TRIGGER fedgate_people_updated_by_replica AFTER UPDATE ON people
    FOR EACH ROW EXECUTE FUNCTION fedgate_people_replicated();
CREATE OR REPLACE TRIGGER fedgate_people_deleted_by_replica AFTER DELETE ON people
    FOR EACH ROW EXECUTE FUNCTION fedgate_people_replicated();
ALTER TABLE people ENABLE REPLICA TRIGGER fedgate_people_updated_by_replica;
ALTER TABLE people ENABLE REPLICA TRIGGER fedgate_people_deleted_by_replica;

CREATE OR REPLACE TRIGGER fedgate_people_truncated AFTER TRUNCATE ON people
    FOR EACH STATEMENT EXECUTE FUNCTION fedgate_people_truncated();
ALTER TABLE people ENABLE ALWAYS TRIGGER fedgate_people_truncated;

-- For every session. They are row triggers, because logical replication fires no others.
CREATE OR REPLACE TRIGGER fedgate_login_kept AFTER INSERT OR UPDATE OR DELETE ON people
    FOR EACH ROW EXECUTE FUNCTION fedgate_login_kept();
ALTER TABLE people ENABLE ALWAYS TRIGGER fedgate_login_kept;

-- Roles that may read people may read what a login needs of them, which hashes are written, and the history of
-- accounts.
SELECT fedgate_grant_like(
    'people', 'SELECT',
    'SELECT ON fedgate_logins, fedgate_store, fedgate_account_events, fedgate_page_waits'
);

-- A trigger needs no right to fire. Without this everybody could make a trigger of one on a table of their own, and have it
-- fire with the rights of the owner.
DO $$
DECLARE
    fired record;
BEGIN
    FOR fired IN
        SELECT pg_proc.oid::regprocedure AS name FROM pg_proc
        WHERE pronamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'people'::regclass)
          AND starts_with(proname, 'fedgate_') AND prorettype = 'trigger'::regtype
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', fired.name);
    END LOOP;
END
$$;

DELETE FROM fedgate_schema;
INSERT INTO fedgate_schema (version) VALUES (7);
