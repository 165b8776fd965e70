use super::*;

const CHEAP: HashCost = HashCost { memory_kib: 64, passes: 1 };

#[test]
fn a_hash_verifies_its_password_and_no_other() {
    let mut arena = HashArena::default();
    let stored = hash_with(b"gnusolidario", CHEAP, &mut arena).unwrap();
    assert!(verify_with(&stored, b"gnusolidario", &mut arena));
    assert!(!verify_with(&stored, b"gnusolidari", &mut arena));
    assert!(!verify_with(&stored, b"", &mut arena));
    assert!(is_acceptable_hash(&stored) && !is_bcrypt(&stored));
}

#[test]
fn a_password_set_in_one_spelling_of_its_letters_is_verified_in_the_other_and_an_old_hash_in_its_own() {
    let mut arena = HashArena::default();
    let (composed, decomposed) = ("contrase\u{f1}a".as_bytes(), "contrasen\u{303}a".as_bytes());
    for set in [composed, decomposed] {
        let stored = hash_with(set, CHEAP, &mut arena).unwrap();
        assert!(verify(&stored, composed) && verify(&stored, decomposed) && !verify(&stored, b"contrasena"));
        assert!(!needs_upgrade(&stored, decomposed, CHEAP), "{stored}");
    }
    // Hashes of Thalamus, and of other programs, are of bytes.
    let of_thalamus = make(decomposed, HashKind::Bcrypt).unwrap();
    let mut output = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, Some(32)).unwrap())
        .hash_password_into(decomposed, b"sixteen bytes...", &mut output)
        .unwrap();
    let (salt, output) = (STANDARD_NO_PAD.encode(b"sixteen bytes..."), STANDARD_NO_PAD.encode(output));
    let of_another = format!("$argon2id$v=19$m=64,t=1,p=1${salt}${output}");
    for stored in [of_thalamus, of_another] {
        assert!(verify(&stored, decomposed) && !verify(&stored, composed), "{stored}");
        // The first login with the right bytes makes it a hash that both spellings fit.
        assert!(needs_upgrade(&stored, decomposed, CHEAP), "{stored}");
    }
}

#[test]
fn an_arena_used_before_gives_the_same_answer() {
    let mut used = HashArena::default();
    hash_with(b"first", HashCost { memory_kib: 256, passes: 1 }, &mut used).unwrap();
    let stored = hash_with(b"second", CHEAP, &mut HashArena::default()).unwrap();
    assert!(verify_with(&stored, b"second", &mut used));
}

#[test]
fn bcrypt_of_every_prefix_is_verified_and_of_long_passwords_what_thalamus_reads_of_them() {
    let made = bcrypt::hash_with_salt(b"freedom", 4, [7; 16]).unwrap();
    for version in [bcrypt::Version::TwoA, bcrypt::Version::TwoB, bcrypt::Version::TwoY] {
        let stored = made.format_for_version(version);
        assert!(verify(&stored, b"freedom"), "{stored}");
        assert!(!verify(&stored, b"Freedom"), "{stored}");
        assert!(needs_upgrade(&stored, b"freedom", HashCost::DEFAULT));
    }
    let long = bcrypt::hash_with_salt([b'x'; 72], 4, [7; 16]).unwrap().to_string();
    assert!(verify(&long, &[b'x'; 72]));
    assert!(!verify(&long, &[b'x'; 71]));
    // With 72 bytes it is unknown whether more followed.
    assert!(
        needs_upgrade(&long, &[b'x'; 71], HashCost::DEFAULT) && !needs_upgrade(&long, &[b'x'; 72], HashCost::DEFAULT)
    );
    assert!(verify(&long, &[b'x'; 73]) && !verify(&long, &[b'x'; MAX_PASSWORD_BYTES + 1]));
    // 43 letters in 86 bytes, of which Thalamus has hashed 36 letters.
    let cyrillic = "пароль-пароль-пароль-пароль-пароль-пароль-п";
    let stored = bcrypt::hash_with_salt(&cyrillic.as_bytes()[..72], 4, [7; 16]).unwrap().to_string();
    assert!(verify(&stored, cyrillic.as_bytes()) && !verify(&stored, &cyrillic.as_bytes()[2..]));
}

#[test]
fn a_hash_for_thalamus_is_bcrypt_of_cost_12_and_of_no_password_that_it_would_cut() {
    let made = make(&[b'x'; 72], HashKind::Bcrypt).unwrap();
    assert!(made.starts_with("$2b$12$") && made.len() == 60, "{made}");
    assert!(verify(&made, &[b'x'; 72]) && !verify(&made, &[b'x'; 71]));
    assert!(matches!(make(&[b'x'; 73], HashKind::Bcrypt), Err(PasswordError::TooLongForBcrypt)));
    assert!(HashKind::Bcrypt.admits(&made) && HashKind::Argon2id(CHEAP).admits(&made));
    let other = make(b"password", HashKind::Argon2id(CHEAP)).unwrap();
    assert!(!HashKind::Bcrypt.admits(&other) && HashKind::Argon2id(CHEAP).admits(&other));
}

