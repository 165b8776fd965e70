-- Partitions of pages and documents by person, which `fedhis migrate --partition` makes. Everything is created beside
-- `people`, in the schema where the search path finds it.
SELECT set_config('search_path', quote_ident(nspname) || ', pg_temp', true)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = 'people'::regclass;

-- A table that is being moved: into how many partitions (0 for one table), and the last row that was copied.
CREATE TABLE IF NOT EXISTS fedgate_partition_moves (
    moved varchar COLLATE "C" PRIMARY KEY,
    parts bigint NOT NULL,
    is_swapped boolean NOT NULL DEFAULT false,
    person varchar,
    id varchar,
    copied bigint NOT NULL DEFAULT 0
);

-- Rows that were written while their table is being moved, by any program. They are copied again. Without an id: all.
CREATE TABLE IF NOT EXISTS fedgate_moved_rows (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    moved varchar COLLATE "C" NOT NULL,
    id varchar
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_insert_threshold = -1);

-- The trigger of a table that is being moved. It writes nothing but this table, so a write waits for no copy.
CREATE OR REPLACE FUNCTION fedgate_row_moved() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO fedgate_moved_rows (moved) VALUES (TG_ARGV[0]);
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO fedgate_moved_rows (moved, id) VALUES (TG_ARGV[0], OLD.id);
        IF TG_OP = 'DELETE' OR OLD.id IS NOT DISTINCT FROM NEW.id THEN
            RETURN NULL;
        END IF;
    END IF;
    INSERT INTO fedgate_moved_rows (moved, id) VALUES (TG_ARGV[0], NEW.id);
    RETURN NULL;
END
$$;

-- The primary key of a partitioned table contains the person, so it does not keep an id unique in the whole table.
-- `fedgate_page_ids` and `fedgate_document_ids` do, by these triggers. An id that another person's record has is no
-- conflict that a statement with ON CONFLICT DO NOTHING would see. Our programs say who acts, all their statements have
-- this clause, and the row is left out for them. Other sessions get the error that the table had for them before.
--
-- A row that moves to another partition is changed, deleted and inserted: the change has renewed the entry by then, and
-- the other two find nothing to do.
DO $make$
DECLARE
    kind record;
BEGIN
    FOR kind IN SELECT * FROM (VALUES
        ('fedgate_page_id_kept', 'fedgate_page_ids', 'book', 'pols', 'in another book'),
        ('fedgate_document_id_kept', 'fedgate_document_ids', 'fedacct', 'personal_docs', 'for another person')
    ) AS kinds (fires, ids, person, kept, elsewhere)
    LOOP
        EXECUTE format($function$
            CREATE OR REPLACE FUNCTION %1$I() RETURNS trigger
            LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $body$
            DECLARE
                holder varchar;
            BEGIN
                IF TG_OP = 'TRUNCATE' THEN
                    DELETE FROM %2$I;
                    RETURN NULL;
                ELSIF TG_OP = 'DELETE' THEN
                    DELETE FROM %2$I AS known WHERE known.id = OLD.id AND known.%3$I = OLD.%3$I;
                    RETURN OLD;
                ELSIF TG_OP = 'UPDATE' THEN
                    IF (OLD.id, OLD.%3$I) IS DISTINCT FROM (NEW.id, NEW.%3$I) THEN
                        UPDATE %2$I AS known SET id = NEW.id, %3$I = NEW.%3$I WHERE known.id = OLD.id;
                    END IF;
                    RETURN NEW;
                END IF;
                LOOP
                    INSERT INTO %2$I (id, %3$I) VALUES (NEW.id, NEW.%3$I) ON CONFLICT DO NOTHING;
                    IF FOUND THEN
                        RETURN NEW;
                    END IF;
                    SELECT known.%3$I INTO holder FROM %2$I AS known WHERE known.id = NEW.id;
                    -- For the same person the primary key decides.
                    IF FOUND AND holder = NEW.%3$I THEN
                        RETURN NEW;
                    ELSIF FOUND AND coalesce(current_setting('fedgate.actor', true), '') <> '' THEN
                        RETURN NULL;
                    ELSIF FOUND THEN
                        RAISE unique_violation USING
                            MESSAGE = 'duplicate key value violates unique constraint "%4$s_pkey"',
                            DETAIL = 'Key (id) exists %5$s.', CONSTRAINT = '%4$s_pkey', TABLE = '%4$s';
                    END IF;
                    -- It was deleted meanwhile.
                END LOOP;
            END
            $body$
        $function$, kind.fires, kind.ids, kind.person, kind.kept, kind.elsewhere);
    END LOOP;
