-- The index of persons: the keys by which records of one person are found, and the persons whose keys are due. Everything
-- is created beside `people`, in the schema where the search path finds it.
SELECT set_config('search_path', quote_ident(nspname) || ', pg_temp', true)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = 'people'::regclass;

-- The keys of each person. fedhis makes them, and nothing else does. An entry has no other name than its place in the one
-- index: most of what a new person costs are these rows. The keys of one person are listed in `fedgate_compared_persons`.
CREATE TABLE IF NOT EXISTS fedgate_person_keys (
    key bigint NOT NULL,
    person varchar COLLATE "C" NOT NULL
);

-- Each person as persons are compared, so that no document is read for it: null if there is nothing to compare, or too
-- much. `keys` are all keys of the person. Whoever writes keys of a person locks this row first.
DO $$
BEGIN
    IF to_regclass('fedgate_compared_persons') IS NULL THEN
        CREATE TABLE fedgate_compared_persons (
            person varchar COLLATE "C" PRIMARY KEY,
            compared varchar COLLATE "C",
            keys bigint[] NOT NULL
        );
        -- Keys of an earlier form are in no list, so all of them are made anew.
        IF to_regclass('fedgate_search_words') IS NOT NULL THEN
            TRUNCATE fedgate_search_words, fedgate_search_deletions;
        END IF;
        IF to_regclass('fedgate_person_index') IS NOT NULL THEN
            TRUNCATE fedgate_person_keys;
            ALTER TABLE fedgate_person_keys DROP CONSTRAINT IF EXISTS fedgate_person_keys_pkey;
            DROP INDEX IF EXISTS fedgate_person_keys_person;
            UPDATE fedgate_person_index SET turn = turn + 1, upto = '';
        END IF;
    END IF;
END
$$;
CREATE INDEX IF NOT EXISTS fedgate_person_keys_key ON fedgate_person_keys (key, person);

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

CREATE INDEX IF NOT EXISTS fedgate_person_keys_due_person ON fedgate_person_keys_due (person);

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

