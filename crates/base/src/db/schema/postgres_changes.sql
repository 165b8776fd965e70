-- When each row was last written. Everything is created beside `people`, in the schema where the search path finds it.
SELECT set_config('search_path', quote_ident(nspname) || ', pg_temp', true)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = 'people'::regclass;

-- The latest moment that a reader was told, in microseconds since 1970. No row is stamped earlier any more, whatever the
-- clock says. A sequence is no part of a snapshot, so a writer always sees its present value.
CREATE SEQUENCE IF NOT EXISTS fedgate_change_clock AS bigint;

-- Since when the rows of a table have been stamped, in microseconds since 1970. Rows from before have no time.
CREATE TABLE IF NOT EXISTS fedgate_change_times (written varchar COLLATE "C" PRIMARY KEY, begun bigint NOT NULL);

-- The present moment, which is later than each that was asked for before, whatever the clock says.
CREATE OR REPLACE FUNCTION fedgate_change_moment() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    -- One at a time, so that the sequence never goes back.
    PERFORM pg_advisory_xact_lock(x'6673000000000000'::bigint);
    RETURN setval('fedgate_change_clock', greatest(
        CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint),
        coalesce(pg_sequence_last_value('fedgate_change_clock'::regclass), 0) + 1
    ));
END
$$;
REVOKE ALL ON FUNCTION fedgate_change_moment() FROM PUBLIC;

-- Stamps a row. A writer first shows that it is at work, by a lock that names the beginning of its transaction in
-- milliseconds and ends after its commit is visible. Then it reads the clock. A lock that is held already costs nothing.
CREATE OR REPLACE FUNCTION fedgate_stamp_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    -- INVARIANT: the lock comes before the clock and the sequence (`fedgate_changes_until`).
    shown CONSTANT text := pg_advisory_xact_lock_shared(
        x'6674000000000000'::bigint | CAST(floor(extract(epoch FROM now()) * 1000) AS bigint)
    )::text;
    last CONSTANT bigint := coalesce(pg_sequence_last_value('fedgate_change_clock'::regclass), 0);
BEGIN
    NEW.fedgate_changed := greatest(
        clock_timestamp(), now(), TIMESTAMPTZ 'epoch' + last * INTERVAL '1 microsecond'
    );
    -- The sequence follows within half a minute, so that a reader's moment does too when the clock is set back, or when
    -- another server with an earlier clock takes over. Whoever holds the lock raises it.
    IF NEW.fedgate_changed > TIMESTAMPTZ 'epoch' + (last + 30000000) * INTERVAL '1 microsecond'
        AND pg_try_advisory_lock(x'6673000000000000'::bigint)
    THEN
        PERFORM setval('fedgate_change_clock', greatest(
            CAST(extract(epoch FROM NEW.fedgate_changed) * 1000000 AS bigint),
            coalesce(pg_sequence_last_value('fedgate_change_clock'::regclass), 0)
        )), pg_advisory_unlock(x'6673000000000000'::bigint);
    END IF;
    RETURN NEW;
END
$$;

-- The moment to ask from next time, and the present one. Each row that was stamped before `until` is visible to every
-- statement that begins after this, if it was committed. For a writer whose lock is not seen below has either ended, and
-- shown its rows before it gave its lock back, or it takes the lock later, and then it finds `moment` in the sequence.
CREATE OR REPLACE FUNCTION fedgate_changes_until(OUT until bigint, OUT moment bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    -- Nobody waits for a disk here. After a crash, the clock is ahead of what was lost.
    PERFORM set_config('synchronous_commit', 'off', true);
    moment := fedgate_change_moment();
    until := least(moment, (
        SELECT min((classid::bigint & 65535) << 32 | objid::bigint) * 1000 FROM pg_locks
        WHERE locktype = 'advisory' AND objsubid = 1 AND classid::bigint >> 16 = x'6674'::bigint
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ));
END
$$;
REVOKE ALL ON FUNCTION fedgate_changes_until() FROM PUBLIC;

-- Lets every write of a table stamp its row. What was written while the column or the trigger was missing has no time, or
-- an old one, so lists of changes since then are whole. One table in each transaction: this locks it.
CREATE OR REPLACE FUNCTION fedgate_stamp_changes(written varchar) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT FROM fedgate_change_times AS known WHERE known.written = $1) AND EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = $1::regclass AND attname = 'fedgate_changed' AND NOT attisdropped
    ) AND EXISTS (
        SELECT FROM pg_trigger WHERE tgrelid = $1::regclass AND tgname = 'fedgate_changed' AND tgenabled = 'A'
    ) THEN
        RETURN;
    END IF;
    -- Without a default, so no row is rewritten.
    EXECUTE format('ALTER TABLE %I ADD COLUMN IF NOT EXISTS fedgate_changed timestamptz', $1);
    EXECUTE format('CREATE OR REPLACE TRIGGER fedgate_changed BEFORE INSERT OR UPDATE ON %I FOR EACH ROW EXECUTE FUNCTION fedgate_stamp_change()', $1);
    -- For all sessions, also those of logical replication.
    EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER fedgate_changed', $1);
    INSERT INTO fedgate_change_times AS known (written, begun) VALUES ($1, fedgate_change_moment())
    ON CONFLICT ON CONSTRAINT fedgate_change_times_pkey DO UPDATE SET begun = excluded.begun;
END
$$;
REVOKE ALL ON FUNCTION fedgate_stamp_changes(varchar) FROM PUBLIC;

-- An id that was old and stands for itself again is in the list of persons again, so its row counts as written. It is no
-- write of the record: it leaves no message, and makes no keys.
CREATE OR REPLACE FUNCTION fedgate_person_seen_again() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    -- Whoever owns the function may not be allowed to name settings of ours in its definition.
    merging CONSTANT text := coalesce(current_setting('fedgate.merging', true), '');
    keys CONSTANT text := coalesce(current_setting('fedgate.person_keys', true), '');
BEGIN
    IF OLD.person <> OLD.id AND (TG_OP = 'DELETE' OR NEW.id <> OLD.id OR NEW.person = NEW.id) THEN
        PERFORM set_config('fedgate.merging', 'merge', true), set_config('fedgate.person_keys', 'same', true);
        UPDATE people SET fedgate_changed = NULL
        WHERE people.id = OLD.id AND people.id::varchar COLLATE "C" = OLD.id;
        PERFORM set_config('fedgate.merging', merging, true), set_config('fedgate.person_keys', keys, true);
    END IF;
    RETURN NULL;
END
$$;
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_trigger WHERE tgrelid = 'fedgate_same_persons'::regclass
        AND tgname = 'fedgate_person_seen_again' AND tgenabled = 'A'
    ) THEN
        CREATE OR REPLACE TRIGGER fedgate_person_seen_again AFTER UPDATE OR DELETE ON fedgate_same_persons
        FOR EACH ROW EXECUTE FUNCTION fedgate_person_seen_again();
        ALTER TABLE fedgate_same_persons ENABLE ALWAYS TRIGGER fedgate_person_seen_again;
    END IF;
END
$$;

-- Roles that may read people may ask what has changed.
SELECT fedgate_grant_like(
    'people', 'SELECT', 'SELECT ON fedgate_change_times', 'EXECUTE ON FUNCTION fedgate_changes_until()'
);
