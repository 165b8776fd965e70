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
GRANT SELECT ON fedgate_logins, fedgate_store, fedgate_account_events, fedgate_page_waits, fedgate_same_persons TO fedhis, fedgate;
-- And these to each role that may read `pols`.
GRANT SELECT ON fedgate_messages, fedgate_positions, fedgate_relay, fedgate_ended_histories, fedgate_former_accounts, fedgate_merges TO fedhis;
GRANT EXECUTE ON FUNCTION fedgate_give_positions(bigint), fedgate_add_partitions(), fedgate_drop_messages(bigint, bigint), fedgate_clean_messages(bigint) TO fedhis;
-- And these to each role that may insert into `pols`.
GRANT SELECT, INSERT, UPDATE, DELETE ON fedgate_cursors TO fedhis;
GRANT SELECT, INSERT, UPDATE, DELETE ON fedgate_person_keys, fedgate_compared_persons TO fedhis;
GRANT SELECT, INSERT, DELETE ON fedgate_search_words, fedgate_search_deletions TO fedhis;
GRANT SELECT, INSERT, DELETE ON fedgate_person_keys_due TO fedhis;
GRANT SELECT, INSERT, UPDATE, DELETE ON fedgate_person_pairs TO fedhis;
GRANT SELECT, INSERT, UPDATE, DELETE ON fedgate_person_pairs_due TO fedhis;
GRANT SELECT, INSERT, UPDATE, DELETE ON fedgate_person_dedupe TO fedhis;
GRANT SELECT, UPDATE ON fedgate_person_index TO fedhis;
GRANT INSERT, UPDATE, DELETE ON fedgate_same_persons TO fedhis;
GRANT INSERT, UPDATE ON fedgate_merges TO fedhis;
GRANT SELECT ON fedgate_sent TO fedhis;
GRANT EXECUTE ON FUNCTION fedgate_send(varchar, varchar, varchar, varchar, jsonb) TO fedhis;
GRANT SELECT, INSERT, UPDATE, DELETE ON fedgate_webhooks, fedgate_webhook_keys, fedgate_deliveries TO fedhis;
GRANT SELECT ON fedgate_waiting TO fedhis;
