use http::HeaderValue;

use super::*;
use crate::origins::AllowedOrigins;

const JSON: &str = "content-type: application/json";
const PORTAL: &str = "origin: https://portal.example";
const EVIL: &str = "origin: https://evil.example";

fn headers(lines: &[&str]) -> HeaderMap {
    let line = |line: &&str| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
    };
    lines.iter().map(line).collect()
}

fn cors(allowed: AllowedOrigins) -> OriginRules {
    let named = match &allowed {
        AllowedOrigins::Any => vec![],
        AllowedOrigins::Only(origins) => origins.clone(),
    };
    OriginRules { allowed, credentials: AllowedOrigins::Any, named, own_origins: vec![], refuses_foreign: true }
}

fn only_portal() -> OriginRules {
    cors(AllowedOrigins::Only(vec!["https://portal.example".into()]))
}

fn asked() -> AskedOrigin<std::array::IntoIter<Cow<'static, str>, 1>> {
    AskedOrigin { is_secure: true, hosts: [Cow::Borrowed("his.example:8443")].into_iter() }
}

/// The outcome of a request to `https://his.example:8443`.
fn judged(method: &str, lines: &[&str], cors: &OriginRules) -> Result<(), ForeignSign> {
    let headers = headers(lines);
    let Some(page) = ForeignPage::of(&headers, &asked(), cors) else { return Ok(()) };
    page.check(&method.parse().unwrap(), &headers, cors).map_err(|fault| match fault {
        ForeignFault::Write(sign) => sign,
        ForeignFault::Credential => panic!("every origin may send credentials"),
    })
}

#[test]
fn sec_fetch_site_decides_where_it_is_sent() {
    for cors in [cors(AllowedOrigins::Any), only_portal()] {
        for own in ["sec-fetch-site: same-origin", "sec-fetch-site: none"] {
            for origin in ["origin: null", EVIL, "origin: https://his.example:8443", "referer: https://evil.example/"] {
                assert_eq!(judged("POST", &[own, origin], &cors), Ok(()), "{own}, {origin}");
            }
        }
        for foreign in ["cross-site", "same-site", "Same-Origin", "same-origin, none", "", "anything"] {
            let site = format!("sec-fetch-site: {foreign}");
            let lines = [site.as_str(), "origin: https://his.example:8443"];
            assert_eq!(judged("POST", &lines, &cors), Err(ForeignSign::Site), "{foreign}");
        }
        let twice = ["sec-fetch-site: same-origin", "sec-fetch-site: same-origin"];
        assert_eq!(judged("POST", &twice, &cors), Err(ForeignSign::Site));
    }
}

#[test]
fn without_it_the_origin_decides_and_then_the_referer() {
    let any = cors(AllowedOrigins::Any);
    #[rustfmt::skip]
    let cases: [(&[&str], Result<(), ForeignSign>); 26] = [
        (&[],                                                           Ok(())),  // no browser
        (&["origin: https://his.example:8443"],                         Ok(())),
        (&["origin: HTTPS://HIS.example:8443"],                         Ok(())),
        (&["origin: http://his.example:8443"],                          Err(ForeignSign::Origin)),
        (&["origin: https://his.example"],                              Err(ForeignSign::Origin)),
        (&["origin: https://his.example:443"],                          Err(ForeignSign::Origin)),
        (&["origin: https://his.example.:8443"],                        Err(ForeignSign::Origin)),
        (&["origin: https://his.example:8443.evil.example"],            Err(ForeignSign::Origin)),
        (&["origin: https://his.example:8443@evil.example"],            Err(ForeignSign::Origin)),
        (&["origin: https://evil.example https://his.example:8443"],    Err(ForeignSign::Origin)),
        (&["origin: https://his.example:8443, https://his.example:8443"], Err(ForeignSign::Origin)),
        (&["origin: https://his.example:8443", "origin: https://his.example:8443"], Err(ForeignSign::Origin)),
        (&["origin: https://his.example:+8443"],                        Err(ForeignSign::Origin)),
        (&["origin: https://his.example:8443/"],                        Err(ForeignSign::Origin)),
        (&["origin: null"],                                             Err(ForeignSign::Origin)),
        (&["origin: "],                                                 Err(ForeignSign::Origin)),
        (&["origin: file://"],                                          Err(ForeignSign::Origin)),
        (&["origin: null", "referer: https://his.example:8443/"],       Err(ForeignSign::Origin)),
        (&["origin: https://his.example:8443", "referer: https://evil.example/"], Ok(())),
        (&["referer: https://his.example:8443/password/ANA?x#y"],       Ok(())),
        (&["referer: https://his.example:8443"],                        Ok(())),
        (&["referer: "],                                                Ok(())),
        (&["referer: https://evil.example/https://his.example:8443/"],  Err(ForeignSign::Referer)),
        (&["referer: https://his.example:8443\\@evil.example/"],        Ok(())),  // browsers end the host there, too
        (&["referer: about:blank"],                                     Err(ForeignSign::Referer)),
        (&["referer: https://his.example:8443/", "referer: https://evil.example/"], Err(ForeignSign::Referer)),
    ];
    for (lines, expected) in cases {
        for method in ["POST", "PUT"] {
            let expected = if method == "PUT" && is_preflighted(lines) { Ok(()) } else { expected };
            assert_eq!(judged(method, lines, &any), expected, "{method}: {lines:?}");
        }
        for method in ["GET", "HEAD", "OPTIONS"] {
            assert_eq!(judged(method, lines, &any), Ok(()), "{method}: {lines:?}");
        }
    }
}

