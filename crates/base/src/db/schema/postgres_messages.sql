-- The messages of the relay: each accepted write leaves one, in its own transaction. Everything is created beside
-- `people`, in the schema where the search path finds it.
SELECT set_config('search_path', quote_ident(nspname) || ', pg_temp', true)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = 'people'::regclass;

-- The order in which writers append. A writer takes its number while it holds the lock of the row that it wrote, so
-- two writes to one row have numbers in the order of their commits; and a write that begins after another one was
-- acknowledged has the higher number.
CREATE SEQUENCE IF NOT EXISTS fedgate_entry AS bigint;

-- The content of messages, as the writers appended it. A message is stored once and never moved; its position is in
-- another table. A whole partition is dropped when all its messages are old.
CREATE TABLE IF NOT EXISTS fedgate_messages (
    entry bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    resource varchar NOT NULL,
    person varchar COLLATE "C",
    id varchar COLLATE "C",
    method varchar NOT NULL,
    node varchar COLLATE "C",
    author varchar,
    data jsonb,
    -- Of a node's own message alone: its type, and whom it is for (`node X`, `role r` or `all`).
    kind varchar COLLATE "C",
    addressee varchar COLLATE "C",
    PRIMARY KEY (entry)
) PARTITION BY RANGE (entry);
-- For entries of a range that has no partition of its own, so that no write ever fails for want of one.
CREATE TABLE IF NOT EXISTS fedgate_messages_rest PARTITION OF fedgate_messages DEFAULT;

-- Messages without a position. A row is deleted when its message gets one, so the table is short.
CREATE TABLE IF NOT EXISTS fedgate_waiting (
    entry bigint PRIMARY KEY,
    person varchar COLLATE "C",
    sender varchar COLLATE "C",
    addressee varchar COLLATE "C"
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_insert_threshold = -1);

-- The position of each message: dense from 1, in an order that never changes. A node's own message has a sender and an
-- addressee, and nobody else sees it.
CREATE TABLE IF NOT EXISTS fedgate_positions (
    position bigint NOT NULL,
    entry bigint NOT NULL,
    person varchar COLLATE "C",
    sender varchar COLLATE "C",
    addressee varchar COLLATE "C",
    PRIMARY KEY (position)
) PARTITION BY RANGE (position);
CREATE INDEX IF NOT EXISTS fedgate_positions_person ON fedgate_positions (person, position) WHERE person IS NOT NULL;
CREATE INDEX IF NOT EXISTS fedgate_positions_sender ON fedgate_positions (sender, position) WHERE sender IS NOT NULL;
CREATE INDEX IF NOT EXISTS fedgate_positions_addressee ON fedgate_positions (addressee, position) WHERE addressee IS NOT NULL;
CREATE INDEX IF NOT EXISTS fedgate_positions_entry ON fedgate_positions USING brin (entry);

-- The last position, in one row: a transaction that gives positions locks it. Entries up to `decided` have a position or
-- were rolled back. `next_decided` becomes `decided` when no transaction with an id below `next_id` runs any longer.
CREATE TABLE IF NOT EXISTS fedgate_relay (
    "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"),
    position bigint NOT NULL DEFAULT 0,
    first bigint NOT NULL DEFAULT 1,
    decided bigint NOT NULL DEFAULT 0,
    next_decided bigint NOT NULL DEFAULT 0,
    next_id xid8 NOT NULL DEFAULT '0',
    history bigint NOT NULL DEFAULT 1,
    server text COLLATE "C"
);
INSERT INTO fedgate_relay DEFAULT VALUES ON CONFLICT DO NOTHING;

-- Histories that have ended, each with its last position as this database knows it. A standby that is promoted, and a
-- restored dump, may lack the last messages of the history that they go on with. The numbers of these are given again, so
-- a reader that has seen them must not go on. It tells by the history where it stands.
CREATE TABLE IF NOT EXISTS fedgate_ended_histories (
    history bigint PRIMARY KEY,
    ends bigint NOT NULL
);

-- The database that gives positions: another one after a promotion (another timeline), a restore or a copy.
CREATE OR REPLACE FUNCTION fedgate_server() RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
BEGIN
    RETURN concat_ws(' ', (pg_control_system()).system_identifier, left(pg_walfile_name(pg_current_wal_lsn()), 8),
        (SELECT oid FROM pg_database WHERE datname = current_database()), 'fedgate_relay'::regclass::oid);
