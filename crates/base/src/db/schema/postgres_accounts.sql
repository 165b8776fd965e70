-- What both programs ask of accounts, as functions: so the gateway's role needs no right on the documents of people. Everything is
-- created beside `people`, in the schema where the search path finds it.
SELECT set_config('search_path', quote_ident(nspname) || ', pg_temp', true)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = 'people'::regclass;

-- The roles that `fedhis migrate --roles` has set up, each with what it is for; every later migration grants them what
-- has been added.
CREATE TABLE IF NOT EXISTS fedgate_roles (purpose varchar PRIMARY KEY, role name NOT NULL UNIQUE);

DO $make$
DECLARE
    -- The login of a person `p`: what is kept beside the document, or the document itself if that does not belong to this
    -- very version of the row.
    from_login CONSTANT text := $text$LEFT JOIN fedgate_logins AS l ON l.id = named AND l.row_writer = p.xmin AND l.row_place = p.ctid
            LEFT JOIN LATERAL fedgate_login(CASE WHEN l.id IS NULL THEN p.data END) AS d ON true$text$;
    roles_and_active CONSTANT text := $text$CASE WHEN l.id IS NULL THEN d.roles ELSE l.roles END,
                CASE WHEN l.id IS NULL THEN d.active ELSE l.active END$text$;
BEGIN
    -- One account, and the epoch of the same snapshot, even if there is no such account. The snapshot of a standby may
    -- be old, and so may that of a primary that was set read-only when another server took its place.
    --
    -- An account is the one that its row names, byte for byte, whatever the column's collation equates.
    EXECUTE format($function$
        CREATE OR REPLACE FUNCTION fedgate_account(
            account varchar, most_ids bigint, OUT epoch bigint, OUT is_there boolean, OUT password varchar, OUT roles varchar,
            OUT active varchar, OUT may_be_old boolean, OUT same varchar[]
        )
        LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $body$
        #variable_conflict use_column
        DECLARE
            wanted %1$s := account;
            named varchar COLLATE "C" := account;
        BEGIN
            SELECT e.epoch, p.id IS NOT NULL,
                CASE WHEN l.id IS NULL THEN d.password ELSE l.password END,
                %3$s,
                pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean,
                (SELECT array_agg(id) FROM (
                    SELECT other.id FROM fedgate_same_persons AS mine
                    JOIN fedgate_same_persons AS other ON other.person = mine.person
                    WHERE mine.id = named AND other.id <> mine.id ORDER BY other.id LIMIT most_ids
                ) AS ids)
            INTO fedgate_account.epoch, fedgate_account.is_there, fedgate_account.password, fedgate_account.roles,
                fedgate_account.active, fedgate_account.may_be_old, fedgate_account.same
            FROM fedgate_epoch AS e
            LEFT JOIN people AS p ON p.id = wanted AND p.id::varchar COLLATE "C" = named
            %2$s;
        END
        $body$
    $function$, fedgate_id_type(), from_login, roles_and_active);

    -- The rights of one account, read as a login reads them, but without its hash.
    EXECUTE format($function$
        CREATE OR REPLACE FUNCTION fedgate_account_rights(
            account varchar, OUT is_there boolean, OUT roles varchar, OUT active varchar
        )
        LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $body$
        #variable_conflict use_column
        DECLARE
            wanted %1$s := account;
            named varchar COLLATE "C" := account;
        BEGIN
            SELECT true, %3$s
            INTO fedgate_account_rights.is_there, fedgate_account_rights.roles, fedgate_account_rights.active
            FROM people AS p
            %2$s
            WHERE p.id = wanted AND p.id::varchar COLLATE "C" = named;
            fedgate_account_rights.is_there := coalesce(fedgate_account_rights.is_there, false);
        END
        $body$
    $function$, fedgate_id_type(), from_login, roles_and_active);

    -- Replaces a password hash if it is still `old`, and returns how many were replaced. What replaces it is a hash, too.
    EXECUTE format($function$
        CREATE OR REPLACE FUNCTION fedgate_replace_hash(account varchar, old varchar, new varchar, acts varchar)
        RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $body$
        #variable_conflict use_column
        DECLARE
            wanted %1$s := account;
            named varchar COLLATE "C" := account;
            replaced bigint;
        BEGIN
            PERFORM set_config('fedgate.actor', coalesce(acts, ''), true);
            UPDATE people SET data = jsonb_set(data, '{password}', to_jsonb(fedgate_replace_hash.new::text))
            WHERE id = wanted AND id::varchar COLLATE "C" = named AND data ->> 'password' = fedgate_replace_hash.old
                AND fedgate_replace_hash.new ~ '^[$](2[aby]|argon2id)[$]' AND octet_length(fedgate_replace_hash.new) <= 512;
            GET DIAGNOSTICS replaced = ROW_COUNT;
            RETURN replaced;
        END
        $body$
    $function$, fedgate_id_type());
END
$make$;
REVOKE ALL ON FUNCTION fedgate_account(varchar, bigint), fedgate_account_rights(varchar),
    fedgate_replace_hash(varchar, varchar, varchar, varchar) FROM PUBLIC;
-- Roles that were granted rights on people before these functions were made.
SELECT fedgate_grant_like(
    'people', 'SELECT', 'EXECUTE ON FUNCTION fedgate_account(varchar, bigint), fedgate_account_rights(varchar)'
);
SELECT fedgate_grant_like(
    'people', 'UPDATE', 'EXECUTE ON FUNCTION fedgate_replace_hash(varchar, varchar, varchar, varchar)'
);