/// Whether a method that forms do not have is enough: browsers send exactly one Origin with it.
fn is_preflighted(lines: &[&str]) -> bool {
    lines.iter().filter(|line| line.starts_with("origin: ")).count() == 1
}

#[test]
fn a_foreign_write_passes_if_its_origin_is_allowed_and_a_preflight_came_first() {
    let portal: &[&str] = &["sec-fetch-site: cross-site", "sec-fetch-mode: cors", PORTAL];
    let old_portal: &[&str] = &[PORTAL];
    for lines in [portal, old_portal] {
        for cors in [cors(AllowedOrigins::Any), only_portal()] {
            for method in ["PUT", "PATCH", "DELETE"] {
                assert_eq!(judged(method, lines, &cors), Ok(()), "{method}: {lines:?}");
            }
            for kind in
                ["application/json", "Application/JSON; charset=utf-8", " application/fhir+json ;x", "image/png"]
            {
                let kind = format!("content-type: {kind}");
                assert_eq!(judged("POST", &[lines, &[kind.as_str()]].concat(), &cors), Ok(()), "{kind}: {lines:?}");
            }
            #[rustfmt::skip]
            let unasked: [&[&str]; 18] = [
                &[],
                &["content-type: "],
                &["content-type: text/plain"],
                &["content-type: Text/Plain"],
                &["content-type: text/plain;charset=utf-8"],
                &["content-type:  text/plain ; a=b"],
                &["content-type: application/x-www-form-urlencoded"],
                &["content-type: multipart/form-data; boundary=x"],
                &["content-type: text/ping"],
                &["content-type: application/csp-report"],
                &["content-type: application/reports+json"],
                &["content-type: text/plain, application/json"],
                &["content-type: application/json, text/plain"],
                &["content-type: application/json; a=\",\""],
                &["content-type: json"],
                &["content-type: /json"],
                &["content-type: application/js on"],
                &[JSON, JSON],
            ];
            for kind in unasked {
                let refused = judged("POST", &[lines, kind].concat(), &cors);
                assert!(refused.is_err(), "{kind:?}: {lines:?}");
            }
        }
    }
}

#[test]
fn an_origin_that_is_not_allowed_writes_nothing_however_it_asks() {
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        for origin in
            [EVIL, "origin: null", "origin: https://portal.example.evil.example", "origin: http://portal.example"]
        {
            assert_eq!(judged(method, &[origin, JSON], &only_portal()), Err(ForeignSign::Origin), "{method} {origin}");
        }
        // Without an origin there is no preflight that would have allowed it.
        let unnamed = ["sec-fetch-site: cross-site", JSON];
        assert_eq!(judged(method, &unnamed, &cors(AllowedOrigins::Any)), Err(ForeignSign::Site), "{method}");
    }
}

#[test]
fn what_a_browser_sends_in_another_mode_had_no_preflight() {
    for mode in ["navigate", "no-cors", "same-origin", "CORS", ""] {
        let mode = format!("sec-fetch-mode: {mode}");
        for method in ["POST", "DELETE"] {
            let lines = ["sec-fetch-site: cross-site", &mode, PORTAL, JSON];
            assert_eq!(judged(method, &lines, &only_portal()), Err(ForeignSign::Site), "{method}, {mode}");
        }
    }
}

