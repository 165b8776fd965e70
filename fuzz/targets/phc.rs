//! Stored hashes: an accepted hash costs no more than its ceilings, and a refused one is never verified.
#![no_main]

use fedgate_core::password::{
    HashArena, HashCost, hash_with, is_acceptable_hash, is_bcrypt, needs_upgrade, verify_with,
};
use libfuzzer_sys::fuzz_target;

/// Hashes that cost more are not computed here: KiB times passes.
const CHEAP: u64 = 512;

fuzz_target!(|bytes: &[u8]| {
    // A line with the hash, and a password.
    let (stored, password) = bytes.split_at(bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len()));
    let Ok(stored) = std::str::from_utf8(stored) else { return };
    let mut arena = HashArena::default();
    if !is_acceptable_hash(stored) {
        assert!(!is_bcrypt(stored) && !needs_upgrade(stored, password, HashCost::DEFAULT));
        assert!(!verify_with(stored, password, &mut arena));
        return;
    }
    let parts: Vec<&str> = stored.split('$').collect();
    let cheap = match parts[..] {
        ["", "argon2id", "v=19", params, salt, _] => {
            let [memory, passes, lanes] = params.split(',').collect::<Vec<_>>()[..] else { panic!("three parameters") };
            let number = |text: &str, key: &str| -> u64 {
                let digits = text.strip_prefix(key).expect("its key");
                let number: u64 = digits.parse().expect("a number");
                assert_eq!(number.to_string(), digits, "one spelling");
                number
            };
            let (memory, passes, lanes) = (number(memory, "m="), number(passes, "t="), number(lanes, "p="));
            assert!(memory <= 256 * 1024 && (1..=10).contains(&passes) && (1..=16).contains(&lanes));
            assert!(memory >= 8 * lanes && !is_bcrypt(stored));
            let too_cheap = memory < HashCost::DEFAULT.memory_kib.into() || passes < HashCost::DEFAULT.passes.into();
            let needed = needs_upgrade(stored, password, HashCost::DEFAULT);
            // Hashes that are made here have a salt of 18 bytes (24 characters), and are of a prepared password. Others
            // are replaced as well if the password has another spelling, which ASCII never has.
            if salt.len() == 24 || password.is_ascii() {
                assert_eq!(needed, too_cheap);
            } else {
                assert!(needed || !too_cheap);
            }
            memory * passes <= CHEAP
        }
        ["", "2a" | "2b" | "2y", cost, digest] => {
            let cost: u32 = cost.parse().expect("a number");
            assert!((4..=15).contains(&cost) && digest.len() == 53 && is_bcrypt(stored));
            assert_eq!(needs_upgrade(stored, password, HashCost::DEFAULT), password.len() < 72);
            cost == 4
        }
        _ => panic!("neither argon2id nor bcrypt: {stored}"),
    };
    if cheap {
        assert_eq!(verify_with(stored, password, &mut arena), verify_with(stored, password, &mut arena));
        let made = hash_with(password, HashCost { memory_kib: 8, passes: 1 }, &mut arena);
        assert_eq!(made.is_ok(), password.len() <= 1024);
        let Ok(made) = made else { return };
        assert!(verify_with(&made, password, &mut arena), "what was made verifies");
        let other = [password, b"x"].concat();
        assert!(!verify_with(&made, &other, &mut arena));
    }
});
