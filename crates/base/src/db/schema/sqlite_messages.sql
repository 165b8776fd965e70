-- The messages of the relay, as in PostgreSQL. One transaction writes at a time, so the order in which messages are
-- appended is that of the commits, and the key itself is the position. A number that was rolled back is used again, so
-- positions are dense; AUTOINCREMENT keeps those of deleted messages from being used again.
CREATE TABLE IF NOT EXISTS fedgate_messages (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    resource TEXT NOT NULL,
    person TEXT,
    id TEXT,
    method TEXT NOT NULL,
    node TEXT,
    author TEXT,
    data TEXT,
    -- Of a node's own message alone, as in PostgreSQL.
    kind TEXT,
    addressee TEXT
);
CREATE INDEX IF NOT EXISTS fedgate_messages_person ON fedgate_messages (person, position) WHERE person IS NOT NULL;
-- An account uses each id once for its own messages; the next account of its id may use it again. Messages of nodes are
-- found by sender and by addressee.
DROP INDEX IF EXISTS fedgate_messages_sent;
CREATE INDEX IF NOT EXISTS fedgate_messages_sent_id ON fedgate_messages (node, id) WHERE addressee IS NOT NULL;
CREATE INDEX IF NOT EXISTS fedgate_messages_sender ON fedgate_messages (node, position) WHERE addressee IS NOT NULL;
CREATE INDEX IF NOT EXISTS fedgate_messages_addressee ON fedgate_messages (addressee, position) WHERE addressee IS NOT NULL;

-- The history of the positions, as in PostgreSQL. A file that is restored or copied begins another one.
CREATE TABLE IF NOT EXISTS fedgate_relay (
    "only" INTEGER PRIMARY KEY DEFAULT 1 CHECK ("only" = 1),
    history INTEGER NOT NULL DEFAULT 1,
    server TEXT
);
INSERT OR IGNORE INTO fedgate_relay ("only") VALUES (1);
CREATE TABLE IF NOT EXISTS fedgate_ended_histories (history INTEGER PRIMARY KEY, ends INTEGER NOT NULL);

-- The positions that nodes keep here under names. They end with their account.
CREATE TABLE IF NOT EXISTS fedgate_cursors (
    account TEXT NOT NULL,
    name TEXT NOT NULL,
    position INTEGER NOT NULL,
    history INTEGER,
    at TEXT NOT NULL,
    PRIMARY KEY (account, name)
) WITHOUT ROWID;