EXCEPTION WHEN OTHERS THEN
    -- Some hosted servers show neither.
    RETURN (SELECT oid FROM pg_database WHERE datname = current_database()) || ' ' || 'fedgate_relay'::regclass::oid;
END
$$;

-- Ends the history. Operators call it after a restore that the database does not show, such as that of a snapshot.
CREATE OR REPLACE FUNCTION fedgate_begin_history() RETURNS bigint
LANGUAGE sql SET search_path FROM CURRENT AS $$
    WITH ended AS (SELECT history, position FROM fedgate_relay FOR UPDATE), kept AS (
        INSERT INTO fedgate_ended_histories (history, ends) SELECT history, position FROM ended
    )
    UPDATE fedgate_relay SET history = ended.history + 1 FROM ended RETURNING fedgate_relay.history;
$$;
REVOKE ALL ON FUNCTION fedgate_begin_history() FROM PUBLIC;

-- The ids that nodes gave their own messages, so that a message that is sent again is not stored again. A row ends with its
-- message.
CREATE TABLE IF NOT EXISTS fedgate_sent (
    sender varchar COLLATE "C" NOT NULL,
    id varchar COLLATE "C" NOT NULL,
    entry bigint NOT NULL,
    PRIMARY KEY (sender, id)
);
CREATE INDEX IF NOT EXISTS fedgate_sent_entry ON fedgate_sent (entry);

-- The positions that nodes keep here under names. They end with their account.
CREATE TABLE IF NOT EXISTS fedgate_cursors (
    account varchar COLLATE "C" NOT NULL,
    name varchar COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    history bigint,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (account, name)
);

-- Accounts that ended, by deletion or under another id, and all of them under an empty id. An account that gets such an id
-- again sees nothing from before that it would see by its id: a number that was taken when it began, or when the former one
-- ended.
CREATE TABLE IF NOT EXISTS fedgate_former_accounts (
    account varchar COLLATE "C" PRIMARY KEY,
    entry bigint NOT NULL
);

-- Ends what belongs to an account of the relay: its cursors, and its webhooks with their keys and what waits for them; null
-- for all accounts. A new account begins with nothing, too: a request of the account that had its id before may have been
-- late.
CREATE OR REPLACE FUNCTION fedgate_forget_node(id varchar) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    ended varchar;
BEGIN
    DELETE FROM fedgate_cursors AS kept WHERE $1 IS NULL OR kept.account = $1 COLLATE "C";
    FOR ended IN
        DELETE FROM fedgate_webhooks AS kept WHERE $1 IS NULL OR kept.account = $1 COLLATE "C" RETURNING kept.id
    LOOP
        -- No foreign key acts while a replication applies changes.
        DELETE FROM fedgate_webhook_keys WHERE webhook = ended;
        DELETE FROM fedgate_deliveries WHERE webhook = ended;
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION fedgate_forget_node(varchar) FROM PUBLIC;

-- The account ends, or all of them do. No account has an empty id, but a row may.
CREATE OR REPLACE FUNCTION fedgate_end_node(id varchar) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM fedgate_forget_node(id);
    -- The ids that it gave its messages are free for the next account.
    DELETE FROM fedgate_sent AS sent WHERE $1 IS NULL OR sent.sender = $1 COLLATE "C";
    INSERT INTO fedgate_former_accounts AS former
    SELECT coalesce($1, ''), nextval('fedgate_entry') WHERE $1 IS DISTINCT FROM ''
    ON CONFLICT (account) DO UPDATE SET entry = excluded.entry;
END
$$;
REVOKE ALL ON FUNCTION fedgate_end_node(varchar) FROM PUBLIC;

-- An account begins. What was sent to its id after the former one had ended is not for it either.
CREATE OR REPLACE FUNCTION fedgate_begin_node(id varchar) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM fedgate_forget_node(id);
    INSERT INTO fedgate_former_accounts AS former
    SELECT $1, nextval('fedgate_entry') WHERE $1 <> '' AND EXISTS (
        SELECT FROM fedgate_former_accounts AS known WHERE known.account IN ('', $1 COLLATE "C")
    )
    ON CONFLICT (account) DO UPDATE SET entry = excluded.entry;
