//! Cursors: a node's own place in the messages, which never goes back and which two programs cannot both move.

use serde_json::{Value, json};

use crate::support::{Actor, His, Reply, own, professional, root};

async fn put(his: &His, actor: &Actor, name: &str, position: u64, condition: Option<(&str, &str)>) -> Reply {
    let target = format!("/messages/cursors/{name}");
    let request = his.request(actor, "PUT", &target).body(json!({ "position": position }).to_string());
    match condition {
        Some((header, value)) => request.header(header, value).send().await,
        None => request.send().await,
    }
}

fn refused(reply: &Reply) -> (u16, String) {
    let (status, _, code) = reply.error();
    (status, code)
}

/// Writes pages until there are so many messages with positions.
async fn messages(his: &His, count: usize) {
    his.person("ANA", "{}").await;
    for n in 1..count {
        his.page("ANA", &format!("p{n}"), &format!(r#"{{"id":"p{n}"}}"#)).await;
    }
    let last = format!("/messages?after={}&wait=30", count - 1);
    while his.get(&root(), &last).await.status != 200 {
        // Positions are given soon after the writes.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

crate::on_both_stores! {
    async fn a_cursor_only_goes_forward_and_no_further_than_the_last_message(his) {
        messages(&his, 5).await;
        let made = put(&his, &root(), "lab", 2, None).await;
        assert_eq!((made.status, made.text(), made.header("etag")), (201, "null", Some("\"2\"")));
        assert_eq!(put(&his, &root(), "lab", 4, None).await.status, 200);
        let before = his.get(&root(), "/messages/cursors/lab").await;
        assert_eq!(put(&his, &root(), "lab", 4, None).await.status, 200, "the same position again");
        let known = his.get(&root(), "/messages/cursors/lab").await;
        assert_eq!((known.header("etag"), known.text()), (Some("\"4\""), before.text()), "equal tags mean equal bytes");
        assert_eq!(known.json()["position"], json!(4));
        let behind = put(&his, &root(), "lab", 3, None).await;
        assert_eq!(refused(&behind), (409, "cursor_ahead".to_owned()));
        assert!(behind.error().1.ends_with("it is at 4"));
        for position in [6, u64::MAX] {
            let beyond = put(&his, &root(), "lab", position, None).await;
            assert_eq!(refused(&beyond), (409, "position_unknown".to_owned()));
            assert!(beyond.error().1.ends_with("the last one is 5"));
        }
        let known = his.request(&root(), "GET", "/messages/cursors/lab").header("if-none-match", "\"4\"").send().await;
        assert_eq!((known.status, known.text()), (304, ""));
        // From the cursor on; the link goes on by position.
        let page = his.get(&root(), "/messages?cursor=lab&resource=page").await;
        assert_eq!(page.json().as_array().unwrap().iter().map(|message| &message["id"]).collect::<Vec<_>>(), [&json!("p4")]);
        assert_eq!(page.header("link"), Some("</messages?resource=page&after=5.1>; rel=\"next\""));
        assert_eq!(refused(&his.get(&root(), "/messages?cursor=lab&after=1").await), (400, "bad_query".to_owned()));
        assert_eq!(refused(&his.get(&root(), "/messages?cursor=x").await), (404, "cursor_not_found".to_owned()));
        assert_eq!(his.delete(&root(), "/messages/cursors/lab").await.text(), "null");
        assert_eq!(refused(&his.delete(&root(), "/messages/cursors/lab").await), (404, "cursor_not_found".to_owned()));
        assert_eq!(his.get(&root(), "/messages/cursors").await.text(), "[]");
    }

    async fn a_condition_is_decided_where_the_cursor_is_moved(his) {
        messages(&his, 9).await;
        let (stale, missing) = ((412, "precondition_failed".to_owned()), Some(("if-match", "\"1\"")));
        assert_eq!(refused(&put(&his, &root(), "c", 1, missing).await), stale, "there is none to match");
        assert_eq!(put(&his, &root(), "c", 1, Some(("if-none-match", "*"))).await.status, 201);
        assert_eq!(refused(&put(&his, &root(), "c", 2, Some(("if-none-match", "*"))).await), stale);
        assert_eq!(put(&his, &root(), "c", 2, Some(("if-match", "\"7\", \"1\""))).await.status, 200);
        for (header, value) in [("if-match", "\"1\""), ("if-match", "W/\"2\""), ("if-match", "\"02\""), ("if-none-match", "W/\"2\"")] {
            assert_eq!(refused(&put(&his, &root(), "c", 3, Some((header, value))).await), stale, "{header}: {value}");
        }
        // The condition comes first: what it says is wrong, whatever the position.
        assert_eq!(refused(&put(&his, &root(), "c", 99, Some(("if-match", "\"1\""))).await), stale);
        assert_eq!(put(&his, &root(), "c", 3, Some(("if-match", "*"))).await.status, 200);
        // Many programs move it from 3 at once; one of them does, and makes one from nothing.
        let (his, condition) = (&his, ("if-match", "\"3\""));
        let moves = (4..=9).map(|position| async move { put(his, &root(), "c", position, Some(condition)).await.status });
        let made = (1..=6).map(|position| async move { put(his, &root(), "d", position, Some(("if-none-match", "*"))).await.status });
        for done in [futures_util::future::join_all(moves).await, futures_util::future::join_all(made).await] {
            assert_eq!(done.iter().filter(|status| **status < 300).count(), 1, "{done:?}");
            assert!(done.iter().all(|status| [200, 201, 412].contains(status)), "{done:?}");
        }
        let delete = his.request(&root(), "DELETE", "/messages/cursors/c").header("if-match", "\"3\"").send().await;
        assert_eq!(refused(&delete), stale);
        let tag = his.get(&root(), "/messages/cursors/c").await.header("etag").unwrap().to_owned();
        assert_eq!(his.request(&root(), "DELETE", "/messages/cursors/c").header("if-match", &tag).send().await.status, 200);
    }

    async fn concurrent_moves_without_a_condition_end_at_the_furthest(his) {
        messages(&his, 9).await;
        let his = &his;
        let moves = (0..=9).map(|position| async move { put(his, &root(), "c", position, None).await.status });
        let done = futures_util::future::join_all(moves).await;
        assert!(done.iter().all(|status| [200, 201, 409].contains(status)), "{done:?}");
        assert_eq!(done.iter().filter(|status| **status == 201).count(), 1, "{done:?}");
        assert_eq!(his.get(&root(), "/messages/cursors/c").await.json()["position"], json!(9));
    }

    async fn a_cursor_exists_for_its_account_alone_and_ends_with_it(his) {
        messages(&his, 2).await;
        his.person("BOB", "{}").await;
        for (actor, position) in [(own("ANA"), 1), (own("BOB"), 2)] {
            assert_eq!(put(&his, &actor, "c", position, None).await.status, 201);
        }
        let position = async |actor: Actor| his.get(&actor, "/messages/cursors/c").await.json()["position"].clone();
        assert_eq!([position(own("ANA")).await, position(own("BOB")).await], [json!(1), json!(2)]);
        // The scope `global` reaches every record, and no cursor of another account.
        for actor in [root(), professional()] {
            assert_eq!(refused(&his.get(&actor, "/messages/cursors/c").await), (404, "cursor_not_found".to_owned()));
            assert_eq!(his.get(&actor, "/messages/cursors").await.text(), "[]");
            assert_eq!(refused(&his.delete(&actor, "/messages/cursors/c").await).0, 404);
        }
        let list = his.get(&own("BOB"), "/messages/cursors").await.json();
        assert_eq!((list.as_array().unwrap().len(), &list[0]["name"], &list[0]["position"]), (1, &json!("c"), &json!(2)));
        his.patch(&root(), "/people/BOB", r#"{"active":false}"#).await;
        assert_eq!(his.delete(&root(), "/people/BOB").await.status, 200);
        his.person("BOB", "{}").await;
        assert_eq!(refused(&his.get(&own("BOB"), "/messages/cursors/c").await).0, 404, "another person of that id");
        assert_eq!(position(own("ANA")).await, json!(1));
    }

    async fn names_bodies_and_numbers_of_cursors_are_bounded(his) {
        messages(&his, 1).await;
        let long = "x".repeat(65);
        for name in ["a%20b", "%C3%A9", "a:b", long.as_str()] {
            assert_eq!(refused(&put(&his, &root(), name, 0, None).await), (400, "bad_id".to_owned()), "{name}");
        }
        for body in [r#"{}"#, r#"{"position":"1.x"}"#, r#"{"position":-1}"#, r#"{"position":0.5}"#, r#"{"position":null}"#, r#"{"position":1e40}"#] {
            let reply = his.request(&root(), "PUT", "/messages/cursors/c").body(body).send().await;
            assert_eq!(refused(&reply), (422, "bad_member".to_owned()), "{body}");
        }
        assert_eq!(refused(&his.request(&root(), "PUT", "/messages/cursors/c").body("[1]").send().await).1, "not_an_object");
        let post = his.post(&root(), "/messages/cursors/c", "{}").await;
        assert_eq!((refused(&post), post.header("allow")), ((405, "method_not_allowed".to_owned()), Some("GET,HEAD,PUT,DELETE")));
        for n in 0..99 {
            assert_eq!(put(&his, &root(), &format!("c.{n}"), 0, None).await.status, 201);
        }
        // The last place is given once, however many ask for it at the same moment.
        let his = &his;
        let more = (0..6).map(|n| async move { put(his, &root(), &format!("more_{n}"), 0, None).await.status });
        let done = futures_util::future::join_all(more).await;
        assert_eq!(done.iter().filter(|status| **status == 201).count(), 1, "{done:?}");
        let full = put(his, &root(), "another", 0, None).await;
        assert_eq!(refused(&full), (422, "too_many_cursors".to_owned()));
        assert_eq!(put(his, &root(), "c.7", 1, None).await.status, 200, "one that exists goes on");
        let names: Vec<Value> = his.get(&root(), "/messages/cursors").await.json().as_array().unwrap().clone();
        assert_eq!(names.len(), 100);
        assert_eq!(put(his, &professional(), "c", 0, None).await.status, 201, "each account has its own number");
    }
}
