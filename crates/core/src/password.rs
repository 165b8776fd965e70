//! Password hashes, made and verified as argon2id or bcrypt.
//!
//! The one rule: a stored hash is untrusted input. Its cost parameters are checked before any memory is taken for it,
//! so a corrupt or absurd hash costs nothing and verifies nothing.
//!
//! Both functions are synchronous and heavy (tens of milliseconds): callers run them on threads of their own.
//! References: RFC 9106 (argon2), the PHC string format, OWASP Password Storage Cheat Sheet.

mod characters;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rand::TryRngCore;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

pub use characters::{can_sign_in, is_blank};
use characters::{is_prepared, prepared};

/// The longest password that is looked at, in bytes.
pub const MAX_PASSWORD_BYTES: usize = 1024;
/// The shortest password that can be set, in characters, as in Thalamus's form. Shorter existing passwords remain
/// valid.
pub const MIN_PASSWORD_CHARACTERS: usize = 6;
/// The number of bytes that bcrypt reads of a password. A longer password is never set as bcrypt. One that Thalamus
/// has set is compared as Thalamus does it, because its holder would be locked out otherwise.
pub const BCRYPT_MAX_BYTES: usize = 72;
/// The highest bcrypt cost that is verified (2^15 rounds take about two seconds).
const BCRYPT_MAX_COST: u32 = 15;
/// The bcrypt cost of Thalamus's hashes: the highest that a caller without the right to write accounts may store.
const THALAMUS_BCRYPT_COST: u32 = 12;
const BCRYPT_SALT_BYTES: usize = 16;
/// The salt of a new argon2id hash. Its length says that the hash is of a prepared password. Salts of earlier hashes
/// and of other programs have 16 bytes as a rule, and those hashes are of the bytes as they were sent.
const SALT_BYTES: usize = 18;
const OUTPUT_BYTES: usize = 32;
/// Ceilings for stored argon2 parameters: memory in KiB (256 MiB), passes, lanes.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_PASSES: u32 = 10;
const MAX_LANES: u32 = 16;

/// Why a password could not be hashed.
#[derive(Debug, Error)]
pub enum PasswordError {
    /// Longer than [`MAX_PASSWORD_BYTES`].
    #[error("password is longer than {MAX_PASSWORD_BYTES} bytes")]
    TooLong,
    /// Longer than bcrypt reads: the rest would be ignored.
    #[error("password is longer than {BCRYPT_MAX_BYTES} bytes, which is all that Thalamus reads")]
    TooLongForBcrypt,
    /// bcrypt accepts no password with a NUL.
    #[error("bcrypt: {0}")]
    Bcrypt(String),
    /// The operating system gave no randomness for the salt.
    #[error("no randomness for the salt: {0}")]
    Randomness(String),
    /// The cost parameters are outside what argon2 allows.
    #[error("argon2: {0}")]
    Argon2(String),
}

/// The cost of a new hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over that memory.
    pub passes: u32,
}

impl HashCost {
    /// The default: 46 MiB and two passes.
    pub const DEFAULT: Self = Self { memory_kib: 47_104, passes: 2 };
    /// The lowest cost that an operator may configure (OWASP: 19 MiB, two passes).
    pub const FLOOR: Self = Self { memory_kib: 19_456, passes: 2 };

    /// The work of one hash of this cost.
    pub fn work(self) -> HashWork {
        HashWork::Argon2id { kib_passes: self.kib_passes() }
    }

    fn kib_passes(self) -> u64 {
        u64::from(self.memory_kib) * u64::from(self.passes)
    }
}

/// The kind of a new hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashKind {
    /// argon2id of this cost.
    Argon2id(HashCost),
    /// bcrypt as Thalamus makes it (`$2b$12$`), so that Thalamus can read it too.
    Bcrypt,
}

impl HashKind {
    /// The longest password for such a hash, in bytes.
    pub fn longest(self) -> usize {
        match self {
            Self::Argon2id(_) => MAX_PASSWORD_BYTES,
            Self::Bcrypt => BCRYPT_MAX_BYTES,
        }
    }

