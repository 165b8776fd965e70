use std::net::IpAddr;

use http::HeaderValue;

use super::*;
use fedgate_base::config::{AllowedOrigins, ForwardedHeader, ProxiesConfig};

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

fn cors(allowed: AllowedOrigins) -> CorsConfig {
    let named = match &allowed {
        AllowedOrigins::Any => vec![],
        AllowedOrigins::Only(origins) => origins.clone(),
    };
    CorsConfig { allowed, credentials: AllowedOrigins::Any, named, own_origins: vec![], refuses_foreign: true }
}

fn only_portal() -> CorsConfig {
    cors(AllowedOrigins::Only(vec!["https://portal.example".into()]))
}

/// The outcome of a request to `https://his.example:8443`.
fn judged(method: &str, lines: &[&str], cors: &CorsConfig) -> Result<(), ForeignSign> {
    let headers = headers(lines);
    let origin = RequestOrigin::of(&headers, None, true, &ProxiesConfig::default());
    writes(method, &headers, &AskedAddress { origin: &origin, authority: "his.example:8443" }, cors)
}

/// The same for another address.
fn writes(method: &str, headers: &HeaderMap, asked: &AskedAddress<'_>, cors: &CorsConfig) -> Result<(), ForeignSign> {
    let Some(page) = ForeignPage::of(headers, asked, cors) else { return Ok(()) };
    page.check(&method.parse().unwrap(), headers, cors).map_err(|fault| match fault {
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
fn own_is_what_the_client_asked_for_as_far_as_it_is_told() {
    let trusted = ProxiesConfig { trusted: vec!["10.0.0.0/8".parse().unwrap()], ..ProxiesConfig::default() };
    let by_forwarded = ProxiesConfig { header: ForwardedHeader::Forwarded, ..trusted.clone() };
    let proxy: IpAddr = "10.0.0.1".parse().unwrap();
    let stranger: IpAddr = "192.0.2.1".parse().unwrap();
    type Case<'a> = (&'a str, &'a ProxiesConfig, IpAddr, bool, &'a str, &'a [&'a str], bool);
    #[rustfmt::skip]
    let cases: [Case<'_>; 17] = [
        // Host, trusted proxies, peer, TLS, Origin, further headers, whether it is own
        ("his.example",     &trusted, stranger, true,  "https://his.example",       &[], true),
        ("his.example",     &trusted, stranger, true,  "https://his.example:443",   &[], true),
        ("his.example:443", &trusted, stranger, true,  "https://his.example",       &[], true),
        ("his.example:",    &trusted, stranger, true,  "https://his.example",       &[], true),
        ("his.example.",    &trusted, stranger, true,  "https://his.example.",      &[], true),
        ("his.example.",    &trusted, stranger, true,  "https://his.example",       &[], false),
        ("his.example:80",  &trusted, stranger, false, "http://his.example",        &[], true),
        ("[2001:DB8::1]:8443", &trusted, stranger, true, "https://[2001:db8:0::1]:8443", &[], true),
        ("[2001:db8::2]",   &trusted, stranger, true,  "https://[2001:db8::1]",     &[], false),
        ("10.0.0.9:8080",   &trusted, proxy,    false, "https://his.example",       &["x-forwarded-host: his.example", "x-forwarded-proto: https"], true),
        ("10.0.0.9:8080",   &trusted, stranger, false, "https://his.example",       &["x-forwarded-host: his.example", "x-forwarded-proto: https"], false),
        ("10.0.0.9:8080",   &trusted, proxy,    false, "https://his.example:8443",  &["x-forwarded-host: his.example", "x-forwarded-proto: https", "x-forwarded-port: 8443"], true),
        ("inner.example",   &trusted, proxy,    false, "https://his.example",       &["x-forwarded-host: his.example, inner.example", "x-forwarded-proto: https"], true),
        ("his.example",     &trusted, proxy,    false, "https://his.example",       &["x-forwarded-host: ", "x-forwarded-proto: https"], true),
        ("his.example",     &trusted, proxy,    false, "https://his.example",       &["x-forwarded-host: evil.example", "x-forwarded-proto: https"], false),
        ("10.0.0.9:8080",   &by_forwarded, proxy, false, "https://his.example:8443", &["forwarded: for=192.0.2.7;host=\"his.example:8443\";proto=https"], true),
        ("10.0.0.9:8080",   &by_forwarded, proxy, false, "https://his.example",     &["x-forwarded-host: his.example", "forwarded: for=192.0.2.7;proto=https"], false),
    ];
    for (authority, proxies, peer, secure, origin, told, is_own) in cases {
        let line = format!("origin: {origin}");
        let headers = headers(&[told, &[line.as_str()]].concat());
        let from = RequestOrigin::of(&headers, Some(peer), secure, proxies);
        let judged = writes("POST", &headers, &AskedAddress { origin: &from, authority }, &only_portal());
        assert_eq!(judged.is_ok(), is_own, "{authority}, {peer}: {origin}, {told:?}");
    }
    let told = CorsConfig { own_origins: vec!["https://his.example".into(), "app://his".into()], ..only_portal() };
    for (line, expected) in [
        ("origin: https://his.example", Ok(())),
        ("origin: app://his", Ok(())),
        ("origin: https://his.example:1", Err(ForeignSign::Origin)),
        ("referer: https://his.example/x", Ok(())),
    ] {
        assert_eq!(judged("POST", &[line], &told), expected, "{line}");
    }
    let open = CorsConfig { refuses_foreign: false, ..only_portal() };
    assert_eq!(judged("POST", &[EVIL], &open), Ok(()));
}

/// The client address of a request to `https://his.example:8443`, as the throttle counts it.
fn counted(lines: &[&str], cors: &CorsConfig) -> ClientAddress {
    let headers = headers(lines);
    let client = Some(IpAddr::from([192, 0, 2, 1]));
    let origin = RequestOrigin::of(&headers, client, true, &ProxiesConfig::default());
    let asked = AskedAddress { origin: &origin, authority: "his.example:8443" };
    ForeignPage::of(&headers, &asked, cors).map_or(client.into(), |page| page.at(client.into(), cors))
}

#[test]
fn a_password_counts_for_the_page_that_sent_it_reads_too() {
    use ForeignOrigin::{Named, Unnamed};
    let home = ClientAddress::from(Some(IpAddr::from([192, 0, 2, 1])));
    let unnamed = |origin: &str| home.on_page_of(origin.as_bytes(), Unnamed);
    let portal = home.on_page_of(b"https://portal.example", Named);
    let (cross, same) = ("sec-fetch-site: cross-site", "sec-fetch-site: same-site");
    #[rustfmt::skip]
    let cases: [(&[&str], ClientAddress); 21] = [
        (&[],                                                      home),  // no browser
        (&["sec-fetch-site: same-origin"],                         home),
        (&["sec-fetch-site: none"],                                home),  // typed, or from another program
        (&["sec-fetch-site: same-origin", "origin: https://his.example:8443"], home),
        (&["origin: https://his.example:8443"],                    home),
        (&["referer: https://his.example:8443/password/ANA"],      home),
        (&[cross],                                                 unnamed("")),
        (&[same],                                                  unnamed("")),
        (&["sec-fetch-site: whatever"],                            unnamed("")),
        (&[EVIL],                                                  unnamed("https://evil.example")),
        (&[cross, EVIL],                                           unnamed("https://evil.example")),
        (&[cross, EVIL, "referer: https://portal.example/"],       unnamed("https://evil.example")),
        (&["origin: null", "referer: https://portal.example/"],    unnamed("null")),  // a sandboxed frame of the portal
        (&[EVIL, PORTAL],                                          unnamed("")),
        (&["origin: \u{e9}"],                                       unnamed("")),
        (&["origin: moz-extension://0123"],                        unnamed("moz-extension://0123")),
        (&["referer: https://evil.example/https://portal.example"], unnamed("https://evil.example")),
        (&[PORTAL],                                                portal),
        (&[same, PORTAL],                                          portal),
        (&[cross, "referer: https://portal.example/start?x"],      portal),
        (&["origin: http://portal.example"],                       unnamed("http://portal.example")),
    ];
    for (lines, expected) in cases {
        assert_eq!(counted(lines, &only_portal()), expected, "{lines:?}");
    }
    // `"*"` names no origin; beside it one may be named.
    assert_eq!(counted(&[PORTAL], &cors(AllowedOrigins::Any)), unnamed("https://portal.example"));
    let beside = CorsConfig { named: vec!["https://portal.example".into()], ..cors(AllowedOrigins::Any) };
    assert_eq!(counted(&[PORTAL], &beside), portal);
}

#[test]
fn a_page_of_another_origin_sends_passwords_only_if_that_may() {
    const PASSWORD: &str = "authorization: Basic x";
    let any = cors(AllowedOrigins::Any);
    let credentials = AllowedOrigins::Only(vec!["https://portal.example".into()]);
    let own_origins = vec!["https://alias.example".into()];
    let restricted = CorsConfig { credentials, own_origins, ..any.clone() };
    let judged = |method: &str, lines: &[&str], cors: &CorsConfig| {
        let headers = headers(lines);
        let origin = RequestOrigin::of(&headers, None, true, &ProxiesConfig::default());
        let asked = AskedAddress { origin: &origin, authority: "his.example:8443" };
        let page = ForeignPage::of(&headers, &asked, cors);
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
    let nobody = CorsConfig { credentials: AllowedOrigins::Only(vec![]), ..any };
    assert_eq!(judged("GET", &[PORTAL, PASSWORD], &nobody), Err(ForeignFault::Credential));
}
