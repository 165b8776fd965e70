//! No request is served without an assertion for exactly this request.

use std::time::{Duration, SystemTime};

use fedgate_base::config::{Address, SqliteConfig, StoreConfig};
use fedgate_core::assertion::RecordScope;
use fedgate_his::etag::TagCondition;
use fedgate_his::store::{DeleteResult, ListQuery, ListWindow, RecordKey, RecordReach};
use fedgate_his::{HisListener, ListenError};
use http::HeaderMap;

use crate::support::{His, Scratch, own, professional, root};

#[tokio::test]
async fn a_request_without_a_valid_assertion_gets_401_whatever_it_asks_for() {
    let his = His::on_sqlite().await;
    for target in ["/", "/static/fedhis.css", "/login", "/people", "/people/X", "/password/X", "/nowhere"] {
        let reply = his.request(&root(), "GET", target).token(None).send().await;
        assert_eq!(reply.error().0, 401, "{target}");
        let reply = his.request(&root(), "GET", target).token(Some("x.y.z".into())).send().await;
        assert_eq!(reply.error().0, 401, "{target}");
    }
    let twice = his.signer.sign(&his.claims(&root(), "GET", "/login"));
    let reply = his.request(&root(), "GET", "/login").header("fedgate-assertion", &twice).send().await;
    assert_eq!(reply.status, 401, "two assertions");
    let mut expired = his.claims(&root(), "GET", "/login");
    let (iat, exp) = his.signer.validity(SystemTime::now() - Duration::from_secs(120));
    (expired.iat, expired.exp) = (iat, exp);
    let reply = his.request(&root(), "GET", "/login").token(Some(his.signer.sign(&expired))).send().await;
    assert_eq!(reply.status, 401, "expired");
    assert_eq!(reply.header("fedgate-clock"), Some("1"), "a gateway is told that its clock differs");
}

#[tokio::test]
async fn an_assertion_is_for_its_method_path_endpoint_and_subject_alone() {
    let his = His::on_sqlite().await;
    his.person("ANA", "{}").await;
    his.person("BOB", "{}").await;
    let good = his.claims(&root(), "GET", "/people/ANA");
    assert_eq!(his.request(&root(), "GET", "/people/ANA").send().await.status, 200);
    let mut others = Vec::new();
    for (method, path) in
        [("GET", "/people/BOB"), ("PATCH", "/people/ANA"), ("GET", "/people/%41NA"), ("HEAD", "/people/ANA")]
    {
        others.push(his.claims(&root(), method, path));
    }
    for endpoint in ["people", "page", "login", ""] {
        let mut claims = good.clone();
        claims.endpoint = endpoint.into();
        others.push(claims);
    }
    for (scope, sub, subject) in [
        (RecordScope::Public, "", None),
        (RecordScope::Own, "BOB", Some("ANA")),
        (RecordScope::Own, "ANA", Some("BOB")),
        (RecordScope::Global, "ANA", Some("BOB")),
    ] {
        let mut claims = good.clone();
        claims.scope = scope;
        claims.sub = sub.into();
        claims.subject = subject.map(Into::into);
        others.push(claims);
    }
    for claims in others {
        let reply = his.request(&root(), "GET", "/people/ANA").token(Some(his.signer.sign(&claims))).send().await;
        assert_eq!(reply.status, 401, "{claims:?}");
    }
}

