-- Which ids are one person decides whose records are an account's own: a change concerns every id that shares the person
-- with the changed one, before or after, and every account to which one of them is related. What changed while a trigger
-- was missing may concern everybody.
UPDATE fedgate_epoch SET epoch = epoch + 1
WHERE EXISTS (SELECT 1 FROM fedgate_same_persons) AND NOT (SELECT fire FROM fedgate_triggers);
INSERT INTO fedgate_account_changes SELECT epoch, NULL FROM fedgate_epoch
WHERE EXISTS (SELECT 1 FROM fedgate_same_persons) AND NOT (SELECT fire FROM fedgate_triggers);
DROP TRIGGER IF EXISTS fedgate_same_person_inserted;
CREATE TRIGGER fedgate_same_person_inserted AFTER INSERT ON fedgate_same_persons
BEGIN
    UPDATE fedgate_epoch SET epoch = epoch + 1;
    INSERT INTO fedgate_account_changes SELECT epoch, changed.id FROM fedgate_epoch, (
        SELECT new.id AS id UNION SELECT new.person
        UNION SELECT id FROM fedgate_same_persons WHERE person = new.person
    ) AS changed;
    INSERT INTO fedgate_account_changes SELECT epoch, account FROM fedgate_epoch, fedgate_related_to
    WHERE subject IN (SELECT account FROM fedgate_account_changes WHERE epoch = (SELECT epoch FROM fedgate_epoch));
    DELETE FROM fedgate_account_changes WHERE epoch < (SELECT epoch FROM fedgate_epoch) - 10000;
END;
-- REPLACE deletes a row without a DELETE trigger.
DROP TRIGGER IF EXISTS fedgate_same_person_replaced;
CREATE TRIGGER fedgate_same_person_replaced BEFORE INSERT ON fedgate_same_persons
WHEN EXISTS (SELECT 1 FROM fedgate_same_persons WHERE id = new.id)
BEGIN
    UPDATE fedgate_epoch SET epoch = epoch + 1;
    INSERT INTO fedgate_account_changes SELECT epoch, changed.id FROM fedgate_epoch, (
        SELECT id FROM fedgate_same_persons
        WHERE person = (SELECT known.person FROM fedgate_same_persons AS known WHERE known.id = new.id)
    ) AS changed;
    INSERT INTO fedgate_account_changes SELECT epoch, account FROM fedgate_epoch, fedgate_related_to
    WHERE subject IN (SELECT account FROM fedgate_account_changes WHERE epoch = (SELECT epoch FROM fedgate_epoch));
    DELETE FROM fedgate_account_changes WHERE epoch < (SELECT epoch FROM fedgate_epoch) - 10000;
END;
DROP TRIGGER IF EXISTS fedgate_same_person_updated;
CREATE TRIGGER fedgate_same_person_updated AFTER UPDATE OF id, person ON fedgate_same_persons
BEGIN
    UPDATE fedgate_epoch SET epoch = epoch + 1;
    INSERT INTO fedgate_account_changes SELECT epoch, changed.id FROM fedgate_epoch, (
        SELECT old.id AS id UNION SELECT old.person UNION SELECT new.id UNION SELECT new.person
        UNION SELECT id FROM fedgate_same_persons WHERE person IN (old.person, new.person)
    ) AS changed;
    INSERT INTO fedgate_account_changes SELECT epoch, account FROM fedgate_epoch, fedgate_related_to
    WHERE subject IN (SELECT account FROM fedgate_account_changes WHERE epoch = (SELECT epoch FROM fedgate_epoch));
    DELETE FROM fedgate_account_changes WHERE epoch < (SELECT epoch FROM fedgate_epoch) - 10000;
END;
DROP TRIGGER IF EXISTS fedgate_same_person_deleted;
CREATE TRIGGER fedgate_same_person_deleted AFTER DELETE ON fedgate_same_persons
BEGIN
    UPDATE fedgate_epoch SET epoch = epoch + 1;
    INSERT INTO fedgate_account_changes SELECT epoch, changed.id FROM fedgate_epoch, (
        SELECT old.id AS id UNION SELECT old.person
        UNION SELECT id FROM fedgate_same_persons WHERE person = old.person
    ) AS changed;
    INSERT INTO fedgate_account_changes SELECT epoch, account FROM fedgate_epoch, fedgate_related_to
    WHERE subject IN (SELECT account FROM fedgate_account_changes WHERE epoch = (SELECT epoch FROM fedgate_epoch));
    DELETE FROM fedgate_account_changes WHERE epoch < (SELECT epoch FROM fedgate_epoch) - 10000;
END;
