//! The page on which a password is changed.

use fedgate_core::password;

use crate::support::{His, Reply, own, root};

/// The token in the form, and its cookie.
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
        // The hint belongs to its field, and no typed character is cut.
        let html = form.text();
        let hint = "id=\"password\" name=\"password\" required minlength=\"6\" autocomplete=\"new-password\" aria-describedby=\"password-hint\">\n<p class=\"hint\" id=\"password-hint\">";
        assert!(html.contains(hint) && !html.contains("maxlength"), "{html}");
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
        assert!(json.error().1.contains("application/x-www-form-urlencoded"), "it is told which type is taken");
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

    async fn the_callers_own_password_is_asked_for_whoever_it_is_that_is_changed(his) {
        his.person("ANA", r#"{"password":"gnusolidario"}"#).await;
        his.person("ARGBUE111FAV", r#"{"password":"freedom-1"}"#).await;
        let form = his.get(&root(), "/password/ANA").await;
        assert!(form.text().contains("Your own current password (ARGBUE111FAV)"));
        // A password manager learns to which of the two accounts a field belongs.
        for part in ["value=\"ARGBUE111FAV\" autocomplete=\"section-own username\"", "autocomplete=\"section-own current-password\"",
            "value=\"ANA\" autocomplete=\"section-other username\"", "autocomplete=\"section-other new-password\""] {
            assert!(form.text().contains(part), "{part}: {}", form.text());
        }
        let own_form = his.get(&own("ANA"), "/password/ANA").await;
        assert!(own_form.text().contains("autocomplete=\"current-password\"") && !own_form.text().contains("section-"));
        let (token, cookie) = tokens(&form);
        let fields = |current: &str| format!("csrf_token={token}&current={current}&password=secret-1&pconfirm=secret-1");
        let before = stored(&his).await;
        for (current, message) in [("", "This field is required."), ("gnusolidario", "This is not your current password."), ("x", "This is not")] {
            let reply = submit(&his, "ANA", &cookie, &fields(current), "same-origin").await;
            assert!(reply.status == 200 && reply.text().contains(message), "{current}");
            assert!(reply.text().contains("aria-describedby=\"current-error\" aria-invalid=\"true\" autofocus"), "{}", reply.text());
        }
        assert_eq!(stored(&his).await, before);
        assert_eq!(submit(&his, "ANA", &cookie, &fields("freedom-1"), "same-origin").await.status, 302);
        assert!(password::verify(&stored(&his).await.unwrap(), b"secret-1"));
        let old = his.with(|config| config.ask_current_password = false).await;
        assert!(!old.get(&root(), "/password/ANA").await.text().contains("name=\"current\""));
        assert_eq!(submit(&old, "ANA", &cookie, &fields(""), "same-origin").await.status, 302);
    }

    async fn a_new_password_that_is_the_old_one_is_no_change(his) {
        his.person("ANA", r#"{"password":"gnusolidario"}"#).await;
        let (token, cookie) = tokens(&his.get(&own("ANA"), "/password/ANA").await);
        let before = stored(&his).await;
        let send = async |current: &str, accept: &str| {
            let fields = format!("csrf_token={token}&current={current}&password=gnusolidario&pconfirm=gnusolidario");
            let request = his.request(&own("ANA"), "POST", "/password/ANA").body(fields).header("cookie", &cookie);
            request.header("accept", accept).header("content-type", "application/x-www-form-urlencoded").send().await
        };
        assert!(send("gnusolidario", "text/html").await.text().contains("This is the current password. Nothing was changed."));
        assert_eq!(send("gnusolidario", "application/json").await.error().2, "password_unchanged");
        assert_eq!(send("guess-1", "application/json").await.error().2, "current_password_wrong");
        assert_eq!(stored(&his).await, before);
    }

    async fn the_callers_own_password_cannot_be_guessed_without_a_bound(his) {
        his.person("ANA", r#"{"password":"gnusolidario"}"#).await;
        his.person("ARGBUE111FAV", r#"{"password":"freedom-1"}"#).await;
        let (token, cookie) = tokens(&his.get(&root(), "/password/ANA").await);
        let fields = |current: &str| format!("csrf_token={token}&current={current}&password=secret-1&pconfirm=secret-1");
        let before = stored(&his).await;
        for n in 0..5 {
            // A submission that compares nothing is no guess.
            assert_eq!(submit(&his, "ANA", &cookie, &fields(""), "same-origin").await.status, 200);
            let reply = submit(&his, "ANA", &cookie, &fields(&format!("wrong-{n}")), "same-origin").await;
            assert!(reply.status == 200 && reply.text().contains("This is not your current password."), "{n}");
        }
        // Now even the right password waits, also on another person's page: it is the caller's account that waits.
        for id in ["ANA", "ARGBUE111FAV"] {
            let reply = submit(&his, id, &cookie, &fields("freedom-1"), "same-origin").await;
            let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=60).contains(&wait), "{wait}");
            assert_eq!((reply.status, &reply.json()["code"]), (429, &"too_many_guesses".into()));
        }
        for (language, text) in [("en", "given wrong too often"), ("es", "dado mal demasiadas veces")] {
            let request = his.request(&root(), "POST", "/password/ANA").body(fields("freedom-1"));
            let request = request.header("content-type", "application/x-www-form-urlencoded").header("cookie", &cookie);
            let page = request.header("accept", "text/html").header("accept-language", language).send().await;
            assert!(page.status == 429 && page.text().contains(text) && page.header("retry-after").is_some(), "{}", page.text());
        }
        assert_eq!(stored(&his).await, before);
        let own_fields = fields("gnusolidario");
        let request = his.request(&own("ANA"), "POST", "/password/ANA").body(own_fields);
        let request = request.header("content-type", "application/x-www-form-urlencoded").header("cookie", &cookie);
        assert_eq!(request.send().await.status, 302, "other accounts wait for nothing");
    }

    async fn unlocking_the_account_ends_its_wait_at_the_page_and_an_operator_sees_it(his) {
        his.person("ANA", r#"{"password":"gnusolidario"}"#).await;
        let (token, cookie) = tokens(&his.get(&root(), "/password/ANA").await);
        let accounts = fedgate::accounts::AccountStore::open(&his.config).await.unwrap();
        let told = async || accounts.page_wait(&accounts.read("ANA").await.unwrap().unwrap()).await.unwrap();
        let give = async |current: &str| {
            let fields = format!("csrf_token={token}&current={current}&password=secret-1&pconfirm=secret-1");
            let request = his.request(&own("ANA"), "POST", "/password/ANA").body(fields).header("cookie", &cookie);
            request.header("content-type", "application/x-www-form-urlencoded").send().await.status
        };
        let guess_until_it_waits = async || {
            for n in 0..5 {
                assert_eq!(give(&format!("wrong-{n}")).await, 200, "{n}");
            }
            assert_eq!(give("gnusolidario").await, 429);
            assert!(told().await.is_some_and(|left| (1..=60_000).contains(&left)));
        };
        assert_eq!(told().await, None);
        guess_until_it_waits().await;
        // An open browser may be able to make such a change, so it ends no wait.
        his.patch(&root(), "/people/ANA", r#"{"roles":["end_user","root"]}"#).await;
        assert_eq!(give("gnusolidario").await, 429);
        accounts.unlock("ANA").await.unwrap();
        assert_eq!(told().await, None);
        guess_until_it_waits().await;
        // Guesses at another password start from zero, whoever sets it.
        let hash = password::make(b"another-1", password::HashKind::Bcrypt).unwrap();
        accounts.change("ANA", &fedgate::accounts::AccountChange::PasswordHash(hash)).await.unwrap();
        assert_eq!(told().await, None);
        assert_eq!(give("another-1").await, 302);
    }

    async fn what_is_guessed_first_and_what_nobody_can_sign_in_with_is_refused(his) {
        his.person("ESPGNU777ORG", "{}").await;
        let (token, cookie) = tokens(&his.get(&root(), "/password/ESPGNU777ORG").await);
        let wide = "%C3%A9".repeat(600);
        for (password, message) in [
            ("Password", "10,000 most common"), ("123456", "10,000 most common"), ("espgnu777org", "not be the account itself"),
            ("secret%0D%0A1", "line break"), ("++++++", "blanks alone"), ("%C3%A9%C3%A9345", "between 6 and 1024 characters"), (&wide, "more room"),
        ] {
            let fields = format!("csrf_token={token}&password={password}&pconfirm={password}");
            let reply = submit(&his, "ESPGNU777ORG", &cookie, &fields, "same-origin").await;
            assert!(reply.status == 200 && reply.text().contains(message), "{password}: {}", reply.text());
            assert_eq!(reply.text().matches(" autofocus").count(), 1);
        }
        let fields = format!("csrf_token={token}&password=%C3%A9%C3%A93456&pconfirm=%C3%A9%C3%A93456");
        assert_eq!(submit(&his, "ESPGNU777ORG", &cookie, &fields, "same-origin").await.status, 302, "six characters");
        let old = his.with(|config| config.refuse_common_passwords = false).await;
        let fields = format!("csrf_token={token}&password=Password&pconfirm=Password");
        assert_eq!(submit(&old, "ESPGNU777ORG", &cookie, &fields, "same-origin").await.status, 302);
    }

    async fn a_program_that_accepts_only_json_gets_status_and_code(his) {
        his.person("ANA", "{}").await;
        let (token, cookie) = tokens(&his.get(&own("ANA"), "/password/ANA").await);
        let ours = format!("csrf_token={token}&");
        let long = format!("{ours}password={0}&pconfirm={0}", "x".repeat(1025));
        let (json, both) = ("application/json", "text/html, application/json");
        let cases = [
            ("password=secret-1&pconfirm=secret-1", 403, "form_expired"),
            (&*format!("{ours}password=&pconfirm=secret-1"), 422, "password_missing"),
            (&*format!("{ours}password=secret-1"), 422, "password_missing"),
            (&*format!("{ours}password=short&pconfirm=short"), 422, "password_too_short"),
            (&*long, 422, "password_too_long"),
            (&*format!("{ours}password=a%0Abcdefg&pconfirm=a%0Abcdefg"), 422, "password_unusable"),
            (&*format!("{ours}password=++++++&pconfirm=++++++"), 422, "password_unusable"),
            (&*format!("{ours}password=%E3%80%80&pconfirm=%E3%80%80"), 422, "password_unusable"),
            (&*format!("{ours}password=password&pconfirm=password"), 422, "password_too_common"),
            (&*format!("{ours}password=secret-1&pconfirm=secret-2"), 422, "password_mismatch"),
        ];
        let send = async |target: &str, fields: &str, accept: &str| {
            let request = his.request(&root(), "POST", target).body(fields).header("accept", accept);
            let request = request.header("content-type", "application/x-www-form-urlencoded");
            request.header("cookie", &cookie).header("sec-fetch-site", "same-origin").send().await
        };
        for (fields, status, code) in cases {
            for accept in [json, "application/problem+json;q=0.9, */*;q=0.1", "application/json, Text/HTML;q=0"] {
                let (answered, _, told) = send("/password/ANA", fields, accept).await.error();
                assert_eq!((answered, told.as_str()), (status, code), "{accept}: {fields}");
            }
            // A browser still reads the fault beside the field, and so does a client that names no type.
            for accept in [both, "Text/HTML", "*/*"] {
                let page = send("/password/ANA", fields, accept).await;
                assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")), "{accept}");
                assert!(page.text().contains("class=\"error\""), "{accept}: {fields}");
            }
        }
        let right = format!("{ours}password=secret-1&pconfirm=secret-1");
        assert_eq!(send("/password/NONE", &right, json).await.error().2, "person_not_found");
        assert_eq!(his.request(&root(), "GET", "/password/NONE").header("accept", json).send().await.error().0, 404);
        assert_eq!(stored(&his).await, None, "nothing was written");
        assert_eq!(send("/password/ANA", &right, json).await.status, 302);
    }

    async fn a_browser_reads_every_error_as_a_page_in_its_language(his) {
        his.person("ANA", "{}").await;
        let browser = |method, target| {
            let request = his.request(&root(), method, target).header("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
            request.header("accept-language", "es-AR,es;q=0.9,en;q=0.5")
        };
        let form = browser("GET", "/password/ANA").send().await;
        assert_eq!((form.status, form.header("content-language")), (200, Some("es")));
        for part in ["<html lang=\"es\">", "Cambiar la contraseña de ANA", "name=\"username\" value=\"ANA\" autocomplete=\"username\" readonly hidden"] {
            assert!(form.text().contains(part), "{part}: {}", form.text());
        }
        let (token, cookie) = tokens(&form);
        for (target, status) in [("/password/NONE", 404), ("/password/A%00", 400), ("/password/ANA", 415)] {
            let method = if status == 415 { "POST" } else { "GET" };
            let reply = browser(method, target).send().await;
            assert_eq!((reply.status, reply.header("content-type")), (status, Some("text/html; charset=utf-8")), "{target}");
            assert!(reply.text().contains("<html lang=\"es\">") && reply.text().contains("<h1>"), "{}", reply.text());
        }
        assert_eq!(his.get(&root(), "/password/A%00").await.header("content-type"), Some("application/json"));
        let request = browser("POST", "/password/ANA").body(format!("csrf_token={token}&password=secret-1&pconfirm=secret-1"));
        let done = request.header("content-type", "application/x-www-form-urlencoded").header("cookie", &cookie).send().await;
        assert_eq!((done.status, done.header("location")), (303, Some("/static/password-changed")));
        assert!(password::verify(&stored(&his).await.unwrap(), b"secret-1"));
        // The confirmation shows once, and a reload changes nothing.
        let cookie = done.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        let told = browser("GET", "/static/password-changed").header("cookie", &cookie).send().await;
        assert_eq!((told.status, told.header("cache-control")), (200, Some("no-store")));
        let words = ["La contraseña se ha cambiado", "role=\"status\"", "<strong>ANA</strong> entra a partir de ahora"];
        assert!(words.iter().all(|words| told.text().contains(words)), "{}", told.text());
        assert!(told.header("set-cookie").unwrap().contains("Max-Age=0"));
        let again = browser("GET", "/static/password-changed").send().await;
        assert_eq!((again.status, again.header("location"), again.body.len()), (303, Some("/"), 0));
    }
}
