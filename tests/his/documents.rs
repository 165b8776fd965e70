//! Personal documents.

use serde_json::json;

use crate::support::{His, own, professional};

async fn with_page(his: &His) {
    his.person("ANA", "{}").await;
    his.page("ANA", "p%201", r#"{"id":"p 1"}"#).await;
    his.page("ANA", "p2", r#"{"id":"p2"}"#).await;
}

/// A document without bytes, as Thalamus may have left one.
async fn without_bytes(his: &His, id: &str, data: &str) {
    let row = format!("INSERT INTO personal_docs (id, fedacct, pol, data) VALUES ('{id}', 'ANA', 'p2', '{data}')");
    his.sql(&row).await;
}

crate::on_both_stores! {
    async fn a_document_is_stored_as_json_or_as_bytes_and_read_as_bytes(his) {
        with_page(&his).await;
        let json_body = r#"{"document":"/9j/4AAQ","doctype":"identification","content_type":"image/jpeg"}"#;
        for _ in 0..2 {
            let reply = his.post(&professional(), "/personal_docs/ANA/p%201/d1", json_body).await;
            assert_eq!((reply.status, reply.text()), (200, "null"), "and the same again");
        }
        let bytes: Vec<u8> = (0..=255).collect();
        let raw = his.request(&professional(), "POST", "/personal_docs/ANA/p2/d2").header("content-type", "text/html");
        assert_eq!(raw.body(&bytes).send().await.status, 200);
        let other = his.request(&professional(), "POST", "/personal_docs/ANA/p2/d2").header("content-type", "text/html");
        assert_eq!(other.body("x").send().await.error().2, "document_exists");

        let picture = his.get(&own("ANA"), "/personal_docs/ANA/p%201/d1").await;
        assert_eq!((picture.status, picture.body.as_slice()), (200, b"\xff\xd8\xff\xe0\x00\x10".as_slice()));
        assert_eq!(picture.header("content-type"), Some("image/jpeg"));
        assert!(picture.header("content-disposition").unwrap().starts_with("inline"));
        let page = his.get(&own("ANA"), "/personal_docs/ANA/p2/d2").await;
        assert_eq!(page.body, bytes);
        assert_eq!((page.header("content-type"), page.header("x-content-type-options")), (Some("text/html"), Some("nosniff")));
        assert!(page.header("content-disposition").unwrap().starts_with("attachment"), "what could run is downloaded");
        let head = his.request(&own("ANA"), "HEAD", "/personal_docs/ANA/p2/d2").send().await;
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("256"), 0));
    }

    async fn lists_tell_bytes_in_base64_or_as_a_link(his) {
        with_page(&his).await;
        his.post(&professional(), "/personal_docs/ANA/p%201/d%2F", r#"{"document":"AAEC"}"#).await;
        his.post(&professional(), "/personal_docs/ANA/p%201/d1", r#"{"document":"AAEC","k":1}"#).await;
        without_bytes(&his, "d2", r#"{"k":2}"#).await;
        let all = his.get(&own("ANA"), "/personal_docs/ANA").await.json();
        assert_eq!(all, json!([["ANA", "p 1", {"k": 1}, "AAEC"], ["ANA", "p2", {"k": 2}, null]]));
        let one = his.get(&own("ANA"), "/personal_docs/ANA/p%201?document=link").await.json();
        assert_eq!(one, json!([["ANA", "p 1", {"k": 1}, "/personal_docs/ANA/p%201/d1"]]));
        let link = one[0][3].as_str().unwrap().to_owned();
        assert_eq!(his.get(&own("ANA"), &link).await.body, [0, 1, 2]);
        assert_eq!(his.get(&own("ANA"), "/personal_docs/ANA/none").await.text(), "[]");
        assert_eq!(his.get(&own("ANA"), "/personal_docs/ANA?document=x").await.error().0, 400);
    }

    async fn a_deletion_can_be_bound_to_the_bytes_it_was_meant_for(his) {
        with_page(&his).await;
        let target = "/personal_docs/ANA/p2/d";
        let post = his.request(&professional(), "POST", target).header("content-type", "text/plain");
        assert_eq!(post.body("0123456789").send().await.status, 200);
        let tag = his.get(&own("ANA"), target).await.header("etag").unwrap().to_owned();
        let delete = |tag: &str| his.request(&professional(), "DELETE", target).header("if-match", tag);
        for other in ["\"x\"", &format!("W/{tag}"), ""] {
            assert_eq!(delete(other).send().await.error().2, "precondition_failed", "{other}");
        }
        assert_eq!(his.get(&own("ANA"), target).await.text(), "0123456789");
        assert_eq!(delete(&format!("\"x\", {tag}")).send().await.text(), "null");
        assert_eq!(delete("*").send().await.error().2, "document_not_found");
        // A document without bytes has no tag.
        without_bytes(&his, "d", "{}").await;
        assert_eq!(delete(&tag).send().await.status, 412);
        assert_eq!(delete("*").send().await.status, 200);
    }

    async fn an_empty_document_is_one_that_is_there(his) {
        with_page(&his).await;
        // A body of no bytes may be an upload that was cut off, so only JSON can say that a document is empty.
        let bytes = his.request(&professional(), "POST", "/personal_docs/ANA/p2/d1").header("content-type", "text/plain");
        assert_eq!(bytes.send().await.error().2, "document_missing");
        for id in ["d1", "d2"] {
            let empty = his.post(&professional(), &format!("/personal_docs/ANA/p2/{id}"), r#"{"document":""}"#).await;
            assert_eq!(empty.status, 200);
        }
        without_bytes(&his, "d3", "{}").await;
        let contents = async |query: &str| {
            let list = his.get(&own("ANA"), &format!("/personal_docs/ANA{query}")).await.json();
            list.as_array().unwrap().iter().map(|one| one[3].clone()).collect::<Vec<_>>()
        };
        assert_eq!(contents("").await, [json!(""), json!(""), json!(null)]);
        let path = |id: &str| json!(format!("/personal_docs/ANA/p2/{id}"));
        assert_eq!(contents("?document=link").await, [path("d1"), path("d2"), json!(null)]);
        let empty = his.get(&own("ANA"), "/personal_docs/ANA/p2/d1").await;
        assert_eq!((empty.status, empty.header("content-length"), empty.body.len()), (200, Some("0"), 0));
    }

    async fn a_range_is_no_matter_to_head(his) {
        with_page(&his).await;
        let raw = his.request(&professional(), "POST", "/personal_docs/ANA/p2/d").header("content-type", "text/plain");
        raw.body("0123456789").send().await;
        for range in ["bytes=2-4", "bytes=99-"] {
            let head = his.request(&own("ANA"), "HEAD", "/personal_docs/ANA/p2/d").header("range", range).send().await;
            assert_eq!((head.status, head.header("content-length"), head.header("content-range")), (200, Some("10"), None));
        }
    }

    async fn one_range_is_served(his) {
        with_page(&his).await;
        let raw = his.request(&professional(), "POST", "/personal_docs/ANA/p2/d").header("content-type", "text/plain");
        raw.body("0123456789").send().await;
        let get = |range: &str| his.request(&own("ANA"), "GET", "/personal_docs/ANA/p2/d").header("range", range);
        let part = get("bytes=2-4").send().await;
        assert_eq!((part.status, part.text(), part.header("content-range")), (206, "234", Some("bytes 2-4/10")));
        let none = get("bytes=10-").send().await;
        assert_eq!((none.status, none.header("content-range")), (416, Some("bytes */10")));
        assert_eq!((none.header("content-type"), none.error().2.as_str()), (Some("application/json"), "range_not_satisfiable"));
        let whole = get("bytes=0-1,3-4").send().await;
        assert_eq!((whole.status, whole.header("accept-ranges")), (200, Some("bytes")));
        let tag = whole.header("etag").unwrap().to_owned();
        let known = his.request(&own("ANA"), "GET", "/personal_docs/ANA/p2/d").header("if-none-match", &tag).send().await;
        assert_eq!((known.status, known.body.len()), (304, 0));
    }

    async fn what_is_no_document_is_refused(his) {
        with_page(&his).await;
        let post = |body: &'static str| his.request(&professional(), "POST", "/personal_docs/ANA/p2/d").body(body);
        for (body, status, code) in [
            (r#"{"document":"not base64!"}"#, 422, "not_base64"),
            (r#"{"document":5}"#, 422, "not_base64"),
            (r#"{"content_type":"x\r\ny"}"#, 422, "bad_member"),
            (r#"{"fedacct":"BOB"}"#, 422, "document_mismatch"),
            (r#"{"pol":"p1"}"#, 422, "document_mismatch"),
            (r#"{"id":"e"}"#, 422, "document_mismatch"),
            (r#"{"n":1}"#, 422, "document_missing"),
            (r#"{"document":null}"#, 422, "document_missing"),
            (r#"{"docment":"AAEC"}"#, 422, "document_missing"),
            ("[]", 422, "not_an_object"),
            ("{", 400, "malformed_json"),
        ] {
            let (got, _, got_code) = post(body).send().await.error();
            assert_eq!((got, got_code.as_str()), (status, code), "{body}");
        }
        for kind in ["multipart/form-data", "application/x-www-form-urlencoded", "nonsense"] {
            let (status, text, code) = post("x").header("content-type", kind).send().await.error();
            assert_eq!((status, &*code), (415, "unsupported_media_type"), "{kind}");
            assert!(text.contains("the bytes of the document alone") && text.contains("in base64 in `document`"), "{text}");
        }
        let big = vec![b'x'; (1 << 20) + 1];
        let raw = his.request(&professional(), "POST", "/personal_docs/ANA/p2/d").header("content-type", "image/png");
        assert_eq!(raw.body(&big).send().await.status, 413);
        assert_eq!(his.post(&professional(), "/personal_docs/ANA/none/d", r#"{"document":""}"#).await.error().1, "Page not found");
        assert_eq!(his.post(&professional(), "/personal_docs/BOB/p2/d", r#"{"document":""}"#).await.status, 404, "a page of another's book");
        assert_eq!(his.get(&own("ANA"), "/personal_docs/ANA").await.text(), "[]");
    }

    async fn a_document_larger_than_a_chunk_is_listed_whole(his) {
        with_page(&his).await;
        let bytes = vec![7_u8; 500_000];
        for at in 0..4 {
            let target = format!("/personal_docs/ANA/p2/d{at}");
            let raw = his.request(&professional(), "POST", &target).header("content-type", "image/png");
            assert_eq!(raw.body(&bytes).send().await.status, 200);
        }
        let list = his.get(&own("ANA"), "/personal_docs/ANA").await;
        assert!(list.is_complete);
        assert_eq!(list.json().as_array().unwrap().len(), 4);
    }
}
