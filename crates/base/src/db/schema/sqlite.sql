-- The mark of our files in the header: "fedg" in ASCII (`db/foreign.rs`).
PRAGMA application_id = 0x66656467;

-- Thalamus's tables, with JSON as text.
CREATE TABLE IF NOT EXISTS people (id TEXT PRIMARY KEY NOT NULL, data TEXT);
CREATE TABLE IF NOT EXISTS pols (id TEXT PRIMARY KEY NOT NULL, book TEXT REFERENCES people (id), data TEXT);
CREATE TABLE IF NOT EXISTS personal_docs (
    id TEXT PRIMARY KEY NOT NULL,
    fedacct TEXT REFERENCES people (id),
    pol TEXT REFERENCES pols (id),
    data TEXT,
    -- Last: a `zeroblob` before another column would be made in memory when its row is written.
    document BLOB
);
CREATE TABLE IF NOT EXISTS dus (id TEXT PRIMARY KEY NOT NULL, data TEXT);
CREATE TABLE IF NOT EXISTS institutions (id TEXT PRIMARY KEY NOT NULL, data TEXT);

CREATE TABLE IF NOT EXISTS fedgate_schema (version INTEGER NOT NULL);

CREATE INDEX IF NOT EXISTS fedgate_pols_book ON pols (book, id);
CREATE INDEX IF NOT EXISTS fedgate_personal_docs_fedacct ON personal_docs (fedacct, id);
CREATE INDEX IF NOT EXISTS fedgate_personal_docs_pol ON personal_docs (pol);
-- Ids that differ in case alone: the ASCII part, and ids with other letters.
CREATE INDEX IF NOT EXISTS fedgate_people_spelling ON people (upper(id));
CREATE INDEX IF NOT EXISTS fedgate_people_other_letters ON people (id) WHERE id GLOB '*[^ -~]*';

-- The account epoch, as in PostgreSQL.
CREATE TABLE IF NOT EXISTS fedgate_epoch (
    "only" INTEGER PRIMARY KEY DEFAULT 1 CHECK ("only" = 1),
    epoch INTEGER NOT NULL
);
INSERT OR IGNORE INTO fedgate_epoch ("only", epoch) VALUES (1, 1);
CREATE TABLE IF NOT EXISTS fedgate_account_changes (epoch INTEGER NOT NULL, account TEXT);
CREATE INDEX IF NOT EXISTS fedgate_account_changes_epoch ON fedgate_account_changes (epoch);

-- Accounts that must wait at the password page, as in PostgreSQL; `waits_until` is in seconds since 1970.
CREATE TABLE IF NOT EXISTS fedgate_page_waits (
    account TEXT PRIMARY KEY NOT NULL,
    unlocks INTEGER NOT NULL DEFAULT 0,
    waits_until INTEGER,
    password TEXT
) WITHOUT ROWID;

-- The members of a person that a login needs, beside the document. Triggers maintain it, and it is correct while all
-- of them exist.
CREATE TABLE IF NOT EXISTS fedgate_logins (id TEXT PRIMARY KEY NOT NULL, password TEXT, roles TEXT, active TEXT) WITHOUT ROWID;

-- What the table must contain: members of bounded length, as in PostgreSQL. A document that is not JSON has none. This
-- also works in older versions of SQLite, because another program that writes people runs the triggers with its own
-- version.
DROP VIEW IF EXISTS fedgate_logins_due;
CREATE VIEW fedgate_logins_due AS
SELECT row_id, CAST(row_id AS TEXT) COLLATE BINARY AS id,
    CASE WHEN length(CAST(data ->> '$.password' AS BLOB)) > 512 THEN '!' ELSE CAST(data ->> '$.password' AS TEXT) END
        AS password,
    CASE WHEN length(CAST(data -> '$.roles' AS BLOB)) <= 16384 THEN data -> '$.roles' END AS roles,
    substr(data -> '$.active', 1, 16) AS active
