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
CREATE OR REPLACE FUNCTION fedgate_page_id_kept() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    holder varchar;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM fedgate_page_ids;
        RETURN NULL;
    ELSIF TG_OP = 'DELETE' THEN
        DELETE FROM fedgate_page_ids AS known WHERE known.id = OLD.id AND known.book = OLD.book;
        RETURN OLD;
    ELSIF TG_OP = 'UPDATE' THEN
        IF (OLD.id, OLD.book) IS DISTINCT FROM (NEW.id, NEW.book) THEN
            UPDATE fedgate_page_ids AS known SET id = NEW.id, book = NEW.book WHERE known.id = OLD.id;
        END IF;
        RETURN NEW;
    END IF;
    LOOP
        INSERT INTO fedgate_page_ids (id, book) VALUES (NEW.id, NEW.book) ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN NEW;
        END IF;
        SELECT known.book INTO holder FROM fedgate_page_ids AS known WHERE known.id = NEW.id;
        -- In the same book the primary key decides.
        IF FOUND AND holder = NEW.book THEN
            RETURN NEW;
        ELSIF FOUND AND coalesce(current_setting('fedgate.actor', true), '') <> '' THEN
            RETURN NULL;
        ELSIF FOUND THEN
            RAISE unique_violation USING MESSAGE = 'duplicate key value violates unique constraint "pols_pkey"',
                DETAIL = 'Key (id) exists in another book.', CONSTRAINT = 'pols_pkey', TABLE = 'pols';
        END IF;
        -- It was deleted meanwhile.
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION fedgate_document_id_kept() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    holder varchar;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM fedgate_document_ids;
        RETURN NULL;
    ELSIF TG_OP = 'DELETE' THEN
        DELETE FROM fedgate_document_ids AS known WHERE known.id = OLD.id AND known.fedacct = OLD.fedacct;
        RETURN OLD;
    ELSIF TG_OP = 'UPDATE' THEN
        IF (OLD.id, OLD.fedacct) IS DISTINCT FROM (NEW.id, NEW.fedacct) THEN
            UPDATE fedgate_document_ids AS known SET id = NEW.id, fedacct = NEW.fedacct WHERE known.id = OLD.id;
        END IF;
        RETURN NEW;
    END IF;
    LOOP
        INSERT INTO fedgate_document_ids (id, fedacct) VALUES (NEW.id, NEW.fedacct) ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN NEW;
        END IF;
        SELECT known.fedacct INTO holder FROM fedgate_document_ids AS known WHERE known.id = NEW.id;
        IF FOUND AND holder = NEW.fedacct THEN
            RETURN NEW;
        ELSIF FOUND AND coalesce(current_setting('fedgate.actor', true), '') <> '' THEN
            RETURN NULL;
        ELSIF FOUND THEN
            RAISE unique_violation USING MESSAGE = 'duplicate key value violates unique constraint "personal_docs_pkey"',
                DETAIL = 'Key (id) exists for another person.', CONSTRAINT = 'personal_docs_pkey', TABLE = 'personal_docs';
        END IF;
    END LOOP;
END
$$;

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
