-- Merges, as in PostgreSQL.
CREATE TABLE IF NOT EXISTS fedgate_same_persons (id TEXT PRIMARY KEY, person TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS fedgate_same_persons_person ON fedgate_same_persons (person);
CREATE TABLE IF NOT EXISTS fedgate_merges (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    old TEXT NOT NULL,
    survivor TEXT NOT NULL,
    at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    by TEXT,
    why TEXT,
    kept TEXT,
    undone_at TEXT,
    undone_by TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS fedgate_merges_old ON fedgate_merges (old) WHERE undone_at IS NULL;
CREATE INDEX IF NOT EXISTS fedgate_merges_survivor ON fedgate_merges (survivor) WHERE undone_at IS NULL;

-- A row during one transaction of our programs that keeps `kept` itself: `merge`, which also leaves its own message, or
-- `through`.
CREATE TABLE IF NOT EXISTS fedgate_merging ("only" INTEGER PRIMARY KEY DEFAULT 1 CHECK ("only" = 1), mode TEXT NOT NULL);
DELETE FROM fedgate_merging;

-- One message for each merge and for its end.
DROP TRIGGER IF EXISTS fedgate_merge_made;
CREATE TRIGGER fedgate_merge_made AFTER INSERT ON fedgate_merges
BEGIN
    INSERT INTO fedgate_messages (resource, person, id, method, node, data)
    SELECT 'person', new.survivor, new.survivor, 'MERGE', node,
        json_object('old', new.old, 'survivor', new.survivor, 'merge', new.id)
    FROM fedgate_acting_node;
END;
DROP TRIGGER IF EXISTS fedgate_merge_undone;
CREATE TRIGGER fedgate_merge_undone AFTER UPDATE ON fedgate_merges
WHEN old.undone_at IS NULL AND new.undone_at IS NOT NULL
BEGIN
    INSERT INTO fedgate_messages (resource, person, id, method, node, data)
    SELECT 'person', new.survivor, new.survivor, 'UNMERGE', node,
        json_object('old', new.old, 'survivor', new.survivor, 'merge', new.id)
    FROM fedgate_acting_node;
END;

-- The person has ended: whoever gets the id next is somebody else, so nobody of the group stays joined by it.
DROP TRIGGER IF EXISTS fedgate_merges_deleted;
CREATE TRIGGER fedgate_merges_deleted AFTER DELETE ON people
WHEN EXISTS (SELECT 1 FROM fedgate_same_persons WHERE id = old.id COLLATE BINARY)
BEGIN
    UPDATE fedgate_merges SET undone_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), kept = NULL
    WHERE undone_at IS NULL AND fedgate_merges.old IN (
        SELECT other.id FROM fedgate_same_persons AS same JOIN fedgate_same_persons AS other ON other.person = same.person
        WHERE same.id = old.id COLLATE BINARY
    );
    DELETE FROM fedgate_same_persons
    WHERE person = (SELECT same.person FROM fedgate_same_persons AS same WHERE same.id = old.id COLLATE BINARY);
END;
DROP TRIGGER IF EXISTS fedgate_merges_renamed;
CREATE TRIGGER fedgate_merges_renamed AFTER UPDATE OF id, data ON people
WHEN old.id IS NOT new.id COLLATE BINARY AND EXISTS (SELECT 1 FROM fedgate_same_persons WHERE id = old.id COLLATE BINARY)
BEGIN
    UPDATE fedgate_merges SET undone_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), kept = NULL
    WHERE undone_at IS NULL AND fedgate_merges.old IN (
        SELECT other.id FROM fedgate_same_persons AS same JOIN fedgate_same_persons AS other ON other.person = same.person
        WHERE same.id = old.id COLLATE BINARY
    );
    DELETE FROM fedgate_same_persons
    WHERE person = (SELECT same.person FROM fedgate_same_persons AS same WHERE same.id = old.id COLLATE BINARY);
END;

-- What another program changes of a survivor it would have changed without the merge, too.
DROP TRIGGER IF EXISTS fedgate_merges_follow;
CREATE TRIGGER fedgate_merges_follow AFTER UPDATE OF id, data ON people
WHEN EXISTS (SELECT 1 FROM fedgate_merges WHERE survivor = new.id COLLATE BINARY AND undone_at IS NULL)
    AND NOT EXISTS (SELECT 1 FROM fedgate_merging)
    AND NOT (SELECT is_login FROM fedgate_acting_node)
    AND CASE WHEN json_valid(old.data) AND json_valid(new.data)
        THEN json_type(old.data) = 'object' AND json_type(new.data) = 'object'
        AND NOT EXISTS (SELECT 1 FROM json_each(new.data) WHERE new.data -> fullkey IS NULL) END
BEGIN
    UPDATE fedgate_merges SET kept = (
        SELECT json_group_object(key, json(member)) FROM (
            SELECT key, fedgate_merges.kept -> fullkey AS member FROM json_each(fedgate_merges.kept)
            WHERE (old.data -> fullkey) IS (new.data -> fullkey)
            UNION ALL
            SELECT key, new.data -> fullkey FROM json_each(new.data)
            WHERE (old.data -> fullkey) IS NOT (new.data -> fullkey)
              AND key NOT IN ('id', 'password', 'roles', 'active')
        )
    ) WHERE survivor = new.id COLLATE BINARY AND undone_at IS NULL;
END;