FROM (SELECT id AS row_id, CASE WHEN json_valid(data) THEN data END AS data FROM people);

-- The changes of accounts and their authors, as in PostgreSQL. Times are in UTC; `taken_until` is in seconds since
-- 1970.
CREATE TABLE IF NOT EXISTS fedgate_account_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    what TEXT NOT NULL,
    account TEXT,
    roles_before TEXT,
    roles_after TEXT,
    active_before TEXT,
    active_after TEXT,
    password TEXT,
    via TEXT NOT NULL,
    actor TEXT,
    request_id TEXT,
    detail TEXT,
    taken_until INTEGER,
    recorded INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS fedgate_account_events_account ON fedgate_account_events (account, id);
CREATE INDEX IF NOT EXISTS fedgate_account_events_unrecorded ON fedgate_account_events (id) WHERE NOT recorded;

-- The author during one transaction of our programs, which insert the row and delete it again. Other programs insert
-- none, and count as `outside`.
CREATE TABLE IF NOT EXISTS fedgate_actor (
    "only" INTEGER PRIMARY KEY DEFAULT 1 CHECK ("only" = 1), via TEXT NOT NULL, actor TEXT, request_id TEXT
);
DELETE FROM fedgate_actor;
-- Exactly one row, with or without an author.
DROP VIEW IF EXISTS fedgate_acting;
CREATE VIEW fedgate_acting AS
SELECT coalesce(via, 'outside') AS via, actor, request_id FROM (SELECT 1 AS one) LEFT JOIN fedgate_actor ON true;

-- Whether every trigger exists, including those that maintain the logins and those that write the events.
DROP VIEW IF EXISTS fedgate_triggers;
CREATE VIEW fedgate_triggers AS
SELECT of_people AND (
    SELECT count(*) = 4 FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'fedgate_same_persons' AND name IN (
        'fedgate_same_person_inserted', 'fedgate_same_person_replaced',
        'fedgate_same_person_updated', 'fedgate_same_person_deleted'
    )
) AND (
    SELECT count(*) = 8 FROM sqlite_schema WHERE type = 'trigger' AND tbl_name IN ('fedgate_links', 'fedgate_relations') AND name IN (
        'fedgate_link_inserted', 'fedgate_link_replaced', 'fedgate_link_updated', 'fedgate_link_deleted',
        'fedgate_relation_inserted', 'fedgate_relation_replaced', 'fedgate_relation_updated', 'fedgate_relation_deleted'
    )
) AS fire, of_people
FROM (SELECT count(*) = 7 AS of_people FROM sqlite_schema WHERE type = 'trigger' AND (
    tbl_name = 'people'
    AND name IN ('fedgate_people_updated', 'fedgate_people_replaced', 'fedgate_people_inserted', 'fedgate_people_deleted')
    AND (sql LIKE '%fedgate_logins%' OR name = 'fedgate_people_replaced')
    OR tbl_name = 'fedgate_logins'
    AND name IN ('fedgate_login_made', 'fedgate_login_changed', 'fedgate_login_deleted')
));

-- Changes from a time without a trigger have no epoch, and are missing in the logins.
CREATE TEMP TABLE fedgate_untold AS
SELECT 1 WHERE EXISTS (SELECT 1 FROM people) AND NOT (SELECT of_people FROM fedgate_triggers);
-- Changes that the migration makes to the logins are no events.
DROP TRIGGER IF EXISTS fedgate_login_made;
DROP TRIGGER IF EXISTS fedgate_login_changed;
DROP TRIGGER IF EXISTS fedgate_login_deleted;
UPDATE fedgate_epoch SET epoch = epoch + 1 WHERE EXISTS (SELECT 1 FROM fedgate_untold);
-- The authors of those changes are unknown too.
INSERT INTO fedgate_account_events (what, via) SELECT 'unwatched', 'migration'
WHERE EXISTS (SELECT 1 FROM fedgate_untold)
   OR EXISTS (SELECT 1 FROM people) AND NOT EXISTS (SELECT 1 FROM fedgate_account_events);
