-- The index of persons, as in PostgreSQL.
CREATE TABLE IF NOT EXISTS fedgate_person_keys (
    key INTEGER NOT NULL,
    person TEXT NOT NULL,
    PRIMARY KEY (key, person)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fedgate_search_words (word TEXT PRIMARY KEY, key INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS fedgate_search_words_key ON fedgate_search_words (key);
CREATE TABLE IF NOT EXISTS fedgate_search_deletions (
    deletion INTEGER NOT NULL,
    word TEXT NOT NULL,
    PRIMARY KEY (deletion, word)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS fedgate_search_deletions_word ON fedgate_search_deletions (word);
CREATE TABLE IF NOT EXISTS fedgate_person_keys_due (number INTEGER PRIMARY KEY AUTOINCREMENT, person TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS fedgate_person_keys_due_person ON fedgate_person_keys_due (person);
CREATE TABLE IF NOT EXISTS fedgate_person_index (
    "only" INTEGER PRIMARY KEY DEFAULT 1 CHECK ("only" = 1),
    turn INTEGER NOT NULL DEFAULT 0,
    made_of TEXT NOT NULL DEFAULT '',
    upto TEXT DEFAULT ''
);
INSERT OR IGNORE INTO fedgate_person_index ("only") VALUES (1);
-- Keys of an earlier form are in no list, so all of them are made anew.
DELETE FROM fedgate_person_keys WHERE NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'fedgate_compared_persons');
DELETE FROM fedgate_search_words WHERE NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'fedgate_compared_persons');
DELETE FROM fedgate_search_deletions WHERE NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'fedgate_compared_persons');
UPDATE fedgate_person_index SET turn = turn + 1, upto = ''
WHERE NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'fedgate_compared_persons');
DROP INDEX IF EXISTS fedgate_person_keys_person;
CREATE TABLE IF NOT EXISTS fedgate_compared_persons (
    person TEXT PRIMARY KEY,
    compared TEXT,
    keys TEXT NOT NULL
);
-- Writes from a time without a trigger were not queued, so all keys are made anew.
UPDATE fedgate_person_index SET turn = turn + 1, upto = ''
WHERE 3 <> (SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name LIKE 'fedgate\_person\_keys\_%' ESCAPE '\');

DROP TRIGGER IF EXISTS fedgate_person_keys_inserted;
CREATE TRIGGER fedgate_person_keys_inserted AFTER INSERT ON people
BEGIN
    INSERT INTO fedgate_person_keys_due (person) VALUES (new.id);
END;
DROP TRIGGER IF EXISTS fedgate_person_keys_updated;
CREATE TRIGGER fedgate_person_keys_updated AFTER UPDATE OF id, data ON people
WHEN old.id IS NOT new.id COLLATE BINARY OR NOT (SELECT is_login FROM fedgate_acting_node)
BEGIN
    INSERT INTO fedgate_person_keys_due (person) SELECT old.id WHERE old.id IS NOT new.id COLLATE BINARY;
    INSERT INTO fedgate_person_keys_due (person) VALUES (new.id);
END;
DROP TRIGGER IF EXISTS fedgate_person_keys_deleted;
CREATE TRIGGER fedgate_person_keys_deleted AFTER DELETE ON people
BEGIN
    INSERT INTO fedgate_person_keys_due (person) VALUES (old.id);
END;
