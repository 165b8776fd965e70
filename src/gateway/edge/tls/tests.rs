mod ca;

use std::collections::HashMap;
use std::path::PathBuf;

use rcgen::CrlScope;
use rustls::pki_types::CertificateDer;

use super::*;
use ca::{Ca, EXPIRED, VALID, pem};
use fedgate_base::config::{ClientsConfig, UnknownIssuer, WhenExpired};

fn authorities(of: &[&CertificateDer<'static>]) -> AuthorityFile {
    AuthorityFile::new(&of.iter().map(|&der| der.clone()).collect::<Vec<_>>()).unwrap()
}

fn take(
    bytes: &[u8],
    authorities: &AuthorityFile,
    before: Option<&RevocationLists>,
) -> Result<RevocationLists, String> {
    RevocationLists::take(bytes, authorities, before, UnknownIssuer::Refuse)
}

fn config(ca_expired: WhenExpired, crl_expired: WhenExpired) -> TlsConfig {
    TlsConfig {
        certificates: vec![],
        min_version: TlsVersion::Tls12,
        client_certificates: ClientCertificates::Optional,
        client_ca: PathBuf::new(),
        client_ca_expired: ca_expired,
        client_crl: None,
        client_crl_expired: crl_expired,
        client_crl_unknown_issuer: UnknownIssuer::Refuse,
        clients: ClientsConfig { accounts: HashMap::new(), common_name: false },
        hsts: std::time::Duration::ZERO,
        expiry_warning: std::time::Duration::ZERO,
    }
}

fn verifier(config: &TlsConfig, authorities: AuthorityFile, lists: Option<RevocationLists>) -> ClientVerifier {
    let algorithms = ring::default_provider().signature_verification_algorithms;
    ClientVerifier::new(config, Arc::new(authorities), lists.map(Arc::new), algorithms)
}

/// Why a client is refused; empty if it is not.
fn refusal(authorities: AuthorityFile, lists: Option<RevocationLists>, chain: &[&CertificateDer<'static>]) -> String {
    refusal_by(&verifier(&config(WhenExpired::Refuse, WhenExpired::Warn), authorities, lists), chain)
}

fn refusal_by(verifier: &ClientVerifier, chain: &[&CertificateDer<'static>]) -> String {
    let sent: Vec<_> = chain[1..].iter().map(|&der| der.clone()).collect();
    verifier.verify(chain[0], &sent, UnixTime::now()).err().map_or_else(String::new, |distrust| distrust.reason)
}

#[test]
fn a_file_that_holds_no_list_or_one_that_does_not_verify_is_refused_with_a_word_that_says_why() {
    let (root, impostor, stranger) = (Ca::root("Root"), Ca::root("Root"), Ca::root("Stranger"));
    let known = authorities(&[&root.der]);
    let part = root.list_of(2, VALID, &[5], Some(("http://a.example/1.crl", Some(CrlScope::UserCertsOnly))));
    let point = root.list_of(2, VALID, &[5], Some(("http://a.example/1.crl", None)));
    // The same lists with another extension or another member of it: webpki and this parser must agree about them.
    let patched = |list: &[u8], from: &[u8], to: &[u8]| {
        let at = list.windows(from.len()).position(|window| window == from).unwrap();
        [&list[..at], to, &list[at + to.len()..]].concat()
    };
    let delta = patched(&point, &[0x55, 0x1d, 0x1c], &[0x55, 0x1d, 0x1b]);
    let indirect = patched(&part, &[0x81, 0x01, 0xff], &[0x84, 0x01, 0xff]);
    let good = pem(&[root.list(1, &[5])]);
    let (half, cut) = (&good[..good.len() - 30], root.list(1, &[5]));
    let certificate = rcgen::CertificateParams::new(vec![]).unwrap();
    let certificate = certificate.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
    #[rustfmt::skip]
    let cases: [(&[u8], &str); 17] = [
        (b"",                                             "holds no revocation list"),
        (b"\n",                                           "holds no revocation list"),
        (b"<!DOCTYPE html><html>404 Not Found</html>",    "holds no revocation list"),
        (certificate.as_bytes(),                          "holds no revocation list"),
        (half,                                            "is not PEM"),
        (&cut[..cut.len() - 1],                           "cannot be read"),
        (&[good.trim_ascii_end(), &good].concat(),        "ends a section and does not end there"),
        (&[&good[..], &cut].concat(),                     "is no text (DER after PEM"),
        (&[&cut[..], &cut].concat(),                      "cannot be read"),
        (&[&cut[..], &good].concat(),                     "cannot be read"),
        (&impostor.list(1, &[]),                          "not signed by the key of that authority"),
        (&stranger.list(1, &[]),                          "whose certificate is not in `tls.client_ca`"),
        (&pem(&[root.list(1, &[5]), stranger.list(1, &[])]), "`CN=Stranger`, whose certificate is not"),
        (&pem(&[root.list(1, &[5]), impostor.list(2, &[])]), "not signed by the key of that authority"),
        (&part,                                           "a part of its issuer's certificates"),
        (&delta,                                          "a delta list"),
        (&indirect,                                       "an indirect list"),
    ];
    for (bytes, expected) in cases {
        let told = take(bytes, &known, None).err().unwrap_or_else(|| panic!("taken, and should be: {expected}"));
        assert!(told.contains(expected), "{told} is not: {expected}");
    }
    assert!(take(&good, &known, None).is_ok() && take(&point, &known, None).is_ok());
}

#[test]
fn the_freshest_list_of_an_issuer_counts_in_der_and_in_pem_and_in_any_order() {
    let (root, other) = (Ca::root("Root"), Ca::root("Other"));
    let ask = |file: &[u8], client: &CertificateDer<'static>| {
        let known = authorities(&[&root.der, &other.der]);
        let lists = take(file, &known, None).unwrap();
        refusal(known, Some(lists), &[client])
    };
    let (five, six, seven) = (root.client(5), root.client(6), other.client(5));
    assert_eq!(ask(&root.list(1, &[5]), &five), "it is revoked");
    assert_eq!(ask(&root.list(1, &[5]), &six), "");
    // The number counts before the date.
    let old = root.list_of(0x00ff, (1, 1), &[6], None);
    let new = root.list_of(0x0100, (2, 1), &[5], None);
    for file in [pem(&[old.clone(), new.clone()]), pem(&[new.clone(), old.clone()])] {
        assert_eq!(ask(&file, &five), "it is revoked");
        assert_eq!(ask(&file, &six), "", "of an older list");
        assert_eq!(ask(&file, &seven), "", "another authority's, which has no list");
    }
    let (old, new) = (root.list_of(3, (2, 1), &[6], None), root.list_of(3, (1, 1), &[5], None));
    for file in [pem(&[old.clone(), new.clone()]), pem(&[new, old])] {
        assert_eq!((ask(&file, &five).as_str(), ask(&file, &six).as_str()), ("it is revoked", ""));
    }
    let both = pem(&[root.list(1, &[6]), other.list(1, &[5])]);
    assert_eq!((ask(&both, &five).as_str(), ask(&both, &seven).as_str()), ("", "it is revoked"));
    // Lists of several distribution points count together.
    let point = |uri, revoked: u64| root.list_of(1, VALID, &[revoked], Some((uri, None)));
    let both = pem(&[point("http://a.example/1.crl", 5), point("http://a.example/2.crl", 6)]);
    assert_eq!((ask(&both, &five).as_str(), ask(&both, &six).as_str()), ("it is revoked", "it is revoked"));
}

#[test]
fn the_lists_of_a_name_count_whichever_of_its_keys_has_signed_them() {
    let (old, new) = (Ca::root("Root"), Ca::root("Root"));
    let known = || authorities(&[&old.der, &new.der]);
    let ask = |file: &[u8], client: &CertificateDer<'static>| {
        refusal(known(), Some(take(file, &known(), None).unwrap()), &[client])
    };
    // An authority with a new key revokes certificates that it signed with the old one.
    assert_eq!(ask(&new.list(2, &[5]), &old.client(5)), "it is revoked");
    for file in [pem(&[old.list(9, &[5]), new.list(1, &[6])]), pem(&[new.list(1, &[6]), old.list(9, &[5])])] {
        for (client, expected) in [
            (old.client(5), "it is revoked"),
            (old.client(6), "it is revoked"),
            (old.client(7), ""),
            (new.client(6), "it is revoked"),
            (new.client(7), ""),
        ] {
            assert_eq!(ask(&file, &client), expected);
        }
    }
    // An expired old list does no harm beside a new one.
    let file = pem(&[old.list_of(9, EXPIRED, &[], None), new.list(1, &[6])]);
    let lists = take(&file, &known(), None).unwrap();
    let strict = verifier(&config(WhenExpired::Refuse, WhenExpired::Refuse), known(), Some(lists));
    assert_eq!(refusal_by(&strict, &[&old.client(7)]), "");
}

#[test]
fn what_was_revoked_stays_so_until_a_fresher_list_says_otherwise() {
    let (root, other) = (Ca::root("Root"), Ca::root("Other"));
    let known = authorities(&[&root.der, &other.der]);
    let fault =
        |lists: &RevocationLists| lists.faults(&known, 0, WhenExpired::Warn).first().cloned().unwrap_or_default();
    let is_revoked = |lists: &RevocationLists, ca: &Ca, serial| {
        let lists = take(&pem(&[ca.list(0, &[])]), &known, Some(lists)).unwrap();
        refusal(authorities(&[&root.der, &other.der]), Some(lists), &[&ca.client(serial)]) == "it is revoked"
    };
    let first = take(&pem(&[root.list(5, &[5]), other.list(1, &[7])]), &known, None).unwrap();
    let rolled_back = take(&pem(&[root.list(4, &[]), other.list(1, &[7])]), &known, Some(&first)).unwrap();
    assert!(fault(&rolled_back).contains("older than the one in force"), "{}", fault(&rolled_back));
    assert!(is_revoked(&rolled_back, &root, 5));
    let shortened = take(&pem(&[root.list(6, &[5])]), &known, Some(&rolled_back)).unwrap();
    assert!(fault(&shortened).contains("there is no longer a good list of `CN=Other`"), "{}", fault(&shortened));
    assert!(is_revoked(&shortened, &other, 7));
    let fresher = take(&pem(&[root.list(7, &[]), other.list(2, &[])]), &known, Some(&shortened)).unwrap();
    assert!(!is_revoked(&fresher, &root, 5) && !is_revoked(&fresher, &other, 7));
    // A removed authority is no longer reported; once it comes back, so do its revocations.
    let left = authorities(&[&root.der]);
    let without = take(&root.list(8, &[]), &left, Some(&first)).unwrap();
    let now = i64::try_from(UnixTime::now().as_secs()).unwrap();
    assert_eq!(without.faults(&left, now, WhenExpired::Warn), Vec::<String>::new());
    assert!(is_revoked(&without, &other, 7));
}

#[test]
fn a_list_that_is_not_good_leaves_its_issuers_last_one_in_force_and_those_of_others_count() {
    let (root, other, impostor) = (Ca::root("Root"), Ca::root("Other"), Ca::root("Root"));
    let known = || authorities(&[&root.der, &other.der]);
    let first = take(&pem(&[root.list(1, &[5]), other.list(1, &[])]), &known(), None).unwrap();
    let part = root.list_of(9, VALID, &[], Some(("http://a.example/1.crl", Some(CrlScope::UserCertsOnly))));
    for (bad, words) in [(impostor.list(9, &[]), "not signed by the key"), (part, "a part of its issuer's")] {
        let bad_first = pem(&[bad.clone(), other.list(2, &[7])]);
        let bad_last = pem(&[other.list(2, &[7]), bad.clone()]);
        for file in [bad_first, bad_last] {
            let ask = |ca: &Ca, serial| {
                let lists = take(&file, &known(), Some(&first)).unwrap();
                refusal(known(), Some(lists), &[&ca.client(serial)])
            };
            assert_eq!(
                (ask(&root, 5).as_str(), ask(&other, 7).as_str()),
                ("it is revoked", "it is revoked"),
                "{words}"
            );
            assert_eq!(ask(&root, 6), "");
            let told = take(&file, &known(), Some(&first)).unwrap().faults(&known(), 0, WhenExpired::Warn);
            assert!(
                told[0].contains(words) && told[0].ends_with("the other lists of the file are in force"),
                "{told:?}"
            );
            assert!(told[1].contains("there is no longer a good list of `CN=Root`"), "{told:?}");
        }
        // Alone it changes nothing, and a starting gateway has no earlier list.
        assert!(take(&pem(std::slice::from_ref(&bad)), &known(), Some(&first)).unwrap_err().contains(words));
        assert!(take(&pem(&[bad, other.list(2, &[7])]), &known(), None).unwrap_err().contains(words));
    }
}

#[test]
fn a_revoked_intermediate_takes_its_clients_with_it_wherever_its_certificate_comes_from() {
    let root = Ca::root("Root");
    let (good, bad) = (root.intermediate("Good", 20), root.intermediate("Bad", 30));
    let (under_good, under_bad) = (good.client(1), bad.client(1));
    let only_root = || authorities(&[&root.der]);
    let list = |known: &AuthorityFile| Some(take(&root.list(1, &[30]), known, None).unwrap());
    assert_eq!(refusal(only_root(), list(&only_root()), &[&under_good, &good.der]), "");
    let told = refusal(only_root(), list(&only_root()), &[&under_bad, &bad.der]);
    assert_eq!(told, "its intermediate `CN=Bad` is revoked");
    // In the authority file it is a link, in any order, and a client need not send it.
    for known in [&[&bad.der, &good.der, &root.der], &[&root.der, &good.der, &bad.der]] {
        let known = || authorities(known);
        assert_eq!(refusal(known(), list(&known()), &[&under_good]), "");
        assert_eq!(refusal(known(), list(&known()), &[&under_bad]), told);
        assert_eq!(refusal(known(), list(&known()), &[&under_bad, &bad.der]), told);
    }
    // Its own list is verified by its certificate there.
    let known = || authorities(&[&root.der, &good.der]);
    let lists = take(&pem(&[good.list(1, &[1]), root.list(1, &[])]), &known(), None).unwrap();
    assert_eq!(refusal(known(), Some(lists), &[&under_good]), "it is revoked");
    // Without its issuer it is an authority itself.
    assert_eq!(refusal(authorities(&[&good.der]), None, &[&under_good]), "");
}

#[test]
fn a_list_of_an_unknown_issuer_that_is_accepted_is_verified_when_its_issuer_is_known() {
    let root = Ca::root("Root");
    let (middle, impostor) = (root.intermediate("Middle", 20), root.intermediate("Middle", 21));
    let known = || authorities(&[&root.der]);
    let accept = |file: &[u8]| RevocationLists::take(file, &known(), None, UnknownIssuer::Accept).unwrap();
    let ask = |lists, serial| refusal(known(), Some(lists), &[&middle.client(serial), &middle.der]);
    assert_eq!(ask(accept(&middle.list(1, &[5])), 5), "it is revoked");
    assert_eq!(ask(accept(&middle.list(1, &[5])), 6), "");
    assert!(ask(accept(&impostor.list(1, &[])), 6).contains("not signed by its key"));
}

#[test]
fn an_expired_list_is_reported_and_still_revokes_and_a_key_makes_it_refuse() {
    let root = Ca::root("Root");
    let now = i64::try_from(UnixTime::now().as_secs()).unwrap();
    for (days, word) in [(EXPIRED, "has expired on"), ((-1, 3), "is not valid before")] {
        let known = || authorities(&[&root.der]);
        let lists = || take(&root.list_of(1, days, &[5], None), &known(), None).unwrap();
        let ask = |expired, serial| {
            refusal_by(
                &verifier(&config(WhenExpired::Refuse, expired), known(), Some(lists())),
                &[&root.client(serial)],
            )
        };
        assert_eq!((ask(WhenExpired::Warn, 5).as_str(), ask(WhenExpired::Warn, 6).as_str()), ("it is revoked", ""));
        assert_eq!(ask(WhenExpired::Refuse, 5), "it is revoked");
        assert!(ask(WhenExpired::Refuse, 6).contains(word), "{}", ask(WhenExpired::Refuse, 6));
        assert!(lists().faults(&known(), now, WhenExpired::Warn)[0].contains(word));
    }
    // A clock that is a little ahead of this one is no fault.
    let known = authorities(&[&root.der]);
    let list = take(&root.list_of(1, (0, 1), &[], None), &known, None).unwrap();
    assert_eq!(list.faults(&known, now - 60, WhenExpired::Refuse), Vec::<String>::new());
}

#[test]
fn an_expired_authority_admits_nobody_unless_a_key_says_so() {
    let root = Ca::root_of("Root", EXPIRED);
    let client = root.client(1);
    let ask = |expired, known| refusal_by(&verifier(&config(expired, WhenExpired::Warn), known, None), &[&client]);
    assert!(ask(WhenExpired::Refuse, authorities(&[&root.der])).contains("its authority `CN=Root` has expired on"));
    assert_eq!(ask(WhenExpired::Warn, authorities(&[&root.der])), "");
    // Renewed with the same key it is valid again, in either order.
    let renewed = root.renewed("Root", VALID);
    assert_eq!(ask(WhenExpired::Refuse, authorities(&[&root.der, &renewed])), "");
    assert_eq!(ask(WhenExpired::Refuse, authorities(&[&renewed, &root.der])), "");
}

#[test]
fn a_verification_holds_until_the_first_of_its_path_ends() {
    let root = Ca::root_of("Root", (1, 30));
    let client = root.client(1);
    let until = |days, expired| {
        let known = authorities(&[&root.der]);
        let lists = take(&root.list_of(1, days, &[], None), &known, None).unwrap();
        let verifier = verifier(&config(WhenExpired::Refuse, expired), known, Some(lists));
        verifier.verify(&client, &[], UnixTime::now()).unwrap().as_secs()
    };
    let now = UnixTime::now().as_secs();
    let is_day = |until: u64, days: u64| until.abs_diff(now + days * 86_400) < 60;
    assert!(is_day(until((1, 9), WhenExpired::Refuse), 1), "the client's own");
    let client_of_a_day = until((1, 0), WhenExpired::Warn);
    assert!(is_day(client_of_a_day, 1), "a list that only warns ends nothing");
}

#[test]
fn authorities_that_have_signed_each_other_are_authorities() {
    let (one, two) = (Ca::root("One"), Ca::root("Two"));
    let (one_by_two, two_by_one) = (two.cross(&one, "One"), one.cross(&two, "Two"));
    for known in [vec![&one_by_two, &two_by_one], vec![&one.der, &two_by_one], vec![&one.der, &two.der, &two_by_one]] {
        for client in [one.client(1), two.client(1)] {
            assert_eq!(refusal(authorities(&known), None, &[&client]), "");
        }
    }
    assert!(refusal(authorities(&[&one.der]), None, &[&two.client(1)]).contains("no authority"));
}
