//! Web pages of other origins that guess passwords from a browser behind a person's address, and the limits on
//! them.

use std::io::Write;

use crate::fixture::{CANARY, Gateway, Response, Setup, basic};
use crate::gateway::http2::{Connection, END_HEADERS, END_STREAM, HEADERS, frame, literal, open, read};

/// Each refusal has a record of its own, and is answered at once. No hash is replaced meanwhile, because any change
/// of a password ends the waits of its account.
const QUICK: [(&str, &str); 4] = [
    ("FEDGATE_AUTHENTICATION_UPGRADE_HASHES", "false"),
    ("FEDGATE_RECORDS_ANONYMOUS_OF_SOURCE_PER_MINUTE", "0"),
    ("FEDGATE_RECORDS_ANONYMOUS_PER_MINUTE", "0"),
    ("FEDGATE_AUTHENTICATION_REJECTION_STEP_MS", "0"),
];
const PORTAL: (&str, &str) = ("origin", "https://portal.example");
const EVIL: (&str, &str) = ("origin", "https://evil.example");
const CROSS_SITE: (&str, &str) = ("sec-fetch-site", "cross-site");

/// A client over one version of HTTP.
enum Client<'a> {
    Http1(&'a Gateway),
    Http2 { gateway: &'a Gateway, connection: Box<Connection>, stream: u32 },
}

impl<'a> Client<'a> {
    fn both(gateway: &'a Gateway) -> [Self; 2] {
        let connection = Box::new(open(gateway));
        [Self::Http1(gateway), Self::Http2 { gateway, connection, stream: 1 }]
    }

    fn gateway(&self) -> &'a Gateway {
        match self {
            Self::Http1(gateway) | Self::Http2 { gateway, .. } => gateway,
        }
    }

    /// Status and reason of a GET of ANA's record by an account, with or without a password.
    fn get(&mut self, headers: &[(&str, &str)], password: Option<&str>) -> (u64, String) {
        let authorization = password.map(|password| basic("ANA", password));
        let headers: Vec<_> = authorization
            .iter()
            .map(|value| ("authorization", value.as_str()))
            .chain(headers.iter().copied())
            .collect();
        match self {
            Self::Http1(gateway) => {
                let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                gateway.request("GET", "/people/ANA", "", &lines);
            }
            Self::Http2 { connection, stream, .. } => {
                let usual =
                    [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/people/ANA")];
                let block: Vec<u8> =
                    usual.iter().chain(&headers).flat_map(|(name, value)| literal(name, value)).collect();
                connection.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, *stream, &block)).unwrap();
                let awaited = *stream;
                read(connection, |kind, number| kind == HEADERS && number == awaited);
                *stream += 2;
            }
        }
        let record = self.gateway().record();
        (record["status"].as_u64().unwrap(), record["reason"].as_str().unwrap_or_default().to_owned())
    }

    fn status(&mut self, headers: &[(&str, &str)], password: &str) -> u64 {
        self.get(headers, Some(password)).0
    }
}

#[test]
fn a_hostile_page_uses_up_its_own_allowance_alone_and_invented_origins_share_one() {
    let configuration = "[cors]\nallowed_origins = [\"*\", \"https://portal.example\"]\n";
    for version in 0..2 {
        let gateway = Gateway::start_as(&Setup { environment: &QUICK, configuration, ..Setup::default() });
        let mut client = Client::both(&gateway).into_iter().nth(version).unwrap();
        assert_eq!(client.status(&[], CANARY), 200, "the person signs in");
        // One page, for as long as it may.
        let spent = (0..30).find(|n| client.status(&[CROSS_SITE, EVIL], &format!("guess{n}")) == 429);
        // Six, and one more each time that its wait has ended meanwhile.
        assert!(spent.is_some_and(|spent| (6..=8).contains(&spent)), "{spent:?}");
        // Other pages follow, some without a distinguishable origin.
        let mut looked_at = 0;
        for n in 0..100 {
            let origin = format!("https://{n}.evil.example");
            let lines: &[(&str, &str)] = match n % 5 {
                0 => &[CROSS_SITE],
                1 => &[("origin", "null")],
                2 => &[("sec-fetch-site", "same-site")],
                3 => &[("referer", &format!("{origin}/page"))],
                _ => &[CROSS_SITE, ("origin", &origin)],
            };
            match client.status(lines, &format!("other{n}")) {
                401 => looked_at += 1,
                status => assert_eq!(status, 429, "{lines:?}"),
            }
        }
        // Each wait is twice as long as the one before, so some may end meanwhile.
        assert!(looked_at <= 6, "{looked_at} guesses of a hundred origins were looked at");
        // Not even the right password is accepted, or a page could try it like any other.
        while client.status(&[CROSS_SITE, EVIL], "once more") != 429 {}
        assert_eq!(client.status(&[("origin", "https://new.example")], CANARY), 429);
        // People behind that address, and the portal, wait for none of it.
        let own = [("sec-fetch-site", "same-origin")];
        for (whose, lines) in [("program", &[][..]), ("own page", &own), ("portal", &[PORTAL])] {
            for mistyped in 0..2 {
                assert_eq!(client.status(lines, &format!("{whose}{mistyped}")), 401, "{whose}");
            }
            assert_eq!(client.status(lines, CANARY), 200, "{whose}");
        }
        // The portal's own allowance is used up like any other, and affects no one else.
        let spent = (0..30).find(|n| client.status(&[PORTAL], &format!("last{n}")) == 429);
        assert!(spent.is_some());
        assert_eq!((client.status(&[PORTAL], CANARY), client.status(&[], "mistyped")), (200, 401));
    }
}