    /// Whether every reader of this kind reads a stored hash: Thalamus reads only bcrypt.
    pub fn admits(self, stored: &str) -> bool {
        match self {
            Self::Argon2id(_) => is_acceptable_hash(stored),
            Self::Bcrypt => is_bcrypt(stored),
        }
    }
}

/// The work of one hash, in units of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashWork {
    /// bcrypt rounds: two to the power of the cost.
    Bcrypt {
        /// How many.
        rounds: u64,
    },
    /// Memory in KiB times the passes over it.
    Argon2id {
        /// How many.
        kib_passes: u64,
    },
    /// None: the hash is never verified.
    None,
}

impl HashWork {
    /// The work of Thalamus's hashes: bcrypt of cost 12.
    pub const OF_THALAMUS: Self = Self::Bcrypt { rounds: 1 << THALAMUS_BCRYPT_COST };
}

/// Memory for argon2, kept between hashes: allocating 46 MiB for each hash costs as much as the hashing.
#[derive(Default)]
pub struct HashArena(Vec<Block>);

impl HashArena {
    fn take(&mut self, blocks: usize) -> &mut [Block] {
        if self.0.len() < blocks {
            self.0.resize(blocks, Block::new());
        }
        self.0.get_mut(..blocks).unwrap_or_default()
    }
}

/// Hashes a password with the given kind.
///
/// # Errors
/// As [`hash_with`]; or bcrypt would not read the whole password.
pub fn make(password: &[u8], kind: HashKind) -> Result<String, PasswordError> {
    match kind {
        HashKind::Argon2id(cost) => hash_with(password, cost, &mut HashArena::default()),
        HashKind::Bcrypt if password.len() > BCRYPT_MAX_BYTES => Err(PasswordError::TooLongForBcrypt),
        HashKind::Bcrypt => {
            let made = bcrypt::hash_with_salt(password, THALAMUS_BCRYPT_COST, random_salt::<BCRYPT_SALT_BYTES>()?);
            let made = made.map_err(|error| PasswordError::Bcrypt(error.to_string()))?;
            Ok(made.format_for_version(bcrypt::Version::TwoB))
        }
    }
}

fn random_salt<const BYTES: usize>() -> Result<[u8; BYTES], PasswordError> {
    let mut salt = [0; BYTES];
    rand::rngs::OsRng.try_fill_bytes(&mut salt).map_err(|error| PasswordError::Randomness(error.to_string()))?;
    Ok(salt)
}

/// Hashes a password into a PHC string (`$argon2id$v=19$m=…,t=…,p=1$salt$hash`), with memory from `arena`.
///
/// # Errors
/// The password is longer than [`MAX_PASSWORD_BYTES`], no salt could be drawn, or `cost` is outside what argon2 allows.
pub fn hash_with(password: &[u8], cost: HashCost, arena: &mut HashArena) -> Result<String, PasswordError> {
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(PasswordError::TooLong);
    }
    let salt = random_salt::<SALT_BYTES>()?;
    let password = prepared(password);
    let params = Params::new(cost.memory_kib, cost.passes, 1, Some(OUTPUT_BYTES))
        .map_err(|e| PasswordError::Argon2(e.to_string()))?;
    let mut output = Zeroizing::new([0u8; OUTPUT_BYTES]);
    let blocks = arena.take(params.block_count());
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(&password, &salt, output.as_mut(), blocks)
        .map_err(|e| PasswordError::Argon2(e.to_string()))?;
    Ok(format!(
        "$argon2id$v=19$m={},t={},p=1${}${}",
        cost.memory_kib,
        cost.passes,
        STANDARD_NO_PAD.encode(salt),
        STANDARD_NO_PAD.encode(output.as_ref())
    ))
}

/// Whether `stored` was made from `password`.
///
/// A hash that is malformed, of another kind, or beyond the cost ceilings verifies nothing, at no cost.
pub fn verify(stored: &str, password: &[u8]) -> bool {
    verify_with(stored, password, &mut HashArena::default())
}

