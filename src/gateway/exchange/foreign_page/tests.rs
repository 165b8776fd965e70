use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;
use fedgate_base::config::{ForwardedHeader, ProxiesConfig};
use fedgate_core::origins::AllowedOrigins;

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

#[test]
fn own_is_the_origin_that_the_client_asked_for() {
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
        let page = ForeignPage::of(&headers, &asked_origin(&from, authority), &only_portal());
        assert!(page.is_none_or(|page| page.check(&Method::POST, &headers, &only_portal()).is_err()));
        assert_eq!(page.is_none(), is_own, "{authority}, {peer}: {origin}, {told:?}");
    }
}

/// The client address of a request to `https://his.example:8443`, as the throttle counts it.
fn counted(lines: &[&str], cors: &OriginRules) -> ClientAddress {
    let headers = headers(lines);
    let client = Some(IpAddr::from([192, 0, 2, 1]));
    let origin = RequestOrigin::of(&headers, client, true, &ProxiesConfig::default());
    let page = ForeignPage::of(&headers, &asked_origin(&origin, "his.example:8443"), cors);
    throttled_address(client, page.as_ref(), cors)
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
    let beside = OriginRules { named: vec!["https://portal.example".into()], ..cors(AllowedOrigins::Any) };
    assert_eq!(counted(&[PORTAL], &beside), portal);
}