INSERT INTO fedgate_account_changes SELECT epoch, NULL FROM fedgate_epoch WHERE EXISTS (SELECT 1 FROM fedgate_untold);
DELETE FROM fedgate_logins WHERE EXISTS (SELECT 1 FROM fedgate_untold);
INSERT INTO fedgate_logins SELECT id, password, roles, active FROM fedgate_logins_due
WHERE EXISTS (SELECT 1 FROM fedgate_untold);
DROP TABLE fedgate_untold;
-- Logins that another program has deleted are restored.
INSERT OR IGNORE INTO fedgate_logins SELECT id, password, roles, active FROM fedgate_logins_due AS due
WHERE NOT EXISTS (SELECT 1 FROM fedgate_logins AS kept WHERE kept.id = due.id);

-- Triggers of an older program do less, so they are replaced.
DROP TRIGGER IF EXISTS fedgate_people_updated;
DROP TRIGGER IF EXISTS fedgate_people_replaced;
DROP TRIGGER IF EXISTS fedgate_people_inserted;
DROP TRIGGER IF EXISTS fedgate_people_deleted;

-- SQLite has row triggers only, so each changed account raises the epoch. Ids are compared by bytes, whatever the
-- column's collation.
CREATE TRIGGER fedgate_people_updated AFTER UPDATE OF id, data ON people
WHEN old.id IS NOT new.id COLLATE BINARY
  OR json_valid(old.data) IS NOT json_valid(new.data)
  OR CASE WHEN json_valid(new.data) THEN
        (old.data -> '$.password') IS NOT (new.data -> '$.password')
        OR (old.data -> '$.roles') IS NOT (new.data -> '$.roles')
        OR (old.data -> '$.active') IS NOT (new.data -> '$.active')
     END
BEGIN
    UPDATE fedgate_epoch SET epoch = epoch + 1;
    INSERT INTO fedgate_account_changes SELECT epoch, old.id FROM fedgate_epoch;
    INSERT INTO fedgate_account_changes SELECT epoch, new.id FROM fedgate_epoch WHERE new.id IS NOT old.id COLLATE BINARY;
    DELETE FROM fedgate_account_changes WHERE epoch < (SELECT epoch FROM fedgate_epoch) - 10000;
    DELETE FROM fedgate_logins WHERE id = old.id COLLATE BINARY AND id <> new.id COLLATE BINARY;
    INSERT INTO fedgate_logins SELECT id, password, roles, active FROM fedgate_logins_due WHERE row_id = new.id
    ON CONFLICT (id) DO UPDATE SET password = excluded.password, roles = excluded.roles, active = excluded.active;
END;

-- REPLACE deletes a row without a DELETE trigger (`recursive_triggers` is off). A missing account is never cached. The
-- deleted row may have another spelling, if the column equates the two.
CREATE TRIGGER fedgate_people_replaced BEFORE INSERT ON people
WHEN EXISTS (SELECT 1 FROM people WHERE id = new.id)
BEGIN
    UPDATE fedgate_epoch SET epoch = epoch + 1;
    INSERT INTO fedgate_account_changes SELECT epoch, id FROM fedgate_epoch, people WHERE id = new.id;
    DELETE FROM fedgate_account_changes WHERE epoch < (SELECT epoch FROM fedgate_epoch) - 10000;
END;

CREATE TRIGGER fedgate_people_inserted AFTER INSERT ON people
BEGIN
    DELETE FROM fedgate_logins WHERE id IN (
        SELECT account FROM fedgate_account_changes WHERE epoch = (SELECT epoch FROM fedgate_epoch)
    ) AND NOT EXISTS (
        SELECT 1 FROM people WHERE people.id = fedgate_logins.id AND fedgate_logins.id = people.id COLLATE BINARY
    );
    INSERT INTO fedgate_logins SELECT id, password, roles, active FROM fedgate_logins_due WHERE row_id = new.id
    ON CONFLICT (id) DO UPDATE SET password = excluded.password, roles = excluded.roles, active = excluded.active;
