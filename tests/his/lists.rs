//! Lists by page and by filter: the same on both stores.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::support::{His, professional};

/// The ids of a list, and the link to the next page.
async fn ids(his: &His, target: &str) -> (String, Option<String>) {
    let reply = his.get(&professional(), target).await;
    assert_eq!(reply.status, 200, "{target}: {}", reply.text());
    let ids: Vec<String> =
        reply.json().as_array().unwrap().iter().map(|one| one[0]["id"].as_str().unwrap().into()).collect();
    let link = reply.header("link").map(|link| link.strip_prefix('<').unwrap().split('>').next().unwrap().to_owned());
    (ids.join(" "), link)
}

crate::on_both_stores! {
    async fn a_filter_finds_strings_numbers_and_truth_values_as_they_are_written_and_nothing_else(his) {
        for (id, value) in [
            ("A", json!("5")), ("B", json!(5)), ("C", json!("true")), ("D", json!(true)), ("E", json!(false)), ("F", json!({"a": 1})),
            ("G", json!([1])), ("H", json!(null)), ("I", json!("null")), ("J", json!("")),
        ] {
            his.person(id, &json!({"name": value, "gender": value}).to_string()).await;
        }
        his.person("K", r#"{"name":1.50}"#).await;
        for (value, found) in [
            ("5", "A B"), ("true", "C D"), ("false", "E"), ("1", ""), ("0", ""), ("null", "I"), ("", "J"), ("1.50", "K"), ("1.5", ""),
            ("%7B%22a%22%3A1%7D", ""), ("%7B%22a%22%3A%201%7D", ""), ("%5B1%5D", ""), ("5.0", ""),
        ] {
            assert_eq!(ids(&his, &format!("/people?name={value}")).await.0, found, "{value}");
        }
        assert_eq!(ids(&his, "/people?name=5&gender=5").await.0, "A B");
        for (page, kind) in [("p1", json!(7)), ("p2", json!("7")), ("p3", json!(true)), ("p4", json!({}))] {
            his.page("A", page, &json!({"id": page, "page_type": kind}).to_string()).await;
        }
        assert_eq!(ids(&his, "/pols/A?page_type=7").await.0, "p1 p2");
        assert_eq!(ids(&his, "/pols/A?page_type=true").await.0, "p3");
        assert_eq!(ids(&his, "/pols/A?page_type=%7B%7D").await.0, "");
    }

    async fn a_page_never_has_more_rows_than_were_asked_for(his) {
        for id in ["A", "C", "E"] {
            his.person(id, "{}").await;
        }
        let is_done = AtomicBool::new(false);
        let write = async {
            while !is_done.load(Ordering::Relaxed) {
                his.sql("INSERT INTO people (id, data) VALUES ('B', '{\"id\": \"B\"}')").await;
                his.sql("DELETE FROM people WHERE id = 'B'").await;
            }
        };
        let read = async {
            for _ in 0..150 {
                let (page, link) = ids(&his, "/people?limit=2").await;
                assert!(["A C", "A B", "A"].contains(&page.as_str()), "{page}");
                assert!(link.is_some());
            }
            is_done.store(true, Ordering::Relaxed);
        };
        tokio::join!(write, read);
    }

    async fn lines_have_what_the_list_has_and_one_record_each(his) {
        for number in 0..70 {
            let text = "x".repeat(if number % 7 == 0 { 90_000 } else { number });
            his.person(&format!("P{number:02}"), &json!({"lastname": "Betz", "rest": text}).to_string()).await;
        }
        // As other programs may have written it.
        his.sql("INSERT INTO people (id, data) VALUES ('Q', '{\n \"id\": \"Q\",\r\n \"lastname\": \"Betz\"\n}')").await;
        his.sql("INSERT INTO pols (id, book, data) VALUES ('old', 'Q', '{\n \"id\": \"old\",\r\n \"text\": \"a\\nb\"\n}')").await;
        his.page("Q", "new", r#"{"id":"new"}"#).await;
        for (target, count) in [
            ("/people", 71), ("/people?lastname=Betz&limit=30", 30), ("/people?limit=1000", 71), ("/people?lastname=None", 0),
            ("/people?limit=5&lastname=None", 0), ("/pols/Q", 2), ("/pols/P00", 0), ("/institutions", 0),
        ] {
            let [list, lines] = ["text/html, */*", "application/x-ndjson, */*;q=0.1"].map(|accepted| {
                his.request(&professional(), "GET", target).header("accept", accepted).send()
            });
            let (list, lines) = (list.await, lines.await);
            assert_eq!((list.status, lines.status), (200, 200), "{target}");
            assert_eq!(list.header("content-type"), Some("application/json"));
            assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
            assert_eq!(list.header("link"), lines.header("link"), "{target}");
            let records: Vec<serde_json::Value> = lines.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(json!(records.iter().map(|record| json!([record])).collect::<Vec<_>>()), list.json(), "{target}");
            assert_eq!(records.len(), count, "{target}");
            assert!(lines.text().is_empty() || lines.text().ends_with('\n'), "{target}");
        }
        let refused = his.request(&professional(), "GET", "/people?limit=1").header("accept", "application/x-ndjson;q=0").send().await;
        assert_eq!(refused.json()[0][0]["id"], "P00");
    }

    async fn a_document_of_any_size_is_one_line(his) {
        use base64::Engine;
        his.person("A", "{}").await;
        his.page("A", "p", r#"{"id":"p"}"#).await;
        for (document, bytes) in [("d1", 10), ("d2", 700_000), ("d3", 20)] {
            let content = base64::engine::general_purpose::STANDARD.encode(vec![7; bytes]);
            let body = json!({"id": document, "document": content}).to_string();
            assert_eq!(his.post(&professional(), &format!("/personal_docs/A/p/{document}"), body).await.status, 200);
        }
        for target in ["/personal_docs/A", "/personal_docs/A?limit=2", "/personal_docs/A/p?document=link"] {
            let list = his.get(&professional(), target).await.json();
            let lines = his.request(&professional(), "GET", target).header("accept", "application/x-ndjson").send().await;
            let documents: Vec<serde_json::Value> = lines.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(json!(documents), list, "{target}");
        }
    }

    async fn a_next_link_is_one_that_the_gateway_takes(his) {
        // Each character is one byte as it is written, and three when encoded.
        let name = "'".repeat(4000);
        for id in ["A", "B", "C"] {
            his.person(id, &json!({"name": name}).to_string()).await;
        }
        let (first, link) = ids(&his, &format!("/people?limit=1&name={name}&%61fter=&unknown=(x)")).await;
        let link = link.unwrap();
        assert_eq!((first.as_str(), link.matches("fter=").count()), ("A", 1));
        assert!(fedgate_core::path::parse_target(link.as_bytes()).is_ok(), "{} bytes", link.len());
        let (second, link) = ids(&his, &link).await;
        assert_eq!(second, "B");
        assert_eq!(ids(&his, &link.unwrap()).await, ("C".to_owned(), None));
        // A query without room for the link is refused before a page is shown that no link could follow.
        let long = format!("/people?limit=1&name={}", "x".repeat(8000));
        assert_eq!(his.get(&professional(), &long).await.error().2, "bad_query");
        assert_eq!(ids(&his, &format!("/people?name={}", "x".repeat(8000))).await.0, "");
    }
}
