use std::collections::HashSet;

use super::*;

fn name(text: &str) -> HeaderName {
    HeaderName::from_bytes(text.as_bytes()).unwrap()
}

fn added(entries: &[&str]) -> PassList {
    PassList::new(&entries.iter().map(|entry| AddedHeaders::parse(entry).unwrap()).collect::<Vec<_>>())
}

/// Names that services behind proxies are known to believe, one of each kind.
#[rustfmt::skip]
const BELIEVED: &[&str] = &[
    "remote-user", "remote-groups", "remote-email", "remote-name", "remote-addr", "x-remote-user", "x-remote-group",
    "x-remote-extra-scopes", "x-remote-ip", "x-auth-request-user", "x-auth-request-email", "x-auth-request-groups",
    "x-auth-request-preferred-username", "x-auth-request-access-token", "x-auth-user", "x-auth-username", "x-auth-token",
    "x-webauth-user", "x-webauth-name", "x-webauth-groups", "x-consumer-id", "x-consumer-username", "x-consumer-custom-id",
    "x-consumer-groups", "x-credential-identifier", "x-anonymous-consumer", "x-authenticated-userid",
    "x-authenticated-scope", "x-authenticated-user", "x-authentik-username", "x-authentik-groups", "x-authentik-jwt",
    "x-authentik-meta-app", "x-pomerium-claim-email", "x-pomerium-jwt-assertion", "x-vouch-user", "x-vouch-idp-idtoken",
    "x-goog-authenticated-user-email", "x-goog-authenticated-user-id", "x-goog-iap-jwt-assertion",
    "x-apigateway-api-userinfo", "x-endpoint-api-userinfo", "cf-access-authenticated-user-email", "cf-access-jwt-assertion",
    "cf-connecting-ip", "cf-ipcountry", "x-amzn-oidc-identity", "x-amzn-oidc-data", "x-amzn-oidc-accesstoken",
    "x-amzn-mtls-clientcert", "x-amzn-mtls-clientcert-subject", "x-ms-client-principal", "x-ms-client-principal-id",
    "x-ms-client-principal-name", "x-ms-client-principal-idp", "x-ms-token-aad-id-token", "client-cert",
    "client-cert-chain", "x-client-cert", "x-client-dn", "x-client-verify", "x-ssl-client-cert", "x-ssl-client-dn",
    "x-ssl-client-verify", "x-ssl-client-s-dn", "ssl-client-cert", "ssl-client-verify", "ssl-client-subject-dn",
    "x-forwarded-client-cert", "x-forwarded-tls-client-cert", "x-forwarded-tls-client-cert-info", "x-arr-clientcert",
    "impersonate-user", "impersonate-group", "impersonate-uid", "impersonate-extra-scopes", "x-user", "x-user-id",
    "x-user-email", "x-user-roles", "x-userinfo", "x-username", "x-email", "x-groups", "x-roles", "x-tenant-id",
    "x-account-id", "x-api-key", "x-access-token", "x-id-token", "x-jwt-assertion", "x-hasura-role", "x-hasura-user-id",
    "x-hasura-admin-secret", "tailscale-user-login", "x-shib-user", "shib-session-id", "oidc-claim-email", "sm-user",
    "iv-user", "iv-groups", "x-on-behalf-of", "from", "x-forwarded-user", "x-forwarded-email", "x-forwarded-groups",
    "x-forwarded-preferred-username", "x-forwarded-access-token", "x-forwarded-for", "x-forwarded-host",
    "x-forwarded-proto", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-path", "x-forwarded-uri",
    "x-forwarded-method", "x-forwarded-server", "x-forwarded-scheme", "x-forwarded-ssl", "x-forwarded", "forwarded",
    "forwarded-for", "x-real-ip", "x-client-ip", "client-ip", "x-cluster-client-ip", "true-client-ip", "fastly-client-ip",
    "x-originating-ip", "x-envoy-external-address", "x-envoy-original-path", "x-azure-clientip", "x-appengine-user-ip",
    "x-host", "x-original-host", "x-original-url", "x-original-uri", "x-original-method", "x-rewrite-url",
    "x-http-method", "x-http-method-override", "x-method-override", "x-script-name", "x-url-scheme", "x-scheme",
    "front-end-https", "proxy", "destination", "wl-proxy-client-ip", "x-middleware-subrequest", "x-auth", "x-ssl", "user",
    "x-is-admin", "x-upn", "x-current-user", "x-verified-user", "x-http-verb", "x-dn", "x-sub",
];

