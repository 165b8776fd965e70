-- Marks that a HIS with replicas writes, and looks for at each of them: a replica that shows one follows the server on which
-- it was written. A row for each process; those of processes that have ended are deleted by others.
SELECT set_config('search_path', quote_ident(nspname) || ', pg_temp', true)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = 'people'::regclass;

CREATE TABLE IF NOT EXISTS fedgate_replica_marks (
    process varchar COLLATE "C" PRIMARY KEY,
    mark bigint NOT NULL,
    at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- Roles that may write pages serve them.
SELECT fedgate_grant_like('pols', 'INSERT', 'SELECT, INSERT, UPDATE, DELETE ON fedgate_replica_marks');