/// As [`verify`], with memory from `arena`.
pub fn verify_with(stored: &str, password: &[u8], arena: &mut HashArena) -> bool {
    match StoredHash::parse(stored) {
        Some(StoredHash::Bcrypt { .. }) => {
            // bcrypt ignores the rest, in Thalamus as here.
            let read = password.get(..BCRYPT_MAX_BYTES).unwrap_or(password);
            password.len() <= MAX_PASSWORD_BYTES
                && !password.contains(&0)
                && bcrypt::verify(read, stored).unwrap_or(false)
        }
        Some(StoredHash::Argon2id(phc)) => password.len() <= MAX_PASSWORD_BYTES && phc.verify(password, arena),
        None => false,
    }
}

/// Whether `stored` is a well-formed hash that [`verify`] accepts, within its ceilings.
pub fn is_acceptable_hash(stored: &str) -> bool {
    StoredHash::parse(stored).is_some()
}

/// Whether a text that is no acceptable hash looks like a hash of another kind, or like a damaged one: the form of
/// crypt(3) and of the PHC string format (`$id$…`), an LDAP scheme (RFC 2307: `{SSHA}…`), or a form of Werkzeug or
/// Django.
///
/// Taken for a password, it would let anybody in who has seen the hash, and keep out the person who knows the password.
pub fn looks_like_hash(text: &str) -> bool {
    const LEAST: usize = 20;
    let is_name = |name: &str| {
        (1..=32).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let crypt = || text.strip_prefix('$').and_then(|rest| rest.split_once('$')).is_some_and(|(name, _)| is_name(name));
    let ldap = || text.strip_prefix('{').and_then(|rest| rest.split_once('}')).is_some_and(|(name, _)| is_name(name));
    let framework = || {
        let names = ["pbkdf2", "scrypt", "bcrypt", "argon2"];
        names.iter().any(|name| text.starts_with(name))
            && text.bytes().filter(|byte| matches!(byte, b'$' | b':')).count() >= 2
    };
    text.len() >= LEAST && !text.contains(' ') && (crypt() || ldap() || framework())
}

/// The work of comparing a password with `stored`.
pub fn work(stored: &str) -> HashWork {
    match StoredHash::parse(stored) {
        Some(StoredHash::Bcrypt { cost }) => HashWork::Bcrypt { rounds: 1 << cost },
        Some(StoredHash::Argon2id(phc)) => phc.cost().work(),
        None => HashWork::None,
    }
}

/// Whether an acceptable hash costs no more than the hashes made today: bcrypt of cost 12, or argon2id of the
/// configured cost `most`.
///
/// An account holder who could store a costlier hash could keep hashers and memory busy with each sign-in.
pub fn is_ordinary_hash(stored: &str, most: HashCost) -> bool {
    match StoredHash::parse(stored) {
        Some(StoredHash::Bcrypt { cost }) => cost <= THALAMUS_BCRYPT_COST,
        Some(StoredHash::Argon2id(phc)) => {
            let cost = phc.cost();
            cost.kib_passes() <= most.kib_passes() && cost.memory_kib <= most.memory_kib
        }
        None => false,
    }
}

/// Whether a verified `stored` hash should be replaced by a new argon2id hash of `cost`.
///
/// A bcrypt hash says nothing about bytes after the 72nd, but argon2id counts them. A password with a wrong tail would
/// pass bcrypt, and the new hash would then refuse the right password. So a password that may have such a tail keeps
/// its old hash. A hash of the bytes as they were sent is replaced if a prepared password would not fit it.
pub fn needs_upgrade(stored: &str, password: &[u8], cost: HashCost) -> bool {
    match StoredHash::parse(stored) {
        Some(StoredHash::Argon2id(phc)) => {
            phc.params.m_cost() < cost.memory_kib
                || phc.params.t_cost() < cost.passes
                || !(phc.is_of_prepared() || is_prepared(password))
        }
        Some(StoredHash::Bcrypt { .. }) => password.len() < BCRYPT_MAX_BYTES,
        None => false,
    }
}

/// Whether `stored` is a bcrypt hash, which Thalamus makes and reads.
pub fn is_bcrypt(stored: &str) -> bool {
    matches!(StoredHash::parse(stored), Some(StoredHash::Bcrypt { .. }))
}

enum StoredHash {
    Bcrypt { cost: u32 },
    Argon2id(PhcString),
}

impl StoredHash {
    fn parse(stored: &str) -> Option<Self> {
        if stored.len() > 512 || !stored.is_ascii() {
            return None;
        }
        if let Some(rest) = stored.strip_prefix("$argon2id$") {
            return PhcString::parse(rest).map(Self::Argon2id);
        }
        // `$2b$12$`, then 53 characters: 22 of salt, 31 of hash.
        let rest = ["$2a$", "$2b$", "$2y$"].iter().find_map(|prefix| stored.strip_prefix(prefix))?;
        let (cost, digest) = rest.split_once('$')?;
        let cost = (cost.len() == 2).then(|| cost.parse::<u32>().ok())??;
        let well_formed =
            digest.len() == 53 && digest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'/');
        (well_formed && (4..=BCRYPT_MAX_COST).contains(&cost)).then_some(Self::Bcrypt { cost })
    }
}

