-- The review list, as in PostgreSQL.
CREATE TABLE IF NOT EXISTS fedgate_person_pairs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    one TEXT NOT NULL,
    other TEXT NOT NULL,
    grade TEXT NOT NULL,
    score INTEGER NOT NULL,
    evidence INTEGER NOT NULL,
    one_mark INTEGER NOT NULL,
    other_mark INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'same', 'different')),
    found_at INTEGER NOT NULL,
    decided_at INTEGER,
    decided_by TEXT,
    UNIQUE (one, other)
);
CREATE INDEX IF NOT EXISTS fedgate_person_pairs_other ON fedgate_person_pairs (other);
CREATE INDEX IF NOT EXISTS fedgate_person_pairs_order ON fedgate_person_pairs (state, evidence DESC, number);
CREATE TABLE IF NOT EXISTS fedgate_person_pairs_due (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    person TEXT NOT NULL,
    taken INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS fedgate_person_dedupe (
    "only" INTEGER PRIMARY KEY DEFAULT 1 CHECK ("only" = 1),
    made_of TEXT NOT NULL,
    due INTEGER NOT NULL,
    upto TEXT NOT NULL
);
