//! Revocation lists of the authorities of clients (RFC 5280, section 5).
//!
//! The one rule: a revoked certificate stays revoked until a fresher list of the same issuer says otherwise. A file
//! without a list changes nothing; nor does a list that its issuer has not signed, or one older than that in force.
//! A good list beside such a one counts.

use std::sync::Arc;

use rustls::pki_types::SubjectPublicKeyInfoDer;

use super::authorities::AuthorityFile;
use super::revocation_file::{self, ListSigner, RevocationList, significant};
use fedgate_base::config::{UnknownIssuer, WhenExpired};
use fedgate_base::pem::{CertificateValidity, date};

/// How far an authority's clock may be ahead of this one.
const SKEW_SECONDS: i64 = 300;

/// Most unusable lists of a file that are reported one by one.
const MOST_NOTES: usize = 16;

/// The list in force of each issuer.
#[derive(Debug)]
pub(super) struct RevocationLists {
    lists: Vec<Arc<RevocationList>>,
    /// Lists of the file that were not taken, as text that follows its name.
    notes: Vec<String>,
}

/// Why the lists do not accept a certificate.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RevocationFault {
    /// The list names it.
    Revoked,
    /// The list has expired or is not valid yet, and `tls.client_crl_expired` makes that a reason to refuse.
    Stale(String),
    /// The list is not signed by the issuer that the client has sent.
    Unsigned,
}

impl RevocationList {
    /// Whether another list has the same issuer, signer and distribution point.
    fn is_of_kind(&self, other: &Self) -> bool {
        self.is_by_signer_of(other) && self.point == other.point
    }

    fn is_by_signer_of(&self, other: &Self) -> bool {
        let signer = match (&self.signer, &other.signer) {
            (ListSigner::Known(one), ListSigner::Known(other)) => one == other,
            (ListSigner::Unknown(_), ListSigner::Unknown(_)) => true,
            _ => false,
        };
        signer && self.issuer == other.issuer
    }

    /// Whether another list of the same kind was issued later: by number if both have one, then by date.
    fn is_older_than(&self, other: &Self) -> bool {
        match (&self.number, &other.number) {
            (Some(one), Some(other)) if one != other => one < other,
            _ => self.validity.from < other.validity.from,
        }
    }

    /// The fault of its dates now, as text that follows its name.
    fn staleness(&self, now: i64) -> Option<String> {
        CertificateValidity { from: self.validity.from.saturating_sub(SKEW_SECONDS), ..self.validity }.fault(now)
    }

    /// Whether it names a certificate as revoked.
    fn holds(&self, serial: &[u8]) -> bool {
        let serial = significant(serial);
        self.serials.binary_search_by(|known| (**known).cmp(serial)).is_ok()
    }

    fn is_still_known(&self, authorities: &AuthorityFile) -> bool {
        match &self.signer {
            ListSigner::Known(key) => authorities.named(&self.issuer).any(|authority| authority.key == *key),
            ListSigner::Unknown(_) => true,
        }
    }
}

impl RevocationLists {
    /// The lists of a file, each verified. Of several of one issuer the freshest counts, also against those in
    /// force `before`.
    ///
    /// If there are lists `before`, a bad list leaves the last good one of its issuer in force, and the lists of
    /// other issuers count. At a start there is none, and the gateway would accept certificates whose revocation it
    /// cannot know; so one bad list refuses the file.
    ///
    /// # Errors
    /// The fault of the file, as text that follows its name; then nothing of it counts.
    pub(super) fn take(
        bytes: &[u8],
        authorities: &AuthorityFile,
        before: Option<&Self>,
        unknown: UnknownIssuer,
    ) -> Result<Self, String> {
        let (mut lists, mut notes) = (Vec::<Arc<RevocationList>>::new(), vec![]);
        for list in revocation_file::parse_all(bytes)? {
            let list = match list.and_then(|list| verified(list, authorities, unknown)) {
                Ok(list) => Arc::new(list),
                Err(problem) if before.is_none() => return Err(problem),
                Err(problem) => {
                    notes.push(problem);
                    continue;
                }
            };
            match lists.iter_mut().find(|other| other.is_of_kind(&list)) {
                Some(other) if other.is_older_than(&list) => *other = list,
                Some(_) => {}
                None => lists.push(list),
            }
        }
        if lists.is_empty() {
            return Err(notes.into_iter().next().unwrap_or_default());
        }
        notes.truncate(MOST_NOTES);
        notes.iter_mut().for_each(|note| note.push_str("; the other lists of the file are in force"));
        let mut taken = Self { lists, notes };
        before.iter().flat_map(|before| &before.lists).for_each(|old| taken.keep(old, authorities));
        Ok(taken)
    }