/// The parts of an argon2id PHC string, checked against the ceilings.
struct PhcString {
    params: Params,
    salt: Vec<u8>,
    output: Zeroizing<Vec<u8>>,
}

impl PhcString {
    fn parse(rest: &str) -> Option<Self> {
        let rest = rest.strip_prefix("v=19$")?;
        let mut parts = rest.split('$');
        let (params, salt, output) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let mut params = params.split(',');
        let memory: u32 = number(params.next()?, "m=")?;
        let passes: u32 = number(params.next()?, "t=")?;
        let lanes: u32 = number(params.next()?, "p=")?;
        // The ceilings are checked before `Params` exists, so a stored `m=4000000` never takes memory.
        if params.next().is_some() || memory > MAX_MEMORY_KIB || passes > MAX_PASSES || lanes > MAX_LANES {
            return None;
        }
        let salt = STANDARD_NO_PAD.decode(salt).ok().filter(|salt| (8..=64).contains(&salt.len()))?;
        let output = STANDARD_NO_PAD.decode(output).ok().filter(|output| (16..=64).contains(&output.len()))?;
        let params = Params::new(memory, passes, lanes, Some(output.len())).ok()?;
        Some(Self { params, salt, output: Zeroizing::new(output) })
    }

    fn cost(&self) -> HashCost {
        HashCost { memory_kib: self.params.m_cost(), passes: self.params.t_cost() }
    }

    /// Whether the hash was made here, of a prepared password.
    fn is_of_prepared(&self) -> bool {
        self.salt.len() == SALT_BYTES
    }

    fn verify(self, password: &[u8], arena: &mut HashArena) -> bool {
        let prepared = self.is_of_prepared().then(|| prepared(password));
        let password = prepared.as_deref().map_or(password, Vec::as_slice);
        let mut computed = Zeroizing::new(vec![0u8; self.output.len()]);
        let blocks = arena.take(self.params.block_count());
        let done = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params)
            .hash_password_into_with_memory(password, &self.salt, &mut computed, blocks)
            .is_ok();
        // Constant time, and no early return: neither tells how much of the hash matched.
        done & bool::from(computed.ct_eq(&self.output))
    }
}

/// Parses a parameter such as `m=47104`: digits only, no sign, no leading zero.
fn number(text: &str, key: &str) -> Option<u32> {
    let digits = text.strip_prefix(key)?;
    let canonical = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    canonical.then(|| digits.parse().ok())?
}

/// The key under which guesses at a password are counted: a digest of its hash, so that the hash itself is not stored
/// there.
pub fn guessed_of(stored: &str) -> String {
    blake3::hash(stored.as_bytes()).to_hex().chars().take(32).collect()
}

#[cfg(test)]
mod tests;