crate::on_both_stores! {
    async fn own_scope_never_reaches_another_record(his) {
        his.person("ANA", r#"{"name":"Ana"}"#).await;
        his.person("BOB", r#"{"name":"Bob"}"#).await;
        his.page("BOB", "b1", r#"{"id":"b1","summary":"secret"}"#).await;
        // Even an assertion of the scope `own` for another person's path, without a subject, reaches nothing.
        for (method, path, body) in [
            ("GET", "/people/BOB", ""),
            ("PATCH", "/people/BOB", "{}"),
            ("DELETE", "/people/BOB", ""),
            ("GET", "/pols/BOB/b1", ""),
            ("PATCH", "/pols/BOB/b1", "{}"),
            ("DELETE", "/pols/BOB/b1", ""),
            ("POST", "/pols/BOB/b2", r#"{"id":"b2"}"#),
            ("GET", "/password/BOB", ""),
            ("GET", "/personal_docs/BOB/b1/d1", ""),
        ] {
            let mut claims = his.claims(&own("ANA"), method, path);
            claims.subject = None;
            let token = Some(his.signer.sign(&claims));
            let reply = his.request(&own("ANA"), method, path).body(body).token(token).send().await;
            assert_eq!(reply.status, 404, "{method} {path}");
        }
        for path in ["/pols/BOB", "/personal_docs/BOB"] {
            let mut claims = his.claims(&own("ANA"), "GET", path);
            claims.subject = None;
            let reply = his.request(&own("ANA"), "GET", path).token(Some(his.signer.sign(&claims))).send().await;
            assert_eq!(reply.text(), "[]", "{path}");
        }
        let people = his.get(&own("ANA"), "/people").await.json();
        assert_eq!(people.as_array().unwrap().len(), 1, "{people}");
    }

    async fn public_pages_reach_no_record(his) {
        his.person("ANA", r#"{"name":"Ana"}"#).await;
        his.page("ANA", "a1", r#"{"id":"a1"}"#).await;
        let (nobody, ana) = (RecordReach::Nobody, RecordKey::Person("ANA".into()));
        let page = RecordKey::Page { person: "ANA".into(), page: "a1".into() };
        let condition = TagCondition::of(&HeaderMap::new());
        for key in [&ana, &page] {
            assert!(his.store.whole_record(key, &RecordReach::Global).await.unwrap().is_some(), "{key:?}");
            assert_eq!(his.store.whole_record(key, &nobody).await.unwrap(), None, "{key:?}");
            assert!(matches!(his.store.delete(key, &condition, &nobody).await.unwrap(), DeleteResult::Missing), "{key:?}");
        }
        let pages = ListQuery::Pages { persons: vec!["ANA".into()], since: None, page_type: None, only_alone: false };
        for list in [ListQuery::People { members: vec![] }, pages] {
            for (reach, count) in [(&RecordReach::Global, 1), (&nobody, 0)] {
                let ids = his.store.ids(&list, &ListWindow::default(), 9, reach).await.unwrap();
                assert_eq!(ids.len(), count, "{list:?} {reach:?}");
            }
        }
    }

    async fn a_path_that_hides_a_slash_or_dots_is_no_id(his) {
        for path in ["/people/..%2fadm", "/people/%2e%2e", "/people/a%00", "/people/%ff", "/people/a%0ab"] {
            assert_eq!(his.get(&root(), path).await.status, 400, "{path}");
        }
        for path in ["/people/", "//people", "/pols//1", "/people/a/b", "/PEOPLE"] {
            let status = his.get(&root(), path).await.status;
            assert!([400, 401, 404].contains(&status), "{path}: {status}");
        }
    }

    async fn methods_beyond_the_api_are_405_with_allow(his) {
        let reply = his.post(&root(), "/people", "{}").await;
        assert_eq!(reply.error(), (405, "The method is not allowed for the requested URL.".into(), "method_not_allowed".into()));
        assert_eq!(reply.header("allow"), Some("GET,HEAD"));
        assert_eq!(his.request(&root(), "PUT", "/people/X").send().await.status, 405);
        assert_eq!(his.get(&root(), "/nowhere").await.error().0, 404);
    }

    async fn head_is_as_get_without_a_body(his) {
        his.person("ANA", r#"{"name":"Ana"}"#).await;
        for target in ["/", "/login", "/people", "/people/ANA", "/pols/ANA", "/password/ANA", "/static/fedhis.css"] {
            let reply = his.request(&professional(), "HEAD", target).send().await;
            assert_eq!((reply.status, reply.body.len()), (200, 0), "{target}");
        }
        assert_eq!(his.request(&root(), "HEAD", "/people/NONE").send().await.status, 404);
    }
}

#[tokio::test]
async fn it_listens_on_a_unix_socket_replacing_a_stale_one_but_no_live_one() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    let path = scratch.0.join("his.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let config = StoreConfig::Sqlite(SqliteConfig {
        path: scratch.0.join("his.db"),
        lock_timeout: std::time::Duration::from_secs(2),
    });
    let his = His::listen(config, scratch, Address::Unix(path.clone())).await;
    assert_eq!(his.get(&root(), "/login").await.text(), "true");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(std::fs::metadata(his.scratch.0.join("his.db")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(HisListener::bind(&Address::Unix(path), "his.listen").await, Err(ListenError::InUse(_))));
}
