//! An existing database of Thalamus works in place.

use fedgate_base::db::schema;
use serde_json::json;

use crate::support::postgres::Cluster;
use crate::support::{His, own, professional, root};

/// The schema and the kinds of rows of Thalamus, including those that it should not have accepted.
pub(crate) const THALAMUS: &str = r#"
CREATE TABLE people (id varchar PRIMARY KEY, data jsonb);
CREATE TABLE pols (id varchar PRIMARY KEY, book varchar REFERENCES people (id), data jsonb);
CREATE TABLE personal_docs (id varchar PRIMARY KEY, fedacct varchar REFERENCES people (id), pol varchar REFERENCES pols (id), document bytea, data jsonb);
CREATE TABLE dus (id varchar PRIMARY KEY, data jsonb);
CREATE TABLE institutions (id varchar PRIMARY KEY, data jsonb);
INSERT INTO people VALUES
  ('ITAPYT999HON', '{"id": "ITAPYT999HON", "name": "Cameron", "roles": ["end_user", "health_professional"], "active": true, "password": "$2b$12$cjrzjdZJGA6ARGr5Z1HVpOIyvhVrHAO3TN6t39r4X5rLrhRDlNUmi"}'),
  ('lower', '{"id": "lower"}'), ('EMPTY', NULL), ('LIST', '["password", 1]'), ('SCALAR', '7');
INSERT INTO pols VALUES
  ('p1', 'ITAPYT999HON', '{"id": "p1", "n": 123456789012345678901234567890, "page_date": "1985-10-04T13:05:00Z"}'),
  ('p2', 'ITAPYT999HON', '{"id": "another", "book": "another"}'),
  ('p3', NULL, '{"id": "p3"}');
INSERT INTO personal_docs VALUES
  ('d1', 'ITAPYT999HON', 'p1', '\xffd8ff00', '{"doctype": "identification", "format": "jpg"}'),
  ('d2', 'ITAPYT999HON', 'p1', NULL, '{"doctype": "other"}');
INSERT INTO dus VALUES ('du1', '{"id": "du1"}');
INSERT INTO institutions VALUES ('i1', '{"id": "i1"}');
"#;

pub(crate) async fn his() -> His {
    let config = Cluster::shared().database().await;
    let pool = fedgate_base::db::postgres::pool(&config).unwrap();
    pool.get().await.unwrap().batch_execute(THALAMUS).await.unwrap();
    assert_eq!(schema::version(&fedgate_base::db::Database::Postgres(pool)).await.unwrap(), 0);
    His::on(config).await
}

#[tokio::test]
async fn every_row_of_an_existing_database_is_served_and_none_is_changed() {
    let his = his().await;
    let people = his.get(&professional(), "/people").await;
    assert_eq!(people.status, 200);
    assert!(people.is_complete && !people.text().contains("$2b$"), "{}", people.text());
    let cameron =
        json!({"id": "ITAPYT999HON", "name": "Cameron", "roles": ["end_user", "health_professional"], "active": true});
    let people = people.json();
    assert_eq!(people.as_array().unwrap().len(), 5);
    for person in [json!(["password", 1]), json!(7), json!(null), json!({"id": "lower"}), cameron.clone()] {
        assert!(people.as_array().unwrap().contains(&json!([person])), "{person}");
    }
    assert_eq!(his.get(&own("ITAPYT999HON"), "/people/ITAPYT999HON").await.json(), cameron);
    let page = his.get(&own("ITAPYT999HON"), "/pols/ITAPYT999HON/p1").await;
    assert!(page.text().contains("123456789012345678901234567890"), "{}", page.text());
    assert_eq!(his.get(&professional(), "/pols/ITAPYT999HON/p2").await.json()["id"], "another");
    assert_eq!(his.get(&professional(), "/pols/ITAPYT999HON/p3").await.status, 404, "in nobody's book");
    let documents = his.get(&professional(), "/personal_docs/ITAPYT999HON").await.json();
    assert_eq!(documents[0], json!(["ITAPYT999HON", "p1", {"doctype": "identification", "format": "jpg"}, "/9j/AA=="]));
    assert_eq!(documents[1][3], json!(null));
    let picture = his.get(&professional(), "/personal_docs/ITAPYT999HON/p1/d1").await;
    assert_eq!((picture.header("content-type"), picture.body.len()), (Some("image/jpeg"), 4));
    assert_eq!(his.get(&professional(), "/personal_docs/ITAPYT999HON/p1/d2").await.status, 404);
    assert_eq!(his.get(&professional(), "/domiciliary-units").await.json(), json!([[{"id": "du1"}]]));
    assert_eq!(his.get(&professional(), "/institutions/i1").await.json(), json!({"id": "i1"}));
}

#[tokio::test]
async fn an_existing_database_is_written_on_as_before() {
    let his = his().await;
    assert_eq!(his.patch(&own("ITAPYT999HON"), "/people/ITAPYT999HON", r#"{"phone":"1"}"#).await.status, 200);
    assert_eq!(his.patch(&root(), "/people/EMPTY", r#"{"name":"E"}"#).await.status, 200);
    assert_eq!(his.get(&root(), "/people/EMPTY").await.json(), json!({"name": "E"}));
    assert_eq!(his.patch(&root(), "/people/lower", r#"{"name":"L"}"#).await.status, 200, "ids are as they are stored");
    let again = r#"{"id":"ITAPYT999HON","name":"Cameron","phone":"1","roles":["end_user","health_professional"],"active":true,"password":"freedom"}"#;
    assert_eq!(
        his.post(&root(), "/people/ITAPYT999HON", again).await.status,
        422,
        "another password is another document"
    );
    his.page("ITAPYT999HON", "p4", r#"{"id":"p4"}"#).await;
    assert_eq!(his.post(&root(), "/pols/ITAPYT999HON/p2", r#"{"id":"p2"}"#).await.status, 422);
    let hash = his.sql_text("SELECT data ->> 'password' FROM people WHERE id = 'ITAPYT999HON'").await.unwrap();
    assert!(hash.starts_with("$2b$12$"), "the hash stays where Thalamus keeps it");
}