#[test]
fn a_page_of_another_origin_sends_passwords_only_if_that_may() {
    const PASSWORD: &str = "authorization: Basic x";
    let any = cors(AllowedOrigins::Any);
    let credentials = AllowedOrigins::Only(vec!["https://portal.example".into()]);
    let own_origins = vec!["https://alias.example".into()];
    let restricted = OriginRules { credentials, own_origins, ..any.clone() };
    let judged = |method: &str, lines: &[&str], cors: &OriginRules| {
        let headers = headers(lines);
        let page = ForeignPage::of(&headers, &asked(), cors);
        page.map_or(Ok(()), |page| page.check(&method.parse().unwrap(), &headers, cors))
    };
    let cross = "sec-fetch-site: cross-site";
    let strangers: [&[&str]; 8] = [
        &[EVIL],
        &[cross, EVIL],
        &[cross],
        &[cross, "origin: null", "referer: https://portal.example/"],
        &[EVIL, PORTAL],
        &["referer: https://evil.example/"],
        &[cross, "referer: "],
        &["origin: https://portal.example.evil.example"],
    ];
    let others: [&[&str]; 8] = [
        &[],
        &["sec-fetch-site: same-origin"],
        &["sec-fetch-site: none", EVIL],
        &["origin: https://his.example:8443"],
        &[PORTAL],
        &[cross, PORTAL],
        &[cross, "referer: https://portal.example/"], // a link of the portal
        &[cross, "origin: https://alias.example"],
    ];
    for method in ["GET", "HEAD", "PATCH"] {
        for (pages, expected) in [(strangers, Err(ForeignFault::Credential)), (others, Ok(()))] {
            for lines in pages {
                let asks = [lines, &[PASSWORD]].concat();
                // Writes need a preflight besides.
                let is_held = method == "PATCH" && judged(method, lines, &restricted).is_err();
                assert!(is_held || judged(method, &asks, &restricted) == expected, "{method}: {lines:?}");
                assert!(is_held || judged(method, &asks, &any) == Ok(()), "{method}: {lines:?}");
                assert!(is_held || judged(method, lines, &restricted) == Ok(()), "without one, {method}: {lines:?}");
            }
        }
    }
    let two = [EVIL, PASSWORD, PASSWORD];
    assert_eq!(judged("GET", &two, &restricted), Err(ForeignFault::Credential));
    let nobody = OriginRules { credentials: AllowedOrigins::Only(vec![]), ..any };
    assert_eq!(judged("GET", &[PORTAL, PASSWORD], &nobody), Err(ForeignFault::Credential));
}

#[test]
fn own_origins_are_ours_too_and_the_refusal_can_be_turned_off() {
    let rules = OriginRules { own_origins: vec!["https://his.example".into(), "app://his".into()], ..only_portal() };
    for (line, expected) in [
        ("origin: https://his.example", Ok(())),
        ("origin: app://his", Ok(())),
        ("origin: https://his.example:1", Err(ForeignSign::Origin)),
        ("referer: https://his.example/x", Ok(())),
    ] {
        assert_eq!(judged("POST", &[line], &rules), expected, "{line}");
    }
    let open = OriginRules { refuses_foreign: false, ..only_portal() };
    assert_eq!(judged("POST", &[EVIL], &open), Ok(()));
}

#[test]
fn a_websocket_of_a_foreign_page_needs_a_named_origin() {
    let upgrade = "upgrade: websocket";
    for cors in [cors(AllowedOrigins::Any), only_portal()] {
        let named = !cors.named.is_empty();
        assert_eq!(judged("GET", &[upgrade], &cors), Ok(()), "no browser");
        assert_eq!(judged("GET", &[upgrade, "origin: https://his.example:8443"], &cors), Ok(()));
        assert_eq!(judged("GET", &[upgrade, "sec-fetch-site: same-origin", EVIL], &cors), Ok(()));
        for page in [EVIL, "origin: null", "origin: http://his.example:8443"] {
            assert_eq!(judged("GET", &[upgrade, page], &cors), Err(ForeignSign::Origin), "{page}");
            assert_eq!(judged("GET", &["upgrade: h2c, WebSocket", page], &cors), Err(ForeignSign::Origin), "{page}");
            assert_eq!(judged("GET", &[page], &cors), Ok(()), "a read");
        }
        let foreign = ["cross-site", "same-site"].map(|site| format!("sec-fetch-site: {site}"));
        for site in &foreign {
            assert_eq!(judged("GET", &[upgrade, site, EVIL], &cors), Err(ForeignSign::Site));
            let portal = judged("GET", &[upgrade, site, PORTAL], &cors);
            assert_eq!(portal.is_ok(), named, "{site}");
        }
    }
    let trusting = OriginRules { refuses_foreign: false, ..only_portal() };
    assert_eq!(judged("GET", &[upgrade, EVIL], &trusting), Ok(()));
}
