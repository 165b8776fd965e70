//! Links and relations in the store: who holds which, whom a change concerns, what it leaves behind.

use std::collections::BTreeSet;

use fedgate::accounts::{AccountRelation, AccountStore, LinkOutcome, RelationOutcome};
use fedgate_base::db::actor::ChangeActor;
use fedgate_base::db::{Database, schema};
use fedgate_base::moment::BootMoment;
use serde_json::{Value, json};

use crate::support::His;

/// The accounts of the changes since the last look; `*` means all accounts.
async fn changed(his: &His) -> String {
    let seen = match &his.database {
        Database::Postgres(_) => "SELECT string_agg(coalesce(account, '*'), ' ') FROM fedgate_account_changes",
        Database::Sqlite(_) => "SELECT group_concat(coalesce(account, '*'), ' ') FROM fedgate_account_changes",
    };
    let seen = his.sql_text(seen).await.unwrap_or_default();
    his.sql("DELETE FROM fedgate_account_changes").await;
    seen.split(' ').filter(|id| !id.is_empty()).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
}

async fn epoch(his: &His) -> i64 {
    his.sql_text("SELECT CAST(epoch AS text) FROM fedgate_epoch").await.unwrap().parse().unwrap()
}

async fn people(his: &His, ids: &[&str]) -> AccountStore {
    for id in ids {
        his.person(id, "{}").await;
    }
    AccountStore::open(&his.config).await.unwrap()
}

/// Now, in seconds since 1970, and some moment of the distant future.
fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}
const LATER: i64 = 86_400 * 30;

fn relation(account: &str, subject: &str, from: i64, until: Option<i64>) -> AccountRelation {
    AccountRelation { account: account.into(), subject: subject.into(), kind: "guardian".into(), from, until }
}

/// The own and the related ids of an account in a system, and its related persons.
async fn ids(accounts: &AccountStore, account: &str, system: &str) -> (Vec<String>, Vec<String>, Vec<String>) {
    let Some(linked) = accounts.read(account).await.unwrap().unwrap().linked else { return Default::default() };
    let (own, related) = linked.of(system);
    (own.to_vec(), related.to_vec(), linked.related.to_vec())
}

/// The events of links and relations, the oldest first.
async fn events(accounts: &AccountStore) -> Vec<Value> {
    let mut events = accounts.history(None, None, 1000).await.unwrap();
    events.retain(|event| !["created", "changed", "deleted", "unwatched"].contains(&event.what.as_str()));
    events.reverse();
    events.iter().map(|event| json!([event.what, event.account, event.detail, event.via, event.actor])).collect()
}