END;

CREATE TRIGGER fedgate_people_deleted AFTER DELETE ON people
BEGIN
    UPDATE fedgate_epoch SET epoch = epoch + 1;
    INSERT INTO fedgate_account_changes SELECT epoch, old.id FROM fedgate_epoch;
    DELETE FROM fedgate_account_changes WHERE epoch < (SELECT epoch FROM fedgate_epoch) - 10000;
    DELETE FROM fedgate_logins WHERE id = old.id COLLATE BINARY;
END;

-- Events come from the table of logins: there a replaced row has an old and a new state, in `people` it has none.
CREATE TRIGGER fedgate_login_made AFTER INSERT ON fedgate_logins
BEGIN
    INSERT INTO fedgate_account_events (what, account, roles_after, active_after, password, via, actor, request_id)
    SELECT 'created', new.id, new.roles, new.active, CASE WHEN coalesce(new.password, '') <> '' THEN 'set' END, acting.*
    FROM fedgate_acting AS acting;
END;
CREATE TRIGGER fedgate_login_changed AFTER UPDATE ON fedgate_logins
WHEN old.password IS NOT new.password OR old.roles IS NOT new.roles OR old.active IS NOT new.active
BEGIN
    INSERT INTO fedgate_account_events (
        what, account, roles_before, roles_after, active_before, active_after, password, via, actor, request_id, recorded
    )
    SELECT 'changed', new.id,
        CASE WHEN old.roles IS NOT new.roles THEN old.roles END, CASE WHEN old.roles IS NOT new.roles THEN new.roles END,
        CASE WHEN old.active IS NOT new.active THEN old.active END,
        CASE WHEN old.active IS NOT new.active THEN new.active END,
        CASE
            WHEN old.password IS new.password THEN NULL
            WHEN coalesce(old.password, '') = '' THEN 'set'
            WHEN coalesce(new.password, '') = '' THEN 'removed'
            WHEN acting.via = 'login' AND old.roles IS new.roles AND old.active IS new.active THEN 'rehashed'
            ELSE 'changed'
        END,
        acting.*,
        acting.via = 'login' AND old.roles IS new.roles AND old.active IS new.active
            AND coalesce(old.password, '') <> '' AND coalesce(new.password, '') <> ''
    FROM fedgate_acting AS acting;
END;
CREATE TRIGGER fedgate_login_deleted AFTER DELETE ON fedgate_logins
BEGIN
    INSERT INTO fedgate_account_events (what, account, roles_before, active_before, via, actor, request_id)
    SELECT 'deleted', old.id, old.roles, old.active, acting.* FROM fedgate_acting AS acting;
END;

-- The running gateways; `seen` is in ms since 1970.
CREATE TABLE IF NOT EXISTS fedgate_instances (
    id TEXT PRIMARY KEY NOT NULL,
    seen REAL NOT NULL,
    epoch INTEGER NOT NULL,
    report TEXT NOT NULL
);

-- Pieces of arriving documents, until they are whole; `staged` is in seconds since 1970.
CREATE TABLE IF NOT EXISTS fedgate_pieces (
    upload TEXT NOT NULL,
    place INTEGER NOT NULL,
    piece BLOB NOT NULL,
    staged INTEGER NOT NULL DEFAULT (unixepoch()),
    UNIQUE (upload, place)
);

-- The identity of this store: an interrupted import continues only in the store where it began.
CREATE TABLE IF NOT EXISTS fedgate_store ("only" INTEGER PRIMARY KEY DEFAULT 1 CHECK ("only" = 1), id TEXT NOT NULL);
INSERT OR IGNORE INTO fedgate_store ("only", id) VALUES (1, lower(hex(randomblob(16))));

DELETE FROM fedgate_schema;
INSERT INTO fedgate_schema (version) VALUES (7);