    /// Keeps a list that was in force, unless there is a fresher one.
    fn keep(&mut self, old: &Arc<RevocationList>, authorities: &AuthorityFile) {
        let (name, since) = (&old.name, date(old.validity.from));
        if let Some(new) = self.lists.iter_mut().find(|new| new.is_of_kind(old)) {
            // Rollback: an older, validly signed list would accept what was revoked since.
            if !new.is_older_than(old) {
                return;
            }
            let found = date(new.validity.from);
            *new = Arc::clone(old);
            self.notes.push(format!(
                "the list of `{name}` is of {found}, older than the one in force, of {since}, which stays in force; \
                 a restart takes it"
            ));
        } else if !self.lists.iter().any(|new| new.is_by_signer_of(old) && new.point.is_empty()) {
            // A complete list replaces those of single distribution points. A list is kept even if its authority is
            // gone: the authority may come back when a half-written file is whole.
            self.lists.push(Arc::clone(old));
            if old.is_still_known(authorities) {
                self.notes.push(format!(
                    "there is no longer a good list of `{name}`; the one of {since} stays in force until a restart, \
                     or until `tls.client_ca` no longer has that authority"
                ));
            }
        }
    }

    /// Faults of the lists now, as text that follows the file's name.
    pub(super) fn faults(&self, authorities: &AuthorityFile, now: i64, expired: WhenExpired) -> Vec<String> {
        let known = self.lists.iter().filter(|list| list.is_still_known(authorities));
        let stale = known.filter_map(|list| {
            let fault = list.staleness(now)?;
            let effect = match expired {
                WhenExpired::Warn => {
                    "the certificates that it lists stay revoked, and those revoked since then are accepted"
                }
                WhenExpired::Refuse => "every certificate of that authority is refused",
            };
            Some(format!("the list of `{}` {fault}; {effect}", list.name))
        });
        self.notes.iter().cloned().chain(stale).collect()
    }

    /// Looks up a certificate in the lists of its issuer; returns until when the answer holds. An issuer without a
    /// list has revoked nothing.
    ///
    /// The lists of a name count for each of its keys: an authority with a new key keeps revoking what it signed
    /// with the old one, and one issuer never uses a number twice (RFC 5280, 4.1.2.2).
    pub(super) fn ask(
        &self,
        issuer: &[u8],
        key: &SubjectPublicKeyInfoDer<'_>,
        serial: &[u8],
        now: i64,
        expired: WhenExpired,
    ) -> Result<i64, RevocationFault> {
        let named: Vec<_> = self.lists.iter().filter(|list| list.issuer == issuer).collect();
        let counting: Vec<_> = named.iter().filter(|list| list.signer.is_known_by(key)).collect();
        if counting.is_empty() && !named.is_empty() {
            // The name has lists, but none of this key: the state is unknown, and unknown refuses.
            return Err(RevocationFault::Unsigned);
        }
        if counting.iter().any(|list| list.holds(serial)) {
            return Err(RevocationFault::Revoked);
        }
        if expired == WhenExpired::Warn {
            return Ok(i64::MAX);
        }
        let mut until = i64::MAX;
        for list in &counting {
            // Of one distribution point, the list that lasts longest counts.
            let alike = counting.iter().filter(|other| other.point == list.point);
            let ends = alike.filter(|other| other.staleness(now).is_none()).map(|other| other.validity.to);
            let Some(end) = ends.max() else {
                let fault = list.staleness(now).unwrap_or_default();
                return Err(RevocationFault::Stale(format!("the revocation list of `{}` {fault}", list.name)));
            };
            until = until.min(end);
        }
        Ok(until)
    }
}

impl ListSigner {
    /// Whether a list counts for certificates that the holder of this key has issued under its issuer's name.
    fn is_known_by(&self, key: &SubjectPublicKeyInfoDer<'_>) -> bool {
        match self {
            Self::Known(_) => true,
            Self::Unknown(signed) => signed.is_by(key),
        }
    }
}

/// Finds the signer of a list.
fn verified(
    list: RevocationList,
    authorities: &AuthorityFile,
    unknown: UnknownIssuer,
) -> Result<RevocationList, String> {
    let ListSigner::Unknown(signed) = &list.signer else { return Ok(list) };
    let name = &list.name;
    let issuers: Vec<_> = authorities.named(&list.issuer).collect();
    match issuers.iter().find(|issuer| signed.is_by(&issuer.key)) {
        Some(issuer) => Ok(RevocationList { signer: ListSigner::Known(issuer.key.clone()), ..list }),
        None if !issuers.is_empty() => {
            Err(format!("holds a list of `{name}` that is not signed by the key of that authority in `tls.client_ca`"))
        }
        None if unknown == UnknownIssuer::Accept => Ok(list),
        None => Err(format!(
            "holds a list of `{name}`, whose certificate is not in `tls.client_ca`; put it there (an intermediate \
             beside its issuer is no authority of its own), or set `tls.client_crl_unknown_issuer` to \"accept\""
        )),
    }
}
