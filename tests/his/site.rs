//! The pages for people.

use crate::support::{His, own, professional, root};

#[tokio::test]
async fn the_welcome_page_and_its_stylesheet_are_plain_and_need_no_principal() {
    let his = His::on_sqlite().await;
    let page = his.get(&root(), "/").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let html = page.text();
    assert!(html.contains("<html lang=\"en\">") && html.contains("<h1>") && !html.contains("<script"), "{html}");
    for (accepted, language, words) in [("es-AR, en;q=0.5", "es", "libros de vida"), ("de", "en", "books of life")] {
        let page = his.request(&root(), "GET", "/").header("accept-language", accepted).send().await;
        assert_eq!((page.header("content-language"), page.header("vary")), (Some(language), Some("Accept-Language")));
        assert!(page.text().contains(words) && page.text().contains(&format!("<html lang=\"{language}\">")));
    }
    let style = his.get(&root(), "/static/fedhis.css").await;
    assert_eq!((style.status, style.header("content-type")), (200, Some("text/css; charset=utf-8")));
    for (condition, validator) in [("if-none-match", "etag"), ("if-modified-since", "last-modified")] {
        let value = style.header(validator).unwrap().to_owned();
        let known = his.request(&root(), "GET", "/static/fedhis.css").header(condition, &value).send().await;
        assert_eq!((known.status, known.body.len()), (304, 0), "{condition}");
    }
    let sign = his.get(&root(), "/static/favicon.svg").await;
    assert_eq!((sign.status, sign.header("content-type")), (200, Some("image/svg+xml")));
    assert!(
        html.contains("href=\"/static/favicon.svg\"")
            && page.header("content-security-policy").unwrap().contains("img-src 'self'")
    );
    assert_eq!(his.get(&root(), "/static/other").await.status, 404);
    assert_eq!(his.get(&root(), "/static/..%2fCargo.toml").await.status, 400);
}

#[tokio::test]
async fn login_says_true_to_every_principal() {
    let his = His::on_sqlite().await;
    for actor in [root(), professional(), own("ANA")] {
        let reply = his.get(&actor, "/login").await;
        assert_eq!((reply.status, reply.text(), reply.header("content-type")), (200, "true", Some("application/json")));
    }
}
