-- Thalamus' tables, with JSON as text.
CREATE TABLE IF NOT EXISTS people (id TEXT PRIMARY KEY NOT NULL, data TEXT);
CREATE TABLE IF NOT EXISTS pols (id TEXT PRIMARY KEY NOT NULL, book TEXT REFERENCES people (id), data TEXT);
CREATE TABLE IF NOT EXISTS personal_docs (
    id TEXT PRIMARY KEY NOT NULL,
    fedacct TEXT REFERENCES people (id),
    pol TEXT REFERENCES pols (id),
    document BLOB,
    data TEXT
);
CREATE TABLE IF NOT EXISTS dus (id TEXT PRIMARY KEY NOT NULL, data TEXT);
CREATE TABLE IF NOT EXISTS institutions (id TEXT PRIMARY KEY NOT NULL, data TEXT);

CREATE TABLE IF NOT EXISTS fedgate_schema (version INTEGER NOT NULL);

CREATE INDEX IF NOT EXISTS fedgate_pols_book ON pols (book, id);
CREATE INDEX IF NOT EXISTS fedgate_personal_docs_fedacct ON personal_docs (fedacct, id);
CREATE INDEX IF NOT EXISTS fedgate_personal_docs_pol ON personal_docs (pol);

-- The account epoch, as in PostgreSQL.
CREATE TABLE IF NOT EXISTS fedgate_epoch (
    "only" INTEGER PRIMARY KEY DEFAULT 1 CHECK ("only" = 1),
    epoch INTEGER NOT NULL
);
INSERT OR IGNORE INTO fedgate_epoch ("only", epoch) VALUES (1, 1);
CREATE TABLE IF NOT EXISTS fedgate_account_changes (epoch INTEGER NOT NULL, account TEXT);
CREATE INDEX IF NOT EXISTS fedgate_account_changes_epoch ON fedgate_account_changes (epoch);

-- Whether every trigger is there.
DROP VIEW IF EXISTS fedgate_triggers;
CREATE VIEW fedgate_triggers AS
SELECT count(*) = 3 AS fire FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'people'
AND name IN ('fedgate_people_updated', 'fedgate_people_replaced', 'fedgate_people_deleted');

-- What changed while a trigger was away has no epoch.
CREATE TEMP TABLE fedgate_untold AS
SELECT 1 WHERE EXISTS (SELECT 1 FROM people) AND NOT (SELECT fire FROM fedgate_triggers);
UPDATE fedgate_epoch SET epoch = epoch + 1 WHERE EXISTS (SELECT 1 FROM fedgate_untold);
INSERT INTO fedgate_account_changes SELECT epoch, NULL FROM fedgate_epoch WHERE EXISTS (SELECT 1 FROM fedgate_untold);
DROP TABLE fedgate_untold;

-- SQLite has row triggers only: each changed account is an epoch of its own.
CREATE TRIGGER IF NOT EXISTS fedgate_people_updated AFTER UPDATE ON people
WHEN old.id IS NOT new.id
  OR (old.data -> '$.password') IS NOT (new.data -> '$.password')
  OR (old.data -> '$.roles') IS NOT (new.data -> '$.roles')
  OR (old.data -> '$.active') IS NOT (new.data -> '$.active')
BEGIN
    UPDATE fedgate_epoch SET epoch = epoch + 1;
    INSERT INTO fedgate_account_changes SELECT epoch, old.id FROM fedgate_epoch;
    INSERT INTO fedgate_account_changes SELECT epoch, new.id FROM fedgate_epoch WHERE new.id IS NOT old.id;
    DELETE FROM fedgate_account_changes WHERE epoch < (SELECT epoch FROM fedgate_epoch) - 10000;
END;

-- REPLACE takes a row away without a trigger of deletion (recursive_triggers is off); one that was not there is never cached.
CREATE TRIGGER IF NOT EXISTS fedgate_people_replaced BEFORE INSERT ON people
WHEN EXISTS (SELECT 1 FROM people WHERE id = new.id)
BEGIN
    UPDATE fedgate_epoch SET epoch = epoch + 1;
    INSERT INTO fedgate_account_changes SELECT epoch, new.id FROM fedgate_epoch;
    DELETE FROM fedgate_account_changes WHERE epoch < (SELECT epoch FROM fedgate_epoch) - 10000;
END;

CREATE TRIGGER IF NOT EXISTS fedgate_people_deleted AFTER DELETE ON people
BEGIN
    UPDATE fedgate_epoch SET epoch = epoch + 1;
    INSERT INTO fedgate_account_changes SELECT epoch, old.id FROM fedgate_epoch;
    DELETE FROM fedgate_account_changes WHERE epoch < (SELECT epoch FROM fedgate_epoch) - 10000;
END;

-- The gateways that run; seen is in ms since 1970.
CREATE TABLE IF NOT EXISTS fedgate_instances (
    id TEXT PRIMARY KEY NOT NULL,
    seen REAL NOT NULL,
    epoch INTEGER NOT NULL,
    report TEXT NOT NULL
);

-- Which store this is: an interrupted import goes on in the one it began in.
CREATE TABLE IF NOT EXISTS fedgate_store ("only" INTEGER PRIMARY KEY DEFAULT 1 CHECK ("only" = 1), id TEXT NOT NULL);
INSERT OR IGNORE INTO fedgate_store ("only", id) VALUES (1, lower(hex(randomblob(16))));

DELETE FROM fedgate_schema;
INSERT INTO fedgate_schema (version) VALUES (5);