-- Accounts that ended, as in PostgreSQL: the next one of that id sees no message up to this position by its id.
CREATE TABLE IF NOT EXISTS fedgate_former_accounts (account TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;

-- Writes from a time without a trigger left no messages.
INSERT INTO fedgate_messages (resource, method, addressee)
SELECT 'all', 'RESET', 'all' WHERE EXISTS (SELECT 1 FROM fedgate_messages)
AND 15 <> (SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name LIKE 'fedgate\_message\_%' ESCAPE '\');

DROP VIEW IF EXISTS fedgate_messages_fire;
CREATE VIEW fedgate_messages_fire AS
SELECT count(*) = 15 AS fire FROM sqlite_schema
WHERE type = 'trigger' AND name LIKE 'fedgate\_message\_%' ESCAPE '\'
  AND tbl_name IN ('people', 'pols', 'personal_docs', 'dus', 'institutions');



-- The account that the gateway has authenticated, if it is the one that writes.
DROP VIEW IF EXISTS fedgate_acting_node;
CREATE VIEW fedgate_acting_node AS
SELECT (SELECT substr(actor, 1, 512) FROM fedgate_actor WHERE via = 'http') AS node,
       EXISTS (SELECT 1 FROM fedgate_actor WHERE via = 'login') AS is_login,
       EXISTS (SELECT 1 FROM fedgate_merging WHERE mode = 'merge') AS is_merge;

DROP TRIGGER IF EXISTS fedgate_message_person_inserted;
CREATE TRIGGER fedgate_message_person_inserted AFTER INSERT ON people
BEGIN
    -- A new account begins with no cursor and no webhook: a request of the account that had its id before may have been
    -- late. Foreign keys do not act in every program.
    DELETE FROM fedgate_cursors WHERE account = new.id COLLATE BINARY;
    DELETE FROM fedgate_webhook_keys WHERE webhook IN (SELECT id FROM fedgate_webhooks WHERE account = new.id COLLATE BINARY);
    DELETE FROM fedgate_deliveries WHERE webhook IN (SELECT id FROM fedgate_webhooks WHERE account = new.id COLLATE BINARY);
    DELETE FROM fedgate_webhooks WHERE account = new.id COLLATE BINARY;
    UPDATE fedgate_former_accounts SET position = (SELECT coalesce(max(position), 0) FROM fedgate_messages)
    WHERE account = new.id COLLATE BINARY;
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'person', new.id, new.id, 'POST', node, NULL,
        CASE WHEN json_valid(new.data) THEN
            CASE json_type(new.data) WHEN 'object' THEN json_remove(new.data, '$.password') END
        END
    FROM fedgate_acting_node;
END;
DROP TRIGGER IF EXISTS fedgate_message_person_deleted;
CREATE TRIGGER fedgate_message_person_deleted AFTER DELETE ON people
BEGIN
    DELETE FROM fedgate_cursors WHERE account = old.id COLLATE BINARY;
    DELETE FROM fedgate_webhook_keys WHERE webhook IN (SELECT id FROM fedgate_webhooks WHERE account = old.id COLLATE BINARY);
    DELETE FROM fedgate_deliveries WHERE webhook IN (SELECT id FROM fedgate_webhooks WHERE account = old.id COLLATE BINARY);
    DELETE FROM fedgate_webhooks WHERE account = old.id COLLATE BINARY;
    INSERT INTO fedgate_former_accounts (account, position)
    VALUES (old.id, (SELECT coalesce(max(position), 0) FROM fedgate_messages))
    ON CONFLICT (account) DO UPDATE SET position = excluded.position;
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'person', old.id, old.id, 'DELETE', node, NULL,
        NULL
    FROM fedgate_acting_node;
END;
DROP TRIGGER IF EXISTS fedgate_message_person_updated;
CREATE TRIGGER fedgate_message_person_updated AFTER UPDATE OF id, data ON people
WHEN NOT (SELECT is_login OR is_merge FROM fedgate_acting_node)
BEGIN
    DELETE FROM fedgate_cursors WHERE account IN (old.id, new.id) AND old.id IS NOT new.id COLLATE BINARY;
    DELETE FROM fedgate_webhook_keys WHERE webhook IN (SELECT id FROM fedgate_webhooks WHERE account IN (old.id, new.id) AND old.id IS NOT new.id COLLATE BINARY);
    DELETE FROM fedgate_deliveries WHERE webhook IN (SELECT id FROM fedgate_webhooks WHERE account IN (old.id, new.id) AND old.id IS NOT new.id COLLATE BINARY);
    DELETE FROM fedgate_webhooks WHERE account IN (old.id, new.id) AND old.id IS NOT new.id COLLATE BINARY;
    INSERT INTO fedgate_former_accounts (account, position)
    SELECT old.id, (SELECT coalesce(max(position), 0) FROM fedgate_messages) WHERE old.id IS NOT new.id COLLATE BINARY
    ON CONFLICT (account) DO UPDATE SET position = excluded.position;
    UPDATE fedgate_former_accounts SET position = (SELECT coalesce(max(position), 0) FROM fedgate_messages)
    WHERE account = new.id COLLATE BINARY AND old.id IS NOT new.id COLLATE BINARY;
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'person', old.id, old.id, 'DELETE', node, NULL,
        NULL
    FROM fedgate_acting_node
    WHERE old.id IS NOT new.id COLLATE BINARY;
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'person', new.id, new.id, 'POST', node, NULL,
        CASE WHEN json_valid(new.data) THEN
            CASE json_type(new.data) WHEN 'object' THEN json_remove(new.data, '$.password') END
        END
    FROM fedgate_acting_node
    WHERE old.id IS NOT new.id COLLATE BINARY;
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'person', new.id, new.id, CASE WHEN is_patch THEN 'PATCH' ELSE 'PUT' END, node, NULL,
        CASE WHEN is_patch THEN (
            SELECT json_group_object(key, json(new.data -> fullkey)) FROM json_each(new.data)
            WHERE old.data -> fullkey IS NOT new.data -> fullkey AND key <> 'password'
        ) ELSE CASE WHEN json_valid(new.data) THEN
            CASE json_type(new.data) WHEN 'object' THEN json_remove(new.data, '$.password') END
        END END
    FROM fedgate_acting_node
    CROSS JOIN (SELECT CASE WHEN json_valid(old.data) AND json_valid(new.data) THEN json_type(old.data) = 'object' AND json_type(new.data) = 'object'
            AND NOT EXISTS (SELECT 1 FROM json_each(old.data) WHERE new.data -> fullkey IS NULL AND key <> 'password')
            AND NOT EXISTS (SELECT 1 FROM json_each(new.data) WHERE new.data -> fullkey IS NULL) END IS TRUE AS is_patch)
    WHERE NOT (old.id IS NOT new.id COLLATE BINARY);
END;

DROP TRIGGER IF EXISTS fedgate_message_page_inserted;
CREATE TRIGGER fedgate_message_page_inserted AFTER INSERT ON pols
BEGIN
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'page', new.book, new.id, 'POST', node, substr((CASE WHEN json_valid(new.data) THEN new.data END) ->> '$.author', 1, 512),
        CASE WHEN json_valid(new.data) THEN json(new.data) END
    FROM fedgate_acting_node;
END;
DROP TRIGGER IF EXISTS fedgate_message_page_deleted;
CREATE TRIGGER fedgate_message_page_deleted AFTER DELETE ON pols
BEGIN
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'page', old.book, old.id, 'DELETE', node, NULL,
        NULL
    FROM fedgate_acting_node;
END;
DROP TRIGGER IF EXISTS fedgate_message_page_updated;
CREATE TRIGGER fedgate_message_page_updated AFTER UPDATE OF id, book, data ON pols
BEGIN
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'page', old.book, old.id, 'DELETE', node, NULL,
        NULL
    FROM fedgate_acting_node
    WHERE old.id IS NOT new.id COLLATE BINARY OR old.book IS NOT new.book;
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'page', new.book, new.id, 'POST', node, substr((CASE WHEN json_valid(new.data) THEN new.data END) ->> '$.author', 1, 512),
        CASE WHEN json_valid(new.data) THEN json(new.data) END
    FROM fedgate_acting_node
    WHERE old.id IS NOT new.id COLLATE BINARY OR old.book IS NOT new.book;
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'page', new.book, new.id, CASE WHEN is_patch THEN 'PATCH' ELSE 'PUT' END, node, substr((CASE WHEN json_valid(new.data) THEN new.data END) ->> '$.author', 1, 512),
        CASE WHEN is_patch THEN (
            SELECT json_group_object(key, json(new.data -> fullkey)) FROM json_each(new.data)
            WHERE old.data -> fullkey IS NOT new.data -> fullkey
        ) ELSE CASE WHEN json_valid(new.data) THEN json(new.data) END END
    FROM fedgate_acting_node
    CROSS JOIN (SELECT CASE WHEN json_valid(old.data) AND json_valid(new.data) THEN json_type(old.data) = 'object' AND json_type(new.data) = 'object'
            AND NOT EXISTS (SELECT 1 FROM json_each(old.data) WHERE new.data -> fullkey IS NULL)
            AND NOT EXISTS (SELECT 1 FROM json_each(new.data) WHERE new.data -> fullkey IS NULL) END IS TRUE AS is_patch)
    WHERE NOT (old.id IS NOT new.id COLLATE BINARY OR old.book IS NOT new.book);
END;

DROP TRIGGER IF EXISTS fedgate_message_document_inserted;
CREATE TRIGGER fedgate_message_document_inserted AFTER INSERT ON personal_docs
BEGIN
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'document', new.fedacct, new.id, 'POST', node, NULL,
        json_object(
            'pol', new.pol, 'bytes', length(new.document),
            'data', json(CASE WHEN json_valid(new.data) THEN new.data ELSE 'null' END)
        )
    FROM fedgate_acting_node;
END;
DROP TRIGGER IF EXISTS fedgate_message_document_deleted;
CREATE TRIGGER fedgate_message_document_deleted AFTER DELETE ON personal_docs
BEGIN
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'document', old.fedacct, old.id, 'DELETE', node, NULL,
        NULL
    FROM fedgate_acting_node;
END;
DROP TRIGGER IF EXISTS fedgate_message_document_updated;
CREATE TRIGGER fedgate_message_document_updated AFTER UPDATE ON personal_docs
BEGIN
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'document', old.fedacct, old.id, 'DELETE', node, NULL,
        NULL
    FROM fedgate_acting_node
    WHERE old.id IS NOT new.id COLLATE BINARY OR old.fedacct IS NOT new.fedacct;
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'document', new.fedacct, new.id, CASE WHEN old.id IS NOT new.id COLLATE BINARY OR old.fedacct IS NOT new.fedacct THEN 'POST' ELSE 'PUT' END, node, NULL,
        json_object(
            'pol', new.pol, 'bytes', length(new.document),
            'data', json(CASE WHEN json_valid(new.data) THEN new.data ELSE 'null' END)
        )
    FROM fedgate_acting_node;
END;

DROP TRIGGER IF EXISTS fedgate_message_unit_inserted;
CREATE TRIGGER fedgate_message_unit_inserted AFTER INSERT ON dus
BEGIN
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'domiciliary_unit', NULL, new.id, 'POST', node, NULL,
        CASE WHEN json_valid(new.data) THEN json(new.data) END
    FROM fedgate_acting_node;
END;
DROP TRIGGER IF EXISTS fedgate_message_unit_deleted;
CREATE TRIGGER fedgate_message_unit_deleted AFTER DELETE ON dus
BEGIN
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'domiciliary_unit', NULL, old.id, 'DELETE', node, NULL,
        NULL
    FROM fedgate_acting_node;
END;
DROP TRIGGER IF EXISTS fedgate_message_unit_updated;
CREATE TRIGGER fedgate_message_unit_updated AFTER UPDATE OF id, data ON dus
BEGIN
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'domiciliary_unit', NULL, old.id, 'DELETE', node, NULL,
        NULL
    FROM fedgate_acting_node
    WHERE old.id IS NOT new.id COLLATE BINARY;
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'domiciliary_unit', NULL, new.id, 'POST', node, NULL,
        CASE WHEN json_valid(new.data) THEN json(new.data) END
    FROM fedgate_acting_node
    WHERE old.id IS NOT new.id COLLATE BINARY;
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'domiciliary_unit', NULL, new.id, CASE WHEN is_patch THEN 'PATCH' ELSE 'PUT' END, node, NULL,
        CASE WHEN is_patch THEN (
            SELECT json_group_object(key, json(new.data -> fullkey)) FROM json_each(new.data)
            WHERE old.data -> fullkey IS NOT new.data -> fullkey
        ) ELSE CASE WHEN json_valid(new.data) THEN json(new.data) END END
    FROM fedgate_acting_node
    CROSS JOIN (SELECT CASE WHEN json_valid(old.data) AND json_valid(new.data) THEN json_type(old.data) = 'object' AND json_type(new.data) = 'object'
            AND NOT EXISTS (SELECT 1 FROM json_each(old.data) WHERE new.data -> fullkey IS NULL)
            AND NOT EXISTS (SELECT 1 FROM json_each(new.data) WHERE new.data -> fullkey IS NULL) END IS TRUE AS is_patch)
    WHERE NOT (old.id IS NOT new.id COLLATE BINARY);
END;

DROP TRIGGER IF EXISTS fedgate_message_institution_inserted;
CREATE TRIGGER fedgate_message_institution_inserted AFTER INSERT ON institutions
BEGIN
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'institution', NULL, new.id, 'POST', node, NULL,
        CASE WHEN json_valid(new.data) THEN json(new.data) END
    FROM fedgate_acting_node;
END;
DROP TRIGGER IF EXISTS fedgate_message_institution_deleted;
CREATE TRIGGER fedgate_message_institution_deleted AFTER DELETE ON institutions
BEGIN
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'institution', NULL, old.id, 'DELETE', node, NULL,
        NULL
    FROM fedgate_acting_node;
END;
DROP TRIGGER IF EXISTS fedgate_message_institution_updated;
CREATE TRIGGER fedgate_message_institution_updated AFTER UPDATE OF id, data ON institutions
BEGIN
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'institution', NULL, old.id, 'DELETE', node, NULL,
        NULL
    FROM fedgate_acting_node
    WHERE old.id IS NOT new.id COLLATE BINARY;
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'institution', NULL, new.id, 'POST', node, NULL,
        CASE WHEN json_valid(new.data) THEN json(new.data) END
    FROM fedgate_acting_node
    WHERE old.id IS NOT new.id COLLATE BINARY;
    INSERT INTO fedgate_messages (resource, person, id, method, node, author, data)
    SELECT 'institution', NULL, new.id, CASE WHEN is_patch THEN 'PATCH' ELSE 'PUT' END, node, NULL,
        CASE WHEN is_patch THEN (
            SELECT json_group_object(key, json(new.data -> fullkey)) FROM json_each(new.data)
            WHERE old.data -> fullkey IS NOT new.data -> fullkey
        ) ELSE CASE WHEN json_valid(new.data) THEN json(new.data) END END
    FROM fedgate_acting_node
    CROSS JOIN (SELECT CASE WHEN json_valid(old.data) AND json_valid(new.data) THEN json_type(old.data) = 'object' AND json_type(new.data) = 'object'
            AND NOT EXISTS (SELECT 1 FROM json_each(old.data) WHERE new.data -> fullkey IS NULL)
            AND NOT EXISTS (SELECT 1 FROM json_each(new.data) WHERE new.data -> fullkey IS NULL) END IS TRUE AS is_patch)
    WHERE NOT (old.id IS NOT new.id COLLATE BINARY);
END;

