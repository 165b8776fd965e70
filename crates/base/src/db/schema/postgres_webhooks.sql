-- Webhooks: the addresses to which messages are sent, what is still to be sent there, and what could not be sent.
-- Times are milliseconds since 1970, as in the embedded store.
SELECT set_config('search_path', quote_ident(nspname) || ', pg_temp', true)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = 'people'::regclass;

-- `position`: every message up to it was sent, is not for this webhook, or has a row in `fedgate_deliveries`. One
-- instance of the HIS serves a webhook at a time: the `owner`, until `owned_until` or later. `version` grows with every
-- change that the owner must heed.
CREATE TABLE IF NOT EXISTS fedgate_webhooks (
    id varchar COLLATE "C" PRIMARY KEY,
    account varchar COLLATE "C" NOT NULL,
    url varchar NOT NULL,
    form varchar NOT NULL,
    person varchar COLLATE "C",
    resource varchar,
    node varchar COLLATE "C",
    method varchar,
    kind varchar COLLATE "C",
    state varchar NOT NULL DEFAULT 'active',
    reason varchar,
    created bigint NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    position bigint NOT NULL,
    owner varchar,
    owned_until bigint NOT NULL DEFAULT 0,
    slow_until bigint NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS fedgate_webhooks_account ON fedgate_webhooks (account);

-- The keys of a webhook, without the keys: each is derived from a secret in a file of the HIS, the id of the webhook, and
-- the number. `secret` tells which of the secrets; it says nothing about it.
CREATE TABLE IF NOT EXISTS fedgate_webhook_keys (
    webhook varchar COLLATE "C" NOT NULL REFERENCES fedgate_webhooks (id) ON DELETE CASCADE,
    number bigint NOT NULL,
    kind varchar NOT NULL,
    secret varchar NOT NULL,
    expires bigint,
    PRIMARY KEY (webhook, number)
);

-- Messages that wait for a webhook (`waiting`), and dead letters (`dead`). In one lane, the first one is sent before the
-- next; a lane is a person, or a record that is about no person. `problem` is what the account of the webhook may know,
-- and `detail` what operators see in its place.
CREATE TABLE IF NOT EXISTS fedgate_deliveries (
    webhook varchar COLLATE "C" NOT NULL REFERENCES fedgate_webhooks (id) ON DELETE CASCADE,
    position bigint NOT NULL,
    lane varchar COLLATE "C" NOT NULL,
    attempts bigint NOT NULL DEFAULT 0,
    due bigint NOT NULL DEFAULT 0,
    state varchar NOT NULL DEFAULT 'waiting',
    problem varchar,
    detail varchar,
    PRIMARY KEY (webhook, position)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- Roles that may write pages may send messages of them.
SELECT fedgate_grant_like(
    'pols', 'INSERT',
    'SELECT, INSERT, UPDATE, DELETE ON fedgate_webhooks, fedgate_webhook_keys, fedgate_deliveries'
);