END
$make$;

-- Makes the triggers that keep the ids of a partitioned table.
CREATE OR REPLACE FUNCTION fedgate_keep_ids(kept varchar) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    fires varchar := CASE kept WHEN 'pols' THEN 'fedgate_page_id_kept' ELSE 'fedgate_document_id_kept' END;
BEGIN
    EXECUTE format('CREATE OR REPLACE TRIGGER fedgate_id_kept BEFORE INSERT OR UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION %I()', kept, fires);
    EXECUTE format('CREATE OR REPLACE TRIGGER fedgate_ids_emptied AFTER TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION %I()', kept, fires);
    EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER fedgate_id_kept, ENABLE ALWAYS TRIGGER fedgate_ids_emptied', kept);
END
$$;
REVOKE ALL ON FUNCTION fedgate_keep_ids(varchar) FROM PUBLIC;

-- The person in whose partition a record is, for persons with several ids: one of these ids, or null.
CREATE OR REPLACE FUNCTION fedgate_page_book(page varchar, person varchar) RETURNS varchar
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT pols.book::varchar FROM pols
        WHERE pols.id = page AND pols.book::varchar COLLATE "C" IN (
            SELECT other.id FROM fedgate_same_persons AS same JOIN fedgate_same_persons AS other ON other.person = same.person
            WHERE same.id = fedgate_page_book.person
        )
        LIMIT 1
    );
END
$$;
CREATE OR REPLACE FUNCTION fedgate_document_person(document varchar, person varchar) RETURNS varchar
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT docs.fedacct::varchar FROM personal_docs AS docs
        WHERE docs.id = fedgate_document_person.document AND docs.fedacct::varchar COLLATE "C" IN (
            SELECT other.id FROM fedgate_same_persons AS same JOIN fedgate_same_persons AS other ON other.person = same.person
            WHERE same.id = fedgate_document_person.person
        )
        LIMIT 1
    );
END
$$;
GRANT EXECUTE ON FUNCTION fedgate_page_book(varchar, varchar), fedgate_document_person(varchar, varchar) TO PUBLIC;

-- Partitioned tables keep their ids, also if somebody dropped a trigger or the table of ids. Where a write went past them,
-- they are filled again; nobody writes meanwhile.
DO $$
DECLARE
    kind record;
BEGIN
    FOR kind IN
        SELECT * FROM (VALUES
            ('pols', 'book', 'fedgate_page_ids'), ('personal_docs', 'fedacct', 'fedgate_document_ids')
        ) AS kinds (kept, person, ids)
        WHERE (SELECT relkind FROM pg_class WHERE oid = to_regclass(kept)) = 'p' AND (
            to_regclass(ids) IS NULL OR 2 <> (
                SELECT count(*) FROM pg_trigger WHERE tgrelid = to_regclass(kept)
                AND tgname IN ('fedgate_id_kept', 'fedgate_ids_emptied') AND tgenabled = 'A'
            )
        )
    LOOP
        EXECUTE format('CREATE TABLE IF NOT EXISTS %I (id varchar PRIMARY KEY, %I varchar NOT NULL)', kind.ids, kind.person);
        PERFORM fedgate_keep_ids(kind.kept);
        EXECUTE format('DELETE FROM %1$I AS known WHERE NOT EXISTS (SELECT FROM %2$I AS kept WHERE kept.id = known.id AND kept.%3$I = known.%3$I)', kind.ids, kind.kept, kind.person);
        EXECUTE format('INSERT INTO %1$I SELECT id, %3$I FROM %2$I ON CONFLICT DO NOTHING', kind.ids, kind.kept, kind.person);
    END LOOP;
END
$$;
