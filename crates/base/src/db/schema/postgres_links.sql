-- Links (an account's ids in other systems) and relations (whose records an account reaches as a guardian or in a team).
-- Everything is created beside `people`, in the schema where the search path finds it.
SELECT set_config('search_path', quote_ident(nspname) || ', pg_temp', true)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = 'people'::regclass;

-- An id of another system belongs to one account at most. Ids are compared byte for byte.
CREATE TABLE IF NOT EXISTS fedgate_links (
    system varchar COLLATE "C" NOT NULL CHECK (system ~ '^[a-z0-9][a-z0-9-]{0,31}$'),
    id varchar COLLATE "C" NOT NULL CHECK (octet_length(id) BETWEEN 1 AND 256 AND id !~ '[[:cntrl:]]'),
    account varchar COLLATE "C" NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (system, id)
);
CREATE INDEX IF NOT EXISTS fedgate_links_account ON fedgate_links (account);

-- A role with `related` reaches the records of each subject, from the one moment and before the other.
CREATE TABLE IF NOT EXISTS fedgate_relations (
    account varchar COLLATE "C" NOT NULL,
    subject varchar COLLATE "C" NOT NULL CHECK (subject <> account),
    kind varchar COLLATE "C" NOT NULL CHECK (kind ~ '^[a-z0-9][a-z0-9-]{0,31}$'),
    valid_from timestamptz NOT NULL DEFAULT date_trunc('second', now()) CHECK (isfinite(valid_from)),
    valid_until timestamptz CHECK (isfinite(valid_until) AND valid_until > valid_from),
    PRIMARY KEY (account, subject, kind)
);
CREATE INDEX IF NOT EXISTS fedgate_relations_subject ON fedgate_relations (subject);

-- The accounts whose reach a change of these ids concerns: the same persons, and those to whom these are related.
CREATE OR REPLACE FUNCTION fedgate_concerned(ids varchar[]) RETURNS varchar[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    WITH person AS (
        SELECT named COLLATE "C" AS id FROM unnest(ids) AS named WHERE named IS NOT NULL
        UNION
        SELECT other.id FROM unnest(ids) AS named
        JOIN fedgate_same_persons AS mine ON mine.id = named
        JOIN fedgate_same_persons AS other ON other.person = mine.person
    ), holder AS (
        SELECT DISTINCT relation.account AS id FROM fedgate_relations AS relation
        WHERE relation.subject IN (SELECT id FROM person) LIMIT 1001
    )
    SELECT array_agg(id) FROM (
        SELECT id FROM person
        UNION SELECT id FROM holder
        UNION SELECT other.id FROM holder
        JOIN fedgate_same_persons AS mine ON mine.id = holder.id
        JOIN fedgate_same_persons AS other ON other.person = mine.person
        LIMIT 1001
    ) AS concerned
$$;
REVOKE ALL ON FUNCTION fedgate_concerned(varchar[]) FROM PUBLIC;

-- One event of a link or a relation, with its author, as for other changes of accounts.
CREATE OR REPLACE FUNCTION fedgate_record_link(what varchar, account varchar, detail json) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    acts text COLLATE "C" := coalesce(current_setting('fedgate.actor', true), '');
    via text COLLATE "C" := substring(acts FROM '^(http|command|import) ');
BEGIN
    INSERT INTO fedgate_account_events (what, account, detail, via, actor, request_id) VALUES (
        what, left(account, 256), left(detail::varchar, 2048),
        coalesce(via, CASE current_setting('session_replication_role') WHEN 'replica' THEN 'replication' ELSE 'outside' END),
        CASE WHEN via IS NOT NULL THEN left(substring(acts FROM '^[a-z]+ [^ ]* (.*)$'), 512) END,
        CASE WHEN via IS NOT NULL THEN left(nullif(split_part(acts, ' ', 2), ''), 128) END
    );
END
$$;
REVOKE ALL ON FUNCTION fedgate_record_link(varchar, varchar, json) FROM PUBLIC;

DO $make$
BEGIN
    EXECUTE format($function$
        CREATE OR REPLACE FUNCTION fedgate_must_be_person(person varchar) RETURNS void
        LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $body$
        #variable_conflict use_column
        DECLARE
            wanted %1$s := person;
            named varchar COLLATE "C" := person;
        BEGIN
            IF NOT EXISTS (SELECT FROM people WHERE id = wanted AND id::varchar COLLATE "C" = named) THEN
                RAISE foreign_key_violation USING MESSAGE = format('there is no person `%%s`', left(named, 64));
            END IF;
        END
        $body$
    $function$, fedgate_id_type());
END
$make$;
REVOKE ALL ON FUNCTION fedgate_must_be_person(varchar) FROM PUBLIC;

CREATE OR REPLACE FUNCTION fedgate_links_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM fedgate_record_changes(ARRAY[NULL]::varchar[]);
        PERFORM fedgate_record_link('all_unlinked', NULL, NULL);
        RETURN NULL;
    END IF;
    -- First the turn among all writers: whom the change concerns, and whether there is room, is read after the last of
    -- them has committed.
    PERFORM 1 FROM fedgate_epoch FOR UPDATE;
    PERFORM fedgate_record_changes(fedgate_concerned(ARRAY[OLD.account, NEW.account]));
    IF TG_OP <> 'INSERT' THEN
        PERFORM fedgate_record_link('unlinked', OLD.account, json_build_object('system', OLD.system, 'id', OLD.id));
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM fedgate_must_be_person(NEW.account);
        IF 64 < (SELECT count(*) FROM fedgate_links WHERE account = NEW.account) THEN
            RAISE program_limit_exceeded USING MESSAGE = 'an account has at most 64 links';
        END IF;
        PERFORM fedgate_record_link('linked', NEW.account, json_build_object('system', NEW.system, 'id', NEW.id));
    END IF;
    RETURN NULL;
END
$$;

-- A relation that has run out counts no more, and its end was announced with its beginning.
CREATE OR REPLACE FUNCTION fedgate_relations_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM fedgate_record_changes(ARRAY[NULL]::varchar[]);
        PERFORM fedgate_record_link('all_unrelated', NULL, NULL);
        RETURN NULL;
    END IF;
    PERFORM 1 FROM fedgate_epoch FOR UPDATE;
    PERFORM fedgate_record_changes(fedgate_concerned(ARRAY[OLD.account, NEW.account]));
    IF TG_OP <> 'INSERT' AND (OLD.valid_until IS NULL OR OLD.valid_until > now()) THEN
        PERFORM fedgate_record_link('unrelated', OLD.account, json_build_object('subject', OLD.subject, 'kind', OLD.kind));
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM fedgate_must_be_person(NEW.account);
        PERFORM fedgate_must_be_person(NEW.subject);
        IF 256 < (
            SELECT count(*) FROM fedgate_relations
            WHERE account = NEW.account AND (valid_until IS NULL OR valid_until > now())
        ) THEN
            RAISE program_limit_exceeded USING MESSAGE = 'an account has at most 256 relations';
        END IF;
        PERFORM fedgate_record_link('related', NEW.account, json_build_object(
            'subject', NEW.subject, 'kind', NEW.kind,
            'from', to_char(NEW.valid_from AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
            'until', to_char(NEW.valid_until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
        ));
    END IF;
    RETURN NULL;
END
$$;

-- What a person leaves who is deleted, or whose id changes: nobody inherits links by taking an id again.
CREATE OR REPLACE FUNCTION fedgate_forget_links(person varchar) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    gone varchar COLLATE "C" := person;
BEGIN
    -- The turn first: a link that another session has just made is seen and deleted.
    PERFORM 1 FROM fedgate_epoch FOR UPDATE;
    DELETE FROM fedgate_links WHERE account = gone;
    DELETE FROM fedgate_relations WHERE account = gone OR subject = gone;
END
$$;
REVOKE ALL ON FUNCTION fedgate_forget_links(varchar) FROM PUBLIC;

-- For every session: logical replication fires no others. What changed while one was missing may concern everybody.
DO $$
BEGIN
    IF (EXISTS (SELECT FROM fedgate_links) OR EXISTS (SELECT FROM fedgate_relations)) AND 4 > (
        SELECT count(*) FROM pg_trigger
        WHERE tgrelid IN ('fedgate_links'::regclass, 'fedgate_relations'::regclass) AND tgenabled = 'A'
        AND tgname IN ('fedgate_links_changed', 'fedgate_links_emptied', 'fedgate_relations_changed', 'fedgate_relations_emptied')
    ) THEN
        PERFORM fedgate_record_changes(ARRAY[NULL]::varchar[]);
    END IF;
END
$$;
CREATE OR REPLACE TRIGGER fedgate_links_changed AFTER INSERT OR UPDATE OR DELETE ON fedgate_links
    FOR EACH ROW EXECUTE FUNCTION fedgate_links_changed();
CREATE OR REPLACE TRIGGER fedgate_links_emptied AFTER TRUNCATE ON fedgate_links
    FOR EACH STATEMENT EXECUTE FUNCTION fedgate_links_changed();
ALTER TABLE fedgate_links ENABLE ALWAYS TRIGGER fedgate_links_changed, ENABLE ALWAYS TRIGGER fedgate_links_emptied;
CREATE OR REPLACE TRIGGER fedgate_relations_changed AFTER INSERT OR UPDATE OR DELETE ON fedgate_relations
    FOR EACH ROW EXECUTE FUNCTION fedgate_relations_changed();
CREATE OR REPLACE TRIGGER fedgate_relations_emptied AFTER TRUNCATE ON fedgate_relations
    FOR EACH STATEMENT EXECUTE FUNCTION fedgate_relations_changed();
ALTER TABLE fedgate_relations
    ENABLE ALWAYS TRIGGER fedgate_relations_changed, ENABLE ALWAYS TRIGGER fedgate_relations_emptied;

-- What the gateway reads with an account: the links of all ids of its person, the subjects of its valid relations with
-- all ids of their persons and links, and the time until that set changes by the calendar alone, by this server's clock. Null
-- for an account without any. As JSON: `links` has lists of system, id, and 1 for a related subject's or 0 for an own.
CREATE OR REPLACE FUNCTION fedgate_account_links(account varchar) RETURNS varchar
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    named varchar COLLATE "C" := account;
    own varchar[];
    others varchar[];
    left_us bigint;
    linked json;
BEGIN
    -- Where nobody has any, that is all.
    IF NOT EXISTS (SELECT FROM fedgate_links) AND NOT EXISTS (SELECT FROM fedgate_relations) THEN
        RETURN NULL;
    END IF;
    own := ARRAY[named] || coalesce((
        SELECT array_agg(other.id) FROM fedgate_same_persons AS mine
        JOIN fedgate_same_persons AS other ON other.person = mine.person
        WHERE mine.id = named AND other.id <> named
    ), '{}');
    IF NOT EXISTS (SELECT FROM fedgate_relations AS relation WHERE relation.account = ANY (own)) THEN
        IF NOT EXISTS (SELECT FROM fedgate_links AS link WHERE link.account = ANY (own)) THEN
            RETURN NULL;
        END IF;
        others := '{}';
    ELSE
        WITH subject AS (
            SELECT DISTINCT relation.subject AS id FROM fedgate_relations AS relation
            WHERE relation.account = ANY (own) AND relation.valid_from <= now()
                AND (relation.valid_until IS NULL OR relation.valid_until > now())
            ORDER BY 1 LIMIT 256
        )
        SELECT coalesce(array_agg(id ORDER BY id), '{}') INTO others FROM (
            SELECT id FROM (
                SELECT id FROM subject
                UNION SELECT other.id FROM subject
                JOIN fedgate_same_persons AS mine ON mine.id = subject.id
                JOIN fedgate_same_persons AS other ON other.person = mine.person
            ) AS every WHERE id <> ALL (own) ORDER BY id LIMIT 512
        ) AS bounded;
        -- At most a day, so that the number stays small. `least` leaves out null.
        SELECT CASE WHEN count(*) > 0 THEN
            floor(least(extract(epoch FROM min(moment) - now()) * 1000000, 86400000000))::bigint
        END INTO left_us FROM (
            SELECT relation.valid_from AS moment FROM fedgate_relations AS relation WHERE relation.account = ANY (own)
            UNION ALL
            SELECT relation.valid_until FROM fedgate_relations AS relation WHERE relation.account = ANY (own)
        ) AS moments WHERE moment > now();
    END IF;
    SELECT coalesce(json_agg(json_build_array(system, id, is_related)), '[]') INTO linked FROM (
        (SELECT link.system, link.id, 0 AS is_related FROM fedgate_links AS link
         WHERE link.account = ANY (own) ORDER BY 1, 2 LIMIT 256)
        UNION ALL
        (SELECT link.system, link.id, 1 FROM fedgate_links AS link
         WHERE link.account = ANY (others) ORDER BY 1, 2 LIMIT 1024)
    ) AS ordered;
    RETURN json_build_object('links', linked, 'related', to_json(others), 'left_us', left_us)::varchar;
END
$$;
REVOKE ALL ON FUNCTION fedgate_account_links(varchar) FROM PUBLIC;
-- Roles that were granted rights on people before these were made.
SELECT fedgate_grant_like(
    'people', 'SELECT', 'SELECT ON fedgate_links, fedgate_relations', 'EXECUTE ON FUNCTION fedgate_account_links(varchar)'
);
SELECT fedgate_grant_like('people', 'UPDATE', 'INSERT, UPDATE, DELETE ON fedgate_links, fedgate_relations');