-- The functions that others call have no search path of their own: to set one costs as much as a statement.
--
-- Adds the words that are not known yet: the words, their keys, and for each its deletions, separated by blanks.
CREATE OR REPLACE FUNCTION fedgate_put_words(words varchar[], numbers bigint[], deletions varchar[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM fedgate_search_words AS known WHERE known.word = ANY (words)) >= cardinality(words) THEN
        RETURN;
    END IF;
    -- In one order, so that two writers never wait for each other.
    WITH given AS (
        SELECT * FROM unnest(words, numbers, deletions) AS given (word, key, deletions)
    ), added AS (
        INSERT INTO fedgate_search_words AS known (word, key)
        SELECT given.word, given.key FROM given ORDER BY given.word COLLATE "C" ON CONFLICT DO NOTHING RETURNING known.word
    )
    INSERT INTO fedgate_search_deletions (deletion, word)
    SELECT CAST(unnest(string_to_array(given.deletions, ' ')) AS bigint), given.word FROM given JOIN added USING (word)
    ORDER BY 2, 1 ON CONFLICT DO NOTHING;
END
$$;

-- Gives a person these keys. With `is_exact` it loses its others, and the vocabulary the words that nobody has any more:
-- they would tell of a person who may be gone. Who is not there loses all, unless somebody has created the person again.
CREATE OR REPLACE FUNCTION fedgate_put_person_keys(
    who varchar, wanted bigint[], line varchar, is_exact boolean, is_there boolean
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    known bigint[];
    former bigint[];
    named bigint[];
BEGIN
    LOOP
        SELECT keys INTO known FROM fedgate_compared_persons AS kept WHERE kept.person = who FOR UPDATE;
        EXIT WHEN FOUND;
        IF NOT is_there THEN
            RETURN;
        END IF;
        INSERT INTO fedgate_compared_persons (person, compared, keys) VALUES (who, line, wanted) ON CONFLICT DO NOTHING;
        IF FOUND THEN
            INSERT INTO fedgate_person_keys (key, person) SELECT unnest(wanted), who;
            RETURN;
        END IF;
    END LOOP;
    IF NOT is_there AND EXISTS (SELECT 1 FROM people WHERE people.id = who AND people.id::varchar COLLATE "C" = who) THEN
        RETURN;
    END IF;
    -- The person has changed since the record was read. Its next turn comes.
    IF is_exact AND EXISTS (SELECT 1 FROM fedgate_person_keys_due AS due WHERE due.person = who) THEN
        RETURN;
    END IF;
    -- The table is asked, and not the list, so that making all keys anew mends whatever was lost.
    INSERT INTO fedgate_person_keys (key, person)
    SELECT added, who FROM unnest(wanted) AS added
    WHERE NOT EXISTS (SELECT 1 FROM fedgate_person_keys AS entry WHERE entry.key = added AND entry.person = who);
    former := ARRAY(SELECT gone FROM unnest(known) AS gone WHERE gone <> ALL (wanted));
    IF former <> '{}' AND is_exact THEN
        named := ARRAY(SELECT DISTINCT words.key FROM fedgate_search_words AS words WHERE words.key = ANY (former));
        IF named <> '{}' AND NOT pg_try_advisory_xact_lock(7377282541) THEN
            -- A writer may be giving one of the words to somebody else. Its keys stay until the person's next turn.
            former := ARRAY(SELECT gone FROM unnest(former) AS gone WHERE gone <> ALL (named));
            wanted := wanted || named;
            INSERT INTO fedgate_person_keys_due (person) VALUES (who);
            named := '{}';
        END IF;
        DELETE FROM fedgate_person_keys AS entry WHERE entry.key = ANY (former) AND entry.person = who;
        named := ARRAY(
            SELECT nobodys FROM unnest(named) AS nobodys
            WHERE NOT EXISTS (SELECT 1 FROM fedgate_person_keys AS entry WHERE entry.key = nobodys)
        );
        IF named <> '{}' THEN
            DELETE FROM fedgate_search_deletions AS gone USING fedgate_search_words AS words
            WHERE words.key = ANY (named) AND gone.word = words.word;
            DELETE FROM fedgate_search_words AS words WHERE words.key = ANY (named);
        END IF;
    ELSIF former <> '{}' THEN
        wanted := wanted || former;
    END IF;
    IF is_there OR wanted <> '{}' THEN
        UPDATE fedgate_compared_persons SET compared = line, keys = wanted WHERE person = who;
    ELSE
        DELETE FROM fedgate_compared_persons WHERE person = who;
    END IF;
END
$$;

-- Keys that a writer has made of the record that it writes, in one text: the person, how they are made, the keys, what is
-- compared, and the words with their keys and deletions. The lock, which others share, keeps words from being deleted and
-- a walk over all persons from beginning before this transaction has ended.
--
-- Those of a changed person are added to the earlier ones, which go with the person's turn in the queue.
CREATE OR REPLACE FUNCTION fedgate_add_person_keys(handed text) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    part varchar[] := string_to_array(handed, chr(31));
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7377282541);
    IF EXISTS (SELECT 1 FROM fedgate_person_index WHERE made_of = part[2]) THEN
        PERFORM fedgate_put_person_keys(
            part[1], CAST(string_to_array(part[3], ',') AS bigint[]), nullif(part[4], ''), false, true
        );
        PERFORM fedgate_put_words(
            string_to_array(part[5], ','), CAST(string_to_array(part[6], ',') AS bigint[]), string_to_array(part[7], ',')
        );
    END IF;
END
$$;

-- Those of a new person are all that it has. Returns false, and writes nothing, if the person has to be queued: all keys
-- are being made anew, are made in another way, or the id had another holder a moment ago.
CREATE OR REPLACE FUNCTION fedgate_key_new_person(handed text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    part varchar[] := string_to_array(handed, chr(31));
    wanted bigint[] := CAST(string_to_array(part[3], ',') AS bigint[]);
    words varchar[] := string_to_array(part[5], ',');
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7377282541);
    IF NOT EXISTS (SELECT 1 FROM fedgate_person_index WHERE made_of = part[2] AND upto IS NULL) THEN
        RETURN false;
    END IF;
    INSERT INTO fedgate_compared_persons (person, compared, keys) VALUES (part[1], nullif(part[4], ''), wanted)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO fedgate_person_keys (key, person) SELECT unnest(wanted), part[1];
    IF (SELECT count(*) FROM fedgate_search_words AS known WHERE known.word = ANY (words)) < cardinality(words) THEN
        PERFORM fedgate_put_words(
            words, CAST(string_to_array(part[6], ',') AS bigint[]), string_to_array(part[7], ',')
        );
    END IF;
    INSERT INTO fedgate_person_pairs_due (person) VALUES (part[1]);
    RETURN true;
END
$$;

-- One step of the index: takes persons from the queue, or goes on with all of them, and gives them their keys. Returns
-- false, and writes nothing, if another transaction has taken the turn. It is one statement, so that a program that stands
-- still never holds the lock that writers share.
CREATE OR REPLACE FUNCTION fedgate_put_keys(
    at_turn bigint, form varchar, place varchar, begins_anew boolean, numbers bigint[],
    persons varchar[], keys varchar[], lines varchar[], are_there boolean[],
    words varchar[], word_keys bigint[], deletions varchar[]
) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    -- Whoever has made keys in the earlier way is done before all are made anew, or the walk would miss that person.
    IF begins_anew AND NOT pg_try_advisory_xact_lock(7377282541) THEN
        RETURN false;
    END IF;
    UPDATE fedgate_person_index SET turn = turn + 1, made_of = form, upto = place WHERE turn = at_turn;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- Persons whose keys are there are compared.
    WITH taken AS (DELETE FROM fedgate_person_keys_due WHERE number = ANY (numbers) RETURNING person)
    INSERT INTO fedgate_person_pairs_due (person) SELECT DISTINCT taken.person FROM taken;
    PERFORM fedgate_put_person_keys(
        given.person, CAST(string_to_array(given.keys, ',') AS bigint[]), given.line, true, given.is_there
    )
    FROM (
        SELECT * FROM unnest(persons, keys, lines, are_there) AS given (person, keys, line, is_there)
        ORDER BY given.person COLLATE "C"
    ) AS given;
    PERFORM fedgate_put_words(words, word_keys, deletions);
    RETURN true;
END
$$;

-- `fedgate.person_keys` is what the writer says of this change: keys of a new person, or `same` if nothing has changed
-- of which keys are made. Without it the person is queued.
CREATE OR REPLACE FUNCTION fedgate_person_keys_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    said text COLLATE "C";
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        UPDATE fedgate_person_index SET turn = turn + 1;
        DELETE FROM fedgate_person_keys_due;
        DELETE FROM fedgate_person_keys;
        DELETE FROM fedgate_compared_persons;
        DELETE FROM fedgate_person_pairs_due;
        DELETE FROM fedgate_person_pairs;
        DELETE FROM fedgate_search_words;
        DELETE FROM fedgate_search_deletions;
        RETURN NULL;
    END IF;
    said := coalesce(current_setting('fedgate.person_keys', true), '');
    IF TG_OP = 'INSERT' THEN
        IF starts_with(said, NEW.id || chr(31)) THEN
            IF fedgate_key_new_person(said) THEN
                RETURN NULL;
            END IF;
        END IF;
    ELSIF TG_OP = 'UPDATE' THEN
        -- A login that replaces its own hash changes nothing that is compared.
        IF OLD.id::varchar COLLATE "C" = NEW.id::varchar COLLATE "C" AND (
            said = 'same' AND jsonb_typeof(OLD.data) = 'object'
            OR starts_with(coalesce(current_setting('fedgate.actor', true), ''), 'login ')
        ) THEN
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
    'SELECT, INSERT, UPDATE, DELETE ON fedgate_compared_persons',
    'SELECT, INSERT, DELETE ON fedgate_search_words',
    'SELECT, INSERT, DELETE ON fedgate_search_deletions',
    'SELECT, INSERT, DELETE ON fedgate_person_keys_due',
    'SELECT, UPDATE ON fedgate_person_index'
);