END
$$;
REVOKE ALL ON FUNCTION fedgate_begin_node(varchar) FROM PUBLIC;

-- Appends a message, for the triggers below, which run as its owner. Nothing here can fail unless the write fails:
-- there is no condition and no foreign key, and long values are cut. Only an account that the gateway has authenticated
-- is named as the node.
CREATE OR REPLACE FUNCTION fedgate_append(
    resource varchar, person varchar, id varchar, method varchar, author varchar, data jsonb
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    entry bigint := nextval('fedgate_entry');
    acts text COLLATE "C" := current_setting('fedgate.actor', true);
    node text COLLATE "C";
BEGIN
    IF starts_with(acts, 'http ') THEN
        node := left(substr(acts, 6 + strpos(substr(acts, 6), ' ')), 512);
    END IF;
    INSERT INTO fedgate_messages (entry, resource, person, id, method, node, author, data)
    VALUES (entry, resource, person, id, method, node, left(author, 512), data);
    -- A RESET may concern every reader, so it is for all.
    INSERT INTO fedgate_waiting (entry, person, addressee)
    VALUES (entry, person, CASE WHEN method = 'RESET' THEN 'all' END);
END
$$;
REVOKE ALL ON FUNCTION fedgate_append(varchar, varchar, varchar, varchar, varchar, jsonb) FROM PUBLIC;

-- Stores a node's own message, unless the sender has used its id; then returns what is stored under that id.
CREATE OR REPLACE FUNCTION fedgate_send(
    sender varchar, id varchar, addressee varchar, kind varchar, data jsonb,
    OUT is_new boolean, OUT known_addressee varchar, OUT known_kind varchar, OUT known_data varchar
) RETURNS record
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    own bigint;
BEGIN
    -- A number is taken only by a transaction that has an id: `fedgate_give_positions` counts on it.
    PERFORM pg_current_xact_id();
    INSERT INTO fedgate_sent (sender, id, entry) VALUES (fedgate_send.sender, fedgate_send.id, nextval('fedgate_entry'))
    ON CONFLICT DO NOTHING RETURNING entry INTO own;
    is_new := own IS NOT NULL;
    IF is_new THEN
        INSERT INTO fedgate_messages (entry, resource, id, method, node, kind, addressee, data)
        VALUES (own, 'message', fedgate_send.id, 'POST', fedgate_send.sender, fedgate_send.kind, fedgate_send.addressee, fedgate_send.data);
        INSERT INTO fedgate_waiting (entry, sender, addressee) VALUES (own, fedgate_send.sender, fedgate_send.addressee);
    ELSE
        SELECT message.addressee, message.kind, message.data::text INTO known_addressee, known_kind, known_data
        FROM fedgate_sent AS sent JOIN fedgate_messages AS message USING (entry)
        WHERE sent.sender = fedgate_send.sender AND sent.id = fedgate_send.id;
    END IF;
END
$$;
REVOKE ALL ON FUNCTION fedgate_send(varchar, varchar, varchar, varchar, jsonb) FROM PUBLIC;

-- The members of a document that changed. Null if a member was removed, or if either value is no object: then only the
-- whole document tells what it is now.
CREATE OR REPLACE FUNCTION fedgate_changed_members(before jsonb, after jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN jsonb_typeof(before) = 'object' AND jsonb_typeof(after) = 'object'
        AND NOT EXISTS (SELECT FROM jsonb_object_keys(before) AS member WHERE NOT after ? member)
    THEN (
        SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(after)
        WHERE before -> key IS DISTINCT FROM value
    ) END
$$;

-- A change of one row as a message: POST and DELETE, PATCH with the changed members, or PUT with the whole document.
CREATE OR REPLACE FUNCTION fedgate_append_change(
    resource varchar, person varchar, id varchar, author varchar, before jsonb, after jsonb
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    members jsonb := fedgate_changed_members(before, after);
BEGIN
    PERFORM fedgate_append(
        resource, person, id, CASE WHEN members IS NULL THEN 'PUT' ELSE 'PATCH' END, author, coalesce(members, after)
    );
END
$$;
REVOKE ALL ON FUNCTION fedgate_append_change(varchar, varchar, varchar, varchar, jsonb, jsonb) FROM PUBLIC;

-- A person's document without the password. Any other value than an object is left out, since a hash may be anywhere
-- in it.
CREATE OR REPLACE FUNCTION fedgate_shown_person(data jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$ SELECT CASE WHEN jsonb_typeof(data) = 'object' THEN data - 'password' END $$;

CREATE OR REPLACE FUNCTION fedgate_person_message() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM fedgate_begin_node(NEW.id);
        PERFORM fedgate_append('person', NEW.id, NEW.id, 'POST', NULL, fedgate_shown_person(NEW.data));
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM fedgate_end_node(OLD.id);
        PERFORM fedgate_append('person', OLD.id, OLD.id, 'DELETE', NULL, NULL);
    ELSIF OLD.id::varchar COLLATE "C" <> NEW.id::varchar COLLATE "C" THEN
        PERFORM fedgate_end_node(OLD.id), fedgate_begin_node(NEW.id);
        PERFORM fedgate_append('person', OLD.id, OLD.id, 'DELETE', NULL, NULL);
        PERFORM fedgate_append('person', NEW.id, NEW.id, 'POST', NULL, fedgate_shown_person(NEW.data));
    ELSIF NOT starts_with(coalesce(current_setting('fedgate.actor', true), ''), 'login ')
        AND coalesce(current_setting('fedgate.merging', true), '') <> 'merge' THEN
        -- A login that replaces its own hash is no write of the record, and a merge has a message of its own.
        PERFORM fedgate_append_change(
            'person', NEW.id, NEW.id, NULL, fedgate_shown_person(OLD.data), fedgate_shown_person(NEW.data)
        );
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION fedgate_page_message() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM fedgate_append('page', NEW.book, NEW.id, 'POST', NEW.data ->> 'author', NEW.data);
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM fedgate_append('page', OLD.book, OLD.id, 'DELETE', NULL, NULL);
    ELSIF (OLD.id, OLD.book) IS DISTINCT FROM (NEW.id, NEW.book) THEN
        PERFORM fedgate_append('page', OLD.book, OLD.id, 'DELETE', NULL, NULL);
        PERFORM fedgate_append('page', NEW.book, NEW.id, 'POST', NEW.data ->> 'author', NEW.data);
    ELSE
        PERFORM fedgate_append_change('page', NEW.book, NEW.id, NEW.data ->> 'author', OLD.data, NEW.data);
    END IF;
    RETURN NULL;
END
$$;

-- Of a document the message has everything but its bytes, and how many there are.
CREATE OR REPLACE FUNCTION fedgate_document_message() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        IF TG_OP = 'DELETE' OR (OLD.id, OLD.fedacct) IS DISTINCT FROM (NEW.id, NEW.fedacct) THEN
            PERFORM fedgate_append('document', OLD.fedacct, OLD.id, 'DELETE', NULL, NULL);
        END IF;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM fedgate_append(
            'document', NEW.fedacct, NEW.id,
            CASE WHEN TG_OP = 'UPDATE' AND (OLD.id, OLD.fedacct) IS NOT DISTINCT FROM (NEW.id, NEW.fedacct) THEN 'PUT' ELSE 'POST' END,
            NULL, jsonb_build_object('pol', NEW.pol, 'bytes', octet_length(NEW.document), 'data', NEW.data)
        );
    END IF;
    RETURN NULL;
END
$$;

-- Domiciliary units and institutions; the argument of the trigger names the kind.
CREATE OR REPLACE FUNCTION fedgate_unit_message() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM fedgate_append(TG_ARGV[0], NULL, NEW.id, 'POST', NULL, NEW.data);
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM fedgate_append(TG_ARGV[0], NULL, OLD.id, 'DELETE', NULL, NULL);
    ELSIF OLD.id IS DISTINCT FROM NEW.id THEN
        PERFORM fedgate_append(TG_ARGV[0], NULL, OLD.id, 'DELETE', NULL, NULL);
        PERFORM fedgate_append(TG_ARGV[0], NULL, NEW.id, 'POST', NULL, NEW.data);
    ELSE
        PERFORM fedgate_append_change(TG_ARGV[0], NULL, NEW.id, NULL, OLD.data, NEW.data);
    END IF;
    RETURN NULL;
END
$$;

-- A statement that empties a table has no rows to tell of: readers must read the lists again.
CREATE OR REPLACE FUNCTION fedgate_all_deleted_message() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_ARGV[0] = 'person' THEN
        PERFORM fedgate_end_node(NULL);
    END IF;
    PERFORM fedgate_append(TG_ARGV[0], NULL, NULL, 'RESET', NULL, NULL);
    RETURN NULL;
END
$$;

-- Whether every trigger that appends messages exists and fires for all sessions.
CREATE OR REPLACE FUNCTION fedgate_messages_fire() RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT count(*) = 10 FROM pg_trigger
    WHERE tgname IN ('fedgate_message', 'fedgate_all_deleted') AND tgenabled = 'A'
      AND tgrelid IN ('people'::regclass, 'pols'::regclass, 'personal_docs'::regclass, 'dus'::regclass, 'institutions'::regclass)
$$;
GRANT EXECUTE ON FUNCTION fedgate_messages_fire() TO PUBLIC;

-- Gives positions to the committed messages that have none, to at most `most`; -1 if another session is just doing so.
--
-- The order is that of the entries, within what is committed when this begins. A writer that began after another write
-- was acknowledged has a higher entry, and whenever its message is visible, so is the earlier one. So no message
-- comes before one that its writer could have seen. The row lock of `fedgate_relay` makes positions dense: the next
-- statement sees what the previous holder did. A session that is paused or lost holds it no longer than this call.
CREATE OR REPLACE FUNCTION fedgate_give_positions(most bigint, OUT given bigint, OUT last bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    relay fedgate_relay;
    oldest xid8;
    -- Read before this transaction has an id: a transaction that has taken a number up to this one has a lower id. The
    -- `xmax` of a snapshot would not do, since transactions that run may have ids above it.
    taken_upto bigint := CASE WHEN pg_current_xact_id_if_assigned() IS NULL THEN (SELECT last_value FROM fedgate_entry) END;
BEGIN
    -- Usually there is nothing to do, and then nothing is written.
    IF NOT EXISTS (SELECT FROM fedgate_waiting WHERE entry > (SELECT decided FROM fedgate_relay)) THEN
        SELECT 0, position INTO given, last FROM fedgate_relay;
        RETURN;
    END IF;
    SELECT * INTO relay FROM fedgate_relay FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        given := -1;
        RETURN;
    END IF;
    IF relay.server IS DISTINCT FROM fedgate_server() THEN
        IF relay.server IS NOT NULL THEN
            PERFORM fedgate_begin_history();
        END IF;
        -- The ids of transactions may be those of another cluster, so what was about to be decided is looked at anew.
        UPDATE fedgate_relay SET server = fedgate_server(), next_decided = fedgate_relay.decided, next_id = '0'
        RETURNING * INTO relay;
    END IF;
    -- Read before the messages: what was decided then is visible to the next statement.
    oldest := pg_snapshot_xmin(pg_current_snapshot());
    -- One range of the index, whatever the plan was made for: a plan for few messages is used for many, too. Deleted rows
    -- stay in the index while any old snapshot exists, so the range begins behind those that are decided.
    WITH taken AS (
        DELETE FROM fedgate_waiting WHERE entry > relay.decided AND entry <= coalesce((
            SELECT waiting.entry FROM fedgate_waiting AS waiting WHERE waiting.entry > relay.decided
            ORDER BY waiting.entry OFFSET most - 1 LIMIT 1
        ), 9223372036854775807) RETURNING entry, person, sender, addressee
    ), placed AS (
        INSERT INTO fedgate_positions (position, entry, person, sender, addressee)
        SELECT relay.position + row_number() OVER (ORDER BY entry), entry, person, sender, addressee FROM taken
        RETURNING 1
    ) SELECT count(*) INTO given FROM placed;
    last := relay.position + given;
    IF given < most AND relay.next_id <= oldest THEN
        relay.decided := relay.next_decided;
        relay.next_decided := greatest(relay.decided, taken_upto);
        relay.next_id := pg_current_xact_id();
        IF given = 0 AND relay.next_decided = relay.decided THEN
            RETURN;
        END IF;
    ELSIF given = 0 THEN
        RETURN;
    END IF;
    UPDATE fedgate_relay
    SET position = last, decided = relay.decided, next_decided = relay.next_decided, next_id = relay.next_id;
    -- One notice for each batch: each NOTIFY takes a lock that all notifying commits of the cluster share.
    IF given > 0 THEN
        PERFORM pg_notify('fedgate_messages', last::text);
    END IF;
END
$$;

-- Creates the partitions for the next millions of messages and positions.
CREATE OR REPLACE FUNCTION fedgate_add_partitions() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    size CONSTANT bigint := 1000000;
    parent varchar;
    at bigint;
    part varchar;
BEGIN
    -- One session at a time; another one has nothing left to do.
    IF NOT pg_try_advisory_xact_lock(x'6665646761747265'::bigint) THEN
        RETURN;
    END IF;
    FOR parent, at IN
        SELECT 'fedgate_positions', position / size + ahead FROM fedgate_relay CROSS JOIN generate_series(0, 1) AS ahead
        -- A range of entries that has begun keeps its messages in the rest, except the first one of all.
        UNION ALL
        SELECT 'fedgate_messages', last_value / size + ahead FROM fedgate_entry
        CROSS JOIN generate_series(CASE WHEN is_called THEN 1 ELSE 0 END, 2) AS ahead
    LOOP
        part := format('%s_%s', parent, at);
        CONTINUE WHEN to_regclass(part) IS NOT NULL;
        BEGIN
            -- Attaching a table, other than creating a partition, lets others go on reading and writing.
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', part, parent);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', parent, part, at * size, (at + 1) * size);
        EXCEPTION WHEN check_violation OR lock_not_available THEN
            -- Messages of this range are in the rest already, or somebody holds it: they stay there.
            NULL;
        END;
    END LOOP;
END
$$;

-- Drops the oldest million of messages, if the youngest of it is older than `seconds`, or if more than `most` messages
-- are left without it. Returns the first position that is left; null in place of either bound means none.
CREATE OR REPLACE FUNCTION fedgate_drop_messages(seconds bigint, most bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    size CONSTANT bigint := 1000000;
    relay fedgate_relay;
    ends bigint;
    old varchar[] := '{}';
    part varchar;
    at_most bigint;
BEGIN
    SELECT * INTO relay FROM fedgate_relay;
    ends := (relay.first / size + 1) * size;
    IF ends > relay.position OR NOT coalesce(
        relay.position - ends >= most
        OR (SELECT message.at < clock_timestamp() - make_interval(secs => seconds)
            FROM fedgate_positions AS place JOIN fedgate_messages AS message USING (entry) WHERE place.position = ends - 1),
        false
    ) THEN
        RETURN relay.first;
    END IF;
    -- A message of a long transaction may have a late position, so a range is dropped when no position leads to it. That
    -- is found out before anything is locked: a drop stops all writers and readers.
    FOR part, at_most IN
        SELECT relid::regclass::text, (regexp_match(relid::regclass::text, '_([0-9]+)$'))[1]::bigint * size + size AS upto
        FROM pg_partition_tree('fedgate_messages') WHERE isleaf AND relid::regclass::text ~ '_[0-9]+$' ORDER BY upto
    LOOP
        EXIT WHEN at_most > relay.decided OR EXISTS (
            SELECT FROM fedgate_positions WHERE position >= ends AND entry >= at_most - size AND entry < at_most
        );
        old := old || part;
    END LOOP;
    UPDATE fedgate_relay SET first = ends WHERE first = relay.first;
    IF NOT FOUND THEN
        RETURN (SELECT first FROM fedgate_relay);
    END IF;
    EXECUTE format('DROP TABLE IF EXISTS %I', format('fedgate_positions_%s', ends / size - 1));
    FOREACH part IN ARRAY old LOOP
        EXECUTE format('DROP TABLE IF EXISTS %s', part);
    END LOOP;
    RETURN ends;
END
$$;

-- Deletes what dropped partitions have left elsewhere, at most so many rows, and returns how many: messages in the rest,
-- and the ids that nodes gave to messages which are gone. It locks nothing else, so it may take its time.
CREATE OR REPLACE FUNCTION fedgate_clean_messages(most bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    size CONSTANT bigint := 1000000;
    decided bigint := (SELECT relay.decided FROM fedgate_relay AS relay);
    lowest bigint := (SELECT min(entry) FROM fedgate_messages_rest);
    upto bigint := least((lowest / size + 1) * size, decided + 1);
    cleaned bigint := 0;
BEGIN
    IF lowest <= decided AND NOT EXISTS (SELECT FROM fedgate_positions WHERE entry >= lowest AND entry < upto) THEN
        DELETE FROM fedgate_messages_rest WHERE entry IN (
            SELECT entry FROM fedgate_messages_rest WHERE entry < upto ORDER BY entry LIMIT most
        );
        GET DIAGNOSTICS cleaned = ROW_COUNT;
    END IF;
    IF cleaned = 0 THEN
        lowest := least(decided + 1, (SELECT min(entry) FROM fedgate_messages));
        DELETE FROM fedgate_sent WHERE (sender, id) IN (
            SELECT sender, id FROM fedgate_sent WHERE entry < lowest ORDER BY entry LIMIT most
        );
        GET DIAGNOSTICS cleaned = ROW_COUNT;
        DELETE FROM fedgate_former_accounts WHERE entry < lowest;
    END IF;
    RETURN cleaned;
END
$$;

DO $$
BEGIN
    PERFORM fedgate_add_partitions();
    -- Writes from a time without a trigger left no messages.
    IF (SELECT is_called FROM fedgate_entry) AND NOT fedgate_messages_fire() THEN
        PERFORM fedgate_append('all', NULL, NULL, 'RESET', NULL, NULL);
    END IF;
END
$$;

-- Row triggers, and for all sessions: logical replication fires no others. They come after the triggers of foreign keys
-- (in the order of their names), so a row that is named here is locked. A trigger that is in place is left alone, since
-- replacing it would lock its table.
DO $$
DECLARE
    kind record;
BEGIN
    FOR kind IN SELECT * FROM (VALUES
        ('people', 'fedgate_person_message()', 'person'), ('pols', 'fedgate_page_message()', 'page'),
        ('personal_docs', 'fedgate_document_message()', 'document'),
        ('dus', 'fedgate_unit_message(''domiciliary_unit'')', 'domiciliary_unit'),
        ('institutions', 'fedgate_unit_message(''institution'')', 'institution')
    ) AS kinds (written, fires, resource)
    LOOP
        CONTINUE WHEN 2 = (
            SELECT count(*) FROM pg_trigger WHERE tgrelid = kind.written::regclass
            AND tgname IN ('fedgate_message', 'fedgate_all_deleted') AND tgenabled = 'A'
        );
        EXECUTE format('CREATE OR REPLACE TRIGGER fedgate_message AFTER INSERT OR UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION %s', kind.written, kind.fires);
        EXECUTE format('CREATE OR REPLACE TRIGGER fedgate_all_deleted AFTER TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION fedgate_all_deleted_message(%L)', kind.written, kind.resource);
        EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER fedgate_message, ENABLE ALWAYS TRIGGER fedgate_all_deleted', kind.written);
    END LOOP;
END
$$;

-- Roles that may read pages may read messages of them, and may give positions.
REVOKE ALL ON FUNCTION fedgate_give_positions(bigint), fedgate_add_partitions(), fedgate_drop_messages(bigint, bigint), fedgate_clean_messages(bigint) FROM PUBLIC;
SELECT fedgate_grant_like(
    'pols', 'SELECT',
    'SELECT ON fedgate_messages, fedgate_positions, fedgate_relay, fedgate_ended_histories, fedgate_former_accounts',
    'EXECUTE ON FUNCTION fedgate_give_positions(bigint), fedgate_add_partitions(), fedgate_drop_messages(bigint, bigint), fedgate_clean_messages(bigint)'
);

-- Roles that may write pages may keep cursors, and send messages of nodes; the number of messages without a position is
-- theirs to read, too.
SELECT fedgate_grant_like(
    'pols', 'INSERT',
    'SELECT, INSERT, UPDATE, DELETE ON fedgate_cursors',
    'SELECT ON fedgate_sent, fedgate_waiting',
    'EXECUTE ON FUNCTION fedgate_send(varchar, varchar, varchar, varchar, jsonb)'
);
