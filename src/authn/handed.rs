//! Proofs of passwords on their way to another process: what a gateway hands to its successor, so that no password is
//! hashed again.
//!
//! The one rule: only right, unexpired proofs travel, and only with the key of their MACs. A MAC covers the stored hash,
//! so the successor admits nobody by one before it has read the account from the database itself: a password that was
//! changed meanwhile has another hash, and fits no proof. Neither account, nor stored hash, nor right, nor lease travels.
//!
//! All or nothing: a transfer that is cut off, too large, damaged or of another version is an error, and its reader
//! begins without proofs. Who may be handed proofs is decided by the caller, `gateway/lifecycle/handover.rs`.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use zeroize::Zeroizing;

use super::Authenticator;
use super::client::{ClientSource, SOURCE_BYTES};
use super::proof::{PasswordProof, ProofKey};
use fedgate_base::moment::BootMoment;

/// The head names the format. Another version begins with other bytes.
const HEAD: &[u8; 17] = b"fedgate proofs 1\n";
/// The most proofs of one transfer: 82 MB.
const MOST: usize = 1_000_000;
/// MAC, client address, and three moments.
const RECORD_BYTES: usize = 32 + SOURCE_BYTES + 3 * 8;
/// The records that are read or written at a time.
const RECORDS_AT_ONCE: usize = 512;

/// Proofs, and the key of their MACs.
pub struct HandedProofs {
    key: Zeroizing<[u8; 32]>,
    proofs: Vec<HandedProof>,
}

/// A right proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HandedProof {
    key: ProofKey,
    start: BootMoment,
    until: BootMoment,
    used: BootMoment,
}

impl HandedProofs {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.proofs.len()
    }

    /// Writes them in the format of this version.
    ///
    /// # Errors
    /// The reader went away, or does not read.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        let count = u32::try_from(self.proofs.len()).map_err(io::Error::other)?.to_le_bytes();
        let mut sum = blake3::Hasher::new_keyed(&self.key);
        for part in [&HEAD[..], &self.key[..], &count] {
            sum.update(part);
            to.write_all(part)?;
        }
        let mut buffer = Zeroizing::new(Vec::with_capacity(RECORDS_AT_ONCE * RECORD_BYTES));
        for some in self.proofs.chunks(RECORDS_AT_ONCE) {
            buffer.clear();
            some.iter().for_each(|proof| proof.write(&mut buffer));
            sum.update(&buffer);
            to.write_all(&buffer)?;
        }
        to.write_all(sum.finalize().as_bytes())
    }

    /// Reads what [`HandedProofs::write`] wrote.
    ///
    /// # Errors
    /// It is cut off, too large, damaged, or in another format.
    pub fn read(mut from: impl Read) -> io::Result<Self> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let (mut head, mut key, mut count) = ([0; HEAD.len()], Zeroizing::new([0; 32]), [0; 4]);
        from.read_exact(&mut head)?;
        if head != *HEAD {
            return Err(invalid("another version hands over verified passwords in another format"));
        }
        from.read_exact(key.as_mut())?;
        from.read_exact(&mut count)?;
        let mut sum = blake3::Hasher::new_keyed(&key);
        sum.update(&head).update(&key[..]).update(&count);
        let count = usize::try_from(u32::from_le_bytes(count)).unwrap_or(usize::MAX);
        // Before anything is allocated for them.
        if count > MOST {
            return Err(invalid("more verified passwords than are taken over"));
        }
        let mut proofs = Vec::with_capacity(count);
        let mut buffer = Zeroizing::new(vec![0; RECORDS_AT_ONCE * RECORD_BYTES]);
        while proofs.len() < count {
            let some = RECORDS_AT_ONCE.min(count - proofs.len());
            let bytes = buffer.get_mut(..some * RECORD_BYTES).unwrap_or_default();
            from.read_exact(bytes)?;
            sum.update(bytes);
            for record in bytes.chunks_exact(RECORD_BYTES) {
                proofs.push(HandedProof::read(record).ok_or_else(|| invalid("a damaged verified password"))?);
            }
        }
        let mut expected = [0; 32];
        from.read_exact(&mut expected)?;
        // In constant time, as blake3 compares its hashes.
        if sum.finalize() != blake3::Hash::from_bytes(expected) {
            return Err(invalid("verified passwords that were damaged on their way"));
        }
        Ok(Self { key, proofs })
    }
}

impl HandedProof {
    fn write(&self, to: &mut Vec<u8>) {
        let (mac, source) = &self.key;
        to.extend_from_slice(mac);
        to.extend_from_slice(&ClientSource::to_bytes(*source));
        [self.start, self.until, self.used].iter().for_each(|at| to.extend_from_slice(&at.as_nanos().to_le_bytes()));
    }

    fn read(record: &[u8]) -> Option<Self> {
        let (mac, rest) = record.split_first_chunk::<32>()?;
        let (source, rest) = rest.split_first_chunk::<SOURCE_BYTES>()?;
        let mut moments =
            rest.chunks_exact(8).map(|at| Some(BootMoment::from_nanos(u64::from_le_bytes(at.try_into().ok()?))));
        let mut moment = || moments.next()?;
        Some(Self {
            key: (*mac, ClientSource::from_bytes(source)?),
            start: moment()?,
            until: moment()?,
            used: moment()?,
        })
    }