#[test]
fn no_name_that_services_believe_passes_and_a_prefix_reaches_none_that_is_known() {
    assert!(BELIEVED.len() > 130);
    let (listed, all) = (PassList::new(&[]), added(&["*"]));
    for believed in BELIEVED {
        assert_ne!(listed.judge(&name(believed)), HeaderPassage::Passes, "{believed}");
        assert_ne!(all.judge(&name(believed)), HeaderPassage::Passes, "{believed}, by a prefix");
    }
    assert_eq!(all.judge(&name("x-clinic")), HeaderPassage::Passes);
    for other in ["fedgate_assertion", "fedgate.assertion", "fedgate-assertion", "fedgate-exchange", "fedgate-busy"] {
        assert_ne!(all.judge(&name(other)), HeaderPassage::Passes, "{other}");
    }
}

#[test]
fn every_group_of_the_list_passes_and_says_why_and_none_of_it_is_a_name_that_services_believe() {
    let list = PassList::new(&[]);
    let mut seen = HashSet::new();
    for group in PASSED {
        assert!(!group.needed_by.is_empty() && !group.names.is_empty(), "{group:?}");
        for passed in group.names {
            assert_eq!(list.judge(&name(passed)), HeaderPassage::Passes, "{passed}");
            assert!(!is_identity(passed) && !is_own(passed), "{passed}");
            assert!(seen.insert(passed), "{passed} stands twice");
        }
    }
    #[rustfmt::skip]
    let needed = [
        "Accept", "Content-Type", "Content-Length", "If-None-Match", "Range", "Cache-Control", "Cookie", "Sec-Fetch-Site",
        "Sec-CH-UA", "Origin", "Referer", "X-Requested-With", "X-CSRF-Token", "X-XSRF-TOKEN", "Last-Event-ID",
        "Idempotency-Key", "Prefer", "If-None-Exist", "X-Provenance", "SOAPAction", "OData-Version", "grpc-timeout",
        "Tus-Resumable", "Upload-Offset", "tracestate", "b3", "User-Agent",
    ];
    for needed in needed {
        assert_eq!(list.judge(&name(needed)), HeaderPassage::Passes, "{needed}");
    }
    for unlisted in ["x-clinic", "accept-profile", "x-csrf", "sec-websocket-key", "x"] {
        assert_eq!(list.judge(&name(unlisted)), HeaderPassage::IsDropped, "{unlisted}");
    }
}

#[test]
fn an_operator_adds_names_and_beginnings_of_names_but_none_that_is_the_gateways_own() {
    let list = added(&["X-Clinic", "hx-*", "X-WebAuth-User"]);
    for passes in ["x-clinic", "hx-", "hx-request", "x-webauth-user"] {
        assert_eq!(list.judge(&name(passes)), HeaderPassage::Passes, "{passes}");
    }
    for dropped in ["x-clinics", "hx", "x-webauth-name"] {
        assert_eq!(list.judge(&name(dropped)), HeaderPassage::IsDropped, "{dropped}");
    }
    #[rustfmt::skip]
    let cases = [
        ("",                  EntryFault::NoName),
        ("X-Cli nic",         EntryFault::NoName),
        ("X_Clinic",          EntryFault::NoName),
        ("X.Clinic",          EntryFault::NoName),
        ("X-*-Clinic",        EntryFault::NoName),
        ("X-**",              EntryFault::NoName),
        ("ü",                 EntryFault::NoName),
        ("Fedgate-Assertion", EntryFault::Own),
        ("fedgate-*",         EntryFault::Own),
        ("Host",              EntryFault::Own),
        ("Authorization",     EntryFault::Own),
        ("X-Forwarded-For",   EntryFault::Own),
        ("Forwarded",         EntryFault::Own),
        ("X-Request-Id",      EntryFault::Own),
        ("Upgrade",           EntryFault::Own),
        ("TE",                EntryFault::Own),
    ];
    for (entry, fault) in cases {
        assert_eq!(AddedHeaders::parse(entry), Err(fault), "{entry}");
    }
    let everything = added(&["*", "x-*", "f*"]);
    for own in OWN {
        assert_eq!(everything.judge(&name(own)), HeaderPassage::IsOwn, "{own}");
    }
}

#[test]
fn an_entry_that_reaches_a_name_which_services_believe_is_noticed() {
    for (entry, reached) in [
        ("X-Clinic", false),
        ("hx-*", false),
        ("x-user-agent-*", false),
        ("Remote-User", true),
        ("X-WebAuth-Group", true),
        ("x-webauth-*", true),
        ("x-webauth-user-*", true),
        ("x-web*", true),
        ("x-*", true),
        ("*", true),
        ("client-*", true),
    ] {
        assert_eq!(AddedHeaders::parse(entry).unwrap().identity().is_some(), reached, "{entry}");
    }
    for believed in BELIEVED {
        assert!(is_identity(believed) || is_own(believed), "{believed} would be no warning");
    }
}
