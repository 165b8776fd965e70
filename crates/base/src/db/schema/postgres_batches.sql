-- Writes that share a commit. Everything is created beside `people`, in the schema where the search path finds it.
SELECT set_config('search_path', quote_ident(nspname) || ', pg_temp', true)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = 'people'::regclass;

-- Stores new pages, and returns the numbers of those that it stored. A page that is not new, has no person, or is out of
-- reach is left out. `reached` has the only person whose pages the writer may store, or null for every person.
--
-- A statement each, so that the triggers see who acts. Nobody waits for long: a lock that others hold is an error then,
-- and none of the pages is stored.
DO $make$
BEGIN
    EXECUTE format($function$
        CREATE OR REPLACE FUNCTION fedgate_store_pages(
            ids varchar[], books varchar[], texts text[], reached varchar[], actors text[]
        ) RETURNS SETOF integer
        LANGUAGE plpgsql SET search_path FROM CURRENT SET lock_timeout = '50ms' ROWS 64 AS $body$
        DECLARE
            number integer;
            book varchar COLLATE "C";
            wanted %1$s;
        BEGIN
            FOR number IN 1 .. cardinality(ids) LOOP
                book := books[number];
                wanted := book;
                PERFORM set_config('fedgate.actor', coalesce(actors[number], ''), true);
                INSERT INTO pols (id, book, data)
                SELECT ids[number], book, texts[number]::jsonb
                WHERE (reached[number] IS NULL OR reached[number] = book) AND EXISTS (
                    SELECT FROM people AS known WHERE known.id = wanted AND known.id::varchar COLLATE "C" = book
                )
                ON CONFLICT DO NOTHING;
                IF FOUND THEN
                    RETURN NEXT number;
                END IF;
            END LOOP;
        END
        $body$
    $function$, fedgate_id_type());
END
$make$;
REVOKE ALL ON FUNCTION fedgate_store_pages(varchar[], varchar[], text[], varchar[], text[]) FROM PUBLIC;
SELECT fedgate_grant_like(
    'pols', 'INSERT', 'EXECUTE ON FUNCTION fedgate_store_pages(varchar[], varchar[], text[], varchar[], text[])'
);