#[test]
fn pages_of_origins_that_are_not_named_send_no_password_and_programs_and_own_pages_do() {
    let configuration = "[cors]\ncredential_origins = [\"https://portal.example\"]\n";
    let gateway = Gateway::start_as(&Setup { environment: &QUICK, configuration, ..Setup::default() });
    let own_page = [("sec-fetch-site", "same-origin"), ("referer", "https://localhost/password/ANA")];
    for mut client in Client::both(&gateway) {
        let served = gateway.upstream.count();
        for lines in [
            &[EVIL][..],
            &[CROSS_SITE, EVIL],
            &[CROSS_SITE],
            &[("sec-fetch-site", "same-site")],
            &[("origin", "null"), ("referer", "https://portal.example/")],
            &[("origin", "moz-extension://0f2a")],
            &[("referer", "https://evil.example/")],
        ] {
            // Right or wrong, often or not: no password is compared.
            for password in [CANARY, "a", "b", "c", "d", "e", "f", "g", "h"] {
                assert_eq!(client.get(lines, Some(password)), (403, "foreign_credential".to_owned()), "{lines:?}");
            }
            assert_eq!(client.get(lines, None).0, 401, "{lines:?}");
        }
        assert_eq!(gateway.upstream.count(), served);
        for lines in [
            &[][..],
            &own_page,
            &[("sec-fetch-site", "none"), EVIL],
            &[PORTAL],
            &[CROSS_SITE, PORTAL],
            &[CROSS_SITE, ("referer", "https://portal.example/")],
        ] {
            assert_eq!(client.status(lines, "mistyped"), 401, "{lines:?}");
            assert_eq!(client.status(lines, CANARY), 200, "{lines:?}");
        }
    }
    assert!(gateway.admin_get("/metrics").body.contains("fedgate_refusals_total{reason=\"foreign_credential\"} 126"));
    // The page's script can read the reason, and its preflight already gets it.
    let told = gateway.request("GET", "/people/ANA", "ANA", "Origin: https://evil.example\r\n");
    assert_eq!((told.status, &told.json()["code"]), (403, &"foreign_credential".into()));
    assert_eq!(told.header("access-control-allow-origin").as_deref(), Some("https://evil.example"));
    assert_eq!(told.header("vary").as_deref(), Some("Origin"));
    for (origin, asked, allowed) in [
        ("https://portal.example", "authorization,content-type", Some("authorization,content-type")),
        ("https://evil.example", "authorization,content-type", Some("content-type")),
        ("https://evil.example", "Accept, Authorization , x-y", Some("Accept, x-y")),
        ("https://evil.example", "authorization", None),
        ("null", "authorization", None),
    ] {
        let answer = preflight(&gateway, origin, asked);
        assert_eq!(answer.header("access-control-allow-headers").as_deref(), allowed, "{origin}: {asked}");
        let told = (answer.status, answer.header("access-control-allow-origin"));
        assert_eq!(told, (200, Some(origin.to_owned())), "everything else is allowed as before");
    }
}

fn preflight(gateway: &Gateway, origin: &str, asked: &str) -> Response {
    let lines = format!(
        "Origin: {origin}\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\nAccess-Control-Request-Method: GET\r\n\
         Access-Control-Request-Headers: {asked}\r\n"
    );
    gateway.request("OPTIONS", "/people/ANA", "", &lines)
}
