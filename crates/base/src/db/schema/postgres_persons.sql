-- The index of persons: the keys by which records of one person are found, and the persons whose keys are due. Everything
-- is created beside `people`, in the schema where the search path finds it.
SELECT set_config('search_path', quote_ident(nspname) || ', pg_temp', true)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = 'people'::regclass;

-- The keys of each person. fedhis makes them, and nothing else does.
CREATE TABLE IF NOT EXISTS fedgate_person_keys (
    key bigint NOT NULL,
    person varchar COLLATE "C" NOT NULL,
    PRIMARY KEY (key, person)
);
CREATE INDEX IF NOT EXISTS fedgate_person_keys_person ON fedgate_person_keys (person);

-- The words of names, each once, by which typed words are found. `key` is that of persons who have the word. A deletion is
-- the hash of the word, or of the word without one of its letters.
CREATE TABLE IF NOT EXISTS fedgate_search_words (
    word varchar COLLATE "C" PRIMARY KEY,
    key bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS fedgate_search_words_key ON fedgate_search_words (key);
CREATE TABLE IF NOT EXISTS fedgate_search_deletions (
    deletion bigint NOT NULL,
    word varchar COLLATE "C" NOT NULL,
    PRIMARY KEY (deletion, word)
);
CREATE INDEX IF NOT EXISTS fedgate_search_deletions_word ON fedgate_search_deletions (word);

-- Persons whose records have changed, in any program. A row is deleted with the transaction that writes the keys.
CREATE TABLE IF NOT EXISTS fedgate_person_keys_due (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    person varchar COLLATE "C" NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_insert_threshold = -1);

-- How far the index is, in one row. `turn` grows with each transaction that writes keys: one that was prepared before
-- another was committed writes nothing. `made_of` says how the keys are made, and `upto` the last person who has such keys
-- while all of them are made anew; null when that is done.
CREATE TABLE IF NOT EXISTS fedgate_person_index (
    "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"),
    turn bigint NOT NULL DEFAULT 0,
    made_of varchar COLLATE "C" NOT NULL DEFAULT '',
    upto varchar COLLATE "C" DEFAULT ''
);
INSERT INTO fedgate_person_index DEFAULT VALUES ON CONFLICT DO NOTHING;

CREATE OR REPLACE FUNCTION fedgate_person_keys_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        UPDATE fedgate_person_index SET turn = turn + 1;
        DELETE FROM fedgate_person_keys_due;
        DELETE FROM fedgate_person_keys;
        DELETE FROM fedgate_person_pairs_due;
        DELETE FROM fedgate_person_pairs;
        DELETE FROM fedgate_search_words;
        DELETE FROM fedgate_search_deletions;
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        -- A login that replaces its own hash changes nothing that is compared.
        IF OLD.id::varchar COLLATE "C" = NEW.id::varchar COLLATE "C"
            AND starts_with(coalesce(current_setting('fedgate.actor', true), ''), 'login ') THEN
            RETURN NULL;
        END IF;
        INSERT INTO fedgate_person_keys_due (person)
        SELECT OLD.id WHERE OLD.id::varchar COLLATE "C" <> NEW.id::varchar COLLATE "C";
    END IF;
    INSERT INTO fedgate_person_keys_due (person) VALUES (CASE TG_OP WHEN 'DELETE' THEN OLD.id ELSE NEW.id END);
    RETURN NULL;
END
$$;

-- For all sessions: logical replication fires no others. A trigger that is in place is left alone, since replacing it would
-- lock the table.
DO $$
BEGIN
    IF 2 > (
        SELECT count(*) FROM pg_trigger WHERE tgrelid = 'people'::regclass
        AND tgname IN ('fedgate_person_keys_changed', 'fedgate_person_keys_emptied') AND tgenabled = 'A'
    ) THEN
        CREATE OR REPLACE TRIGGER fedgate_person_keys_changed AFTER INSERT OR UPDATE OR DELETE ON people
        FOR EACH ROW EXECUTE FUNCTION fedgate_person_keys_changed();
        CREATE OR REPLACE TRIGGER fedgate_person_keys_emptied AFTER TRUNCATE ON people
        FOR EACH STATEMENT EXECUTE FUNCTION fedgate_person_keys_changed();
        ALTER TABLE people ENABLE ALWAYS TRIGGER fedgate_person_keys_changed, ENABLE ALWAYS TRIGGER fedgate_person_keys_emptied;
        -- Writes from a time without a trigger were not queued, so all keys are made anew.
        UPDATE fedgate_person_index SET turn = turn + 1, upto = '';
    END IF;
END
$$;

-- Roles that may write pages may keep the index.
SELECT fedgate_grant_like(
    'pols', 'INSERT',
    'SELECT, INSERT, UPDATE, DELETE ON fedgate_person_keys',
    'SELECT, INSERT, DELETE ON fedgate_search_words',
    'SELECT, INSERT, DELETE ON fedgate_search_deletions',
    'SELECT, DELETE ON fedgate_person_keys_due',
    'SELECT, UPDATE ON fedgate_person_index'
);