    /// The proof for a process with these settings; none if it does not count there. Both processes read the same clock,
    /// that of the machine.
    fn admit(self, now: BootMoment, lasts: Duration, idle: Duration) -> Option<PasswordProof> {
        let Self { key: (mac, source), start, until, used } = self;
        if start > now || used < start || used > now {
            return None;
        }
        let made = PasswordProof::new(mac, source, true, lasts);
        let last_used = AtomicU64::new(used.since(start).as_secs());
        // The shorter of both configurations.
        let proof = PasswordProof { start, until: until.min(start + lasts), last_used, ..made };
        proof.counts(now, idle).then_some(proof)
    }
}

impl Authenticator {
    /// The proofs for a successor: those that still count, and no wrong passwords.
    pub fn proofs_to_hand(&self) -> HandedProofs {
        let (now, mut proofs) = (BootMoment::now(), vec![]);
        self.proofs.each_right(|key, proof| {
            if proofs.len() < MOST && proof.counts(now, self.settings.verified_idle) {
                let used = proof.last_used();
                proofs.push(HandedProof { key: *key, start: proof.start, until: proof.until, used });
            }
        });
        HandedProofs { key: Zeroizing::new(*self.key()), proofs }
    }

    /// Uses the proofs of a predecessor, and its key from now on; before the first request only. Returns how many count.
    pub fn take_proofs(&self, handed: HandedProofs) -> usize {
        let HandedProofs { key, proofs } = handed;
        if self.handed_key.set(key).is_err() {
            return 0;
        }
        let (now, settings) = (BootMoment::now(), &self.settings);
        let mut taken = 0;
        for proof in proofs {
            if let Some(counts) = proof.admit(now, settings.verified_for, settings.verified_idle) {
                self.proofs.insert(proof.key, Arc::new(counts));
                taken += 1;
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::client::ClientAddress;

    const LASTS: Duration = Duration::from_secs(900);
    const IDLE: Duration = Duration::from_secs(300);

    fn some(count: usize) -> HandedProofs {
        let now = BootMoment::now();
        let proof = |number: usize| {
            let source = match number % 3 {
                0 => None,
                1 => ClientAddress::from(Some([192, 0, 2, 1].into())).source(),
                _ => ClientAddress::from(Some("2001:db8:1:2::".parse().unwrap())).source(),
            };
            let mac = *blake3::hash(&number.to_le_bytes()).as_bytes();
            HandedProof { key: (mac, source), start: now, until: now + LASTS, used: now }
        };
        HandedProofs { key: Zeroizing::new([7; 32]), proofs: (0..count).map(proof).collect() }
    }

    fn written(proofs: &HandedProofs) -> Vec<u8> {
        let mut bytes = vec![];
        proofs.write(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        for count in [0, 1, RECORDS_AT_ONCE, 3 * RECORDS_AT_ONCE + 1] {
            let proofs = some(count);
            let read = HandedProofs::read(&*written(&proofs)).unwrap();
            assert_eq!((&read.key, &read.proofs, read.count()), (&proofs.key, &proofs.proofs, count));
        }
    }

    #[test]
    fn a_transfer_that_is_cut_off_too_large_damaged_or_of_another_version_is_refused() {
        let bytes = written(&some(40));
        for length in 0..bytes.len() {
            assert!(HandedProofs::read(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            assert!(HandedProofs::read(&*damaged).is_err(), "byte {place}");
        }
        let count = HEAD.len() + 32..HEAD.len() + 36;
        let mut large = bytes.clone();
        large[count].copy_from_slice(&u32::MAX.to_le_bytes());
        // Endless zeros behind: nothing of them is read.
        let mut behind = io::repeat(0);
        let error = HandedProofs::read(large.chain(&mut behind)).err().unwrap();
        assert!(error.to_string().starts_with("more verified passwords"), "{error}");
        let mut later = bytes;
        later[HEAD.len() - 2] = b'2';
        let error = HandedProofs::read(&*later).err().unwrap();
        assert!(error.to_string().starts_with("another version"), "{error}");
    }

    #[test]
    fn a_proof_counts_no_longer_than_either_configuration_says() {
        let now = BootMoment::now();
        let seconds = Duration::from_secs;
        let proof = |age, lasts, unused| {
            let start = now - seconds(age);
            HandedProof { key: ([1; 32], None), start, until: start + seconds(lasts), used: now - seconds(unused) }
        };
        #[rustfmt::skip]
        let cases = [
            // age  lasts  unused  how long it counts
            (  10,    900,      0, Some(890)),
            (  10,     60,      0, Some(50)),
            (  10,  3_600,      0, Some(890)),
            ( 901,  3_600,      0, None),
            (  61,     60,      0, None),
            ( 600,    900,    299, Some(300)),
            ( 600,    900,    301, None),
            // Used before it was made.
            (  10,    900,     11, None),
        ];
        for (age, lasts, unused, expected) in cases {
            let admitted = proof(age, lasts, unused).admit(now, LASTS, IDLE);
            let left = admitted.as_ref().map(|proof| proof.until.since(now).as_secs());
            assert_eq!(left, expected, "{age} {lasts} {unused}");
            assert!(admitted.is_none_or(|proof| proof.right));
        }
        let ahead = HandedProof { start: now + seconds(5), ..proof(0, 900, 0) };
        assert!(ahead.admit(now, LASTS, IDLE).is_none(), "made in the future");
    }
}
