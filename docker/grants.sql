-- The rights of the two programs: the statements of docs/INSTALL.md. The service `grants` runs this as the owner, after
-- each migration; granting twice does no harm.
\set ON_ERROR_STOP on
-- The HIS: records of people, and no right to change tables.
GRANT SELECT, INSERT, UPDATE, DELETE ON people, pols, personal_docs, dus, institutions, fedgate_pieces TO fedhis;
GRANT SELECT ON fedgate_schema, fedgate_store TO fedhis;
-- The gateway: accounts, and the list of gateways that run; neither books nor documents.
GRANT SELECT, UPDATE ON people TO fedgate;
GRANT SELECT ON fedgate_epoch, fedgate_schema, fedgate_store, fedgate_logins, fedgate_account_changes TO fedgate;
GRANT SELECT, INSERT, UPDATE, DELETE ON fedgate_instances TO fedgate;
-- A migration grants these itself to each role that may read `people`; so none has to follow this script.
GRANT SELECT ON fedgate_logins, fedgate_store, fedgate_account_events, fedgate_page_waits TO fedhis, fedgate;
