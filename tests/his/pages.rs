//! Books of life and their pages.

use serde_json::json;

use crate::support::{own, professional};

crate::on_both_stores! {
    async fn a_page_is_stored_read_and_listed_under_its_person(his) {
        his.person("ANA", "{}").await;
        let page = r#"{"id":"p1","book":"ANA","page_date":"2024-01-02T03:04:05Z","measurements":[{"bp":{"systolic":120}}],"privacy":false,"fsynced":null}"#;
        let reply = his.post(&own("ANA"), "/pols/ANA/p1", page).await;
        assert_eq!((reply.status, reply.text()), (200, "null"));
        let expected: serde_json::Value = serde_json::from_str(page).unwrap();
        assert_eq!(his.get(&own("ANA"), "/pols/ANA/p1").await.json(), expected);
        assert_eq!(his.get(&own("ANA"), "/pols/ANA").await.json(), json!([[expected]]));
        assert_eq!(his.get(&professional(), "/pols/NOBODY").await.text(), "[]", "an unknown book is an empty one");
        let missing = (404, "Book or page or not found".to_owned(), "page_not_found".to_owned());
        assert_eq!(his.get(&own("ANA"), "/pols/ANA/none").await.error(), missing);
    }

    async fn only_what_has_a_version_may_be_kept_by_a_client(his) {
        his.person("ANA", "{}").await;
        his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
        for (target, kept) in [
            ("/people/ANA", "private, no-cache"),
            ("/pols/ANA/p1", "private, no-cache"),
            ("/pols/ANA", "no-store"),
            ("/pols/ANA?limit=1", "no-store"),
            ("/people", "no-store"),
            ("/personal_docs/ANA", "no-store"),
            ("/institutions", "no-store"),
            ("/login", "no-store"),
            ("/pols/ANA/none", "no-store"),
            ("/people?dob=x", "no-store"),
        ] {
            let reply = his.get(&professional(), target).await;
            assert_eq!(reply.header("cache-control"), Some(kept), "{target}: {}", reply.status);
        }
        assert_eq!(his.patch(&own("ANA"), "/pols/ANA/p1", "{}").await.header("cache-control"), Some("no-store"));
    }

    async fn a_page_of_anothers_book_is_not_found_under_ones_own(his) {
        his.person("ANA", "{}").await;
        his.person("BOB", "{}").await;
        his.page("BOB", "p1", r#"{"id":"p1","summary":"secret"}"#).await;
        assert_eq!(his.get(&own("ANA"), "/pols/ANA/p1").await.status, 404);
        assert_eq!(his.patch(&own("ANA"), "/pols/ANA/p1", r#"{"summary":"x"}"#).await.error().1, "Page not found");
        assert_eq!(his.delete(&own("ANA"), "/pols/ANA/p1").await.status, 404);
        assert_eq!(his.get(&professional(), "/pols/ANA/p1").await.status, 404);
        assert_eq!(his.get(&professional(), "/pols/BOB/p1").await.json()["summary"], "secret");
    }

    async fn the_same_page_again_is_200_and_another_422(his) {
        his.person("ANA", "{}").await;
        his.person("BOB", "{}").await;
        // With and without the book: the path names it either way.
        his.page("ANA", "p1", r#"{"id":"p1","n":1.0,"a":{"x":null}}"#).await;
        his.page("ANA", "p1", r#"{"a":{"x":null},"n":1,"id":"p1","book":"ANA"}"#).await;
        for (target, body) in [
            ("/pols/ANA/p1", r#"{"id":"p1","n":2,"a":{"x":null}}"#),
            ("/pols/ANA/p1", r#"{"id":"p1"}"#),
            ("/pols/BOB/p1", r#"{"id":"p1","n":1.0,"a":{"x":null}}"#),
        ] {
            let reply = his.post(&professional(), target, body).await;
            assert_eq!(reply.error(), (422, "Page already exists".into(), "page_exists".into()), "{target}");
        }
        assert_eq!(his.get(&professional(), "/pols/BOB").await.text(), "[]");
    }

    async fn a_page_that_names_no_book_is_of_the_book_of_its_path(his) {
        his.person("ANA", "{}").await;
        for (page, book) in [("p1", r#""book":null,"#), ("p2", r#""book":"","#), ("p3", "")] {
            let body = format!(r#"{{"id":"{page}",{book}"n":1}}"#);
            for time in ["first", "again"] {
                assert_eq!(his.post(&own("ANA"), &format!("/pols/ANA/{page}"), &body).await.text(), "null", "{time} {body}");
            }
            let expected = json!({"id": page, "book": "ANA", "n": 1});
            assert_eq!(his.get(&own("ANA"), &format!("/pols/ANA/{page}")).await.json(), expected);
            assert_eq!(his.patch(&own("ANA"), &format!("/pols/ANA/{page}"), format!(r#"{{{book}"m":2}}"#)).await.text(), "null");
            assert_eq!(his.get(&own("ANA"), &format!("/pols/ANA/{page}")).await.json()["book"], "ANA");
        }
        // As Thalamus stored it. The phone that lost the answer sends it again.
        his.sql(r#"INSERT INTO pols (id, book, data) VALUES ('old', 'ANA', '{"id": "old", "book": null}')"#).await;
        let again = his.post(&own("ANA"), "/pols/ANA/old", r#"{"id":"old","book":null}"#).await;
        assert_eq!((again.status, again.text()), (200, "null"));
        let other = his.post(&own("ANA"), "/pols/ANA/old", r#"{"id":"old","book":null,"n":1}"#).await;
        assert_eq!(other.error().2, "page_exists");
    }

    async fn a_page_that_contradicts_its_path_is_refused(his) {
        his.person("ANA", "{}").await;
        his.person("BOB", "{}").await;
        for (body, code) in [
            (r#"{}"#, "page_id_missing"),
            (r#"{"id":"other"}"#, "page_id_change"),
            (r#"{"id":null}"#, "page_id_change"),
            (r#"{"id":"p1","id":"p2"}"#, "page_id_change"),
            (r#"{"id":"p1","book":"BOB"}"#, "book_mismatch"),
            (r#"{"id":"p1","bo\u006fk":"BOB"}"#, "book_mismatch"),
            (r#"{"id":"p1","book":false}"#, "book_mismatch"),
            (r#"{"id":"p1","book":" "}"#, "book_mismatch"),
        ] {
            let (status, _, got) = his.post(&professional(), "/pols/ANA/p1", body).await.error();
            assert_eq!((status, got.as_str()), (422, code), "{body}");
        }
        assert_eq!(his.post(&professional(), "/pols/ANA/p1", "{}").await.error().1, "wrong format on person or page ID");
        let unknown = his.post(&professional(), "/pols/NOBODY/p1", r#"{"id":"p1"}"#).await;
        assert_eq!(unknown.error(), (404, "Person not found".into(), "person_not_found".into()));
        // The id of a page is case-sensitive, and so is the id of its person.
        assert_eq!(his.post(&professional(), "/pols/ana/p1", r#"{"id":"p1"}"#).await.status, 404);
    }

    async fn a_patch_accepts_the_ids_of_the_path_and_no_others(his) {
        his.person("ANA", "{}").await;
        his.page("ANA", "p1", r#"{"id":"p1","a":{"x":1},"b":1}"#).await;
        let body = r#"{"id":"p1","book":"ANA","a":{"y":2},"b":null}"#;
        assert_eq!(his.patch(&own("ANA"), "/pols/ANA/p1", body).await.text(), "null");
        let expected = json!({"id": "p1", "book": "ANA", "a": {"y": 2}, "b": null});
        assert_eq!(his.get(&own("ANA"), "/pols/ANA/p1").await.json(), expected);
        let refused = (422, "Not allowed to change the page ID".to_owned(), "page_id_change".to_owned());
        assert_eq!(his.patch(&own("ANA"), "/pols/ANA/p1", r#"{"id":"p2"}"#).await.error(), refused);
        assert_eq!(his.patch(&own("ANA"), "/pols/ANA/p1", r#"{"book":"BOB"}"#).await.error().0, 422);
        assert_eq!(his.patch(&own("ANA"), "/pols/ANA/p9", "{}").await.error().1, "Page not found");
        assert_eq!(his.get(&own("ANA"), "/pols/ANA/p1").await.json(), expected);
    }

    async fn a_page_is_deleted_unless_documents_belong_to_it(his) {
        his.person("ANA", "{}").await;
        his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
        assert_eq!(his.post(&professional(), "/personal_docs/ANA/p1/d1", r#"{"document":"AAEC"}"#).await.status, 200);
        assert_eq!(his.delete(&professional(), "/pols/ANA/p1").await.error().2, "page_in_use");
        assert_eq!(his.delete(&professional(), "/personal_docs/ANA/p1/d1").await.text(), "null");
        assert_eq!(his.delete(&professional(), "/pols/ANA/p1").await.text(), "null");
        assert_eq!(his.delete(&professional(), "/pols/ANA/p1").await.error().0, 404);
    }

    async fn a_book_is_narrowed_by_date_and_type_and_paged(his) {
        his.person("ANA", "{}").await;
        for (at, (date, kind)) in [("2023-05-01", "medical"), ("2024-05-01", "medical"), ("2024-06-01", "social")].iter().enumerate() {
            let page = json!({"id": format!("p{at}"), "page_date": date, "page_type": kind}).to_string();
            his.page("ANA", &format!("p{at}"), &page).await;
        }
        let ids = async |query: &str| {
            let reply = his.get(&own("ANA"), &format!("/pols/ANA?{query}")).await;
            let ids: Vec<String> = reply.json().as_array().unwrap().iter().map(|one| one[0]["id"].as_str().unwrap().into()).collect();
            (ids.join(" "), reply.header("link").map(str::to_owned))
        };
        assert_eq!(ids("since=2024-01-01").await.0, "p1 p2");
        assert_eq!(ids("page_type=medical").await.0, "p0 p1");
        assert_eq!(ids("since=2024-01-01&page_type=medical").await.0, "p1");
        assert_eq!(ids("limit=2").await, ("p0 p1".into(), Some("</pols/ANA?limit=2&after=p1>; rel=\"next\"".into())));
        assert_eq!(ids("limit=2&after=p1").await, ("p2".into(), None));
    }

    async fn pages_since_a_moment_are_found_however_it_and_theirs_are_written(his) {
        his.person("ANA", "{}").await;
        let certificate = "1985-10-06T10:00:00Z";
        let dates = [
            json!(certificate), json!("1985-10-06T12:00:00+02:00"), json!("1985-10-06 10:00:00"), json!("1985-10-06T10:00:00.000001"),
            json!("1985-10-06T09:59:59"), json!("1985-10-06T11:59:59+02:00"), json!("1985-10-06"), json!("1985-10-05T23:00:00-11:00"),
            json!("1985-10-07"), json!("1985-10-04T13:05:00Z"),
            // An unreadable date hides no page.
            json!("bogus"), json!("04/10/1985"), json!("1985-10-06T25:00:00"), json!(1985), json!(null), json!({"y": 1985}),
        ];
        for (at, date) in dates.iter().enumerate() {
            let id = format!("p{at:02}");
            his.page("ANA", &id, &json!({"id": id, "page_date": date}).to_string()).await;
        }
        his.page("ANA", "p16", r#"{"id":"p16"}"#).await;
        let ids = async |query: &str| {
            let (mut target, mut found) = (Some(format!("/pols/ANA?{query}")), Vec::new());
            while let Some(page) = target {
                let reply = his.get(&own("ANA"), &page).await;
                assert_eq!(reply.status, 200, "{page}: {}", reply.text());
                found.extend(reply.json().as_array().unwrap().iter().map(|one| one[0]["id"].as_str().unwrap()[1..].to_owned()));
                let next = |link: &str| link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
                target = reply.header("link").map(next);
            }
            found.join(" ")
        };
        let unreadable = "10 11 12 13 14 15 16";
        let since_ten = format!("00 01 02 03 07 08 {unreadable}");
        for same in ["1985-10-06T10:00:00Z", "1985-10-06T12:00:00%2B02:00", "1985-10-06+10:00:00", "1985-10-05T22:30:00.000-11:30"] {
            assert_eq!(ids(&format!("since={same}")).await, since_ten, "{same}");
            for limit in [1, 2, 5] {
                assert_eq!(ids(&format!("since={same}&limit={limit}")).await, since_ten, "{same} by {limit}");
            }
        }
        // The day of the certificate, in Italy.
        assert_eq!(ids("since=1985-10-06T11:30:00%2B02:00").await, format!("00 01 02 03 04 05 07 08 {unreadable}"));
        assert_eq!(ids("since=1985-10-06").await, format!("00 01 02 03 04 05 06 07 08 {unreadable}"));
        assert_eq!(ids("since=0001-01-01").await, ids("").await);
        assert_eq!(ids("since=9999-12-31T23:59:59-23:00").await, unreadable.replace(" 12", ""), "1985 is earlier, whatever follows");
        for query in ["since=bogus", "since=", "since=1985-02-30", "since=1985-10-06T11:30:00+02:00", "since=%ff", "page_type=medical&since=1"] {
            let (status, _, code) = his.get(&own("ANA"), &format!("/pols/ANA?{query}")).await.error();
            assert_eq!((status, code.as_str()), (400, "bad_query"), "{query}");
        }
    }

    async fn pages_of_one_day_are_all_looked_at_however_many_are_earlier(his) {
        his.person("ANA", "{}").await;
        for at in 0..80 {
            let hour = if at == 79 { 12 } else { 10 };
            let page = json!({"id": format!("p{at:02}"), "page_date": format!("2024-05-01T{hour}:00:00")});
            his.page("ANA", &format!("p{at:02}"), &page.to_string()).await;
        }
        for query in ["since=2024-05-01T11:00:00", "since=2024-05-01T11:00:00&limit=1"] {
            let found = his.get(&own("ANA"), &format!("/pols/ANA?{query}")).await;
            assert_eq!((found.json()[0][0]["id"].as_str(), found.json()[1].is_null(), found.header("link")), (Some("p79"), true, None));
        }
        assert_eq!(his.get(&own("ANA"), "/pols/ANA?since=2024-05-01T13:00:00").await.json(), json!([]));
    }

    async fn concurrent_callers_get_their_own_answers(his) {
        for at in 0..8 {
            his.person(&format!("P{at}"), "{}").await;
        }
        // Thalamus shares one connection and cursor: under load, answers get mixed and writes lost.
        let his = std::sync::Arc::new(his);
        let work = (0..8).map(|at| {
            let his = std::sync::Arc::clone(&his);
            tokio::spawn(async move {
                for round in 0..10 {
                    let (person, page) = (format!("P{at}"), format!("{at}-{round}"));
                    his.page(&person, &page, &json!({"id": page, "owner": at}).to_string()).await;
                    assert_eq!(his.get(&professional(), &format!("/pols/{person}/{page}")).await.json()["owner"], at);
                    assert_eq!(his.get(&professional(), &format!("/people/{person}")).await.json()["id"], person);
                }
            })
        });
        for done in work.collect::<Vec<_>>() {
            done.await.unwrap();
        }
        for at in 0..8 {
            assert_eq!(his.get(&professional(), &format!("/pols/P{at}")).await.json().as_array().unwrap().len(), 10);
        }
    }

    async fn concurrent_patches_of_different_members_lose_none(his) {
        his.person("ANA", "{}").await;
        his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
        let his = std::sync::Arc::new(his);
        let work = (0..10).map(|at| {
            let his = std::sync::Arc::clone(&his);
            tokio::spawn(async move {
                assert_eq!(his.patch(&professional(), "/pols/ANA/p1", format!("{{\"m{at}\":{at}}}")).await.status, 200);
            })
        });
        for done in work.collect::<Vec<_>>() {
            done.await.unwrap();
        }
        let page = his.get(&professional(), "/pols/ANA/p1").await.json();
        assert!((0..10).all(|at| page[format!("m{at}")] == at), "{page}");
    }
}
