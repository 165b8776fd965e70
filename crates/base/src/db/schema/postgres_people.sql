-- What the HIS does with people: a view without password hashes, and functions for what has to do with them. So its role
-- needs no right to read the documents themselves. Everything is created beside `people`, in the schema where the search
-- path finds it.
SELECT set_config('search_path', quote_ident(nspname) || ', pg_temp', true)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = 'people'::regclass;

-- A document without the member `password`, and one that is no object without hashes at any depth: Thalamus makes a list of
-- a document by a change that is one.
CREATE OR REPLACE FUNCTION fedgate_without_hashes(data jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path FROM CURRENT AS $$
BEGIN
    RETURN CASE jsonb_typeof(data)
        WHEN 'object' THEN (
            SELECT coalesce(jsonb_object_agg(key, fedgate_without_hashes(value)), '{}')
            FROM jsonb_each(data - 'password')
        )
        WHEN 'array' THEN (
            SELECT coalesce(jsonb_agg(fedgate_without_hashes(value) ORDER BY place), '[]')
            FROM jsonb_array_elements(data) WITH ORDINALITY AS element (value, place)
        )
        WHEN 'string' THEN CASE WHEN data #>> '{}' ~ '^[$](2|argon2)' THEN 'null' ELSE data END
        ELSE data
    END;
END
$$;

-- The columns that begin with `found_` are the expressions of the indexes by which lists find people.
CREATE OR REPLACE VIEW fedgate_people AS SELECT
    id,
    CASE WHEN jsonb_typeof(data) = 'object' THEN data - 'password' ELSE fedgate_without_hashes(data) END AS data,
    CASE WHEN jsonb_typeof(data -> 'dob') IN ('string', 'number', 'boolean') THEN data ->> 'dob' END AS found_dob,
    CASE WHEN jsonb_typeof(data -> 'lastname') IN ('string', 'number', 'boolean') THEN data ->> 'lastname' END AS found_lastname,
    CASE WHEN jsonb_typeof(data -> 'name') IN ('string', 'number', 'boolean') THEN data ->> 'name' END AS found_name,
    CASE WHEN jsonb_typeof(data -> 'gender') IN ('string', 'number', 'boolean') THEN data ->> 'gender' END AS found_gender,
    fedgate_changed
FROM people;

DO $make$
DECLARE
    merged CONSTANT text := $text$((CASE WHEN jsonb_typeof(data) = 'object' THEN data ELSE '{}' END) || change)$text$;
BEGIN
    -- The document of one id with its hash, for comparison.
    EXECUTE format($function$
        CREATE OR REPLACE FUNCTION fedgate_whole_person(person varchar, OUT id varchar, OUT data jsonb) RETURNS SETOF record
        LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT ROWS 1 AS $body$
        #variable_conflict use_column
        DECLARE
            wanted %1$s := person;
        BEGIN
            RETURN QUERY SELECT known.id::varchar, known.data FROM people AS known WHERE known.id = wanted;
        END
        $body$
    $function$, fedgate_id_type());

    -- Merges members into the document of one person, and says what came of it. `most` is the most bytes that the
    -- document may have, unless it had more before.
    EXECUTE format($function$
        CREATE OR REPLACE FUNCTION fedgate_patch_person(
            person varchar, reach text[], patch text, most bigint, acts text, keys text
        ) RETURNS text
        LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $body$
        #variable_conflict use_column
        DECLARE
            wanted %1$s := person;
            named varchar COLLATE "C" := person;
            change jsonb := patch::jsonb;
            kind text;
            fits boolean;
        BEGIN
            PERFORM set_config('fedgate.actor', coalesce(acts, ''), true),
                set_config('fedgate.person_keys', coalesce(keys, ''), true),
                -- The statement sees what was merged when it began, so the trigger of people looks again.
                set_config('fedgate.merging', 'alone', true);
            UPDATE people AS known SET data = %2$s
            WHERE known.id = wanted AND known.id::varchar COLLATE "C" = named AND (reach IS NULL OR named = ANY (reach))
                -- `||` would append the change to a list.
                AND coalesce(jsonb_typeof(data), 'null') IN ('object', 'null')
                AND (most IS NULL OR octet_length(%2$s::text) <= greatest(most, octet_length(data::text)))
                AND NOT EXISTS (SELECT FROM fedgate_same_persons AS same WHERE same.id = named);
            IF FOUND THEN
                RETURN 'done';
            END IF;
            SELECT coalesce(jsonb_typeof(data), 'null'), most IS NULL OR octet_length(%2$s::text) <= greatest(most, octet_length(data::text))
            INTO kind, fits FROM people AS known
            WHERE known.id = wanted AND known.id::varchar COLLATE "C" = named AND (reach IS NULL OR named = ANY (reach));
            RETURN CASE
                WHEN kind IS NULL THEN 'missing'
                -- By a merge that is there, or by one that has ended meanwhile, if nothing else would prevent the change.
                WHEN EXISTS (SELECT FROM fedgate_same_persons AS same WHERE same.id = named) OR kind = 'object' AND fits
                    THEN 'merged'
                WHEN kind IN ('object', 'null') THEN 'too_large'
                ELSE 'no_object'
            END;
        END
        $body$
    $function$, fedgate_id_type(), merged);

    -- Replaces the document of one person. It keeps the hash that is stored, unless the new one has its own.
    EXECUTE format($function$
        CREATE OR REPLACE FUNCTION fedgate_put_person(person varchar, document text) RETURNS void
        LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $body$
        #variable_conflict use_column
        DECLARE
            wanted %1$s := person;
            named varchar COLLATE "C" := person;
            put jsonb := document::jsonb;
        BEGIN
            IF jsonb_typeof(put) <> 'object' THEN
                RAISE invalid_parameter_value USING MESSAGE = 'the document of a person is an object';
            END IF;
            UPDATE people AS known SET data = CASE
                WHEN jsonb_typeof(data) = 'object' AND data ? 'password' AND NOT put ? 'password'
                    THEN put || jsonb_build_object('password', data -> 'password')
                ELSE put
            END
            WHERE known.id = wanted AND known.id::varchar COLLATE "C" = named;
        END
        $body$
    $function$, fedgate_id_type());
END
$make$;
REVOKE ALL ON FUNCTION fedgate_whole_person(varchar), fedgate_patch_person(varchar, text[], text, bigint, text, text),
    fedgate_put_person(varchar, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fedgate_without_hashes(jsonb) TO PUBLIC;
-- Roles that were granted rights on people before these were made.
SELECT fedgate_grant_like(
    'people', 'SELECT', 'SELECT ON fedgate_people', 'EXECUTE ON FUNCTION fedgate_whole_person(varchar)'
);
-- UPDATE to lock rows: this column cannot be written, because it is an expression; the id could be.
SELECT fedgate_grant_like(
    'people', 'UPDATE', 'UPDATE (data) ON fedgate_people',
    'EXECUTE ON FUNCTION fedgate_patch_person(varchar, text[], text, bigint, text, text), fedgate_put_person(varchar, text)'
);
