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

-- Persons whose keys were written because of a change. `taken` says when an instance began with one.
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

SELECT fedgate_grant_like(
    'pols', 'INSERT',
    'SELECT, INSERT, UPDATE, DELETE ON fedgate_person_pairs',
    'SELECT, INSERT, UPDATE, DELETE ON fedgate_person_pairs_due',
    'SELECT, INSERT, UPDATE, DELETE ON fedgate_person_dedupe'
);
