-- The review list: pairs of persons who may be one, and the persons who are to be compared with all others.
SELECT set_config('search_path', quote_ident(nspname) || ', pg_temp', true)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = 'people'::regclass;

-- A pair has its ids in their order, `one` first. A decision counts for what was compared: `one_mark` and `other_mark` stand
-- for that, and when one of them changes, the pair is open again. Times are milliseconds since 1970.
CREATE TABLE IF NOT EXISTS fedgate_person_pairs (
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    one varchar COLLATE "C" NOT NULL,
    other varchar COLLATE "C" NOT NULL,
    grade varchar NOT NULL,
    score bigint NOT NULL,
    evidence bigint NOT NULL,
    one_mark bigint NOT NULL,
    other_mark bigint NOT NULL,
    state varchar NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'same', 'different')),
    found_at bigint NOT NULL,
    decided_at bigint,
    decided_by varchar,
    PRIMARY KEY (one, other)
);
CREATE INDEX IF NOT EXISTS fedgate_person_pairs_other ON fedgate_person_pairs (other);
CREATE INDEX IF NOT EXISTS fedgate_person_pairs_order ON fedgate_person_pairs (state, evidence DESC, number);

-- Persons whose records have changed, in any program. `taken` says when an instance began with one.
CREATE TABLE IF NOT EXISTS fedgate_person_pairs_due (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    person varchar COLLATE "C" NOT NULL,
    taken bigint NOT NULL DEFAULT 0
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_insert_threshold = -1);

-- How far a comparison of all persons has come, in one row at most: with which rules, from which entry of the queue on it
-- was made, and up to which person.
CREATE TABLE IF NOT EXISTS fedgate_person_dedupe (
    "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"),
    made_of varchar NOT NULL,
    due bigint NOT NULL,
    upto varchar COLLATE "C" NOT NULL
);

CREATE OR REPLACE FUNCTION fedgate_person_pairs_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM fedgate_person_pairs_due;
        DELETE FROM fedgate_person_pairs;
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        -- A login that replaces its own hash changes nothing that is compared.
        IF OLD.id::varchar COLLATE "C" = NEW.id::varchar COLLATE "C"
            AND starts_with(coalesce(current_setting('fedgate.actor', true), ''), 'login ') THEN
            RETURN NULL;
        END IF;
        INSERT INTO fedgate_person_pairs_due (person)
        SELECT OLD.id WHERE OLD.id::varchar COLLATE "C" <> NEW.id::varchar COLLATE "C";
    END IF;
    INSERT INTO fedgate_person_pairs_due (person) VALUES (CASE TG_OP WHEN 'DELETE' THEN OLD.id ELSE NEW.id END);
    RETURN NULL;
END
$$;

-- For all sessions, as for the keys of persons.
DO $$
BEGIN
    IF 2 > (
        SELECT count(*) FROM pg_trigger WHERE tgrelid = 'people'::regclass
        AND tgname IN ('fedgate_person_pairs_changed', 'fedgate_person_pairs_emptied') AND tgenabled = 'A'
    ) THEN
        CREATE OR REPLACE TRIGGER fedgate_person_pairs_changed AFTER INSERT OR UPDATE OR DELETE ON people
        FOR EACH ROW EXECUTE FUNCTION fedgate_person_pairs_changed();
        CREATE OR REPLACE TRIGGER fedgate_person_pairs_emptied AFTER TRUNCATE ON people
        FOR EACH STATEMENT EXECUTE FUNCTION fedgate_person_pairs_changed();
        ALTER TABLE people ENABLE ALWAYS TRIGGER fedgate_person_pairs_changed, ENABLE ALWAYS TRIGGER fedgate_person_pairs_emptied;
    END IF;
END
$$;

SELECT fedgate_grant_like(
    'pols', 'INSERT',
    'SELECT, INSERT, UPDATE, DELETE ON fedgate_person_pairs',
    'SELECT, UPDATE, DELETE ON fedgate_person_pairs_due',
    'SELECT, INSERT, UPDATE, DELETE ON fedgate_person_dedupe'
);