crate::on_both_stores! {
    async fn an_id_of_another_system_belongs_to_one_account_and_an_account_may_have_several(his) {
        let accounts = people(&his, &["ANA", "BOB"]).await.acting_as(ChangeActor::caller("ROOT", ""));
        assert_eq!(ids(&accounts, "ANA", "fhir").await, Default::default());
        for (account, system, id, expected) in [
            ("ANA", "fhir", "Patient/1", LinkOutcome::Done),
            ("ANA", "fhir", "Patient/1", LinkOutcome::Known),
            ("BOB", "fhir", "Patient/1", LinkOutcome::Taken("ANA".into())),
            ("ANA", "fhir", "Patient/2", LinkOutcome::Done),
            ("BOB", "fhir", "patient/1", LinkOutcome::Done),
            ("BOB", "lab", "Patient/1", LinkOutcome::Done),
            ("EVE", "lab", "7", LinkOutcome::Missing),
            ("ana", "lab", "7", LinkOutcome::Missing),
        ] {
            assert_eq!(accounts.link(account, system, id).await.unwrap(), expected, "{account} {system} {id}");
        }
        let of = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        assert_eq!(ids(&accounts, "ANA", "fhir").await, (of(&["Patient/1", "Patient/2"]), vec![], vec![]));
        assert_eq!(ids(&accounts, "ANA", "lab").await, Default::default());
        assert_eq!(ids(&accounts, "BOB", "fhir").await.0, of(&["patient/1"]));
        assert!(!accounts.unlink("BOB", "fhir", "Patient/1").await.unwrap(), "it is another's");
        assert!(accounts.unlink("ANA", "fhir", "Patient/1").await.unwrap());
        assert!(!accounts.unlink("ANA", "fhir", "Patient/1").await.unwrap());
        assert_eq!(accounts.link("BOB", "fhir", "Patient/1").await.unwrap(), LinkOutcome::Done);
        let listed = accounts.links("BOB").await.unwrap().links;
        assert_eq!(listed.iter().map(|link| format!("{} {}", link.system, link.id)).collect::<Vec<_>>(), ["fhir Patient/1", "fhir patient/1", "lab Patient/1"]);
        let by = |what: &str, account: &str, system: &str, id: &str| {
            json!([what, account, { "system": system, "id": id }, "http", "ROOT"])
        };
        assert_eq!(events(&accounts).await, [
            by("linked", "ANA", "fhir", "Patient/1"),
            by("linked", "ANA", "fhir", "Patient/2"),
            by("linked", "BOB", "fhir", "patient/1"),
            by("linked", "BOB", "lab", "Patient/1"),
            by("unlinked", "ANA", "fhir", "Patient/1"),
            by("linked", "BOB", "fhir", "Patient/1"),
        ]);
    }

    async fn a_link_concerns_its_person_and_everybody_who_is_related_to_it(his) {
        let accounts = people(&his, &["ANA", "OLD", "BOB", "CHILD", "TEEN"]).await;
        his.sql("INSERT INTO fedgate_same_persons (id, person) VALUES ('ANA', 'ANA'), ('OLD', 'ANA'), ('CHILD', 'CHILD'), ('TEEN', 'CHILD')").await;
        changed(&his).await;
        let mut before = epoch(&his).await;
        for (sql, expected) in [
            ("INSERT INTO fedgate_links (system, id, account) VALUES ('fhir', '1', 'BOB')", "BOB"),
            ("INSERT INTO fedgate_links (system, id, account) VALUES ('fhir', '2', 'ANA')", "ANA OLD"),
            ("INSERT INTO fedgate_relations (account, subject, kind) VALUES ('OLD', 'CHILD', 'guardian')", "ANA OLD"),
            ("INSERT INTO fedgate_relations (account, subject, kind) VALUES ('BOB', 'TEEN', 'team')", "BOB"),
            // Those to whom a person is related, under every id.
            ("INSERT INTO fedgate_links (system, id, account) VALUES ('fhir', '3', 'CHILD')", "ANA BOB CHILD OLD TEEN"),
            ("UPDATE fedgate_links SET account = 'BOB' WHERE id = '2'", "ANA BOB OLD"),
            ("UPDATE fedgate_links SET id = '4' WHERE id = '3'", "ANA BOB CHILD OLD TEEN"),
            ("DELETE FROM fedgate_links WHERE id = '4'", "ANA BOB CHILD OLD TEEN"),
            // A person with other ids is another subject.
            ("DELETE FROM fedgate_same_persons WHERE id = 'TEEN'", "ANA BOB CHILD OLD TEEN"),
            ("UPDATE fedgate_relations SET valid_until = NULL WHERE account = 'BOB'", "BOB"),
            ("DELETE FROM fedgate_relations WHERE account = 'BOB'", "BOB"),
            ("UPDATE fedgate_relations SET account = 'BOB'", "ANA BOB OLD"),
        ] {
            his.sql(sql).await;
            assert_eq!(changed(&his).await, expected, "{sql}");
            let now = epoch(&his).await;
            assert!(now > before, "{sql}");
            before = now;
        }
        let emptied = match &his.database {
            Database::Postgres(_) => ("TRUNCATE fedgate_links, fedgate_relations", "*"),
            Database::Sqlite(_) => ("DELETE FROM fedgate_links", "BOB"),
        };
        his.sql(emptied.0).await;
        assert_eq!(changed(&his).await, emptied.1);
        assert_eq!(ids(&accounts, "ANA", "fhir").await, Default::default());
    }

    async fn the_ids_of_one_person_count_together_and_so_do_those_of_a_related_one(his) {
        let accounts = people(&his, &["ANA", "OLD", "CHILD", "TEEN", "BOB"]).await;
        his.sql("INSERT INTO fedgate_same_persons (id, person) VALUES ('ANA', 'ANA'), ('OLD', 'ANA'), ('CHILD', 'CHILD'), ('TEEN', 'CHILD')").await;
        for (account, id) in [("ANA", "1"), ("OLD", "2"), ("CHILD", "3"), ("TEEN", "4"), ("BOB", "5")] {
            assert_eq!(accounts.link(account, "fhir", id).await.unwrap(), LinkOutcome::Done);
        }
        assert_eq!(accounts.relate(&relation("OLD", "CHILD", 0, None)).await.unwrap(), RelationOutcome::Done);
        let of = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let all = (of(&["1", "2"]), of(&["3", "4"]), of(&["CHILD", "TEEN"]));
        assert_eq!(ids(&accounts, "ANA", "fhir").await, all);
        assert_eq!(ids(&accounts, "OLD", "fhir").await, all);
        assert_eq!(ids(&accounts, "CHILD", "fhir").await, (of(&["3", "4"]), vec![], vec![]), "it goes one way");
        // One's own other id is no related person.
        assert_eq!(accounts.relate(&relation("OLD", "ANA", 0, None)).await.unwrap(), RelationOutcome::Done);
        assert_eq!(ids(&accounts, "ANA", "fhir").await, all);
    }

    async fn a_relation_holds_from_one_moment_and_before_another_by_the_clock_of_the_store(his) {
        let accounts = people(&his, &["ANA", "BOB", "CHILD"]).await;
        let read = async |account: &str| {
            let asked = BootMoment::now();
            let read = accounts.read(account).await.unwrap().unwrap();
            let related = read.linked.map(|linked| linked.related.to_vec()).unwrap_or_default();
            (related.join(" "), read.linked_until.map(|until| until.since(asked).as_secs()))
        };
        let day = Some(86_400);
        for (from, until, expected) in [
            (0, None, ("CHILD", None)),
            (now() - 10, Some(now() + LATER), ("CHILD", day)),
            (now() + LATER, None, ("", day)),
            (0, Some(1), ("", None)),
            (now() - 20, Some(now() - 10), ("", None)),
        ] {
            assert_eq!(accounts.relate(&relation("ANA", "CHILD", from, until)).await.unwrap(), RelationOutcome::Done);
            let (related, left) = read("ANA").await;
            assert_eq!((related.as_str(), left), expected, "{from} {until:?}");
            let listed = accounts.links("CHILD").await.unwrap().relations;
            assert_eq!(listed, [relation("ANA", "CHILD", from, until)]);
        }
        // The next moment of several counts.
        accounts.relate(&relation("ANA", "BOB", 0, Some(now() + 1000))).await.unwrap();
        let (related, left) = read("ANA").await;
        assert!(related == "BOB" && (900..=1000).contains(&left.unwrap()), "{related} {left:?}");
        assert!(accounts.links("CHILD").await.unwrap().relations.is_empty(), "the one that had run out is gone");
        assert_eq!(accounts.unrelate("ANA", "BOB", Some("team")).await.unwrap(), 0);
        assert_eq!(accounts.unrelate("ANA", "BOB", None).await.unwrap(), 1);
        assert_eq!(read("ANA").await, (String::new(), None));
        let missing = |id: &str| RelationOutcome::Missing(id.to_owned());
        assert_eq!(accounts.relate(&relation("ANA", "EVE", 0, None)).await.unwrap(), missing("EVE"));
        assert_eq!(accounts.relate(&relation("EVE", "ANA", 0, None)).await.unwrap(), missing("EVE"));
        let last = events(&accounts).await.pop().unwrap();
        assert_eq!(last, json!(["unrelated", "ANA", { "subject": "BOB", "kind": "guardian" }, "outside", null]));
    }

    async fn a_person_who_is_deleted_or_renamed_leaves_neither_links_nor_relations(his) {
        let accounts = people(&his, &["ANA", "BOB", "EVE"]).await;
        let count = "SELECT CAST((SELECT count(*) FROM fedgate_links) + (SELECT count(*) FROM fedgate_relations) AS text)";
        for gone in [
            "DELETE FROM people WHERE id = 'ANA'",
            "UPDATE people SET id = 'ANNA' WHERE id = 'ANA'",
        ] {
            his.sql("DELETE FROM people WHERE id IN ('ANA', 'ANNA')").await;
            his.person("ANA", "{}").await;
            accounts.link("ANA", "fhir", "1").await.unwrap();
            accounts.relate(&relation("ANA", "BOB", 0, None)).await.unwrap();
            accounts.relate(&relation("EVE", "ANA", 0, None)).await.unwrap();
            assert_eq!(his.sql_text(count).await.unwrap(), "3");
            changed(&his).await;
            his.sql(gone).await;
            assert_eq!(his.sql_text(count).await.unwrap(), "0", "{gone}");
            assert!(changed(&his).await.contains("EVE"), "{gone}");
        }
    }

    async fn bounds_and_spellings_hold_for_every_writer(his) {
        let accounts = people(&his, &["ANA", "BOB"]).await;
        for n in 0..64 {
            assert_eq!(accounts.link("ANA", "lab", &n.to_string()).await.unwrap(), LinkOutcome::Done);
        }
        assert_eq!(accounts.link("ANA", "lab", "64").await.unwrap(), LinkOutcome::Full);
        let refused = [
            "INSERT INTO fedgate_links (system, id, account) VALUES ('lab', '64', 'ANA')",
            "INSERT INTO fedgate_links (system, id, account) VALUES ('lab', '64', 'EVE')",
            "INSERT INTO fedgate_links (system, id, account) VALUES ('Lab', '64', 'BOB')",
            "INSERT INTO fedgate_links (system, id, account) VALUES ('', '64', 'BOB')",
            "INSERT INTO fedgate_links (system, id, account) VALUES ('-lab', '64', 'BOB')",
            "INSERT INTO fedgate_links (system, id, account) VALUES ('lab', '', 'BOB')",
            "INSERT INTO fedgate_links (system, id, account) VALUES ('lab', 'a\u{1}', 'BOB')",
            "INSERT INTO fedgate_links (system, id, account) VALUES ('lab', '0', 'BOB')",
            "UPDATE fedgate_links SET account = 'EVE' WHERE id = '0'",
            "INSERT INTO fedgate_relations (account, subject, kind) VALUES ('ANA', 'ANA', 'team')",
            "INSERT INTO fedgate_relations (account, subject, kind) VALUES ('ANA', 'EVE', 'team')",
            "INSERT INTO fedgate_relations (account, subject, kind) VALUES ('EVE', 'ANA', 'team')",
            "INSERT INTO fedgate_relations (account, subject, kind) VALUES ('ANA', 'BOB', 'a b')",
        ];
        let (links, epoch_before) = (accounts.links("ANA").await.unwrap(), epoch(&his).await);
        for sql in refused {
            assert!(his.try_sql(sql).await.is_err(), "{sql}");
        }
        assert_eq!((accounts.links("ANA").await.unwrap(), epoch(&his).await), (links, epoch_before));
        for n in 0..257 {
            let subject = format!("S{n}");
            his.sql(&format!("INSERT INTO people (id, data) VALUES ('{subject}', '{{}}')")).await;
            let expected = if n < 256 { RelationOutcome::Done } else { RelationOutcome::Full };
            assert_eq!(accounts.relate(&relation("ANA", &subject, 0, None)).await.unwrap(), expected, "{n}");
        }
        assert!(his.try_sql("INSERT INTO fedgate_relations (account, subject, kind) VALUES ('ANA', 'S256', 'team')").await.is_err());
        // One that runs out leaves its room; its dates can be changed at any time.
        assert_eq!(accounts.relate(&relation("ANA", "S0", 0, Some(1))).await.unwrap(), RelationOutcome::Done);
        assert_eq!(accounts.relate(&relation("ANA", "S256", 0, None)).await.unwrap(), RelationOutcome::Done);
        assert_eq!(ids(&accounts, "ANA", "lab").await.2.len(), 256);
    }

    async fn missing_triggers_of_links_are_reported_and_made_by_a_migration(his) {
        let accounts = people(&his, &["ANA"]).await;
        accounts.link("ANA", "fhir", "1").await.unwrap();
        let mut before = accounts.check().await.unwrap();
        let off: &[&str] = match &his.database {
            Database::Postgres(_) => &[
                "ALTER TABLE fedgate_links DISABLE TRIGGER USER",
                "ALTER TABLE fedgate_relations ENABLE TRIGGER fedgate_relations_changed",
                "DROP TRIGGER fedgate_links_emptied ON fedgate_links",
            ],
            Database::Sqlite(_) => &[
                "DROP TRIGGER fedgate_link_inserted",
                "DROP TRIGGER fedgate_link_replaced",
                "DROP TRIGGER fedgate_relation_updated",
                "DROP TRIGGER fedgate_relation_deleted",
            ],
        };
        for off in off {
            his.sql(off).await;
            assert!(accounts.check().await.is_err(), "{off}");
            schema::migrate(&his.database).await.unwrap();
            let changes = accounts.changes_since(Some(before)).await.unwrap();
            assert_eq!(changes.epoch, before + 1, "{off}");
            before += 1;
        }
        assert_eq!(ids(&accounts, "ANA", "fhir").await.0, ["1"]);
    }
}
