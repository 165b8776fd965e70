//! The bound on the size of a record, and on the number of records of a person.

use crate::support::{own, professional, root};

/// The largest record of these tests.
const MOST: usize = 20_000;

/// A record of a given size as both stores count it.
fn filled(prefix: &str, bytes: usize) -> String {
    let suffix = "\"}";
    format!("{prefix}{}{suffix}", "é".repeat((bytes - prefix.len() - suffix.len()) / 2))
}

crate::on_both_stores! {
    async fn a_patch_that_leaves_a_record_over_the_limit_is_refused_and_nothing_written(all) {
        let his = all.with(|config| config.max_record_bytes = MOST).await;
        his.person("ANA", r#"{"name":"Ana"}"#).await;
        his.page("ANA", "p", r#"{"id":"p"}"#).await;
        his.post(&root(), "/institutions/i", "{}").await;
        let half = "x".repeat(MOST / 2);
        for target in ["/people/ANA", "/pols/ANA/p", "/institutions/i"] {
            assert_eq!(his.patch(&root(), target, format!("{{\"a\":\"{half}\"}}")).await.status, 200);
            let before = his.get(&root(), target).await;
            for condition in [None, before.header("etag")] {
                let body = format!("{{\"b\":\"{half}\",\"c\":1}}");
                let mut request = his.request(&root(), "PATCH", target).body(body);
                if let Some(tag) = condition {
                    request = request.header("if-match", tag);
                }
                let (status, _, code) = request.send().await.error();
                assert_eq!((status, code.as_str()), (413, "record_too_large"), "{target}");
            }
            assert_eq!(his.get(&root(), target).await.body, before.body, "{target}");
            assert_eq!(his.patch(&root(), target, r#"{"c":1}"#).await.status, 200, "{target}");
        }
        let large = format!("{{\"id\":\"q\",\"a\":\"{half}\",\"b\":\"{half}\"}}");
        for target in ["/people/BOB", "/pols/ANA/q", "/institutions/q"] {
            let reply = his.post(&root(), target, &large).await;
            assert_eq!(reply.error().2, "record_too_large", "{target}");
            assert_eq!(his.get(&root(), target).await.status, 404, "{target}");
        }
        assert_eq!(his.patch(&root(), "/people/NONE", &large.replace("\"id\":\"q\",", "")).await.status, 404);
    }

    async fn the_limit_is_the_same_byte_on_both_stores(all) {
        let his = all.with(|config| config.max_record_bytes = MOST).await;
        his.post(&root(), "/institutions/i", "{}").await;
        // PostgreSQL turns it into {"a": [1, 2], "b": "é…", "id": "i"}
        let around = r#"{"a": [1, 2], "b": "", "id": "i"}"#.len();
        let patch = |bytes: usize| format!("{{\"a\":[1,2],\"b\":\"{}\"}}", "é".repeat((bytes - around) / 2));
        let exact = if around % 2 == MOST % 2 { MOST } else { MOST - 1 };
        assert_eq!(his.patch(&root(), "/institutions/i", patch(exact + 2)).await.status, 413);
        assert_eq!(his.patch(&root(), "/institutions/i", patch(exact)).await.status, 200);
        // Escapes count as they are written.
        let escapes = r#"{"b":"\n\"\\\u0001\u001f\b"}"#;
        assert_eq!(his.patch(&root(), "/institutions/i", escapes).await.status, 200);
    }

    async fn a_record_that_is_over_the_limit_stays_readable_and_may_shrink(all) {
        all.person("OLD", &filled(r#"{"keep":1,"a":"1","b":""#, MOST * 2)).await;
        let his = all.with(|config| config.max_record_bytes = MOST).await;
        assert!(his.get(&own("OLD"), "/people/OLD").await.body.len() > MOST);
        assert_eq!(his.patch(&own("OLD"), "/people/OLD", r#"{"c":1}"#).await.status, 413, "it grows");
        assert_eq!(his.patch(&own("OLD"), "/people/OLD", r#"{"a":"2"}"#).await.status, 200, "it stays");
        let shrunk = format!("{{\"b\":\"{}\"}}", "x".repeat(MOST + 1000));
        assert_eq!(his.patch(&own("OLD"), "/people/OLD", shrunk).await.status, 200, "it shrinks, though not below the limit");
        assert_eq!(his.patch(&own("OLD"), "/people/OLD", r#"{"b":null}"#).await.status, 200);
        assert_eq!(his.get(&own("OLD"), "/people/OLD").await.json()["keep"], 1);
    }

    async fn changes_at_once_do_not_pass_the_limit_together(all) {
        let his = all.with(|config| config.max_record_bytes = MOST).await;
        his.person("ANA", "{}").await;
        let actor = own("ANA");
        let patch = async |at: usize| {
            his.patch(&actor, "/people/ANA", format!("{{\"k{at}\":\"{}\"}}", "x".repeat(MOST / 4))).await.status
        };
        let statuses = futures_util::future::join_all((0..8).map(patch)).await;
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 3, "{statuses:?}");
        assert!(statuses.iter().all(|status| matches!(status, 200 | 413)), "{statuses:?}");
    }

    async fn a_person_has_as_many_pages_and_documents_as_the_quota(all) {
        all.person("ANA", "{}").await;
        all.person("BOB", "{}").await;
        all.page("ANA", "p0", r#"{"id":"p0"}"#).await;
        let his = all.with(|config| (config.max_pages_per_person, config.max_documents_per_person) = (3, 2)).await;
        let page = async |person: &str, page: &str| {
            let reply = his.post(&professional(), &format!("/pols/{person}/{page}"), format!("{{\"id\":\"{page}\"}}")).await;
            if reply.status == 200 { "".to_owned() } else { reply.error().2 }
        };
        let (a, b) = tokio::join!(page("ANA", "p1"), page("ANA", "p2"));
        assert_eq!((a.as_str(), b.as_str()), ("", ""));
        assert_eq!(page("ANA", "p3").await, "too_many_pages");
        assert_eq!(page("ANA", "p2").await, "", "sent again");
        let other = his.post(&own("ANA"), "/pols/ANA/p2", r#"{"id":"p2","x":1}"#).await;
        assert_eq!((other.status, other.error().2.as_str()), (422, "page_exists"));
        assert_eq!(page("BOB", "q").await, "", "another's book");
        assert_eq!(his.delete(&professional(), "/pols/ANA/p0").await.status, 200);
        assert_eq!(page("ANA", "p3").await, "");

        let document = async |id: &str, content: &str| {
            let reply = his.post(&own("ANA"), &format!("/personal_docs/ANA/p1/{id}"), format!("{{\"document\":\"{content}\"}}")).await;
            if reply.status == 200 { "".to_owned() } else { reply.error().2 }
        };
        for (id, content, code) in [
            ("d1", "AAAA", ""), ("d2", "AAAA", ""), ("d3", "AAAA", "too_many_documents"), ("d2", "AAAA", ""),
            ("d2", "BBBB", "document_exists"),
        ] {
            assert_eq!(document(id, content).await, code, "{id} {content}");
        }
        assert_eq!(his.delete(&own("ANA"), "/personal_docs/ANA/p1/d1").await.status, 200);
        assert_eq!(document("d3", "AAAA").await, "");
        let endless = all.with(|config| (config.max_pages_per_person, config.max_documents_per_person) = (0, 0)).await;
        endless.page("ANA", "p4", r#"{"id":"p4"}"#).await;
    }
}
