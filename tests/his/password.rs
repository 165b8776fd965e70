//! The page where a password is changed.

use fedgate::password;

use crate::support::{His, Reply, own, root};

/// The token in the form and the cookie that goes with it.
fn tokens(form: &Reply) -> (String, String) {
    let html = form.text();
    let token = html.split("name=\"csrf_token\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let cookie = form.header("set-cookie").unwrap();
    assert_eq!(cookie, format!("__Host-csrf={token}; Path=/; Secure; HttpOnly; SameSite=Strict"));
    (token.to_owned(), format!("__Host-csrf={token}"))
}

async fn submit(his: &His, id: &str, cookie: &str, fields: &str, site: &str) -> Reply {
    let target = format!("/password/{id}");
    let request = his.request(&root(), "POST", &target).body(fields);
    let request = request.header("content-type", "application/x-www-form-urlencoded; charset=utf-8");
    request.header("cookie", &format!("a=b; {cookie}")).header("sec-fetch-site", site).send().await
}

async fn stored(his: &His) -> Option<String> {
    his.sql_text("SELECT data ->> 'password' FROM people WHERE id = 'ANA'").await
}

crate::on_both_stores! {
    async fn a_password_is_changed_by_the_form_alone(his) {
        his.person("ANA", r#"{"name":"Ana"}"#).await;
        let form = his.get(&own("ANA"), "/password/ANA").await;
        assert_eq!((form.status, form.header("cache-control")), (200, Some("no-store")));
        let policy = form.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        for needed in ["<label for=\"password\">", "<label for=\"pconfirm\">", "autocomplete=\"new-password\"", "name=\"update\"", "lang=\"en\""] {
            assert!(form.text().contains(needed), "{needed}");
        }
        let (token, cookie) = tokens(&form);
        let new = "p%C3%A4ss+word%26";
        let fields = format!("csrf_token={token}&password={new}&pconfirm={new}&update=update");
        let done = submit(&his, "ANA", &cookie, &fields, "same-origin").await;
        assert_eq!((done.status, done.header("location")), (302, Some("/")));
        let hash = stored(&his).await.unwrap();
        assert!(hash.starts_with("$argon2id$") && password::verify(&hash, "päss word&".as_bytes()));
        assert_eq!(his.get(&root(), "/people/ANA").await.json()["name"], "Ana");
    }

    async fn a_form_that_is_not_ours_changes_nothing(his) {
        his.person("ANA", "{}").await;
        let (token, cookie) = tokens(&his.get(&own("ANA"), "/password/ANA").await);
        let (other, _) = tokens(&his.get(&own("ANA"), "/password/ANA").await);
        assert_ne!(token, other);
        let fields = |token: &str| format!("csrf_token={token}&password=secret-1&pconfirm=secret-1");
        for (cookie, fields, site) in [
            ("", fields(&token), "same-origin"),
            (cookie.as_str(), fields(&other), "same-origin"),
            (cookie.as_str(), fields(""), "same-origin"),
            ("__Host-csrf=", fields(""), "same-origin"),
            ("__Host-csrf=x", fields("x"), "same-origin"),
            (cookie.as_str(), "password=secret-1&pconfirm=secret-1".into(), "same-origin"),
            (cookie.as_str(), fields(&token), "cross-site"),
        ] {
            let reply = submit(&his, "ANA", cookie, &fields, site).await;
            assert_eq!(reply.status, 200);
            assert!(reply.text().contains("The form has expired"), "{cookie} {fields} {site}");
        }
        let json = his.post(&own("ANA"), "/password/ANA", r#"{"password":"secret-1"}"#).await;
        assert_eq!(json.status, 415);
        assert_eq!(stored(&his).await, None);
    }

    async fn faults_are_said_beside_their_fields(his) {
        his.person("ANA", "{}").await;
        let (token, cookie) = tokens(&his.get(&own("ANA"), "/password/ANA").await);
        let long = "x".repeat(1025);
        for (password, again, message) in [
            ("", "secret-1", "This field is required."),
            ("secret-1", "", "This field is required."),
            ("short", "short", "Field must be between 6 and 1024 characters long."),
            (long.as_str(), long.as_str(), "Field must be between 6 and 1024 characters long."),
            ("secret-1", "secret-2", "Passwords do not match."),
        ] {
            let fields = format!("csrf_token={token}&password={password}&pconfirm={again}");
            let reply = submit(&his, "ANA", &cookie, &fields, "same-origin").await;
            assert_eq!(reply.status, 200);
            assert!(reply.text().contains(message) && reply.text().contains("aria-invalid"), "{password} {again}");
            assert!(!reply.text().contains("secret-1"));
        }
        assert_eq!(stored(&his).await, None);
        let unknown = his.get(&root(), "/password/NO%3Cb%3E").await;
        assert_eq!((unknown.status, unknown.header("content-type")), (404, Some("text/html; charset=utf-8")));
        assert!(unknown.text().contains("NO&lt;b&gt;"));
        let fields = format!("csrf_token={token}&password=secret-1&pconfirm=secret-1");
        assert_eq!(submit(&his, "NONE", &cookie, &fields, "none").await.status, 404);
    }
}
