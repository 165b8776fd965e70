-- Webhooks, as in PostgreSQL: the addresses to which messages are sent, what is still to be sent there, and what could not
-- be sent. Times are milliseconds since 1970.
CREATE TABLE IF NOT EXISTS fedgate_webhooks (
    id TEXT PRIMARY KEY NOT NULL,
    account TEXT NOT NULL,
    url TEXT NOT NULL,
    form TEXT NOT NULL,
    person TEXT,
    resource TEXT,
    node TEXT,
    method TEXT,
    kind TEXT,
    state TEXT NOT NULL DEFAULT 'active',
    reason TEXT,
    created INTEGER NOT NULL,
    version INTEGER NOT NULL DEFAULT 1,
    position INTEGER NOT NULL,
    owner TEXT,
    owned_until INTEGER NOT NULL DEFAULT 0,
    slow_until INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS fedgate_webhooks_account ON fedgate_webhooks (account);
CREATE TABLE IF NOT EXISTS fedgate_webhook_keys (
    webhook TEXT NOT NULL REFERENCES fedgate_webhooks (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    kind TEXT NOT NULL,
    secret TEXT NOT NULL,
    expires INTEGER,
    PRIMARY KEY (webhook, number)
);
CREATE TABLE IF NOT EXISTS fedgate_deliveries (
    webhook TEXT NOT NULL REFERENCES fedgate_webhooks (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    lane TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'waiting',
    problem TEXT,
    detail TEXT,
    PRIMARY KEY (webhook, position)
);
