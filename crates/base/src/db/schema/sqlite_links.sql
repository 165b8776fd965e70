-- Links and relations, as in PostgreSQL. Moments are in seconds since 1970. Their triggers are written by `links.rs`.
CREATE TABLE IF NOT EXISTS fedgate_links (
    system TEXT NOT NULL CHECK (
        system GLOB '[a-z0-9]*' AND system NOT GLOB '*[^a-z0-9-]*' AND length(CAST(system AS BLOB)) <= 32
    ),
    id TEXT NOT NULL CHECK (
        typeof(id) = 'text' AND length(CAST(id AS BLOB)) BETWEEN 1 AND 256
        AND id NOT GLOB '*[' || char(1) || '-' || char(31) || char(127) || ']*'
    ),
    account TEXT NOT NULL,
    since INTEGER NOT NULL DEFAULT (unixepoch()),
    PRIMARY KEY (system, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS fedgate_links_account ON fedgate_links (account);
CREATE TABLE IF NOT EXISTS fedgate_relations (
    account TEXT NOT NULL,
    subject TEXT NOT NULL CHECK (subject <> account),
    kind TEXT NOT NULL CHECK (
        kind GLOB '[a-z0-9]*' AND kind NOT GLOB '*[^a-z0-9-]*' AND length(CAST(kind AS BLOB)) <= 32
    ),
    valid_from INTEGER NOT NULL DEFAULT (unixepoch()) CHECK (typeof(valid_from) = 'integer'),
    valid_until INTEGER CHECK (valid_until IS NULL OR typeof(valid_until) = 'integer' AND valid_until > valid_from),
    PRIMARY KEY (account, subject, kind)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS fedgate_relations_subject ON fedgate_relations (subject);

-- The accounts to which a subject is related, under every id of their persons. A change of the subject concerns them.
DROP VIEW IF EXISTS fedgate_related_to;
CREATE VIEW fedgate_related_to AS
SELECT subject, account FROM fedgate_relations
UNION ALL
SELECT relation.subject, other.id FROM fedgate_relations AS relation
JOIN fedgate_same_persons AS mine ON mine.id = relation.account
JOIN fedgate_same_persons AS other ON other.person = mine.person AND other.id <> mine.id;

-- What changed while a trigger was missing may concern everybody.
UPDATE fedgate_epoch SET epoch = epoch + 1
WHERE (EXISTS (SELECT 1 FROM fedgate_links) OR EXISTS (SELECT 1 FROM fedgate_relations))
    AND NOT (SELECT fire FROM fedgate_triggers);
INSERT INTO fedgate_account_changes SELECT epoch, NULL FROM fedgate_epoch
WHERE (EXISTS (SELECT 1 FROM fedgate_links) OR EXISTS (SELECT 1 FROM fedgate_relations))
    AND NOT (SELECT fire FROM fedgate_triggers);