#[test]
fn absurd_or_corrupt_hashes_verify_nothing() {
    let salt = "c29tZXNhbHRzb21lc2FsdA";
    let out = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE";
    #[rustfmt::skip]
    let cases = [
        format!("$argon2id$v=19$m=4294967295,t=1,p=1${salt}${out}"),
        format!("$argon2id$v=19$m=65536,t=4294967295,p=1${salt}${out}"),
        format!("$argon2id$v=19$m=65536,t=1,p=99999${salt}${out}"),
        format!("$argon2id$v=19$m=+64,t=1,p=1${salt}${out}"),
        format!("$argon2i$v=19$m=64,t=1,p=1${salt}${out}"),
        format!("$argon2id$v=19$m=64,t=1,p=1${salt}"),
        format!("$argon2id$v=19$m=64,t=1,p=1$!${out}"),
        "$2b$31$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".into(),
        "$2b$12$short".into(), String::new(), "plain".into(), "$2b$".into(), "é".into(),
    ];
    for stored in cases {
        assert!(!is_acceptable_hash(&stored), "{stored}");
        assert!(!verify(&stored, b"x"), "{stored}");
    }
}

#[test]
fn the_work_of_a_hash_is_in_its_parameters_and_dearer_ones_are_reported() {
    let bcrypt = |cost: u32| format!("$2b${cost:02}${}", "a".repeat(53));
    let argon2id = |memory: u32, passes: u32| {
        format!(
            "$argon2id$v=19$m={memory},t={passes},p=1$c29tZXNhbHRzb21lc2FsdA$MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE"
        )
    };
    #[rustfmt::skip]
    let cases = [
        (bcrypt(4),              HashWork::Bcrypt { rounds: 16 },             true),
        (bcrypt(12),             HashWork::OF_THALAMUS,                       true),
        (bcrypt(13),             HashWork::Bcrypt { rounds: 8192 },           false),
        (bcrypt(15),             HashWork::Bcrypt { rounds: 32_768 },         false),
        (bcrypt(16),             HashWork::None,                              false),
        (argon2id(47_104, 2),    HashWork::Argon2id { kib_passes: 94_208 },   true),
        (argon2id(19_456, 4),    HashWork::Argon2id { kib_passes: 77_824 },   true),
        (argon2id(47_104, 3),    HashWork::Argon2id { kib_passes: 141_312 },  false),
        (argon2id(47_105, 1),    HashWork::Argon2id { kib_passes: 47_105 },   false),
        (argon2id(262_144, 10),  HashWork::Argon2id { kib_passes: 2_621_440 }, false),
        (String::new(),          HashWork::None,                              false),
    ];
    for (stored, expected, is_ordinary) in cases {
        assert_eq!((work(&stored), is_ordinary_hash(&stored, HashCost::DEFAULT)), (expected, is_ordinary), "{stored}");
    }
    assert_eq!(
        make(b"gnusolidario", HashKind::Argon2id(HashCost::DEFAULT))
            .map(|made| (work(&made), is_ordinary_hash(&made, HashCost::DEFAULT)))
            .unwrap(),
        (HashCost::DEFAULT.work(), true)
    );
}

#[test]
fn a_hash_is_as_ordinary_as_the_configured_cost_has_it() {
    let hash = |memory: u32, passes: u32| {
        format!("$argon2id$v=19$m={memory},t={passes},p=1$c29tZXNhbHQ$MDEyMzQ1Njc4OTAxMjM0NQ")
    };
    let dear = HashCost { memory_kib: 65_536, passes: 3 };
    #[rustfmt::skip]
    let cases = [
        // memory, passes, whether ordinary under the floor, the default, and a higher configured cost
        (19_456, 2, [true, true, true]),
        (19_456, 3, [false, true, true]),
        (47_104, 2, [false, true, true]),
        (47_104, 3, [false, false, true]),
        (65_536, 1, [false, false, true]),
        (65_536, 4, [false, false, false]),
    ];
    for (memory, passes, expected) in cases {
        let ordinary =
            [HashCost::FLOOR, HashCost::DEFAULT, dear].map(|most| is_ordinary_hash(&hash(memory, passes), most));
        assert_eq!(ordinary, expected, "{memory} KiB, {passes} passes");
    }
}

#[test]
fn a_known_answer_of_another_implementation_verifies() {
    // From the reference implementation's test vectors (argon2id, m=65536, t=2, p=1, "password", "somesalt").
    let stored = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    assert!(verify(stored, b"password"));
    assert!(!verify(stored, b"passwore"));
}
